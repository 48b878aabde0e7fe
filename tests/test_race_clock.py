"""The clock of an explored program: it starts at 0, jumps to deadlines, and when it does is a choice."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing
from race_cases import collect, explore_all, find, side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.testing import explore, replay
from stageflow_actors.testing._search import STRATEGIES


async def result_or_timeout():
    """A result that takes two checkpoints, and a deadline."""
    with trio.move_on_after(1) as scope:
        await checkpoint()
        await checkpoint()
    return scope.cancelled_caught


def test_a_deadline_may_pass_before_work_that_takes_no_time():
    assert sorted(collect(result_or_timeout)) == [False, True, True]


def test_it_never_does_where_the_clock_waits_for_all_others():
    assert collect(result_or_timeout, clock="auto") == [False]


def test_the_jump_is_told_and_replayed():
    async def program():
        assert not await result_or_timeout()

    failure = find(program)
    assert (failure.preemptions, failure.jumps, failure.faults) == (0, 1, 0)
    assert failure.cost == 1
    assert any(step.task == "the clock" and step.did == "jumps from 0 s to 1 s" for step in failure.trace)
    assert replay(program, failure.schedule).jumps == 1


@pytest.mark.parametrize("clock", ["explore", "auto"])
def test_it_jumps_to_each_deadline_and_no_further(clock):
    async def program():
        times = []

        async def sleep(seconds):
            await trio.sleep_until(seconds)
            times.append((seconds, trio.current_time()))

        async with trio.open_nursery() as nursery:
            for seconds in (0.5, 2, 1):
                nursery.start_soon(sleep, seconds)
        assert trio.current_time() == 2
        return tuple(times)

    found = collect(program, clock=clock)
    assert all(seconds <= late and late in (0.5, 1, 2) for times in found for seconds, late in times)
    if clock == "auto":
        assert {tuple(sorted(times)) for times in found} == {((0.5, 0.5), (1, 1.0), (2, 2.0))}


def test_sleepers_of_the_same_deadline_wake_in_every_order():
    async def program():
        order = []

        async def sleep(name):
            await trio.sleep(1)
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(sleep, name)
        return "".join(order)

    assert set(collect(program, clock="auto")) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_fractions_of_seconds_add_up_to_one_jump_each():
    async def program():
        for _ in range(10):
            await trio.sleep(0.1)

    failure = find(_failing_after(program), clock="auto")
    assert sum(step.task == "the clock" for step in failure.trace) == 10


def _failing_after(program):
    async def failing():
        await program()
        raise AssertionError

    return failing


@pytest.mark.parametrize("far", [1e9, 1e300])
def test_times_that_swallow_a_second(far):
    """At 1e300 seconds one more is none; the program ends all the same."""

    async def program():
        await trio.sleep(far)
        with trio.move_on_after(1) as scope:
            await trio.sleep(5)
        assert scope.cancelled_caught or far > 1e100

    explore_all(program)


def test_no_deadline_is_no_option():
    async def program():
        with trio.move_on_after(math.inf):
            await checkpoint()
        with trio.CancelScope(deadline=math.inf):
            await checkpoint()

    assert explore_all(program).executions == 1


def test_a_timeout_of_nothing_strikes_at_the_first_await():
    async def program():
        with trio.move_on_after(0) as scope:
            await checkpoint()
        assert scope.cancelled_caught

    assert explore_all(program).executions == 1


async def absolute(checkpoints=2):
    with trio.CancelScope(deadline=1) as scope:
        for _ in range(checkpoints):
            await checkpoint()
    return scope.cancelled_caught


async def set_later():
    with trio.CancelScope() as scope:
        start = trio.current_time()
        await checkpoint()
        scope.deadline = start + 1
        await checkpoint()
    return scope.cancelled_caught


async def set_by_another():
    with trio.CancelScope() as scope:

        async def watch():
            await checkpoint()
            scope.deadline = 1

        async def work():
            await checkpoint()
            await checkpoint()

        await side_by_side(watch, work)
    return scope.cancelled_caught


@pytest.mark.parametrize("program", [absolute, set_later, set_by_another])
def test_deadlines_are_seen_however_they_were_set(program):
    assert set(collect(program)) == {True, False}


def test_a_deadline_that_is_pushed_along_is_not_reached():
    async def program():
        with trio.CancelScope(deadline=2) as scope:
            for _ in range(3):
                scope.deadline = trio.current_time() + 2
                await trio.sleep(1)
        assert not scope.cancelled_caught

    explore_all(program, clock="auto")


def test_idle_tasks_go_before_the_clock():
    async def program():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 5)
            await trio.testing.wait_all_tasks_blocked()
            return trio.current_time()

    assert collect(program, clock="auto") == [0.0]
    assert set(collect(program)) == {0.0, 5.0}


@pytest.mark.parametrize("cushion", [0.001, 0.01])
def test_idle_tasks_that_want_to_wait_a_little(cushion):
    async def program():
        await trio.testing.wait_all_tasks_blocked(cushion)

    explore_all(program)


# Fairness: nobody is kept from going on for ever


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("clock", ["explore", "auto"])
def test_spinning_tasks_starve_neither_each_other_nor_the_clock(strategy, clock):
    async def program():
        flag = []

        async def spin():
            while not flag:
                await checkpoint()

        async def set_flag():
            await trio.sleep(1)
            await checkpoint()
            flag.append(None)

        await side_by_side(spin, spin, set_flag)

    report = explore(program, strategy=strategy, clock=clock, max_executions=15)
    assert report.failure is None
    assert not report.complete
    assert report.bound is None


def test_where_somebody_had_to_go_first_not_every_schedule_is_within_reach():
    async def program():
        done = []

        async def long():
            for _ in range(150):
                await checkpoint()
            done.append("long")

        async def short():
            done.append("short")

        await side_by_side(long, short)
        assert done == ["short", "long"]  # in 150 steps its turn has come

    report = explore(program, strategy="dfs", max_executions=2_000)
    assert report.failure is None
    assert not report.complete


def test_polling_with_a_sleep_is_no_livelock():
    async def program():
        flag = []

        async def poll():
            while not flag:  # noqa: ASYNC110 (it is what many programs do)
                await trio.sleep(0.01)

        async def set_flag():
            await trio.sleep(1)
            flag.append(None)

        await side_by_side(poll, set_flag)

    assert explore(program, max_executions=15).failure is None


def test_who_only_looks_at_the_clock_waits_for_ever():
    """Nothing waits for a deadline, so the clock stands, as trio's MockClock does."""

    async def program():
        end = trio.current_time() + 1
        while trio.current_time() < end:
            await checkpoint()

    assert find(program, max_steps=300).kind == "livelock"
