"""Tasks that start tasks, fail, manage resources, and look at each other."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager

import trio
import trio.testing
from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def children():
    """Tasks that start tasks, in their own nursery or in another's."""
    log = []
    count = {"started": 0}

    async def child(me, name):
        seen = count["started"]
        await checkpoint()
        count["started"] = seen + 1
        log.append(name)

    async def inside(me):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, me, "in", name=f"{me.name} in")

    async def outside(me):
        me.nursery.start_soon(child, me, "out", name=f"{me.name} out")
        await checkpoint()

    async def serve(me, *, task_status=trio.TASK_STATUS_IGNORED):
        log.append("up")
        task_status.started(len(log))
        await checkpoint()
        log.append("down")

    async def start(me):
        me.see(await me.nursery.start(serve, me, name=f"{me.name} serves"))

    async def look(me):
        await checkpoint()
        me.see((len(me.nursery.child_tasks), len(log)))

    return World((inside, outside, start, look), lambda: (log, count))


def failing():
    """Errors that cancel others, who clean up and write as they go."""
    log = []

    async def fail(me):
        await checkpoint()
        raise ValueError(me.name)

    async def clean_up(me):
        try:
            await checkpoint()
            log.append(f"{me.name} did")
            await checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                await checkpoint()
            log.append(f"{me.name} left")

    async def fail_if(me):
        if log:
            raise KeyError(log[0])
        await checkpoint()
        log.append(me.name)

    async def both_fail(me):
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, me, name=f"{me.name} fails")
                await fail_if(me)
        except* ValueError as group:
            me.see(len(group.exceptions))

    return World((fail, clean_up, fail_if, both_fail), lambda: log)


def managers():
    """Async context managers and async generators with state of their own."""
    log = []

    @asynccontextmanager
    async def opened(who):
        log.append(f"open {who}")
        await checkpoint()
        try:
            yield log
        finally:
            log.append(f"close {who}")

    async def use(me):
        async with opened(me.name) as inner:
            me.see(len(inner))

    async def numbers():
        for number in range(2):
            log.append(number)
            yield number
            await checkpoint()

    async def iterate(me):
        async for number in numbers():
            me.see((number, len(log)))

    async def comprehend(me):
        me.see([number + len(log) async for number in numbers()])

    return World((use, iterate, comprehend), lambda: log)


def low_level():
    """Parking lots, and tasks that are woken by hand."""
    lot = trio.lowlevel.ParkingLot()
    parked = []

    async def park(me):
        with trio.move_on_after(1):
            await lot.park()
            me.see("unparked")

    async def unpark(me):
        await checkpoint()
        me.see(len(lot.unpark(count=1)))

    async def sleep(me):
        parked.append(trio.lowlevel.current_task())

        def abort(_):
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(1) as scope:
            await trio.lowlevel.wait_task_rescheduled(abort)
        if scope.cancelled_caught:
            parked.remove(trio.lowlevel.current_task())

    async def wake(me):
        await checkpoint()
        if parked:
            trio.lowlevel.reschedule(parked.pop())

    async def rename(me):
        me.see(sorted(task.name for task in me.nursery.child_tasks))
        await checkpoint()
        trio.lowlevel.current_task().name = "renamed"

    return World((park, unpark, sleep, wake, rename), lambda: len(parked))


LOCAL = trio.lowlevel.RunVar("LOCAL")


def run_variables():
    with contextlib.suppress(RuntimeError):  # outside of a run, where the acts are only counted
        LOCAL.set(0)

    async def add(me):
        seen = LOCAL.get()
        await checkpoint()
        LOCAL.set(seen + 1)

    async def reset(me):
        token = LOCAL.set(me.name)
        await checkpoint()
        LOCAL.reset(token)

    async def look(me):
        await checkpoint()
        me.see(LOCAL.get())

    return World((add, reset, look), LOCAL.get)


def idle():
    """Who waits for all others to be blocked, and what trio says of all tasks."""
    state = []

    async def wait(me):
        await trio.testing.wait_all_tasks_blocked()
        me.see(len(state))

    async def work(me):
        await checkpoint()
        state.append(me.name)
        await checkpoint()

    async def count(me):
        await checkpoint()
        me.see(trio.lowlevel.current_statistics().tasks_living)

    async def runnable(me):
        await checkpoint()
        me.see(trio.lowlevel.current_statistics().tasks_runnable)

    return World((wait, work, count, runnable), lambda: state)


KINDS = (
    children,
    failing,
    managers,
    low_level,
    run_variables,
    idle,
)
