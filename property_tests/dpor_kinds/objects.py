"""Objects: their attributes, methods and copies, and what refers to them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import weakref
from collections import UserDict

import attrs
from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


class Plain:
    total = 0

    def __init__(self):
        self.n = 0

    def bump(self):
        self.n += 1

    @property
    def double(self):
        return self.n * 2

    @double.setter
    def double(self, value):
        self.n = value // 2

    @functools.cached_property
    def once(self):
        return self.n

    @classmethod
    def count(cls):
        cls.total += 1


class Slots:
    __slots__ = ("__weakref__", "n")

    def __init__(self):
        self.n = 0


@attrs.define
class Defined:
    n: int = 0


@dataclasses.dataclass
class Data:
    n: int = 0
    items: list = dataclasses.field(default_factory=list)


def attributes(make):
    def kind():
        thing = make()

        async def add(me):
            seen = thing.n
            await checkpoint()
            thing.n = seen + 1

        async def by_name(me):
            await checkpoint()
            setattr(thing, "n", getattr(thing, "n") + 10)  # noqa: B009, B010

        async def look(me):
            await checkpoint()
            me.see(thing.n)

        async def exchange(me):
            nonlocal thing
            await checkpoint()
            thing = make()
            thing.n = me.name

        return World((add, by_name, look, exchange), lambda: thing.n)

    kind.__name__ = f"attributes_of_{make.__name__}"
    return kind


def methods():
    thing = Plain()
    bump = thing.bump

    async def call(me):
        bump()
        await checkpoint()

    async def compute(me):
        thing.double = thing.double + await later(2)

    async def cache(me):
        await checkpoint()
        me.see(thing.once)

    async def patch(me):
        await checkpoint()
        thing.bump = lambda: None
        thing.bump()

    async def look(me):
        thing.bump()
        await checkpoint()
        me.see(thing.n)

    return World((call, compute, cache, patch, look), lambda: thing.n)


async def later(value):
    await checkpoint()
    return value


def by_dict():
    """Attributes by way of `__dict__`, which can be exchanged, and of vars()."""
    thing = Plain()
    held = vars(thing)

    async def by_vars(me):
        vars(thing)["n"] += await later(1)

    async def by_held(me):
        await checkpoint()
        held["n"] = me.name

    async def exchange(me):
        await checkpoint()
        thing.__dict__ = {"n": 7}

    async def update(me):
        thing.__dict__.update(n=me.number)
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see((thing.n, held["n"]))

    return World((by_vars, by_held, exchange, update, look), lambda: (thing.n, held))


class Mourned:
    """Says when it is gone."""

    def __init__(self, log):
        self.log = log

    def __del__(self):
        self.log.append("gone")


def references():
    """What weak references see depends on who has let go."""
    thing = Plain()
    owners = {"a": thing}
    ref = weakref.ref(thing)
    table = weakref.WeakValueDictionary(x=thing)
    del thing
    log = []
    mourned = [Mourned(log)]

    async def drop(me):
        await checkpoint()
        owners.clear()

    async def hold(me):
        held = ref()
        await checkpoint()
        me.see(held is not None)

    async def look(me):
        await checkpoint()
        me.see((ref() is None, len(table)))

    async def bury(me):
        held = mourned.pop() if mourned else None
        await checkpoint()
        me.see(held is not None)
        del held
        await checkpoint()

    async def mourn(me):
        await checkpoint()
        me.see(len(log))

    return World((drop, hold, look, bury, mourn), lambda: (ref() is None, log))


def copies():
    """Copy on write: who reads has one version, who writes puts another in its place."""
    state = {"config": Data(1, [0])}
    deep = UserDict(a=[1])

    async def write(me):
        new = dataclasses.replace(state["config"], n=state["config"].n + 1)
        await checkpoint()
        state["config"] = new

    async def mutate(me):
        await checkpoint()
        state["config"].items.append(me.name)

    async def deepen(me):
        mine = copy.deepcopy(deep)
        await checkpoint()
        mine["a"].append(len(deep["a"]))
        deep.data = mine.data

    async def look(me):
        config = state["config"]
        await checkpoint()
        me.see((config.n, len(config.items), len(deep["a"])))

    return World((write, mutate, deepen, look), lambda: (state, deep))


KINDS = (
    attributes(Plain),
    attributes(Slots),
    attributes(Defined),
    attributes(Data),
    methods,
    by_dict,
    references,
    copies,
)
