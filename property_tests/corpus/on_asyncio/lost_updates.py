"""State that is read, awaited over, and written, on asyncio."""

from __future__ import annotations

import asyncio

from .form import OnAsyncio, Pair, pause


class LostUpdate(OnAsyncio):
    tasks = ("deposit", "deposit")

    def __init__(self):
        self.balance = 0

    async def deposit(self):
        seen = self.balance
        await pause()
        self.balance = seen + 10

    def holds(self):
        return self.balance == 20


class LostUpdateTwin(LostUpdate):
    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def deposit(self):
        async with self.lock:
            await pause()
            seen = self.balance
            await pause()
            self.balance = seen + 10


class DoubleInitialisation(OnAsyncio):
    tasks = ("request", "request")

    def __init__(self):
        self.pools = []

    async def request(self):
        if not self.pools:
            await pause()
            self.pools.append("pool")
        await pause()

    def holds(self):
        return len(self.pools) == 1


class DoubleInitialisationTwin(DoubleInitialisation):
    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def request(self):
        async with self.lock:
            await pause()
            if not self.pools:
                await pause()
                self.pools.append("pool")
        await pause()


class NoSecondLook(OnAsyncio):
    tasks = ("call", "call")

    def __init__(self):
        self.expired = True
        self.refreshed = 0
        self.lock = asyncio.Lock()

    async def call(self):
        if self.expired:
            async with self.lock:
                await pause()
                await pause()
                self.refreshed += 1
                self.expired = False

    def holds(self):
        return self.refreshed == 1


class NoSecondLookTwin(NoSecondLook):
    async def call(self):
        if self.expired:
            async with self.lock:
                await pause()
                if self.expired:
                    await pause()
                    self.refreshed += 1
                    self.expired = False


class Session:
    def __init__(self):
        self.ready = False

    async def open(self):
        await pause()
        self.ready = True


class HalfBuilt(OnAsyncio):
    tasks = ("request", "request")

    def __init__(self):
        self.session = None

    async def request(self):
        if self.session is None:
            self.session = Session()
            await self.session.open()
        assert self.session.ready


class HalfBuiltTwin(HalfBuilt):
    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def request(self):
        async with self.lock:
            await pause()
            if self.session is None:
                opening = Session()
                await opening.open()
                self.session = opening
        assert self.session.ready


class TornPair(OnAsyncio):
    tasks = ("replace", "read")

    def __init__(self):
        self.offset, self.length = 0, 6

    async def replace(self):
        self.offset = 4
        await pause()
        self.length = 2

    async def read(self):
        await pause()
        assert self.offset + self.length <= 6


class TornPairTwin(TornPair):
    async def replace(self):
        await pause()
        self.offset, self.length = 4, 2


class LimitCheckedEarly(OnAsyncio):
    tasks = ("call", "call")

    def __init__(self):
        self.inside = self.most = 0

    async def call(self):
        if self.inside < 1:
            await pause()
            self.inside += 1
            self.most = max(self.most, self.inside)
            await pause()
            self.inside -= 1

    def holds(self):
        return self.most <= 1


class LimitCheckedEarlyTwin(LimitCheckedEarly):
    async def call(self):
        if self.inside < 1:
            self.inside += 1
            await pause()
            self.most = max(self.most, self.inside)
            await pause()
            self.inside -= 1


PAIRS = {
    "lost update": Pair(LostUpdate, LostUpdateTwin),
    "double initialisation": Pair(DoubleInitialisation, DoubleInitialisationTwin),
    "no second look": Pair(NoSecondLook, NoSecondLookTwin),
    "half built": Pair(HalfBuilt, HalfBuiltTwin),
    "torn pair": Pair(TornPair, TornPairTwin),
    "limit checked early": Pair(LimitCheckedEarly, LimitCheckedEarlyTwin),
}
