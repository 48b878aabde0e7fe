"""Plain functions of users: called apart from the runtime's frames, and in worker threads."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, cast, final

import outcome
import trio
from trio.lowlevel import disable_ki_protection

from ._bag import describe_error
from .errors import ThreadAbandonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._shutdown import Shutdown
    from ._stage import StageContext

_logger: Final = logging.getLogger("stageflow_actors")


@disable_ki_protection
def apart(function: Callable[..., Any], *args: Any) -> Iterator[Any]:
    """Yield what a user's plain function returns: `next(apart(function, argument))`.

    A generator's frame has no way back to its caller's. A traceback that goes through a plain call
    would keep every frame below it, and so the run that keeps the error.
    """
    yield function(*args)


def call_in_loop(token: trio.lowlevel.TrioToken, function: Callable[[Any], object], argument: object) -> None:
    """Call a function in the thread that runs trio: at once from there, as soon as may be from a worker thread."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:  # a worker thread
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(function, argument)
    else:
        function(argument)


@final
class ThreadedCall:
    """A stage's plain `def` in a worker thread.

    Trio lets go of the thread at the moment of cancellation, so that `trio.from_thread.check_cancelled`
    sees it at once; whether the thread ends within the shutdown budget is followed here. The call is
    its own limiter towards trio: it passes requests on, and learns when its thread was admitted.
    """

    __slots__ = (
        "_abandoned",
        "_admitted",
        "_ended",
        "_free",
        "_function",
        "_keep",
        "_limiter",
        "_on_start",
        "_outcome",
        "_token",
        "_watched",
    )

    def __init__(
        self,
        function: Callable[[StageContext], Any],
        limiter: trio.CapacityLimiter,
        on_start: Callable[[], None],
        keep: Callable[[], Callable[[], None]],
    ) -> None:
        self._keep: Callable[[], Callable[[], None]] | None = keep
        self._free: Callable[[], None] | None = None
        self._function = function
        self._limiter = limiter
        self._on_start: Callable[[], None] | None = on_start
        self._token = trio.lowlevel.current_trio_token()
        self._outcome: outcome.Outcome[Any] | None = None
        self._ended = trio.Event()
        self._admitted = False
        self._watched = False
        self._abandoned = False

    async def run(self, ctx: StageContext, shutdown: Shutdown) -> Any:
        """Run the function in a thread, once there is a place for it, and return what it returned.

        Raises:
            ThreadAbandonedError: It was cancelled, and the thread outlived the shutdown budget.
        """
        try:
            await trio.to_thread.run_sync(
                self._work,
                ctx,
                abandon_on_cancel=True,
                limiter=cast("trio.CapacityLimiter", self),
                thread_name=f"stage {ctx.stage_name}",
            )
        except trio.Cancelled:
            if not self._admitted:
                raise
        else:
            return self._take_outcome()
        finally:
            keep, self._keep = self._keep, None  # it leads to the run, as `_on_start` does
        self._watched = True
        if self._outcome is None:
            with trio.CancelScope(shield=True, deadline=shutdown.deadline()):
                await self._ended.wait()
        if self._outcome is None:
            self._abandoned = True
            assert keep is not None
            self._free = keep()
            problem = f"its thread was still running {shutdown.seconds:g} s after it was cancelled"
            hint = "let it call trio.from_thread.check_cancelled() now and then"
            raise ThreadAbandonedError(problem, seconds=shutdown.seconds, hint=hint)
        return self._take_outcome()

    def _take_outcome(self) -> Any:
        """Return or raise what the function did, and keep no reference to it."""
        result, self._outcome = self._outcome, None
        assert result is not None
        return result.unwrap()

    def _work(self, ctx: StageContext) -> None:
        # Not returned: trio's own frames in this thread would keep the error whose traceback keeps them.
        result: outcome.Outcome[Any] = outcome.capture(next, apart(self._function, ctx))
        # Either this thread sees that it is watched, or the loop sees the outcome: each of the two
        # writes before it reads.
        self._outcome = result
        if self._watched:
            self._tell_end(ctx.stage_name, result)

    def _tell_end(self, stage: str, result: outcome.Outcome[Any]) -> None:
        if self._abandoned:
            how = describe_error(result.error) if isinstance(result, outcome.Error) else "a value"
            _logger.warning("the abandoned thread of stage %r ended with %s", stage, how)
        with contextlib.suppress(trio.RunFinishedError):  # the loop may be gone, and the waiter with it
            self._token.run_sync_soon(self._ended.set)

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Wait for a place for the thread; the attempt's time begins when there is one."""
        await self._limiter.acquire_on_behalf_of(borrower)
        try:
            # The limiter's own last step is shielded: the run may have stopped meanwhile.
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            self._limiter.release_on_behalf_of(borrower)
            raise
        self._admitted = True
        on_start, self._on_start = self._on_start, None  # it leads to the run, and frames of the thread lead here
        assert on_start is not None
        on_start()

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give the place back: trio calls this when the thread has really ended."""
        self._limiter.release_on_behalf_of(borrower)
        if self._free is not None:
            self._free()
