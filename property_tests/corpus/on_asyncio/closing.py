"""Closing what others still use, on asyncio."""

from __future__ import annotations

import asyncio

from .form import Lot, OnAsyncio, Pair, pause


class IoAfterStop(OnAsyncio):
    tasks = ("add", "stop")

    def __init__(self):
        self.stopping = self.stopped = False
        self.pending = 1
        self.drained = asyncio.Event()

    def leave(self):
        self.pending -= 1
        if self.pending == 0:
            self.drained.set()

    async def add(self):
        if self.stopping:
            return
        await pause()
        self.pending += 1
        await pause()
        assert not self.stopped
        self.leave()

    async def stop(self):
        self.stopping = True
        self.leave()
        await self.drained.wait()
        self.stopped = True


class IoAfterStopTwin(IoAfterStop):
    async def add(self):
        if self.stopping:
            return
        self.pending += 1
        await pause()
        await pause()
        assert not self.stopped
        self.leave()


class Resolver:
    async def resolve(self):
        await pause()
        return "192.0.2.1"


class CloseDuringUse(OnAsyncio):
    tasks = ("connect", "close")

    def __init__(self):
        self.resolver = Resolver()
        self.closed = False
        self.addresses = []

    async def connect(self):
        if not self.closed:
            await pause()
            address = await self.resolver.resolve()
            self.addresses.append(address)

    async def close(self):
        await pause()
        self.closed = True
        self.resolver = None

    def holds(self):
        return self.closed


class CloseDuringUseTwin(CloseDuringUse):
    async def connect(self):
        await pause()
        if not self.closed:
            address = await self.resolver.resolve()
            self.addresses.append(address)


class CheckInAfterClose(OnAsyncio):
    tasks = ("check_in", "close")

    def __init__(self):
        self.opened = {"connection"}
        self.idle = []
        self.closed = False

    async def check_in(self):
        if self.closed:
            self.opened.discard("connection")
            return
        await pause()
        self.idle.append("connection")

    async def close(self):
        self.closed = True
        self.opened.difference_update(self.idle)
        self.idle.clear()

    def holds(self):
        return not self.opened


class CheckInAfterCloseTwin(CheckInAfterClose):
    async def check_in(self):
        await pause()
        if self.closed:
            self.opened.discard("connection")
        else:
            self.idle.append("connection")


class Connection:
    def __init__(self):
        self.user = None


class ResetAfterReturn(OnAsyncio):
    tasks = (("use", "ann"), ("use", "bob"))

    def __init__(self):
        self.pool = asyncio.Queue(1)
        self.pool.put_nowait(Connection())

    async def use(self, me):
        connection = await self.pool.get()
        await pause()  # inside the receive of trio
        connection.user = me
        await pause()
        assert connection.user == me
        await self.give_back(connection)

    async def give_back(self, connection):
        await self.pool.put(connection)
        await pause()  # inside the send of trio
        connection.user = None


class ResetAfterReturnTwin(ResetAfterReturn):
    async def give_back(self, connection):
        connection.user = None
        await self.pool.put(connection)


class AskAStoppedActor(OnAsyncio):
    tasks = ("act", "ask", "stop")

    def __init__(self):
        self.box = asyncio.Queue()

    async def act(self):
        while (letter := await self.box.get()) != "stop":
            letter.set()

    async def ask(self):
        answered = asyncio.Event()
        await self.box.put(answered)
        await answered.wait()

    async def stop(self):
        await self.box.put("stop")


class AskAStoppedActorTwin(AskAStoppedActor):
    def __init__(self):
        super().__init__()
        self.closed = False

    async def act(self):
        await super().act()
        while not self.box.empty():
            self.box.get_nowait().set()
        self.closed = True

    async def ask(self):
        if not self.closed:
            await super().ask()


class SentinelUnread(OnAsyncio):
    tasks = ("work", "use_and_shut_down")

    def __init__(self):
        self.jobs = asyncio.Queue()
        self.answered = asyncio.Event()
        self.settled = Lot()
        self.running = True
        self.unfinished = 0

    async def work(self):
        while self.running:
            await self.take_one()

    async def take_one(self):
        answer = await self.jobs.get()
        if answer is not None:
            answer.set()
            await pause()
        self.unfinished -= 1
        self.settled.unpark_all()
        return answer

    async def use_and_shut_down(self):
        self.unfinished += 1
        await self.jobs.put(self.answered)
        await self.answered.wait()
        self.running = False
        self.unfinished += 1
        await self.jobs.put(None)
        while self.unfinished:
            await self.settled.park()


class SentinelUnreadTwin(SentinelUnread):
    async def work(self):
        while await self.take_one() is not None:
            pass


PAIRS = {
    "request on a stopped driver": Pair(IoAfterStop, IoAfterStopTwin),
    "close during use": Pair(CloseDuringUse, CloseDuringUseTwin),
    "check-in after close": Pair(CheckInAfterClose, CheckInAfterCloseTwin),
    "reset after return": Pair(ResetAfterReturn, ResetAfterReturnTwin),
    "ask a stopped actor": Pair(AskAStoppedActor, AskAStoppedActorTwin),
    "sentinel unread": Pair(SentinelUnread, SentinelUnreadTwin),
}
