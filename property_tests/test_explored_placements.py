"""Placements, in every schedule: opened once for all that need it, closed once, after the last of them."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio

from stageflow_actors import Pipeline, Supervisor
from stageflow_actors.placement import Placement, Site
from stageflow_actors.testing import race_test

from .explored import FEW, Room, chain, check_result, fork, take_steps


class Place(Placement, Site):
    """Says what is wrong about how it is used; opening, calling and closing take a step each."""

    def __init__(self, fails=0, *, hangs=False):
        self.fails = fails
        self.hangs = hangs
        self.given_up = 0
        self.is_open = False
        self.opened = self.closed = self.inside = 0
        self.problems = []

    def check(self, runner, form):
        """Take all."""

    def demand(self, holds, problem):
        if not holds:
            self.problems.append(problem)

    @asynccontextmanager
    async def open(self):
        self.demand(not self.is_open, "opened twice")
        await trio.lowlevel.checkpoint()
        if self.hangs:
            try:
                await trio.sleep_forever()
            finally:
                self.given_up += 1
        if self.fails:
            self.fails -= 1
            raise OSError("not yet")
        self.opened += 1
        self.is_open = True
        try:
            yield self
        finally:
            self.demand(not self.inside, f"closed with {self.inside} inside")
            self.is_open = False
            await trio.lowlevel.checkpoint()
            self.closed += 1

    async def call(self, function, ctx, begin, host):
        self.demand(self.is_open, f"{ctx.stage_name} called it while it was closed")
        self.inside += 1
        try:
            begin()
            return await function(ctx)
        finally:
            self.inside -= 1

    def judge(self, opened):
        assert self.problems == []
        assert self.opened == self.closed <= opened
        assert not self.is_open


def place_all(pipeline, place):
    """Return a pipeline all of whose stages are placed there."""
    placed = Pipeline(pipeline.name)
    for spec in pipeline.stages:
        placed = placed.with_stage(spec.name, spec.runner, dependencies=spec.dependencies, placement=place)
    return placed


@race_test(max_executions=FEW)
async def test_it_is_opened_once_for_all_that_need_it_at_once():
    place, room = Place(), Room()
    async with Supervisor() as supervisor:
        check_result(await supervisor.run(place_all(fork("p", room.stage(0), room.stage(0)), place)))
    place.judge(1)
    assert place.opened == 1
    room.check()


async def run_until_cancelled(place):
    """Have all of two runs placed there, and cancel their supervisor at any moment."""
    room = Room()
    scope = trio.CancelScope()

    async def stop():
        await take_steps(2)
        scope.cancel()
        room.is_closed = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        with scope:
            async with Supervisor() as supervisor:
                supervisor.start(place_all(chain("p", room.stage(1), room.stage(1)), place))
                await supervisor.run(place_all(chain("q", room.stage(1), room.stage(1)), place), {"run": "q"})
    room.check()


@race_test(max_executions=FEW)
async def test_it_is_closed_after_its_runs_whenever_the_supervisor_is_cancelled():
    place = Place()
    await run_until_cancelled(place)
    place.judge(1)


@race_test(max_executions=FEW)
async def test_one_that_never_opens_is_given_up_whenever_the_supervisor_is_cancelled():
    place = Place(hangs=True)
    await run_until_cancelled(place)
    place.judge(0)
    assert place.given_up <= 1


@race_test(max_executions=FEW)
async def test_one_that_cannot_be_opened_at_first_is_opened_for_who_comes_next():
    place, room = Place(fails=1), Room()
    async with Supervisor() as supervisor:
        results = []

        async def run(name):
            pipeline = place_all(Pipeline(name).with_stage("a", room.stage(0)), place)
            results.append(await supervisor.run(pipeline, {"run": name}, continue_on_failure=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "p")
            nursery.start_soon(run, "q")
        await run("r")
        for result in results:
            check_result(result)
        assert results[-1].ok
    place.judge(1)
    assert place.opened == 1
    room.check()
