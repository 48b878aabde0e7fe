"""Waiting and waking: wake-ups that come too early, go to the wrong waiter, or find the place taken."""

from __future__ import annotations

from collections import deque

import trio
from trio.lowlevel import ParkingLot, checkpoint

from .entry import Entry, side_by_side


async def missed_wakeup():
    """The item comes between the look at the queue and the sleep, and nobody is asleep yet to be woken."""
    queue = []
    taken = []
    asleep = ParkingLot()

    async def consume():
        while not queue:
            await checkpoint()  # tells that it is idle
            await asleep.park()
        taken.append(queue.pop())

    async def produce():
        await checkpoint()
        queue.append("item")
        asleep.unpark()

    await side_by_side(consume, produce)
    assert taken == ["item"]


async def missed_wakeup_twin():
    """Holds: no await between the look and the sleep, so the item comes before the look or finds the sleeper."""
    queue = []
    taken = []
    asleep = ParkingLot()

    async def consume():
        await checkpoint()
        while not queue:
            await asleep.park()
        taken.append(queue.pop())

    async def produce():
        await checkpoint()
        queue.append("item")
        asleep.unpark()

    await side_by_side(consume, produce)
    assert taken == ["item"]


async def condition_if():
    """Another consumer takes the item after the notification, and the woken one does not look again."""
    queue = []
    taken = []
    filled = trio.Condition()

    async def consume():
        async with filled:
            if not queue:
                await filled.wait()
            taken.append(queue.pop(0))

    async def produce():
        for item in range(2):
            async with filled:
                queue.append(item)
                filled.notify()

    await side_by_side(consume, consume, produce)
    assert taken == [0, 1]


async def condition_if_twin():
    """Holds: a woken consumer looks again; whoever waits does so with an empty queue and an item still to come."""
    queue = []
    taken = []
    filled = trio.Condition()

    async def consume():
        async with filled:
            while not queue:
                await filled.wait()
            taken.append(queue.pop(0))

    async def produce():
        for item in range(2):
            async with filled:
                queue.append(item)
                filled.notify()

    await side_by_side(consume, consume, produce)
    assert taken == [0, 1]


async def one_condition():
    """A consumer's only notification goes to the other consumer, and the producer that needs it sleeps on."""
    buffer = []
    taken = []
    changed = trio.Condition()

    async def produce():
        async with changed:
            while buffer:
                await changed.wait()
            buffer.append("item")
            changed.notify()

    async def consume():
        async with changed:
            while not buffer:
                await changed.wait()
            taken.append(buffer.pop())
            changed.notify()

    await side_by_side(produce, produce, consume, consume)
    assert taken == ["item", "item"]


async def one_condition_twin():
    """Holds: producers and consumers wait apart, so each notification reaches one that can use it."""
    buffer = []
    taken = []
    lock = trio.Lock()
    filled = trio.Condition(lock)
    emptied = trio.Condition(lock)

    async def produce():
        async with lock:
            while buffer:
                await emptied.wait()
            buffer.append("item")
            filled.notify()

    async def consume():
        async with lock:
            while not buffer:
                await filled.wait()
            taken.append(buffer.pop())
            emptied.notify()

    await side_by_side(produce, produce, consume, consume)
    assert taken == ["item", "item"]


class Flag:
    """An event that can be cleared, as asyncio has, and trio no longer."""

    def __init__(self):
        self._event = trio.Event()

    def set(self):
        self._event.set()

    def clear(self):
        self._event = trio.Event()

    async def wait(self):
        await self._event.wait()


async def cleared_after_work():
    """The worker clears the flag after its batch, and with it the news of the job that came meanwhile."""
    jobs = []
    done = []
    flag = Flag()

    async def work():
        while len(done) < 2:
            await flag.wait()
            batch = jobs[:]
            jobs.clear()
            for job in batch:
                await checkpoint()
                done.append(job)
            flag.clear()

    async def order():
        for job in range(2):
            jobs.append(job)
            flag.set()
            await checkpoint()

    await side_by_side(work, order)
    assert done == [0, 1]


