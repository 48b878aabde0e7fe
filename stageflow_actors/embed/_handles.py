"""What callers in asyncio have of runs and resident actors that live on a trio loop."""

from __future__ import annotations

import contextlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Self, final

import trio

from stageflow_actors._validation import require_count
from stageflow_actors.errors import SupervisorClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from stageflow_actors import ActorRef, ContextSnapshot, EventStream, Run, RunResult, StageOutput
    from stageflow_actors.events import Event
    from stageflow_actors.statistics import ActorStatistics, RunStatistics

    from ._bridge import Bridge


@final
class PortalEvents:
    """The events of a run, in order, up to its end. Iterate it with `async for`, in one task at a time.

    Nothing is fetched that nobody asks for: each time, all that is queued, at least one. Bounded as
    `stageflow_actors.EventStream`: a reader that is too slow loses the events for which there is no room; as many again
    may be on the way to it. Cancelling the reader loses none.
    """

    def __init__(self, bridge: Bridge, subscribe: Callable[[], EventStream[Event]]) -> None:
        self._bridge = bridge
        self._subscribe = subscribe
        self._stream: EventStream[Event] | None = None
        """Belongs to the trio loop."""
        self._fetched: deque[Event] = deque()
        self._dropped = 0
        self._has_ended = False

    @property
    def dropped(self) -> int:
        """How many events were lost, because the reader was slow; as of the latest that were fetched."""
        return self._dropped

    async def __aenter__(self) -> Self:
        """Subscribe."""
        await self._bridge.look(self._open)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Unsubscribe. Without it, that is done at the end of the run."""
        with contextlib.suppress(SupervisorClosedError):  # then the run has ended with the portal
            await self._bridge.call(self._close, late=True, shield=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; end when the run has ended and all were read.

        Raises:
            SupervisorClosedError: The portal has been left.
        """
        if not self._fetched and not self._has_ended:
            self._receive(await self._bridge.call(self._fetch, late=True, on_lost=self._receive))
        if not self._fetched:
            raise StopAsyncIteration
        return self._fetched.popleft()

    def _receive(self, fetched: tuple[list[Event], int]) -> None:
        events, self._dropped = fetched
        self._fetched.extend(events)
        self._has_ended = not events

    # On the trio loop

    def _open(self) -> EventStream[Event]:
        if self._stream is None:
            self._stream = self._subscribe()
        return self._stream

    async def _fetch(self) -> tuple[list[Event], int]:
        """Return what is queued, at least one event but at the end, and how many were lost."""
        stream = self._open()
        events: list[Event] = []
        async for event in stream:
            events.append(event)
            break
        # The stream raises Cancelled only where it would have to wait. Shielded, because a caller that is cancelled
        # now keeps for its next call what was taken out of the stream.
        with trio.CancelScope(shield=True) as scope:
            scope.cancel()
            async for event in stream:
                events.append(event)  # noqa: PERF401 (a comprehension would lose them to the Cancelled)
        return events, stream.dropped

    async def _close(self) -> None:
        await self._open().__aexit__(None, None, None)


class _RunHandle:
    """A run on the trio loop, as asyncio sees it."""

    def __init__(self, bridge: Bridge, run: Run) -> None:
        self._bridge = bridge
        self._run = run

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.run_id

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self._run.pipeline

    def cancel(self, reason: str = "") -> None:
        """End the run soon: nothing more is started, what runs is cancelled. After the end this does nothing.

        Does not wait; `result` does. May be called from any thread.
        """
        self._bridge.post(self._run.cancel, reason)

    async def partial(self) -> RunResult:
        """Return what has completed so far; after the end, the result. Never raises for a failed run.

        Raises:
            SupervisorClosedError: The portal has been left.
        """
        return await self._bridge.look(self._run.partial)

    async def statistics(self) -> RunStatistics:
        """Return how many stages are in which state.

        Raises:
            SupervisorClosedError: The portal has been left.
        """
        return await self._bridge.look(self._run.statistics)

    def __repr__(self) -> str:
        """Name the pipeline and the run."""
        return f"<{type(self).__name__} of {self.pipeline!r}, run {self.run_id}>"


