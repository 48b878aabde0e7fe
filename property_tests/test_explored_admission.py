"""Runs that wait for a place under their supervisor, in every order that the race toolkit finds."""

from __future__ import annotations

import contextlib

import pytest
import trio

from stageflow_actors import OverloadedError, RunEnding, StageState, Supervisor
from stageflow_actors.testing import race_test

from .explored import FEW, Room, chain, check_result, take_steps

OK, CANCELLED = StageState.OK, StageState.CANCELLED


def start(supervisor, room, name, steps=1, **options):
    return supervisor.start(chain("p", room.stage(steps)), {"run": name}, **options)


@race_test(max_executions=FEW)
async def test_as_many_runs_go_on_as_may_and_each_gets_its_turn():
    room = Room(1)
    async with Supervisor(max_runs=1) as supervisor:
        runs = [start(supervisor, room, name) for name in "xyz"]
        for run in runs:
            result = await run.result()
            check_result(result)
            assert result.ok
    assert room.entered == {"xa": 1, "ya": 1, "za": 1}
    room.check()


@race_test
async def test_a_run_may_be_admitted_before_its_own_first_step():
    """Its place is free again by then, or not yet."""
    room = Room(1)

    async def come(supervisor, name, steps):
        await take_steps(steps)
        check_result(await start(supervisor, room, name).result())

    async with Supervisor(max_runs=1) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(come, supervisor, "x", 0)
        nursery.start_soon(come, supervisor, "y", 2)
    assert room.entered == {"xa": 1, "ya": 1}
    room.check()


@race_test(max_executions=FEW)
async def test_a_queued_run_that_is_cancelled_gives_up_its_place_in_the_queue():
    room = Room(1)

    async def cancel(run):
        await take_steps(2)
        run.cancel("enough")

    async with Supervisor(max_runs=1) as supervisor, trio.open_nursery() as nursery:
        runs = [start(supervisor, room, name) for name in "xyz"]
        nursery.start_soon(cancel, runs[1])
        results = [await run.result() for run in runs]
    for result in results:
        check_result(result)
    assert results[0].ok
    assert results[2].ok
    assert results[1].ok or results[1].ended.reason == "enough"
    assert not results[1].ok or room.entered["ya"] == 1
    room.check()


@race_test(max_executions=FEW)
async def test_callers_that_are_cancelled_while_they_wait_for_a_place_leave_it_to_others():
    room = Room(1)
    scopes = {name: trio.CancelScope() for name in "xyz"}
    results = {}

    async def run(supervisor, name, scope):
        with scope:
            results[name] = await supervisor.run(chain("p", room.stage(1)), {"run": name})

    async def cancel():
        await take_steps(2)
        scopes["y"].cancel()

    async with Supervisor(max_runs=1) as supervisor, trio.open_nursery() as nursery:
        for name, scope in scopes.items():
            nursery.start_soon(run, supervisor, name, scope)
        nursery.start_soon(cancel)
    assert results["x"].ok
    assert results["z"].ok
    assert ("y" in results) is not scopes["y"].cancelled_caught
    room.check()


@race_test(max_executions=FEW)
async def test_a_time_limit_counts_from_the_call():
    room = Room(1)
    async with Supervisor(max_runs=1) as supervisor:
        first, second = start(supervisor, room, "x"), start(supervisor, room, "y", timeout=1)
        result = await second.result()
        check_result(result)
        check_result(await first.result())
    assert result.ended.ending in {RunEnding.COMPLETED, RunEnding.TIMED_OUT}
    assert first.partial().ok
    room.check()


@race_test(max_executions=FEW)
async def test_the_run_that_has_waited_longest_is_dropped_and_everyone_is_told():
    """Also one that is cancelled before it learns of it."""
    room = Room(1)
    told = {}

    async def wait(name, run):
        try:
            told[name] = await run.result()
        except OverloadedError as error:
            told[name] = error

    async def cancel(run):
        await take_steps(1)
        run.cancel("enough")

    options = {"max_runs": 1, "max_queued": 1, "overflow": "drop_oldest"}
    async with Supervisor(**options) as supervisor, trio.open_nursery() as nursery:
        runs = {name: start(supervisor, room, name) for name in "xyz"}
        nursery.start_soon(cancel, runs["y"])
        for name, run in runs.items():
            nursery.start_soon(wait, name, run)
    assert told["x"].ok
    assert told["z"].ok
    assert isinstance(told["y"], OverloadedError) or told["y"].ended.reason == "enough"
    check_result(runs["y"].partial())
    assert room.entered == {"xa": 1, "za": 1}
    room.check()


@race_test
async def test_runs_that_are_refused_leave_no_trace():
    room = Room(1)
    refused = []

    async def come(supervisor, name):
        try:
            check_result(await supervisor.run(chain("p", room.stage(1)), {"run": name}))
        except OverloadedError as error:
            refused.append(error)

    async with Supervisor(max_runs=1, overflow="reject") as supervisor:
        async with trio.open_nursery() as nursery:
            for name in "xy":
                nursery.start_soon(come, supervisor, name)
        check_result(await supervisor.run(chain("p", room.stage(1)), {"run": "z"}))
    assert room.entered.total() + len(refused) == 3
    room.check()


@race_test(max_executions=FEW)
async def test_a_supervisor_that_is_left_with_an_error_ends_queued_runs_too():
    room = Room(1)
    with pytest.raises(ZeroDivisionError):
        async with Supervisor(max_runs=1) as supervisor:
            runs = [start(supervisor, room, name) for name in "xy"]
            await take_steps(2)
            room.is_closed = True
            raise ZeroDivisionError
    for run in runs:
        check_result(run.partial())
    room.check()


@race_test(max_executions=FEW)
async def test_a_waiter_that_gives_up_does_not_end_the_run():
    room = Room(1)

    async def give_up(run):
        with trio.CancelScope() as scope:
            scope.cancel()
            await run.result()

    async with Supervisor(max_runs=1) as supervisor, trio.open_nursery() as nursery:
        runs = [start(supervisor, room, name) for name in "xy"]
        for run in runs:
            nursery.start_soon(give_up, run)
            with contextlib.suppress(trio.TooSlowError):
                with trio.fail_after(1):
                    await run.result()
    assert [run.partial().ok for run in runs] == [True, True]
    room.check()
