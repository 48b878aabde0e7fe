"""The rows of the benchmark of limits: what a limiter, a restart policy and a dynamic fan-out cost.

A ratio is taken of processor times: the loop has one thread, and others at work on the machine must not
count. The ratio of the wall times stands beside it.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from functools import partial
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import trio
from measuring import WrongOutputError, interleave, ratio
from peers import ours
from peers.shapes import SEED
from rows import Figure, Settings, Taken

from stageflow_actors import FanOutLimiterStage, Limiter, Pipeline, Rate, Restart, Supervisor, parallel_stages
from stageflow_actors._tickets import Ticket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from stageflow_actors import RunResult, StageContext, StageInputs

    Check = Callable[[RunResult], tuple[Any, Any]]

LIMIT = 64
_T = TypeVar("_T")


@attrs.frozen
class Job:
    """What is run: a pipeline some times, each under a supervisor of its own."""

    pipeline: Pipeline
    check: Check
    """Says what a result gave, and what it had to give."""
    repeat: int = 1
    running: int | None = None
    """The `max_running_stages` of the supervisors."""

    async def run(self) -> list[RunResult]:
        """Return the results."""
        results = []
        for _ in range(self.repeat):
            async with Supervisor(max_running_stages=self.running) as supervisor:
                results.append(await supervisor.run(self.pipeline))
        return results

    def look(self, results: list[RunResult]) -> None:
        """Look at what came of it.

        Raises:
            WrongOutputError: Something else than what had to come: its time is worth nothing.
        """
        for found, expected in map(self.check, results):
            if found != expected:
                raise WrongOutputError(f"{self.pipeline.name}: it gave {found!r}, not {expected!r}")


class Measured(Protocol):
    """What is measured."""

    async def run(self) -> Any:
        """Do it, and return what came of it."""

    def look(self, found: Any, /) -> None:
        """Raise a `WrongOutputError` where that is wrong: its time is worth nothing."""


async def take_time(function: Callable[[], Awaitable[_T]]) -> tuple[float, float, _T]:
    """Return the seconds of processor and of wall time that a call takes, and what it returns."""
    began, at = process_time(), perf_counter()
    returned = await function()
    return process_time() - began, perf_counter() - at, returned


@attrs.define
class Watch:
    """Takes the processor time of candidates in interleaved rounds, and notes their wall time."""

    wall: dict[str, list[float]] = attrs.field(factory=dict)

    def measure(self, name: str, job: Measured) -> float:
        """Return the seconds of processor time of one job, in a loop of its own."""
        gc.collect()
        took, wall, found = trio.run(take_time, job.run)
        job.look(found)
        self.wall.setdefault(name, []).append(wall)
        return took

    def take(self, rounds: int, jobs: Mapping[str, Measured]) -> dict[str, list[float]]:
        """Return the processor times of each job, in seconds."""
        return interleave(rounds, {name: partial(self.measure, name, job) for name, job in jobs.items()})

    def compare(self, name: str, base: str) -> float:
        """Return the median of the ratios of the wall times of the rounds."""
        return ratio(self.wall[name], self.wall[base])


# Declared stages


def build_wide(size: int, **options: Any) -> Pipeline:
    """Return DAG-005 with options for its workers, compiled."""
    workers = parallel_stages("worker-{key}", ours.work, range(size), dependencies="source", **options)
    pipeline = Pipeline("wide").with_stage("source", ours.source).with_stages(workers)
    pipeline = pipeline.with_stage("join", ours.join, dependencies=workers)
    pipeline.validate()
    return pipeline


def measure_policies(settings: Settings, size: int, bar: float | None) -> Taken:
    """DAG-005 behind a limiter, under a supervisor that limits, and with restarts that nobody needs.

    Args:
        settings: What all rows share.
        size: How many workers.
        bar: How much longer than without a limiter it may take.
    """
    total = sum(range(SEED, SEED + size))
    repeat = min(40, max(1, 4000 // size))
    job = partial(Job, check=lambda result: (result.data("join")["total"], total), repeat=repeat)
    none, limited = build_wide(size), build_wide(size, limiter=Limiter(LIMIT))
    shared, rated = build_wide(size), build_wide(size, limiter=Limiter(LIMIT, rate=Rate(10**9)))
    jobs = {
        "none": job(none),
        f"Limiter({LIMIT})": job(limited),
        f"max_running_stages={LIMIT}": job(shared, running=LIMIT),
        "both": job(limited, running=LIMIT),
        "with a rate": job(rated),
        "restart, never used": job(build_wide(size, restart=Restart())),
    }
    watch = Watch()
    watch.take(1, jobs)
    watch.wall.clear()
    taken = watch.take(settings.rounds, jobs)
    each = repeat * (size + 2)
    lines: list[tuple[str, ...]] = [
        (name, f"{1e6 * median(times) / each:.1f}", f"{ratio(times, taken['none']):.2f}x", _wall(watch, name, "none"))
        for name, times in taken.items()
    ]
    figures = []
    for name in (f"Limiter({LIMIT})", f"max_running_stages={LIMIT}"):
        if bar is not None:
            what, note = f"{size:,} wide, {name} against none", f"wall time {_wall(watch, name, 'none')}"
            figures.append(Figure(what, bar, ratio(taken[name], taken["none"]), "x", note=note))
    return Taken(("policy", "us/stage", "against none", "wall time"), lines, figures, _raw(taken, watch))


def _wall(watch: Watch, name: str, base: str) -> str:
    return f"{watch.compare(name, base):.2f}x"


def _raw(taken: Mapping[str, list[float]], watch: Watch) -> dict[str, Any]:
    return {"processor seconds": taken, "wall seconds": watch.wall}


# Dynamic fan-out


async def work(ctx: StageContext) -> Mapping[str, Any]:
    """Do what a declared worker does."""
    return {"value": ctx.inputs.require_from("source", "seed") + ctx.snapshot.data["item"]}


def build_fan(size: int, *, listed: bool, collect: bool) -> Pipeline:
    """Return a source and a fan-out over so many items: from a list of the source's, or from a generator."""

    async def source(_ctx: StageContext) -> Mapping[str, Any]:
        return {"seed": SEED, "items": list(range(size)) if listed else []}

    def generate(_inputs: StageInputs) -> Iterator[int]:
        yield from range(size)

    items: Any = ("source", "items") if listed else generate
    stage = FanOutLimiterStage(work, items=items, limiter=Limiter(LIMIT), collect=collect)
    return Pipeline("fan").with_stage("source", source).with_stage("items", stage, dependencies="source")


