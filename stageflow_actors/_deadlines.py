"""The timeouts of all asks of a supervisor, kept by one task.

A cancel scope an ask would cost more than the ask itself. The deadlines stand in a heap; those of asks that are over
are taken out together, once they are more than half of it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

Entry: TypeAlias = list[Any]
"""A deadline on trio's clock, a number that tells equal ones apart, and what to call; None when it is over."""

_CALL: Final = 2
_FEW: Final = 64
"""So many entries may be over without being taken out."""


@final
class Deadlines:
    """Calls what is due. Used on the trio thread alone."""

    __slots__ = ("_heap", "_next", "_number", "_over", "_scope")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._number = count()
        self._over = 0
        self._next = inf
        """When the task wakes up next."""
        self._scope: trio.CancelScope | None = None
        """What ends its sleep."""

    def add(self, at: float, call: Callable[[], None]) -> Entry:
        """Call something at a time on trio's clock, or a little after it, unless it is dropped before."""
        entry: Entry = [at, next(self._number), call]
        heappush(self._heap, entry)
        if at < self._next:
            self._next = at
            if self._scope is not None:
                self._scope.deadline = at
        return entry

    def drop(self, entry: Entry) -> None:
        """Forget a call that has not been made."""
        entry[_CALL] = None
        self._over += 1
        heap = self._heap
        if self._over > _FEW and self._over * 2 > len(heap):
            heap[:] = [each for each in heap if each[_CALL] is not None]
            heapify(heap)
            self._over = 0

    async def keep(self) -> None:
        """Make the calls, until this is cancelled."""
        while True:
            self._next = self._heap[0][0] if self._heap else inf
            with trio.CancelScope(deadline=self._next) as self._scope:
                await trio.sleep_forever()
            self._scope = None
            self._call_due()

    def _call_due(self) -> None:
        now = trio.current_time()
        while self._heap and self._heap[0][0] <= now:
            call = heappop(self._heap)[_CALL]
            if call is None:
                self._over -= 1
            else:
                call()
