"""Mutual exclusion: locks in different orders, locks held too long, released twice, upgraded, or home-made."""

from __future__ import annotations

import trio
from trio.lowlevel import ParkingLot, checkpoint

from .entry import Entry, side_by_side


async def lock_order():
    """Each transfer holds one account and waits for the other."""
    balances = {"a": 10, "b": 10}
    locks = {name: trio.Lock() for name in balances}

    async def transfer(source, target):
        async with locks[source]:
            await checkpoint()  # looks the account up
            async with locks[target]:
                balances[source] -= 1
                balances[target] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer, "a", "b")
        nursery.start_soon(transfer, "b", "a")
    assert balances == {"a": 10, "b": 10}


async def lock_order_twin():
    """Holds: everybody takes the locks in the order of their names, so no circle can close."""
    balances = {"a": 10, "b": 10}
    locks = {name: trio.Lock() for name in balances}

    async def transfer(source, target):
        first, second = sorted([source, target])
        async with locks[first]:
            await checkpoint()
            async with locks[second]:
                balances[source] -= 1
                balances[target] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(transfer, "a", "b")
        nursery.start_soon(transfer, "b", "a")
    assert balances == {"a": 10, "b": 10}


async def two_philosophers():
    """Each holds the left fork, and waits for the right one."""
    forks = [trio.Lock(), trio.Lock()]
    meals = 0

    async def dine(seat):
        nonlocal meals
        async with forks[seat]:
            await checkpoint()
            async with forks[1 - seat]:
                meals += 1

    async with trio.open_nursery() as nursery:
        for seat in range(2):
            nursery.start_soon(dine, seat)
    assert meals == 2


async def two_philosophers_twin():
    """Holds: the footman lets all but one sit down, so one of them has both neighbours' forks to itself."""
    forks = [trio.Lock(), trio.Lock()]
    footman = trio.Semaphore(1)
    meals = 0

    async def dine(seat):
        nonlocal meals
        async with footman, forks[seat]:
            await checkpoint()
            async with forks[1 - seat]:
                meals += 1

    async with trio.open_nursery() as nursery:
        for seat in range(2):
            nursery.start_soon(dine, seat)
    assert meals == 2


async def three_philosophers():
    """All three hold their left forks, and wait for their right ones."""
    forks = [trio.Lock() for _ in range(3)]
    meals = 0

    async def dine(seat):
        nonlocal meals
        async with forks[seat], forks[(seat + 1) % 3]:
            meals += 1

    async with trio.open_nursery() as nursery:
        for seat in range(3):
            nursery.start_soon(dine, seat)
    assert meals == 3


async def three_philosophers_twin():
    """Holds: everybody takes the fork of the lower number first, so no circle can close."""
    forks = [trio.Lock() for _ in range(3)]
    meals = 0

    async def dine(seat):
        nonlocal meals
        first, second = sorted([seat, (seat + 1) % 3])
        async with forks[first], forks[second]:
            meals += 1

    async with trio.open_nursery() as nursery:
        for seat in range(3):
            nursery.start_soon(dine, seat)
    assert meals == 3


async def send_under_lock():
    """The sender keeps the lock until its message is taken, and the receiver needs the lock before it takes it."""
    lock = trio.Lock()
    sends, receives = trio.open_memory_channel(0)
    served = []

    async def serve():
        async with lock:
            await checkpoint()  # looks at the configuration
        served.append(await receives.receive())

    async def ask():
        async with lock:
            await sends.send("request")

    await side_by_side(serve, ask)
    assert served == ["request"]


async def send_under_lock_twin():
    """Holds: nobody waits for another task while it holds the lock."""
    lock = trio.Lock()
    sends, receives = trio.open_memory_channel(0)
    served = []

    async def serve():
        async with lock:
            await checkpoint()
        served.append(await receives.receive())

    async def ask():
        async with lock:
            await checkpoint()
        await sends.send("request")

    await side_by_side(serve, ask)
    assert served == ["request"]


class SharedLock:
    """Many readers or one writer; a reader may become the writer once it is the only reader."""

    def __init__(self):
        self._readers = 0
        self._writing = False
        self._changed = ParkingLot()

    async def read(self):
        while self._writing:
            await self._changed.park()
        self._readers += 1
        await checkpoint()

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


async def two_upgrades():
    """Two readers want to write, and each waits for the other to stop reading."""
    shared = SharedLock()
    value = 0

    async def increment():
        nonlocal value
        await shared.read()
        seen = value
        await shared.upgrade()
        value = seen + 1
        shared.release_write()

    async def look():
        await shared.read()
        assert value in {0, 1, 2}
        shared.release_read()

    await side_by_side(increment, increment, look)
    assert value == 2


