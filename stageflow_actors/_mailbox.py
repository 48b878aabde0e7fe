"""A bounded mailbox: what is queued, who waits to send, and what becomes of one message too many. Pure: it never waits.

Messages move from the waiting senders into the queue, from its front to a worker, and back to the front where the
worker that had one is gone. Every move keeps the order of arrival.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Generic, TypeVar, final

import attrs

from ._limits import Overflow, require_max_queued, require_overflow
from ._validation import refuse

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")


@final
@attrs.frozen
class Mailbox:
    """How many messages a resident actor keeps, and what becomes of one more.

    What its workers have in hand does not count. Supervision goes past the mailbox: it is never queued or dropped.

    Raises:
        PipelineValidationError: An option that cannot be.
    """

    max_queued: int | None = 64
    """How many messages may be queued; None for any number, 0 for none but what a worker takes at once."""
    overflow: Overflow = "wait"
    """What becomes of one more: its sender waits (`wait`); it is refused with a `MailboxFullError` (`reject`); the
    message that has been queued for longest is dropped for it (`drop_oldest`); it is dropped itself (`drop_newest`)."""

    def __attrs_post_init__(self) -> None:
        require_max_queued(self.max_queued)
        require_overflow(self.overflow)
        if self.max_queued is None and self.overflow != "wait":
            problem = f"overflow={self.overflow!r} says nothing of a mailbox that is never full"
            refuse(problem, hint="give max_queued, or leave overflow out")


class Offer(Enum):
    """What a mailbox makes of one more message."""

    QUEUED = "queued"
    BLOCKED = "blocked"
    """Its sender is to wait."""
    REFUSED = "refused"
    """It was not accepted."""
    DROPPED = "dropped"
    """It was accepted, and dropped."""


@final
class MailQueue(Generic[_T]):
    """The messages of a mailbox, and those of the senders that wait.

    Each is in it once at most: a message is told apart by identity.
    """

    __slots__ = ("_bound", "_overflow", "_queued", "_returned", "senders")

    def __init__(self, options: Mailbox) -> None:
        self._bound = options.max_queued
        self._overflow = options.overflow
        # Ordered dicts, because a message is withdrawn from the middle when its asker gives up.
        self._queued: OrderedDict[_T, None] = OrderedDict()
        self.senders: OrderedDict[_T, None] = OrderedDict()
        self._returned: dict[_T, None] = {}
        """What a worker had and is to be delivered again, the last one first; beside the bound, and never dropped."""

    def offer(self, message: _T) -> tuple[Offer, _T | None]:
        """Take in a message that no worker is free for; return what became of it, and which one it drove out.

        There is somebody who waits only while the queue is full, so a newcomer never overtakes.
        """
        if self._bound is None or len(self._queued) < self._bound:
            self._queued[message] = None
            return Offer.QUEUED, None
        if self._overflow == "wait":
            self.senders[message] = None
            return Offer.BLOCKED, None
        if self._overflow == "reject":
            return Offer.REFUSED, None
        if self._overflow == "drop_oldest" and self._queued:
            oldest = self._queued.popitem(last=False)[0]
            self._queued[message] = None
            return Offer.QUEUED, oldest
        return Offer.DROPPED, None

    def take(self) -> _T | None:
        """Take the first message out, for a worker that is free."""
        if self._returned:
            return self._returned.popitem()[0]
        if self._queued:
            return self._queued.popitem(last=False)[0]
        return None

    def admit(self) -> _T | None:
        """Move the message of the first waiting sender into the queue if there is room, and return it.

        To be called until it returns None, whenever a message has left the queue.
        """
        if not self.senders or (self._bound is not None and len(self._queued) >= self._bound):
            return None
        message = self.senders.popitem(last=False)[0]
        self._queued[message] = None
        return message

    def take_blocked(self) -> _T | None:
        """Take the message of the first waiting sender, past an empty queue that has room for none."""
        if self._returned or self._queued or not self.senders:
            return None
        return self.senders.popitem(last=False)[0]

    def put_back(self, message: _T) -> None:
        """Put a message that a worker has had back, in front of the others."""
        self._returned[message] = None

    def withdraw(self, message: _T) -> bool:
        """Take a message out wherever it waits, and return whether it was in the queue itself."""
        for each in (self._queued, self._returned):
            if message in each:
                del each[message]
                return True
        self.senders.pop(message, None)
        return False

    def drain(self) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
        """Empty it; return what was queued, and the messages of those who waited, in order."""
        queued, senders = tuple(self), tuple(self.senders)
        self._returned.clear()
        self._queued.clear()
        self.senders.clear()
        return queued, senders

    @property
    def blocked(self) -> int:
        """How many senders wait."""
        return len(self.senders)

    def __len__(self) -> int:
        """Return how many messages are queued."""
        return len(self._returned) + len(self._queued)

    def __iter__(self) -> Iterator[_T]:
        """Iterate over the queued messages, the first one first."""
        return chain(reversed(self._returned), self._queued)
