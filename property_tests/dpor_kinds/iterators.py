"""Iterators, generators and views, held over awaits and shared by tasks."""

from __future__ import annotations

import heapq
import itertools

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def held_views():
    """Views and iterators that are held while others change what they look at."""
    table = {1: "a", 2: "b"}
    items = [1, 2]

    async def view(me):
        held = table.keys()
        await checkpoint()
        me.see(list(held))

    async def change(me):
        await checkpoint()
        table[me.name] = 1
        items.append(me.number)

    async def each(me):
        for item in items:
            await checkpoint()
            me.see(item)

    async def each_key(me):
        for key in table:
            await checkpoint()
            me.see(key)

    async def drop(me):
        del items[0]
        await checkpoint()

    return World((view, change, each, each_key, drop), lambda: (table, items))


def shared_iterators():
    """Iterators that tasks share: each item goes to one of them."""
    items = [1, 2, 3]
    numbers = iter(items)
    turns = itertools.cycle("ab")
    count = itertools.count()
    pairs = zip(items, enumerate("xyz"), strict=True)

    async def take(me):
        await checkpoint()
        me.see(next(numbers, None))

    async def turn(me):
        me.see(next(turns))
        await checkpoint()

    async def tick(me):
        await checkpoint()
        me.see(next(count))

    async def pair(me):
        await checkpoint()
        me.see(next(pairs, None))

    async def hint(me):
        await checkpoint()
        me.see(numbers.__length_hint__())

    return World((take, turn, tick, pair, hint))


def generators():
    """Generators that tasks share, sync and async."""
    produced = []

    def count():
        number = 0
        while True:
            number += 1
            yield number

    async def produce():
        number = 0
        while True:
            await checkpoint()
            number += 1
            produced.append(number)
            yield number

    numbers, later_numbers = count(), produce()

    async def take(me):
        me.see(next(numbers))
        await checkpoint()
        me.see(next(numbers))

    async def take_later(me):
        try:
            me.see(await anext(later_numbers))
        except RuntimeError as error:
            me.see(str(error))

    async def send(me):
        await checkpoint()
        me.see(numbers.send(None))

    async def close(me):
        await checkpoint()
        numbers.close()

    return World((take, take_later, send, close), lambda: produced, aclose=later_numbers.aclose)


def a_heap():
    heap = [3, 5]

    async def push(me):
        await checkpoint()
        heapq.heappush(heap, me.number)

    async def pop(me):
        await checkpoint()
        me.see(heapq.heappop(heap) if heap else None)

    async def slices(me):
        heap[:] = sorted(x + 1 for x in heap)
        await checkpoint()
        me.see(sum(x for x in heap))

    async def walrus(me):
        if (first := heap[0] if heap else None) is not None:
            await checkpoint()
            heap.append(first)

    return World((push, pop, slices, walrus), lambda: heap)


KINDS = (
    held_views,
    shared_iterators,
    generators,
    a_heap,
)
