"""Between callers in any thread and a supervisor on its loop: what is asked goes in, and a pykka future comes out."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import outcome
import pykka
import trio

from stageflow_actors._bag import describe_error
from stageflow_actors.errors import SupervisorClosedError

from ._loop import SupervisorLoop
from ._pykka_actor import enter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stageflow_actors import Supervisor

    from ._loop import Settled

T = TypeVar("T")
_logger: Final = logging.getLogger("stageflow_actors")


class LoopFuture(pykka.ThreadingFuture[T], Generic[T]):
    """A future that a supervisor's loop sets. In the loop's own thread, which would have to set it, it cannot wait."""

    setter: threading.Thread | None = None
    """The thread that sets it."""
    is_settled = False

    def get(self, *, timeout: float | None = None) -> Any:
        """Return the value or raise the error, as any pykka future; see there.

        Raises:
            RuntimeError: It is not set yet, and the present thread is the one that would set it.
        """
        if not self.is_settled and self.setter is threading.current_thread():
            message = (
                "an async stage cannot wait for a future that its own supervisor sets: it would wait for ever; "
                "await supervisor.run(...) of a supervisor of its own, or wait in a plain `def` stage"
            )
            raise RuntimeError(message)
        return super().get(timeout=timeout)

    def settle(self, result: outcome.Value[T] | outcome.Error) -> None:
        """Set it, to a value or an error."""
        self.is_settled = True
        if isinstance(result, outcome.Value):
            self.set(result.value)
        else:
            error = result.error
            self.set_exception((type(error), error, error.__traceback__))


@final
class Desk:
    """Where callers ask.

    Args:
        supervisor: A new one.
        ref: The pykka actor's reference, which what the supervisor runs finds in its context.
        stop: Stops the pykka actor. Called in the loop's thread, where the supervisor has ended by itself.
    """

    def __init__(self, supervisor: Supervisor, ref: pykka.ActorRef[Any], stop: Callable[[], None]) -> None:
        self.supervisor = supervisor
        self.loop = SupervisorLoop(supervisor, str(ref), self._note_opened, self._note_end)
        self._ref = ref
        self._name = str(ref)
        self._stop = stop
        self._opened = threading.Event()
        """Set when it has opened, or has ended without."""
        self._error: BaseException | None = None
        """What the supervisor has ended with."""
        self._is_stopping = False
        """Whether it is to end because the pykka actor does."""
        self._ending: list[LoopFuture[Any]] = []
        """Of calls that were cancelled because it ends by itself. They are set when it has, and why is known."""

    def open(self, *, daemon: bool) -> None:
        """Open the supervisor, on a loop in a thread of its own, and wait until it takes calls.

        Raises:
            BaseException: What the loop raised instead.
        """
        self.loop.run_in_thread(f"{self._name} on trio", daemon=daemon)
        self._opened.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Leave the supervisor, which cancels what it runs, and wait until it has ended."""
        self._is_stopping = True
        self.loop.close(cancel=True)
        if self.loop.thread is not None:
            self.loop.thread.join()

    def call(self, function: Callable[[], Awaitable[T]]) -> LoopFuture[T]:
        """Call an async function on the loop, in the caller's context; return the future of what comes of it."""
        future: LoopFuture[T] = self.make_future()

        async def call() -> T:
            value = await function()
            await trio.lowlevel.checkpoint_if_cancelled()  # what ended because the supervisor did is no result
            return value

        self.submit(call, partial(self.settle, future), future)
        return future

    def submit(
        self, function: Callable[[], Awaitable[T]], settle: Callable[[Settled[T]], None], future: LoopFuture[Any]
    ) -> None:
        """Call an async function on the loop and `settle`; where no supervisor is open, the future says so."""
        try:
            self.loop.submit(partial(self._perform, function), settle)
        except SupervisorClosedError:
            future.settle(outcome.Error(self._make_dead(f"{self._name} is not running")))

    def make_future(self) -> LoopFuture[Any]:
        """Return a future that the loop is to set."""
        future: LoopFuture[Any] = LoopFuture()
        future.setter = self.loop.thread
        return future

    def settle(self, future: LoopFuture[T], result: Settled[T]) -> None:
        """Set a future: to a dead actor where the end of the supervisor has cancelled the call."""
        if result is not None:
            future.settle(result)
        elif self._is_stopping:  # at once: a stage that is to end may be waiting for it
            future.settle(outcome.Error(self._make_dead(f"{self._name} was stopped before this had ended")))
        else:
            self._ending.append(future)

    async def _perform(self, function: Callable[[], Awaitable[T]]) -> T:
        enter(self._ref)
        await trio.lowlevel.checkpoint_if_cancelled()  # a supervisor that ends may not be asked any more
        return await function()

    def _note_opened(self) -> None:
        self._opened.set()

    def _note_end(self, error: BaseException | None) -> None:
        """Tell everyone who waits that it has ended, in its thread, as the last thing that this does."""
        self._error = error
        if error is not None and self._opened.is_set():
            _logger.error("%s ended: %s", self._name, describe_error(error), exc_info=error)
            self._stop()
        self._opened.set()
        ending, self._ending = self._ending, []
        for future in ending:
            future.settle(outcome.Error(self._make_dead(f"{self._name} has ended")))

    def _make_dead(self, problem: str) -> pykka.ActorDeadError:
        """Return the error for a call that nobody answers; why the supervisor ended by itself is its cause."""
        if self._error is None:
            return pykka.ActorDeadError(problem)
        dead = pykka.ActorDeadError(f"{self._name} ended: {describe_error(self._error)}")
        dead.__cause__ = self._error
        return dead
