"""A mailbox's queue in which messages can be late: they have their place, and no worker sees them until they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from stageflow_actors._mailbox import MailQueue, Offer
from stageflow_actors._messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from stageflow_actors._deadlines import Deadlines, Entry
    from stageflow_actors._resident import Resident


@final
class Line:
    """What one task has sent since a message of it was late, in that order: none of it overtakes another."""

    def __init__(self) -> None:
        self.messages: dict[Message, bool] = {}
        """Whether its own time has come: that of a message which is not late itself comes when it is sent."""
        self.entries: dict[Message, Entry] = {}
        """When those come that are late."""
        self.blocked: list[Message] = []
        """The message for which the task waits for room, if it does."""


@final
class LateQueue(MailQueue[Message]):  # type: ignore[misc]  # final for others; this one stands in its place
    """The queue of one actor. What is late is queued, and counts, but is passed over by `take`.

    Args:
        queue: What it takes the place of, and goes on with.
        deadlines: Of the supervisor.
    """

    __slots__ = ("_deadlines", "_entries", "_lines", "is_full")

    def __init__(self, queue: MailQueue[Message], deadlines: Deadlines) -> None:
        for name in MailQueue.__slots__:
            setattr(self, name, getattr(queue, name))
        self._deadlines = deadlines
        self._lines: dict[trio.lowlevel.Task, Line] = {}
        self._entries: dict[Message, Entry] = {}
        """When those whose sender waits because of a fault are let in at last."""
        self.is_full = False
        """Whether it does as if it were full."""

    @property
    def has_room(self) -> bool:
        """Whether one more would be queued, without one being dropped."""
        return self._bound is None or len(self._queued) < self._bound

    # What is late

    def is_behind(self, sender: trio.lowlevel.Task) -> bool:
        """Return whether something that a task sent is late."""
        return sender in self._lines

    def hold(self, message: Message, sender: trio.lowlevel.Task, at: float, come: Callable[[], None]) -> None:
        """Queue a message, which comes at a time: something is called then.

        A worker may have been free for it, so it is queued even where nothing is to be queued.
        """
        self._queued[message] = None
        line = self._lines.setdefault(sender, Line())
        line.messages[message] = False
        line.entries[message] = self._call_at(at, come)

    def follow(self, message: Message, sender: trio.lowlevel.Task) -> None:
        """Have a message come after what its sender has sent before: it is queued, or its sender waits for room."""
        line = self._lines[sender]
        if message in self._queued:
            line.messages[message] = True
        elif message in self.senders:
            del self.senders[message]
            line.blocked.append(message)

    def let_come(self, message: Message, sender: trio.lowlevel.Task) -> list[Message]:
        """Take note that the time of a message has come; return what comes now, taken out of the queue, in order.

        The message itself may have been dropped meanwhile, while those after it still wait for its time.
        """
        line = self._lines[sender]
        del line.entries[message]
        if message in line.messages:
            line.messages[message] = True
        come: list[Message] = []
        for each, is_due in line.messages.items():
            if not is_due:
                break
            come.append(each)
        for each in come:
            del line.messages[each]
            del self._queued[each]
        self._close(sender, line)
        return come

    def add(self, message: Message) -> None:
        """Put a message that has come at the end of what workers see."""
        self._queued[message] = None

    def _close(self, sender: trio.lowlevel.Task, line: Line) -> None:
        """Forget a line in which nobody is left; its task waits for room as others do."""
        if not line.messages:
            del self._lines[sender]
            self._forget_deadlines(line)
            self.senders.update(dict.fromkeys(line.blocked))

    def _forget_deadlines(self, line: Line) -> None:
        for entry in line.entries.values():
            self._deadlines.drop(entry)

    def _leave(self, message: Message) -> None:
        """Take note that a message is not awaited any more."""
        self._note_let_in(message)
        for sender, line in list(self._lines.items()):
            if message in line.blocked:
                line.blocked.remove(message)
            if line.messages.pop(message, None) is not None:
                self._close(sender, line)

    def _is_late(self, message: Message) -> bool:
        return any(message in line.messages for line in self._lines.values())

    # As if it were full

    def delay(self, message: Message, at: float, let_in: Callable[[], None]) -> None:
        """Have something called that lets in a message whose sender waits although there is room."""
        self._entries[message] = self._call_at(at, let_in)

    def _call_at(self, at: float, call: Callable[[], None]) -> Entry:
        """Have something called at a time. For what is due now nobody waits for the clock, which stands still."""
        entry = self._deadlines.add(at, call)
        scope = self._deadlines._scope  # noqa: SLF001 (what stands in for a part of an actor knows its parts)
        if scope is not None and at <= trio.current_time():
            scope.cancel()
        return entry

    def end_delay(self, message: Message) -> None:
        """Take note that it was called."""
        del self._entries[message]

    # What a mailbox does

    def offer(self, message: Message) -> tuple[Offer, Message | None]:
        """As of any mailbox."""
        bound = self._bound
        if self.is_full:
            self._bound = 0
        offer, dropped = super().offer(message)
        self._bound = bound
        if dropped is not None:
            self._leave(dropped)
        return offer, dropped

    def take(self) -> Message | None:
        """Take the first message out that has come."""
        if not self._lines or self._returned:
            return super().take()
        message = next((each for each in self._queued if not self._is_late(each)), None)
        if message is not None:
            del self._queued[message]
        return message

    def take_blocked(self) -> Message | None:
        """Take the message of the first waiting sender, past those that have not come."""
        if self._returned or not self.senders or not all(map(self._is_late, self._queued)):
            return None
        return self._note_let_in(self.senders.popitem(last=False)[0])

    def admit(self) -> Message | None:
        """As of any mailbox."""
        message = super().admit()
        return None if message is None else self._note_let_in(message)

    def _note_let_in(self, message: Message) -> Message:
        entry = self._entries.pop(message, None)
        if entry is not None:
            self._deadlines.drop(entry)
        return message

    def withdraw(self, message: Message) -> bool:
        """Take a message out, come or not."""
        self._leave(message)
        return super().withdraw(message)

    def drain(self) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
        """Empty it, come or not."""
        for line in self._lines.values():
            self._forget_deadlines(line)
            self.senders.update(dict.fromkeys(line.blocked))
        for entry in self._entries.values():
            self._deadlines.drop(entry)
        self._lines.clear()
        self._entries.clear()
        return super().drain()

    @property
    def blocked(self) -> int:
        """How many senders wait."""
        return len(self.senders) + sum(len(line.blocked) for line in self._lines.values())


def get_queue(resident: Resident) -> LateQueue:
    """Return an actor's queue, from now on one in which messages can be late."""
    queue = resident._queue  # noqa: SLF001 (likewise)
    if not isinstance(queue, LateQueue):
        queue = LateQueue(queue, resident.home.deadlines)
        resident._queue = queue  # noqa: SLF001 (likewise)
    return queue
