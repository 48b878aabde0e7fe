"""Threads, sockets, processes and callbacks are not controlled: they work, they are named, and nothing is claimed."""

from __future__ import annotations

import sys
import threading
from functools import partial

import pytest
import trio
import trio.testing
from race_cases import explore_all, find, side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.testing import _outside, explore


def explore_some(program, most=20, **options):
    """Explore a program that cannot be explored wholly; return the report, which claims no more than is so."""
    report = explore(program, strategy="dfs", max_executions=most, **options)
    report.raise_for_failure()
    assert not report.complete
    assert report.uncontrolled
    return report


async def use_a_thread():
    assert await trio.to_thread.run_sync(lambda: 6 * 7) == 42


async def call_back_from_a_thread():
    calls = []

    def work():
        trio.from_thread.run_sync(calls.append, "sync")
        trio.from_thread.run(checkpoint)
        trio.from_thread.check_cancelled()
        return trio.from_thread.run(partial(answer, "async"))

    async def answer(value):
        await trio.sleep(1)
        calls.append(value)
        return value

    assert await trio.to_thread.run_sync(work) == "async"
    assert calls == ["sync", "async"]


async def fail_in_a_thread():
    with pytest.raises(ValueError, match="invalid literal"):
        await trio.to_thread.run_sync(int, "no number")


async def use_a_socketpair():
    left, right = trio.socket.socketpair()

    async def read():
        assert await right.recv(10) == b"hello"

    async def write():
        await checkpoint()
        await left.send(b"hello")

    with left, right:
        await side_by_side(read, write)


async def serve_and_connect():
    async def echo(stream):
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as client:
            await client.send_all(b"hello")
            assert await client.receive_some(10) == b"hello"
        nursery.cancel_scope.cancel()


