"""A subpipeline that counts its restarts itself: what it allows, what it leaves alone, what is refused."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from stageflow_actors import (
    Backoff,
    FanOutLimiterStage,
    Intensity,
    Limiter,
    Pipeline,
    PipelineValidationError,
    Restart,
    StageState,
    Supervisor,
)
from stageflow_actors.errors import PipelineFailedError, RestartIntensityError

AT_ONCE = Restart(max_restarts=10, backoff=Backoff(initial=0))
OK, FAILED, ISOLATED = StageState.OK, StageState.FAILED, StageState.ISOLATED


async def fail_times(times, ctx):
    if ctx.attempt <= times:
        raise ValueError(f"attempt {ctx.attempt}")


def failing(times):
    return partial(fail_times, times)


def inner(times, name="inner"):
    return Pipeline(name).with_stage("work", failing(times), restart=AT_ONCE)


async def run(pipeline, **options):
    async with Supervisor() as supervisor:
        return await supervisor.run(pipeline, continue_on_failure=True, **options)


@pytest.mark.parametrize(("allowed", "state"), [(0, FAILED), (1, FAILED), (2, OK), (3, OK)])
async def test_it_allows_so_many_restarts(allowed, state):
    result = await run(Pipeline("outer").subpipeline("sub", inner(2), intensity=Intensity(allowed)))
    assert result.states["sub/work"] is state
    assert result.states["sub"] is (OK if state is OK else ISOLATED)


async def test_past_it_the_stage_says_whose_restarts_are_spent():
    pipeline = Pipeline("outer").subpipeline("sub", inner(9), intensity=Intensity(2, within=60))
    result = await run(pipeline)
    error = result.failures["sub/work"].error
    assert isinstance(error, RestartIntensityError)
    assert (error.max_restarts, error.within) == (2, 60)
    assert error.describe() == (
        "subpipeline 'sub' has had 2 restarts within 60 s; the last failure is ValueError: attempt 3"
    )
    assert len(result.attempts["sub/work"]) == 3


async def test_past_it_nothing_in_it_is_restarted_any_more_and_the_rest_is():
    two = inner(9).with_stage("late", failing(1), restart=AT_ONCE, dependencies=())
    outer = (
        Pipeline("outer")
        .subpipeline("sub", two, intensity=Intensity(0))
        .with_stage("beside", failing(3), restart=AT_ONCE)
    )
    result = await run(outer)
    assert [result.states[name] for name in ("sub/work", "sub/late", "sub", "beside")] == [FAILED, FAILED, ISOLATED, OK]
    assert len(result.attempts["sub/work"]) == len(result.attempts["sub/late"]) == 1


async def test_its_restarts_do_not_count_against_the_run():
    outer = (
        Pipeline("outer")
        .subpipeline("sub", inner(3), intensity=Intensity(3))
        .with_stage("beside", failing(1), restart=AT_ONCE)
    )
    assert (await run(outer, intensity=Intensity(1))).ok


async def test_without_it_the_run_counts():
    outer = Pipeline("outer").subpipeline("sub", inner(2))
    result = await run(outer, intensity=Intensity(1))
    assert result.failures["sub/work"].error.describe().startswith("the run has had 1 restart;")


async def test_the_innermost_counts():
    middle = (
        Pipeline("middle")
        .subpipeline("in", inner(2), intensity=Intensity(2))
        .with_stage("own", failing(1), restart=AT_ONCE)
    )
    outer = Pipeline("outer").subpipeline("mid", middle, intensity=Intensity(1))
    assert (await run(outer, intensity=Intensity(0))).ok
    tight = Pipeline("outer").subpipeline("mid", middle, intensity=Intensity(0))
    result = await run(tight, intensity=Intensity(9))
    assert result.states["mid/in/work"] is OK
    assert result.failures["mid/own"].error.describe().startswith("subpipeline 'mid' has had 0 restarts;")


async def test_one_without_its_own_counts_with_the_one_around_it():
    middle = Pipeline("middle").subpipeline("in", inner(2))
    result = await run(Pipeline("outer").subpipeline("mid", middle, intensity=Intensity(1)))
    assert result.failures["mid/in/work"].error.describe().startswith("subpipeline 'mid' has had 1 restart;")


async def test_two_of_one_pipeline_count_apart():
    outer = Pipeline("outer")
    for name in ("a", "b"):
        outer = outer.subpipeline(name, inner(2), intensity=Intensity(2))
    assert (await run(outer)).ok


async def test_items_of_a_fan_out_in_it_count():
    fan = FanOutLimiterStage(failing(1), items=range(3), limiter=Limiter(1), restart=AT_ONCE)
    outer = Pipeline("outer").subpipeline("sub", Pipeline("inner").with_stage("fan", fan), intensity=Intensity(2))
    assert (await run(outer, intensity=Intensity(9))).states["sub/fan"] is FAILED
    enough = Pipeline("outer").subpipeline("sub", Pipeline("inner").with_stage("fan", fan), intensity=Intensity(3))
    assert (await run(enough, intensity=Intensity(0))).ok


async def test_the_window_slides(autojump_clock):
    slow = Restart(max_restarts=10, backoff=Backoff(initial=10, factor=1, jitter=0))
    spread = Pipeline("inner").with_stage("work", failing(4), restart=slow)
    outer = Pipeline("outer").subpipeline("sub", spread, intensity=Intensity(1, within=9))
    assert (await run(outer)).ok
    assert trio.current_time() == pytest.approx(40)


async def test_when_it_gives_up_a_run_that_fails_fast_ends():
    outer = Pipeline("outer").subpipeline("sub", inner(9), intensity=Intensity(1))
    with pytest.raises(PipelineFailedError) as caught:
        async with Supervisor() as supervisor:
            await supervisor.run(outer)
    assert isinstance(caught.value.failures["sub/work"].error, RestartIntensityError)


@pytest.mark.parametrize("wrong", [3, "3", AT_ONCE, Intensity])
def test_what_is_no_intensity_is_refused(wrong):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("outer").subpipeline("sub", inner(1), intensity=wrong)
    assert str(caught.value) == (
        f"pipeline 'outer', stage 'sub': intensity must be an Intensity, not {wrong!r}; "
        "write intensity=Intensity(5, within=60)"
    )