async def two_upgrades_twin():
    """Holds: only one reader at a time may mean to write, and those that do not leave without waiting."""
    shared = SharedLock()
    upgradable = trio.Lock()
    value = 0

    async def increment():
        nonlocal value
        async with upgradable:
            await shared.read()
            seen = value
            await shared.upgrade()
            value = seen + 1
            shared.release_write()

    async def look():
        await shared.read()
        assert value in {0, 1, 2}
        shared.release_read()

    await side_by_side(increment, increment, look)
    assert value == 2


async def double_release():
    """Two closers see the connection open, and each gives its slot back."""
    slots = trio.Semaphore(0, max_value=1)
    closed = False

    async def close():
        nonlocal closed
        if not closed:
            await checkpoint()  # flushes
            closed = True
            slots.release()

    await side_by_side(close, close)
    assert slots.value == 1


async def double_release_twin():
    """Holds: the step that sees the connection open also marks it closed."""
    slots = trio.Semaphore(0, max_value=1)
    closed = False

    async def close():
        nonlocal closed
        if not closed:
            closed = True
            await checkpoint()
            slots.release()

    await side_by_side(close, close)
    assert slots.value == 1


async def hyman():
    """Process 1 sees that process 0 does not want in, is overtaken by it, and takes the turn while it is inside."""
    wants = [False, False]
    turn = inside = 0
    changed = ParkingLot()

    async def process(me):
        nonlocal turn, inside
        wants[me] = True
        await checkpoint()
        while turn != me:
            while wants[1 - me]:
                await changed.park()
            await checkpoint()
            turn = me
        inside += 1
        assert inside == 1
        await checkpoint()
        inside -= 1
        wants[me] = False
        changed.unpark_all()

    async with trio.open_nursery() as nursery:
        for me in range(2):
            nursery.start_soon(process, me)


async def hyman_twin():
    """Holds: this is Peterson's algorithm (IPL 12(3), 1981); each write wakes whoever waits for a change."""
    wants = [False, False]
    turn = inside = 0
    changed = ParkingLot()

    async def process(me):
        nonlocal turn, inside
        wants[me] = True
        await checkpoint()
        turn = 1 - me
        changed.unpark_all()
        await checkpoint()
        while wants[1 - me] and turn != me:
            await changed.park()
        inside += 1
        assert inside == 1
        await checkpoint()
        inside -= 1
        wants[me] = False
        changed.unpark_all()

    async with trio.open_nursery() as nursery:
        for me in range(2):
            nursery.start_soon(process, me)


ENTRIES = (
    Entry(
        name="lock order",
        kind="lock order",
        depth=2,
        source="Burckhardt et al., A Randomized Scheduler [...] of Finding Bugs, ASPLOS 2010: deadlock of depth 2",
        bug=lock_order,
        twin=lock_order_twin,
        shows="deadlock",
    ),
    Entry(
        name="two philosophers",
        kind="lock order",
        depth=2,
        source="Downey, The Little Book of Semaphores, Dining philosophers: Deadlock #5; twin: solution #1",
        bug=two_philosophers,
        twin=two_philosophers_twin,
        shows="deadlock",
    ),
    Entry(
        name="three philosophers",
        kind="lock order",
        depth=3,
        source="Dijkstra, Hierarchical Ordering of Sequential Processes, Acta Informatica 1(2), 1971; here three dine",
        bug=three_philosophers,
        twin=three_philosophers_twin,
        shows="deadlock",
    ),
    Entry(
        name="send under a lock",
        kind="wait with a lock held",
        depth=1,
        source="Tu, Liu, Song, Zhang, Understanding [...] Concurrency Bugs in Go, ASPLOS 2019: figure 7",
        bug=send_under_lock,
        twin=send_under_lock_twin,
        shows="deadlock",
    ),
    Entry(
        name="two upgrades",
        kind="reader-writer upgrade",
        depth=2,
        source="dotnet/dotNext#275: AsyncReaderWriterLock deadlocks with upgradeable locks",
        bug=two_upgrades,
        twin=two_upgrades_twin,
        shows="lost wake-up",
    ),
    Entry(
        name="double release",
        kind="double release",
        depth=2,
        source="moby/swarmkit#604: a channel is closed twice by concurrent shutdowns",
        bug=double_release,
        twin=double_release_twin,
        shows="exception",
    ),
    Entry(
        name="hyman",
        kind="mutual exclusion",
        depth=3,
        source="Hyman, Comments on a Problem in Concurrent Programming Control, CACM 9(1), 1966; here without spinning",
        bug=hyman,
        twin=hyman_twin,
        shows="exception",
    ),
)
