"""Runs that end before their time, at any moment: nothing begins any more, nothing is left, everything is told once."""

from __future__ import annotations

import contextlib

import pytest
import trio

from stageflow_actors import PipelineFailedError, RunEnding, StageOutput, StageState, Supervisor, Trigger
from stageflow_actors.events import RunEnded, RunStopping, StageEnded, StageStarted
from stageflow_actors.testing import race_test

from .explored import FEW, Room, chain, check_result, fork, get_result, take_steps

OK, CANCELLED, FAILED, ISOLATED = StageState.OK, StageState.CANCELLED, StageState.FAILED, StageState.ISOLATED


async def stop_later(steps, room, stop):
    """Stop a run after so many steps, from when on nobody may enter the room."""
    await take_steps(steps)
    stop()
    room.is_closed = True


def check_told_once(events, result):
    """Every stage has one end, the one that it has; and none starts once the run stops."""
    ended = {event.stage: event.state for event in events if isinstance(event, StageEnded)}
    assert ended == result.states
    assert len(ended) == sum(isinstance(event, StageEnded) for event in events)
    stops = [number for number, event in enumerate(events) if isinstance(event, RunStopping)]
    assert len(stops) == (result.ended.ending is not RunEnding.COMPLETED)
    assert not [event for number in stops for event in events[number:] if isinstance(event, StageStarted)]
    assert [type(event) for event in events].index(RunEnded) == len(events) - 1


@race_test
async def test_a_caller_that_is_cancelled_ends_its_run():
    room = Room()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        nursery.start_soon(stop_later, 1, room, scope.cancel)
        with scope:
            result = await supervisor.run(chain("p", room.stage(1), room.stage(1)))
            check_result(result)
            assert result.ok
    room.check()


@race_test
async def test_a_run_that_is_cancelled_ends():
    """One whose stages have all ended cannot be cancelled any more."""
    room = Room()
    has_ended = []

    def cancel(run):
        has_ended.append(run.statistics().ended == run.statistics().total)
        run.cancel("enough")

    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(chain("p", room.stage(1), room.stage(1)))
        events = run.events()
        nursery.start_soon(stop_later, 1, room, lambda: cancel(run))
        result = await run.result()
    check_result(result)
    check_told_once([event async for event in events], result)
    assert result.ended.ending is (RunEnding.COMPLETED if has_ended[0] else RunEnding.CANCELLED)
    room.check()


@race_test
async def test_a_run_that_is_cancelled_before_its_first_step_does_not_begin():
    room = Room()
    pipeline = chain("p", room.stage(1), room.stage(1))
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(pipeline, overrides={"a": {}})
        nursery.start_soon(stop_later, 5, room, run.cancel)
        result = await run.result()
    check_result(result)
    began = result.states["a"] is OK
    assert result.states["b"] in ({OK, CANCELLED} if began else {CANCELLED})
    room.check()


@race_test
async def test_the_first_failure_ends_a_run_that_fails_fast():
    """At any moment: while others are about to begin, run, or end."""
    room = Room()

    async def fail(ctx):
        await take_steps(5)
        room.is_closed = True
        raise ConnectionError(ctx.stage_name)

    pipeline = chain("p", room.stage(1), room.stage(1)).with_stage("x", fail)
    pipeline = pipeline.with_stage("after", room.stage(), dependencies=("x", "b"))
    pipeline = pipeline.with_stage("anyway", room.stage(), dependencies="x", trigger=Trigger.ALL_DONE)
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        events = run.events()
        with pytest.raises(PipelineFailedError) as caught:
            await run.result()
    result = caught.value.result
    check_result(result)
    check_told_once([event async for event in events], result)
    assert list(caught.value.failures) == ["x"]
    assert (result.states["after"], result.states["anyway"]) == (ISOLATED, CANCELLED)
    assert {result.states["a"], result.states["b"]} <= {OK, CANCELLED}
    room.check()


