"""What the explored tests share: stages that take so many steps, and who counts whom."""

from __future__ import annotations

import contextlib
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from stageflow_actors import Pipeline, PipelineFailedError, RunEnding, StageState

if TYPE_CHECKING:
    from collections.abc import Iterator

FEW = 200
"""Executions of a test whose program has far more schedules than can be run, and is there for what is usual."""

FINAL = {
    StageState.OK,
    StageState.SKIPPED,
    StageState.FAILED,
    StageState.ISOLATED,
    StageState.CANCELLED,
    StageState.ABANDONED,
}


async def take_steps(count):
    """Let others go first so many times: what stands for real work."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()


class Room:
    """Counts who is inside. Nobody may enter who would be one too many, is inside already, or comes too late."""

    def __init__(self, most=None):
        self.most = most
        self.inside = Counter()
        self.entered = Counter()
        self.is_closed = False
        self.problems = []
        """What was wrong: inside a stage an assertion would be its failure."""

    @contextmanager
    def enter(self, who) -> Iterator[None]:
        self.entered[who] += 1
        if self.is_closed:
            self.problems.append(f"{who} entered after the stop")
        if self.inside[who]:
            self.problems.append(f"{who} entered twice")
        self.inside[who] += 1
        if self.most is not None and self.inside.total() > self.most:
            self.problems.append(f"{who} entered as number {self.inside.total()} of {self.most}")
        try:
            yield
        finally:
            self.inside[who] -= 1

    def check(self):
        assert self.problems == []
        assert self.inside.total() == 0

    def stage(self, steps=1, error=None, returned=None):
        """Return a stage that is inside for so many steps, and then fails or returns.

        Runs at the same time have a snapshot each, with their name under `run`.
        """

        async def run(ctx):
            with self.enter(ctx.snapshot.data.get("run", "") + ctx.stage_name):
                await take_steps(steps)
                if error is not None:
                    raise error
                return returned

        return run


def chain(name, *runners, **options):
    """Return a pipeline of stages of which each needs the one before: `a`, `b`, `c`."""
    pipeline = Pipeline(name)
    for letter, before, runner in zip("abcdef", ["", *"abcdef"], runners, strict=False):
        pipeline = pipeline.with_stage(letter, runner, dependencies=before or (), **options)
    return pipeline


def fork(name, *runners, **options):
    """Return a pipeline of stages that need nothing: `a`, `b`, `c`."""
    pipeline = Pipeline(name)
    for letter, runner in zip("abcdef", runners, strict=False):
        pipeline = pipeline.with_stage(letter, runner, **options)
    return pipeline


async def get_result(run):
    """Return what came of a run, also of one that failed."""
    with contextlib.suppress(PipelineFailedError):
        await run.result()
    return run.partial()


def check_result(result):
    """Check what must hold of every run that is over."""
    assert result.ledger.balanced
    assert set(result.states.values()) <= FINAL
    assert result.ended.ending is not RunEnding.UNFINISHED


def check_idle(*limiters):
    """Check that nobody holds or waits for anything."""
    for limiter in limiters:
        statistics = limiter.statistics()
        assert (statistics.running, statistics.queued) == (0, 0)
