"""What a result says of a stage, in the words of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .attempt_model import Ending
from .problems import name_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stageflow_actors import RunResult

    from .restart_model import Problem


def describe(result: RunResult, name: str) -> Ending:
    """Return how a stage ended, its output being a tuple of status, data and label."""
    failure = result.failures.get(name)
    output: Any = None
    if name in result:
        output = (result[name].status.value, _plain(result.data(name)), result[name].label)
    return Ending(result.states[name], output, None if failure is None else name_problem(failure.error))


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return data with the failures of items, which a fan-out gives, as the model names them."""
    failures = {index: name_problem(failure.error) for index, failure in data.get("failures", {}).items()}
    return {**data, "failures": failures} if "failures" in data else dict(data)


def flatten(ending: Ending) -> Ending:
    """Return an ending of the model in the same form."""
    output: Any = ending.output
    return attrs.evolve(ending, output=None if output is None else (output.status, output.data, output.label))


def list_problems(result: RunResult, name: str) -> list[Problem | None]:
    """Return why each attempt at a stage failed, None where it did not."""
    attempts = result.attempts.get(name, ())
    return [None if attempt.error is None else name_problem(attempt.error) for attempt in attempts]
