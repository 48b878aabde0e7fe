"""A supervisor on a trio loop of its own, for callers that are not on it."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, final

import outcome
import trio

from stageflow_actors.errors import SupervisorClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stageflow_actors import Supervisor

T = TypeVar("T")
Settled: TypeAlias = outcome.Value[T] | outcome.Error | None
"""What came of a call; None where it was cancelled, by its caller or because the supervisor was left."""

_NEW: Final = "is not open yet"
_OPEN: Final = "is open"
_LEAVING: Final = "is being left"
_LEFT: Final = "has been left"
_GAVE_UP: Final = "has ended: its supervisor gave up"


def _do_nothing() -> None:
    pass


@final
class Call(Generic[T]):
    """One thing that a caller outside of trio has asked for. It is settled exactly once, in the thread that runs trio.

    It starts in the context in which it was made, so that the caller's context variables hold for it.
    """

    __slots__ = ("_context", "_function", "_loop", "_scope", "_settle", "is_late")

    def __init__(
        self,
        loop: SupervisorLoop,
        function: Callable[[], Awaitable[T]],
        settle: Callable[[Settled[T]], None],
        *,
        is_late: bool,
    ) -> None:
        self.is_late = is_late
        """Whether it is taken also while the supervisor is being left."""
        self._loop = loop
        self._function = function
        self._settle = settle
        self._context = contextvars.copy_context()
        self._scope = trio.CancelScope()

    def cancel(self) -> None:
        """Cancel it, from any thread. It is settled when it has ended; afterwards this does nothing."""
        self._loop.post(self._scope.cancel)

    def begin(self, nursery: trio.Nursery) -> None:
        """Start its task."""
        self._context.run(nursery.start_soon, self._perform)

    async def _perform(self) -> None:
        result: Settled[T] = None
        try:
            with self._scope:
                try:
                    result = outcome.Value(await self._function())
                except trio.Cancelled:
                    raise
                except BaseException as error:  # also what is no `Exception` is for the caller, as it is in trio
                    result = outcome.Error(error)
        finally:
            self._loop.settle(self, result)
            del result  # the traceback of an error keeps this frame

    def settle(self, result: Settled[T]) -> None:
        """Tell its caller."""
        self._settle(result)


@final
class SupervisorLoop:
    """Keeps a supervisor open on a trio loop: in a thread of its own, or as a guest of another loop.

    Callers take no lock: what interrupts them, a signal handler or a finalizer, may call too. They post, and the loop
    decides: trio calls whatever it has accepted, and refuses what comes after its end.

    Args:
        supervisor: A new one.
        name: What is open and left, in messages: `the portal`.
        on_open: Called when it is open, on the trio loop.
        on_end: Called when the loop has ended, with what it ended with; it may not have opened before. In a thread of
            its own this is the last thing that the thread does; of a guest, the host's loop calls it.
        on_give_up: Called on the trio loop when it begins to end although nobody has closed it.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        name: str,
        on_open: Callable[[], None],
        on_end: Callable[[BaseException | None], None],
        on_give_up: Callable[[], None] = _do_nothing,
    ) -> None:
        self.supervisor = supervisor
        self._name = name
        self._on_open = on_open
        self._on_end = on_end
        self._on_give_up = on_give_up
        self._state = _NEW
        """Changed on the loop alone."""
        self._is_closing = False
        """Whether a caller wants it to be left."""
        self._calls: set[Call[Any]] = set()
        """Those that were begun with and are not settled. Belongs to the loop."""
        self._settled: trio.Event
        """Set when the last of them is, where the loop waits for that."""
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery
        self._closing: trio.Event
        self._life: trio.CancelScope
        self.thread: threading.Thread | None = None

    def run_in_thread(self, name: str, *, daemon: bool) -> None:
        """Start the loop in a thread of its own."""
        thread = threading.Thread(target=self._run, name=name, daemon=daemon)
        thread.start()
        self.thread = thread  # one that has started, and can be joined

    def run_as_guest(self, run_sync_soon_threadsafe: Callable[[Callable[[], object]], object]) -> None:
        """Start the loop as a guest of the one that runs in this thread.

        Args:
            run_sync_soon_threadsafe: Calls a function in that loop, from any thread.
        """
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=run_sync_soon_threadsafe,
            done_callback=self._end,
            host_uses_signal_set_wakeup_fd=True,
        )

    # For callers, in any thread

    def submit(
        self, function: Callable[[], Awaitable[T]], settle: Callable[[Settled[T]], None], *, late: bool = False
    ) -> Call[T]:
        """Call an async function on the loop, in the present context, and `settle` with what came of it.

        Args:
            function: What to call.
            settle: Called on the loop with what came of it, or with None where it was cancelled.
            late: Whether it belongs to what goes on already: then it is taken also while the supervisor is being left,
                as long as another call is not settled.

        Raises:
            SupervisorClosedError: The supervisor is not open.
        """
        call = Call(self, function, settle, is_late=late)
        if not self._takes(call) or self._token is None:
            raise self.make_closed_error()
        try:
            self._token.run_sync_soon(self._begin, call)
        except trio.RunFinishedError:
            raise self.make_closed_error() from None
        return call

    def _takes(self, call: Call[Any]) -> bool:
        return self._state is _OPEN and (call.is_late or not self._is_closing)

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Call a plain function on the loop soon, or never where the loop has ended."""
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):  # whatever was open is settled by its end
            self._token.run_sync_soon(function, *args)

    def close(self, *, cancel: bool) -> None:
        """Leave the supervisor, from any thread; `on_end` tells when that is done. Later calls may still cancel.

        Args:
            cancel: Whether to cancel what it runs, rather than wait for it.
        """
        self._is_closing = True
        if self._token is not None:
            self.post(self._leave, cancel)
        # Else it is not open yet, and sees that before it would be.

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self._state is _OPEN and not self._is_closing

    def make_closed_error(self) -> SupervisorClosedError:
        """Return what a call to it raises, while it is not open."""
        state = _LEAVING if self._is_closing and self._state in (_NEW, _OPEN) else self._state
        return SupervisorClosedError(f"{self._name} {state}")

    def make_lost_error(self) -> SupervisorClosedError:
        """Return what a call ends with that its caller has not cancelled, and that has no outcome all the same."""
        how = self._state if self._state is _GAVE_UP else "was left while this was under way"
        return SupervisorClosedError(f"{self._name} {how}")

    # On the loop

    def settle(self, call: Call[T], result: Settled[T]) -> None:
        """Settle a call that was begun with."""
        self._calls.remove(call)
        if not self._calls:
            self._settled.set()
        call.settle(result)

    def _begin(self, call: Call[Any]) -> None:
        if not self._takes(call) or self._nursery.cancel_scope.cancel_called:
            call.settle(None)
        else:
            self._calls.add(call)
            call.begin(self._nursery)

    def _leave(self, cancel: bool) -> None:  # noqa: FBT001 (called by position)
        if cancel:
            self._life.cancel()
        self._closing.set()

    async def _main(self) -> None:
        self._closing, self._life, self._settled = trio.Event(), trio.CancelScope(), trio.Event()
        with self._life:
            async with self.supervisor, trio.open_nursery() as self._nursery:
                self._token = trio.lowlevel.current_trio_token()
                if self._is_closing:
                    return
                self._state = _OPEN
                self._on_open()
                try:
                    await self._closing.wait()
                    await self._wait_for_calls()
                finally:
                    self._stop_taking()

    async def _wait_for_calls(self) -> None:
        """Wait until no call is left. From then on none is taken, so that the nursery does not close over one."""
        while self._calls:
            self._settled = trio.Event()
            await self._settled.wait()
        self._state = _LEFT

    def _stop_taking(self) -> None:
        gave_up = not self._closing.is_set()
        self._state = _GAVE_UP if gave_up else _LEFT
        if gave_up:
            self._on_give_up()

    def _run(self) -> None:
        self._end(outcome.capture(trio.run, self._main))

    def _end(self, ended: outcome.Outcome[None]) -> None:
        if self._state is not _GAVE_UP:
            self._state = _LEFT
        assert not self._calls
        self._on_end(ended.error if isinstance(ended, outcome.Error) else None)
