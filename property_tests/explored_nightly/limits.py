"""Limiters that many want at once, with every policy, priorities, rates, and visitors who leave again."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from property_tests.explored import Room, check_idle, check_result, fork, take_steps
from property_tests.test_explored_limits import Desk
from stageflow_actors import Limiter, OverloadedError, Rate, StageState, Supervisor
from stageflow_actors.testing import race_test

POLICIES = ["reject", "drop_oldest", "drop_newest"]


@pytest.mark.parametrize("most", [1, 2])
@race_test
async def test_four_want_a_slot_and_one_is_sent_away(most):
    desk = Desk(Limiter(most))
    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(desk.visit, name)
        nursery.start_soon(desk.send_away, "c", 2)
    desk.check(*"abcd")


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("most", [0, 1])
@race_test
async def test_more_come_than_may_wait_and_two_are_sent_away(overflow, most):
    """Everybody is served, turned away or has left: once, and the limiter counts the same."""
    desk = Desk(Limiter(1, max_queued=most, overflow=overflow))
    async with trio.open_nursery() as nursery:
        for name in "abcd":
            nursery.start_soon(desk.visit, name)
        for name in "bc":
            nursery.start_soon(desk.send_away, name, 2)
    desk.check(*"abcd")
    statistics = desk.limiter.statistics()
    assert statistics.rejected + statistics.dropped >= len(desk.refused)
    assert statistics.admitted >= len(desk.served)
    await desk.visit("e")
    assert desk.served[-1] == "e"


@race_test
async def test_of_those_that_wait_the_most_urgent_is_first_whoever_leaves():
    """Nobody who came later, and is not more urgent, is served before one that waits."""
    desk = Desk(Limiter(1))

    async with trio.open_nursery() as nursery, desk.limiter.slot():
        for name, priority in (("low", 0), ("high", 2), ("middle", 1), ("top", 3)):
            nursery.start_soon(desk.visit, name, 1, priority)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(desk.send_away, "high", 1)
        await take_steps(2)
    order = [name for name in ("top", "high", "middle", "low") if name in desk.served]
    assert desk.served == order
    assert set(desk.served) >= {"top", "middle", "low"}
    desk.check("low", "middle", "high", "top")


@pytest.mark.parametrize("burst", [1, 2])
@race_test
async def test_a_rate_with_a_burst_and_a_visitor_who_leaves(burst):
    """In every window no more starts than the bucket holds, and its token is given back."""
    desk = Desk(Limiter(3, rate=Rate(1, per=1.0, burst=burst)))
    starts = []

    async def visit(name):
        with desk.scopes.setdefault(name, trio.CancelScope()):
            async with desk.limiter.slot():
                starts.append(trio.current_time())
                desk.served.append(name)
                await take_steps(1)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(visit, name)
        nursery.start_soon(desk.send_away, "b", 1)
    await visit("d")
    starts.sort()
    for first, last in zip(starts, starts[burst:], strict=False):
        assert last - first > 0.999, starts
    check_idle(desk.limiter)


@pytest.mark.parametrize("most", [1, 2])
@race_test
async def test_stages_with_a_limit_of_their_own_in_a_bounded_supervisor(most):
    """Of two runs: they never hold each other's slots for ever."""
    room = Room(most)
    one, other = Limiter(1), Limiter(2)
    async with Supervisor(max_running_stages=most) as supervisor:
        pipeline = fork("p", room.stage(0), room.stage(0))
        pipeline = pipeline.with_stage("x", room.stage(0), limiter=one).with_stage("y", room.stage(0), limiter=other)
        runs = [supervisor.start(pipeline, {"run": name}) for name in "uv"]
    for run in runs:
        check_result(run.partial())
        assert run.partial().ok
    check_idle(one, other)
    room.check()


@pytest.mark.parametrize("overflow", POLICIES)
@race_test
async def test_stages_and_tasks_want_the_slots_of_one_limiter(overflow):
    """A stage that is turned away fails; a task hears of it; each once."""
    limiter = Limiter(1, max_queued=1, overflow=overflow)
    desk = Desk(limiter)
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        pipeline = fork("p", desk.room.stage(1), desk.room.stage(0), limiter=limiter)
        run = supervisor.start(pipeline, {"run": "stage "}, continue_on_failure=True)
        nursery.start_soon(desk.visit, "x")
        nursery.start_soon(desk.visit, "y")
        nursery.start_soon(desk.send_away, "y", 3)
        result = await run.result()
    check_result(result)
    desk.check("x", "y")
    failed = [name for name, state in result.states.items() if state is StageState.FAILED]
    assert all(isinstance(result.failures[name].error, OverloadedError) for name in failed)
    statistics = limiter.statistics()
    assert statistics.rejected + statistics.dropped >= len(failed) + len(desk.refused)


@race_test
async def test_whoever_fails_inside_gives_its_slot_back():
    desk = Desk(Limiter(1))

    async def fail(name):
        try:
            async with desk.limiter.slot():
                with desk.room.enter(name):
                    await take_steps(1)
                    raise ConnectionError(name)
        except ConnectionError:
            desk.served.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, "a")
        nursery.start_soon(desk.visit, "b")
        nursery.start_soon(fail, "c")
    desk.check("a", "b", "c")
