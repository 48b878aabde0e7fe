"""Pipelines of many shapes, of which `check_pipeline` checks the laws of every run."""

from __future__ import annotations

import trio

from stageflow_actors import (
    Backoff,
    FanOutLimiterStage,
    Intensity,
    Limiter,
    Pipeline,
    Rate,
    Restart,
    StageOutput,
    Trigger,
    parallel_stages,
    route,
)
from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay

AT_ONCE = Restart(max_restarts=2, backoff=Backoff(initial=0.0, jitter=0.0))
LATER = Restart(max_restarts=2, backoff=Backoff(initial=1.0, jitter=0.0))


async def work(ctx):
    await trio.lowlevel.checkpoint()
    return {"saw": tuple(sorted(ctx.inputs.outputs))}


async def skip(_ctx):
    await trio.lowlevel.checkpoint()
    return StageOutput.skip("idle")


async def fail(_ctx):
    await trio.lowlevel.checkpoint()
    raise ConnectionError("no")


async def heal(ctx):
    await trio.lowlevel.checkpoint()
    if ctx.attempt < 3:
        raise ConnectionError(ctx.attempt)
    return {"attempt": ctx.attempt}


async def sleep(_ctx):
    await trio.sleep(1)


async def choose_left(_ctx):
    await trio.lowlevel.checkpoint()
    return StageOutput.route("left")


class Managed:
    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, kind, error, traceback):
        await trio.lowlevel.checkpoint()

    async def execute(self, ctx):
        return await work(ctx)


def diamond(runner=work, **options):
    return (
        Pipeline("diamond")
        .with_stage("a", work)
        .with_stages(parallel_stages("b{key}", runner, range(2), dependencies="a", **options))
        .with_stage("c", work, dependencies=("b0", "b1"), trigger=Trigger.ALL_DONE)
    )


def fan(worker=work, **options):
    stage = FanOutLimiterStage(worker, items=range(3), limiter=Limiter(2), **options)
    return Pipeline("fan").with_stage("f", stage).with_stage("end", work, dependencies="f")


def routes():
    return (
        Pipeline("routes")
        .with_stage("r", choose_left)
        .with_stage("left", work, dependencies="r", when=route("r", "left"))
        .with_stage("right", work, dependencies="r", when=route("r", "right"))
        .with_stage("join", work, dependencies=("left", "right"), trigger=Trigger.ONE_SUCCESS)
    )


def mixed():
    """Return one of everything: what heals, fails, skips and waits for a slot."""
    limiter = Limiter(1)
    return (
        Pipeline("mixed")
        .with_stage("heals", heal, restart=LATER, limiter=limiter)
        .with_stage("fails", fail, limiter=limiter)
        .with_stage("skips", skip)
        .with_stage("after", work, dependencies=("heals", "skips"), trigger=Trigger.NONE_FAILED)
        .with_stage("isolated", work, dependencies=("fails", "skips"))
        .with_stage("anyway", work, dependencies=("heals", "fails", "skips"), trigger=Trigger.ALL_DONE)
    )


ANYTHING = (Crash("*"), Delay("*", seconds=5.0), Cancel(), ClockJump(2.0))
FAST = {"continue_on_failure": False}
PIPELINES = {
    "a diamond": (diamond, {}),
    "a diamond that restarts": (lambda: diamond(heal, restart=LATER), {}),
    "a diamond that restarts more often than it may": (
        lambda: diamond(heal, restart=AT_ONCE),
        {"intensity": Intensity(2)},
    ),
    "a diamond that fails": (lambda: diamond(fail), {}),
    "a diamond that fails fast": (lambda: diamond(fail), FAST),
    "a diamond that skips": (lambda: diamond(skip), {}),
    "a diamond behind a limiter": (lambda: diamond(heal, restart=AT_ONCE, limiter=Limiter(1)), {}),
    "a diamond behind a limiter that drops": (lambda: diamond(limiter=Limiter(1, overflow="drop_oldest")), {}),
    "a diamond with a rate": (lambda: diamond(limiter=Limiter(2, rate=Rate(1, per=1.0))), {}),
    "a diamond of context managers": (lambda: diamond(Managed), {}),
    "a diamond with timeouts": (lambda: diamond(sleep, timeout=2.0, restart=AT_ONCE), {}),
    "a diamond in a bounded supervisor": (lambda: diamond(heal, restart=LATER), {"max_running_stages": 1}),
    "a diamond that has no time": (lambda: diamond(sleep), {"timeout": 2.0}),
    "a part of a diamond": (diamond, {"targets": ["b1"], "overrides": {"a": {"given": True}}}),
    "a fan-out": (fan, {}),
    "a fan-out that restarts": (lambda: fan(heal, restart=LATER), {}),
    "a fan-out that fails": (lambda: fan(fail), {}),
    "a fan-out that collects": (lambda: fan(fail, on_item_failure="collect"), {}),
    "routes": (routes, {}),
    "routes in a pipeline": (lambda: Pipeline("outer").with_stage("b", work).subpipeline("in", routes(), "b"), {}),
    "one of everything": (mixed, {}),
    "one of everything, failing fast": (mixed, FAST),
    "a diamond and anything": (lambda: diamond(Managed), {"faults": ANYTHING}),
    "a diamond that restarts, and anything": (lambda: diamond(heal, restart=LATER), {"faults": ANYTHING}),
    "a fan-out and anything": (fan, {"faults": ANYTHING}),
    "one of everything, and anything": (mixed, {"faults": ANYTHING}),
    "one of everything, failing fast, and anything": (mixed, {**FAST, "faults": ANYTHING}),
}
"""How each is made, and the options of `check_pipeline`."""
