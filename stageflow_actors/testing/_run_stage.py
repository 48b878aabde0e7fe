"""One stage alone, run as a run would run it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, final

import attrs

from stageflow_actors import (
    FanOutLimiterStage,
    Pipeline,
    StageFailedError,
    StageOutput,
    StageStatus,
    Supervisor,
    Trigger,
)
from stageflow_actors._stage import inspect_runner
from stageflow_actors._validation import refuse

from ._listening import listen

if TYPE_CHECKING:
    from types import TracebackType

    from stageflow_actors import ContextSnapshot, Runner, RunResult, StageContext, StageKind


async def run_stage(
    runner: Runner,
    snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
    *,
    inputs: Mapping[str, StageOutput | Mapping[str, Any]] | None = None,
    config: Mapping[str, Any] | None = None,
    name: str = "stage",
    kind: StageKind | None = None,
    timeout: float | None = None,
) -> StageOutput:
    """Run one stage once, under a supervisor of its own, and return what it returned.

    A `skip`, `cancel`, `fail` or `retry` is returned like any output: nothing is restarted. A mapping comes back as
    the `ok` output that it means. Cancelling the caller cancels the stage.

    Example:
        ```python
        output = await run_stage(Score, {"user": 7}, inputs={"fetch": {"rows": [1, 2]}}, config={"limit": 10})
        assert output.data["score"] == 3
        ```

    Args:
        runner: The stage, in any form that `Pipeline.with_stage` takes.
        snapshot: The message; a mapping is short for a snapshot with that `data`.
        inputs: What its dependencies have put out, by name: an output that is ok or a skip; a mapping is short for
            `ok`. It runs whatever they are, as with `Trigger.ALL_DONE`.
        config: Its configuration.
        name: Its name.
        kind: What it is for; the runner's own unless given, else `WORK`.
        timeout: Seconds that it may take.

    Raises:
        PipelineValidationError: An argument cannot work. Nothing has started.
        Exception: What the stage raised, itself; a `StageTimeoutError` where it took too long, a `ContractError`
            where it returned what is no output.
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        refuse(f"inputs must be a mapping of stage to output, not {inputs!r}", hint="write inputs={'fetch': {...}}")
    given = dict(inputs or {})
    pipeline = Pipeline("run_stage")
    for dependency in given:
        pipeline = pipeline.with_stage(dependency, _stand_in)
    checked = pipeline.with_stage(
        name, runner, kind, tuple(given), config=config, trigger=Trigger.ALL_DONE, timeout=timeout
    )
    said = _Said()
    heard = pipeline.with_stages([attrs.evolve(checked.stages[-1], runner=_hear(runner, said))])
    async with Supervisor() as supervisor:
        result = await supervisor.run(heard, snapshot, overrides=given, continue_on_failure=True)
    return _conclude(result, name, said.output)


async def _stand_in(_ctx: StageContext) -> None:
    """Stand for a stage whose output is given; never called."""


@final
class _Said:
    """Hears what the stage returns; of a fan-out, the workers, of which the first to cancel speaks for the stage."""

    def __init__(self) -> None:
        self.output: StageOutput | None = None

    def began(self, ctx: StageContext, /) -> None:
        pass

    def returned(self, _call: object, value: object, /) -> None:
        if isinstance(value, StageOutput) and (self.output is None or self.output.status is not StageStatus.CANCEL):
            self.output = value

    def raised(self, call: object, error: BaseException, /) -> None:
        pass


def _hear(runner: Any, said: _Said) -> Any:
    if not isinstance(runner, FanOutLimiterStage):
        return listen(runner, inspect_runner(runner), said)
    twin = copy(runner)
    twin.worker = listen(runner.worker, inspect_runner(runner.worker), said)
    return twin


def _conclude(result: RunResult, name: str, said: StageOutput | None) -> StageOutput:
    """Return what the stage returned, or raise what it raised."""
    if name in result:
        return result[name]
    failure = result.failures.get(name)
    if failure is None:
        assert said is not None, "a stage without output and without failure has cancelled the run"
        return said
    error = failure.error
    if said is not None and isinstance(error, StageFailedError) and error.output is said:
        return said
    try:
        raise error.with_traceback(_without_own(error.__traceback__))
    finally:
        del result, failure, error  # the error's traceback keeps this frame


def _without_own(traceback: TracebackType | None) -> TracebackType | None:
    """Leave out those who listened, which the runtime does not take for its own."""
    while traceback is not None and traceback.tb_frame.f_globals["__name__"] == listen.__module__:
        traceback = traceback.tb_next
    return traceback
