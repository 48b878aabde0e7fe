"""What a run tells those who listen: one class an event.

Times are seconds from the start of the run. An event is built only while somebody listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from ._policy import StageState
    from ._result import Ledger, RunEnd


@final
@attrs.frozen
class StageStarted:
    """An attempt at a stage has begun; of a plain function, once it has its thread."""

    run_id: str
    at: float
    stage: str
    attempt: int
    item: int | None = None
    """The item of a dynamic fan-out that is meant, by its position; None for the stage itself, here and below."""


@final
@attrs.frozen
class StageCrashed:
    """An attempt at a stage failed. What follows is a `StageRestarting`, or its end."""

    run_id: str
    at: float
    stage: str
    attempt: int
    error: BaseException
    item: int | None = None


@final
@attrs.frozen
class StageRestarting:
    """A stage backs off, to be run again."""

    run_id: str
    at: float
    stage: str
    attempt: int
    """The coming one."""
    delay: float
    """Seconds from now; a limiter may make it later."""
    item: int | None = None


@final
@attrs.frozen
class StageRejected:
    """A limiter whose queue is full turned a stage away, or dropped it from the queue."""

    run_id: str
    at: float
    stage: str
    reason: str
    item: int | None = None


@final
@attrs.frozen
class StageEnded:
    """A stage has its final state, whether or not it ever ran."""

    run_id: str
    at: float
    stage: str
    state: StageState
    reason: str
    """Why it failed, was skipped or was isolated; empty for OK."""
    item: int | None = None


@final
@attrs.frozen
class StageOverran:
    """A stage returned a value after its timeout, or although its run was ending; the value counts."""

    run_id: str
    at: float
    stage: str
    attempt: int
    item: int | None = None


@final
@attrs.frozen
class StageEmitted:
    """A stage called `ctx.emit`."""

    run_id: str
    at: float
    stage: str
    attempt: int
    event: Any
    item: int | None = None


@final
@attrs.frozen
class RunStopping:
    """The run ends before its time: nothing more is started, what runs is cancelled."""

    run_id: str
    at: float
    end: RunEnd


@final
@attrs.frozen
class RunEnded:
    """The run is over; no event follows."""

    run_id: str
    at: float
    end: RunEnd


@final
@attrs.frozen
class LedgerUnbalanced:
    """Messages and outcomes do not add up: a bug of this library."""

    run_id: str
    at: float
    ledger: Ledger


Event: TypeAlias = (
    StageStarted
    | StageCrashed
    | StageRestarting
    | StageRejected
    | StageEnded
    | StageOverran
    | StageEmitted
    | RunStopping
    | RunEnded
    | LedgerUnbalanced
)
