"""Runs that are stopped in the middle of everything, from several sides, with stages that need time to leave."""

from __future__ import annotations

import contextlib

import pytest
import trio

from property_tests.explored import Room, chain, check_idle, check_result, fork, get_result, take_steps
from property_tests.test_explored_restarts import LATER, flaky
from property_tests.test_explored_stops import check_told_once, stop_later
from stageflow_actors import FanOutLimiterStage, Limiter, RunEnding, StageState, Supervisor
from stageflow_actors.testing import race_test

OK, CANCELLED, FAILED = StageState.OK, StageState.CANCELLED, StageState.FAILED


def tidy(room, entered, left, steps=1):
    """Return a stage class whose instances have to be left if they were entered, which takes time."""

    class Tidy:
        async def __aenter__(self):
            await take_steps(1)
            entered.append(True)

        async def __aexit__(self, *exc):
            with trio.CancelScope(shield=True):
                await take_steps(steps)
            left.append(True)

        async def execute(self, ctx):
            with room.enter(ctx.stage_name):
                await take_steps(1)

    return Tidy


@pytest.mark.parametrize("steps", [1, 4, 7])
@race_test
async def test_a_run_with_everything_in_it_is_cancelled(steps):
    """A limit, a restart, items and a chain, in whatever state they are."""
    room = Room()
    limiter = Limiter(1)
    items = FanOutLimiterStage(room.stage(0), items=range(2), limiter=limiter)
    pipeline = chain("p", room.stage(1), items).with_stage("x", flaky(room), restart=LATER, limiter=limiter)
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        events = run.events()
        nursery.start_soon(stop_later, steps, room, run.cancel)
        result = await run.result()
    check_result(result)
    told = [event async for event in events if getattr(event, "item", None) is None]
    check_told_once(told, result)
    assert set(result.states.values()) <= {OK, CANCELLED}
    check_idle(limiter)
    room.check()


@pytest.mark.parametrize("way", ["cancel", "scope", "failure", "timeout"])
@race_test
async def test_what_was_entered_is_left_however_the_run_ends(way):
    room, entered, left = Room(), [], []
    scope = trio.CancelScope()
    pipeline = fork("p", *[tidy(room, entered, left)] * 2)
    if way == "failure":
        pipeline = pipeline.with_stage("x", room.stage(1, ConnectionError()))
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(pipeline, timeout=1 if way == "timeout" else None)
        if way == "cancel":
            nursery.start_soon(stop_later, 2, room, run.cancel)
        if way == "scope":
            nursery.start_soon(stop_later, 2, Room(), scope.cancel)
        with scope:
            await get_result(run)
        result = await get_result(run)
        assert len(left) == len(entered)
    check_result(result)
    assert len(left) == len(entered)
    room.check()


@race_test
async def test_a_caller_that_has_no_more_time():
    """Its run ends with it, and neither a slot nor a stage is left; also where the time is up before the first step."""
    room = Room()
    limiter = Limiter(1)
    async with Supervisor() as supervisor:
        with trio.move_on_after(1) as scope:
            result = await supervisor.run(chain("p", room.stage(1), room.stage(1), limiter=limiter))
            check_result(result)
            assert result.ok
        assert room.inside.total() == 0
        room.is_closed = scope.cancelled_caught
    check_idle(limiter)
    assert scope.cancelled_caught or room.entered == {"a": 1, "b": 1}
    room.check()


@race_test
async def test_a_stage_of_one_run_cancels_another():
    room = Room()
    runs = {}

    async def cancel(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(1)
            runs["other"].cancel("by a stage")

    async with Supervisor() as supervisor:
        runs["other"] = supervisor.start(chain("other", room.stage(1), room.stage(1)), {"run": "o"})
        runs["this"] = supervisor.start(chain("p", cancel, room.stage(0)))
        results = {name: await run.result() for name, run in runs.items()}
    for result in results.values():
        check_result(result)
    assert results["this"].ok
    assert results["other"].ok or results["other"].ended.reason == "by a stage"
    room.check()


@race_test
async def test_a_stage_cancels_its_own_run_and_goes_on():
    room = Room()
    runs = []

    async def cancel(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(1)
            runs[0].cancel("myself")
            room.is_closed = True
            with trio.CancelScope(shield=True):
                await take_steps(1)
            return {"went": "on"}

    async with Supervisor() as supervisor:
        runs.append(supervisor.start(chain("p", cancel, room.stage(0)).with_stage("x", room.stage(0))))
        result = await runs[0].result()
    check_result(result)
    assert result.ended.ending is RunEnding.CANCELLED
    assert result.states["a"] in {OK, CANCELLED}
    assert result.states["b"] is CANCELLED
    room.check()


@race_test
async def test_three_runs_end_in_three_ways_at_the_same_time():
    room = Room()
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        good = supervisor.start(chain("good", room.stage(1)), {"run": "g"})
        bad = supervisor.start(chain("bad", room.stage(1, ConnectionError("no"))), {"run": "b"})
        cancelled = supervisor.start(chain("cancelled", room.stage(1)), {"run": "c"})
        nursery.start_soon(stop_later, 1, Room(), cancelled.cancel)
        results = [await get_result(run) for run in (good, bad, cancelled)]
    for result in results:
        check_result(result)
    assert [result.ended.ending for result in results[:2]] == [RunEnding.COMPLETED, RunEnding.FAILED]
    assert results[2].ended.ending in {RunEnding.COMPLETED, RunEnding.CANCELLED}
    room.check()


@pytest.mark.parametrize("way", ["normally", "error", "cancelled"])
@race_test
async def test_a_supervisor_is_left_in_the_middle(way):
    """With a run that goes on, one that is queued, and one that another task starts."""
    room = Room()

    async def come(supervisor):
        with contextlib.suppress(RuntimeError):  # it has been left
            check_result(await supervisor.run(chain("p", room.stage(1)), {"run": "z"}))

    runs = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, contextlib.suppress(ZeroDivisionError):
            async with Supervisor(max_runs=1) as supervisor:
                runs += [supervisor.start(chain("p", room.stage(1), room.stage(0)), {"run": name}) for name in "xy"]
                nursery.start_soon(come, supervisor)
                await take_steps(1)
                if way == "error":
                    raise ZeroDivisionError
                if way == "cancelled":
                    scope.cancel()
        assert room.inside.total() == 0
        room.is_closed = True
    for run in runs:
        check_result(run.partial())
        assert way != "normally" or run.partial().ok
    room.check()


@race_test
async def test_a_cancellation_a_timeout_and_a_failure_at_the_same_moment():
    """One of them is what ended it, and it is told once."""
    room = Room()
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(fork("p", room.stage(1), room.stage(1, ConnectionError("no"))), timeout=1)
        events = run.events()
        nursery.start_soon(stop_later, 1, room, lambda: run.cancel("enough"))
        result = await get_result(run)
    check_result(result)
    check_told_once([event async for event in events], result)
    assert result.ended.ending in {RunEnding.FAILED, RunEnding.CANCELLED, RunEnding.TIMED_OUT}
    assert (result.states["b"] is FAILED) or result.ended.ending is not RunEnding.FAILED
    room.check()
