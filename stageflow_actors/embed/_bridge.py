"""The asyncio side of a supervisor on a trio loop: calls that asyncio tasks wait for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, final

import outcome
import trio

from stageflow_actors.errors import StrayCancelledError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._loop import Settled, SupervisorLoop

T = TypeVar("T")


@final
class Bridge:
    """Takes calls of asyncio tasks to the trio loop, and what comes of them back.

    Args:
        host: The asyncio loop whose tasks call.
        loop: The trio loop.
        guest: Whether both run in one thread.
    """

    def __init__(self, host: asyncio.AbstractEventLoop, loop: SupervisorLoop, *, guest: bool) -> None:
        self._host = host
        self._loop = loop
        self._guest = guest

    async def call(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        late: bool = False,
        shield: bool = False,
        on_lost: Callable[[T], object] | None = None,
    ) -> T:
        """Call an async function on the trio loop, in the caller's context, and return what it returns.

        Cancelling the caller cancels the call, waits until that has ended, however often the caller is cancelled, and
        then raises the cancellation, even where the call came to its end all the same.

        Args:
            function: What to call.
            late: Whether it belongs to what goes on already; see `SupervisorLoop.submit`.
            shield: Whether cancelling the caller waits for the end of the call, rather than cancel it.
            on_lost: Called with what the call has returned where the caller, being cancelled, does not get it.

        Raises:
            SupervisorClosedError: The portal is not open, or was left meanwhile.
            RuntimeError: The caller is no task of the loop that the portal was entered in.
        """
        self._require_task()
        waiter: _Waiter[T] = _Waiter(self, self._host)

        async def perform() -> T:
            await trio.lowlevel.checkpoint_if_cancelled()  # a supervisor that ends may not be asked any more
            value = await function()
            if not waiter.is_cancelled:  # what ended because the supervisor did is no result, whichever came first
                await trio.lowlevel.checkpoint_if_cancelled()
            return value

        call = self._loop.submit(perform, waiter.settle, late=late)
        try:
            settled = await waiter.future
        except BaseException as error:  # GeneratorExit too: who closes a waiting coroutine does not want the call
            if not shield:
                waiter.is_cancelled = True
                call.cancel()
            if isinstance(error, asyncio.CancelledError):
                await waiter.outlast()
                _give_away(waiter.settled, on_lost)
            raise
        if isinstance(settled, outcome.Value):
            return settled.value
        if settled is None:
            raise self._loop.make_lost_error()
        raise_for_caller(settled.error)

    async def look(self, function: Callable[[], T]) -> T:
        """Call a plain function on the trio loop, and return what it returns; it belongs to what goes on already."""

        async def plain() -> T:
            return function()

        return await self.call(plain, late=True)

    def keep_open(self, function: Callable[[], Awaitable[object]]) -> None:
        """Let leaving the portal wait for an async function, too. Called on the trio loop."""
        self._loop.submit(function, _ignore, late=True)

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call a plain function on the trio loop soon, or never where that has ended; from any thread."""
        self._loop.post(function, *args)

    def hand_over(self, function: Callable[..., object], *args: object) -> None:
        """Call a plain function in the asyncio loop; called on the trio loop."""
        if self._guest:
            function(*args)
            return
        try:
            self._host.call_soon_threadsafe(function, *args)
        except RuntimeError:  # it is closed, so that nobody can leave the portal any more
            self._loop.close(cancel=True)

    def run_soon(self, function: Callable[[], object]) -> None:
        """Call a plain function in the asyncio loop soon, for trio as its guest; from any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed; trio says so itself when it is thrown away
            self._host.call_soon_threadsafe(function)

    def _require_task(self) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not self._host or asyncio.current_task() is None:  # in a guest's stage the loop is the right one
            message = (
                "a portal is called in tasks of the asyncio loop that it was entered in, and this is none; "
                "open a portal in each loop, and use the supervisor's own means inside stages"
            )
            raise RuntimeError(message)


@final
class _Waiter(Generic[T]):
    """Where a task waits for its call."""

    __slots__ = ("_bridge", "_host", "future", "is_cancelled", "is_settled", "settled")

    def __init__(self, bridge: Bridge, host: asyncio.AbstractEventLoop) -> None:
        self._bridge = bridge
        self._host = host
        self.future: asyncio.Future[Settled[T]] = host.create_future()
        self.is_cancelled = False
        """Whether the task has cancelled the call."""
        self.is_settled = False
        self.settled: Settled[T] = None

    def settle(self, settled: Settled[T]) -> None:
        """Wake the task; called on the trio loop."""
        self._bridge.hand_over(self._wake, settled)

    def _wake(self, settled: Settled[T]) -> None:
        self.is_settled, self.settled = True, settled
        if not self.future.done():  # it is cancelled with the task that waits for it
            self.future.set_result(settled)

    async def outlast(self) -> None:
        """Wait until the call is settled, whoever cancels the task meanwhile."""
        while not self.is_settled:
            self.future = self._host.create_future()
            with contextlib.suppress(asyncio.CancelledError):  # the first one is raised in the end
                await self.future


def raise_for_caller(error: BaseException) -> NoReturn:
    """Raise what a call has ended with, in an asyncio task that nobody has cancelled."""
    if isinstance(error, asyncio.CancelledError):  # a task that lets it out counts as cancelled, and the error is lost
        problem = "a stage raised asyncio.CancelledError, and nobody had cancelled the task that waits for it"
        raise StrayCancelledError(problem, hint="catch it in the stage, and raise an error of its own") from error
    try:
        raise error
    finally:
        del error  # its traceback keeps this frame


def _give_away(settled: Settled[T], on_lost: Callable[[T], object] | None) -> None:
    """Deal with what a call has come to whose caller was cancelled."""
    if isinstance(settled, outcome.Value):
        if on_lost is not None:
            on_lost(settled.value)
    elif settled is not None and not isinstance(settled.error, Exception | asyncio.CancelledError):
        raise settled.error  # such as SystemExit: that comes before a cancellation, as in trio


def _ignore(_settled: Settled[Any]) -> None:
    pass


async def outlast(event: asyncio.Event, on_cancel: Callable[[], object]) -> asyncio.CancelledError | None:
    """Wait for an event, whoever cancels the task meanwhile.

    Args:
        event: What to wait for.
        on_cancel: Called at each cancellation.

    Returns:
        The first cancellation, or None.
    """
    cancelled: asyncio.CancelledError | None = None
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            on_cancel()
    return cancelled
