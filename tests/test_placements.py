"""Placements: what a supervisor does with any of them, and what is refused."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
import trio

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    Restart,
    StageTimeoutError,
    Supervisor,
    parallel_stages,
)
from stageflow_actors.placement import Placement, Site, threads

user = ContextVar("user", default="nobody")


class Elsewhere(Placement, Site):
    """Calls async functions, and writes down what happens to it."""

    def __init__(self, *, broken=0, refuses=None, ends_with=None):
        self.log = []
        self.broken = broken
        self.refuses = refuses
        self.ends_with = ends_with
        self.opened_by = None

    def check(self, runner, form):
        return self.refuses

    @asynccontextmanager
    async def open(self):
        self.opened_by = user.get()
        if self.broken:
            self.broken -= 1
            raise ConnectionError("nobody there")
        self.log.append("open")
        yield self
        await trio.lowlevel.checkpoint()  # closing may take its time, whoever is cancelled
        self.log.append("closed")
        if self.ends_with is not None:
            raise self.ends_with

    async def call(self, function, ctx, begin, host):
        self.log.append(ctx.stage_name)
        begin()
        return await function(ctx)

    def __repr__(self):
        return "Elsewhere()"


async def nothing(ctx):
    return {}


async def forever(ctx):
    await trio.sleep_forever()


# From opening to closing


async def test_it_is_opened_when_it_is_needed_and_closed_when_the_supervisor_is_left():
    place = Elsewhere()
    here, there = Pipeline("here").with_stage("a", nothing), Pipeline("there").with_stage("b", nothing, placement=place)
    async with Supervisor() as supervisor:
        await supervisor.run(here)
        assert place.log == []
        await supervisor.run(there)
        await supervisor.run(there)
        assert place.log == ["open", "b", "b"]
    assert place.log == ["open", "b", "b", "closed"]


async def test_stages_that_need_it_at_once_share_it():
    place = Elsewhere()
    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", nothing, range(3), placement=place))
    await pipeline.run()
    assert sorted(place.log) == ["closed", "open", "w0", "w1", "w2"]


async def test_each_supervisor_opens_its_own():
    place = Elsewhere()
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place)
    async with Supervisor() as one, Supervisor() as other:
        await one.run(pipeline)
        await other.run(pipeline)
    assert place.log == ["open", "a", "open", "a", "closed", "closed"]


async def test_it_is_closed_after_its_runs_also_when_the_supervisor_is_cancelled(autojump_clock):
    place = Elsewhere()
    pipeline = Pipeline("p").with_stage("a", forever, placement=place)
    with trio.move_on_after(1) as scope:
        async with Supervisor() as supervisor:
            await supervisor.run(pipeline)
    assert scope.cancelled_caught
    assert place.log == ["open", "a", "closed"]


async def test_it_is_closed_when_the_supervisor_is_left_with_an_error():
    place = Elsewhere()
    with pytest.raises(ZeroDivisionError):
        async with Supervisor() as supervisor:
            await supervisor.run(Pipeline("p").with_stage("a", nothing, placement=place))
            raise ZeroDivisionError
    assert place.log == ["open", "a", "closed"]


async def test_a_supervisor_below_closes_its_own_with_itself():
    place = Elsewhere()
    async with Supervisor() as above:
        below = await above.spawn_supervisor(Supervisor(), name="below")
        await below.run(Pipeline("p").with_stage("a", nothing, placement=place))
        await below.stop()
        assert place.log == ["open", "a", "closed"]


async def test_it_is_opened_in_the_context_of_the_supervisor():
    place = Elsewhere()
    async with Supervisor() as supervisor:
        user.set("ada")
        await supervisor.run(Pipeline("p").with_stage("a", nothing, placement=place))
    assert place.opened_by == "nobody"


async def test_one_that_cannot_be_opened_fails_its_stages_and_is_tried_again():
    place = Elsewhere(broken=1)
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place)
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError, match="ConnectionError: nobody there"):
            await supervisor.run(pipeline)
        assert (await supervisor.run(pipeline)).ok


async def test_a_restart_tries_to_open_it_again(autojump_clock):
    place = Elsewhere(broken=2)
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place, restart=Restart(max_restarts=2))
    assert (await pipeline.run()).ok


async def test_what_goes_wrong_when_it_is_closed_is_logged(caplog):
    caplog.set_level(logging.ERROR, logger="stageflow_actors")
    place = Elsewhere(ends_with=OSError("still busy"))
    assert (await Pipeline("p").with_stage("a", nothing, placement=place).run()).ok
    (record,) = caplog.records
    assert record.getMessage() == "Elsewhere() could not be closed in order"
    assert "OSError: still busy" in caplog.text


# What of a stage goes through it


async def test_the_timeout_counts_from_its_beginning_there(autojump_clock):
    class Slow(Elsewhere):
        async def call(self, function, ctx, begin, host):
            await trio.sleep(100)
            begin()
            return await function(ctx)

    pipeline = Pipeline("p").with_stage("a", forever, placement=Slow(), timeout=5)
    result = await pipeline.run(continue_on_failure=True)
    assert isinstance(result.failures["a"].error, StageTimeoutError)
    assert trio.current_time() >= 105


async def test_the_items_of_a_fan_out_run_there_and_the_stage_does_not():
    place = Elsewhere()
    fan = FanOutLimiterStage(nothing, items=range(3), limiter=Limiter(1))
    result = await Pipeline("p").with_stage("fan", fan, placement=place).run()
    assert result.data("fan")["ok"] == 3
    assert place.log == ["open", "fan[0]", "fan[1]", "fan[2]", "closed"]


async def test_a_subpipeline_keeps_the_placements_of_its_stages():
    place = Elsewhere()
    inner = Pipeline("inner").with_stage("a", nothing, placement=place)
    await Pipeline("outer").subpipeline("sub", inner).run()
    assert place.log == ["open", "sub/a", "closed"]


async def test_the_same_runner_may_run_here_and_there():
    place = Elsewhere()
    pipeline = Pipeline("p").with_stage("here", nothing).with_stage("there", nothing, placement=place)
    await pipeline.with_stage("here too", nothing).run()
    assert place.log == ["open", "there", "closed"]


# Refusals


@pytest.mark.parametrize("value", [4, "processes", threads, Elsewhere])
def test_what_is_no_placement_is_refused(value):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", nothing, placement=value)
    told = f"placement must be a placement, not {value!r}"
    hint = "write placement=processes(), from stageflow_actors.placement"
    assert str(caught.value) == f"pipeline 'p', stage 'a': {told}; {hint}"


def test_a_runner_that_cannot_run_there_is_refused_each_time():
    place = Elsewhere(refuses="never ends")
    problem = "placement Elsewhere() is not for a stage that never ends"
    built = Pipeline("p").with_stage("ok", nothing)
    with pytest.raises(PipelineValidationError) as caught:
        built.with_stage("a", nothing, placement=place)
    assert str(caught.value) == f"pipeline 'p', stage 'a': {problem}"
    with pytest.raises(PipelineValidationError) as caught:
        parallel_stages("w{key}", nothing, range(3), placement=place)
    assert str(caught.value) == f"stage 'w{{key}}': {problem}"
    with pytest.raises(PipelineValidationError, match="is not for a stage that never ends"):
        built.with_stage("fan", FanOutLimiterStage(nothing, items=[1], limiter=Limiter(1)), placement=place)


async def test_a_resident_actor_is_refused():
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(nothing, name="actor")
        for runner in (ref, FanOutLimiterStage(ref, items=[1], limiter=Limiter(1))):
            with pytest.raises(PipelineValidationError) as caught:
                Pipeline("p").with_stage("a", runner, placement=Elsewhere())
            told = "a resident actor lives where it was spawned, and nowhere else"
            assert str(caught.value) == f"pipeline 'p', stage 'a': {told}; leave the placement out"
