"""Messages and protocols, on asyncio. `count to infinity` is left out: its routers start tasks of their own."""

from __future__ import annotations

import asyncio
from collections import deque

from property_tests.corpus.messages import Frames

from .form import HandOver, OnAsyncio, Pair, pause


class MessageOrder(OnAsyncio):
    tasks = ("configure_and_ask", "relay", "serve")

    def __init__(self):
        self.to_relay = HandOver()
        self.to_service = asyncio.Queue(2)
        self.received = []

    async def configure_and_ask(self):
        await self.to_relay.send("configuration")
        await self.to_service.put("request")

    async def relay(self):
        message = await self.to_relay.receive()
        await pause()  # inside the receive of trio
        await self.to_service.put(message)

    async def serve(self):
        for _ in range(2):
            message = await self.to_service.get()
            self.received.append(message)

    def holds(self):
        return self.received == ["configuration", "request"]


class MessageOrderTwin(MessageOrder):
    async def configure_and_ask(self):
        await self.to_relay.send("configuration")
        await self.to_relay.send("request")

    async def relay(self):
        for _ in range(2):
            await super().relay()


class LateDelete(OnAsyncio):
    tasks = ("schedule", "delete")

    def __init__(self):
        self.orders = HandOver()
        self.results = {}

    async def schedule(self):
        self.results["sum"] = 1
        await self.orders.send(("sum", 1))
        self.results["sum"] = 2

    async def delete(self):
        key, _ = await self.orders.receive()
        await pause()
        self.results.pop(key)

    def holds(self):
        return self.results == {"sum": 2}


class LateDeleteTwin(LateDelete):
    async def delete(self):
        key, result = await self.orders.receive()
        await pause()
        if self.results[key] == result:
            del self.results[key]


class TwoCloses(OnAsyncio):
    tasks = ("close", "answer_close")

    def __init__(self):
        self.frames = Frames()

    async def close(self):
        if self.frames.open:
            await pause()
            self.frames.write_close()

    async def answer_close(self):
        await pause()
        if self.frames.open:
            self.frames.write_close()

    def holds(self):
        return not self.frames.open


class TwoClosesTwin(TwoCloses):
    async def close(self):
        await pause()
        if self.frames.open:
            self.frames.write_close()


class MailboxOverflow(OnAsyncio):
    tasks = ("tell", "listen")

    def __init__(self):
        self.mailbox = deque()
        self.read = []
        self.dropped = []

    async def tell(self):
        for message in range(3):
            if self.mailbox:
                self.dropped.append(self.mailbox[0])
                await pause()
                self.mailbox.popleft()
            self.mailbox.append(message)

    async def listen(self):
        while self.mailbox:
            self.read.append(self.mailbox.popleft())
            await pause()

    def holds(self):
        return sorted([*self.read, *self.dropped, *self.mailbox]) == [0, 1, 2]


class MailboxOverflowTwin(MailboxOverflow):
    async def tell(self):
        for message in range(3):
            if self.mailbox:
                self.dropped.append(self.mailbox.popleft())
                await pause()
            self.mailbox.append(message)


class TwoPhaseCommit(OnAsyncio):
    tasks = ("coordinate", ("take_part", 0), ("take_part", 1))

    def __init__(self):
        self.votes = asyncio.Queue(2)
        self.decisions = [asyncio.Queue(1) for _ in range(2)]
        self.outcomes = []

    async def coordinate(self):
        decision = "abort"
        try:
            async with asyncio.timeout(5):
                for _ in self.decisions:
                    await self.votes.get()
                decision = "commit"
        except TimeoutError:
            pass
        self.outcomes.append(decision)
        for queue in self.decisions:
            await queue.put(decision)

    async def take_part(self, number):
        await self.votes.put("yes")
        decision = "abort"
        try:
            async with asyncio.timeout(5):
                decision = await self.decisions[number].get()
        except TimeoutError:
            pass
        self.outcomes.append(decision)

    def holds(self):
        return len(set(self.outcomes)) == 1


class TwoPhaseCommitTwin(TwoPhaseCommit):
    async def take_part(self, number):
        await self.votes.put("yes")
        self.outcomes.append(await self.decisions[number].get())


PAIRS = {
    "message order": Pair(MessageOrder, MessageOrderTwin),
    "late delete": Pair(LateDelete, LateDeleteTwin),
    "two closes": Pair(TwoCloses, TwoClosesTwin),
    "mailbox overflow": Pair(MailboxOverflow, MailboxOverflowTwin),
    "two-phase commit": Pair(TwoPhaseCommit, TwoPhaseCommitTwin),
}
