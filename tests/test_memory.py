"""Memory is flat from run to run, failing runs included, without the cyclic collector."""

from __future__ import annotations

import contextlib
import gc
import sys
from functools import partial

import pytest
import trio
import trio.testing

from stageflow_actors import Pipeline, PipelineFailedError, StageOutput, Supervisor, Trigger, parallel_stages

# Caches, free lists and the interpreter's own housekeeping move the count of blocks a little; a run
# that stayed alive would add hundreds.
_NOISE_PER_RUN = 8.0


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


def plain(ctx):
    raise ValueError(ctx.stage_name)


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
            for _ in range(15):
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
}


@pytest.mark.parametrize("keep_going", [False, True], ids=["fail fast", "continue"])
@pytest.mark.parametrize("case", CASES)
def test_runs_leave_nothing_behind(case, keep_going):
    runner, options, timeout = CASES[case]
    # An autojump clock spins while it waits for threads, and starves them.
    clock = None if case == "threads" else trio.testing.MockClock(autojump_threshold=0)
    measure = partial(growth, keep_going=keep_going, timeout=timeout)
    left = trio.run(measure, make(runner, 30, **options), 100, clock=clock)
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
            for _ in range(15):
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
