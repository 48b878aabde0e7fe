"""How far a run has come, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import trio
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from rich.console import Console

    from stageflow_actors import Run
    from stageflow_actors.statistics import RunStatistics

_REFRESH: Final = 0.1
"""Seconds between two looks at the run, for the bar."""

_LINE: Final = 5.0
"""Seconds between two lines, where there is no bar."""

_STATES: Final = ("running", "restarting", "ok", "skipped", "failed", "isolated", "cancelled", "abandoned")


@enable_ki_protection  # an interrupt is for the task that waits for the run, not for half a line of output
async def follow(run: Run, console: Console) -> None:
    """Show how far a run has come, until cancelled."""
    if console.file.isatty() and not console.is_dumb_terminal:
        await _draw_bar(run, console)
    else:
        await _print_lines(run, console)


async def _draw_bar(run: Run, console: Console) -> None:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}", style="dim"),
    )
    progress = Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        # What stages print to a file or a pipe belongs there, not above the bar.
        redirect_stdout=sys.stdout.isatty(),
    )
    with progress:
        bar = progress.add_task(run.pipeline, total=run.statistics().total, counts="")
        while True:
            statistics = run.statistics()
            progress.update(bar, completed=statistics.ended, counts=_describe(statistics), refresh=True)
            await trio.sleep(_REFRESH)


async def _print_lines(run: Run, console: Console) -> None:
    while True:
        await trio.sleep(_LINE)
        statistics = run.statistics()
        line = f"{run.pipeline}: {statistics.ended:,}/{statistics.total:,} stages ended, {_describe(statistics)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _describe(statistics: RunStatistics) -> str:
    counts = {state: getattr(statistics, state) for state in _STATES}
    return ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
