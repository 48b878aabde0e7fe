"""Trio's locks, events, conditions and channels."""

from __future__ import annotations

import trio
import trio.testing
from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def a_lock():
    lock = trio.Lock()
    order = []

    async def hold(me):
        async with lock:
            order.append(me.name)
            await checkpoint()

    async def twice(me):
        async with lock:
            pass
        async with lock:
            order.append(me.name)

    async def attempt(me):
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            me.see("taken")
        else:
            await checkpoint()
            lock.release()

    async def look(me):
        await checkpoint()
        me.see((lock.locked(), lock.statistics().tasks_waiting))

    return World((hold, twice, attempt, look), lambda: order)


def semaphores():
    semaphore = trio.Semaphore(1, max_value=2)
    limiter = trio.CapacityLimiter(1)
    most = []

    async def hold(me):
        async with semaphore:
            most.append(semaphore.value)
            await checkpoint()

    async def release(me):
        await checkpoint()
        if semaphore.value < 2:
            semaphore.release()

    async def limited(me):
        async with limiter:
            most.append(me.name)
            await checkpoint()

    async def widen(me):
        await checkpoint()
        limiter.total_tokens = 2

    async def look(me):
        await checkpoint()
        me.see((semaphore.value, limiter.borrowed_tokens, limiter.statistics().tasks_waiting))

    return World((hold, release, limited, widen, look), lambda: most)


def events():
    event, other = trio.Event(), trio.Event()

    async def set_it(me):
        await checkpoint()
        event.set()

    async def wait(me):
        with trio.move_on_after(5):
            await event.wait()
            other.set()
            me.see("woken")

    async def look(me):
        me.see(event.is_set())
        await checkpoint()
        me.see(other.is_set())

    async def waiting(me):
        await checkpoint()
        me.see(event.statistics().tasks_waiting)

    return World((set_it, wait, look, waiting), lambda: (event.is_set(), other.is_set()))


def for_ever():
    """An event that may never be set: who waits may wait for ever."""
    event = trio.Event()
    state = {"ready": False}

    async def tell(me):
        state["ready"] = True
        await checkpoint()
        event.set()

    async def wait(me):
        if not state["ready"]:
            await checkpoint()
            await event.wait()

    async def renew(me):
        nonlocal event
        await checkpoint()
        event = trio.Event()

    return World((tell, wait, renew), lambda: event.is_set())  # noqa: PLW0108 (it may be another)


def a_condition():
    condition = trio.Condition()
    items = []

    async def put(me):
        async with condition:
            items.append(me.name)
            condition.notify()

    async def take(me):
        with trio.move_on_after(3):
            async with condition:
                while not items:
                    await condition.wait()
                me.see(items.pop())

    async def all_of_them(me):
        async with condition:
            items.extend("xy")
            condition.notify_all()

    return World((put, take, all_of_them), lambda: items)


def channels():
    """Values go through a channel, and both sides go on changing them."""
    send, receive = trio.open_memory_channel(1)
    hand, take = trio.open_memory_channel(0)

    async def put(me):
        value = [me.name]
        try:
            send.send_nowait(value)
        except trio.WouldBlock:
            me.see("full")
        await checkpoint()
        value.append("after")

    async def get(me):
        with trio.move_on_after(2):
            value = await receive.receive()
            value.append(me.name)
            await checkpoint()
            me.see(list(value))

    async def hand_over(me):
        value = {"n": 0}
        with trio.move_on_after(2) as scope:
            await hand.send(value)
            value["n"] += 1
        me.see((scope.cancelled_caught, value["n"]))

    async def take_over(me):
        try:
            value = take.receive_nowait()
        except trio.WouldBlock:
            me.see("nobody")
        else:
            value["n"] += 10
            await checkpoint()
            me.see(value["n"])

    async def look(me):
        await checkpoint()
        told = send.statistics()
        me.see((told.current_buffer_used, told.tasks_waiting_receive, hand.statistics().tasks_waiting_send))

    return World((put, get, hand_over, take_over, look))


def closed_channels():
    send, receive = trio.open_memory_channel(1)

    async def put(me):
        try:
            async with send.clone() as mine:
                await mine.send(me.name)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            me.see(type(error).__name__)

    async def close(me):
        await checkpoint()
        send.close()

    async def close_all(me):
        await checkpoint()
        receive.close()
        send.close()

    async def each(me):
        try:
            async for value in receive:
                me.see(value)
        except trio.ClosedResourceError:
            me.see("closed")

    return World((put, close, close_all, each), lambda: send.statistics().open_send_channels)


KINDS = (
    a_lock,
    semaphores,
    events,
    for_ever,
    a_condition,
    channels,
    closed_channels,
)
