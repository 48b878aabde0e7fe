"""Faults at any step of runs, fan-outs and limiters: what fails is said once, and nothing is left behind."""

from __future__ import annotations

import trio

from property_tests.explored import Room, chain, check_idle, check_result, fork, get_result
from property_tests.residents import MANY, all_answer, crash, spawn
from property_tests.test_explored_limits import Desk
from property_tests.test_explored_restarts import LATER, flaky
from stageflow_actors import (
    FanOutLimiterStage,
    Intensity,
    Limiter,
    PipelineFailedError,
    RunEnding,
    StageState,
    Supervisor,
)
from stageflow_actors.errors import InjectedError
from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, race_test

from .world import until

OK, FAILED = StageState.OK, StageState.FAILED


@race_test(faults=[Crash("a"), Crash("b"), Crash("x")])
async def test_stages_of_an_isolating_run_fail_where_they_wait():
    room = Room()
    pipeline = chain("p", room.stage(1), room.stage(1)).with_stage("x", room.stage(1))
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        result = await run.result()
    check_result(result)
    assert {type(failure.error) for failure in result.failures.values()} <= {InjectedError}
    assert (result.states["a"] is OK) or result.states["b"] is StageState.ISOLATED
    assert result.ended.ending is RunEnding.COMPLETED
    room.check()


@race_test(faults=[Crash("a"), Crash("b")])
async def test_stages_that_fail_where_they_wait_are_run_again():
    room = Room()
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", room.stage(1), room.stage(1), restart=LATER))
    check_result(result)
    assert result.ok
    assert all(1 <= room.entered[name] <= 2 for name in "ab")
    room.check()


@race_test(faults=[Cancel()])
async def test_a_program_with_runs_and_a_queue_is_cancelled_at_any_step():
    room = Room(1)
    runs = []
    try:
        async with Supervisor(max_runs=1) as supervisor:
            runs += [supervisor.start(chain("p", room.stage(1), room.stage(0)), {"run": name}) for name in "xy"]
            for run in runs:
                await run.result()
    finally:
        for run in runs:
            check_result(run.partial())
        room.check()


@race_test(faults=[Cancel()])
async def test_a_program_with_items_and_restarts_is_cancelled_at_any_step():
    room = Room(1)
    limiter = Limiter(1)
    try:
        stage = FanOutLimiterStage(flaky(room, steps=0), items=range(2), limiter=limiter, restart=LATER)
        async with Supervisor() as supervisor:
            check_result(await supervisor.run(fork("p", stage)))
    finally:
        check_idle(limiter)
        room.check()


@race_test(faults=[Crash("*"), Cancel()])
async def test_visitors_of_a_limiter_fail_or_are_cancelled():
    desk = Desk(Limiter(1))
    try:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(desk.visit, name)
    except* InjectedError:
        pass
    finally:
        check_idle(desk.limiter)
        desk.room.check()


@race_test(faults=[ClockJump(5), Delay("*", seconds=3)])
async def test_a_run_with_timeouts_on_a_machine_that_sleeps():
    room = Room()

    async def sleep(ctx):
        with room.enter(ctx.stage_name):
            await trio.sleep(1)

    async with Supervisor() as supervisor:
        run = supervisor.start(
            fork("p", sleep, timeout=2, restart=LATER).with_stage("x", room.stage(1)),
            continue_on_failure=True,
            timeout=20,
        )
        result = await run.result()
    check_result(result)
    assert result.ended.ending in {RunEnding.COMPLETED, RunEnding.TIMED_OUT}
    assert result.states["a"] is not OK or result.attempts["a"][-1].error is None
    room.check()


@race_test(faults=[Crash("a"), Cancel()])
async def test_a_run_that_fails_fast_and_a_program_that_is_cancelled():
    room = Room()
    try:
        async with Supervisor() as supervisor:
            run = supervisor.start(chain("p", room.stage(1), room.stage(1)).with_stage("x", room.stage(1)))
            await get_result(run)
    except PipelineFailedError as error:
        check_result(error.result)
    finally:
        check_result(run.partial())
        room.check()


@race_test(faults=[Crash("a"), Crash("b")])
async def test_actors_fail_where_they_start_or_end():
    """Wherever it strikes, both are up again, and none is there twice."""
    room = Room()
    refs = []
    async with Supervisor(scope="one_for_all", intensity=Intensity(1000)) as supervisor:
        refs += [await spawn(supervisor, room, name, stop=1) for name in "ab"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, refs[0])
        await all_answer(*refs)
        await until(lambda: room.inside == {"a": 1, "b": 1})
    assert supervisor.ledger.balanced
    room.check()


@race_test(faults=[Cancel()])
async def test_a_tree_is_cancelled_at_any_step():
    room = Room()
    top = Supervisor(intensity=MANY)
    try:
        async with top:
            below = await top.spawn_supervisor(Supervisor(), name="s")
            a = await spawn(below, room, "a", stop=1)
            b = await spawn(top, room, "b", depends_on="s")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash, a)
                nursery.start_soon(crash, b)
            await all_answer(a, b)
    finally:
        assert room.inside.total() == 0
        assert top.ledger.balanced
        room.check()
