"""A live handle on a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from ._policy import ABANDONED, CANCELLED, FAILED, ISOLATED, OK, PENDING, RESTARTING, RUNNING, SKIPPED, TOLD
from ._stream import EventStream
from ._validation import require_count
from .statistics import RunStatistics

if TYPE_CHECKING:
    from ._engine import Engine
    from ._result import RunResult
    from .events import Event


@final
class Run:
    """A run that `Supervisor.start` has started. All its methods belong to the trio thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._over = trio.Event()
        self._streams: list[EventStream[Event]] = []
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

    async def wait_ended(self) -> None:
        """Wait for the end of the run. Its result has still to be awaited: a failure counts as not heard of."""
        await self._over.wait()

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

    def events(self, *, max_queued: int = 4096) -> EventStream[Event]:
        """Subscribe, at this call, to the events of the run.

        Args:
            max_queued: How many events may wait for a slow reader; more are dropped and counted.
        """
        source = self._engine.announcer if self._engine.result is None else None
        stream: EventStream[Event] = EventStream(source, require_count("max_queued", max_queued))
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
