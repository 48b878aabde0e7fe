"""Starting, restarting and meeting, on asyncio."""

from __future__ import annotations

import asyncio

from .form import Lot, OnAsyncio, Pair, pause


class ParentSetsLate(OnAsyncio):
    tasks = ("parent", "child")

    def __init__(self):
        self.handle = None

    async def child(self):
        await pause()
        assert self.handle is not None

    async def parent(self):
        await pause()
        self.handle = "thread"
        await pause()


class ParentSetsLateTwin(ParentSetsLate):
    def __init__(self):
        super().__init__()
        self.started = asyncio.Event()

    async def parent(self):
        await pause()
        self.handle = "thread"
        self.started.set()
        await pause()

    async def child(self):
        await self.started.wait()
        await super().child()


class CallBeforeListening(OnAsyncio):
    tasks = ("serve", "call")

    def __init__(self):
        self.addresses = {}
        self.started = asyncio.Event()

    async def serve(self):
        await pause()
        box = self.addresses["api"] = asyncio.Queue(1)
        self.started.set()
        await box.get()

    async def call(self):
        await self.addresses["api"].put("hello")


class CallBeforeListeningTwin(CallBeforeListening):
    async def call(self):
        await self.started.wait()
        await super().call()


class ReadyTooEarly(OnAsyncio):
    tasks = ("subscribe", "publish")

    def __init__(self):
        self.subscribers = []
        self.inbox = []
        self.started = asyncio.Event()

    async def subscribe(self):
        self.started.set()
        await pause()
        self.subscribers.append(self.inbox)

    async def publish(self):
        await self.started.wait()
        await pause()  # the start returns
        for message in ("first", "second"):
            for subscriber in self.subscribers:
                subscriber.append(message)
            await pause()

    def holds(self):
        return self.inbox == ["first", "second"]


class ReadyTooEarlyTwin(ReadyTooEarly):
    async def subscribe(self):
        await pause()
        self.subscribers.append(self.inbox)
        self.started.set()


class WaitBeforeAdd(OnAsyncio):
    tasks = ("post", "ask_to_stop", "stop")

    def __init__(self):
        self.posts = 0
        self.settled = Lot()
        self.asked = asyncio.Event()
        self.stopped = False

    def add(self):
        self.posts += 1

    async def post(self):
        self.add()
        await pause()
        assert not self.stopped
        self.posts -= 1
        self.settled.unpark_all()

    async def ask_to_stop(self):
        self.asked.set()

    async def stop(self):
        await self.asked.wait()
        while self.posts:
            await self.settled.park()
        self.stopped = True


class WaitBeforeAddTwin(WaitBeforeAdd):
    def __init__(self):
        super().__init__()
        self.posts = 1

    def add(self):
        """Leave it to whoever starts the post."""


class TwoRestarts(OnAsyncio):
    tasks = ("restart", "restart")

    def __init__(self):
        self.running = {1}
        self.started = 1

    async def restart(self):
        old = set(self.running)
        await pause()
        self.running.difference_update(old)
        self.started += 1
        self.running.add(self.started)

    def holds(self):
        return len(self.running) == 1


class TwoRestartsTwin(TwoRestarts):
    tasks = ("restart_alone", "restart_alone")

    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def restart_alone(self):
        async with self.lock:
            await pause()
            await self.restart()


class NameInUse(OnAsyncio):
    tasks = ("old", "supervise")

    def __init__(self):
        self.names = {"worker"}
        self.stop = asyncio.Event()
        self.ended = asyncio.Event()

    async def old(self):
        await self.stop.wait()
        self.ended.set()
        await pause()
        self.names.remove("worker")

    async def supervise(self):
        self.stop.set()
        await self.ended.wait()
        assert "worker" not in self.names
        self.names.add("worker")


class NameInUseTwin(NameInUse):
    async def old(self):
        await self.stop.wait()
        await pause()
        self.names.remove("worker")
        self.ended.set()


class BarrierReused(OnAsyncio):
    tasks = (("walk", 0), ("walk", 1))

    def __init__(self):
        self.door = asyncio.Event()
        self.waiting = 0
        self.laps = [0, 0]

    async def walk(self, me):
        for lap in range(1, 3):
            self.laps[me] = lap
            await self.meet()
            assert min(self.laps) == lap

    async def meet(self):
        door = self.door
        self.waiting += 1
        if self.waiting == 1:
            await door.wait()
            await pause()  # also where the door is open: as in trio
            return
        self.waiting = 0
        await self.let_through(door)

    async def let_through(self, door):
        door.set()
        await pause()
        self.door = asyncio.Event()


class BarrierReusedTwin(BarrierReused):
    async def let_through(self, door):
        self.door = asyncio.Event()
        door.set()
        await pause()


PAIRS = {
    "parent sets late": Pair(ParentSetsLate, ParentSetsLateTwin),
    "call before listening": Pair(CallBeforeListening, CallBeforeListeningTwin),
    "ready too early": Pair(ReadyTooEarly, ReadyTooEarlyTwin),
    "wait before add": Pair(WaitBeforeAdd, WaitBeforeAddTwin),
    "two restarts": Pair(TwoRestarts, TwoRestartsTwin),
    "name in use": Pair(NameInUse, NameInUseTwin),
    "barrier reused": Pair(BarrierReused, BarrierReusedTwin),
}
