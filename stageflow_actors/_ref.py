"""The reference to a resident actor: what its users have of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, final

from trio.lowlevel import checkpoint, current_task, enable_ki_protection, in_trio_run, wait_task_rescheduled

from ._messages import Message
from ._snapshot import ContextSnapshot, read_snapshot
from ._spec import NO_CONFIG, innermost
from ._stage import StageKind
from ._validation import require_seconds
from .errors import ActorDeadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from ._output import StageOutput
    from ._resident import Resident
    from ._stage import StageContext
    from .statistics import ActorStatistics


@final
class ActorRef:
    """A resident actor, as its users see it: ask it, tell it, or make it a stage. Made by `Supervisor.spawn`.

    It stays the same across restarts. All its methods belong to the trio thread.
    """

    __slots__ = ("_resident",)

    _is_actor = True

    def __init__(self, resident: Resident) -> None:
        self._resident = resident

    @property
    def name(self) -> str:
        """The actor's name, with those of the supervisors above its own: `ingest/parser`."""
        return self._resident.path

    @property
    def kind(self) -> StageKind:
        """What it is for, as a stage."""
        return getattr(innermost(self._resident.runner), "kind", None) or StageKind.WORK

    @enable_ki_protection
    async def ask(
        self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None, *, timeout: float | None = 5.0
    ) -> StageOutput:
        """Send a message, and wait for the reply to it.

        It ends in exactly one of five ways: the reply, of whatever status; what the stage raised; or one of the errors
        below. Messages from one task are handled in the order in which it sent them, unless the actor is a pool. A
        cancelled ask withdraws the message, if no worker has begun with it; otherwise the reply is a dead letter.

        Args:
            snapshot: The message; a mapping is short for a snapshot with that `data`.
            timeout: Seconds until the reply, those in which it waits for room in the mailbox included; None for ever.

        Raises:
            Exception: What the stage raised.
            AskTimeoutError: There was no reply in time. A message that no worker has begun with was withdrawn.
            ActorDeadError: The actor has ended, and no worker has begun with the message.
            ActorUnavailableError: The actor was stopped with the message in hand, and may have handled it.
            MailboxFullError: The mailbox is full and has refused or dropped the message: none has begun with it.
            PipelineValidationError: The snapshot or the timeout cannot be. Nothing was sent.
        """
        resident = self._resident
        task = current_task()
        read = read_snapshot(snapshot)
        if timeout is not None and not (timeout.__class__ is float and 0.0 < timeout < 1e9):
            require_seconds("timeout", timeout)
        self._refuse_itself(task, "ask itself", "it would wait for ever")
        message = Message(resident, read, resident.no_inputs, NO_CONFIG, task, timeout)
        if timeout is None:
            resident.accept(message)
        else:
            at = resident.home.now() + timeout
            resident.accept(message)
            message.set_timeout(at)
        return await wait_task_rescheduled(message.abort)  # type: ignore[no-any-return]

    @enable_ki_protection
    async def tell(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None) -> None:
        """Send a message to which no reply is wanted, and wait until it is accepted.

        A checkpoint. Cancelled, it has sent nothing. A stage that fails over it is restarted as always.

        Args:
            snapshot: The message; a mapping is short for a snapshot with that `data`.

        Raises:
            ActorDeadError: The actor has ended.
            MailboxFullError: The mailbox is full and was to refuse the message.
            PipelineValidationError: The snapshot cannot be.
        """
        message = self._make_tell(snapshot)
        await checkpoint()
        if not self._resident.accept(message):
            self._refuse_itself(current_task(), "wait for room in its own mailbox", "nobody else makes any", message)
            message.task = current_task()
            await wait_task_rescheduled(message.abort)

    def tell_nowait(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None) -> None:
        """Send a message to which no reply is wanted, or raise at once; never waits.

        Raises:
            ActorDeadError: The actor has ended.
            MailboxFullError: The mailbox is full, and its overflow policy drops nothing.
            PipelineValidationError: The snapshot cannot be.
        """
        message = self._make_tell(snapshot)
        if not self._resident.accept(message):
            raise self._resident.refuse(message)

    def _make_tell(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None) -> Message:
        if not in_trio_run():
            hint = "from a worker thread call trio.from_thread.run_sync(ref.tell_nowait, ...)"
            problem = f"actor {self.name!r} can be told only in the thread that runs trio; {hint}"
            raise RuntimeError(problem)
        message = Message(self._resident, read_snapshot(snapshot), self._resident.no_inputs, NO_CONFIG, None)
        message.is_ask = False
        return message

    @enable_ki_protection
    async def execute(self, ctx: StageContext, /) -> StageOutput:
        """Be a stage of a run: send what the stage is told to the actor, and wait for the reply, however long it takes.

        Raises:
            Exception: As `ask`.
        """
        resident = self._resident
        task = current_task()
        self._refuse_itself(task, "ask itself", "it would wait for ever")
        message = Message(resident, ctx.snapshot, ctx.inputs._copy(), ctx.config, task)  # noqa: SLF001 (its own view)
        message.stage = ctx.stage_name
        message.run_key = ctx.idempotency_key
        message.emit = ctx.emit
        resident.accept(message)
        return await wait_task_rescheduled(message.abort)  # type: ignore[no-any-return]

    async def restart(self) -> None:
        """Restart it, and with it those that its supervisor's scope says, and wait until that is done.

        Each ends the message that it has in hand first, within its shutdown budget; what is queued stays. It counts
        against no limit. Cancelling the caller does not stop it.

        Raises:
            ActorDeadError: It has ended, or ends meanwhile.
            RuntimeError: A worker of it asks for its own restart.
        """
        resident = self._resident
        self._refuse_own_end("wait for its own restart", "call ctx.stop(), with policy='permanent'")
        if not resident.is_retiring:
            await resident.home.restart(resident)
        if resident.is_retiring:
            raise ActorDeadError("it has ended", actor=self.name)

    async def stop(self) -> None:
        """End it for good, whatever its policy, and wait until it has ended.

        It ends the message that it has in hand first, within its shutdown budget. What is queued becomes dead letters,
        and whoever asked gets an `ActorDeadError`. Cancelling the caller does not stop it. Once it has ended this does
        nothing.

        Raises:
            RuntimeError: A worker of it would wait for its own end.
        """
        self._refuse_own_end("wait for its own end", "call ctx.stop()")
        self._resident.home.retire(self._resident, "it was stopped")
        await self._resident.ended.wait()

    async def wait_stopped(self) -> BaseException | None:
        """Wait until it has ended for good; return why, or None where it was stopped or ended normally.

        Raises:
            RuntimeError: A worker of it would wait for its own end.
        """
        self._refuse_own_end("wait for its own end", "call ctx.stop()")
        await self._resident.ended.wait()
        return self._resident.error

    def statistics(self) -> ActorStatistics:
        """Return what it has and has done; the counters are exact."""
        return self._resident.view()

    def _refuse_itself(self, task: trio.lowlevel.Task, what: str, hint: str, message: Message | None = None) -> None:
        """Refuse what a worker would wait for for ever; another worker of a pool could still do it."""
        units = self._resident.units
        if task is units[0].task and len(units) == 1:
            if message is not None:
                self._resident.withdraw(message)
            problem = f"actor {self.name!r} cannot {what}: {hint}"
            raise RuntimeError(problem)

    def _refuse_own_end(self, what: str, hint: str) -> None:
        """Refuse to wait for an end for which the waiting worker would have to end first."""
        task = current_task()
        if any(unit.task is task for unit in self._resident.units):
            problem = f"actor {self.name!r} cannot {what}: {hint}"
            raise RuntimeError(problem)

    def __eq__(self, other: object) -> bool:
        """Return whether the other refers to the same actor."""
        return self._resident is other._resident if isinstance(other, ActorRef) else NotImplemented

    def __hash__(self) -> int:
        """Hash the actor."""
        return hash(self._resident)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled."""
        message = f"the reference to actor {self.name!r} cannot leave its process"
        raise TypeError(message)

    def __repr__(self) -> str:
        """Name the actor, and say how it is."""
        return f"<ActorRef of {self.name!r}: {self._resident.describe()}>"
