"""A live handle on a run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self, final

import attrs
import trio

from ._policy import ABANDONED, CANCELLED, FAILED, ISOLATED, OK, PENDING, RESTARTING, RUNNING, SKIPPED, TOLD
from ._validation import require_count

if TYPE_CHECKING:
    from types import TracebackType

    from ._engine import Engine
    from ._result import RunResult
    from .events import Event


@final
@attrs.frozen
class RunStatistics:
    """How many stages of a run are in which state, at one moment."""

    total: int
    pending: int
    running: int
    restarting: int
    ok: int
    skipped: int
    failed: int
    isolated: int
    cancelled: int
    abandoned: int

    @property
    def ended(self) -> int:
        """How many have their final state."""
        return self.total - self.pending - self.running - self.restarting


@final
class EventStream:
    """The events of a run since `Run.events` was called, up to its end. Use it with `async with`.

    Bounded: a reader that is slower than the run loses the events for which there is no room.
    """

    def __init__(self, engine: Engine, max_queued: int) -> None:
        self._engine = engine
        self._send, self._receive = trio.open_memory_channel["Event"](max_queued)
        self._dropped = 0
        self._max_queued = max_queued
        self._taken = 0
        """How many were taken in a row without a checkpoint."""
        if engine.result is None:
            engine.announcer.listen(self._put)
        else:
            self._send.close()

    @property
    def dropped(self) -> int:
        """How many events were lost, because the reader was slow."""
        return self._dropped

    def _put(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._dropped += 1
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader has left

    def _end(self) -> None:
        self._send.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._engine.announcer.unlisten(self._put)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; end when the run has ended and all were read.

        A checkpoint where it has to wait and, at the latest, after as many events as may be queued: a run tells
        hundreds in one pass of the scheduler, and a reader that got one a pass would lose most of them.
        """
        try:
            if self._taken < self._max_queued:
                self._taken += 1
                with contextlib.suppress(trio.WouldBlock):
                    return self._receive.receive_nowait()
            self._taken = 0
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


@final
class Run:
    """A run that `Supervisor.start` has started. All its methods belong to the trio thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._over = trio.Event()
        self._streams: list[EventStream] = []
        self._observed = False

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._engine.identity.run_id

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self._engine.graph.pipeline

    async def result(self) -> RunResult:
        """Wait for the end of the run and return its result, or raise what `Supervisor.run` would.

        Any number of tasks may wait. Cancelling one does not cancel the run; `cancel` does, and then
        this returns what had completed.
        """
        await self._over.wait()
        self._observed = True
        return self._engine.unwrap()

    def partial(self) -> RunResult:
        """Return what has completed so far; after the end, the result. Never raises for a failed run."""
        return self._engine.view()

    def statistics(self) -> RunStatistics:
        """Return how many stages are in which state: cheap enough for a progress display."""
        count = self._engine.count_states()
        return RunStatistics(
            total=sum(count),
            pending=count[PENDING] + count[TOLD],
            running=count[RUNNING],
            restarting=count[RESTARTING],
            ok=count[OK],
            skipped=count[SKIPPED],
            failed=count[FAILED],
            isolated=count[ISOLATED],
            cancelled=count[CANCELLED],
            abandoned=count[ABANDONED],
        )

    def cancel(self, reason: str = "") -> None:
        """End the run: nothing more is started, what runs is cancelled. After the end this does nothing."""
        self._engine.cancel(reason)

    def events(self, *, max_queued: int = 4096) -> EventStream:
        """Subscribe, at this call, to the events of the run.

        Args:
            max_queued: How many events may wait for a slow reader; more are dropped and counted.
        """
        stream = EventStream(self._engine, require_count("max_queued", max_queued))
        self._streams.append(stream)
        return stream

    def _make_error(self) -> Exception:
        """Return what `result` raises, of a run that failed."""
        return self._engine.turned_away or self._engine.view()._make_error()  # noqa: SLF001 (the result's own)

    def _finish(self) -> None:
        """Wake everyone who waits for the end."""
        for stream in self._streams:
            stream._end()  # noqa: SLF001 (handle and stream are two sides of one thing)
        self._streams.clear()
        self._over.set()

    def __repr__(self) -> str:
        """Name the pipeline and the run."""
        state = "running" if self._engine.result is None else str(self._engine.result.ended)
        return f"<Run of {self.pipeline!r}, run {self.run_id}: {state}>"
