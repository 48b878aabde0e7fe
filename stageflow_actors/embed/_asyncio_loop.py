"""Async stages that await asyncio, in an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import attrs
import outcome
import trio

from stageflow_actors._actor import split_cancelled
from stageflow_actors._bag import describe_error
from stageflow_actors._placement import Placement, Site
from stageflow_actors._stage import bind_runner
from stageflow_actors._validation import refuse
from stageflow_actors.errors import MissingExtraError, StrayCancelledError, ThreadAbandonedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from stageflow_actors import StageContext
    from stageflow_actors._placement import Host
    from stageflow_actors._shutdown import Shutdown
    from stageflow_actors._stage import RunnerForm

_logger: Final = logging.getLogger("stageflow_actors")


def asyncio_loop(loop: asyncio.AbstractEventLoop | None = None) -> Placement:
    """Return a placement for async stages that await asyncio instead of trio.

    Everything of such a stage runs in that loop: it is made, entered if it is an async context manager, executed and
    left there, in a task of its own, all within its timeout. Cancelling it cancels that task, in asyncio's way: a
    `CancelledError`, once. The run waits for its end as long as its shutdown budget allows: as a thread that outlives
    it, the stage is `ABANDONED`, and its limiter slot stays taken until the task really ends. Context variables hold as
    for any stage.

    Args:
        loop: The application's own, which has to run as long as the supervisor is open: for stages that share clients
            with the rest of the application. A stage fails where it does not run, and where it cannot, because
            `trio.run` was called in one of its tasks. By default a loop inside trio's, opened for the supervisor, by
            trio-asyncio; to have that imported changes how asyncio makes new loops in the whole process, so it is
            not for programs that run asyncio too. It is closed with the supervisor: tasks that are left in it are
            cancelled, and closed where they are still there when the shutdown budget is spent.

    Raises:
        MissingExtraError: There is no `loop`, and the extra `asyncio` is not installed.
        PipelineValidationError: It is no loop, or closed.
    """
    if loop is None:
        _require_extra()
    elif not isinstance(loop, asyncio.AbstractEventLoop):
        refuse(f"loop must be an asyncio loop, not {loop!r}", hint="write asyncio_loop(asyncio.get_running_loop())")
    elif loop.is_closed():
        refuse(f"loop {loop!r} is closed", hint="give one that runs as long as the supervisor is open")
    return LoopPlacement(loop)


def _require_extra() -> None:
    from importlib.util import find_spec  # noqa: PLC0415 (to import it has effects, so it is only looked for)

    if find_spec("trio_asyncio") is None:
        hint = "install it: pip install 'stageflow-actors[asyncio]'"
        raise MissingExtraError("asyncio_loop() without a loop needs trio_asyncio", extra="asyncio", hint=hint)


@final
@attrs.frozen(eq=False)
class LoopPlacement(Placement):
    """Made by `asyncio_loop`."""

    loop: asyncio.AbstractEventLoop | None

    def check(self, _runner: Any, form: RunnerForm) -> str | None:
        """Refuse plain functions."""
        return None if form.is_async else "awaits nothing, as it is a plain `def`: leave the placement out"

    def adapt(self, runner: Any, form: RunnerForm) -> tuple[RunnerForm, Callable[..., Any]]:
        """Have a class made and entered in the loop too."""
        adapted = attrs.evolve(form, is_class=False, is_managed=False)
        if form.is_managed:
            return adapted, partial(_enter, runner)
        return adapted, partial(_make, runner) if form.is_class else bind_runner(runner, form)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Site]:
        """Open it."""
        if self.loop is not None:
            yield LoopSite(self.loop)
            return
        from trio_asyncio import open_loop  # noqa: PLC0415 (it belongs to an extra, and has effects)

        async with open_loop() as loop:
            loop.stop = _refuse_to_stop
            site = LoopSite(loop)
            try:
                yield site
            finally:
                del loop.stop
                await site.end_tasks()

    def __repr__(self) -> str:
        """Write it as it is made."""
        return "asyncio_loop()" if self.loop is None else f"asyncio_loop({self.loop!r})"


def _refuse_to_stop() -> NoReturn:
    message = (
        "the loop of asyncio_loop() was told to stop(), and is that of other stages too; end the stage by returning"
    )
    raise RuntimeError(message)


async def _make(cls: Callable[[], Any], ctx: StageContext) -> Any:
    return await cls().execute(ctx)


async def _enter(cls: Callable[[], Any], ctx: StageContext) -> Any:
    instance = cls()
    async with instance:
        return await instance.execute(ctx)
    return None  # __aexit__ swallowed an error


@final
class LoopSite(Site):
    """An asyncio loop, while a supervisor is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._visits: set[_Visit] = set()
        """Those that have not ended."""
        self._seconds = 0.0
        """The shutdown budget."""
        self._is_over = False

    async def call(
        self, function: Callable[[StageContext], Any], ctx: StageContext, begin: Callable[[], None], host: Host
    ) -> Any:
        """Run one attempt in the loop.

        Raises:
            RuntimeError: The loop does not run.
            StrayCancelledError: It raised a `CancelledError`, and nobody had cancelled it.
            ThreadAbandonedError: It was cancelled, and its task outlived the shutdown budget.
        """
        _require_turning(self._loop)
        self._seconds = host.shutdown.seconds
        visit = _Visit(self._loop, partial(function, ctx), ctx.stage_name, self._visits)
        begin()
        self._loop.call_soon_threadsafe(visit.begin)
        self._visits.add(visit)
        has_ended = True
        try:
            await visit.ended.wait()
        except trio.Cancelled:
            has_ended = await visit.stop(host.shutdown)
            if has_ended and visit.result is None:
                raise
        if not has_ended:
            visit.abandon(host.keep())
            seconds = host.shutdown.seconds
            problem = f"its asyncio task was still running {seconds:g} s after it was cancelled"
            hint = "let it end with its CancelledError"
            if not self._loop.is_running():
                problem = (
                    f"its asyncio loop had stopped, and its task was not over {seconds:g} s after it was cancelled"
                )
                hint = "let the loop run as long as the supervisor is open"
            raise ThreadAbandonedError(problem, seconds=seconds, hint=hint)
        if self._is_over and not isinstance(visit.result, outcome.Value):
            message = "the asyncio loop that it ran in has ended"
            raise RuntimeError(message)
        if visit.result is None:
            raise StrayCancelledError("an asyncio.CancelledError came out of it that its run had not caused")
        return visit.result.unwrap()

    async def end_tasks(self) -> None:
        """Have all tasks of the loop end, which is about to be closed: who closes it would wait for them for ever."""
        self._is_over = True
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if self._loop.is_running():  # it may be what broke
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._seconds):
                for task in tasks:
                    await _wait_for(task)
        left = asyncio.all_tasks(self._loop)
        for task in left:
            _logger.warning("%r had not ended when its loop was closed, and was closed with it", task)
            asyncio._unregister_task(task)  # noqa: SLF001 (public, for those who extend asyncio)
        try:
            for task in left:
                coroutine = task.get_coro()
                assert coroutine is not None
                with contextlib.suppress(Exception):  # what it does about its end is lost, as with any generator
                    coroutine.close()
                # So the task ends too, in the last turn of the loop, and asyncio has nothing to say about it.
                task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                task.cancel()
        finally:
            for visit in list(self._visits):
                visit.note_end()


