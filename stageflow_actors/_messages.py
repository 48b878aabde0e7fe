"""A message to a resident actor, on its way from its sender to its end."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import outcome
from trio.lowlevel import Abort, Task, reschedule

from .errors import AskTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping

    from ._child import Home
    from ._deadlines import Entry
    from ._output import StageOutput
    from ._snapshot import ContextSnapshot
    from ._stage import StageInputs


class Whereabouts(Enum):
    """Where a message is."""

    WAITING = "waiting"
    """In the mailbox, or with a sender that waits for room there."""
    HANDED = "handed"
    """A worker has it, and has not begun."""
    BEGUN = "begun"
    ENDED = "ended"


WAITING, HANDED, BEGUN, ENDED = Whereabouts


@final
class Again(outcome.Outcome[None]):
    """A `Value(None)` that may be unwrapped as often as one likes: to wake a task up costs no object."""

    __slots__ = ()

    def unwrap(self) -> None:
        """Return nothing."""

    def send(self, gen: Generator[Any, None, object]) -> Any:
        """Send nothing into a generator."""
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[Any, None]) -> Any:
        """Send nothing into an async generator."""
        return await agen.asend(None)


GO_ON: Final = Again()


@final
class Reply(outcome.Outcome["StageOutput"]):
    """A `Value` that is made in a third of the time and, unwrapped, keeps nothing: trio's loop holds it for a while."""

    __slots__ = ("_output",)

    def __init__(self, output: StageOutput) -> None:
        self._output = output

    def unwrap(self) -> StageOutput:
        """Return the output, once."""
        output = self._output
        del self._output
        return output

    def send(self, gen: Generator[Any, StageOutput, object]) -> Any:
        """Send it into a generator."""
        return gen.send(self.unwrap())

    async def asend(self, agen: AsyncGenerator[Any, StageOutput]) -> Any:
        """Send it into an async generator."""
        return await agen.asend(self.unwrap())


class Handler(Protocol):
    """The worker that has a message in hand."""

    index: int
    leaves: bool
    """Whether it ends after the message."""


class Recipient(Protocol):
    """The actor that a message is for."""

    home: Home
    number: int

    @property
    def path(self) -> str:
        """Its name, with those of the supervisors above."""
        ...

    def withdraw(self, message: Message) -> None:
        """Take back a message that no worker has."""

    def tell_emitted(self, worker: Handler, event: object) -> None:
        """Tell what the stage has to tell."""


@final
class Message:
    """What was sent, who waits for it, and where it is.

    Its task is the one that waits: the asker for a reply, or a teller for room in the mailbox. Whoever wakes the task
    takes it out first, so it is woken once, by whatever comes first: a reply, an error, the timeout, its cancellation.
    """

    __slots__ = (
        "_deadline",
        "_recipient",
        "config",
        "deliveries",
        "emit",
        "error",
        "inputs",
        "is_ask",
        "number",
        "run_key",
        "seconds",
        "snapshot",
        "stage",
        "task",
        "where",
        "worker",
    )

    def __init__(
        self,
        recipient: Recipient,
        snapshot: ContextSnapshot[Any],
        inputs: StageInputs,
        config: Mapping[str, Any],
        task: Task | None,
        seconds: float | None = None,
    ) -> None:
        self._recipient = recipient
        self.snapshot = snapshot
        self.inputs = inputs
        self.config = config
        self.task = task
        self.seconds = seconds
        """The timeout of an ask."""
        self.is_ask = True
        self.where = WAITING
        self.number = 0
        """Which one it is of those that the actor accepted, counted from 1."""
        self.deliveries = 0
        self.worker: Handler | None = None
        self.error: Exception | None = None
        """Why an earlier delivery failed."""
        self.stage: str | None = None
        """The stage of a run that sent it."""
        self.run_key: str | None = None
        """The idempotency key that the run has given it."""
        self.emit: Callable[[Any], None] | None = None
        """Where the run hears what the stage emits."""
        self._deadline: Entry | None = None

    # Towards the stage

    @property
    def key(self) -> str:
        """The same for every delivery of this message, and for no other message."""
        if self.run_key is not None:
            return self.run_key
        to = self._recipient  # whose number tells it from others that had its name before
        return f"{to.home.identity.run_id}/{to.path}/{to.number}.{self.number}"

    def stop(self) -> None:
        """Let the actor end after this message."""
        if self.where is BEGUN and self.worker is not None:
            self.worker.leaves = True

    def emit_from(self, _stage: str, _attempt: int, event: object) -> None:
        """Tell what the stage emits: the run that has sent it, or those who listen to the actor."""
        if self.emit is not None:
            self.emit(event)
        elif self.worker is not None:
            self._recipient.tell_emitted(self.worker, event)

    # Towards its sender

    def set_timeout(self, at: float) -> None:
        """Let its asker give up at a time on trio's clock."""
        self._deadline = self._recipient.home.deadlines.add(at, self._time_out)

    def wake(self, result: outcome.Outcome[StageOutput] | None = None) -> bool:
        """Let the task that waits go on, with a result where it waits for one; return whether there was one."""
        task, self.task = self.task, None
        if task is None:
            return False
        if self._deadline is not None:
            self._recipient.home.deadlines.drop(self._deadline)
            self._deadline = None
        reschedule(task, GO_ON if result is None else result)
        return True

    def fail(self, error: BaseException) -> None:
        """Let the task that waits go on with an error."""
        if self.task is not None:
            self.wake(outcome.Error(error))

    def abort(self, _raise_cancel: Callable[[], None]) -> Abort:
        """Give up, because the task that waits is cancelled."""
        self.task = None
        if self._deadline is not None:
            self._recipient.home.deadlines.drop(self._deadline)
            self._deadline = None
        self._give_up()
        return Abort.SUCCEEDED

    def _time_out(self) -> None:
        self._deadline = None
        begun = self.where is BEGUN or self.deliveries
        task, self.task = self.task, None
        assert task is not None
        self._give_up()
        seconds = self.seconds or 0.0
        problem = f"it did not answer within {seconds:g} s"
        rest = "it has begun with the message" if begun else "it had not begun with the message, which was withdrawn"
        error = AskTimeoutError(f"{problem}; {rest}", seconds=seconds, actor=self._recipient.path, stage=self.stage)
        reschedule(task, outcome.Error(error))

    def _give_up(self) -> None:
        """Withdraw it, unless a worker has begun with it."""
        if self.where is WAITING:
            self._recipient.withdraw(self)
        # One that a worker has in hand is looked at by that worker, before it begins.
