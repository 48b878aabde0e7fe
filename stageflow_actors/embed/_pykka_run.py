"""A run that a synchronous caller has started, and the pykka actor that hears of it."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import outcome
import pykka
import trio

from stageflow_actors import RunEnding
from stageflow_actors._validation import count, refuse, require_count
from stageflow_actors.errors import SupervisorClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stageflow_actors import Run, RunResult
    from stageflow_actors.statistics import RunStatistics

    from ._loop import Settled
    from ._pykka_desk import Desk, LoopFuture

T = TypeVar("T")
_logger: Final = logging.getLogger("stageflow_actors")
_BURST: Final = 4096
"""So many events may be told in one pass of the scheduler, before anybody reads them."""


@final
class PykkaRun:
    """A live handle on a run, for callers in any thread. Made by `SupervisorProxy.start_run`.

    It outlives the supervisor: what came of the run can be asked for after the stop.
    """

    def __init__(self, desk: Desk, run: Run) -> None:
        self._desk = desk
        self._run = run
        self._over: LoopFuture[None] = desk.make_future()
        self._result: LoopFuture[RunResult] = desk.make_future()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.run_id

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self._run.pipeline

    def result(self) -> pykka.Future[RunResult]:
        """Return the future of the result, the same at every call. It raises what `Supervisor.run` would.

        A run that `cancel` or the end of its supervisor has ended gives what it had completed, `ended` saying why.
        """
        return self._result

    def cancel(self, reason: str = "") -> None:
        """End the run: nothing more is started, what runs is cancelled. Does not wait; after the end it does nothing.

        Args:
            reason: Stands in the result.
        """
        self._desk.loop.post(self._run.cancel, reason)

    def statistics(self) -> pykka.Future[RunStatistics]:
        """Return the future of how many stages are in which state."""
        return self._look(self._run.statistics)

    def partial(self) -> pykka.Future[RunResult]:
        """Return the future of what has completed so far; after the end, of the result, also of a failed run."""
        return self._look(self._run.partial)

    def _look(self, look: Callable[[], T]) -> pykka.Future[T]:
        future: LoopFuture[T] = self._desk.make_future()

        async def look_there() -> None:
            future.settle(outcome.capture(look))

        def settle(settled: Settled[None]) -> None:
            if settled is None:  # the loop has not come to it, and has ended: nothing changes any more
                future.settle(outcome.capture(look))

        try:
            self._desk.loop.submit(look_there, settle)
        except SupervisorClosedError:
            return self._over.map(lambda _: look())
        return future

    def _settle(self, result: Settled[RunResult]) -> None:
        self._over.settle(outcome.Value(None))
        self._desk.settle(self._result, result)

    def __repr__(self) -> str:
        """Name the pipeline and the run."""
        return f"<PykkaRun of {self.pipeline!r}, run {self.run_id}>"


@final
class Consumer:
    """A pykka actor that is told a run's events."""

    def __init__(self, ref: pykka.ActorRef[Any], max_queued: int) -> None:
        if not isinstance(ref, pykka.ActorRef):
            hint = "pass what its start() returned"
            refuse(f"events_to must be the reference to a pykka actor, not {ref!r}", hint=hint)
        self._ref = ref
        self._max_queued = require_count("max_queued", max_queued)
        self._dropped = 0

    async def follow(self, run: Run) -> None:
        """Tell it all the events of a run, in order, until that ends. Never waits for it."""
        async with run.events(max_queued=max(_BURST, self._max_queued)) as events:
            async for event in events:
                self._tell(event)
        lost = self._dropped + events.dropped
        if lost:
            why = "it was slow" if self._ref.is_alive() else "it has stopped"
            told = "pipeline %r, run %s: %s were not told to %s: %s"
            _logger.warning(told, run.pipeline, run.run_id, count(lost, "event"), self._ref, why)

    def _tell(self, event: object) -> None:
        if self._is_full():
            self._dropped += 1
            return
        try:
            self._ref.tell(event)
        except pykka.ActorDeadError:
            self._dropped += 1

    def _is_full(self) -> bool:
        """Return whether there is no room: pykka asks of an inbox no more than to put and get, and to put may block."""
        inbox = self._ref.actor_inbox
        waiting, full = getattr(inbox, "qsize", None), getattr(inbox, "full", None)
        return (waiting is not None and waiting() >= self._max_queued) or (full is not None and full())


async def run_to_end(run: Run, consumer: Consumer | None) -> RunResult:
    """Wait for a started run and return its result, or raise what it ended with, when its consumer was told all.

    Shielded: the end of the supervisor ends the run, and that is waited for.
    """
    with trio.CancelScope() as scope:
        scope.shield = True
        if consumer is not None:
            await consumer.follow(run)
        with contextlib.suppress(trio.Cancelled):  # of the run, not of the present task
            return await run.result()
    return run.partial()


async def run_observed(start: Callable[[], Run], events_to: pykka.ActorRef[Any], max_queued: int) -> RunResult:
    """Start a run, and end as `Supervisor.run` does: cancelled, where the end of the supervisor has cancelled it."""
    consumer = Consumer(events_to, max_queued)
    result = await run_to_end(start(), consumer)
    if result.ended.ending is RunEnding.CANCELLED:
        await trio.lowlevel.checkpoint_if_cancelled()
    return result


def start_run(
    desk: Desk, start: Callable[[], Run], events_to: pykka.ActorRef[Any] | None, max_queued: int
) -> pykka.Future[PykkaRun]:
    """Start a run, and see it to its end; return the future of its handle."""
    admitted: LoopFuture[PykkaRun] = desk.make_future()
    handle: PykkaRun | None = None

    async def drive() -> RunResult:
        nonlocal handle
        consumer = None if events_to is None else Consumer(events_to, max_queued)
        run = start()
        handle = PykkaRun(desk, run)
        admitted.settle(outcome.Value(handle))
        return await run_to_end(run, consumer)

    def settle(result: Settled[RunResult]) -> None:
        if handle is not None:
            handle._settle(result)  # noqa: SLF001 (made above)
        else:
            assert not isinstance(result, outcome.Value)
            desk.settle(admitted, result)

    desk.submit(drive, settle, admitted)
    return admitted
