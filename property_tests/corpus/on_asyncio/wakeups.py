"""Waiting and waking, on asyncio."""

from __future__ import annotations

import asyncio
from collections import deque

from .form import Lot, OnAsyncio, Pair, pause


class MissedWakeup(OnAsyncio):
    tasks = ("consume", "produce")

    def __init__(self):
        self.queue = []
        self.taken = []
        self.asleep = Lot()

    async def consume(self):
        while not self.queue:
            await pause()
            await self.asleep.park()
        self.taken.append(self.queue.pop())

    async def produce(self):
        await pause()
        self.queue.append("item")
        self.asleep.unpark()

    def holds(self):
        return self.taken == ["item"]


class MissedWakeupTwin(MissedWakeup):
    async def consume(self):
        await pause()
        while not self.queue:
            await self.asleep.park()
        self.taken.append(self.queue.pop())


class ConditionIf(OnAsyncio):
    tasks = ("consume", "consume", "produce")

    def __init__(self):
        self.queue = []
        self.taken = []
        self.filled = asyncio.Condition()

    async def consume(self):
        async with self.filled:
            await pause()
            if not self.queue:
                await self.filled.wait()
            self.taken.append(self.queue.pop(0))

    async def produce(self):
        for item in range(2):
            async with self.filled:
                await pause()
                self.queue.append(item)
                self.filled.notify()
            await pause()  # the notified one asks for the lock in a step of its own, and in trio at once

    def holds(self):
        return self.taken == [0, 1]


class ConditionIfTwin(ConditionIf):
    async def consume(self):
        async with self.filled:
            await pause()
            while not self.queue:
                await self.filled.wait()
            self.taken.append(self.queue.pop(0))


class OneCondition(OnAsyncio):
    tasks = ("produce", "produce", "consume", "consume")

    def __init__(self):
        self.buffer = []
        self.taken = []
        self.lock = asyncio.Lock()
        self.filled = self.emptied = asyncio.Condition(self.lock)

    async def produce(self):
        async with self.lock:
            await pause()
            while self.buffer:
                await self.emptied.wait()
            self.buffer.append("item")
            self.filled.notify()

    async def consume(self):
        async with self.lock:
            await pause()
            while not self.buffer:
                await self.filled.wait()
            self.taken.append(self.buffer.pop())
            self.emptied.notify()

    def holds(self):
        return self.taken == ["item", "item"]


class OneConditionTwin(OneCondition):
    def __init__(self):
        super().__init__()
        self.emptied = asyncio.Condition(self.lock)


class ClearedAfterWork(OnAsyncio):
    tasks = ("work", "order")

    def __init__(self):
        self.jobs = []
        self.done = []
        self.flag = asyncio.Event()

    async def work(self):
        while len(self.done) < 2:
            await self.flag.wait()
            await pause()
            batch = self.jobs[:]
            self.jobs.clear()
            for job in batch:
                await pause()
                self.done.append(job)
            self.flag.clear()

    async def order(self):
        for job in range(2):
            self.jobs.append(job)
            self.flag.set()
            await pause()

    def holds(self):
        return self.done == [0, 1]


class ClearedAfterWorkTwin(ClearedAfterWork):
    async def work(self):
        while len(self.done) < 2:
            await self.flag.wait()
            await pause()
            self.flag.clear()
            batch = self.jobs[:]
            self.jobs.clear()
            for job in batch:
                await pause()
                self.done.append(job)


class PendingSetLate(OnAsyncio):
    tasks = ("ask", "answer")

    def __init__(self):
        self.pending = False
        self.answered = Lot()

    async def ask(self):
        await pause()
        self.pending = True
        while self.pending:
            await self.answered.park()

    async def answer(self):
        self.pending = False
        self.answered.unpark()


class PendingSetLateTwin(PendingSetLate):
    def __init__(self):
        super().__init__()
        self.pending = True

    async def ask(self):
        await pause()
        while self.pending:
            await self.answered.park()


class SlotOfANewcomer(OnAsyncio):
    tasks = ("connect", "connect", "connect")

    def __init__(self):
        self.free = 1
        self.most = 0
        self.waiters = deque()

    async def connect(self):
        if not self.free:
            await self.wait()
        await self.use()

    async def wait(self):
        woken = asyncio.Event()
        self.waiters.append(woken)
        await woken.wait()

    async def use(self):
        self.free -= 1
        self.most = max(self.most, 1 - self.free)
        await pause()
        self.free += 1
        if self.waiters:
            self.waiters.popleft().set()

    def holds(self):
        return self.most == 1


class SlotOfANewcomerTwin(SlotOfANewcomer):
    async def connect(self):
        while not self.free:
            await self.wait()
        await self.use()


PAIRS = {
    "missed wake-up": Pair(MissedWakeup, MissedWakeupTwin),
    "condition with if": Pair(ConditionIf, ConditionIfTwin),
    "one condition for two kinds of waiters": Pair(OneCondition, OneConditionTwin),
    "flag cleared after the work": Pair(ClearedAfterWork, ClearedAfterWorkTwin),
    "pending set late": Pair(PendingSetLate, PendingSetLateTwin),
    "slot of a newcomer": Pair(SlotOfANewcomer, SlotOfANewcomerTwin),
}
