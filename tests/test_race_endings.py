"""Whatever a program does to go on, it is ended, and the next execution does not notice."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from race_cases import EVERY, explore_all, find, side_by_side, waits
from trio.lowlevel import Abort, cancel_shielded_checkpoint, checkpoint, wait_task_rescheduled

from stageflow_actors.testing import _control, explore


async def swallow_in_a_wait():
    while True:
        with suppress(BaseException):
            await trio.sleep_forever()


async def swallow_in_a_spin():
    while True:
        with suppress(BaseException):
            await checkpoint()


async def swallow_in_a_shield():
    while True:
        with suppress(BaseException), trio.CancelScope(shield=True):
            await trio.sleep_forever()


async def shield_for_ever():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def spin_in_a_shield():
    with trio.CancelScope(shield=True):
        while True:
            await checkpoint()


async def spin_uncancelled():
    while True:
        await cancel_shielded_checkpoint()


async def spin_in_the_cleanup():
    try:
        await trio.sleep_forever()
    finally:
        await spin_uncancelled()


async def wait_in_the_cleanup():
    try:
        await trio.sleep_forever()
    finally:
        await shield_for_ever()


async def raise_in_the_cleanup():
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError


async def refuse_to_be_woken():
    await wait_task_rescheduled(lambda _raise_cancel: Abort.FAILED)


async def swallow_in_children():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(swallow_in_a_wait)
        nursery.start_soon(swallow_in_a_spin)


async def spawn_in_the_cleanup():
    async with trio.open_nursery() as nursery:

        async def child():
            try:
                await trio.sleep_forever()
            finally:
                nursery.start_soon(child)

        nursery.start_soon(child)


async def nest_in_the_cleanup():
    while True:
        with suppress(BaseException), trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(swallow_in_a_shield)


async def hold_a_lock():
    lock = trio.Lock()

    async def hold():
        async with lock:
            await swallow_in_a_wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        nursery.start_soon(hold)


STUBBORN = [
    swallow_in_a_wait,
    swallow_in_a_spin,
    swallow_in_a_shield,
    shield_for_ever,
    spin_in_a_shield,
    spin_uncancelled,
    spin_in_the_cleanup,
    wait_in_the_cleanup,
    raise_in_the_cleanup,
    refuse_to_be_woken,
    swallow_in_children,
    spawn_in_the_cleanup,
    nest_in_the_cleanup,
    hold_a_lock,
]


@pytest.fixture
def _impatient(monkeypatch):
    """Give what is left of a program fewer steps to end by itself: these do not."""
    monkeypatch.setattr(_control, "_DRAIN_STEPS", 300)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("program", STUBBORN, ids=lambda program: program.__name__)
def test_what_resists_is_ended_and_told(program):
    failure = find(program, max_steps=100)
    assert failure.kind in {"lost wake-up", "livelock", "deadlock"}
    assert failure.reproduced
    assert failure.waiting


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("program", STUBBORN, ids=lambda program: program.__name__)
def test_what_resists_leaves_nothing_to_the_next_execution(program):
    """It resists in one schedule of many, beside others; what the others see of it is the same in every execution."""
    seen = []

    async def first():
        turns.append("first")

    async def second():
        turns.append("second")
        if turns[0] == "second":
            await program()

    async def main():
        nonlocal turns
        turns = []
        seen.append((trio.current_time(), trio.lowlevel.current_statistics().tasks_living))
        await side_by_side(first, second)

    turns = []
    failure = find(main, max_steps=100)
    assert failure.reproduced
    assert failure.minimal
    assert len(seen) >= 3
    assert set(seen) == {(0.0, seen[0][1])}
    explore_all(first_and_last)


async def first_and_last():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checkpoint)
        nursery.start_soon(trio.sleep, 1)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("program", [swallow_in_a_wait, swallow_in_a_spin, shield_for_ever, spin_uncancelled])
@pytest.mark.parametrize("end", ["returns", "raises"])
def test_a_system_task_that_resists_outlives_nothing(program, end):
    async def main():
        trio.lowlevel.spawn_system_task(program)
        await checkpoint()
        if end == "raises":
            raise ValueError("the program's own")

    failure = explore(main, strategy="dfs", max_executions=3, max_steps=100).failure
    if end == "raises":
        assert isinstance(failure.error, ValueError)
    else:
        assert failure is None or failure.kind == "livelock"
    explore_all(first_and_last)


@pytest.mark.usefixtures("_impatient")
def test_what_resists_an_error_is_what_keeps_the_program():
    async def program():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swallow_in_a_wait)
            await checkpoint()
            raise ValueError("the cause")

    failure = find(program, max_steps=100)
    assert failure.kind == "livelock"  # the nursery waits for the child, as in trio
    assert waits(failure)["program"] == ("the end of its nursery", ("swallow_in_a_wait",))


def test_a_program_that_ends_with_much_left_over_is_one_that_ends():
    async def program():
        try:
            await checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(500):
                    await checkpoint()

    report = explore(program, strategy="dfs", max_executions=EVERY)
    assert report.failure is None
