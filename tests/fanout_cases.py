"""What the tests of dynamic fan-outs share."""

from __future__ import annotations

import trio

from stageflow_actors import Backoff, FanOutLimiterStage, Limiter, Pipeline, PipelineFailedError, Supervisor, events

ONE_SECOND = Backoff(initial=1.0, factor=1.0, jitter=0.0)


class Abort(BaseException):
    """What is no `Exception`."""


class Taken:
    """Items that are counted as they are taken."""

    def __init__(self, count):
        self.count = count
        self.taken = 0
        self.closed = 0

    def generate(self, _inputs=None):
        try:
            for number in range(self.count):
                self.taken += 1
                yield number
        finally:
            self.closed += 1

    async def generate_async(self, _inputs=None):
        try:
            for number in range(self.count):
                await trio.lowlevel.checkpoint()
                self.taken += 1
                yield number
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            self.closed += 1


async def nothing(ctx):
    pass


async def second(ctx):
    await trio.sleep(1)


async def forever(ctx):
    await trio.sleep_forever()


async def echo(ctx):
    return {"item": ctx.snapshot.data["item"]}


def fan(worker, items, *, limiter=None, stage=None, **options):
    """Return a pipeline with one fan-out `f`; `stage` are the options of `with_stage`."""
    runner = FanOutLimiterStage(worker, items=items, limiter=limiter or Limiter(3), **options)
    return Pipeline("p").with_stage("f", runner, **(stage or {}))


async def upstream(ctx):
    return {"items": [0, 1, 2], "pages": {"a": 1}, "text": "abc", "number": 5, "none": None, "set": {7}}


def below(worker, items, **options):
    """Return a pipeline whose fan-out `f` depends on `up`."""
    runner = FanOutLimiterStage(worker, items=items, limiter=Limiter(3), **options)
    return Pipeline("p").with_stage("up", upstream).with_stage("f", runner, dependencies="up")


async def run(pipeline, snapshot=None, *, supervisor=None, **options):
    """Return the result of a run that goes on after failures, and whose jitter is none."""
    async with Supervisor(random=lambda: 1.0, **(supervisor or {})) as one:
        return await one.run(pipeline, snapshot, **{"continue_on_failure": True, **options})


async def follow(pipeline, **options):
    """Return the result and the events of a run."""
    async with Supervisor(random=lambda: 1.0) as supervisor:
        started = supervisor.start(pipeline, **{"continue_on_failure": True, **options})
        async with started.events() as stream:
            seen = [event async for event in stream]
        try:
            return await started.result(), seen
        except PipelineFailedError as error:
            return error.result, seen


def ends(seen):
    """Return how each item ended, by position."""
    return {e.item: (e.state.value, e.reason) for e in seen if isinstance(e, events.StageEnded) and e.item is not None}


def ledger_of(result):
    """Return what was accepted, replied, failed and cancelled; it has to balance."""
    ledger = result.ledger
    assert ledger.balanced
    return ledger.accepted, ledger.replied, ledger.failed, ledger.cancelled


def counts_of(result, stage="f"):
    """Return count, ok, skipped and failed of a fan-out's output."""
    return tuple(result.data(stage)[key] for key in ("count", "ok", "skipped", "failed"))


def held(limiter):
    """Return how many a limiter has running and queued."""
    return limiter.statistics().running, limiter.statistics().queued
