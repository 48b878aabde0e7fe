"""Everything of trio's is controlled, and behaves as it does in plain trio: cancellation, nurseries, primitives."""

from __future__ import annotations

import contextvars
import functools
import gc
import math

import pytest
import trio
import trio.testing
from race_cases import collect, explore_all, find, leak_a_cancellation, side_by_side
from race_primitives import PROGRAMS, cancelled_children, locks
from trio.lowlevel import checkpoint, current_task

from stageflow_actors.testing import explore


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_what_plain_trio_does_is_among_what_is_explored(program):
    explored = set(collect(program))
    plain = {trio.run(program, clock=trio.testing.MockClock(autojump_threshold=0)) for _ in range(30)}
    assert plain <= explored


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_with_a_clock_that_only_jumps_when_it_must_it_is_explored_as_well(program):
    explored = set(collect(program, clock="auto"))
    assert explored <= set(collect(program))


def test_locks_are_taken_in_every_order_and_never_shared():
    orders = collect(locks)
    assert {order[::2] for order in orders} == {tuple(order) for order in ("abc", "acb", "bac", "bca", "cab", "cba")}
    assert all(order[::2] == order[1::2] for order in orders)


def test_a_cancellation_reaches_every_await_of_a_child():
    """One that has begun, one that has not, one that is between two awaits: each in some schedule, none twice."""
    orders = collect(cancelled_children)
    assert ("a cancelled", "a ends", "b cancelled", "b ends") in orders
    assert ("b cancelled", "b ends", "a cancelled", "a ends") in orders
    assert all(sorted(order) == ["a cancelled", "a ends", "b cancelled", "b ends"] for order in orders)


# Between executions, and inside of them


VARIABLE = contextvars.ContextVar("variable", default="unset")


def test_context_variables_belong_to_their_tasks_and_their_execution():
    async def program():
        assert VARIABLE.get() == "outside"
        VARIABLE.set("program")

        async def child(name):
            assert VARIABLE.get() == "program"
            VARIABLE.set(name)
            await checkpoint()
            assert VARIABLE.get() == name

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "a")
            nursery.start_soon(child, "b")
        assert VARIABLE.get() == "program"

    token = VARIABLE.set("outside")
    try:
        explore_all(program)
        assert VARIABLE.get() == "outside"
    finally:
        VARIABLE.reset(token)


def test_tasks_know_themselves_and_each_other():
    async def program():
        me = current_task()
        assert me.name.endswith("program")
        assert me.parent_nursery is not None

        async def child():
            task = current_task()
            assert task in nursery.child_tasks
            assert task.parent_nursery is nursery
            assert nursery.parent_task is me
            await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_root_task() is not me

    explore_all(program)


def test_frames_of_waiting_tasks_can_be_read():
    async def program():
        async def wait():
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            names = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
            assert names[:2] == ["wait", "sleep_forever"]
            nursery.cancel_scope.cancel()

    explore_all(program)


def test_checkpoints_are_counted_as_trio_counts_them():
    async def program():
        with trio.testing.assert_checkpoints():
            await checkpoint()
        with trio.testing.assert_checkpoints():
            await trio.sleep(1)
        with trio.testing.assert_no_checkpoints():
            pass
        with pytest.raises(AssertionError), trio.testing.assert_checkpoints():
            pass

    explore_all(program)


def test_instruments_of_the_program_see_its_tasks():
    class Counter(trio.abc.Instrument):
        def __init__(self):
            self.spawned = self.exited = 0

        def task_spawned(self, task):
            self.spawned += 1

        def task_exited(self, task):
            self.exited += 1

    async def program():
        counter = Counter()
        trio.lowlevel.add_instrument(counter)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checkpoint)
            nursery.start_soon(checkpoint)
        trio.lowlevel.remove_instrument(counter)
        assert (counter.spawned, counter.exited) == (2, 2)

    explore_all(program)


def test_each_execution_begins_at_time_zero_with_nothing_left():
    async def program():
        assert trio.current_time() == 0
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            nursery.start_soon(trio.sleep, 2)

    tasks = 4  # of trio's, one that runs executions, and the program
    explore_all(program)


@pytest.mark.parametrize("is_collecting", [True, False])
def test_the_collector_is_left_as_it_was(is_collecting):
    before = gc.isenabled()
    (gc.enable if is_collecting else gc.disable)()
    try:
        explore(locks, max_executions=5)
        find(failing_to_start, max_executions=5)
        assert gc.isenabled() is is_collecting
    finally:
        (gc.enable if before else gc.disable)()


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_generators_that_are_left_open_are_closed_outside_of_other_executions(in_a_cycle):
    """Trio closes them when they are collected: at once, or whenever the collector comes by."""
    closed = []

    async def program():
        async def generate():
            try:
                yield 1
                yield 2
            finally:
                with trio.CancelScope(shield=True):
                    await checkpoint()
                closed.append(None)

        numbers = generate()
        if in_a_cycle:
            cycle = [numbers]
            cycle.append(cycle)
        async for _ in numbers:
            break
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checkpoint)
            nursery.start_soon(checkpoint)

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        report = explore(program, strategy="dfs", max_executions=60)
    finally:
        gc.set_threshold(*before)
    assert report.failure is None
    assert not report.diverged
    assert len(closed) == report.executions


async def failing_to_start():
    raise ValueError


@pytest.mark.parametrize("wrap", [lambda f: functools.partial(f, 3), lambda f: lambda: f(3)], ids=["partial", "lambda"])
def test_a_program_may_be_anything_that_is_awaited_when_called(wrap):
    seen = []

    async def program(number):
        await checkpoint()
        seen.append(number)

    report = explore(wrap(program), strategy="dfs")
    assert report.complete
    assert seen == [3] * report.executions


# What is raised


@pytest.mark.parametrize("error", [GeneratorExit, AssertionError, ValueError, StopAsyncIteration])
def test_an_error_is_a_failure(error):
    async def program():
        await checkpoint()
        raise error("why")

    failure = find(program)
    assert failure.kind == "exception"
    assert type(failure.error) is error


def test_an_error_of_a_child_comes_in_trios_group():
    async def child():
        await checkpoint()
        raise ValueError("why")

    async def program():
        await side_by_side(child)

    failure = find(program)
    assert isinstance(failure.error, ExceptionGroup)
    assert [str(error) for error in failure.error.exceptions] == ["why"]


def test_a_cancellation_that_leaves_its_scope_is_a_failure():
    assert isinstance(find(leak_a_cancellation).error, trio.Cancelled)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), pytest.skip.Exception("not here")])
@pytest.mark.parametrize("place", ["program", "child"])
def test_what_is_no_failure_goes_through(error, place):
    ran = []

    async def child():
        await checkpoint()
        ran.append(None)
        raise error

    async def program():
        if place == "program":
            await child()
        await side_by_side(child)

    with pytest.raises(type(error)) as caught:
        explore(program)
    assert caught.value is error
    assert len(ran) == 1


def test_after_an_interrupt_of_the_program_itself_the_toolkit_works():
    async def program():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(program)
    explore_all(locks)
