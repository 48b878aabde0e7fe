"""Timers against results: deadlines that pass while the work is all but done."""

from __future__ import annotations

import math

import trio
from trio.lowlevel import ParkingLot, checkpoint

from .entry import Entry, side_by_side


async def result_after_timeout():
    """The asker gives up, and the worker waits for ever to hand its result over."""
    send, receive = trio.open_memory_channel(0)

    async def work():
        await checkpoint()
        await send.send("result")

    async def ask():
        with trio.move_on_after(1):
            await receive.receive()

    await side_by_side(work, ask)


async def result_after_timeout_twin():
    """Holds: the channel has room for the one result, so handing it over never waits."""
    send, receive = trio.open_memory_channel(1)

    async def work():
        await checkpoint()
        await send.send("result")

    async def ask():
        with trio.move_on_after(1):
            await receive.receive()

    await side_by_side(work, ask)


class Debouncer:
    """Fires a second after the last change; `numbered` says whether a timer looks if it is still the latest."""

    def __init__(self, nursery, *, numbered):
        self._nursery = nursery
        self._numbered = numbered
        self._latest = 0
        self._scope = trio.CancelScope()

    def change(self):
        self._latest += 1
        self._scope.cancel()
        self._scope = trio.CancelScope()
        self._nursery.start_soon(self._fire_later, self._latest, self._scope)

    async def _fire_later(self, mine, scope):
        with scope:
            await trio.sleep(1)
        if scope.cancelled_caught:
            return
        await checkpoint()  # gets the lock
        if self._numbered and mine != self._latest:
            return
        assert mine == self._latest


async def stale_timer():
    """A change stops the timer too late: it has run out, waits for its turn, and fires for what is outdated."""
    async with trio.open_nursery() as nursery:
        debouncer = Debouncer(nursery, numbered=False)
        debouncer.change()
        await checkpoint()
        debouncer.change()


async def stale_timer_twin():
    """Holds: a timer looks at its number in the step that fires."""
    async with trio.open_nursery() as nursery:
        debouncer = Debouncer(nursery, numbered=True)
        debouncer.change()
        await checkpoint()
        debouncer.change()


class Lease:
    """A lock that falls to the next one ten seconds after it was taken."""

    def __init__(self):
        self.holder = None
        self.granted = 0
        self.until = {}
        self._changed = ParkingLot()

    async def acquire(self, me):
        while self.holder is not None and trio.current_time() < self.until[self.holder]:
            with trio.move_on_at(self.until[self.holder]):
                await self._changed.park()
        self.holder = me
        self.granted += 1
        self.until[me] = trio.current_time() + 10
        return self.granted

    def delete(self):
        self.holder = None
        self._changed.unpark_all()

    async def release_in_two_steps(self, me):
        if self.holder == me:
            await checkpoint()  # the answer to the look travels
            self.delete()

    def release(self, me):
        if self.holder == me:
            self.delete()


async def lease_ran_out():
    """The first client's lease runs out before it writes; its write comes after the second client's."""
    lease = Lease()
    written = []

    async def client(me):
        token = await lease.acquire(me)
        await checkpoint()  # a long pause
        written.append(token)
        lease.release(me)

    async with trio.open_nursery() as nursery:
        for me in ("ann", "bob"):
            nursery.start_soon(client, me)
    assert written == sorted(written)


async def lease_ran_out_twin():
    """Holds: the storage refuses a token lower than one it has seen."""
    lease = Lease()
    written = []

    async def client(me):
        token = await lease.acquire(me)
        await checkpoint()
        if not written or written[-1] < token:
            written.append(token)
        lease.release(me)

    async with trio.open_nursery() as nursery:
        for me in ("ann", "bob"):
            nursery.start_soon(client, me)
    assert written == sorted(written)


