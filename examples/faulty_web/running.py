"""What a script around a run needs: Ctrl-C that leaves what had completed, and a console."""

import io
import logging
import signal
import sys

import trio
from rich.console import Console

from stageflow_actors import Run

INTERRUPTED = 130
"""The exit code of a script that Ctrl-C ended."""


async def cancel_at_interrupt(run: Run, *, task_status: trio.TaskStatus[None]) -> None:
    """Cancel a run at the first Ctrl-C. A second one is Python's own and ends the script."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
    run.cancel("interrupted")


def open_console() -> Console:
    """Return a console on stdout; the library's log is kept off it, for the script shows the failures itself."""
    logging.getLogger("stageflow_actors").addHandler(logging.NullHandler())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal knows the bars
    return Console(markup=False, highlight=False)
