"""The limiter: who may go on, and who waits without a task until the limiter calls back."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import outcome
import trio
from trio.lowlevel import Abort, Task, current_task, enable_ki_protection

from ._limits import LimiterBase, require_priority
from ._tickets import Gate, Ticket
from .statistics import LimiterStatistics

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._limits import Overflow, Rate
    from .errors import OverloadedError


@final
class Limiter(LimiterBase):
    """Never more than so many at once: of stages, of runs, of a whole application that shares it.

    Whoever finds no free slot waits in a queue, in the order of `arrived - priority * aging`: one of the
    priority p is overtaken only by those of a priority q > p that arrive less than `aging * (q - p)`
    seconds after it. So the least urgent waits for those that were there before it and for the more
    urgent of that time, however many come later. A slot is given to the first of the queue at the moment
    at which it becomes free; a newcomer never takes it before one that waits.

    A limiter may be made anywhere. It serves one trio run at a time, on that run's thread; when the run
    is over, it serves the next one.

    Args:
        max_concurrency: How many may run at once.
        max_queued: How many may wait; None for any number with `overflow="wait"`, for none with another policy.
        overflow: What becomes of one more: it waits before the queue, in the order of arrival (`wait`); it is
            refused, and counted as rejected (`reject`) or dropped (`drop_newest`); the one that has waited longest
            is dropped for it (`drop_oldest`). Whoever is refused or dropped gets an `OverloadedError`.
        rate: How often one may start. The token is reserved with the slot, spent at the start of the attempt,
            and given back if there is none.
        aging: In seconds.

    Raises:
        PipelineValidationError: An option cannot be used.
    """

    __slots__ = ("__weakref__",)

    def __init__(
        self,
        max_concurrency: int,
        *,
        max_queued: int | None = None,
        overflow: Overflow = "wait",
        rate: Rate | None = None,
        aging: float = 10.0,
    ) -> None:
        super().__init__(max_concurrency, max_queued=max_queued, overflow=overflow, rate=rate, aging=aging)

    def statistics(self) -> LimiterStatistics:
        """Return what it holds now, and what it has done."""
        gate: Gate | None = self._gate
        if gate is None:
            return LimiterStatistics(self.max_concurrency, 0, 0, 0, 0, 0)
        held = (gate.running, gate.queue.size)
        return LimiterStatistics(self.max_concurrency, *held, gate.admitted, gate.rejected, gate.dropped)

    def slot(self, priority: int = 0) -> AbstractAsyncContextManager[None]:
        """Hold a slot for the length of an `async with` block.

        Entering waits, cancellably, until the limiter admits, and is a checkpoint. With a rate, the token
        is spent on entry.

        Args:
            priority: A larger one is more urgent.

        Raises:
            OverloadedError: On entry: it was refused or, while it waited, dropped.
            PipelineValidationError: The priority is no whole number.
        """
        return _Slot(self, require_priority(priority))

    def __repr__(self) -> str:
        return f"<Limiter of {self.max_concurrency:,}: {self._gate.describe() if self._gate else 'unused'}>"


class Waiter:
    """A task that waits itself until a ticket is admitted."""

    __slots__ = ("_task", "_ticket")

    def __init__(self) -> None:
        self._task: Task | None = None
        self._ticket: Ticket | None = None
        """While it waits."""

    async def acquire(self, ticket: Ticket) -> None:
        """Request a ticket whose claimant this is, and wait for its limiters. A checkpoint where it has to wait.

        Raises:
            OverloadedError: It was refused or, while it waited, dropped.
        """
        if not ticket.request():
            await self.wait(ticket)

    async def wait(self, ticket: Ticket) -> None:
        """Wait, cancellably, for a ticket that was requested and not admitted at once.

        Raises:
            OverloadedError: It was dropped.
        """
        self._task, self._ticket = current_task(), ticket
        try:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        finally:
            self._task = self._ticket = None

    def _abort(self, _raise_cancel: Callable[[], None]) -> Abort:
        # Once it is admitted or dropped, trio does not ask any more: what came first counts.
        assert self._ticket is not None
        self._ticket.release_quietly()  # trio goes through the tasks of a scope, and none may be added meanwhile
        return Abort.SUCCEEDED

    def admitted(self, _ticket: Ticket) -> None:
        """Go on."""
        assert self._task is not None
        trio.lowlevel.reschedule(self._task)

    def refused(self, _ticket: Ticket, error: OverloadedError) -> None:
        """Go on with the error."""
        assert self._task is not None
        trio.lowlevel.reschedule(self._task, outcome.Error(error))


@final
class _Slot(Waiter):
    """A task of the application that holds a slot for the length of a block."""

    __slots__ = ("_held", "_limiter", "_priority")

    def __init__(self, limiter: Limiter, priority: int) -> None:
        super().__init__()
        self._limiter = limiter
        self._priority = priority
        self._held: Ticket | None = None

    @enable_ki_protection
    async def __aenter__(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._held is not None or self._ticket is not None:
            raise RuntimeError("a slot can be entered only once at a time; call slot() for each block")
        ticket = Ticket(self, "slot", (self._limiter,), self._priority)
        await self.acquire(ticket)
        self._held = ticket
        ticket.start()

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ticket, self._held = self._held, None
        assert ticket is not None
        ticket.release()
