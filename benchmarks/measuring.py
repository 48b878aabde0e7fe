"""How things are measured: side by side in one process, in interleaved rounds, garbage collected before each."""

from __future__ import annotations

import contextlib
import gc
import logging
import tracemalloc
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from peers.shapes import Shape

    Job = Callable[[Any], Awaitable[Any]]


class WrongOutputError(Exception):
    """A peer gave something else than the shape expects: its figures are worth nothing."""


def interleave(rounds: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take every measure once a round, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            taken[name].append(measure())
    return taken


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median of the ratios of the rounds."""
    return median(one / other for one, other in zip(above, below, strict=True))


def prepare(peer: ModuleType, shape: Shape, count: int) -> list[Job]:
    """Build a shape for a number of runs."""
    if peer.REUSABLE:
        return [peer.prepare(shape)] * count
    return [peer.prepare(shape) for _ in range(count)]


def check(peer: ModuleType, shape: Shape, results: Iterable[Any]) -> None:
    """Compare every output of some runs with what it has to be."""
    expected = shape.expect()
    for result in results:
        found = peer.read(result)
        if found != expected:
            wrong = next(name for name in {**expected, **found} if found.get(name) != expected.get(name))
            message = f"{peer.TITLE}: {wrong!r} gave {found.get(wrong)!r}, not {expected.get(wrong)!r}"
            raise WrongOutputError(message)


async def _run_all(peer: ModuleType, jobs: Sequence[Job]) -> tuple[float, list[Any]]:
    results = []
    began = perf_counter()
    for job in jobs:
        async with peer.host() as host:
            results.append(await job(host))
    return perf_counter() - began, results


def time_run(peer: ModuleType, shape: Shape, repeat: int = 1) -> float:
    """Return the seconds that one run of a shape takes: the mean of `repeat` runs one after the other."""
    jobs = prepare(peer, shape, repeat)
    gc.collect()
    seconds, results = peer.drive(partial(_run_all, peer, jobs))
    check(peer, shape, results)
    return seconds / repeat


async def _run_together(peer: ModuleType, jobs: Sequence[Job]) -> tuple[float, list[float], list[Any]]:
    latencies: list[float] = []
    results: list[Any] = []

    async def run(job: Job, host: Any) -> None:
        began = perf_counter()
        results.append(await job(host))
        latencies.append(perf_counter() - began)

    began = perf_counter()
    async with peer.host() as host, trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(run, job, host)
    return perf_counter() - began, latencies, results


def time_together(peer: ModuleType, shape: Shape, count: int) -> tuple[float, list[float]]:
    """Return the seconds that `count` runs take at once, all in one host, and what each of them took."""
    jobs = prepare(peer, shape, count)
    gc.collect()
    seconds, latencies, results = peer.drive(partial(_run_together, peer, jobs))
    check(peer, shape, results)
    return seconds, latencies


async def _watch(peer: ModuleType, job: Job) -> tuple[float, Any]:
    longest = 0.0

    async def beat(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal longest
        task_status.started()
        last = perf_counter()
        while True:
            await trio.lowlevel.checkpoint()
            now = perf_counter()
            longest = max(longest, now - last)
            last = now

    async with peer.host() as host, trio.open_nursery() as nursery:
        await nursery.start(beat)
        result = await job(host)
        # Whatever the run did in its last step is seen by the heartbeat's next one.
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return longest, result


def time_stall(peer: ModuleType, shape: Shape) -> float:
    """Return the longest time, in seconds, for which a run kept another task of the loop waiting."""
    (job,) = prepare(peer, shape, 1)
    gc.collect()
    longest, result = peer.drive(partial(_watch, peer, job))
    check(peer, shape, [result])
    return longest


async def _hold(peer: ModuleType, job: Job) -> int:
    async with peer.host() as host, trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        nursery.start_soon(job, host)
        await trio.testing.wait_all_tasks_blocked()
        after = tracemalloc.get_traced_memory()[0]
        nursery.cancel_scope.cancel()
    return after - before


def weigh_waiting(peer: ModuleType, shape: Shape) -> float:
    """Return the bytes by which starting a run makes the memory grow, for each stage that then waits."""
    (job,) = prepare(peer, shape, 1)
    tracemalloc.start()
    try:
        return peer.drive(partial(_hold, peer, job)) / (len(shape) - 1)
    finally:
        tracemalloc.stop()


async def _run_traced(peer: ModuleType, job: Job) -> tuple[int, Any]:
    async with peer.host() as host:
        gc.collect()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = await job(host)
        return tracemalloc.get_traced_memory()[1] - before, result


def weigh_peak(peer: ModuleType, shape: Shape) -> float:
    """Return the bytes by which the memory grows while a run goes on, at its peak, for each stage."""
    (job,) = prepare(peer, shape, 1)
    tracemalloc.start()
    try:
        peak, result = peer.drive(partial(_run_traced, peer, job))
    finally:
        tracemalloc.stop()
    check(peer, shape, [result])
    return peak / len(shape)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the records of failures, which are wanted here, out of the output."""
    logger = logging.getLogger("stageflow_actors")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
