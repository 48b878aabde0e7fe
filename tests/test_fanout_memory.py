"""Dynamic fan-outs leave nothing behind, item for item, without the cyclic collector; and hold little meanwhile."""

from __future__ import annotations

import contextlib
import gc
import sys
import tracemalloc
from functools import partial

import pytest
import trio
import trio.testing
from fanout_cases import fan, nothing

from stageflow_actors import Backoff, Limiter, PipelineFailedError, Rate, Restart, StageOutput, Supervisor

# The interpreter's own caches move the count of blocks a little; an item that stayed alive would add some each.
_NOISE_PER_ITEM = 0.3
_ITEMS = 30
_WARM_UP = 60
_ROUNDS = 60


async def work(ctx):
    held = ctx, ctx.inputs, ctx.snapshot
    await trio.lowlevel.checkpoint()
    return {"n": held[0].snapshot.data["item"]}


async def fail_every_third(ctx):
    held = ctx, ctx.inputs, ctx.snapshot
    if ctx.snapshot.data["item"] % 3 == 1:
        raise ValueError(held[0].stage_name)
    return {"n": ctx.snapshot.data["item"]}


async def heal_slowly(ctx):
    held = ctx, ctx.inputs, ctx.snapshot
    if ctx.attempt <= 2 or ctx.snapshot.data["item"] % 2:
        raise ValueError(held[0].stage_name)


async def late_cleanup(ctx):
    try:
        await trio.sleep_forever()
    finally:
        raise OSError(ctx.stage_name)


async def fail_in_nursery(ctx):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_every_third, ctx)
        nursery.start_soon(trio.sleep, 0)


async def cancel(ctx):
    await trio.lowlevel.checkpoint()
    return StageOutput.cancel("enough")


class Managed:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *exc):
        await trio.lowlevel.checkpoint()

    async def execute(self, ctx):
        return await fail_every_third(ctx)


def plain(ctx):
    if ctx.snapshot.data["item"] % 3 == 1:
        raise ValueError(ctx.stage_name)


def generate(inputs):
    yield from range(_ITEMS)


async def generate_async(inputs):
    for number in range(_ITEMS):
        await trio.lowlevel.checkpoint()
        yield number


def make(worker, items=generate, limiter=None, **options):
    return fan(worker, items, limiter=limiter or Limiter(5), **options)


async def run_once(supervisor, pipeline, *, timeout=None):
    with contextlib.suppress(PipelineFailedError):
        await supervisor.run(pipeline, timeout=timeout)


async def growth(pipeline, **options):
    """Return the blocks of memory that an item leaves behind, the collector being off."""
    gc.collect()
    gc.disable()
    try:
        for number in range(_WARM_UP + _ROUNDS):
            if number == _WARM_UP:
                before = sys.getallocatedblocks()
            async with Supervisor(max_threads=2) as supervisor:
                await run_once(supervisor, pipeline, **options)
        return (sys.getallocatedblocks() - before) / _ROUNDS / _ITEMS
    finally:
        gc.enable()


COLLECT = {"on_item_failure": "collect"}
CASES = {
    "ok": (partial(make, work), None),
    "from an async generator": (partial(make, work, generate_async), None),
    "counted": (partial(make, work, collect=False), None),
    "failing": (partial(make, fail_every_third), None),
    "failing, collected": (partial(make, fail_every_third, **COLLECT), None),
    "failing, counted": (partial(make, fail_every_third, **COLLECT, collect=False), None),
    "failing in nurseries": (partial(make, fail_in_nursery, **COLLECT), None),
    "managed": (partial(make, Managed, **COLLECT), None),
    "restarts": (partial(make, heal_slowly, restart=Restart(), **COLLECT), None),
    "restarts that fail": (partial(make, heal_slowly, restart=Restart()), None),
    "stops while backing off": (partial(make, heal_slowly, restart=Restart(backoff=Backoff(initial=1.0))), 0.1),
    "timeouts of items": (partial(make, late_cleanup, timeout=0.001, **COLLECT), None),
    "timeouts of the run": (partial(make, late_cleanup), 0.001),
    "timeouts of the stage": (partial(make, late_cleanup, stage={"timeout": 0.001}), None),
    "cancels": (partial(make, cancel), None),
    "restarts of the stage": (partial(make, fail_every_third, stage={"restart": Restart()}), None),
    "with a rate": (partial(make, work, limiter=Limiter(5, rate=Rate(1000))), None),
    "rejections": (partial(make, work, limiter=Limiter(1, overflow="reject"), **COLLECT), None),
    "threads": (partial(make, plain, **COLLECT), None),
}


@pytest.mark.parametrize("case", CASES)
def test_items_leave_nothing_behind(case):
    build, timeout = CASES[case]
    # An autojump clock spins while it waits for threads, and starves them.
    clock = None if case == "threads" else trio.testing.MockClock(autojump_threshold=0)
    assert trio.run(partial(growth, build(), timeout=timeout), clock=clock) < _NOISE_PER_ITEM


async def peak(pipeline):
    """Return the bytes by which the memory grows in a run, at its peak."""
    await pipeline.run()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await pipeline.run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


async def test_memory_is_bounded_by_the_limit_and_what_is_kept():
    peaks = {}
    for limit, count in ((16, 500), (16, 5000), (256, 5000)):
        source = range(count)
        pipeline = fan(nothing, lambda inputs, source=source: iter(source), limiter=Limiter(limit), collect=False)
        peaks[limit, count] = await peak(pipeline)
    assert peaks[16, 5000] < 1.2 * peaks[16, 500]
    assert peaks[256, 5000] > 3 * peaks[16, 5000]
