"""Runs that want a place: with every policy, cancelled, impatient, and below a supervisor that is left."""

from __future__ import annotations

import contextlib

import pytest
import trio

from property_tests.explored import Room, chain, check_result, take_steps
from property_tests.test_explored_admission import start
from stageflow_actors import OverloadedError, RunEnding, Supervisor
from stageflow_actors.testing import race_test

POLICIES = ["wait", "reject", "drop_oldest", "drop_newest"]


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("most", [0, 1])
@race_test
async def test_three_come_and_there_is_room_for_one(overflow, most):
    """Each run is done or turned away, once, and one that was turned away has left no trace."""
    room = Room(1)
    ended = {}

    async def come(supervisor, name):
        try:
            ended[name] = await supervisor.run(chain("p", room.stage(1)), {"run": name})
        except OverloadedError as error:
            ended[name] = error

    async with Supervisor(max_runs=1, max_queued=most, overflow=overflow) as supervisor:
        async with trio.open_nursery() as nursery:
            for name in "xyz":
                nursery.start_soon(come, supervisor, name)
        await come(supervisor, "last")
        assert supervisor.statistics().runs == 0
    done = {name for name, end in ended.items() if not isinstance(end, OverloadedError)}
    for name in done:
        check_result(ended[name])
        assert ended[name].ok
    assert room.entered == {f"{name}a": 1 for name in done}
    assert set(ended) == {"x", "y", "z", "last"}
    assert overflow != "wait" or len(done) == 4
    assert "last" in done
    room.check()


@pytest.mark.parametrize("most", [1, 2])
@race_test
async def test_places_are_given_in_the_order_of_arrival(most):
    room = Room(most)
    began = []

    async def note(ctx):
        began.append(ctx.snapshot.data["run"])
        with room.enter(ctx.snapshot.data["run"]):
            await take_steps(1)

    async with Supervisor(max_runs=most) as supervisor:
        runs = [supervisor.start(chain("p", note), {"run": name}) for name in "wxyz"]
        for run in runs:
            check_result(await run.result())
    assert sorted(began) == list("wxyz")
    assert most > 1 or began == list("wxyz")
    room.check()


@race_test
async def test_two_that_are_queued_are_cancelled_and_a_third_takes_their_place():
    room = Room(1)

    async def cancel(run):
        await take_steps(1)
        run.cancel("enough")

    async with Supervisor(max_runs=1) as supervisor, trio.open_nursery() as nursery:
        runs = {name: start(supervisor, room, name) for name in "wxyz"}
        for name in "xy":
            nursery.start_soon(cancel, runs[name])
        results = {name: await run.result() for name, run in runs.items()}
    for result in results.values():
        check_result(result)
    assert results["w"].ok
    assert results["z"].ok
    assert all(results[name].ok or results[name].ended.ending is RunEnding.CANCELLED for name in "xy")
    assert set(room.entered) <= {"wa", "xa", "ya", "za"}
    room.check()


@race_test
async def test_callers_without_patience_queue_for_one_place():
    room = Room(1)
    ended = {}

    async def come(supervisor, name):
        with trio.move_on_after(1) as scope:
            ended[name] = await supervisor.run(chain("p", room.stage(1)), {"run": name})
        assert (name in ended) is not scope.cancelled_caught

    async with Supervisor(max_runs=1) as supervisor:
        async with trio.open_nursery() as nursery:
            for name in "xy":
                nursery.start_soon(come, supervisor, name)
        result = await supervisor.run(chain("p", room.stage(0)), {"run": "z"})
        check_result(result)
        assert result.ok
    room.check()


@pytest.mark.parametrize("way", ["error", "cancelled"])
@race_test
async def test_a_supervisor_is_left_while_callers_of_other_tasks_queue(way):
    """They are cancelled or refused; nobody waits for ever, and nothing begins any more."""
    room = Room(1)
    ended = []

    async def come(supervisor, name):
        with contextlib.suppress(RuntimeError):
            result = await supervisor.run(chain("p", room.stage(1)), {"run": name})
            check_result(result)
            ended.append(result)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, contextlib.suppress(ZeroDivisionError):
            async with Supervisor(max_runs=1) as supervisor:
                for name in "xyz":
                    nursery.start_soon(come, supervisor, name)
                await take_steps(2)
                if way == "error":
                    room.is_closed = True  # at once; one that is cancelled learns of it when it is its turn
                    raise ZeroDivisionError
                scope.cancel()
        assert room.inside.total() == 0
        room.is_closed = True
    assert all(result.ended.ending in {RunEnding.COMPLETED, RunEnding.CANCELLED} for result in ended)
    room.check()


@race_test
async def test_a_stage_that_starts_another_run_under_a_bound():
    """It does not wait for it: its own place is given back, and then the other begins."""
    room = Room(1)
    runs = []

    async with Supervisor(max_runs=1) as supervisor:

        async def spawn(ctx):
            with room.enter(ctx.stage_name):
                await take_steps(1)
                runs.append(start(supervisor, room, "inner "))

        result = await supervisor.run(chain("p", spawn))
        check_result(result)
        check_result(await runs[0].result())
        assert runs[0].partial().ok
    assert room.entered == {"a": 1, "inner a": 1}
    room.check()
