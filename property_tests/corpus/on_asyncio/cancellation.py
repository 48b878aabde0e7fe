"""Timeouts at an awkward await, on asyncio.

`cancelled cleanup` is left out: asyncio cancels once, and lets the cleanup await.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .form import HandOver, OnAsyncio, Pair, pause


class DroppedItem(OnAsyncio):
    tasks = ("consume", "produce")

    def __init__(self):
        self.items = HandOver()
        self.taken = []

    async def consume(self):
        try:
            async with asyncio.timeout(1):
                item = await self.items.receive()
                await pause()
                self.taken.append(item)
        except TimeoutError:
            pass
        await self.take_the_rest()

    async def take_the_rest(self):
        while not self.items.over:
            item = await self.items.receive()
            if item is not None:
                self.taken.append(item)

    async def produce(self):
        await self.items.send("item")
        await self.items.send(None)  # there are no more

    def holds(self):
        return self.taken == ["item"]


class DroppedItemTwin(DroppedItem):
    async def consume(self):
        item = None
        try:
            async with asyncio.timeout(1):
                item = await self.items.receive()
        except TimeoutError:
            pass
        if item is not None:
            await pause()
            self.taken.append(item)
        await self.take_the_rest()


class ReplyToAnother(OnAsyncio):
    tasks = ("echo", "hurried", "patient")

    def __init__(self):
        self.requests = asyncio.Queue()
        self.replies = asyncio.Queue()
        self.connection = asyncio.Lock()
        self.clients = 2

    async def echo(self):
        while (key := await self.requests.get()) is not None:
            await self.replies.put((key, f"value of {key}"))

    async def get(self, key):
        async with self.connection:
            await pause()
            await self.requests.put(key)
            return await self.read(key)

    async def read(self, _key):
        _, value = await self.replies.get()
        return value

    async def hurried(self):
        try:
            async with asyncio.timeout(1):
                await self.get("a")
        except TimeoutError:
            pass
        await self.leave()

    async def patient(self):
        value = await self.get("b")
        await self.leave()
        assert value == "value of b"

    async def leave(self):
        self.clients -= 1
        if not self.clients:
            await self.requests.put(None)


class ReplyToAnotherTwin(ReplyToAnother):
    async def read(self, key):
        while True:
            answered, value = await self.replies.get()
            if answered == key:
                return value


class LeakedSlot(OnAsyncio):
    tasks = ("hurried", "request")

    def __init__(self):
        self.slots = asyncio.Semaphore(1)

    async def request(self):
        await self.slots.acquire()
        await pause()  # inside the acquire of trio
        await pause()
        try:
            await pause()
        finally:
            self.slots.release()

    async def hurried(self):
        try:
            async with asyncio.timeout(1):
                await self.request()
        except TimeoutError:
            pass

    def holds(self):
        return not self.slots.locked()


class LeakedSlotTwin(LeakedSlot):
    async def request(self):
        async with self.slots:
            await pause()
            await pause()
            await pause()


class WakeupOfACancelled(OnAsyncio):
    tasks = ("impatient", "patient", "release")

    def __init__(self):
        self.free = 0
        self.waiters = deque()

    async def acquire(self):
        while not self.free:
            woken = asyncio.Event()
            self.waiters.append(woken)
            try:
                await woken.wait()
                await pause()
            except asyncio.CancelledError:
                if woken in self.waiters:
                    self.waiters.remove(woken)
                else:
                    self.hand_on()
                raise
        self.free -= 1

    def hand_on(self):
        """Do nothing with the wake-up of a cancelled waiter."""

    def wake(self):
        if self.free and self.waiters:
            self.waiters.popleft().set()

    async def release(self):
        self.free += 1
        self.wake()

    async def patient(self):
        await self.acquire()
        await self.release()

    async def impatient(self):
        try:
            async with asyncio.timeout(1):
                await self.patient()
        except TimeoutError:
            pass


class WakeupOfACancelledTwin(WakeupOfACancelled):
    def hand_on(self):
        self.wake()


PAIRS = {
    "dropped item": Pair(DroppedItem, DroppedItemTwin),
    "reply to another": Pair(ReplyToAnother, ReplyToAnotherTwin),
    "leaked slot": Pair(LeakedSlot, LeakedSlotTwin),
    "wake-up of a cancelled waiter": Pair(WakeupOfACancelled, WakeupOfACancelledTwin),
}