@race_test
async def test_two_failures_at_the_same_moment_are_both_told():
    room = Room()
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(fork("p", room.stage(1, ConnectionError(1)), room.stage(1, ConnectionError(2))))
    result = caught.value.result
    check_result(result)
    assert {FAILED} <= set(result.states.values()) <= {FAILED, CANCELLED}
    assert list(result.failures) == [name for name, state in result.states.items() if state is FAILED]
    assert list(caught.value.__cause__.exceptions) == [failure.error for failure in result.failures.values()]
    room.check()


@race_test(max_executions=FEW)
async def test_a_reply_of_cancel_ends_the_run():
    room = Room()
    pipeline = fork("p", room.stage(1, returned=StageOutput.cancel("enough")), room.stage(1), room.stage(1))
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline)
    check_result(result)
    assert result.ended.reason == "stage 'a': enough"
    assert result.states["a"] is CANCELLED
    assert {result.states["b"], result.states["c"]} <= {OK, CANCELLED}
    room.check()


@race_test
async def test_a_run_that_takes_too_long_ends_with_what_had_completed():
    """The time passes when it likes."""
    room = Room()

    async def sleep(ctx):
        with room.enter(ctx.stage_name):
            await trio.sleep(1)

    async with Supervisor() as supervisor:
        result = await supervisor.run(chain("p", room.stage(1), sleep, room.stage(1)), timeout=1)
    check_result(result)
    assert result.ended.ending in {RunEnding.COMPLETED, RunEnding.TIMED_OUT}
    assert result.ok is (result.ended.ending is RunEnding.COMPLETED)
    room.check()


@race_test(max_executions=FEW)
async def test_a_supervisor_that_is_left_with_an_error_ends_its_runs():
    """Also those of other tasks; and what is left is the error itself."""
    room = Room()

    async def run(supervisor):
        with contextlib.suppress(RuntimeError):  # it is being left
            check_result(await supervisor.run(chain("p", room.stage(1), room.stage(1)), {"run": "other"}))

    async with trio.open_nursery() as nursery:
        with pytest.raises(ZeroDivisionError):
            async with Supervisor() as supervisor:
                started = supervisor.start(chain("p", room.stage(1), room.stage(1)))
                nursery.start_soon(run, supervisor)
                await take_steps(2)
                room.is_closed = True
                raise ZeroDivisionError
        assert room.inside.total() == 0
        check_result(started.partial())
    room.check()


@race_test(max_executions=FEW)
async def test_a_supervisor_that_is_cancelled_ends_its_runs():
    room = Room()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_later, 2, room, scope.cancel)
        with scope:
            async with Supervisor() as supervisor:
                run = supervisor.start(chain("p", room.stage(1), room.stage(1)))
        check_result(run.partial())
        assert scope.cancelled_caught or run.partial().ok
        assert room.inside.total() == 0
    room.check()


@race_test(max_executions=FEW)
async def test_a_failure_that_nobody_awaited_is_raised_once():
    async def wait(run, told):
        with trio.move_on_after(1):
            try:
                await run.result()
            except PipelineFailedError as error:
                told.append(error)

    told = []
    async with trio.open_nursery() as nursery:
        try:
            async with Supervisor() as supervisor:
                run = supervisor.start(fork("p", Room().stage(1, ConnectionError("no"))))
                nursery.start_soon(wait, run, told)
        except PipelineFailedError as error:
            told.append(error)
    assert told
    assert {error.result is run.partial() for error in told} == {True}


@race_test(max_executions=FEW)
async def test_stops_from_two_sides_are_one():
    room = Room()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        with scope:
            run = supervisor.start(fork("p", room.stage(1), room.stage(1, ConnectionError("no"))))
            events = run.events()
            nursery.start_soon(stop_later, 1, room, run.cancel)
            nursery.start_soon(stop_later, 1, Room(), scope.cancel)
            await get_result(run)
        result = await get_result(run)
    check_result(result)
    check_told_once([event async for event in events], result)
    assert result.ended.ending in {RunEnding.FAILED, RunEnding.CANCELLED}
    room.check()
