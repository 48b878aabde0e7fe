"""The clock of an explored program: it stands still until it is made to jump."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from ._control import Controller


@final
class ControlledClock(trio.abc.Clock):
    """Starts at 0 in every execution. Trio asks it for how long to sleep exactly when nothing else is to be done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.controller: Controller | None = None

    def start_clock(self) -> None:
        """Do nothing: it stands."""

    def current_time(self) -> float:
        """Return the time, in seconds."""
        controller = self.controller
        if controller is not None and controller.tracker is not None:
            controller.tracker.read_clock()
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return for how many real seconds the loop may wait for the world."""
        return 0.0 if self.controller is None else self.controller.consider(deadline)
