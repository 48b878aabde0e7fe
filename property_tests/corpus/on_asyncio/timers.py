"""Timers against results, on asyncio. `stale timer` is left out: its timers are tasks that are started as it goes."""

from __future__ import annotations

import asyncio
import time

from .form import HandOver, Lot, OnAsyncio, Pair, pause


class ResultAfterTimeout(OnAsyncio):
    tasks = ("work", "ask")

    def __init__(self):
        self.results = HandOver()

    async def work(self):
        await pause()
        await self.results.send("result")

    async def ask(self):
        try:
            async with asyncio.timeout(1):
                await self.results.receive()
        except TimeoutError:
            pass


class Box:
    """A channel with room for one."""

    def __init__(self):
        self._box = asyncio.Queue(1)
        self.send = self._box.put
        self.receive = self._box.get


class ResultAfterTimeoutTwin(ResultAfterTimeout):
    def __init__(self):
        self.results = Box()


class Lease:
    """A lock that falls to the next one ten seconds after it was taken."""

    def __init__(self):
        self.holder = None
        self.granted = 0
        self.until = {}
        self._changed = Lot()

    async def acquire(self, me):
        while self.holder is not None and (left := self.until[self.holder] - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._changed.park()
            except TimeoutError:
                pass
        self.holder = me
        self.granted += 1
        self.until[me] = time.monotonic() + 10
        return self.granted

    def delete(self):
        self.holder = None
        self._changed.unpark_all()

    def release(self, me):
        if self.holder == me:
            self.delete()


class LeaseRanOut(OnAsyncio):
    tasks = (("client", "ann"), ("client", "bob"))

    def __init__(self):
        self.lease = Lease()
        self.written = []

    async def client(self, me):
        token = await self.lease.acquire(me)
        await pause()
        self.write(token)
        self.lease.release(me)

    def write(self, token):
        self.written.append(token)

    def holds(self):
        return self.written == sorted(self.written)


class LeaseRanOutTwin(LeaseRanOut):
    def write(self, token):
        if not self.written or self.written[-1] < token:
            self.written.append(token)


class LockOfAnother(OnAsyncio):
    tasks = (("client", "ann"), ("client", "bob"), ("client", "eve"))

    def __init__(self):
        self.lease = Lease()
        self.working = set()

    async def client(self, me):
        await self.lease.acquire(me)
        assert all(self.lease.until[other] <= time.monotonic() for other in self.working)
        self.working.add(me)
        await pause()
        self.working.remove(me)
        await self.release(me)

    async def release(self, me):
        if self.lease.holder == me:
            await pause()
            self.lease.delete()


class LockOfAnotherTwin(LockOfAnother):
    async def release(self, me):
        self.lease.release(me)


class RedeliveredJob(OnAsyncio):
    tasks = ("deliver", "work", "work")

    def __init__(self):
        self.jobs = asyncio.Queue()
        self.charged = []

    async def deliver(self):
        acknowledged = asyncio.Event()
        await self.jobs.put(("order 7", acknowledged))
        try:
            async with asyncio.timeout(5):
                await acknowledged.wait()
        except TimeoutError:
            pass
        if not acknowledged.is_set():
            await self.jobs.put(("order 7", acknowledged))
        for _ in range(2):
            await self.jobs.put(None)  # there are no more

    async def work(self):
        while (delivered := await self.jobs.get()) is not None:
            job, acknowledged = delivered
            await pause()
            self.charge(job)
            acknowledged.set()

    def charge(self, job):
        self.charged.append(job)

    def holds(self):
        return self.charged == ["order 7"]


class RedeliveredJobTwin(RedeliveredJob):
    def charge(self, job):
        if job not in self.charged:
            self.charged.append(job)


PAIRS = {
    "result after timeout": Pair(ResultAfterTimeout, ResultAfterTimeoutTwin),
    "lease ran out": Pair(LeaseRanOut, LeaseRanOutTwin),
    "lock of another": Pair(LockOfAnother, LockOfAnotherTwin),
    "redelivered job": Pair(RedeliveredJob, RedeliveredJobTwin),
}
