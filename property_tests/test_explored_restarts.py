"""Restarts in every order that the race toolkit finds: one attempt after the other, none too many, none too late."""

from __future__ import annotations

import trio

from stageflow_actors import (
    Backoff,
    FanOutLimiterStage,
    Intensity,
    Limiter,
    Restart,
    RunEnding,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
)
from stageflow_actors.errors import RestartIntensityError
from stageflow_actors.testing import race_test

from .explored import FEW, Room, chain, check_idle, check_result, fork, get_result, take_steps

OK, CANCELLED, FAILED = StageState.OK, StageState.CANCELLED, StageState.FAILED
AT_ONCE = Restart(max_restarts=2, backoff=Backoff(initial=0.0))
LATER = Restart(max_restarts=2, backoff=Backoff(initial=1.0, jitter=0.0))


def flaky(room, heals_at=2, steps=1):
    """Return a stage that fails until this attempt."""

    async def run(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(steps)
            if ctx.attempt < heals_at:
                raise ConnectionError(ctx.attempt)
            return {"attempt": ctx.attempt}

    return run


@race_test
async def test_a_stage_is_run_again_once_a_failure():
    """Whatever others do at the time."""
    room = Room()
    pipeline = chain("p", room.stage(4), room.stage(1)).with_stage("x", flaky(room), restart=LATER)
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline)
    check_result(result)
    assert result.data("x")["attempt"] == 2
    assert room.entered == {"a": 1, "b": 1, "x": 2}
    room.check()


@race_test
async def test_stages_that_restart_at_the_same_time_do_so_by_themselves():
    room = Room()
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", flaky(room, 3, 0), flaky(room, 2, 0), restart=AT_ONCE))
    check_result(result)
    assert room.entered == {"a": 3, "b": 2}
    assert [len(result.attempts[name]) for name in "ab"] == [3, 2]
    room.check()


@race_test(max_executions=FEW)
async def test_a_run_that_is_cancelled_restarts_nothing():
    """Whether the stage runs, backs off or is about to be run again."""
    room = Room()

    async def cancel(run):
        await take_steps(6)
        run.cancel()
        room.is_closed = True

    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(fork("p", flaky(room, 3), restart=LATER), continue_on_failure=True)
        nursery.start_soon(cancel, run)
        result = await run.result()
    check_result(result)
    assert result.states["a"] in {OK, CANCELLED}
    assert result.ledger.accepted <= 1
    room.check()


@race_test(max_executions=FEW)
async def test_a_failure_elsewhere_ends_a_stage_that_backs_off():
    room = Room()

    async def fail(_ctx):
        await trio.sleep(1)
        room.is_closed = True
        raise ZeroDivisionError

    pipeline = fork("p", flaky(room)).with_stage("x", fail)
    pipeline = pipeline.with_stage("y", flaky(room), restart=LATER)
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        result = await get_result(run)
    check_result(result)
    assert result.ended.ending is RunEnding.FAILED
    assert result.states["y"] in {OK, CANCELLED}
    room.check()


@race_test
async def test_a_stage_that_backs_off_holds_no_slot():
    room = Room(1)
    limiter = Limiter(1)
    pipeline = fork("p", flaky(room, steps=0), limiter=limiter, restart=LATER)
    pipeline = pipeline.with_stage("x", room.stage(1), limiter=limiter)
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline)
    check_result(result)
    assert result.ok
    assert room.entered == {"a": 2, "x": 1}
    check_idle(limiter)
    room.check()


@race_test
async def test_the_intensity_of_a_run_is_spent_exactly():
    """Which of the stages are run again is left to the schedule; how many is not."""
    room = Room()
    async with Supervisor() as supervisor:
        run = supervisor.start(
            fork("p", flaky(room, 9, 0), flaky(room, 9, 0), restart=AT_ONCE),
            continue_on_failure=True,
            intensity=Intensity(3),
        )
        result = await run.result()
    check_result(result)
    assert room.entered.total() == 2 + 3
    assert {type(failure.error) for failure in result.failures.values()} == {RestartIntensityError}
    room.check()


@race_test
async def test_an_attempt_that_takes_too_long_is_over_when_the_next_begins():
    room = Room()

    async def sleep(ctx):
        with room.enter(ctx.stage_name):
            await trio.sleep(1)

    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", sleep, timeout=1, restart=LATER), continue_on_failure=True)
        result = await run.result()
    check_result(result)
    attempts = result.attempts["a"]
    assert len(attempts) == room.entered["a"] <= 3
    assert all(isinstance(attempt.error, StageTimeoutError) for attempt in attempts if attempt.error is not None)
    assert result.states["a"] is (OK if attempts[-1].error is None else FAILED)
    room.check()


@race_test(max_executions=FEW)
async def test_retry_and_what_raises_share_a_budget():
    room = Room()

    async def ask(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(1)
            if ctx.attempt == 1:
                raise ConnectionError
            return StageOutput.retry("again", after=1.0)

    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", ask, room.stage(2), restart=AT_ONCE), continue_on_failure=True)
        result = await run.result()
    check_result(result)
    assert room.entered == {"a": 3, "b": 1}
    assert result.states == {"a": FAILED, "b": OK}
    room.check()


@race_test(max_executions=FEW)
async def test_items_are_run_again_one_attempt_after_the_other():
    room = Room(2)
    limiter = Limiter(2)
    stage = FanOutLimiterStage(flaky(room, steps=0), items=range(3), limiter=limiter, restart=LATER)
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", stage))
    check_result(result)
    assert [each["attempt"] for each in result.data("a")["results"]] == [2, 2, 2]
    assert room.entered == {"a[0]": 2, "a[1]": 2, "a[2]": 2}
    check_idle(limiter)
    room.check()
