"""Memory is flat from run to run, failing runs included, without the cyclic collector."""

from __future__ import annotations

import contextlib
import gc
import sys
from functools import partial

import pytest
import trio
import trio.testing

from stageflow_actors import (
    Backoff,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Rate,
    Restart,
    StageOutput,
    Supervisor,
    Trigger,
    parallel_stages,
)

# Caches, free lists and the interpreter's own housekeeping move the count of blocks a little; a run
# that stayed alive would add hundreds.
_NOISE_PER_RUN = 8.0
_WARM_UP = 100  # CPython keeps up to 80 freed dicts and lists of its own


class Work:
    async def execute(self, ctx):
        await trio.lowlevel.checkpoint()
        return StageOutput.ok(n=ctx.inputs.get_from("source", "n") + ctx.config["key"])


class FailEveryTenth:
    async def execute(self, ctx):
        held = ctx, ctx.inputs, ctx.inputs.outputs
        if ctx.config["key"] % 10 == 3:
            raise ValueError(held[0].stage_name)
        return {"n": ctx.inputs.require_from("source", "n")}


class Undeclared:
    async def execute(self, ctx):
        return {"n": ctx.inputs.get_from("nowhere", "n")}


class LateCleanup:
    async def execute(self, ctx):
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("late")


class FailInNursery:
    async def execute(self, ctx):
        async def child():
            ctx.inputs.output("nowhere")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)


class LeaveNurseryOpen:
    async def execute(self, ctx):
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(trio.sleep_forever)


class Managed:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *exc):
        await trio.lowlevel.checkpoint()

    async def execute(self, ctx):
        raise ValueError("inside")


class HealSlowly:
    """Half of them heal, at the second restart."""

    async def execute(self, ctx):
        held = ctx, ctx.inputs, ctx.inputs.outputs
        if ctx.attempt <= 2 or ctx.config["key"] % 2:
            raise ValueError(held[0].stage_name)


class Again:
    async def execute(self, ctx):
        return StageOutput.retry(ValueError(ctx.stage_name))


def plain(ctx):
    raise ValueError(ctx.stage_name)


def raise_again(error):
    try:
        raise error
    finally:
        del error  # else this frame and the error would keep each other


def raise_another(error):
    raise LookupError(str(error)) from error


def refuse(inputs):
    return inputs.require_from("source", "missing")


async def source(ctx):
    return {"n": 1}


async def join(ctx):
    return {"total": sum(output.data.get("n", 0) for output in ctx.inputs.outputs.values())}


def make(runner, width, **options):
    workers = parallel_stages("w{key}", runner, range(width), dependencies="source", **options)
    return (
        Pipeline("p")
        .with_stage("source", source)
        .with_stages(workers)
        .with_stage("join", join, dependencies=workers)
        .with_stage("report", join, dependencies=workers, trigger=Trigger.ALL_DONE)
    )


async def run_once(supervisor, pipeline, *, keep_going, timeout=None):
    with contextlib.suppress(PipelineFailedError):
        await supervisor.run(pipeline, continue_on_failure=keep_going, timeout=timeout)


async def growth(pipeline, rounds, **options):
    """Return the blocks of memory that one run leaves behind, the collector being off."""
    async with Supervisor(max_threads=2) as supervisor:
        gc.collect()
        gc.disable()
        try:
            for _ in range(_WARM_UP):
                await run_once(supervisor, pipeline, **options)
            before = sys.getallocatedblocks()
            for _ in range(rounds):
                await run_once(supervisor, pipeline, **options)
            return (sys.getallocatedblocks() - before) / rounds
        finally:
            gc.enable()


CASES = {
    "ok": (Work, {}, None),
    "failing": (FailEveryTenth, {}, None),
    "undeclared": (Undeclared, {}, None),
    "stage timeouts": (LateCleanup, {"timeout": 0.001}, None),
    "run timeouts": (LateCleanup, {}, 0.001),
    "nurseries": (FailInNursery, {}, None),
    "open nurseries": (LeaveNurseryOpen, {}, None),
    "managed": (Managed, {}, None),
    "threads": (plain, {}, None),
    "predicates": (Work, {"when": refuse}, None),
    "restarts": (HealSlowly, {"restart": Restart()}, None),
    "returned retries": (Again, {"restart": Restart()}, None),
    "restarts of timeouts": (LateCleanup, {"restart": Restart(), "timeout": 0.001}, None),
    "restarts of nurseries": (FailInNursery, {"restart": Restart(on=lambda error: True)}, None),
    "stops while backing off": (HealSlowly, {"restart": Restart(backoff=Backoff(initial=1.0))}, 0.1),
    "decides raising again": (HealSlowly, {"restart": Restart(decide=raise_again)}, None),
    "decides raising another": (HealSlowly, {"restart": Restart(decide=raise_another)}, None),
    "threads again": (plain, {"restart": Restart(backoff=Backoff(initial=0.0))}, None),
    "limits": (Work, {"limiter": Limiter(3)}, None),
    "restarts behind limits": (HealSlowly, {"restart": Restart(), "limiter": Limiter(3, rate=Rate(1000))}, None),
    "stops behind limits": (LateCleanup, {"limiter": Limiter(3)}, 0.001),
    "rejections": (Work, {"limiter": Limiter(1, max_queued=3, overflow="reject")}, None),
    "drops": (Work, {"limiter": Limiter(1, max_queued=3, overflow="drop_oldest")}, None),
}


@pytest.mark.parametrize("keep_going", [False, True], ids=["fail fast", "continue"])
@pytest.mark.parametrize("case", CASES)
def test_runs_leave_nothing_behind(case, keep_going):
    runner, options, timeout = CASES[case]
    # An autojump clock spins while it waits for threads, and starves them.
    clock = None if runner is plain else trio.testing.MockClock(autojump_threshold=0)
    measure = partial(growth, keep_going=keep_going, timeout=timeout)
    width = 10 if "restart" in options else 30  # about as many attempts either way
    left = trio.run(measure, make(runner, width, **options), 100, clock=clock)
    assert left < _NOISE_PER_RUN


async def test_started_runs_leave_nothing_behind(autojump_clock):
    pipeline = make(FailEveryTenth, 30)

    async def start_and_drop():
        run = supervisor.start(pipeline)
        async with run.events() as stream:
            async for _ in stream:
                pass
        with pytest.raises(PipelineFailedError):
            await run.result()

    async with Supervisor() as supervisor:
        gc.collect()
        gc.disable()
        try:
            for _ in range(_WARM_UP):
                await start_and_drop()
            before = sys.getallocatedblocks()
            for _ in range(100):
                await start_and_drop()
            left = (sys.getallocatedblocks() - before) / 100
        finally:
            gc.enable()
    assert left < _NOISE_PER_RUN


@pytest.mark.slow
@pytest.mark.parametrize("keep_going", [False, True], ids=["fail fast", "continue"])
@pytest.mark.parametrize("runner", [Work, FailEveryTenth])
async def test_a_thousand_runs_of_500_stages_are_flat(runner, keep_going):
    assert await growth(make(runner, 500), 1000, keep_going=keep_going) < _NOISE_PER_RUN