def build_declared(size: int, **options: Any) -> Pipeline:
    """Return the same as stages."""
    workers = parallel_stages("worker-{key}", ours.work, range(size), dependencies="source", **options)
    pipeline = Pipeline("declared").with_stage("source", ours.source).with_stages(workers)
    pipeline.validate()
    return pipeline


def check_fan(result: RunResult, size: int, *, collect: bool) -> tuple[Any, Any]:
    """Return what a fan-out counted, and the sum of what it kept; and what both have to be."""
    data = result.data("items")
    kept = sum(found["value"] for found in data["results"]) if collect else None
    expected = sum(range(SEED, SEED + size)) if collect else None
    return (data["count"], data["ok"], kept), (size, size, expected)


def check_declared(result: RunResult, size: int) -> tuple[Any, Any]:
    """Return the sum of what declared workers gave, and what it has to be."""
    names = [f"worker-{key}" for key in range(size)]
    return sum(result[name].data["value"] for name in names), sum(range(SEED, SEED + size))


def measure_fan_out(settings: Settings, size: int, rounds: int) -> Taken:
    """A dynamic fan-out of trivial items beside as many declared stages. Building them is excluded."""
    declared = partial(check_declared, size=size)
    jobs = {
        "declared": Job(build_declared(size), declared),
        "declared, limited": Job(build_declared(size, limiter=Limiter(LIMIT)), declared),
    }
    fans = []
    for name, listed in (("list", True), ("generator", False)):
        for collect in (True, False):
            fans.append(f"{name}, {'collected' if collect else 'counted'}")
            pipeline = build_fan(size, listed=listed, collect=collect)
            jobs[fans[-1]] = Job(pipeline, partial(check_fan, size=size, collect=collect))
    watch = Watch()
    taken = watch.take(settings.limit(rounds), jobs)
    lines: list[tuple[str, ...]] = []
    for name, times in taken.items():
        against = [f"{ratio(taken[base], times):.2f}x" for base in ("declared", "declared, limited")]
        lines.append(
            (name, f"{1e6 * median(times) / size:.1f}", *against, f"{1 / watch.compare(name, 'declared'):.2f}x")
        )
    figures = []
    for name in fans:
        beside = f"{ratio(taken['declared, limited'], taken[name]):.2f}x of limited ones"
        note = f"{beside}; wall time {1 / watch.compare(name, 'declared'):.2f}x"
        reached = ratio(taken["declared"], taken[name])
        what = f"{size:,} items from a {name}: throughput against declared stages"
        figures.append(Figure(what, 0.8, reached, "x", at_most=False, note=note))
    head = ("items", "us/item", "throughput against declared", "against limited ones", "wall time")
    return Taken(head, lines, figures, _raw(taken, watch))


