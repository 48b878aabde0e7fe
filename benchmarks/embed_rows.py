"""The rows of the benchmark of embedding: a bridge beside the barest that does the same, processes beside a pool."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median, quantiles
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

import attrs
import batch_stages
import pykka
import trio
from measuring import WrongOutputError, interleave, ratio
from peers import ours
from rows import Figure, Settings, Taken

from stageflow_actors import Pipeline, Supervisor
from stageflow_actors.embed.asyncio import SupervisorPortal
from stageflow_actors.embed.pykka import SupervisorActor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from stageflow_actors import RunResult

PIPELINE = Pipeline("one").with_stage("source", ours.source)
CALLS = 300
"""So many one after the other are one measure."""
TOGETHER = 100
"""So many asyncio tasks at once are another."""


class BareLoop:
    """A supervisor on a trio loop in a thread, and the least that it takes to call it from outside."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._live,))

    def __enter__(self) -> Self:
        self._thread.start()
        self._opened.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._token.run_sync_soon(self._leave.set)
        self._thread.join()

    async def _live(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._leave = trio.Event()
        async with Supervisor() as self._supervisor, trio.open_nursery() as self._nursery:
            self._opened.set()
            await self._leave.wait()

    def submit(self, settle: Callable[[RunResult], None]) -> None:
        """Run the pipeline, and call `settle` in the loop's thread."""
        self._token.run_sync_soon(self._nursery.start_soon, self._run, settle)

    async def _run(self, settle: Callable[[RunResult], None]) -> None:
        settle(await self._supervisor.run(PIPELINE))


def look(result: RunResult) -> None:
    """Raise where a run has not done its work."""
    if not result.ok or len(result) != 1:
        raise WrongOutputError(f"a run gave {result!r}")


# Synchronous callers


def time_calls(call: Callable[[], RunResult], count: int) -> float:
    """Return the seconds that a call takes, the median of so many one after the other."""
    gc.collect()
    times = []
    for _ in range(count):
        began = perf_counter()
        result = call()
        times.append(perf_counter() - began)
        look(result)
    return median(times)


def measure_pykka(settings: Settings) -> Taken:
    """A synchronous call: `proxy.run(pipeline).get()`, beside `run_sync_soon` and a `pykka.ThreadingFuture` by hand."""
    with BareLoop() as bare:
        ref = SupervisorActor.start()
        try:
            proxy = ref.proxy()

            def call_bare() -> RunResult:
                future: pykka.ThreadingFuture[RunResult] = pykka.ThreadingFuture()
                bare.submit(future.set)
                return future.get()  # type: ignore[no-any-return]

            def call_ours() -> RunResult:
                return proxy.run(PIPELINE).get()  # type: ignore[no-any-return]

            measures = {"by hand": partial(time_calls, call_bare, CALLS), "ours": partial(time_calls, call_ours, CALLS)}
            interleave(1, measures)
            taken = interleave(settings.rounds, measures)
        finally:
            ref.stop()
    return make_bridge("a synchronous call", taken)


def make_bridge(what: str, taken: Mapping[str, list[float]]) -> Taken:
    """Return the row of a bridge beside the one by hand."""
    lines = [
        (name, f"{1e6 * median(times):.0f}", f"{ratio(times, taken['by hand']):.2f}x") for name, times in taken.items()
    ]
    figures = [Figure(f"{what}, against the bare bridge", 1.5, ratio(taken["ours"], taken["by hand"]), "x")]
    return Taken(("bridge", "us/call", "against by hand"), lines, figures, {"seconds": taken})


# asyncio


async def time_tasks(call: Callable[[], Awaitable[RunResult]], count: int, together: int) -> float:
    """Return the seconds that a call takes: the median of `count` calls, of so many tasks at once."""
    gc.collect()
    times: list[float] = []

    async def work() -> None:
        for _ in range(count // together):
            began = perf_counter()
            result = await call()
            times.append(perf_counter() - began)
            look(result)

    await asyncio.gather(*(work() for _ in range(together)))
    return median(times)


def measure_portal(settings: Settings, together: int) -> Taken:
    """A call from an asyncio task, beside `run_sync_soon` and `call_soon_threadsafe` by hand.

    Args:
        settings: What all rows share.
        together: How many tasks call at once.
    """
    taken: dict[str, list[float]] = {"by hand": [], "ours": [], "ours, guest mode": []}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with BareLoop() as bare:

            def call_bare() -> asyncio.Future[RunResult]:
                future = loop.create_future()
                bare.submit(lambda result: loop.call_soon_threadsafe(future.set_result, result) and None)
                return future

            async with SupervisorPortal() as portal, SupervisorPortal(guest=True) as guest:
                calls: dict[str, Callable[[], Awaitable[RunResult]]] = {
                    "by hand": call_bare,
                    "ours": partial(portal.run, PIPELINE),
                    "ours, guest mode": partial(guest.run, PIPELINE),
                }
                for number in range(settings.rounds + 1):
                    for name, call in calls.items():
                        took = await time_tasks(call, CALLS * min(together, 4), together)
                        if number:  # the first is to warm up
                            taken[name].append(took)

    asyncio.run(main())
    what = "a call from asyncio" if together == 1 else f"a call from asyncio, {together} tasks at once"
    return make_bridge(what, taken)


# Processes


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the records of the files that do not parse, which are wanted here, out of the output."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@attrs.frozen
class Batch:
    """The files of the source index, and what parsing them gives."""

    files: Mapping[str, Mapping[str, Any]]
    workers: int

    def pool(self, method: str) -> float:
        """Return the seconds that a `ProcessPoolExecutor` takes, from its start to its end."""
        gc.collect()
        context = multiprocessing.get_context(method)
        began = perf_counter()
        with ProcessPoolExecutor(self.workers, context, batch_stages.silence_compiler) as pool:
            futures = [pool.submit(batch_stages.index, name, config) for name, config in self.files.items()]
            found = sum(future.result() is not None for future in futures)
        took = perf_counter() - began
        self.look(found)
        return took

    def ours(self) -> float:
        """Return the seconds that a pipeline of a stage a file takes, from its start to its end."""
        gc.collect()
        pipeline = batch_stages.make_pipeline(self.files, self.workers)
        with silent():
            began = perf_counter()
            result = trio.run(partial(pipeline.run, continue_on_failure=True))
            took = perf_counter() - began
        self.look(len(result))
        return took

    def look(self, found: int) -> None:
        """Raise where files are missing, but for the few that do not parse."""
        if not 0.98 * len(self.files) <= found <= len(self.files):
            raise WrongOutputError(f"{found} of {len(self.files)} files were indexed")


def measure_processes(settings: Settings, size: int | None = None) -> Taken:
    """The source index in worker processes, beside `ProcessPoolExecutor`, starting and ending the workers included.

    Args:
        settings: What all rows share.
        size: How many files, in a test; the whole standard library without.
    """
    files = dict(list(batch_stages.find_sources().items())[:size])
    workers = batch_stages.count_cores()
    batch = Batch(files, workers)
    measures = {
        "pool, spawn": partial(batch.pool, "spawn"),
        "pool, fork": partial(batch.pool, "fork"),
        "ours": batch.ours,
    }
    taken = interleave(settings.limit(settings.rounds), measures)
    lines = [
        (name, f"{median(times):.2f}", f"{len(files) / median(times):,.0f}", f"{ratio(times, taken['ours']):.2f}x")
        for name, times in taken.items()
    ]
    spread = quantiles([one / other for one, other in zip(taken["pool, spawn"], taken["ours"], strict=True)] * 2)
    figures = [
        Figure(
            f"{len(files):,} files on {workers} cores: throughput against ProcessPoolExecutor ({method})",
            0.85,
            ratio(taken[f"pool, {method}"], taken["ours"]),
            "x",
            at_most=False,
            note=f"quartiles {spread[0]:.2f} to {spread[2]:.2f}" if method == "spawn" else "",
        )
        for method in ("spawn", "fork")
    ]
    return Taken(("who", "s", "files/s", "time against ours"), lines, figures, {"seconds": taken})


ROWS = {
    "pykka": measure_pykka,
    "portal": partial(measure_portal, together=1),
    "portal-100": partial(measure_portal, together=TOGETHER),
    "processes": measure_processes,
}
