"""The rows of the benchmark of resident actors, and the row that weighs them."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from actor_asks import (
    UNBOUNDED,
    measure_ask,
    measure_asks,
    measure_pending,
    measure_pool,
    measure_stages,
    wait_for_ever,
)
from actor_lives import Idle, Managed, idle, measure_lives, measure_restarts
from actor_timing import logging_nowhere
from rows import Taken

from stageflow_actors import Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rows import Settings

    Fill = Callable[[Supervisor, trio.Nursery, int], Awaitable[None]]


async def spawn_many(supervisor: Supervisor, _nursery: trio.Nursery, count: int, runner: Any) -> None:
    for number in range(count):
        await supervisor.spawn(runner, name=f"idle-{number}")


async def spawn_pool(supervisor: Supervisor, _nursery: trio.Nursery, count: int) -> None:
    await supervisor.spawn(idle, name="idle", pool=count)


async def open_supervisors(supervisor: Supervisor, _nursery: trio.Nursery, count: int) -> None:
    for number in range(count):
        below = await supervisor.spawn_supervisor(Supervisor(), name=f"below-{number}")
        await below.spawn(idle, name="idle")


async def open_channels(_supervisor: Supervisor, nursery: trio.Nursery, count: int) -> None:
    """Do what one does by hand: a task that waits behind a channel."""

    async def be_actor(_send: trio.MemorySendChannel[Any], receive: trio.MemoryReceiveChannel[Any]) -> None:
        async for _ in receive:
            pass

    for _ in range(count):
        nursery.start_soon(be_actor, *trio.open_memory_channel[Any](64))


async def open_tasks(_supervisor: Supervisor, nursery: trio.Nursery, count: int) -> None:
    for _ in range(count):
        nursery.start_soon(trio.sleep_forever)


async def queue_tells(supervisor: Supervisor, _nursery: trio.Nursery, count: int) -> None:
    ref = await supervisor.spawn(wait_for_ever, name="silent", mailbox=UNBOUNDED, shutdown=0.0)
    for number in range(count):
        ref.tell_nowait({"n": number})


async def leave_asks_pending(supervisor: Supervisor, nursery: trio.Nursery, count: int, timeout: float | None) -> None:
    ref = await supervisor.spawn(wait_for_ever, name="silent", mailbox=UNBOUNDED, shutdown=0.0)
    for number in range(count):
        nursery.start_soon(partial(ref.ask, {"n": number}, timeout=timeout))


async def _weigh(fill: Fill, count: int) -> int:
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        await supervisor.spawn(idle, name="first")
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        await fill(supervisor, nursery, count)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        nursery.cancel_scope.cancel()
    return after - before


def weigh(fill: Fill, count: int) -> float:
    """Return the bytes by which the memory grows, for each of so many."""
    tracemalloc.start()
    try:
        with logging_nowhere():
            return trio.run(_weigh, fill, count) / count
    finally:
        tracemalloc.stop()


def measure_memory(_settings: Settings, small: int, large: int) -> Taken:
    """Bytes of what is idle, or waits, at two sizes."""
    fills: dict[str, Fill] = {
        "idle actor, a function": partial(spawn_many, runner=idle),
        "idle actor, a stage class": partial(spawn_many, runner=Idle),
        "idle actor, an async context manager": partial(spawn_many, runner=Managed),
        "worker of a pool": spawn_pool,
        "child supervisor with one idle actor": open_supervisors,
        "by hand, a task behind a channel": open_channels,
        "a task alone": open_tasks,
        "queued message": queue_tells,
        "ask that waits without a timeout, with its task": partial(leave_asks_pending, timeout=None),
        "ask that waits with a timeout, with its task": partial(leave_asks_pending, timeout=3600.0),
    }
    weights: dict[str, dict[int, float]] = {}
    for name, fill in fills.items():
        weigh(fill, 10)  # caches are filled once
        weights[name] = {size: weigh(fill, size) for size in (small, large)}
    lines = [(name, *(f"{weight:,.0f}" for weight in each.values())) for name, each in weights.items()]
    return Taken(("bytes each", f"of {small:,}", f"of {large:,}"), lines, [], {"bytes": weights})


ROWS: dict[str, partial[Taken]] = {
    "ask": partial(measure_ask, count=3000),
    "asks-100": partial(measure_asks, actors=100, each=50),
    "lives-10000": partial(measure_lives, small=1000, large=10_000),
    "restarts": partial(measure_restarts, count=1000, family=1000),
    "stages": partial(measure_stages, size=200, repeat=10),
    "pool": partial(measure_pool, pool=4, clients=100, each=5),
    "pending-10000": partial(measure_pending, pending=10_000, count=3000),
    "memory": partial(measure_memory, small=500, large=2000),
}
