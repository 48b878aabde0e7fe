"""Cancellation at an awkward await: cleanup that is cut short, slots, items and wake-ups that get lost."""

from __future__ import annotations

import math
from collections import deque

import trio
from trio.lowlevel import checkpoint

from .entry import Entry, side_by_side


async def cancelled_cleanup():
    """The cleanup awaits in the cancelled scope, so its second half never runs."""
    scope = trio.CancelScope()
    held = False

    async def work():
        nonlocal held
        with scope:
            held = True
            try:
                await checkpoint()
            finally:
                await checkpoint()  # tells the server
                held = False

    async def stop():
        scope.cancel()

    await side_by_side(work, stop)
    assert not held


async def cancelled_cleanup_twin():
    """Holds: the cleanup is shielded, so it runs to its end whenever the cancellation comes."""
    scope = trio.CancelScope()
    held = False

    async def work():
        nonlocal held
        with scope:
            held = True
            try:
                await checkpoint()
            finally:
                with trio.CancelScope(shield=True):
                    await checkpoint()
                held = False

    async def stop():
        scope.cancel()

    await side_by_side(work, stop)
    assert not held


async def dropped_item():
    """The timeout strikes after the item was received, and before it was put down."""
    send, receive = trio.open_memory_channel(0)
    taken = []

    async def consume():
        with trio.move_on_after(1):
            item = await receive.receive()
            await checkpoint()  # acknowledges
            taken.append(item)
        taken.extend([late async for late in receive])

    async def produce():
        async with send:
            await send.send("item")

    await side_by_side(consume, produce)
    assert taken == ["item"]


async def dropped_item_twin():
    """Holds: the scope covers the receive alone, which either raises or gives the item, never both."""
    send, receive = trio.open_memory_channel(0)
    taken = []

    async def consume():
        item = None
        with trio.move_on_after(1):
            item = await receive.receive()
        if item is not None:
            await checkpoint()
            taken.append(item)
        taken.extend([late async for late in receive])

    async def produce():
        async with send:
            await send.send("item")

    await side_by_side(consume, produce)
    assert taken == ["item"]


async def echo(requests, replies):
    async for key in requests:
        await replies.send((key, f"value of {key}"))


async def reply_to_another():
    """A request is cancelled before its reply is read, and the next one reads it."""
    requests, requested = trio.open_memory_channel(math.inf)
    replies, replied = trio.open_memory_channel(math.inf)
    connection = trio.Lock()

    async def get(key):
        async with connection:
            await requests.send(key)
            _, value = await replied.receive()
            return value

    async def hurried():
        with trio.move_on_after(1):
            await get("a")

    async def patient():
        assert await get("b") == "value of b"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, requested, replies)
        async with requests:
            await side_by_side(hurried, patient)


async def reply_to_another_twin():
    """Holds: replies come in the order of the requests, and whoever reads skips those to others."""
    requests, requested = trio.open_memory_channel(math.inf)
    replies, replied = trio.open_memory_channel(math.inf)
    connection = trio.Lock()

    async def get(key):
        async with connection:
            await requests.send(key)
            while True:
                answered, value = await replied.receive()
                if answered == key:
                    return value

    async def hurried():
        with trio.move_on_after(1):
            await get("a")

    async def patient():
        assert await get("b") == "value of b"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo, requested, replies)
        async with requests:
            await side_by_side(hurried, patient)


async def leaked_slot():
    """The request is cancelled while it connects: it has its slot, and is not yet where the slot is given back."""
    slots = trio.Semaphore(1)

    async def request():
        await slots.acquire()
        await checkpoint()  # connects
        try:
            await checkpoint()  # sends and receives
        finally:
            slots.release()

    async def hurried():
        with trio.move_on_after(1):
            await request()

    await side_by_side(hurried, request)
    assert slots.value == 1


async def leaked_slot_twin():
    """Holds: from the slot's taking on, every way out leads through its giving back."""
    slots = trio.Semaphore(1)

    async def request():
        async with slots:
            await checkpoint()
            await checkpoint()

    async def hurried():
        with trio.move_on_after(1):
            await request()

    await side_by_side(hurried, request)
    assert slots.value == 1


class Slots:
    """A home-made semaphore without slots at first; `hand_on` says what a cancelled waiter does with its wake-up."""

    def __init__(self, *, hand_on):
        self._free = 0
        self._waiters = deque()
        self._hand_on = hand_on

    async def acquire(self):
        while not self._free:
            woken = trio.Event()
            self._waiters.append(woken)
            try:
                await woken.wait()
                await checkpoint()  # gets the lock of the statistics back
            except trio.Cancelled:
                if woken in self._waiters:
                    self._waiters.remove(woken)
                elif self._hand_on:
                    self._wake()
                raise
        self._free -= 1

    def release(self):
        self._free += 1
        self._wake()

    def _wake(self):
        if self._free and self._waiters:
            self._waiters.popleft().set()


async def share_a_slot(slots):
    async def impatient():
        with trio.move_on_after(1):
            await slots.acquire()
            slots.release()

    async def patient():
        await slots.acquire()
        slots.release()

    async def free():
        slots.release()

    await side_by_side(impatient, patient, free)


async def wakeup_of_a_cancelled():
    """The only wake-up goes to a waiter whose time runs out before it can use it; the other one sleeps on."""
    await share_a_slot(Slots(hand_on=False))


async def wakeup_of_a_cancelled_twin():
    """Holds: a waiter that was woken and is cancelled wakes the next one, as long as a slot is free."""
    await share_a_slot(Slots(hand_on=True))


ENTRIES = (
    Entry(
        name="cancelled cleanup",
        kind="cancellation in cleanup",
        depth=1,
        source="agronholm/anyio#366: await in a finally block and cancellation of a task group; python-trio/trio#1389",
        bug=cancelled_cleanup,
        twin=cancelled_cleanup_twin,
        shows="exception",
    ),
    Entry(
        name="dropped item",
        kind="timeout drops a received item",
        depth=2,
        source="tornadoweb/tornado#2826: Queue.get loses its result on CancelledError; python/asyncio#201",
        bug=dropped_item,
        twin=dropped_item_twin,
        shows="exception",
        needs_clock=True,
    ),
    Entry(
        name="reply to another",
        kind="cancelled half way",
        depth=2,
        source="redis/redis-py#2624: off by one, a cancelled command leaves its reply on the connection",
        bug=reply_to_another,
        twin=reply_to_another_twin,
        shows="exception",
        needs_clock=True,
    ),
    Entry(
        name="leaked slot",
        kind="slot leak",
        depth=2,
        source="encode/httpcore#1093: cancelling requests under contention leaks connection slots",
        bug=leaked_slot,
        twin=leaked_slot_twin,
        shows="deadlock",
        or_shows="exception",
        needs_clock=True,
    ),
    Entry(
        name="wake-up of a cancelled waiter",
        kind="missed wake-up",
        depth=2,
        source="python/cpython#112202: race between Condition.notify and Task.cancel; python/asyncio#270",
        bug=wakeup_of_a_cancelled,
        twin=wakeup_of_a_cancelled_twin,
        shows="lost wake-up",
        needs_clock=True,
    ),
)