async def cleared_after_work_twin():
    """Holds: the flag is cleared in the step that takes the jobs, so a later job sets it again."""
    jobs = []
    done = []
    flag = Flag()

    async def work():
        while len(done) < 2:
            await flag.wait()
            flag.clear()
            batch = jobs[:]
            jobs.clear()
            for job in batch:
                await checkpoint()
                done.append(job)

    async def order():
        for job in range(2):
            jobs.append(job)
            flag.set()
            await checkpoint()

    await side_by_side(work, order)
    assert done == [0, 1]


async def pending_set_late():
    """The answer comes before the asker says that it waits for one; then it waits for a second."""
    pending = False
    answered = ParkingLot()

    async def answer():
        nonlocal pending
        pending = False
        answered.unpark()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await checkpoint()  # the request goes out
        pending = True
        while pending:
            await answered.park()


async def pending_set_late_twin():
    """Holds: the flag stands before anybody can answer, and is only lowered after that."""
    pending = True
    answered = ParkingLot()

    async def answer():
        nonlocal pending
        pending = False
        answered.unpark()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await checkpoint()
        while pending:
            await answered.park()


async def slot_of_a_newcomer():
    """A newcomer takes the slot before the woken waiter comes to run, and the waiter takes it too."""
    free = 1
    most = 0
    waiters = deque()

    async def connect():
        nonlocal free, most
        if not free:
            waiters.append(trio.Event())
            await waiters[-1].wait()
        free -= 1
        most = max(most, 1 - free)
        await checkpoint()  # talks to the server
        free += 1
        if waiters:
            waiters.popleft().set()

    await side_by_side(connect, connect, connect)
    assert most == 1


async def slot_of_a_newcomer_twin():
    """Holds: a woken waiter looks again, and whoever took its slot wakes a waiter in turn."""
    free = 1
    most = 0
    waiters = deque()

    async def connect():
        nonlocal free, most
        while not free:
            waiters.append(trio.Event())
            await waiters[-1].wait()
        free -= 1
        most = max(most, 1 - free)
        await checkpoint()
        free += 1
        if waiters:
            waiters.popleft().set()

    await side_by_side(connect, connect, connect)
    assert most == 1


ENTRIES = (
    Entry(
        name="missed wake-up",
        kind="missed wake-up",
        depth=2,
        source="Farchi, Nir, Ur, Concurrent Bug Patterns and How to Test Them, IPDPS 2003: losing a notify",
        bug=missed_wakeup,
        twin=missed_wakeup_twin,
        shows="lost wake-up",
    ),
    Entry(
        name="condition with if",
        kind="condition with if",
        depth=2,
        source="Lampson, Redell, Experience with Processes and Monitors in Mesa, CACM 23(2), 1980: a notify is a hint",
        bug=condition_if,
        twin=condition_if_twin,
        shows="exception",
    ),
    Entry(
        name="one condition for two kinds of waiters",
        kind="wake-up to the wrong waiter",
        depth=3,
        source="Arpaci-Dusseau, Operating Systems: Three Easy Pieces, Condition Variables: single condition and while",
        bug=one_condition,
        twin=one_condition_twin,
        shows="lost wake-up",
    ),
    Entry(
        name="flag cleared after the work",
        kind="event cleared at the wrong time",
        depth=2,
        source="python-trio/trio#637: wait, work, clear races with a set",
        bug=cleared_after_work,
        twin=cleared_after_work_twin,
        shows="lost wake-up",
    ),
    Entry(
        name="pending set late",
        kind="order violation",
        depth=1,
        source="Lu, Park, Seo, Zhou, Learning from Mistakes, ASPLOS 2008: two writes in the wrong order, Mozilla",
        bug=pending_set_late,
        twin=pending_set_late_twin,
        shows="lost wake-up",
    ),
    Entry(
        name="slot of a newcomer",
        kind="wake-up without a second look",
        depth=3,
        source="aio-libs/aiohttp#4936: BaseConnector exceeds its connection limit",
        bug=slot_of_a_newcomer,
        twin=slot_of_a_newcomer_twin,
        shows="exception",
    ),
)
