"""Variables, and whatever else holds a value by a name."""

# ruff: noqa: PLW0603  # globals are what it is about

from __future__ import annotations

import contextlib
import contextvars
import enum
import functools
import types

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World

ROOM = types.ModuleType("room")


ROOM.count = 0


GLOBAL = 0


BOX = contextvars.ContextVar("box")


def cell():
    value = 0

    async def add(me):
        nonlocal value
        seen = value
        await checkpoint()
        value = seen + 1

    async def put(me):
        nonlocal value
        value = me.name
        await checkpoint()
        me.see(value)

    async def look(me):
        me.see(value)
        await checkpoint()
        me.see(value)

    return World((add, put, look), lambda: value)


def cell_that_comes_and_goes():
    value = "there"

    async def remove(me):
        nonlocal value
        await checkpoint()
        with contextlib.suppress(NameError):
            del value

    async def give(me):
        nonlocal value
        value = me.name
        await checkpoint()

    async def look(me):
        await checkpoint()
        try:
            me.see(value)
        except NameError:
            me.see("gone")

    return World((remove, give, look))


def cells_of_helpers():
    """Closures that are called through other functions, two levels deep."""
    total = 0
    last = None

    def get():
        return total

    def put(value):
        nonlocal total
        total = value

    async def change(by, me):
        nonlocal last
        before = get()
        await checkpoint()
        put(before + by)
        last = me.name

    async def add(me):
        await change(1, me)

    async def add_two(me):
        await functools.partial(change, 2)(me)

    async def peek(me):
        me.see((lambda: get())())  # noqa: PLC3002, PLW0108 (a closure in a closure)
        await checkpoint()
        me.see(last)

    return World((add, add_two, peek), lambda: (total, last))


def globals_():
    global GLOBAL
    GLOBAL = 0

    async def add(me):
        global GLOBAL
        seen = GLOBAL
        await checkpoint()
        GLOBAL = seen + 1

    async def put(me):
        global GLOBAL
        GLOBAL = me.name
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see(GLOBAL)

    return World((add, put, look), lambda: GLOBAL)


def globals_by_key():
    """Globals by way of the dict that they are in."""
    global GLOBAL
    GLOBAL = 0
    here = globals()

    async def put(me):
        globals()["GLOBAL"] = (me.name, globals()["GLOBAL"])
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see(here["GLOBAL"])

    async def plainly(me):
        global GLOBAL
        await checkpoint()
        GLOBAL = me.number

    return World((put, look, plainly), lambda: GLOBAL)


def module():
    """Attributes of a module that somebody else has."""
    ROOM.count = 0
    ROOM.items = []

    async def add(me):
        seen = ROOM.count
        await checkpoint()
        ROOM.count = seen + 1

    async def append(me):
        await checkpoint()
        ROOM.items.append(me.name)

    async def patch(me):
        before, ROOM.count = ROOM.count, 10
        await checkpoint()
        ROOM.count = before

    async def look(me):
        me.see((ROOM.count, len(vars(ROOM)["items"])))
        await checkpoint()
        me.see(getattr(ROOM, "count"))  # noqa: B009

    return World((add, append, patch, look), lambda: (ROOM.count, ROOM.items))


def context_variable():
    """The value of a context variable is each task's own; what is in it is not."""
    box = {"n": 0}
    BOX.set(box)

    async def add(me):
        held = BOX.get()
        seen = held["n"]
        await checkpoint()
        held["n"] = seen + 1

    async def replace(me):
        BOX.set({"n": 100})
        await checkpoint()
        me.see(BOX.get()["n"])

    async def look(me):
        await checkpoint()
        me.see(BOX.get()["n"])

    return World((add, replace, look), lambda: box)


def context_of_others():
    """Code that runs in a context that tasks share."""
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.copy_context()

    async def add(me):
        seen = context.run(variable.get)
        await checkpoint()
        context.run(variable.set, seen + 1)

    async def look(me):
        await checkpoint()
        me.see(context.get(variable, 0))

    return World((add, look))


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


def enum_members():
    Color.RED.seen = 0
    Color.GREEN.seen = 0

    async def add(me):
        seen = Color.RED.seen
        await checkpoint()
        Color.RED.seen = seen + 1

    async def by_value(me):
        await checkpoint()
        Color("red").seen += 10

    async def other(me):
        Color.GREEN.seen += 1
        await checkpoint()
        me.see(Color["RED"].seen)

    return World((add, by_value, other), lambda: (Color.RED.seen, Color.GREEN.seen))


def namespace():
    """An object of a C type with a `__dict__`."""
    space = types.SimpleNamespace(n=0)

    async def add(me):
        seen = space.n
        await checkpoint()
        space.n = seen + 1

    async def look(me):
        me.see(space.n)
        await checkpoint()
        me.see(space.n)

    async def new(me):
        await checkpoint()
        space.who = me.name
        me.see(sorted(vars(space)))

    return World((add, look, new), lambda: space.n)


def exceptions():
    """What errors carry: arguments, notes, and attributes."""
    error = ValueError("a")

    async def argue(me):
        error.args = (*error.args, me.name)
        await checkpoint()

    async def note(me):
        await checkpoint()
        error.add_note(me.name)

    async def look(me):
        await checkpoint()
        me.see((str(error), getattr(error, "__notes__", None)))

    async def chain(me):
        await checkpoint()
        error.__cause__ = KeyError(me.name)
        await checkpoint()
        me.see(str(error.__cause__))

    return World((argue, note, look, chain), lambda: (error.args, getattr(error, "__notes__", None)))


def rebound():
    """A name that is bound to something else, equal or the same in part; and what was bound before lives on."""
    items = [1]

    async def replace(me):
        nonlocal items
        items = [*items]  # equal, and another
        await checkpoint()

    async def keep(me):
        mine = items
        await checkpoint()
        mine.append(me.name)

    async def look(me):
        mine = items
        await checkpoint()
        me.see((mine is items, len(items)))

    return World((replace, keep, look), lambda: items)


def equal_values():
    """Values that are equal and not the same: 1, True and 1.0, minus zero, and not a number."""
    value = 1
    floats = [0.0]

    async def true(me):
        nonlocal value
        value = True
        await checkpoint()

    async def one(me):
        nonlocal value
        await checkpoint()
        value = 1.0

    async def minus(me):
        await checkpoint()
        floats[0] = -0.0

    async def look(me):
        await checkpoint()
        me.see((repr(value), repr(floats[0])))

    return World((true, one, minus, look), lambda: value)


KINDS = (
    cell,
    cell_that_comes_and_goes,
    cells_of_helpers,
    globals_,
    globals_by_key,
    module,
    context_variable,
    context_of_others,
    enum_members,
    namespace,
    exceptions,
    rebound,
    equal_values,
)
