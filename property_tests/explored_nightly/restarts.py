"""Restarts against everything that may happen to a run meanwhile: limits, timeouts, cancellations, other failures."""

from __future__ import annotations

import itertools

import pytest
import trio

from property_tests.explored import Room, chain, check_idle, check_result, fork, get_result, take_steps
from property_tests.test_explored_restarts import AT_ONCE, LATER, flaky
from stageflow_actors import (
    Backoff,
    Intensity,
    Limiter,
    Rate,
    Restart,
    RunEnding,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
    Trigger,
)
from stageflow_actors.errors import RestartIntensityError
from stageflow_actors.events import StageCrashed, StageEnded, StageRestarting, StageStarted
from stageflow_actors.testing import race_test

OK, CANCELLED, FAILED = StageState.OK, StageState.CANCELLED, StageState.FAILED
GROWS = Restart(max_restarts=3, backoff=Backoff(initial=1.0, factor=2.0, jitter=0.0))


@pytest.mark.parametrize("restart", [AT_ONCE, LATER, GROWS], ids=["at once", "later", "longer"])
@race_test
async def test_what_happens_to_an_attempt_is_told_in_order(restart):
    """Begun, crashed, restarting; begun again; ended once."""
    room = Room()
    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", flaky(room, 3, 0), flaky(room, 2, 1), restart=restart))
        events = run.events()
        result = await run.result()
    check_result(result)
    told = [event async for event in events]
    for name, crashes in (("a", 2), ("b", 1)):
        kinds = [type(event) for event in told if getattr(event, "stage", None) == name]
        assert kinds == [*[StageStarted, StageCrashed, StageRestarting] * crashes, StageStarted, StageEnded]
    room.check()


@race_test
async def test_two_that_restart_behind_a_limit_of_one():
    room = Room(1)
    limiter = Limiter(1)
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", flaky(room), flaky(room), limiter=limiter, restart=LATER))
    check_result(result)
    assert result.ok
    assert room.entered == {"a": 2, "b": 2}
    check_idle(limiter)
    room.check()


@race_test
async def test_restarts_take_their_tokens_as_others_do():
    """Never more starts than the rate allows, first attempts and later ones together."""
    starts = []
    limiter = Limiter(2, rate=Rate(1, per=1.0, burst=1))

    async def fail_once(ctx):
        starts.append(trio.current_time())
        await take_steps(1)
        if ctx.attempt == 1:
            raise ConnectionError

    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", fail_once, fail_once, limiter=limiter, restart=AT_ONCE))
    check_result(result)
    assert len(starts) == 4
    assert all(later - earlier > 0.999 for earlier, later in itertools.pairwise(sorted(starts))), starts
    check_idle(limiter)


@race_test
async def test_the_run_times_out_while_a_stage_backs_off():
    room = Room()
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", flaky(room, 3), room.stage(1), restart=GROWS), timeout=2)
    check_result(result)
    assert result.ended.ending in {RunEnding.COMPLETED, RunEnding.TIMED_OUT}
    assert result.ok is (result.ended.ending is RunEnding.COMPLETED)
    assert room.entered["a"] <= 3
    room.check()


@race_test
async def test_an_attempt_times_out_while_the_run_is_cancelled():
    room = Room()

    async def sleep(ctx):
        with room.enter(ctx.stage_name):
            await trio.sleep(2)

    async def cancel(run):
        await trio.sleep(1)
        run.cancel("enough")

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(fork("p", sleep, timeout=1, restart=AT_ONCE), continue_on_failure=True)
        nursery.start_soon(cancel, run)
        result = await run.result()
    check_result(result)
    assert result.states["a"] in {OK, CANCELLED, FAILED}
    assert room.entered["a"] <= 3
    errors = [attempt.error for attempt in result.attempts.get("a", ()) if attempt.error is not None]
    assert all(isinstance(error, (StageTimeoutError, trio.Cancelled)) for error in errors)
    room.check()


@race_test
async def test_what_is_isolated_by_a_stage_that_gave_up():
    """Its dependents are decided once, when its last attempt is over."""
    room = Room()
    pipeline = chain("p", flaky(room, 9, 0), room.stage(0), restart=AT_ONCE)
    pipeline = pipeline.with_stage("anyway", room.stage(0), dependencies="a", trigger=Trigger.ALL_DONE)
    pipeline = pipeline.with_stage("x", room.stage(2))
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        result = await run.result()
    check_result(result)
    assert result.states == {"a": FAILED, "b": StageState.ISOLATED, "anyway": OK, "x": OK}
    assert room.entered == {"a": 3, "anyway": 1, "x": 1}
    room.check()


@pytest.mark.parametrize("most", [1, 2, 3])
@race_test
async def test_runs_do_not_spend_each_others_intensity(most):
    room = Room()

    async def fail(ctx):
        who = f"{ctx.snapshot.data['run']}{ctx.stage_name}"
        with room.enter(who):
            await take_steps(1)
            raise ConnectionError

    async with Supervisor() as supervisor:
        options = {"continue_on_failure": True, "intensity": Intensity(most)}
        pipeline = fork("p", fail, fail, restart=AT_ONCE)
        runs = {name: supervisor.start(pipeline, {"run": name}, **options) for name in "xy"}
        results = {name: await run.result() for name, run in runs.items()}
    for name, result in results.items():
        check_result(result)
        assert sum(count for who, count in room.entered.items() if who[0] == name) == 2 + most
        assert RestartIntensityError in {type(failure.error) for failure in result.failures.values()}
    room.check()


@race_test
async def test_retry_after_some_time_against_a_failure_elsewhere():
    room = Room()

    async def retry(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(1)
            return StageOutput.retry("busy", after=1.0) if ctx.attempt == 1 else None

    async def fail(_ctx):
        await trio.sleep(1)
        room.is_closed = True
        raise ZeroDivisionError

    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", retry, restart=LATER).with_stage("x", fail))
        result = await get_result(run)
    check_result(result)
    assert result.ended.ending is RunEnding.FAILED
    assert result.states["a"] in {OK, CANCELLED}
    room.check()
