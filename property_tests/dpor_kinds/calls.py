"""Code that runs although no name in a task's own code shows that it does."""

# ruff: noqa: PLW0603  # globals are what it is about

from __future__ import annotations

import contextlib
import functools
import operator
import re
import sys
import types
from functools import partialmethod, reduce

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World

COUNT = 0


def bump():
    global COUNT
    COUNT += 1
    return COUNT


class Loud:
    """All of its methods change a global."""

    def __init__(self):
        bump()

    def __init_subclass__(cls):
        bump()

    def __class_getitem__(cls, key):
        return bump()

    def __format__(self, spec):
        return str(bump())

    def __lt__(self, other):
        return bump() > 0

    def __call__(self):
        return bump()

    def __len__(self):
        return bump()

    def __iter__(self):
        yield bump()

    def __getitem__(self, key):
        return bump()

    def __contains__(self, key):
        return bump() > 100

    def __add__(self, other):
        return bump()

    def __index__(self):
        return bump()

    def __getattr__(self, name):
        return bump()

    def __await__(self):
        yield from checkpoint().__await__()  # noqa: ASYNC105
        return bump()

    async def __aenter__(self):
        bump()

    async def __aexit__(self, *_):
        await checkpoint()
        bump()

    @property
    def prop(self):
        return bump()

    @classmethod
    def by_class(cls):
        return bump()

    @staticmethod
    def by_nobody():
        return bump()

    by_partial = partialmethod(lambda self, _: bump(), 1)


def operators(*names):
    """Return a kind in which each act is one operation on an object whose methods change a global."""

    def kind():
        global COUNT
        loud = Loud()
        COUNT = 0
        operate = {
            "init": Loud,
            "subclass": lambda: type("Sub", (Loud,), {}),
            "getitem of class": lambda: Loud[1],
            "format": lambda: f"{loud}",
            "sort": lambda: len(sorted([loud, loud])),
            "call": lambda: loud(),  # noqa: PLW0108
            "len": lambda: len(loud),
            "unpack": lambda: [*loud],
            "getitem": lambda: loud["a"],
            "contains": lambda: "a" in loud,
            "add": lambda: loud + 1,
            "index": lambda: list(range(10))[loud],
            "getattr": lambda: loud.anything,
            "property": lambda: loud.prop,
            "of the class": lambda: loud.by_class(),  # noqa: PLW0108
            "static": lambda: Loud.by_nobody(),  # noqa: PLW0108
            "partial": lambda: loud.by_partial(),  # noqa: PLW0108
            "caller": lambda: operator.methodcaller("by_class")(loud),
            "getter": lambda: operator.attrgetter("prop")(loud),
            "reduce": lambda: reduce(lambda one, _: one + bump(), [1, 2], 0),
            "map": lambda: list(map(lambda _: bump(), [1])),  # noqa: C417
            "key": lambda: max([1, 2], key=lambda _: bump()),
            "sub": lambda: re.sub("a", lambda _: str(bump()), "a"),
            "by a text": lambda: getattr(loud, "pr" + "op"),
        }

        def make(name):
            async def act(me):
                await checkpoint()
                me.see(repr(operate[name]())[:9])

            return act

        async def look(me):
            me.see(COUNT)
            await checkpoint()
            me.see(COUNT)

        return World((*map(make, names), look), lambda: COUNT)

    kind.__name__ = f"operators_{names[0]}".replace(" ", "_")
    return kind


def alone(name):
    """Return a kind with one operation, whose code shows no other."""

    def kind():
        global COUNT
        loud = Loud()
        COUNT = 0
        acts = {
            "format": lambda: f"{loud}",
            "add": lambda: loud + 1,
            "getattr": lambda: loud.anything,
            "contains": lambda: 1 in loud,
            "unpack": lambda: [*loud],
            "key": lambda: max([1, 2], key=KEYS[0]),
        }
        operate = acts.pop(name)
        acts.clear()

        async def act(me):
            await checkpoint()
            me.see(operate())

        async def look(me):
            await checkpoint()
            me.see(COUNT)

        return World((act, look))

    kind.__name__ = f"alone_{name}"
    return kind


KEYS = [lambda _: bump()]


def awaited():
    """Objects that are awaited, and async context managers, that change a global."""
    global COUNT
    loud = Loud()
    COUNT = 0

    async def wait(me):
        me.see(await loud)

    async def enter(me):
        async with loud:
            me.see("in")

    async def look(me):
        await checkpoint()
        me.see(COUNT)

    return World((wait, enter, look), lambda: COUNT)


def handlers():
    """Functions that come out of containers, of other functions, and of attributes."""
    total = 0
    things = types.SimpleNamespace()

    def add():
        nonlocal total
        total += 1

    def make():
        def inner():
            nonlocal total
            total += 10

        return inner

    table = {"add": [add]}
    observers = []

    class Subject:
        def __init__(self):
            self.callback = None

        def tell(self):
            self.callback()

    subject = Subject()
    subject.callback = add
    del things

    async def by_table(me):
        await checkpoint()
        table["add"][0]()

    async def made(me):
        await checkpoint()
        make()()

    async def observed(me):
        observers.append(add)
        await checkpoint()
        for observer in observers:
            observer()

    async def told(me):
        await checkpoint()
        subject.tell()

    async def replace(me):
        await checkpoint()
        subject.callback = make()

    async def look(me):
        await checkpoint()
        me.see((total, len(observers)))

    return World((by_table, made, observed, told, replace, look), lambda: total)


def dynamic_code():
    """Code as text, frames, and imports inside of functions."""
    space = {"n": 0}
    kept = 0

    async def execute(me):
        await checkpoint()
        exec("n = n + 1", space)

    async def evaluate(me):
        await checkpoint()
        me.see(eval("n", space))

    async def frame(me):
        await checkpoint()
        me.see(sys._getframe().f_locals.get("kept"))

    async def write(me):
        nonlocal kept
        await checkpoint()
        kept = me.name
        space["n"] = 100

    async def local_import(me):
        await checkpoint()
        from . import calls as here  # noqa: PLC0415, PLW0406 (on purpose)

        here.COUNT += 1
        me.see(here.COUNT)

    global COUNT
    COUNT = 0
    return World((execute, evaluate, frame, write, local_import), lambda: (space["n"], kept, COUNT))


def lazy():
    """Generator expressions, closures and context managers that look later than they are made."""
    items = [1]
    factor = 2

    @contextlib.contextmanager
    def opened():
        items.append("open")
        try:
            yield items
        finally:
            items.append("close")

    @functools.wraps(opened)
    def wrapped():
        return opened()

    async def later(me):
        lazy_ones = (item * factor for item in items)
        await checkpoint()
        me.see(list(lazy_ones))

    async def change(me):
        nonlocal factor
        await checkpoint()
        factor = 3
        items.append(7)

    async def enter(me):
        with wrapped() as inner:
            await checkpoint()
            me.see(len(inner))

    async def closures(me):
        looks = [lambda: factor, lambda: items[-1]]
        await checkpoint()
        me.see([look() for look in looks])

    return World((later, change, enter, closures), lambda: (items, factor))


KINDS = (
    operators("init", "getitem of class", "format", "sort", "call"),
    operators("len", "unpack", "getitem", "contains", "add"),
    operators("index", "getattr", "property", "of the class", "static"),
    operators("partial", "caller", "getter", "by a text"),
    operators("reduce", "map", "key", "sub", "subclass"),
    *map(alone, ("format", "add", "getattr", "contains", "unpack", "key")),
    awaited,
    handlers,
    dynamic_code,
    lazy,
)
