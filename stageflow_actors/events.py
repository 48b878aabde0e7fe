"""What runs and resident actors tell those who listen: one class an event.

Times are seconds from the start of the run or, of an actor, from the opening of its supervisor. An event is built only
while somebody listens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from ._policy import StageState
    from ._result import Ledger, RunEnd
    from ._snapshot import ContextSnapshot


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
"""What a run tells."""


@final
@attrs.frozen
class ActorStarted:
    """A worker of a resident actor, or a child supervisor, is up."""

    actor: str
    at: float
    worker: int
    """Which of its pool, counted from 0."""
    incarnation: int
    """Which time it is that this worker is up, counted from 1."""


@final
@attrs.frozen
class ActorCrashed:
    """A worker of a resident actor failed, or a child supervisor gave up. What is made of it follows."""

    actor: str
    at: float
    worker: int
    error: BaseException
    delivery: int | None
    """Which delivery of the message in hand it was, counted from 1; None where it failed without one."""
    redelivered: bool
    """Whether that message is put back, to be delivered again; otherwise its asker gets the error."""


@final
@attrs.frozen
class ActorResumed:
    """A resident actor failed who asked, and goes on as it is: its policy said `RESUME`."""

    actor: str
    at: float
    worker: int
    error: BaseException


@final
@attrs.frozen
class ActorRestarting:
    """A worker of a resident actor, or a child supervisor, is to be restarted, and others with it."""

    actor: str
    at: float
    worker: int
    delay: float
    """Seconds from now; those that are to be stopped first may make it later."""
    others: tuple[str, ...]
    """The actors that are restarted with it, in the order in which they will start."""


@final
@attrs.frozen
class ActorEnded:
    """A resident actor, or a child supervisor, has ended for good."""

    actor: str
    at: float
    reason: str
    error: BaseException | None
    """Why, where it failed."""


@final
@attrs.frozen
class ActorEmitted:
    """A resident actor called `ctx.emit` with a message that came from no run."""

    actor: str
    at: float
    worker: int
    event: Any


@final
@attrs.frozen
class DeadLetter:
    """A message to a resident actor that nobody will handle, or a reply that nobody waits for.

    The first three reasons end a message that was accepted: it was dropped from a full mailbox, was queued when the
    actor ended for good, or failed it as often as it may be delivered. The others stand beside the balance: a reply to
    an asker that had given up, and a message to an actor that had ended.
    """

    actor: str
    at: float
    reason: Literal["overflow", "stopped", "poison", "late_reply", "no_recipient"]
    snapshot: ContextSnapshot[Any]
    """The message."""
    stage: str | None
    """The stage of a run that sent it; None for an `ask` or a `tell`."""


ActorEvent: TypeAlias = ActorStarted | ActorCrashed | ActorResumed | ActorRestarting | ActorEnded | ActorEmitted
"""What a supervisor tells of its resident actors; dead letters have a stream of their own."""
