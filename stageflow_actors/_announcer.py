"""Telling those who listen to a run what happens in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from ._freeze import freeze
from ._policy import STATES
from ._threads import call_in_loop
from .events import (
    LedgerUnbalanced,
    RunEnded,
    RunStopping,
    StageCrashed,
    StageEmitted,
    StageEnded,
    StageOverran,
    StageRejected,
    StageRestarting,
    StageStarted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._result import Ledger, RunEnd
    from .events import Event


@final
class Announcer:
    """The listeners of one run. Whoever announces looks first whether there are any: events cost time."""

    __slots__ = ("_began", "_now", "_run_id", "_token", "listeners")

    def __init__(self, run_id: str, now: Callable[[], float]) -> None:
        self.listeners: tuple[Callable[[Event], None], ...] = ()
        self._run_id = run_id
        self._now = now
        self._began = now()
        self._token = trio.lowlevel.current_trio_token()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from now on, in order, on the trio thread. It must not raise."""
        self.listeners = (*self.listeners, listener)

    def unlisten(self, listener: Callable[[Event], None]) -> None:
        """Stop calling a listener."""
        self.listeners = tuple(other for other in self.listeners if other != listener)

    def begin(self, now: float) -> None:
        """Count the times of events from `now`."""
        self._began = now

    def stage_started(self, stage: str, attempt: int, item: int | None = None) -> None:
        """Tell that an attempt has begun."""
        self._tell(StageStarted(self._run_id, self._at(), stage, attempt, item))

    def stage_crashed(self, stage: str, attempt: int, error: BaseException, item: int | None = None) -> None:
        """Tell that an attempt failed."""
        self._tell(StageCrashed(self._run_id, self._at(), stage, attempt, error, item))

    def stage_restarting(self, stage: str, attempt: int, delay: float, item: int | None = None) -> None:
        """Tell that a stage backs off."""
        self._tell(StageRestarting(self._run_id, self._at(), stage, attempt, delay, item))

    def stage_rejected(self, stage: str, reason: str, item: int | None = None) -> None:
        """Tell that a limiter would not have a stage."""
        self._tell(StageRejected(self._run_id, self._at(), stage, reason, item))

    def stage_overran(self, stage: str, attempt: int, item: int | None = None) -> None:
        """Tell that a stage returned a value too late, which counts."""
        self._tell(StageOverran(self._run_id, self._at(), stage, attempt, item))

    def stage_ended(self, stage: str, state: int, reason: str, item: int | None = None) -> None:
        """Tell that a stage has its final state."""
        self._tell(StageEnded(self._run_id, self._at(), stage, STATES[state], reason, item))

    def stage_emitted(self, stage: str, attempt: int, event: object, item: int | None = None) -> None:
        """Pass on what a stage emits, from whichever thread it does."""
        frozen = freeze(event, "event")
        if not self.listeners:
            return
        made = StageEmitted(self._run_id, self._at(), stage, attempt, frozen, item)
        call_in_loop(self._token, self._tell, made)

    def run_stopping(self, end: RunEnd) -> None:
        """Tell that the run ends before its time."""
        self._tell(RunStopping(self._run_id, self._at(), end))

    def run_ended(self, end: RunEnd) -> None:
        """Tell that the run is over."""
        self._tell(RunEnded(self._run_id, self._at(), end))

    def ledger_unbalanced(self, ledger: Ledger) -> None:
        """Tell of a bug of this library."""
        self._tell(LedgerUnbalanced(self._run_id, self._at(), ledger))

    def _at(self) -> float:
        return self._now() - self._began

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)
