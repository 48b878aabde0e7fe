"""A program that does not end is told from one that does: who waits for what."""

from __future__ import annotations

from itertools import count

import pytest
import trio
from race_cases import explore_all, find, lock_both, side_by_side, waits
from trio.lowlevel import Abort, ParkingLot, checkpoint, wait_task_rescheduled

from stageflow_actors.testing import replay

# Deadlocks


def test_two_locks_in_different_orders():
    failure = find(lock_both())
    assert failure.kind == "deadlock"
    assert failure.error is None
    assert failure.preemptions == 1
    assert waits(failure) == {
        "lock": ("the end of its nursery", ("one", "two")),
        "one": ("Lock.acquire", ("two",)),
        "two": ("Lock.acquire", ("one",)),
    }


def test_where_and_since_when_each_of_them_waits():
    failure = find(lock_both())
    one = next(waiting for waiting in failure.waiting if waiting.task == "one")
    assert one.where.startswith("tests/race_cases.py:")
    assert one.where.endswith(" in work")
    step = failure.trace[one.since - 1]
    assert (step.number, step.task, step.then) == (one.since, "one", "awaits Lock.acquire")


def test_a_lock_whose_holder_has_ended():
    async def program():
        lock = trio.Lock()

        async def hold():
            await lock.acquire()

        async def want():
            await checkpoint()
            async with lock:
                pass

        await side_by_side(hold, want)

    failure = find(program)
    # Trio tells those who wait for a lock that its holder is gone; a home-made primitive would have waited for ever.
    assert failure.kind == "exception"
    assert any(isinstance(error, trio.BrokenResourceError) for error in failure.error.exceptions)


@pytest.mark.parametrize("make", [lambda: trio.Semaphore(1), lambda: trio.CapacityLimiter(1)])
def test_a_slot_that_is_wanted_twice(make):
    async def program():
        slot = make()
        async with slot:
            await side_by_side(enter(slot))

    def enter(slot):
        async def want():
            async with slot:
                pass

        return want

    failure = find(program)
    assert failure.kind == "deadlock"
    awaits, holders = waits(failure)["want"]
    assert awaits == f"{type(make()).__name__}.acquire"
    assert holders == (("program",) if awaits.startswith("Capacity") else ())


def test_the_whole_tree_of_tasks_is_told():
    async def program():
        async def inner():
            await trio.Event().wait()

        async def outer():
            await side_by_side(inner)

        await side_by_side(outer)

    failure = find(program)
    assert waits(failure) == {
        "program": ("the end of its nursery", ("outer",)),
        "outer": ("the end of its nursery", ("inner",)),
        "inner": ("Event.wait", ()),
    }


# Lost wake-ups


async def wait_after_notify():
    condition = trio.Condition()

    async def wait():
        async with condition:
            await condition.wait()

    async def wake():
        async with condition:
            condition.notify()

    await side_by_side(wait, wake)


async def event_never_set():
    await trio.Event().wait()


async def channel_never_closed():
    send, receive = trio.open_memory_channel(0)

    async def consume():
        async for _ in receive:
            pass

    async def produce():
        await send.send(1)

    await side_by_side(consume, produce)


async def parked_too_late():
    lot = ParkingLot()

    async def park():
        await lot.park()

    async def unpark():
        lot.unpark()

    await side_by_side(park, unpark)


async def nobody_reschedules():
    await wait_task_rescheduled(lambda _raise_cancel: Abort.SUCCEEDED)


@pytest.mark.parametrize(
    ("program", "awaits"),
    [
        (wait_after_notify, "Condition.wait"),
        (event_never_set, "Event.wait"),
        (channel_never_closed, "MemoryReceiveChannel.receive"),
        (parked_too_late, "ParkingLot.park"),
        (nobody_reschedules, "trio.lowlevel.wait_task_rescheduled"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_lost_wake_ups(program, awaits):
    failure = find(program)
    assert failure.kind == "lost wake-up"
    assert failure.error is None
    assert awaits in [waiting.awaits for waiting in failure.waiting]


def test_a_wake_up_that_is_lost_only_under_some_schedule():
    failure = find(wait_after_notify)
    assert failure.preemptions == 0
    assert replay(wait_after_notify, failure.schedule).kind == "lost wake-up"
    assert replay(wait_after_notify, "0") is None


@pytest.mark.parametrize("clock", ["explore", "auto"])
def test_who_waits_for_a_deadline_is_in_no_deadlock(clock):
    async def program():
        with trio.move_on_after(3600):
            await trio.Event().wait()

    explore_all(program, clock=clock)


# Livelocks


async def spin():
    while True:
        await checkpoint()


async def spin_without_end_of_time():
    for _ in count():
        await trio.sleep(1)


async def pass_back_and_forth():
    turn = 0

    async def wait_for(number):
        nonlocal turn
        while True:
            while turn != number:
                await checkpoint()
            turn = 1 - number

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, 0)
        nursery.start_soon(wait_for, 1)


async def spawn_for_ever():
    async with trio.open_nursery() as nursery:

        async def spawn():
            nursery.start_soon(spawn)

        nursery.start_soon(spawn)


@pytest.mark.parametrize("program", [spin, spin_without_end_of_time, pass_back_and_forth, spawn_for_ever])
@pytest.mark.parametrize("clock", ["explore", "auto"])
def test_livelocks_are_stopped_at_the_limit(program, clock):
    failure = find(program, max_steps=200, clock=clock)
    assert failure.kind == "livelock"
    assert failure.steps == 200
    assert failure.error is None
    assert failure.call.endswith("max_steps=200)")
    assert replay(program, failure.schedule, max_steps=200, clock=clock).kind == "livelock"


def test_who_could_have_gone_on_in_a_livelock_is_told():
    (waiting,) = find(spin, max_steps=50).waiting
    assert waiting.awaits == "its turn"
    assert str(waiting).startswith("spin could go on, since step 50, tests/test_race_deadlocks.py:")


def test_a_program_of_exactly_so_many_steps_is_no_livelock():
    async def program():
        for _ in range(9):
            await checkpoint()

    explore_all(program, max_steps=10)
    assert find(program, max_steps=9).kind == "livelock"
