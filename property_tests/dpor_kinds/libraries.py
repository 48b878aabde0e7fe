"""What Python's own library keeps, here and there."""

from __future__ import annotations

import abc
import builtins
import codecs
import csv
import decimal
import functools
import hashlib
import inspect
import io
import itertools
import logging
import sys
import types
import weakref
from contextlib import ExitStack
from unittest import mock

from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def decimal_context():
    """The context of decimals is a context variable's value, which tasks that came from one share."""
    decimal.setcontext(decimal.Context(prec=5))

    async def narrow(me):
        await checkpoint()
        decimal.getcontext().prec = 2

    async def divide(me):
        await checkpoint()
        me.see(str(decimal.Decimal(1) / 3))

    async def local(me):
        with decimal.localcontext() as context:
            context.prec = 3
            await checkpoint()
            me.see(str(decimal.Decimal(1) / 3))

    return World((narrow, divide, local), lambda: decimal.getcontext().prec)


def streams_of_bytes():
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()

    async def update(me):
        await checkpoint()
        digest.update(me.name.encode())

    async def look(me):
        await checkpoint()
        me.see(digest.hexdigest()[:4])

    async def half(me):
        await checkpoint()
        try:
            me.see(decoder.decode(b"\xc3"))
        except UnicodeDecodeError:
            me.see("bad")

    async def other_half(me):
        await checkpoint()
        try:
            me.see(decoder.decode(b"\xa4"))
        except UnicodeDecodeError:
            me.see("bad")

    return World((update, look, half, other_half), digest.hexdigest)


def written_lines():
    text = io.StringIO()
    writer = csv.writer(text)

    async def write(me):
        await checkpoint()
        writer.writerow([me.name, 1])

    async def look(me):
        await checkpoint()
        me.see(len(text.getvalue()))

    return World((write, look), text.getvalue)


def a_logger():
    logger = logging.getLogger("dpor of a program")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers.clear()
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    logger.addHandler(Keep())

    async def say(me):
        await checkpoint()
        logger.info(me.name)

    async def silence(me):
        await checkpoint()
        logger.setLevel(logging.ERROR)

    async def look(me):
        await checkpoint()
        me.see((logger.isEnabledFor(logging.INFO), len(records)))

    return World((say, silence, look), lambda: records)


def a_mock():
    thing = mock.Mock()
    thing.get.side_effect = [1, 2, 3, 4, 5, 6, 7, 8]

    async def call(me):
        await checkpoint()
        me.see(thing.get(me.name))

    async def note(me):
        await checkpoint()
        thing.put(me.name)

    async def look(me):
        await checkpoint()
        me.see((thing.get.call_count, thing.put.called, len(thing.mock_calls)))

    return World((call, note, look), lambda: repr(thing.mock_calls))


def a_stack():
    log = []
    stack = ExitStack()

    async def push(me):
        await checkpoint()
        stack.callback(log.append, me.name)

    async def close(me):
        await checkpoint()
        stack.close()
        log.append("closed")

    return World((push, close), lambda: log, close=stack.close)


def chained_iterators():
    items = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    left, right = itertools.tee(iter(items))
    doubled = map(lambda number: number * 2, iter(items))  # noqa: C417
    odd = filter(lambda number: number % 2, iter(items))
    part = itertools.islice(itertools.chain(items, "ab"), 1, None)
    sums = itertools.accumulate(iter(items))

    async def one(me):
        await checkpoint()
        me.see((next(left, None), next(doubled, None)))

    async def other(me):
        await checkpoint()
        me.see((next(right, None), next(odd, None)))

    async def third(me):
        await checkpoint()
        me.see((next(part, None), next(sums, None)))

    async def append(me):
        await checkpoint()
        items.insert(0, 100)

    return World((one, other, third, append))


class Thing:
    pass


def weak_collections():
    kept = [Thing(), Thing()]
    alive = weakref.WeakSet(kept)
    notes = weakref.WeakKeyDictionary()
    log = []
    weakref.finalize(kept[0], log.append, "finalised")

    async def drop(me):
        await checkpoint()
        kept.clear()

    async def note(me):
        await checkpoint()
        if kept:
            notes[kept[0]] = me.name

    async def add(me):
        mine = Thing()
        alive.add(mine)
        await checkpoint()
        me.see(len(alive))

    async def look(me):
        await checkpoint()
        me.see((len(alive), len(notes), len(log)))

    return World((drop, note, add, look), lambda: (len(alive), log))


def dispatch():
    @functools.singledispatch
    def say(_value):
        return "any"

    class Base(abc.ABC):  # noqa: B024
        pass

    async def register(me):
        await checkpoint()
        say.register(int, lambda _: me.name)

    async def ask(me):
        await checkpoint()
        me.see(say(1))

    async def adopt(me):
        await checkpoint()
        Base.register(Thing)

    async def test(me):
        await checkpoint()
        me.see(issubclass(Thing, Base))

    return World((register, ask, adopt, test))


def reflection():
    """What looks at objects from behind: subclasses, frames, suspended coroutines, builtins."""

    class Base:
        pass

    kept = []
    builtins.a_made_up_name = 0

    async def derive(me):
        await checkpoint()
        kept.append(types.new_class(f"C{me.number}", (Base,)))

    async def count(me):
        await checkpoint()
        me.see(len(Base.__subclasses__()))

    async def build_in(me):
        await checkpoint()
        builtins.a_made_up_name = me.name

    async def look(me):
        await checkpoint()
        me.see(a_made_up_name)  # noqa: F821

    async def refer(me):
        mine = Base
        await checkpoint()
        me.see(sys.getrefcount(mine) - sys.getrefcount(mine))

    return World((derive, count, build_in, look, refer), close=lambda: vars(builtins).pop("a_made_up_name"))


def coroutines():
    """A coroutine that one makes and another awaits, or looks at."""
    log = []

    async def work():
        log.append("begins")
        await checkpoint()
        log.append("ends")
        return len(log)

    shared = [work()]

    async def run(me):
        await checkpoint()
        if shared:
            me.see(await shared.pop())

    async def close(me):
        await checkpoint()
        if shared:
            shared.pop().close()

    async def look(me):
        await checkpoint()
        me.see([inspect.getcoroutinestate(each) for each in shared])

    def end():
        while shared:
            shared.pop().close()

    return World((run, close, look), lambda: log, close=end)


KINDS = (
    decimal_context,
    streams_of_bytes,
    written_lines,
    a_logger,
    a_mock,
    a_stack,
    chained_iterators,
    weak_collections,
    dispatch,
    reflection,
    coroutines,
)