async def run_a_process():
    done = await trio.run_process([sys.executable, "-c", "print('hello')"], capture_stdout=True)
    assert done.stdout == b"hello" + (b"\r\n" if sys.platform == "win32" else b"\n")


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (use_a_thread, "a thread"),
        (call_back_from_a_thread, "a thread"),
        (fail_in_a_thread, "a thread"),
        (use_a_socketpair, "a socket, file or process"),
        (serve_and_connect, "a socket, file or process"),
        (run_a_process, "a socket, file or process"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("clock", ["explore", "auto"])
def test_what_goes_on_outside_works_and_is_named(program, named, clock):
    report = explore_some(program, most=2 if program is run_a_process else 20, clock=clock)
    assert any(told.startswith(f"{named}: ") for told in report.uncontrolled)
    assert "None" not in str(report)
    assert "not controlled: " in str(report)


def test_where_it_was_is_told():
    report = explore_some(use_a_thread, most=1)
    assert len(report.uncontrolled) == 1
    assert report.uncontrolled[0].startswith("a thread: tests/test_race_uncontrolled.py:")
    assert report.uncontrolled[0].endswith(" in use_a_thread")


def test_a_failure_tells_it_too():
    async def program():
        await use_a_thread()
        raise ValueError

    failure = find(program)
    assert failure.uncontrolled
    assert "not controlled: a thread: " in str(failure)


def test_the_same_choices_lead_to_the_same_execution_although_a_thread_runs(monkeypatch):
    """A choice waits for the thread to report, so it decides nothing; here for as long as a busy machine may need."""
    monkeypatch.setattr(_outside, "_BEFORE_CHOICE", 10.0)

    async def program():
        async def work():
            await trio.to_thread.run_sync(int)
            await checkpoint()

        await side_by_side(work, work, checkpoint)

    report = explore_some(program, most=60)
    assert not report.diverged


def test_preemptions_cost_what_they_cost_while_a_socket_is_awaited():
    """What is current stays so when a choice has waited for the world."""

    async def program():
        left, right = trio.socket.socketpair()

        async def read():
            await right.recv(1)

        async def walk():
            for _ in range(3):
                await checkpoint()

        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                await side_by_side(walk, walk)
                await left.send(b"x")

    report = explore(program, strategy="dfs", max_executions=50)
    assert report.failure is None
    assert report.bound is not None


def test_a_thread_that_waits_for_the_program_is_waited_for_only_a_while():
    async def program():
        is_set = threading.Event()

        async def wait():
            await trio.to_thread.run_sync(is_set.wait)

        async def wake():
            await checkpoint()
            is_set.set()

        await side_by_side(wait, wake)

    explore_some(program, most=3)


def test_a_thread_that_never_ends_is_a_deadlock(monkeypatch):
    monkeypatch.setattr(_outside, "_BEFORE_DEADLOCK", 0.05)
    never = threading.Event()

    async def program():
        await trio.to_thread.run_sync(never.wait)

    try:
        failure = find(program, max_executions=1)
    finally:
        never.set()
    assert failure.kind in {"lost wake-up", "deadlock"}
    assert failure.waiting[0].awaits == "trio.to_thread.run_sync"


def test_nobody_at_the_other_end_is_a_lost_wake_up(monkeypatch):
    monkeypatch.setattr(_outside, "_BEFORE_DEADLOCK", 0.05)

    async def program():
        left, right = trio.socket.socketpair()
        with left, right:
            await right.recv(1)

    failure = find(program, max_executions=1)
    assert failure.kind == "lost wake-up"
    assert failure.uncontrolled


def test_abandoned_threads_do_not_hold_the_program():
    release = threading.Event()

    async def program():
        with trio.move_on_after(1):
            await trio.to_thread.run_sync(release.wait, abandon_on_cancel=True)

    try:
        explore_some(program, most=2)
    finally:
        release.set()


def test_a_thread_of_the_programs_own_is_heard_while_somebody_goes_on():
    """It is not waited for, as nothing tells of it; but what it calls back comes."""

    async def program():
        heard = []
        token = trio.lowlevel.current_trio_token()
        thread = threading.Thread(target=token.run_sync_soon, args=(heard.append, None))
        thread.start()
        while not heard:
            await checkpoint()
        thread.join()

    assert explore(program, max_executions=3, max_steps=10_000_000).failure is None


# Callbacks and system tasks are controlled


def test_callbacks_are_controlled():
    orders = set()

    async def program():
        order = []
        token = trio.lowlevel.current_trio_token()
        token.run_sync_soon(order.append, "callback")
        await checkpoint()
        order.append("program")
        await trio.testing.wait_all_tasks_blocked()
        orders.add(tuple(order))

    explore_all(program)
    assert orders == {("callback", "program"), ("program", "callback")}


def test_callbacks_come_in_their_order_and_all_of_them():
    async def program():
        calls = []
        token = trio.lowlevel.current_trio_token()
        for number in range(5):
            token.run_sync_soon(calls.append, number)
        token.run_sync_soon(calls.append, "once", idempotent=True)
        token.run_sync_soon(calls.append, "once", idempotent=True)
        await trio.testing.wait_all_tasks_blocked()
        assert calls == [0, 1, 2, 3, 4, "once"]

    explore_all(program)


def test_system_tasks_are_controlled():
    orders = set()

    async def program():
        order = []

        async def system():
            order.append("system")
            await checkpoint()
            order.append("system")

        trio.lowlevel.spawn_system_task(system)
        await checkpoint()
        order.append("program")
        await trio.testing.wait_all_tasks_blocked()
        orders.add(tuple(order))

    explore_all(program)
    assert orders == {
        ("system", "system", "program"),
        ("system", "program", "system"),
        ("program", "system", "system"),
    }


@pytest.mark.parametrize("way", ["system task", "callback"])
def test_what_crashes_trio_is_a_failure_of_the_program(way):
    def crash():
        raise ValueError("in the background")

    async def crash_task():
        crash()

    async def program():
        if way == "callback":
            trio.lowlevel.current_trio_token().run_sync_soon(crash)
        else:
            trio.lowlevel.spawn_system_task(crash_task)
        await trio.testing.wait_all_tasks_blocked()

    failure = find(program)
    assert isinstance(failure.error, trio.TrioInternalError)
    assert failure.reproduced


@pytest.mark.parametrize("steps", [0, 1, 50])
def test_a_task_that_is_rescheduled_twice_is_a_failure(steps):
    """Trio stops whoever does it with an AssertionError, if the task has not gone on in between."""

    async def program():
        sleepers = []

        async def sleep():
            sleepers.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.reschedule(sleepers[0])
            for _ in range(steps):
                await checkpoint()
            trio.lowlevel.reschedule(sleepers[0])

    failure = find(program)
    assert failure.kind == "exception"
    assert find_leaf(failure.error, AssertionError)
    assert failure.reproduced
    assert failure.preemptions == 0


def find_leaf(error, kind):
    """Return the first error of a kind in a group, or what is none itself."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, (find_leaf(part, kind) for part in error.exceptions)), None)
    return error if isinstance(error, kind) else None


def test_another_framework_inside_a_program_is_told():
    class Foreign:
        def __await__(self):
            yield "not trio's"

    async def program():
        await Foreign()

    failure = find(program)
    assert isinstance(failure.error, TypeError)
    assert "unrecognized yield message" in str(failure.error)


def test_a_program_may_catch_that_and_go_on():
    class Foreign:
        def __await__(self):
            yield "not trio's"

    async def worker():
        with pytest.raises(TypeError, match="unrecognized"):
            await Foreign()
        await checkpoint()

    async def program():
        await side_by_side(worker, worker)

    assert explore_all(program).executions > 1
