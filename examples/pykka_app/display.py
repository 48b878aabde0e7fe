"""The actor that shows how a scan goes."""

from typing import Any

import pykka
from rich.console import Console

from stageflow_actors import StageState
from stageflow_actors.events import RunEnded, RunStopping, StageEnded


class Display(pykka.ThreadingActor):
    """Hears of a run's events, one message each, and prints a line now and then."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__()
        self.console = console
        self.total = total
        self.step = max(1, total // 10)
        self.read = self.failed = 0

    def on_receive(self, message: Any) -> None:
        """Take an event."""
        match message:
            case StageEnded(stage="catalogue") | StageEnded(state=StageState.CANCELLED | StageState.ISOLATED):
                pass
            case StageEnded(state=state):
                self.read += 1
                self.failed += state is not StageState.OK
                if not self.read % self.step or self.read == self.total:
                    self.console.print(f"{self.read:,} of {self.total:,} files read, {self.failed:,} failed")
            case RunStopping(end=end) | RunEnded(end=end):
                self.console.print(f"scan {end}" if isinstance(message, RunEnded) else "stopping")
