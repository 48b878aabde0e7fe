"""A supervisor inside an asyncio application, such as one on FastAPI, Starlette or aiohttp.

    async with SupervisorPortal(max_runs=20) as portal:
        result = await portal.run(pipeline, {"user": "ada"})

The supervisor runs on trio, in a thread of its own or as a guest of the asyncio loop. Needs nothing but the library.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack, final

import trio

from stageflow_actors import Supervisor
from stageflow_actors._validation import require_count
from stageflow_actors.errors import SupervisorClosedError

from ._asyncio_loop import asyncio_loop
from ._bridge import Bridge, outlast, raise_for_caller
from ._handles import FollowedRun, PortalActor, PortalEvents, PortalRun
from ._loop import SupervisorLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType

    from stageflow_actors import (
        ActorRef,
        ContextSnapshot,
        EventStream,
        Run,
        Runner,
        RunResult,
    )
    from stageflow_actors._definition import PipelineDefinition
    from stageflow_actors.events import Event
    from stageflow_actors.statistics import SupervisorStatistics

    from ._options import RunOptions, SpawnOptions, SupervisorOptions


@final
class SupervisorPortal:
    """A supervisor that asyncio tasks use: `run`, `start`, `follow` and `spawn`, inside one `async with` block.

    Leaving the block normally waits for what goes on, calls and followed runs included, takes nothing new meanwhile,
    and then stops the resident actors. Leaving it with an exception, or cancelled, cancels all that; whoever waits for
    it in another task gets a `SupervisorClosedError`. Either way the trio loop has ended afterwards, and no task of it
    is left. What the supervisor raises when it is left is raised from the block: failures of started runs whose result
    nobody awaited, or why it gave up, with what the block was left with as its context. Where it gives up while the
    block goes on, the block's task is cancelled, as `asyncio.TaskGroup` does, and the block raises why.

    All methods are for tasks of the asyncio loop in which the portal was entered. The context variables of the calling
    task hold in the stages.

    Args:
        guest: Whether trio runs as a guest of the asyncio loop, in the same thread, rather than in a thread of its own.
            A thread can have one guest.
        options: The options of `Supervisor`.

    Raises:
        PipelineValidationError: An option that cannot be. No thread has started.
    """

    def __init__(self, *, guest: bool = False, **options: Unpack[SupervisorOptions]) -> None:
        self._supervisor = Supervisor(**options)
        self._guest = guest
        self._loop = SupervisorLoop(
            self._supervisor, "the portal", self._note_open, self._note_end, self._note_giving_up
        )
        self._entered: Bridge | None = None
        self._task: asyncio.Task[Any] | None = None
        """The one that has entered it."""
        self._opened = asyncio.Event()
        self._over = asyncio.Event()
        self._error: BaseException | None = None
        """What the trio loop has ended with, until the block raises it."""
        self._is_leaving = False
        self._has_cancelled = False
        """Whether the task was cancelled because the supervisor gave up."""

    async def run(
        self,
        pipeline: PipelineDefinition,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Run a pipeline and return what came of it; arguments as in `Supervisor.run`.

        Cancelling the calling task cancels the run, waits until it has ended, and then raises `CancelledError`, even if
        the run has come to its end at the same moment. Threads and the `__aexit__` of its stages have the `shutdown`
        budget of the supervisor for that; cancelling again does not shorten the wait.

        Raises:
            PipelineValidationError: The pipeline or an argument cannot work. Nothing has started.
            PipelineFailedError: A stage failed, without `continue_on_failure`.
            OverloadedError: There was no place for it, or it was dropped from the queue. Nothing has started.
            StrayCancelledError: A stage raised `asyncio.CancelledError`.
            SupervisorClosedError: The portal is not open, or was left meanwhile.
            RuntimeError: Called from elsewhere than a task of the loop that the portal was entered in.
        """
        return await self._bridge.call(partial(self._supervisor.run, pipeline, snapshot, **options))

    async def start(
        self,
        pipeline: PipelineDefinition,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> PortalRun:
        """Start a run in the background and return a handle on it; arguments as in `Supervisor.run`.

        A failed run whose result nobody awaited is raised when the portal is left. Cancelled before it returns, it has
        cancelled the run.

        Raises:
            PipelineValidationError: The pipeline or an argument cannot work. Nothing has started.
            OverloadedError: There is no place for it. One that is dropped later raises it from `PortalRun.result`.
            SupervisorClosedError: The portal is not open.
            RuntimeError: Called from elsewhere than a task of the loop that the portal was entered in.
        """
        bridge = self._bridge

        async def begin() -> Run:
            run = self._supervisor.start(pipeline, snapshot, **options)
            bridge.keep_open(run.wait_ended)
            return run

        def drop(run: Run) -> None:
            bridge.post(run.cancel, "its caller was cancelled")

        return PortalRun(bridge, await bridge.call(begin, on_lost=drop))

    @contextlib.asynccontextmanager
    async def follow(
        self,
        pipeline: PipelineDefinition,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        *,
        max_queued: int = 4096,
        **options: Unpack[RunOptions],
    ) -> AsyncIterator[FollowedRun]:
        """Run a pipeline as long as a block, and read its events; arguments as in `Supervisor.run`.

        `max_queued` is how many events may wait for a slow reader; more are dropped and counted.

        Leaving the block before the run has ended cancels the run. Either way the block waits for its end, whoever
        cancels the task meanwhile. Left normally, the block raises what the run failed with, if `FollowedRun.result`
        has not raised it already; left with an exception, it raises that.

        Raises:
            PipelineValidationError: The pipeline or an argument cannot work. Nothing has started.
            PipelineFailedError: A stage failed, without `continue_on_failure`; raised when the block is left.
            OverloadedError: There is no place for it; where it is dropped from the queue, when the block is left.
            SupervisorClosedError: The portal is not open, or was left meanwhile.
            RuntimeError: Called from elsewhere than a task of the loop that the portal was entered in.
        """
        bridge = self._bridge
        bound = require_count("max_queued", max_queued)
        left = trio.Event()

        async def begin() -> tuple[Run, EventStream[Event]]:
            run = self._supervisor.start(pipeline, snapshot, **options)
            stream = run.events(max_queued=bound)
            bridge.keep_open(left.wait)
            return run, stream

        def drop(started: tuple[Run, EventStream[Event]]) -> None:
            bridge.post(started[0].cancel, "its caller was cancelled")
            bridge.post(left.set)

        run, stream = await bridge.call(begin, on_lost=drop)

        async def end() -> None:
            run.cancel("its block was left")
            try:
                await run.result()
            finally:
                left.set()

        followed = FollowedRun(bridge, run, stream)
        try:
            yield followed
        except BaseException:  # CancelledError and GeneratorExit too: the run ends before its block does
            with contextlib.suppress(Exception):  # what the block is left with comes first; the run has logged its own
                await bridge.call(end, late=True, shield=True)
            raise
        try:
            await bridge.call(end, late=True, shield=True)
        except Exception:
            if not followed.was_heard:
                raise

    async def spawn(
        self,
        runner: Runner,
        *,
        name: str,
        **options: Unpack[SpawnOptions],
    ) -> PortalActor:
        """Start a stage as a resident actor, such as a model that is slow to load; arguments as in `Supervisor.spawn`.

        It is stopped when the portal is left. Cancelled before it returns, it stops the actor, whose name is taken
        until that has ended.

        Raises:
            ActorStartError: It did not come up; a first start is not tried again.
            PipelineValidationError: An argument cannot be. Nothing has started.
            SupervisorClosedError: The portal is not open.
            RuntimeError: Called from elsewhere than a task of the loop that the portal was entered in.
        """
        bridge = self._bridge
        spawn = partial(self._supervisor.spawn, runner, name=name, **options)

        def drop(ref: ActorRef) -> None:
            with contextlib.suppress(SupervisorClosedError):  # which stops it too
                bridge.keep_open(ref.stop)

        return PortalActor(bridge, await bridge.call(spawn, on_lost=drop))

    async def statistics(self) -> SupervisorStatistics:
        """Return what the supervisor has now: runs and resident actors.

        Raises:
            SupervisorClosedError: The portal is not open.
        """
        return await self._bridge.look(self._supervisor.statistics)

    async def __aenter__(self) -> Self:
        """Open it. Returns when the supervisor is open.

        Raises:
            RuntimeError: It was entered before, or elsewhere than in an asyncio task; or it was to be a guest in a
                thread that runs trio already.
        """
        if self._entered is not None:
            message = "a portal can be entered once; make another"
            raise RuntimeError(message)
        self._entered = self._start()
        cancelled = await outlast(self._opened, lambda: None)  # that takes no longer than a thread takes to start
        if self._over.is_set() and self._error is not None:
            await self._wait_over()
            self._raise(None)
        if cancelled is not None:
            self._is_leaving = True
            self._loop.close(cancel=True)
            await self._wait_over()
            raise cancelled
        return self

    def _start(self) -> Bridge:
        """Start the trio loop."""
        try:
            host = asyncio.get_running_loop()
            self._task = asyncio.current_task()
        except RuntimeError:
            self._task = None
        if self._task is None:
            message = "a portal is entered in an asyncio task, and this is none; start one with asyncio.run(...)"
            raise RuntimeError(message)
        bridge = Bridge(host, self._loop, guest=self._guest)
        if not self._guest:
            self._entered = bridge  # the thread may be faster than this one
            self._loop.run_in_thread("stageflow_actors portal", daemon=True)
        elif trio.lowlevel.in_trio_run():
            message = (
                "a portal cannot be the guest of a thread that runs trio already; "
                "leave the portal that is its guest first, or leave out guest=True; "
                "a thread whose loop was closed under such a portal can have no other"
            )
            raise RuntimeError(message)
        else:
            self._entered = bridge
            self._loop.run_as_guest(bridge.run_soon)
        return bridge

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for what goes on, or cancel it where the block was left with an exception; and end the trio loop."""
        self._is_leaving = True
        self._loop.close(cancel=error is not None)
        cancelled = await self._wait_over()
        if self._has_cancelled:
            self._has_cancelled = False
            assert self._task is not None
            self._task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                error = None
        if self._error is not None and (error is None or isinstance(error, Exception | asyncio.CancelledError)):
            self._raise(error)
        if cancelled is not None:
            raise cancelled

    async def _wait_over(self) -> asyncio.CancelledError | None:
        """Wait until the trio loop has ended; being cancelled meanwhile cancels what goes on."""
        cancelled = await outlast(self._over, partial(self._loop.close, cancel=True))
        if self._loop.thread is not None:
            self._loop.thread.join()  # it has told so in its last step
        return cancelled

    def _raise(self, context: BaseException | None) -> None:
        """Raise what the trio loop has ended with: once, its context what the block was left with."""
        error, self._error = self._error, None
        assert error is not None
        kept = error.__context__
        try:
            raise_for_caller(error)
        finally:
            error.__context__ = context if kept is None and context is not error else kept
            del error, context, kept, self

    @property
    def _bridge(self) -> Bridge:
        if self._entered is None:
            raise self._loop.make_closed_error()
        return self._entered

    # Called on the trio loop, and then in the asyncio loop

    def _note_open(self) -> None:
        self._bridge.hand_over(self._opened.set)

    def _note_giving_up(self) -> None:
        self._bridge.hand_over(self._cancel_body)

    def _note_end(self, error: BaseException | None) -> None:
        self._bridge.hand_over(self._finish, error)

    def _cancel_body(self) -> None:
        if not self._is_leaving:
            assert self._task is not None
            self._has_cancelled = self._task.cancel("the supervisor gave up")

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        self._over.set()
        self._opened.set()


__all__ = ["FollowedRun", "PortalActor", "PortalEvents", "PortalRun", "SupervisorPortal", "asyncio_loop"]

for _name in __all__:
    # Tracebacks and documentation show the name that a user imports.
    globals()[_name].__module__ = __name__
del _name
