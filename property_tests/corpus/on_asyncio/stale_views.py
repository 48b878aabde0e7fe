"""What a task has seen does not hold any more, on asyncio."""

from __future__ import annotations

from property_tests.corpus.stale_views import names_from, three_nodes

from .form import OnAsyncio, Pair, pause


class StaleCache(OnAsyncio):
    tasks = ("read", "write")

    def __init__(self):
        self.database = "old"
        self.cache = {}

    async def read(self):
        if "key" not in self.cache:
            value = self.database
            await pause()
            self.cache["key"] = value

    async def write(self):
        self.database = "new"
        await pause()
        self.cache.pop("key", None)

    def holds(self):
        return self.cache.get("key", self.database) == self.database


class StaleCacheTwin(StaleCache):
    def __init__(self):
        super().__init__()
        self.lease = 0

    async def read(self):
        if "key" not in self.cache:
            mine = self.lease
            value = self.database
            await pause()
            if mine == self.lease:
                self.cache["key"] = value

    async def write(self):
        self.database = "new"
        await pause()
        self.cache.pop("key", None)
        self.lease += 1


class Aba(OnAsyncio):
    tasks = ("take_one", "take_the_second")

    def __init__(self):
        self.top = three_nodes()
        self.owned = []

    async def pop(self):
        while True:
            node, rest = self.top, self.top.rest
            await pause()
            if self.top is node:
                self.top = rest
                return node

    async def push(self, node):
        while True:
            node.rest = seen = self.top
            await pause()
            if self.top is seen:
                self.top = node
                return

    async def take_one(self):
        node = await self.pop()
        self.owned.append(node.name)

    async def take_the_second(self):
        first = await self.pop()
        second = await self.pop()
        self.owned.append(second.name)
        await self.push(first)

    def holds(self):
        return sorted([*self.owned, *names_from(self.top)]) == ["a", "b", "c"]


class AbaTwin(Aba):
    def __init__(self):
        super().__init__()
        self.tag = 0

    async def pop(self):
        while True:
            node, rest, seen = self.top, self.top.rest, self.tag
            await pause()
            if self.tag == seen:
                self.top, self.tag = rest, seen + 1
                return node

    async def push(self, node):
        while True:
            node.rest, seen = self.top, self.tag
            await pause()
            if self.tag == seen:
                self.top, self.tag = node, seen + 1
                return


class IteratorInvalidated(OnAsyncio):
    tasks = ("broadcast", "leave")

    def __init__(self):
        self.inboxes = {"ann": [], "bob": []}

    async def broadcast(self):
        for inbox in self.inboxes.values():
            await pause()
            inbox.append("news")

    async def leave(self):
        await pause()
        del self.inboxes["bob"]


class IteratorInvalidatedTwin(IteratorInvalidated):
    async def broadcast(self):
        for inbox in list(self.inboxes.values()):
            await pause()
            inbox.append("news")


class StaleRetry(OnAsyncio):
    tasks = ("commit", "commit")

    def __init__(self):
        self.version = 0

    async def commit(self):
        seen = self.version
        await pause()
        while self.version != seen:
            await pause()
        self.version += 1

    def holds(self):
        return self.version == 2


class StaleRetryTwin(StaleRetry):
    async def commit(self):
        while True:
            seen = self.version
            await pause()
            if self.version == seen:
                self.version += 1
                return


PAIRS = {
    "stale cache": Pair(StaleCache, StaleCacheTwin),
    "aba": Pair(Aba, AbaTwin),
    "iterator invalidated": Pair(IteratorInvalidated, IteratorInvalidatedTwin),
    "stale retry": Pair(StaleRetry, StaleRetryTwin),
}
