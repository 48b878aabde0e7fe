"""State that is declared by `shared`."""

from __future__ import annotations

import io
import sqlite3
import threading
import types
from array import array
from collections import OrderedDict, defaultdict, deque

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World
from stageflow_actors.testing import shared


def shared_dict():
    table = shared({"a": 0, "b": [0]})

    async def add(me):
        seen = table["a"]
        await checkpoint()
        table["a"] = seen + 1

    async def insert(me):
        await checkpoint()
        table[me.name] = 1

    async def nested(me):
        await checkpoint()
        table["b"].append(me.name)

    async def held(me):
        inner = table["b"]
        await checkpoint()
        inner.append(1)
        me.see(len(inner))

    async def remove(me):
        await checkpoint()
        me.see(table.pop("a", "gone"))

    async def look(me):
        me.see(len(table))
        await checkpoint()
        me.see((table.get("a"), "t0" in table, list(table), len(table["b"])))

    return World((add, insert, nested, held, remove, look), lambda: list(table.items()))


def iterated_dicts():
    table = shared(OrderedDict(a=1, b=2))
    many = shared(defaultdict(int))

    async def each(me):
        try:
            for key in table:
                me.see(key)
                await checkpoint()
        except RuntimeError as error:
            me.see(type(error).__name__)

    async def each_item(me):
        view = table.items()
        await checkpoint()
        me.see(list(view))

    async def to_end(me):
        await checkpoint()
        table.move_to_end("a")

    async def put(me):
        await checkpoint()
        table["b"] = me.name

    async def touch(me):
        await checkpoint()
        me.see((many[me.name], len(many)))

    async def update(me):
        await checkpoint()
        table.update(a=me.number, c=3)
        me.see(table == {"a": me.number})

    return World((each, each_item, to_end, put, touch, update), lambda: (list(table.items()), sorted(many)))


def shared_list():
    items = shared([1, 2, 3])
    append = items.append

    async def put(me):
        await checkpoint()
        items[0] = me.name

    async def last(me):
        items[-1] = (me.name, items[2] if len(items) > 2 else None)
        await checkpoint()

    async def held(me):
        append(me.number)
        await checkpoint()

    async def take(me):
        await checkpoint()
        me.see(items.pop(0) if items else None)

    async def each(me):
        for item in items:
            await checkpoint()
            me.see(item)

    async def slices(me):
        await checkpoint()
        me.see(items[1:])
        items[1:2] = []

    async def extend(me):
        nonlocal items
        items += [me.name]
        await checkpoint()
        me.see(items.index(2) if 2 in items else None)

    return World((put, last, held, take, each, slices, extend), lambda: list(items))


def shared_sets():
    members, queue = shared({"x"}), shared(deque([1, 2]))

    async def add(me):
        members.add(me.name)
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see(("x" in members, "t0" in members, len(members), queue[0]))

    async def discard(me):
        await checkpoint()
        members.discard("x")

    async def union(me):
        await checkpoint()
        me.see(sorted(members | {"y"}))

    async def left(me):
        queue.appendleft(me.name)
        await checkpoint()

    async def second(me):
        await checkpoint()
        queue[1] = me.name

    return World((add, look, discard, union, left, second), lambda: (sorted(members), list(queue)))


def shared_buffers():
    text, numbers, space = shared(io.StringIO()), shared(array("i", [0])), shared(types.SimpleNamespace(n=0))
    local = shared(threading.local())
    local.n = 0

    async def write(me):
        await checkpoint()
        text.write(me.name)

    async def tell(me):
        await checkpoint()
        me.see((text.tell(), numbers[0]))

    async def add(me):
        seen = numbers[0]
        await checkpoint()
        numbers[0] = seen + 1

    async def attribute(me):
        seen = space.n
        await checkpoint()
        space.n = seen + 1

    async def other(me):
        await checkpoint()
        space.m = me.name
        me.see(hasattr(space, "n"))

    async def own(me):
        seen = local.n
        await checkpoint()
        local.n = seen + 1

    return World((write, tell, add, attribute, other, own), lambda: (text.getvalue(), numbers[0], space.n, local.n))


def shared_database():
    connection = shared(sqlite3.connect(":memory:"))
    connection.execute("create table t (n int)")
    connection.execute("insert into t values (0)")

    async def add(me):
        (seen,) = connection.execute("select n from t").fetchone()
        await checkpoint()
        connection.execute("update t set n = ?", (seen + 1,))

    async def rows(me):
        cursor = connection.execute("select n from t")
        await checkpoint()
        me.see(cursor.fetchall())

    async def insert(me):
        with connection:
            connection.execute("insert into t values (?)", (me.number,))
        await checkpoint()

    return World(
        (add, rows, insert),
        lambda: connection.execute("select n from t order by n").fetchall(),
        close=lambda: connection.close(),  # noqa: PLW0108
    )


def declared_twice():
    """Each task declares the state for itself; or not at all."""
    table = {"a": 0}

    async def add(me):
        mine = shared(table)
        seen = mine["a"]
        await checkpoint()
        mine["a"] = seen + 1

    async def plainly(me):
        await checkpoint()
        table["a"] = me.name

    async def look(me):
        mine = shared(table)
        await checkpoint()
        me.see(mine["a"])

    return World((add, plainly, look), lambda: table)


KINDS = (
    shared_dict,
    iterated_dicts,
    shared_list,
    shared_sets,
    shared_buffers,
    shared_database,
    declared_twice,
)
