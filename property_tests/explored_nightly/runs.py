"""Runs of several shapes at once: what each stage sees, who is isolated, and what a run says of itself meanwhile."""

from __future__ import annotations

import pytest
import trio

from property_tests.explored import Room, chain, check_result, fork, get_result, take_steps
from property_tests.test_explored_restarts import AT_ONCE, flaky
from property_tests.test_explored_stops import stop_later
from stageflow_actors import Intensity, Pipeline, StageOutput, StageState, Supervisor, Trigger, route
from stageflow_actors.testing import race_test

from .world import in_chunks_of

OK, SKIPPED, FAILED, ISOLATED = StageState.OK, StageState.SKIPPED, StageState.FAILED, StageState.ISOLATED
CANCELLED = StageState.CANCELLED


async def tell_whom_it_saw(ctx):
    await take_steps(1)
    return {"saw": tuple(sorted(ctx.inputs.outputs))}


@race_test
async def test_one_run_fails_fast_and_another_isolates():
    """Each as it was told to, and neither because of the other."""
    room = Room()

    async def fail(ctx):
        with room.enter(ctx.snapshot.data["run"] + ctx.stage_name):
            await take_steps(1)
            raise ConnectionError(ctx.stage_name)

    pipeline = chain("p", fail, room.stage(0)).with_stage("x", room.stage(2))
    async with Supervisor() as supervisor:
        fast = supervisor.start(pipeline, {"run": "fast"})
        slow = supervisor.start(pipeline, {"run": "slow"}, continue_on_failure=True)
        first, second = await get_result(fast), await get_result(slow)
    for result in (first, second):
        check_result(result)
    assert second.states == {"a": FAILED, "b": ISOLATED, "x": OK}
    assert first.states["a"] is FAILED
    assert first.states["b"] is ISOLATED
    assert first.states["x"] in {OK, CANCELLED}
    room.check()


@pytest.mark.parametrize("trigger", list(Trigger))
@race_test
async def test_a_join_of_one_that_is_ok_one_that_skips_and_one_that_fails(trigger):
    room = Room()
    pipeline = fork(
        "p", room.stage(1), room.stage(1, returned=StageOutput.skip("idle")), room.stage(1, ConnectionError())
    )
    pipeline = pipeline.with_stage("join", tell_whom_it_saw, dependencies=("a", "b", "c"), trigger=trigger)
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, continue_on_failure=True)
    check_result(result)
    runs = trigger in {Trigger.ONE_SUCCESS, Trigger.ALL_DONE}
    assert result.states == {"a": OK, "b": SKIPPED, "c": FAILED, "join": OK if runs else ISOLATED}
    assert not runs or "a" in result.data("join")["saw"]
    room.check()


@pytest.mark.parametrize("way", ["left", "right"])
@race_test
async def test_a_router_and_the_way_that_it_did_not_choose(way):
    room = Room()
    pipeline = (
        Pipeline("p")
        .with_stage("r", room.stage(1, returned=StageOutput.route(way)))
        .with_stage("left", room.stage(1), dependencies="r", when=route("r", "left"))
        .with_stage("right", room.stage(1), dependencies="r", when=route("r", "right"))
        .with_stage("below", room.stage(0), dependencies="left")
        .with_stage("join", room.stage(0), dependencies=("left", "right"), trigger=Trigger.ONE_SUCCESS)
        .with_stage("beside", room.stage(2))
    )
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline)
    check_result(result)
    taken = {"left": OK, "below": OK, "right": SKIPPED} if way == "left" else {"left": SKIPPED, "below": SKIPPED}
    assert {name: result.states[name] for name in taken} == taken
    assert result.states["join"] is result.states["beside"] is OK
    assert set(room.entered) == {name for name, state in result.states.items() if state is OK}
    room.check()


