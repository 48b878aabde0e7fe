"""Bugs of the corpus with asyncio's primitives in place of trio's, to compare with tools that know asyncio only.

`asyncio.sleep(0)` stands where the trio program has a checkpoint, also where one is inside a primitive: taking
a free lock is a checkpoint in trio, and none in asyncio.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .stale_views import names_from, three_nodes

if TYPE_CHECKING:
    from .entry import Program


async def pause():
    await asyncio.sleep(0)


async def side_by_side(*tasks):
    """Run tasks in a group, started in this order."""
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(task())


async def lost_update():
    balance = 0

    async def deposit():
        nonlocal balance
        seen = balance
        await pause()
        balance = seen + 10

    await side_by_side(deposit, deposit)
    assert balance == 20


async def double_initialisation():
    pools = []

    async def request():
        if not pools:
            await pause()
            pools.append("pool")
        await pause()

    await side_by_side(request, request)
    assert len(pools) == 1


async def torn_pair():
    offset, length = 0, 6

    async def replace():
        nonlocal offset, length
        offset = 4
        await pause()
        length = 2

    async def read():
        await pause()
        assert offset + length <= 6

    await side_by_side(replace, read)


async def limit_checked_early():
    inside = most = 0

    async def call():
        nonlocal inside, most
        if inside < 1:
            await pause()
            inside += 1
            most = max(most, inside)
            await pause()
            inside -= 1

    await side_by_side(call, call)
    assert most <= 1


async def stale_cache():
    database = "old"
    cache = {}

    async def read():
        if "key" not in cache:
            value = database
            await pause()
            cache["key"] = value

    async def write():
        nonlocal database
        database = "new"
        await pause()
        cache.pop("key", None)

    await side_by_side(read, write)
    assert cache.get("key", database) == database


async def aba():
    top = three_nodes()
    owned = []

    async def pop():
        nonlocal top
        while True:
            node, rest = top, top.rest
            await pause()
            if top is node:
                top = rest
                return node

    async def push(node):
        nonlocal top
        while True:
            node.rest = seen = top
            await pause()
            if top is seen:
                top = node
                return

    async def take_one():
        owned.append((await pop()).name)

    async def take_the_second():
        first = await pop()
        owned.append((await pop()).name)
        await push(first)

    await side_by_side(take_one, take_the_second)
    assert sorted([*owned, *names_from(top)]) == ["a", "b", "c"]


async def iterator_invalidated():
    inboxes = {"ann": [], "bob": []}

    async def broadcast():
        for inbox in inboxes.values():
            await pause()
            inbox.append("news")

    async def leave():
        await pause()
        del inboxes["bob"]

    await side_by_side(broadcast, leave)


async def lock_order():
    balances = {"a": 10, "b": 10}
    locks = {name: asyncio.Lock() for name in balances}

    async def transfer(source, target):
        async with locks[source]:
            await pause()
            await pause()
            async with locks[target]:
                await pause()
                balances[source] -= 1
                balances[target] += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(transfer("a", "b"))
        group.create_task(transfer("b", "a"))
    assert balances == {"a": 10, "b": 10}


async def three_philosophers():
    forks = [asyncio.Lock() for _ in range(3)]
    meals = 0

    async def dine(seat):
        nonlocal meals
        async with forks[seat]:
            await pause()
            async with forks[(seat + 1) % 3]:
                await pause()
                meals += 1

    async with asyncio.TaskGroup() as group:
        for seat in range(3):
            group.create_task(dine(seat))
    assert meals == 3


async def double_release():
    slots = asyncio.BoundedSemaphore(1)
    await slots.acquire()
    closed = False

    async def close():
        nonlocal closed
        if not closed:
            await pause()
            closed = True
            slots.release()

    await side_by_side(close, close)
    assert not slots.locked()


async def missed_wakeup():
    queue = []
    taken = []
    asleep = deque()

    async def consume():
        while not queue:
            await pause()
            asleep.append(asyncio.get_running_loop().create_future())
            await asleep[-1]
        taken.append(queue.pop())

    async def produce():
        await pause()
        queue.append("item")
        if asleep:
            asleep.popleft().set_result(None)

    await side_by_side(consume, produce)
    assert taken == ["item"]


async def condition_if():
    queue = []
    taken = []
    filled = asyncio.Condition()

    async def consume():
        async with filled:
            await pause()
            if not queue:
                await filled.wait()
            taken.append(queue.pop(0))

    async def produce():
        for item in range(2):
            async with filled:
                await pause()
                queue.append(item)
                filled.notify()
            await pause()  # the notified one asks for the lock in a step of its own, and in trio at once

    await side_by_side(consume, consume, produce)
    assert taken == [0, 1]


async def cleared_after_work():
    jobs = []
    done = []
    flag = asyncio.Event()

    async def work():
        while len(done) < 2:
            await flag.wait()
            await pause()
            batch = jobs[:]
            jobs.clear()
            for job in batch:
                await pause()
                done.append(job)
            flag.clear()

    async def order():
        for job in range(2):
            jobs.append(job)
            flag.set()
            await pause()

    await side_by_side(work, order)
    assert done == [0, 1]


async def io_after_stop():
    stopping = stopped = False
    pending = 1
    drained = asyncio.Event()

    def leave():
        nonlocal pending
        pending -= 1
        if pending == 0:
            drained.set()

    async def add():
        nonlocal pending
        if stopping:
            return
        await pause()
        pending += 1
        await pause()
        assert not stopped
        leave()

    async def stop():
        nonlocal stopping, stopped
        stopping = True
        leave()
        await drained.wait()
        stopped = True

    await side_by_side(add, stop)


async def two_restarts():
    running = {1}
    started = 1

    async def restart():
        nonlocal started
        old = set(running)
        await pause()
        running.difference_update(old)
        started += 1
        running.add(started)

    await side_by_side(restart, restart)
    assert len(running) == 1


async def name_in_use():
    names = {"worker"}
    stop = asyncio.Event()
    ended = asyncio.Event()

    async def old():
        await stop.wait()
        ended.set()
        await pause()
        names.remove("worker")

    async def supervise():
        stop.set()
        await ended.wait()
        assert "worker" not in names
        names.add("worker")

    await side_by_side(old, supervise)


async def climb(rungs):
    height = 0

    async def pass_by(first):
        nonlocal height
        for rung in range(first, rungs, 2):
            if height == rung:
                height += 1
            await pause()

    async with asyncio.TaskGroup() as group:
        for first in range(2):
            group.create_task(pass_by(first))
    assert height < rungs


async def depth_three():
    await climb(4)


async def depth_five():
    await climb(6)


ON_ASYNCIO: dict[str, Program] = {
    "lost update": lost_update,
    "double initialisation": double_initialisation,
    "torn pair": torn_pair,
    "limit checked early": limit_checked_early,
    "stale cache": stale_cache,
    "aba": aba,
    "iterator invalidated": iterator_invalidated,
    "lock order": lock_order,
    "three philosophers": three_philosophers,
    "double release": double_release,
    "missed wake-up": missed_wakeup,
    "condition with if": condition_if,
    "flag cleared after the work": cleared_after_work,
    "request on a stopped driver": io_after_stop,
    "two restarts": two_restarts,
    "name in use": name_in_use,
    "depth 3": depth_three,
    "depth 5": depth_five,
}
"""The bug of an entry, by the entry's name, as a program for `asyncio.run`."""