def _require_turning(loop: asyncio.AbstractEventLoop) -> None:
    if loop.is_closed():
        problem, hint = "is closed", "give asyncio_loop() one that runs as long as the supervisor is open"
    elif not loop.is_running():
        problem, hint = "does not run", "start it before the first run, and stop it after the supervisor"
    elif _is_blocked(loop):
        problem = "waits for trio.run(), which was called in one of its tasks"
        hint = "use a SupervisorPortal there, from stageflow_actors.embed.asyncio"
    else:
        return
    message = f"the asyncio loop {loop!r} {problem}; {hint}"
    raise RuntimeError(message)


def _is_blocked(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether trio runs inside a task of a loop. As the loop's guest it is called by the loop itself."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        return False
    return here is loop and asyncio.current_task(loop) is not None


async def _wait_for(task: asyncio.Task[Any]) -> None:
    ended = trio.Event()
    task.add_done_callback(lambda _task: ended.set())
    await ended.wait()


@final
class _Visit:
    """One attempt in the loop. What is private happens in the loop's thread, which may be that of trio.

    Args:
        loop: Where its task runs.
        function: What that awaits.
        stage: The stage's name.
        visits: Those that have not ended, which it leaves when it has.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[[], Awaitable[Any]],
        stage: str,
        visits: set[_Visit],
    ) -> None:
        self._loop = loop
        self._function = function
        self._stage = stage
        self._visits = visits
        self._context = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._task: asyncio.Task[None] | None = None
        self._has_begun = False
        self._is_unwanted = False
        self._free: Callable[[], None] | None = None
        self.ended = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        """What came of it; None where its task was cancelled."""

    def begin(self) -> None:
        """Start its task; called by the loop."""
        # Either this finds that it is unwanted, or `stop` finds that it has begun: each writes before it reads.
        self._has_begun = True
        if self._is_unwanted:
            return
        coroutine = self._run()
        try:
            # A task factory need not know how to pass a context on.
            self._task = self._context.run(self._loop.create_task, coroutine)
            self._task.add_done_callback(self._tell_end)
        except BaseException as error:  # a factory is a user's, too
            coroutine.close()
            self.result = outcome.Error(error)
            self._tell_end(None)

    async def stop(self, shutdown: Shutdown) -> bool:
        """Cancel it, and return whether it has ended within the budget."""
        self._is_unwanted = True
        if not self._has_begun:  # and it never will
            self.note_end()
            return True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
            with trio.CancelScope(shield=True, deadline=shutdown.deadline()):
                await self.ended.wait()
        if self._loop.is_closed():  # and its task gone
            self.note_end()
        return self.ended.is_set()

    def abandon(self, free: Callable[[], None]) -> None:
        """Leave it alone; what it holds is given back when its task ends."""
        self._free = free

    def note_end(self) -> None:
        """Let those go on who wait for it: its task has ended, or never will."""
        self._visits.discard(self)
        if self._free is not None:
            free, self._free = self._free, None
            free()
            result = self.result
            how = "a value" if isinstance(result, outcome.Value) else "its CancelledError"
            if isinstance(result, outcome.Error):
                how = describe_error(result.error)
            _logger.warning("the abandoned asyncio task of stage %r ended with %s", self._stage, how)
        self.ended.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self.result = outcome.Value(await self._function())
        except BaseException as error:  # asyncio would end the loop with what is no `Exception`; the run is to judge it
            remains = split_cancelled(error, asyncio.CancelledError)
            if remains is not None:
                self.result = outcome.Error(remains)

    def _tell_end(self, _task: asyncio.Task[None] | None) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.note_end)
