"""Race tests below `@given`: an example of Hypothesis is many executions, and Hypothesis thinks that it is one.

Hypothesis is not imported: where nobody else has, no example is running.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE_EXECUTIONS: Final = 100
"""Executions for each example: with its 100 examples, ten times what a test explores otherwise.

Most races need one or two preemptions and fail within a few dozen executions; other inputs then find more than other
schedules. And if the program is small, an example stays within Hypothesis's deadline of 200 ms.
"""

INPUTS_NOTE: Final = (
    "the replay needs the inputs of this example: Hypothesis takes them from its database; where there is none, give"
    " them with @example"
)

_TRACER: Final = "hypothesis.internal.scrutineer"
_TRACER_TOOL: Final = "scrutineer"


def is_in_example() -> bool:
    """Return whether Hypothesis is running an example."""
    hypothesis = sys.modules.get("hypothesis")
    return hypothesis is not None and cast("bool", hypothesis.currently_in_test_context())


def is_to_shrink() -> bool:
    """Return whether this is an example that nobody will read of: Hypothesis shows the last one, the simplest."""
    return is_in_example() and not sys.modules["hypothesis.control"].current_build_context().is_final


def is_example_of(test: object) -> bool:
    """Return whether what `@given` stands over is this race test, and not what calls it."""
    if not is_in_example():
        return False
    context = sys.modules["hypothesis.control"].current_build_context()
    if not hasattr(context, "wrapped_test"):
        return True  # an old release, which does not say
    return getattr(context.wrapped_test.hypothesis.inner_test, "__wrapped__", None) is test


def is_data(value: object) -> bool:
    """Return whether a value is what `data()` gives, which draws when it is asked to."""
    strategies = sys.modules.get("hypothesis.strategies")
    return strategies is not None and isinstance(value, strategies.DataObject)


@contextmanager
def as_one_example(notes: list[object]) -> Iterator[None]:
    """Let the executions within look like one to Hypothesis, if it is running an example.

    Args:
        notes: Where `note` puts what is to be printed; reported in the end. Whoever begins an execution clears it, or
            else there would be the notes of hundreds.
    """
    if not is_in_example():
        yield
        return
    reporting = sys.modules["hypothesis.reporting"]
    try:
        with reporting.with_reporter(notes.append), _untraced():
            yield
    finally:
        for note in notes:
            reporting.report(note)


@contextmanager
def _untraced() -> Iterator[None]:
    """Suspend Hypothesis's tracer.

    From the first failure on, it notes each line that runs, to tell which ones run only in failing examples. That
    takes many times as long as the executions themselves, and what it would name are the toolkit's own lines.
    """
    with ExitStack() as stack:
        tracer = sys.gettrace()
        if getattr(tracer, "__module__", "") == _TRACER:
            stack.callback(sys.settrace, tracer)
            sys.settrace(None)
        monitoring: Any = getattr(sys, "monitoring", None)  # what it uses from Python 3.12 on
        for tool in () if monitoring is None else range(6):
            if monitoring.get_tool(tool) == _TRACER_TOOL:
                stack.callback(monitoring.set_events, tool, monitoring.get_events(tool))
                monitoring.set_events(tool, 0)
        yield
