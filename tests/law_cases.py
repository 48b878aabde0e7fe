"""Pipelines that keep the laws, and what is seen of a run that can be changed to break them."""

from __future__ import annotations

import trio
import trio.testing

from stageflow_actors import (
    Backoff,
    Pipeline,
    PipelineFailedError,
    Restart,
    StageOutput,
    Supervisor,
    Trigger,
    parallel_stages,
)
from stageflow_actors.testing._laws import LAWS, Evidence
from stageflow_actors.testing._witness import Witness

AT_ONCE = Restart(max_restarts=2, backoff=Backoff(initial=0.0, jitter=0.0))
LATER = Restart(max_restarts=2, backoff=Backoff(initial=1.0))


async def work(ctx):
    """Await something, and say whose outputs there were."""
    await trio.lowlevel.checkpoint()
    return {"saw": sorted(ctx.inputs.outputs)}


async def skip(_ctx):
    return StageOutput.skip("idle")


async def fail(_ctx):
    await trio.lowlevel.checkpoint()
    raise ConnectionError("no")


async def heal(ctx):
    await trio.lowlevel.checkpoint()
    if ctx.attempt < 3:
        raise ConnectionError(ctx.attempt)
    return {"attempt": ctx.attempt}


class Managed:
    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, kind, error, traceback):
        await trio.lowlevel.checkpoint()

    async def execute(self, ctx):
        return await work(ctx)


class Threaded:
    def execute(self, ctx):
        return {"saw": sorted(ctx.inputs.outputs)}


def diamond(runner=work, **options):
    return (
        Pipeline("diamond")
        .with_stage("a", work)
        .with_stages(parallel_stages("b{key}", runner, range(2), dependencies="a", **options))
        .with_stage("c", work, dependencies=("b0", "b1"), trigger=Trigger.ALL_DONE)
    )


class Result(dict):
    """A result that can be changed."""

    def __init__(self, result):
        super().__init__(result)
        self.states = dict(result.states)
        self.failures = dict(result.failures)
        self.ledger = result.ledger
        self.ended = result.ended
        self.chains = {name: result.cause_chain(name) for name in result.states}

    def cause_chain(self, name):
        return self.chains[name]


def observe(pipeline, **options):
    """Run a pipeline, and return its witness, its result and its events."""
    witness = Witness(pipeline, None, None)

    async def main():
        witness.begin()
        async with Supervisor() as supervisor:
            run = supervisor.start(witness.pipeline, **options)
            stream = run.events()
            try:
                await run.result()
            except PipelineFailedError:
                assert not options.get("continue_on_failure", False)
            return run.partial(), [event async for event in stream]

    result, events = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return witness, Result(result), events


def judge(witness, result, events, given=()):
    evidence = Evidence(witness, frozenset(given), result, events)
    return [str(problem) for law in LAWS for problem in law(evidence)]