@race_test
async def test_pipelines_inside_a_pipeline_share_the_intensity_of_the_run():
    """Which of them restarts is left to the schedule; how often they do together is not."""
    room = Room()
    inner = fork("inner", flaky(room, 9, 0), restart=AT_ONCE)
    pipeline = Pipeline("p").subpipeline("x", inner).subpipeline("y", inner).with_stage("z", room.stage(1))
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True, intensity=Intensity(2))
        result = await run.result()
    check_result(result)
    assert sum(count for name, count in room.entered.items() if name != "z") == 2 + 2
    assert result.states["z"] is OK
    assert list(result.failures) == ["x/a", "y/a"]
    room.check()


@race_test
async def test_two_layers_of_three():
    """Every stage of the second sees all of the first, whoever was last."""
    pipeline = fork("p", *[tell_whom_it_saw] * 3)
    for name in "xyz":
        pipeline = pipeline.with_stage(name, tell_whom_it_saw, dependencies=("a", "b", "c"))
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline)
    check_result(result)
    assert [result.data(name)["saw"] for name in "xyz"] == [("a", "b", "c")] * 3


@race_test
async def test_somebody_looks_at_a_run_all_the_time():
    """What it says adds up whenever it is asked, and what has ended has ended."""
    room = Room()
    seen = [{}]

    async def look(run):
        while run.partial().ended is None or run.statistics().ended < 3:
            statistics, partial = run.statistics(), run.partial()
            assert statistics.total == 3
            assert statistics.running == room.inside.total()
            final = {name: state for name, state in partial.states.items() if state is OK}
            assert seen[-1].items() <= final.items()
            assert set(final) <= set(partial)
            seen.append(final)
            await take_steps(1)
            if len(seen) > 12:
                return

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(chain("p", room.stage(1), room.stage(1)).with_stage("x", room.stage(1)))
        nursery.start_soon(look, run)
        check_result(await run.result())
    assert run.partial().ok
    room.check()


@race_test
async def test_a_part_of_a_pipeline_with_an_output_that_is_given():
    room = Room()
    pipeline = chain("p", room.stage(1), tell_whom_it_saw, room.stage(1)).with_stage("x", room.stage(1))
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:

        async def run(**options):
            result = await supervisor.run(pipeline, **options)
            check_result(result)
            assert result.ok

        nursery.start_soon(lambda: run(targets=["b"], overrides={"a": {"given": True}}))
        nursery.start_soon(lambda: run(targets=["x"]))
    assert room.entered == {"x": 1}
    room.check()


@race_test
async def test_a_stage_that_runs_a_pipeline_of_its_own():
    """Under the same supervisor, and in its own time."""
    room = Room()
    async with Supervisor() as supervisor:

        async def nest(ctx):
            with room.enter(ctx.stage_name):
                inner = await supervisor.run(fork("inner", room.stage(1), room.stage(0)), {"run": ctx.stage_name})
                check_result(inner)
                assert inner.ok
            return {"ran": len(inner)}

        result = await supervisor.run(fork("p", nest, nest))
        check_result(result)
        assert [result.data(name)["ran"] for name in "ab"] == [2, 2]
    assert room.entered == {"a": 1, "b": 1, "aa": 1, "ab": 1, "ba": 1, "bb": 1}
    room.check()


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("way", ["completes", "fails fast", "is cancelled"])
@race_test
async def test_a_run_whose_stages_begin_in_chunks(way, chunk):
    """None is forgotten between two chunks, and none begins once the run stops."""
    room = Room()
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        with in_chunks_of(chunk):
            error = ConnectionError("no") if way == "fails fast" else None
            pipeline = fork("p", room.stage(1, error), room.stage(0), room.stage(1), room.stage(0))
            run = supervisor.start(pipeline.with_stage("x", room.stage(0), dependencies=("b", "d")))
            if way == "is cancelled":
                nursery.start_soon(stop_later, 1, room, run.cancel)
            result = await get_result(run)
    check_result(result)
    assert way != "completes" or result.ok
    assert set(room.entered) >= {name for name, state in result.states.items() if state is OK}
    room.check()
