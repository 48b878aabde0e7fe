"""What an application sees of a limiter: options, slots of its tasks, one trio run after the other."""

from __future__ import annotations

import copy
import pickle
import threading

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing
from limiter_desk import Desk, held

from stageflow_actors._limiter import Limiter, LimiterStatistics
from stageflow_actors._limits import Rate
from stageflow_actors.errors import OverloadedError, PipelineValidationError


@pytest.fixture
def desk():
    return Desk()


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrency": 0}, "max_concurrency must be a whole number of at least 1, not 0"),
        ({"max_concurrency": True}, "max_concurrency must be a whole number of at least 1, not True"),
        ({"max_concurrency": 2.0}, "max_concurrency must be a whole number of at least 1, not 2.0"),
        ({"max_queued": -1}, "max_queued must be a whole number of at least 0, or None, not -1"),
        ({"max_queued": False}, "max_queued must be a whole number of at least 0, or None, not False"),
        ({"max_queued": 1.5}, "max_queued must be a whole number of at least 0, or None, not 1.5"),
        (
            {"overflow": "rejct"},
            "overflow must be one of wait, reject, drop_oldest, drop_newest, not 'rejct'; did you mean 'reject'?",
        ),
        ({"overflow": []}, "overflow must be one of wait, reject, drop_oldest, drop_newest, not []"),
        ({"rate": 100}, "rate must be a Rate, not 100; write rate=Rate(100, per=1.0)"),
        ({"aging": 0}, "aging must be a positive number of seconds, not 0"),
        ({"aging": float("nan")}, "aging must be a positive number of seconds, not nan"),
        ({"aging": True}, "aging must be a positive number of seconds, not True"),
    ],
)
def test_an_option_that_cannot_be_used(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Limiter(**{"max_concurrency": 1, **options})
    assert str(caught.value) == message


@pytest.mark.parametrize("priority", [1.0, True, "1", None])
def test_a_priority_is_a_whole_number(priority):
    with pytest.raises(PipelineValidationError, match="priority must be a whole number"):
        Limiter(1).slot(priority=priority)


def test_statistics_and_representation_before_its_first_use():
    limiter = Limiter(1_000)
    assert limiter.max_concurrency == 1_000
    assert limiter.statistics() == LimiterStatistics(1_000, 0, 0, 0, 0, 0)
    assert repr(limiter) == "<Limiter of 1,000: unused>"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        limiter.statistics().running = 1


async def test_representation(desk):
    limiter = Limiter(1)
    desk.request("a", limiter)
    desk.request("b", limiter)
    assert repr(limiter) == "<Limiter of 1: 1 running, 1 queued>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
async def test_a_copy_is_a_fresh_limiter_of_the_same_options(desk, duplicate):
    limiter = Limiter(1, max_queued=3, overflow="reject", rate=Rate(5, per=2.0), aging=7.0)
    desk.request("a", limiter)
    twin = duplicate(limiter)
    assert twin._options == limiter._options
    assert held(twin) == (0, 0)


# Slots of tasks


async def test_a_task_holds_a_slot_for_the_length_of_a_block():
    limiter = Limiter(1)
    async with limiter.slot():
        assert held(limiter) == (1, 0)
    assert held(limiter) == (0, 0)


async def test_tasks_wait_in_order(autojump_clock):
    limiter = Limiter(1)
    order = []

    async def work(number, priority):
        async with limiter.slot(priority):
            order.append(number)
            assert limiter.statistics().running == 1
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number, priority in enumerate([0, 0, 0, 5, 1, 5]):
            nursery.start_soon(work, number, priority)
            await trio.testing.wait_all_tasks_blocked()
    assert order == [0, 3, 5, 4, 1, 2]
    assert held(limiter) == (0, 0)


async def test_entering_is_a_checkpoint_and_cancellable():
    limiter = Limiter(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await limiter.slot().__aenter__()
    assert scope.cancelled_caught
    assert limiter.statistics().admitted == 0
    with trio.testing.assert_checkpoints():
        async with limiter.slot():
            pass


async def test_a_cancelled_waiter_gives_its_place_back():
    limiter = Limiter(1)
    async with trio.open_nursery() as nursery, limiter.slot():
        nursery.start_soon(limiter.slot().__aenter__)
        await trio.testing.wait_all_tasks_blocked()
        assert held(limiter) == (1, 1)
        nursery.cancel_scope.cancel()
        assert held(limiter) == (1, 0)
    assert held(limiter) == (0, 0)


async def test_admitted_and_then_cancelled_it_has_its_slot_and_gives_it_back():
    limiter = Limiter(1)
    reached = []

    async def wait():
        async with limiter.slot():
            reached.append(held(limiter))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with limiter.slot():
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reached == [(1, 0)]
    assert held(limiter) == (0, 0)


async def test_a_task_is_refused_or_dropped():
    limiter = Limiter(1, max_queued=1, overflow="drop_oldest")
    caught = []

    async def wait():
        try:
            async with limiter.slot():
                pass
        except OverloadedError as error:
            caught.append(error)

    async with trio.open_nursery() as nursery, limiter.slot():
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(caught) == 1
    assert "had waited longest" in str(caught[0])
    assert limiter.statistics() == LimiterStatistics(1, 0, 0, 2, 0, 1)
    full = Limiter(1, overflow="reject")
    async with full.slot():
        with pytest.raises(OverloadedError):
            await full.slot().__aenter__()
    assert held(full) == (0, 0)


async def test_a_dropped_task_that_is_cancelled_before_it_is_told():
    limiter = Limiter(1, max_queued=1, overflow="drop_oldest")
    desk = Desk()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery, limiter.slot():
            nursery.start_soon(limiter.slot().__aenter__)
            await trio.testing.wait_all_tasks_blocked()
            newcomer = desk.request("newcomer", limiter)
            scope.cancel()
    assert desk.admissions == ["newcomer"]
    assert held(limiter) == (1, 0)
    newcomer.release()
    await trio.testing.wait_all_tasks_blocked()


async def test_one_slot_is_entered_once_at_a_time():
    slot = Limiter(2).slot()
    async with slot:
        with pytest.raises(RuntimeError, match="only once at a time"):
            await slot.__aenter__()
    async with slot:
        pass


# Trio runs


def test_outside_of_trio(desk):
    with pytest.raises(RuntimeError, match="limiter of 3: a limiter can be used only while trio runs, on its thread"):
        desk.request("a", Limiter(3))


@pytest.mark.parametrize("left", [0, 2])
def test_one_run_after_the_other(desk, left):
    """Whatever the run before has left held or queued, its tickets mean nothing to the next one."""
    limiter = Limiter(1)
    tickets = []

    async def use():
        tickets.append(desk.request("a", limiter))
        tickets.append(desk.request("b", limiter))
        for ticket in tickets[: 2 - left]:
            ticket.release()

    trio.run(use)
    before = limiter.statistics().admitted

    async def use_again():
        desk.request("c", limiter)
        for ticket in tickets:
            ticket.release()

    trio.run(use_again)
    assert desk.admissions[-1] == "c" or left
    assert limiter.statistics().running == 1
    assert limiter.statistics().admitted == before + 1


def test_two_runs_at_once(desk):
    limiter = Limiter(4)
    entered, leave = threading.Event(), threading.Event()

    async def hold():
        async with limiter.slot():
            entered.set()
            await trio.to_thread.run_sync(leave.wait)

    async def intrude():
        with pytest.raises(RuntimeError) as caught:
            desk.request("a", limiter)
        return str(caught.value)

    async def enter():
        return await limiter.slot().__aenter__()

    thread = threading.Thread(target=trio.run, args=(hold,))
    thread.start()
    entered.wait()
    try:
        message = trio.run(intrude)
    finally:
        leave.set()
        thread.join()
    assert message == (
        "limiter of 4 is in use in another trio run: 1 running, 0 queued; "
        "give each run that goes on at the same time a limiter of its own"
    )
    trio.run(enter)