@final
class PortalRun(_RunHandle):
    """A run that `SupervisorPortal.start` has started. Its methods work until the portal has been left."""

    async def result(self) -> RunResult:
        """Wait for the end of the run and return its result, or raise what `SupervisorPortal.run` would.

        Any number of tasks may wait. Cancelling one does not cancel the run; `cancel` does, and then this returns what
        had completed.

        Raises:
            SupervisorClosedError: The portal has been left.
        """
        return await self._bridge.call(self._run.result, late=True)

    def events(self, *, max_queued: int = 4096) -> PortalEvents:
        """Return the events of the run, from the moment on at which the first of them is awaited.

        Args:
            max_queued: How many events may wait for a slow reader; more are dropped and counted.

        Raises:
            PipelineValidationError: The bound cannot be.
        """
        bound = require_count("max_queued", max_queued)
        return PortalEvents(self._bridge, partial(self._run.events, max_queued=bound))


@final
class FollowedRun(_RunHandle):
    """A run that goes on as long as a block of `SupervisorPortal.follow`."""

    def __init__(self, bridge: Bridge, run: Run, stream: EventStream[Event]) -> None:
        super().__init__(bridge, run)
        self._events = PortalEvents(bridge, lambda: stream)
        self.was_heard = False
        """Whether somebody was told what it failed with."""

    async def result(self) -> RunResult:
        """Wait for the end of the run and return its result, or raise what `SupervisorPortal.run` would.

        Cancelling the caller does not cancel the run, but leaving the block does.

        Raises:
            SupervisorClosedError: The portal has been left.
        """
        return await self._bridge.call(self._hear, late=True)

    async def _hear(self) -> RunResult:
        try:
            return await self._run.result()
        except Exception:
            self.was_heard = True
            raise

    def events(self) -> PortalEvents:
        """Return the events of the run, from the very first one on. There is one such stream, for one reader."""
        return self._events


@final
class PortalActor:
    """A resident actor that `SupervisorPortal.spawn` has started. It stays the same across restarts."""

    def __init__(self, bridge: Bridge, ref: ActorRef) -> None:
        self._bridge = bridge
        self._ref = ref

    @property
    def name(self) -> str:
        """The actor's name."""
        return self._ref.name

    @property
    def ref(self) -> ActorRef:
        """The reference that stages use: `with_stage("score", actor.ref)`, `depends_on=actor.ref`."""
        return self._ref

    async def ask(
        self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None, *, timeout: float | None = 5.0
    ) -> StageOutput:
        """Send a message, and wait for the reply to it. A cancelled caller withdraws a message that waits.

        Args:
            snapshot: The message; a mapping is short for a snapshot with that `data`.
            timeout: Seconds until the reply; None for ever, which also leaving the portal waits for.

        Raises:
            Exception: What the stage raised, or an error of `ActorRef.ask`.
            SupervisorClosedError: The portal is not open.
        """
        return await self._bridge.call(partial(self._ref.ask, snapshot, timeout=timeout))

    async def tell(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None) -> None:
        """Send a message to which no reply is wanted, and wait until it is accepted.

        Args:
            snapshot: The message; a mapping is short for a snapshot with that `data`.

        Raises:
            Exception: An error of `ActorRef.tell`.
            SupervisorClosedError: The portal is not open.
        """
        await self._bridge.call(partial(self._ref.tell, snapshot))

    async def stop(self) -> None:
        """End it for good, and wait until it has ended. Cancelling the caller does not stop that.

        Raises:
            SupervisorClosedError: The portal is not open.
        """
        await self._bridge.call(self._ref.stop)

    async def statistics(self) -> ActorStatistics:
        """Return what it has and has done.

        Raises:
            SupervisorClosedError: The portal has been left.
        """
        return await self._bridge.look(self._ref.statistics)

    def __repr__(self) -> str:
        """Name the actor."""
        return f"<PortalActor of {self.name!r}>"
