"""Taking down what the stages of a drawn run do."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import attrs
import trio

from .makers import make_meters
from .meters import ALL, Meter
from .plans import MANAGED, RunPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stageflow_actors import Run, RunResult, RunStatistics


@attrs.frozen
class Entry:
    """One line of a trace."""

    kind: str
    """`ask`, `enter`, `begin`, `end`, `exit`."""
    stage: str
    time: float | None
    """Virtual, from the start of the run; None in a worker thread."""


class Recorder:
    """Takes down what the stages of one run do, in order."""

    def __init__(self, plan: RunPlan, meters: Mapping[str, Meter] | None = None) -> None:
        self.plan = plan
        self.meters = make_meters(dict(plan.limiters), plan.max_running) if meters is None else meters
        """By the names of limiters; shared by the runs that share these."""
        self.meter = Meter()
        """Of the stages of this run, without fan-outs and their items."""
        self.entries: list[Entry] = []
        self.instances: list[tuple[str, object]] = []
        self.began = 0.0
        self.stop: Callable[[], None] | None = None
        """Stops the run from outside."""
        self.stopped_after: int | None = None
        """How many entries there were when it was called."""
        self.run: Run | None = None
        """The handle of a run that was started."""
        self.views: list[tuple[RunResult, RunStatistics]] = []
        """With a handle: what it said at every entry."""
        self._random = random.Random(plan.seed)

    def note(self, kind: str, stage: str) -> None:
        """Write one line, and stop the run if this is where it is to be."""
        self.entries.append(Entry(kind, stage, trio.current_time() - self.began))
        self._count(kind, stage, trio.current_time())
        if self.run is not None:
            self.views.append((self.run.partial(), self.run.statistics()))
        stop = self.plan.stop
        if stop is None or stop.entry is None or self.stopped_after is not None:
            return
        number = sum(stop.kind in {None, entry.kind} for entry in self.entries)
        if number >= stop.entry and stop.kind in {None, kind}:  # threads write too: a number may be passed over
            self.stop_now()

    def note_in_thread(self, kind: str, stage: str) -> None:
        """Write one line from a worker thread, where there is no time."""
        self.entries.append(Entry(kind, stage, None))
        self._count(kind, stage, None)

    def _count(self, kind: str, name: str, now: float | None) -> None:
        stage = self.plan.find(name)
        first, last = ("enter", "exit") if stage.form in MANAGED else ("begin", "end")
        meters = [self.meters[ALL]]
        if "[" not in name:
            meters.append(self.meter)
        if stage.limiter is not None:
            meters.append(self.meters[stage.limiter])
        if kind == first:
            for meter in meters:
                meter.enter(name, now)
        elif kind == last:
            for meter in meters:
                meter.leave()

    def stop_now(self) -> None:
        """Stop the run from outside."""
        assert self.stop is not None
        self.stopped_after = len(self.entries)
        self.stop()

    def jitter(self) -> range:
        """Return how many extra checkpoints to make."""
        return range(self._random.randint(0, self.plan.jitter))

    def count(self, kind: str) -> dict[str, int]:
        """Return how often each stage has an entry of a kind."""
        counts: dict[str, int] = {}
        for entry in self.entries:
            if entry.kind == kind:
                counts[entry.stage] = counts.get(entry.stage, 0) + 1
        return counts
