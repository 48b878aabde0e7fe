"""Small random programs of trio's primitives, for tests of the race toolkit: drawn as values, run by `Play`.

Each op writes into a log when it is begun and when it is over, so the log tells the order in which tasks went on,
and what each was told.
"""

from __future__ import annotations

import contextvars
from contextlib import aclosing, suppress

import attrs
import trio
import trio.testing
from hypothesis import strategies as st

MARK = contextvars.ContextVar("mark", default="nobody")
KINDS = 2  # locks, events and scopes of each sort


@attrs.frozen
class Op:
    """One thing that a task does."""

    what: str
    number: int = 0
    """Of the lock, event or scope; or seconds."""
    body: tuple = ()
    """What is done inside of it."""
    others: tuple = ()
    """What other tasks do: a tuple of ops each."""


class Play:
    """What the tasks of one execution share."""

    def __init__(self):
        self.log = []
        self.locks = [trio.Lock() for _ in range(KINDS)]
        self.semaphores = [trio.Semaphore(1), trio.Semaphore(2)]
        self.limiters = [trio.CapacityLimiter(1), trio.CapacityLimiter(2)]
        self.events = [trio.Event() for _ in range(KINDS)]
        self.conditions = [trio.Condition() for _ in range(KINDS)]
        self.channels = [trio.open_memory_channel(size) for size in range(KINDS)]
        self.scopes = {}
        self.spawned = 0

    async def run(self, who, ops):
        """Do one thing after another, in the name of a task."""
        for op in ops:
            self.log.append((who, op.what, op.number))
            try:
                told = await getattr(self, op.what)(who, op)
            except BaseException as error:
                self.log.append((who, op.what, op.number, type(error).__name__))
                raise
            self.log.append((who, op.what, op.number, told))

    async def now(self, _who, _op):
        return trio.current_time()  # else nobody looks: a toolkit that offers jumps only then must not miss one

    async def checkpoint(self, _who, _op):
        await trio.lowlevel.checkpoint()

    async def shielded(self, _who, _op):
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def if_cancelled(self, _who, _op):
        await trio.lowlevel.checkpoint_if_cancelled()

    async def sleep(self, _who, op):
        await trio.sleep(op.number)

    async def idle(self, _who, _op):
        await trio.testing.wait_all_tasks_blocked()

    async def lock(self, who, op):
        async with self.locks[op.number]:
            await self.run(who, op.body)

    async def semaphore(self, who, op):
        async with self.semaphores[op.number]:
            await self.run(who, op.body)

    async def limiter(self, who, op):
        async with self.limiters[op.number]:
            await self.run(who, op.body)

    async def set_event(self, _who, op):
        self.events[op.number].set()

    async def wait_event(self, _who, op):
        await self.events[op.number].wait()

    async def notify(self, _who, op):
        async with self.conditions[op.number]:
            self.conditions[op.number].notify()

    async def wait_condition(self, _who, op):
        async with self.conditions[op.number]:
            await self.conditions[op.number].wait()

    async def send(self, who, op):
        await self.channels[op.number][0].send(who)

    async def receive(self, _who, op):
        return await self.channels[op.number][1].receive()

    async def timeout(self, who, op):
        with trio.move_on_after(op.number) as scope:
            await self.run(who, op.body)
        return scope.cancelled_caught

    async def scope(self, who, op):
        with trio.CancelScope() as scope:
            self.scopes[op.number] = scope
            await self.run(who, op.body)
        return scope.cancelled_caught

    async def cancel(self, _who, op):
        if op.number in self.scopes:
            self.scopes[op.number].cancel()

    async def push(self, _who, op):
        if op.number in self.scopes:
            self.scopes[op.number].deadline = op.number + 0.5

    async def shield(self, who, op):
        with trio.CancelScope(shield=True):
            await self.run(who, op.body)

    async def cleanup(self, who, op):
        try:
            await self.run(who, op.body)
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                self.log.append((who, "cleaned"))

    async def nursery(self, who, op):
        async with trio.open_nursery() as nursery:
            for other in op.others:
                self.spawn(nursery, other)
            await self.run(who, op.body)

    def spawn(self, nursery, ops):
        self.spawned += 1
        name = f"t{self.spawned}"
        nursery.start_soon(self.run, name, ops, name=name)

    async def start(self, who, op):
        async with trio.open_nursery() as nursery:
            for other in op.others:
                self.spawned += 1
                name = f"t{self.spawned}"
                self.log.append((who, "told", await nursery.start(self.serve, name, other, name=name)))
            await self.run(who, op.body)

    async def serve(self, who, ops, task_status=trio.TASK_STATUS_IGNORED):
        await trio.lowlevel.checkpoint()
        task_status.started(who)
        await self.run(who, ops)

    async def fail(self, _who, op):
        raise ValueError(op.number)

    async def catch(self, who, op):
        try:
            await self.run(who, op.body)
        except* ValueError as group:
            self.log.append((who, "caught", len(group.exceptions)))

    async def swallow(self, who, op):
        with suppress(BaseException):
            await self.run(who, op.body)

    async def generator(self, who, op):
        async with aclosing(self.generate(who, op)) as values:
            async for value in values:
                self.log.append((who, "value", value))
                if value == op.number:
                    break

    async def generate(self, who, op):
        try:
            for value in range(3):
                await self.run(who, op.body)
                yield value
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()

    async def mark(self, who, op):
        before = MARK.get()
        MARK.set(who)
        await self.run(who, op.body)
        return before, MARK.get()


