"""Crashes and delays strike tasks where they are told to, or wherever they can, and nowhere else."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from race_cases import Ledger, explore_all, find, side_by_side, working, working_alone
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint

from stageflow_actors.errors import InjectedError, PipelineValidationError
from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, explore

# Crashes


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_crash_strikes_at_its_point(at):
    ledger = Ledger()
    explore_all(working(ledger), faults=[Crash("worker", at=at)])
    expected = [(number, "crashed" if number == at - 1 else 0.0) for number in range(3)]
    assert ledger.all == [expected]


def test_a_crash_whose_point_never_comes_does_nothing():
    ledger = Ledger()
    explore_all(working(ledger), faults=[Crash("worker", at=4), Crash("nobody", at=1), Crash("nobody")])
    assert ledger.all == [[(0, 0.0), (1, 0.0), (2, 0.0)]]


def test_a_crash_anywhere_is_tried_everywhere_once():
    ledger = Ledger()
    explore_all(working(ledger), faults=[Crash("worker")])
    crashes = [[number for number, told in done if told == "crashed"] for done in ledger.all]
    assert sorted(crashes) == [[], [0], [1], [2]]


def test_two_crashes_anywhere_strike_in_every_combination():
    ledger = Ledger()
    explore_all(working(ledger), faults=[Crash("worker"), Crash("worker", error=lambda: InjectedError("second"))])
    crashes = {tuple(number for number, told in done if told == "crashed") for done in ledger.all}
    assert crashes == {(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)}


def test_the_default_comes_first_and_has_no_fault():
    ledger = Ledger()
    explore(working(ledger), faults=[Crash("worker"), Cancel(), ClockJump(5)], max_executions=1, strategy="dfs")
    assert ledger.all == [[(0, 0.0), (1, 0.0), (2, 0.0)]]


async def checkpointer():
    await checkpoint()


async def sleeper():
    await trio.sleep(1)


async def sleeper_until():
    await trio.sleep_until(1)


async def threader():
    await trio.to_thread.run_sync(int)


async def socketeer():
    left, right = trio.socket.socketpair()
    with left, right:
        await left.send(b"x")
        await right.recv(1)


@pytest.mark.parametrize("task", [sleeper, sleeper_until, threader, socketeer])
@pytest.mark.parametrize("at", [1, None])
def test_sleeps_threads_and_sockets_can_fail(task, at):
    async def program():
        await side_by_side(task)

    failure = find(program, faults=[Crash(task.__name__, at=at)])
    assert isinstance(failure.error.exceptions[0], InjectedError)
    assert failure.faults == (at is None)


async def locker():
    lock = trio.Lock()
    async with lock, trio.Semaphore(1), trio.CapacityLimiter(1):
        pass


async def eventer():
    event = trio.Event()
    event.set()
    await event.wait()


async def conditioner():
    condition = trio.Condition()
    async with condition:
        condition.notify_all()


async def channeler():
    send, receive = trio.open_memory_channel(1)
    await send.send(1)
    await receive.receive()


async def nurser():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checkpoint, name="checkpoint")


async def idler():
    await trio.testing.wait_all_tasks_blocked()


async def sequencer():
    async with trio.testing.Sequencer()(0):
        pass


async def generator():
    async def nothing():
        yield

    async for _ in nothing():
        pass


@pytest.mark.parametrize(
    "task",
    [locker, eventer, conditioner, channeler, nurser, idler, sequencer, generator],
    ids=lambda task: task.__name__,
)
def test_what_raises_nothing_of_itself_does_not_fail(task):
    """Locks, events, conditions, channels and nurseries have no points: what they did must stay as it is."""

    async def program():
        await side_by_side(task)

    report = explore_all(program, faults=[Crash(task.__name__), Delay(task.__name__, seconds=5)])
    assert report.executions == explore_all(program).executions


def test_the_program_itself_is_no_task_of_any():
    async def program():
        await checkpoint()

    assert explore_all(program, faults=[Crash("*")]).executions == 1
    assert find(program, faults=[Crash("program")]).faults == 1


def test_any_task_may_be_meant_and_numbered_ones_by_their_name():
    async def worker():
        await checkpoint()

    async def program():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker)
            nursery.start_soon(worker)

    for on in ("*", "worker"):
        assert find(program, faults=[Crash(on, at=2)]).kind == "exception"  # the second to come, of either
    assert find(program, faults=[Crash("worker#2")]).faults == 1


def test_errors_are_made_anew():
    raised = []
    original = OSError("disk full")

    async def worker():
        try:
            await checkpoint()
        except OSError as error:
            raised.append(error)

    async def program():
        await side_by_side(worker, checkpoint)

    explore_all(program, faults=[Crash("worker", at=1, error=original)])
    assert len(raised) > 1
    assert len(set(map(id, raised))) == len(raised)
    assert all(str(error) == "disk full" and error is not original for error in raised)
    assert original.__traceback__ is None


def test_the_injected_error_names_its_fault():
    failure = find(working_alone, faults=[Crash("worker")])
    assert str(failure.error.exceptions[0]) == "injected by Crash('worker')"


def broken_function():
    raise LookupError("the function's own")


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (broken_function, LookupError, "the function's own"),
        (lambda: 3, PipelineValidationError, "the error of a Crash must be an Exception, not 3"),
    ],
    ids=["raises", "returns no error"],
)
@pytest.mark.parametrize("at", [None, 1])
@pytest.mark.parametrize("task", [sleeper, checkpointer], ids=lambda task: task.__name__)
def test_a_function_that_makes_no_error_is_told_as_it_is(task, at, error, raised, message):
    async def program():
        await side_by_side(task, checkpointer)

    with pytest.raises(raised, match=message):
        explore(program, faults=[Crash(task.__name__, at=at, error=error)])


# Cancellation and crashes


def test_a_cancellation_on_its_way_comes_at_the_next_await():
    """The crash is what the await gave; that the task is cancelled it hears at its next one, as in trio."""
    told = []

    async def worker():
        told.clear()
        try:
            await checkpoint()
        except InjectedError:
            told.append("crashed")
        try:
            await checkpoint()
        except trio.Cancelled:
            told.append("cancelled")
            raise

    async def program():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker, name="worker")
            await trio.testing.wait_all_tasks_blocked()
        return tuple(told)

    async def cancelled():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker, name="worker")
            nursery.cancel_scope.cancel()
        assert told == ["crashed", "cancelled"]

    explore_all(program, faults=[Crash("worker", at=1)])
    explore_all(cancelled, faults=[Crash("worker", at=1)])


def test_a_shielded_checkpoint_can_fail_too():
    async def worker():
        await cancel_shielded_checkpoint()

    async def program():
        await side_by_side(worker)

    report = explore(program, strategy="dfs", faults=[Crash("worker")])
    assert report.failure is None or report.failure.faults == 1


# Delays


def test_a_delayed_task_comes_later_and_unharmed():
    ledger = Ledger()
    explore_all(working(ledger), faults=[Delay("worker", at=2, seconds=5)])
    assert ledger.all == [[(0, 0.0), (1, 5.0), (2, 5.0)]]


def test_a_delay_lets_others_go_first():
    async def program():
        order = []

        async def slow():
            await checkpoint()
            order.append("slow")

        async def fast():
            await trio.sleep(3)
            order.append("fast")

        await side_by_side(slow, fast)
        return order

    async def never_late():
        assert await program() == ["slow", "fast"]

    explore_all(never_late, clock="auto")
    failure = find(never_late, clock="auto", faults=[Delay("slow", seconds=5)])
    assert failure.faults == 1
    assert find(never_late, clock="auto", faults=[Delay("slow", at=1, seconds=5)]).faults == 0


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_delayed_thread_keeps_its_result(seconds):
    results = []

    async def worker():
        results.append(await trio.to_thread.run_sync(lambda: "result"))

    async def program():
        await side_by_side(worker)

    assert explore(program, faults=[Delay("worker", at=1, seconds=seconds)], max_executions=2).failure is None
    assert set(results) == {"result"}
