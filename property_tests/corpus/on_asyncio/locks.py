"""Mutual exclusion, on asyncio."""

from __future__ import annotations

import asyncio

from .form import HandOver, Lot, OnAsyncio, Pair, pause


class LockOrder(OnAsyncio):
    tasks = (("transfer", "a", "b"), ("transfer", "b", "a"))

    def __init__(self):
        self.balances = {"a": 10, "b": 10}
        self.locks = {name: asyncio.Lock() for name in self.balances}

    def sort(self, source, target):
        return source, target

    async def transfer(self, source, target):
        first, second = self.sort(source, target)
        async with self.locks[first]:
            await pause()
            await pause()
            async with self.locks[second]:
                await pause()
                self.balances[source] -= 1
                self.balances[target] += 1

    def holds(self):
        return self.balances == {"a": 10, "b": 10}


class LockOrderTwin(LockOrder):
    def sort(self, source, target):
        return sorted([source, target])


class TwoPhilosophers(OnAsyncio):
    tasks = (("dine", 0), ("dine", 1))

    def __init__(self):
        self.forks = [asyncio.Lock(), asyncio.Lock()]
        self.meals = 0

    async def dine(self, seat):
        async with self.forks[seat]:
            await pause()
            await pause()
            async with self.forks[1 - seat]:
                await pause()
                self.meals += 1

    def holds(self):
        return self.meals == 2


class TwoPhilosophersTwin(TwoPhilosophers):
    tasks = (("sit_and_dine", 0), ("sit_and_dine", 1))

    def __init__(self):
        super().__init__()
        self.footman = asyncio.Lock()  # a semaphore that lets one in

    async def sit_and_dine(self, seat):
        async with self.footman:
            await pause()
            await self.dine(seat)


class ThreePhilosophers(OnAsyncio):
    tasks = (("dine", 0), ("dine", 1), ("dine", 2))

    def __init__(self):
        self.forks = [asyncio.Lock() for _ in range(3)]
        self.meals = 0

    def sort(self, left, right):
        return left, right

    async def dine(self, seat):
        first, second = self.sort(seat, (seat + 1) % 3)
        async with self.forks[first]:
            await pause()
            async with self.forks[second]:
                await pause()
                self.meals += 1

    def holds(self):
        return self.meals == 3


class ThreePhilosophersTwin(ThreePhilosophers):
    def sort(self, left, right):
        return sorted([left, right])


class SendUnderLock(OnAsyncio):
    tasks = ("serve", "ask")

    def __init__(self):
        self.lock = asyncio.Lock()
        self.requests = HandOver()
        self.served = []

    async def serve(self):
        async with self.lock:
            await pause()
            await pause()
        self.served.append(await self.requests.receive())

    async def ask(self):
        async with self.lock:
            await pause()
            await self.requests.send("request")

    def holds(self):
        return self.served == ["request"]


class SendUnderLockTwin(SendUnderLock):
    async def ask(self):
        async with self.lock:
            await pause()
            await pause()
        await self.requests.send("request")


class SharedLock:
    def __init__(self):
        self._readers = 0
        self._writing = False
        self._changed = Lot()

    async def read(self):
        while self._writing:
            await self._changed.park()
        self._readers += 1
        await pause()

    async def upgrade(self):
        while self._readers > 1:
            await self._changed.park()
        self._readers = 0
        self._writing = True

    def release_read(self):
        self._readers -= 1
        self._changed.unpark_all()

    def release_write(self):
        self._writing = False
        self._changed.unpark_all()


class TwoUpgrades(OnAsyncio):
    tasks = ("increment", "increment", "look")

    def __init__(self):
        self.shared = SharedLock()
        self.value = 0

    async def increment(self):
        await self.shared.read()
        seen = self.value
        await self.shared.upgrade()
        self.value = seen + 1
        self.shared.release_write()

    async def look(self):
        await self.shared.read()
        assert self.value in {0, 1, 2}
        self.shared.release_read()

    def holds(self):
        return self.value == 2


class TwoUpgradesTwin(TwoUpgrades):
    tasks = ("increment_alone", "increment_alone", "look")

    def __init__(self):
        super().__init__()
        self.upgradable = asyncio.Lock()

    async def increment_alone(self):
        async with self.upgradable:
            await pause()
            await self.increment()


class DoubleRelease(OnAsyncio):
    tasks = ("close", "close")

    def __init__(self):
        self.slots = asyncio.BoundedSemaphore(1)
        self.slots._value = 0  # all are taken
        self.closed = False

    async def close(self):
        if not self.closed:
            await pause()
            self.closed = True
            self.slots.release()

    def holds(self):
        return not self.slots.locked()


class DoubleReleaseTwin(DoubleRelease):
    async def close(self):
        if not self.closed:
            self.closed = True
            await pause()
            self.slots.release()


class Hyman(OnAsyncio):
    tasks = (("process", 0), ("process", 1))

    def __init__(self):
        self.wants = [False, False]
        self.turn = self.inside = 0
        self.changed = Lot()

    async def process(self, me):
        self.wants[me] = True
        await pause()
        while self.turn != me:
            while self.wants[1 - me]:
                await self.changed.park()
            await pause()
            self.turn = me
        await self.be_inside(me)

    async def be_inside(self, me):
        self.inside += 1
        assert self.inside == 1
        await pause()
        self.inside -= 1
        self.wants[me] = False
        self.changed.unpark_all()


class HymanTwin(Hyman):
    async def process(self, me):
        self.wants[me] = True
        await pause()
        self.turn = 1 - me
        self.changed.unpark_all()
        await pause()
        while self.wants[1 - me] and self.turn != me:
            await self.changed.park()
        await self.be_inside(me)


PAIRS = {
    "lock order": Pair(LockOrder, LockOrderTwin),
    "two philosophers": Pair(TwoPhilosophers, TwoPhilosophersTwin),
    "three philosophers": Pair(ThreePhilosophers, ThreePhilosophersTwin),
    "send under a lock": Pair(SendUnderLock, SendUnderLockTwin),
    "two upgrades": Pair(TwoUpgrades, TwoUpgradesTwin),
    "double release": Pair(DoubleRelease, DoubleReleaseTwin),
    "hyman": Pair(Hyman, HymanTwin),
}
