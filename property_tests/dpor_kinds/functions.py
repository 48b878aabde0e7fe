"""State that functions carry: defaults, attributes, caches, and their code."""

from __future__ import annotations

import functools

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def default_argument():
    async def append(me, items=[]):  # noqa: B006 (shared on purpose)
        items.append(me.name)
        await checkpoint()
        me.see(tuple(items))

    async def keyword(me, *, items=append.__defaults__[0]):
        await checkpoint()
        items.insert(0, me.number)

    async def swap(me):
        append.__defaults__ = ([me.name],)
        await checkpoint()

    return World((append, keyword, swap), lambda: append.__defaults__)


def function_attributes():
    def served():
        pass

    served.times = 0

    async def serve(me):
        seen = served.times
        await checkpoint()
        served.times = seen + 1

    async def count(me):
        served.times += 1
        await checkpoint()
        me.see(served.times)

    async def look(me):
        await checkpoint()
        me.see(served.__dict__["times"])

    return World((serve, count, look), lambda: served.times)


def function_code():
    """What a function does is changed."""

    def answer():
        return 1

    def other():
        return 2

    async def change(me):
        await checkpoint()
        answer.__code__ = other.__code__

    async def ask(me):
        me.see(answer())
        await checkpoint()
        me.see(answer())

    return World((change, ask))


def partials():
    """State in the arguments of partials, and a bound method that is held."""
    items = []
    put = functools.partial(items.append, "x")
    pop = items.pop
    log = functools.partial(dict.__setitem__, kept := {})

    async def push(me):
        put()
        await checkpoint()

    async def take(me):
        await checkpoint()
        me.see(pop() if items else "none")

    async def note(me):
        await checkpoint()
        log("who", me.name)

    async def look(me):
        await checkpoint()
        me.see((len(items), kept.get("who")))

    return World((push, take, note, look), lambda: (items, kept))


def cached():
    """A cache in C that remembers who called first."""

    @functools.lru_cache(maxsize=1)
    def first(_key):
        return next(numbers)

    numbers = iter(range(10))

    async def one(me):
        await checkpoint()
        me.see(first(1))

    async def other(me):
        me.see(first(2))
        await checkpoint()

    async def clear(me):
        first.cache_clear()
        await checkpoint()
        me.see(first.cache_info().currsize)

    return World((one, other, clear))


KINDS = (
    default_argument,
    function_attributes,
    function_code,
    partials,
    cached,
)