async def lock_of_another():
    """A client sees that the lock is its own, the lock falls to another, and the client deletes that one's lock."""
    lease = Lease()
    working = set()

    async def client(me):
        await lease.acquire(me)
        assert all(lease.until[other] <= trio.current_time() for other in working)
        working.add(me)
        await checkpoint()
        working.remove(me)
        await lease.release_in_two_steps(me)

    async with trio.open_nursery() as nursery:
        for me in ("ann", "bob", "eve"):
            nursery.start_soon(client, me)


async def lock_of_another_twin():
    """Holds: looking and deleting are one step, so a client deletes no lock but its own."""
    lease = Lease()
    working = set()

    async def client(me):
        await lease.acquire(me)
        assert all(lease.until[other] <= trio.current_time() for other in working)
        working.add(me)
        await checkpoint()
        working.remove(me)
        lease.release(me)

    async with trio.open_nursery() as nursery:
        for me in ("ann", "bob", "eve"):
            nursery.start_soon(client, me)


async def redelivered_job():
    """The job is not acknowledged in time, goes to a second worker, and is charged for twice."""
    jobs, taken = trio.open_memory_channel(math.inf)
    charged = []

    async def deliver():
        acknowledged = trio.Event()
        async with jobs:
            await jobs.send(("order 7", acknowledged))
            with trio.move_on_after(5):
                await acknowledged.wait()
            if not acknowledged.is_set():
                await jobs.send(("order 7", acknowledged))

    async def work():
        async for job, acknowledged in taken:
            await checkpoint()
            charged.append(job)
            acknowledged.set()

    await side_by_side(deliver, work, work)
    assert charged == ["order 7"]


async def redelivered_job_twin():
    """Holds: a job has a number, and is charged for in the step that finds it not charged for yet."""
    jobs, taken = trio.open_memory_channel(math.inf)
    charged = []

    async def deliver():
        acknowledged = trio.Event()
        async with jobs:
            await jobs.send(("order 7", acknowledged))
            with trio.move_on_after(5):
                await acknowledged.wait()
            if not acknowledged.is_set():
                await jobs.send(("order 7", acknowledged))

    async def work():
        async for job, acknowledged in taken:
            await checkpoint()
            if job not in charged:
                charged.append(job)
            acknowledged.set()

    await side_by_side(deliver, work, work)
    assert charged == ["order 7"]


ENTRIES = (
    Entry(
        name="result after timeout",
        kind="timer against result",
        depth=1,
        source="Tu, Liu, Song, Zhang, Understanding [...] Concurrency Bugs in Go, ASPLOS 2019: figure 1, Kubernetes",
        bug=result_after_timeout,
        twin=result_after_timeout_twin,
        shows="lost wake-up",
        needs_clock=True,
    ),
    Entry(
        name="stale timer",
        kind="timer against reset",
        depth=2,
        source="sageox/ox#506: a timer that has run out cannot be stopped, and fires beside the new one",
        bug=stale_timer,
        twin=stale_timer_twin,
        shows="exception",
        needs_clock=True,
    ),
    Entry(
        name="lease ran out",
        kind="lease without fencing",
        depth=2,
        source="Kleppmann, How to do distributed locking, 2016: a lease runs out in a pause; twin: fencing tokens",
        bug=lease_ran_out,
        twin=lease_ran_out_twin,
        shows="exception",
        needs_clock=True,
    ),
    Entry(
        name="lock of another",
        kind="check then act on release",
        depth=3,
        source="redis/redis-py#1031: race condition in Lock.release",
        bug=lock_of_another,
        twin=lock_of_another_twin,
        shows="exception",
        needs_clock=True,
    ),
    Entry(
        name="redelivered job",
        kind="at-least-once counted twice",
        depth=1,
        source="celery/kombu#337: the visibility timeout causes multiple runs of a job; celery/celery#5306",
        bug=redelivered_job,
        twin=redelivered_job_twin,
        shows="exception",
        needs_clock=True,
    ),
)