@attrs.frozen
class Drawn:
    """A program as a value."""

    ops: tuple

    async def program(self):
        """Run it; return its log, and what it raised."""
        play = Play()
        try:
            await play.run("program", self.ops)
        except BaseException as error:
            return (*play.log, *tell(error))
        return tuple(play.log)

    async def failing(self):
        """Run it, and raise what it raises."""
        await Play().run("program", self.ops)


def tell(error):
    """Return an error as a value that can be compared."""
    if isinstance(error, BaseExceptionGroup):
        return tuple(part for inner in error.exceptions for part in tell(inner))
    return (type(error).__name__, *(error.args if isinstance(error, ValueError) else ()))


numbers = st.integers(0, KINDS - 1)
SIMPLE = (
    "now",
    "shielded",
    "if_cancelled",
    "idle",
    "set_event",
    "wait_event",
    "notify",
    "wait_condition",
    "send",
    "receive",
    "cancel",
    "push",
    "fail",
)
AROUND = (
    "lock",
    "semaphore",
    "limiter",
    "timeout",
    "scope",
    "shield",
    "cleanup",
    "catch",
    "swallow",
    "mark",
    "generator",
)

simple = st.one_of(
    st.just(Op("checkpoint")),
    st.builds(Op, st.just("sleep"), st.integers(0, 2)),
    st.builds(Op, st.sampled_from(SIMPLE), numbers),
)


def bodies(ops, most=2):
    return st.lists(ops, max_size=most).map(tuple)


def nest(ops):
    return st.one_of(
        st.builds(Op, st.sampled_from(AROUND), numbers, bodies(ops)),
        st.builds(Op, st.sampled_from(("nursery", "start")), st.just(0), bodies(ops), bodies(bodies(ops))),
    )


ops = st.recursive(simple, nest, max_leaves=6)
teams = st.lists(bodies(ops, 3), min_size=2, max_size=3).map(tuple)
programs = st.builds(lambda body, others: Drawn((Op("nursery", 0, body, others),)), bodies(ops), teams)
small_programs = st.builds(
    lambda teams: Drawn((Op("nursery", 0, (), teams),)),
    st.lists(bodies(st.recursive(simple, nest, max_leaves=2)), min_size=2, max_size=3).map(tuple),
)
schedules = st.lists(st.integers(0, 3), max_size=30).map(tuple)
