"""Containers of every kind, nested and of classes of their own."""

from __future__ import annotations

import array
import collections
import types

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def a_list():
    items = []

    async def append(me):
        items.append(me.name)
        await checkpoint()

    async def pop(me):
        await checkpoint()
        me.see(items.pop() if items else "none")

    async def append_what_comes(me):
        items.append(await later(me.name))

    async def grow(me):
        items.append(len(items) + await later(1))

    async def look(me):
        await checkpoint()
        me.see(len(items))

    return World((append, pop, append_what_comes, grow, look), lambda: items)


async def later(value):
    await checkpoint()
    return value


def a_dict():
    table = {"a": 0}

    async def add(me):
        table["a"] += await later(1)  # reads, waits, and writes

    async def set_other(me):
        table[me.name] = 1
        await checkpoint()

    async def remove(me):
        await checkpoint()
        table.pop("a", None)
        table["a"] = 5  # goes to the end

    async def default(me):
        await checkpoint()
        me.see(table.setdefault("c", me.name))

    async def keys(me):
        await checkpoint()
        me.see(list(table))

    return World((add, set_other, remove, default, keys), lambda: list(table.items()))


def a_set():
    members = set()

    async def add(me):
        members.add(me.name)
        await checkpoint()

    async def add_same(me):
        await checkpoint()
        me.see("x" in members)
        members.add("x")

    async def discard(me):
        await checkpoint()
        members.discard("x")

    async def look(me):
        await checkpoint()
        me.see(sorted(members))

    return World((add, add_same, discard, look), lambda: sorted(members))


def a_deque():
    queue = collections.deque([0], maxlen=3)

    async def left(me):
        queue.appendleft(me.name)
        await checkpoint()

    async def right(me):
        await checkpoint()
        queue.append(me.number)

    async def rotate(me):
        await checkpoint()
        queue.rotate(1)

    async def take(me):
        await checkpoint()
        me.see(queue.popleft() if queue else None)

    async def each(me):
        try:
            for item in queue:
                await checkpoint()
                me.see(item)
        except RuntimeError as error:
            me.see(str(error))

    return World((left, right, rotate, take, each), lambda: queue)


def counters():
    counter = collections.Counter()
    ordered = collections.OrderedDict(a=1, b=2)
    many = collections.defaultdict(list)

    async def count(me):
        counter["x"] += await later(1)

    async def update(me):
        await checkpoint()
        counter.update("xy")

    async def to_end(me):
        await checkpoint()
        ordered.move_to_end("a")

    async def touch(me):
        me.see(list(many))
        await checkpoint()
        me.see(len(many["k"]))  # looking makes it

    async def append(me):
        await checkpoint()
        many["k"].append(me.name)
        me.see(list(ordered))

    return World((count, update, to_end, touch, append), lambda: (counter, ordered, many))


def nested():
    """Objects in objects, changed through other names."""
    tree = {"list": [[0], (1, {"n": 0})]}
    inner = tree["list"][0]
    alias = tree["list"][1][1]

    async def by_alias(me):
        alias["n"] = alias["n"] + await later(1)

    async def by_path(me):
        await checkpoint()
        tree["list"][1][1]["n"] += 10

    async def replace(me):
        await checkpoint()
        tree["list"][0] = [me.name]

    async def append(me):
        await checkpoint()
        inner.append(me.name)

    async def look(me):
        await checkpoint()
        me.see((repr(tree["list"][0]), len(inner)))

    return World((by_alias, by_path, replace, append, look), lambda: (tree, inner))


class Labelled(list):
    label = None


class Registry(dict):
    def __init__(self):
        super().__init__()
        self.hits = 0

    def __missing__(self, key):
        self.hits += 1
        return self.hits


def subclasses():
    """Subclasses of list and dict, with attributes and methods of their own."""
    labelled = Labelled()
    registry = Registry()

    async def label(me):
        labelled.label = me.name
        await checkpoint()

    async def append(me):
        await checkpoint()
        labelled.append(me.number)

    async def miss(me):
        me.see(registry["x"])
        await checkpoint()

    async def put(me):
        await checkpoint()
        registry["x"] = registry.hits

    async def look(me):
        await checkpoint()
        me.see((labelled.label, list(labelled), dict(registry)))

    return World((label, append, miss, put, look), lambda: (labelled, labelled.label, registry, registry.hits))


Pair = collections.namedtuple("Pair", "items name")  # noqa: PYI024 (its items change all the same)


def fixed_outside():
    """Tuples, frozen things and proxies of what can change."""
    pair = Pair([], "a")
    behind = {"n": 0}
    proxy = types.MappingProxyType(behind)
    chain = collections.ChainMap({}, behind)

    async def append(me):
        await checkpoint()
        pair.items.append(me.name)

    async def put(me):
        behind["n"] = await later(me.name)

    async def read(me):
        await checkpoint()
        me.see((proxy["n"], len(pair[0])))

    async def chained(me):
        chain["n"] = (me.name, chain["n"])
        await checkpoint()
        me.see(chain["n"])

    return World((append, put, read, chained), lambda: (pair, behind, chain.maps))


def raw():
    """Bytes, arrays and views of them."""
    data = bytearray(b"ab")
    numbers = array.array("i", [0])
    view = memoryview(data)

    async def write(me):
        await checkpoint()
        data[0] = 65 + me.number

    async def through(me):
        view[1] = view[0]
        await checkpoint()

    async def add(me):
        numbers[0] = numbers[0] + await later(1)

    async def look(me):
        await checkpoint()
        me.see((bytes(view), numbers.tolist()))

    return World((write, through, add, look), lambda: (bytes(data), numbers.tolist()))


KINDS = (
    a_list,
    a_dict,
    a_set,
    a_deque,
    counters,
    nested,
    subclasses,
    fixed_outside,
    raw,
)
