"""What a person wants to know after a run, the verdict last."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Final

from rich.text import Text

from stageflow_actors import RunEnding, StageflowError, StageState
from stageflow_actors._bag import describe_error, safe_str
from stageflow_actors._validation import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from stageflow_actors import RunResult, StageFailure

_SLOWEST: Final = 5
_RESTARTED: Final = 5
_FAILURES: Final = 20
_CAUSES: Final = 5

_STYLES: Final = {
    StageState.OK: "green",
    StageState.FAILED: "red",
    StageState.ABANDONED: "red",
    StageState.ISOLATED: "yellow",
    StageState.CANCELLED: "yellow",
}


def print_summary(result: RunResult, console: Console, *, interrupted: bool) -> None:
    """Print the slowest stages, the failures with their causes, the counts, and how the run ended."""
    found = (_list_slowest(result), _list_restarted(result), _list_failures(result), _list_isolated(result))
    for line in chain(*found, _conclude(result, interrupted=interrupted)):
        console.print(line, soft_wrap=True)


def _list_slowest(result: RunResult) -> Iterator[Text]:
    timings = result.timings
    slowest = sorted(timings, key=lambda stage: -timings[stage].duration)[:_SLOWEST]
    if slowest:
        yield Text("slowest stages", "bold")
    for stage in slowest:
        state = result.states[stage]
        how = "" if state is StageState.OK else f" ({state.value})"
        yield Text.assemble((f"{timings[stage].duration:8.3f} s  ", "cyan"), f"{stage}{how}")


def _list_restarted(result: RunResult) -> Iterator[Text]:
    restarts = {stage: len(attempts) - 1 for stage, attempts in result.attempts.items() if len(attempts) > 1}
    if restarts:
        yield Text("most restarted", "bold")
    for stage in sorted(restarts, key=lambda stage: -restarts[stage])[:_RESTARTED]:
        error = result.attempts[stage][-2].error
        why = f" after {describe_error(error)}" if error is not None else ""
        state = result.states[stage]
        times = f"  {count(restarts[stage], 'restart')}  "
        yield Text.assemble((times, "cyan"), f"{stage} ", (state.value, _STYLES.get(state, "")), f"{why}")
    if len(restarts) > _RESTARTED:
        yield Text(f"  {sum(restarts.values()):,} restarts of {len(restarts):,} stages altogether")


def _list_failures(result: RunResult) -> Iterator[Text]:
    failures = list(result.failures.values())
    if failures:
        yield Text("failures", "bold")
    for failure in failures[:_FAILURES]:
        state = result.states[failure.stage]
        yield Text.assemble((f"  {state.name} ", _STYLES[state]), _explain(failure))
    if len(failures) > _FAILURES:
        yield Text(f"  and {len(failures) - _FAILURES:,} more; --json FILE writes them all")


def _explain(failure: StageFailure) -> str:
    """Return a failure in one line that names the stage once."""
    error = failure.error
    text = safe_str(error)
    if text.startswith(f"{failure.stage}:"):
        return " ".join(text.split())
    if isinstance(error, StageflowError):  # its text repeats the pipeline and the stage
        hint = f"; {error.hint}" if error.hint else ""
        return f"{failure.stage}: {type(error).__qualname__}: {error.problem}{hint}"
    return f"{failure.stage}: {failure}"


def _list_isolated(result: RunResult) -> Iterator[Text]:
    cause_of: dict[str, str] = {}
    for stage, state in reversed(list(result.states.items())):  # from the ends of chains, so that each is walked once
        if state is StageState.ISOLATED and stage not in cause_of:
            *isolated, cause = result.cause_chain(stage)
            cause_of.update(dict.fromkeys(isolated, cause))
    causes = Counter(cause_of[stage] for stage in result.states if stage in cause_of)
    if causes:
        yield Text("isolated, never ran", "bold")
    for cause, times in causes.most_common(_CAUSES):
        state = result.states[cause]
        yield Text.assemble(f"  {times:,} because of {cause} ", (state.value, _STYLES[state]))
    if len(causes) > _CAUSES:
        rest = sum(times for _, times in causes.most_common()[_CAUSES:])
        yield Text(f"  {rest:,} because of {count(len(causes) - _CAUSES, 'other stage')}")


def _conclude(result: RunResult, *, interrupted: bool) -> Iterator[Text]:
    counts = Counter(result.states.values())
    words = Text()
    for state in StageState:
        if counts[state]:
            words.append(", " if words else "")
            words.append(f"{counts[state]:,} {state.value}", _STYLES.get(state, ""))
    yield words
    ran, duration = sum(result.states[stage] is not StageState.CANCELLED for stage in result.timings), result.duration
    rate = f", {ran / duration:,.0f} stages/s" if duration > 0 else ""
    ended = "interrupted" if interrupted else str(result.ended)
    style = "bold green" if result.ended.ending is RunEnding.COMPLETED and not interrupted else "bold red"
    yield Text.assemble(
        (f"{result.pipeline} {ended}", style), f" ({count(ran, 'stage')} ran in {duration:.2f} s{rate})"
    )