async def _trace(pipeline: Pipeline) -> tuple[int, int]:
    gc.collect()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    result = await pipeline.run()
    after, peak = tracemalloc.get_traced_memory()
    assert result.ok
    return peak - before, after - before


def weigh(pipeline: Pipeline) -> tuple[int, int]:
    """Return the bytes by which the memory grows in a run: at its peak, and what its result keeps."""
    tracemalloc.start()
    try:
        return trio.run(_trace, pipeline)
    finally:
        tracemalloc.stop()


def measure_fan_memory(_settings: Settings, small: int, large: int) -> Taken:
    """Memory of a fan-out from a generator at two sizes: bounded by the limit, unless results are kept."""
    weigh(build_fan(small, listed=False, collect=True))  # caches are filled once
    counted = {size: weigh(build_fan(size, listed=False, collect=False)) for size in (small, large)}
    collected = {size: weigh(build_fan(size, listed=False, collect=True)) for size in (small, large)}
    lines: list[tuple[str, ...]] = []
    for name, weights in (("counted", counted), ("collected", collected)):
        for size, (peak, kept) in weights.items():
            lines.append((name, f"{size:,}", f"{peak / 1000:,.0f}", f"{peak / size:,.1f}", f"{kept / size:,.1f}"))
    grown = counted[large][0] / counted[small][0]
    what = f"memory at the peak, {large:,} counted items against {small:,}"
    figures = [Figure(what, 1.1, grown, "x", note=f"{counted[large][0] / 1000:,.0f} kB behind Limiter({LIMIT})")]
    head = ("items", "how many", "kB at the peak", "bytes/item at the peak", "bytes/item kept")
    return Taken(head, lines, figures, {"counted": counted, "collected": collected})


# Tickets


class Desk:
    """A claimant that gives every slot back as soon as it may."""

    def __init__(self) -> None:
        self.admissions: deque[Ticket] = deque()

    def admitted(self, ticket: Ticket) -> None:
        self.admissions.append(ticket)

    def refused(self, _ticket: Ticket, error: Exception) -> None:
        raise error


@attrs.frozen
class Tickets:
    """So many tickets that wait at once, and pass one after the other; all of it some times."""

    size: int
    limiters: tuple[Limiter, ...]
    repeat: int

    async def run(self) -> int:
        """Return how many passed."""
        passed = 0
        for _ in range(self.repeat):
            desk = Desk()
            for number in range(self.size):
                ticket = Ticket(desk, number, self.limiters, 0)
                if ticket.request():
                    desk.admissions.append(ticket)
            while desk.admissions:
                ticket = desk.admissions.popleft()
                ticket.start()
                ticket.release()
                passed += 1
        return passed

    def look(self, passed: int) -> None:
        """Look whether all did.

        Raises:
            WrongOutputError: They did not.
        """
        if passed != self.size * self.repeat:
            raise WrongOutputError(f"{passed} of {self.size * self.repeat} tickets passed")


def _repeat_tickets(size: int) -> int:
    return min(40, max(1, 20_000 // size))


def measure_tickets(settings: Settings, sizes: tuple[int, ...]) -> Taken:
    """Microseconds from a ticket's request to its release, where all but the first ones have to wait."""
    kinds: dict[str, Callable[[], tuple[Limiter, ...]]] = {
        "one limiter": lambda: (Limiter(LIMIT),),
        "with a rate": lambda: (Limiter(LIMIT, rate=Rate(10**9)),),
        "two limiters": lambda: (Limiter(LIMIT), Limiter(2 * LIMIT)),
    }
    jobs = {}
    for size in sizes:
        for kind, make in kinds.items():
            jobs[f"{kind}, {size:,}"] = Tickets(size, make(), _repeat_tickets(size))
    watch = Watch()
    taken = watch.take(settings.rounds, jobs)
    lines: list[tuple[str, ...]] = []
    for kind in kinds:
        costs = []
        for size in sizes:
            seconds = median(taken[f"{kind}, {size:,}"])
            costs.append(f"{1e6 * seconds / size / _repeat_tickets(size):.2f}")
        lines.append((kind, *costs))
    head = ("ticket behind", *(f"us at {size:,}" for size in sizes))
    return Taken(head, lines, [], _raw(taken, watch))


ROWS: dict[str, Callable[[Settings], Taken]] = {
    "fan-out-100000": partial(measure_fan_out, size=100_000, rounds=9),
    "fan-out-memory": partial(measure_fan_memory, small=10_000, large=100_000),
    "policies-500": partial(measure_policies, size=500, bar=1.15),
    "policies-5000": partial(measure_policies, size=5000, bar=None),
    "tickets": partial(measure_tickets, sizes=(500, 5000)),
}
