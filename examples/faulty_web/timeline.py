"""The attempts at the stages of a run, drawn over time, and what the failed ones died of."""

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stageflow_actors import Attempt, RunResult, StageState

from .client import name_cause

OUTCOMES: Final = {
    "ok": ("█", "green"),
    "failed": ("▓", "red"),
    "timeout": ("▒", "yellow"),
    "429": ("▞", "magenta"),
    "cancelled": ("░", "cyan"),
    "backoff": ("·", "dim"),
}
"""How each stretch of time looks: also apart where there are no colours."""

STATES: Final = {
    StageState.OK: "green",
    StageState.FAILED: "red",
    StageState.ISOLATED: "yellow",
    StageState.CANCELLED: "cyan",
}


def draw_timeline(result: RunResult, width: int) -> RenderableType:
    """Return one row a stage: its attempts as bars over the time of the run, and its state.

    Args:
        result: The run's.
        width: Of the whole, in characters.
    """
    names = max(len(name) for name in result.states)
    cells = max(10, width - names - 22)
    second = cells / result.duration if result.duration else 0.0
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column(_draw_axis(result.duration, cells), no_wrap=True)
    table.add_column("tries", justify="right")
    table.add_column("state")
    for name, state in result.states.items():
        attempts = result.attempts.get(name, ())
        bars = draw_attempts(attempts, state, second) if attempts else Text("never ran", "dim")
        table.add_row(name, bars, str(len(attempts) or ""), Text(state.value, STATES.get(state, "")))
    legend = Text("  ").join(Text(f"{glyph} {outcome}", style) for outcome, (glyph, style) in OUTCOMES.items())
    return Group(table, legend)


def list_failed_attempts(result: RunResult) -> RenderableType:
    """Return one row a failed attempt: when it was, what it died of, and how long its stage then waited."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for column in ("try", "from", "took", "then waited"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("died of")
    for name, attempts in result.attempts.items():
        for attempt, following in zip(attempts, (*attempts[1:], None), strict=True):
            if attempt.error is None:
                continue
            waited = f"{following.started - attempt.ended:.2f} s" if following else ""
            times = f"{attempt.started:.2f} s", f"{attempt.ended - attempt.started:.2f} s"
            table.add_row(name, str(attempt.number), *times, waited, name_cause(attempt.error))
    return table


def _draw_axis(duration: float, cells: int) -> Text:
    end = f"{duration:.2f} s"
    return Text("0 s".ljust(cells - len(end)) + end)


def draw_attempts(attempts: tuple[Attempt, ...], state: StageState, second: float) -> Text:
    """Return the attempts at one stage as bars, `second` characters a second."""
    bars = Text()
    for attempt in attempts:
        # However short, an attempt has a cell of its own.
        before = int(attempt.started * second) - len(bars)
        if bars:
            glyph, style = OUTCOMES["backoff"]
            bars.append(glyph * before, style)
        else:
            bars.append(" " * before)
        glyph, style = OUTCOMES[_name_outcome(attempt, attempts, state)]
        bars.append(glyph * max(1, int(attempt.ended * second) - len(bars)), style)
    return bars


def _name_outcome(attempt: Attempt, attempts: tuple[Attempt, ...], state: StageState) -> str:
    if attempt.error is None:
        return "cancelled" if state is StageState.CANCELLED and attempt is attempts[-1] else "ok"
    cause = name_cause(attempt.error)
    return cause if cause in OUTCOMES else "failed"
