"""A resident actor: its mailbox, the workers behind it, and the account of its messages."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, final

import attrs
from trio.lowlevel import reschedule

from ._bag import OutputBag, describe_error
from ._child import UP, Child, ChildOptions
from ._freeze import freeze
from ._mailbox import Mailbox, MailQueue, Offer
from ._messages import BEGUN, ENDED, GO_ON, HANDED, WAITING, Handler, Message, Reply
from ._policy import is_restartable
from ._stage import StageContext, StageInputs, bind_runner
from ._validation import count
from ._worker import Worker
from .errors import ActorDeadError, ActorUnavailableError, MailboxFullError
from .events import ActorEmitted, ActorResumed, DeadLetter
from .statistics import ActorLedger, ActorStatistics

if TYPE_CHECKING:
    from ._child import Home
    from ._output import StageOutput
    from ._stage import Runner, RunnerForm

_logger: Final = logging.getLogger("stageflow_actors")

_OVERLOADED: Final = "send less, give it a larger pool or mailbox, or take overflow='wait'"
_NO_OUTPUTS: Final = OutputBag((), 0.0)


@final
@attrs.frozen
class ResidentOptions:
    """What a resident actor is made of; checked before."""

    runner: Runner
    form: RunnerForm
    mailbox: Mailbox
    shutdown: float
    pool: int
    max_deliveries: int


@final
class Resident(Child):
    """One resident actor. Everything here is one turn on the trio thread; only its workers wait."""

    __slots__ = (
        "_accepted",
        "_cancelled",
        "_failed",
        "_late_replies",
        "_max_deliveries",
        "_no_recipients",
        "_options",
        "_overflowed",
        "_poisoned",
        "_queue",
        "_rejected",
        "_replied",
        "_stopped",
        "form",
        "idle",
        "no_inputs",
        "runner",
        "shutdown",
        "target",
    )

    def __init__(self, home: Home, child: ChildOptions, options: ResidentOptions, number: int) -> None:
        super().__init__(home, child, number)
        self.runner: Any = options.runner
        self.form = options.form
        self.target = bind_runner(options.runner, options.form)
        self.shutdown = options.shutdown
        self._options = options.mailbox
        self._max_deliveries = options.max_deliveries
        self._queue: MailQueue[Message] = MailQueue(options.mailbox)
        self.idle: list[Worker] = []
        """The workers that wait for a message, in the order in which they began to. An empty deque takes 600 bytes."""
        self.no_inputs = StageInputs(_NO_OUTPUTS, self.path, (), ())
        """What an `ask` or `tell` has for inputs."""
        self.units: tuple[Worker, ...] = tuple(Worker(self, index) for index in range(options.pool))
        self._accepted = self._replied = self._failed = self._cancelled = 0
        self._overflowed = self._stopped = self._poisoned = 0
        self._late_replies = self._no_recipients = self._rejected = 0

    def name_worker(self, worker: Worker) -> str:
        """Return a worker's name, as its task has it."""
        return self.path if len(self.units) == 1 else f"{self.path}[{worker.index}]"

    # Messages on their way in

    def accept(self, message: Message) -> bool:
        """Take a message in, or its sender among those who wait for room; return whether it was taken in.

        Raises:
            MailboxFullError: It was refused or, an ask, dropped.
            ActorDeadError: The actor has ended, or is ending.
        """
        if self.is_retiring:
            self._lose(message)
            raise self._make_dead(message)
        if self.idle:  # then nothing is queued
            self._hand(message)
            self._count_in(message)
            return True
        offer, dropped = self._queue.offer(message)
        if offer is Offer.QUEUED:
            self._count_in(message)
            if dropped is not None:
                self._drop(dropped)
                dropped.fail(self._make_full("it was dropped for a newer message"))
        elif offer is Offer.BLOCKED:
            return False
        elif offer is Offer.REFUSED:
            self._rejected += 1
            raise self._make_full("the message was refused")
        else:
            self._count_in(message)
            self._drop(message)
            if message.is_ask:
                raise self._make_full("the message was dropped")
        return True

    def _count_in(self, message: Message) -> None:
        self._accepted += 1
        message.number = self._accepted
        if not message.is_ask:
            message.wake()

    def _hand(self, message: Message) -> None:
        """Give a message to a worker that waits for one."""
        worker = self.idle.pop(0)
        message.where = HANDED
        worker.message = message
        assert worker.task is not None
        reschedule(worker.task, GO_ON)

    def withdraw(self, message: Message) -> None:
        """Take back a message that no worker has, because its sender has given up."""
        if self._queue.withdraw(message):
            self._cancelled += 1
        message.where = ENDED
        self._admit()

    def put_back(self, message: Message) -> None:
        """Put a message that a worker had in hand back in front of the others, if anybody still wants it."""
        message.worker = None
        if message.is_ask and message.task is None:
            message.where = ENDED
            self._cancelled += 1
            return
        message.where = WAITING
        if self.idle:
            self._hand(message)
        else:
            self._queue.put_back(message)

    def wake(self, worker: Worker) -> None:
        """Let a worker that waits for a message look what it is told."""
        if worker in self.idle:
            self.idle.remove(worker)
            assert worker.task is not None
            reschedule(worker.task, GO_ON)

    def refuse(self, message: Message) -> MailboxFullError:
        """Return the error for a sender that does not wait for room."""
        self._queue.withdraw(message)
        self._rejected += 1
        return self._make_full("the message was refused", hint="await tell(...), which waits for room")

    # Messages on their way out

    def take(self) -> Message | None:
        """Take the next message out, for a worker that is free."""
        queue = self._queue
        message = queue.take()
        if message is not None:
            message.where = HANDED
            if queue.senders:
                self._admit()
        elif queue.senders:
            message = queue.take_blocked()
            assert message is not None
            self._count_in(message)
            message.where = HANDED
        return message

    def _admit(self) -> None:
        while (message := self._queue.admit()) is not None:
            self._count_in(message)

    def begin(self, message: Message, worker: Worker) -> StageContext | None:
        """Let a worker begin with a message; return what the stage sees of it, or None if nobody wants it any more."""
        if message.task is None and message.is_ask:
            message.where = ENDED
            self._cancelled += 1
            return None
        message.where = BEGUN
        message.worker = worker
        message.deliveries += 1
        message.error = None  # of the delivery before
        name = message.stage or self.path
        return StageContext(
            name, message.snapshot, message.inputs, message.config, message.deliveries, message.emit_from, message
        )

    def reply(self, message: Message, output: StageOutput) -> None:
        """Give a message's asker what the stage returned."""
        message.where = ENDED
        message.worker = None
        self._replied += 1
        if not message.wake(Reply(output)) and message.is_ask:
            self._late_replies += 1
            self._tell_letter(message, "late_reply")

    def may_redeliver(self, message: Message, error: BaseException | None) -> bool:
        """Return whether a message that a worker has begun with may be delivered again."""
        if message.deliveries >= self._max_deliveries or self.is_retiring:
            return False
        if error is not None and not is_restartable(error):
            return False
        return message.task is not None or not message.is_ask

    def fail(self, message: Message, error: BaseException) -> None:
        """Give a message's asker what the stage raised."""
        message.where = ENDED
        message.worker = None
        if message.deliveries >= self._max_deliveries > 1:
            self._poisoned += 1
            self._tell_letter(message, "poison")
        else:
            self._failed += 1
        if isinstance(error, Exception):
            message.fail(error)
        else:
            problem = f"it ended with {describe_error(error)}"
            message.fail(ActorUnavailableError(problem, actor=self.path, stage=message.stage))

    def interrupt(self, message: Message) -> None:
        """Let go of a message whose worker was stopped while it handled it."""
        message.where = ENDED
        message.worker = None
        self._cancelled += 1
        message.fail(self._make_unavailable(message))

    # Its end, and its account

    def bury(self) -> None:
        """Let go of every message, and of everyone who waits to send one."""
        queued, senders = self._queue.drain()
        for message in queued:
            message.where = ENDED
            if message.error is not None:
                self.fail(message, message.error)
                continue
            self._stopped += 1
            self._tell_letter(message, "stopped")
            message.fail(self._make_unavailable(message) if message.deliveries else self._make_dead(message))
        for message in senders:
            message.where = ENDED
            self._lose(message)
            message.fail(self._make_dead(message))
        if queued:
            _logger.warning("actor %r ended with %s queued", self.path, count(len(queued), "message"))

    def _drop(self, message: Message) -> None:
        message.where = ENDED
        self._overflowed += 1
        self._tell_letter(message, "overflow")

    def _lose(self, message: Message) -> None:
        self._no_recipients += 1
        if self.ended.is_set():  # its account was closed
            self.home.note_lost()
        self._tell_letter(message, "no_recipient")

    def _tell_letter(self, message: Message, reason: Any) -> None:
        bulletin = self.home.bulletin
        if bulletin.letters:
            bulletin.letters.tell(DeadLetter(self.path, bulletin.at(), reason, message.snapshot, message.stage))

    def tell_emitted(self, worker: Handler, event: object) -> None:
        """Pass on what the stage emits, from whichever thread it does."""
        frozen = freeze(event, "event")
        bulletin = self.home.bulletin
        if bulletin.events:
            bulletin.tell_from_anywhere(ActorEmitted(self.path, bulletin.at(), worker.index, frozen))

    def tell_resumed(self, worker: Worker, error: Exception) -> None:
        """Tell that a failure changed nothing."""
        bulletin = self.home.bulletin
        if bulletin.events:
            bulletin.events.tell(ActorResumed(self.path, bulletin.at(), worker.index, error))

    def _make_dead(self, message: Message) -> ActorDeadError:
        why = self.reason or "it is being stopped"
        if self.error is not None:
            why = f"it ended with {describe_error(self.error)}"
        return ActorDeadError(f"{why}; the message was not handled", actor=self.path, stage=message.stage)

    def _make_unavailable(self, message: Message) -> ActorUnavailableError:
        problem = "it was stopped while it handled the message, which it may have done in part"
        once = self._max_deliveries == 1 and not self.is_retiring
        hint = "idempotent=True and max_deliveries have such a message delivered again" if once else None
        return ActorUnavailableError(problem, actor=self.path, stage=message.stage, hint=hint)

    def _make_full(self, what: str, *, hint: str = _OVERLOADED) -> MailboxFullError:
        bound = self._options.max_queued or 0
        problem = f"its mailbox is full, {count(bound, 'message')} of max_queued={bound}, and {what}"
        limit = len(self.units)
        return MailboxFullError(problem, limit=limit, max_queued=bound, actor=self.path, hint=hint)

    def balance(self) -> ActorLedger:
        """Return the account of its messages."""
        return ActorLedger(
            self._accepted,
            self._replied,
            self._failed,
            self._cancelled,
            self._overflowed,
            self._stopped,
            self._poisoned,
            self._late_replies,
            self._no_recipients,
            self._rejected,
        )

    def describe(self) -> str:
        """Return how it is, in words."""
        if self.ended.is_set():
            return "ended"
        up = sum(unit.state is UP for unit in self.units)
        return f"{up} of {count(len(self.units), 'worker')} up, {count(len(self._queue), 'message')} queued"

    def view(self) -> ActorStatistics:
        """Return what it has and has done."""
        up = sum(unit.state is UP for unit in self.units)
        held = (len(self._queue), self._queue.blocked)
        return ActorStatistics(len(self.units), up, len(self.idle), *held, self.restarts, self.balance())
