"""Closing what others still use: pools, connectors, drivers, actors with letters in their box."""

from __future__ import annotations

import math

import attrs
import trio
from trio.lowlevel import ParkingLot, checkpoint

from .entry import MADE_UP, Entry, side_by_side


async def io_after_stop():
    """A request sees that nobody stops the driver, is overtaken by the stop, and runs on a stopped driver."""
    stopping = stopped = False
    pending = 1  # the driver itself
    drained = trio.Event()

    def leave():
        nonlocal pending
        pending -= 1
        if pending == 0:
            drained.set()

    async def add():
        nonlocal pending
        if stopping:
            return
        await checkpoint()
        pending += 1
        await checkpoint()  # does its work
        assert not stopped
        leave()

    async def stop():
        nonlocal stopping, stopped
        stopping = True
        leave()
        await drained.wait()
        stopped = True

    await side_by_side(add, stop)


async def io_after_stop_twin():
    """Holds: a request counts itself in the step that sees no stop, and a stop waits for all that are counted."""
    stopping = stopped = False
    pending = 1
    drained = trio.Event()

    def leave():
        nonlocal pending
        pending -= 1
        if pending == 0:
            drained.set()

    async def add():
        nonlocal pending
        if stopping:
            return
        pending += 1
        await checkpoint()
        await checkpoint()
        assert not stopped
        leave()

    async def stop():
        nonlocal stopping, stopped
        stopping = True
        leave()
        await drained.wait()
        stopped = True

    await side_by_side(add, stop)


class Resolver:
    async def resolve(self):
        await checkpoint()
        return "192.0.2.1"


@attrs.define
class Connector:
    resolver: Resolver | None = attrs.Factory(Resolver)
    closed: bool = False

    async def close(self):
        await checkpoint()
        self.closed = True
        self.resolver = None


async def close_during_use():
    """The connector is closed while a request waits for its trace; the request then finds no resolver."""
    connector = Connector()
    addresses = []

    async def connect():
        if not connector.closed:
            await checkpoint()  # traces the start
            addresses.append(await connector.resolver.resolve())

    await side_by_side(connect, connector.close)
    assert connector.closed


async def close_during_use_twin():
    """Holds: the request looks at the connector after its last await before it takes the resolver."""
    connector = Connector()
    addresses = []

    async def connect():
        await checkpoint()
        if not connector.closed:
            addresses.append(await connector.resolver.resolve())

    await side_by_side(connect, connector.close)
    assert connector.closed


async def check_in_after_close():
    """The pool is closed while a connection is reset, and the connection goes back into the closed pool."""
    opened = {"connection"}
    idle = []
    closed = False

    async def check_in():
        if closed:
            opened.discard("connection")
            return
        await checkpoint()  # resets the session
        idle.append("connection")

    async def close():
        nonlocal closed
        closed = True
        opened.difference_update(idle)
        idle.clear()

    await side_by_side(check_in, close)
    assert not opened


async def check_in_after_close_twin():
    """Holds: looking and putting back are one step, so a close sees the connection, or it sees the close."""
    opened = {"connection"}
    idle = []
    closed = False

    async def check_in():
        await checkpoint()
        if closed:
            opened.discard("connection")
        else:
            idle.append("connection")

    async def close():
        nonlocal closed
        closed = True
        opened.difference_update(idle)
        idle.clear()

    await side_by_side(check_in, close)
    assert not opened


@attrs.define
class Connection:
    user: str | None = None


async def reset_after_return():
    """The connection is back in the pool, and in use again, when its former user resets it."""
    give_back, take = trio.open_memory_channel(1)
    give_back.send_nowait(Connection())

    async def use(me):
        connection = await take.receive()
        connection.user = me
        await checkpoint()
        assert connection.user == me
        await give_back.send(connection)
        connection.user = None

    async with trio.open_nursery() as nursery:
        for me in ("ann", "bob"):
            nursery.start_soon(use, me)


async def reset_after_return_twin():
    """Holds: nobody touches a connection after giving it back."""
    give_back, take = trio.open_memory_channel(1)
    give_back.send_nowait(Connection())

    async def use(me):
        connection = await take.receive()
        connection.user = me
        await checkpoint()
        assert connection.user == me
        connection.user = None
        await give_back.send(connection)

    async with trio.open_nursery() as nursery:
        for me in ("ann", "bob"):
            nursery.start_soon(use, me)


async def ask_a_stopped_actor():
    """The question is put into the box of an actor that has read its stop, and nobody ever answers."""
    box, letters = trio.open_memory_channel(math.inf)

    async def act():
        async for letter in letters:
            if letter == "stop":
                return
            letter.set()

    async def ask():
        answered = trio.Event()
        await box.send(answered)
        await answered.wait()

    async def stop():
        await box.send("stop")

    await side_by_side(act, ask, stop)


async def ask_a_stopped_actor_twin():
    """Holds: the actor answers what is left and closes its box in one step, and a closed box refuses questions."""
    box, letters = trio.open_memory_channel(math.inf)

    async def act():
        async for letter in letters:
            if letter == "stop":
                break
            letter.set()
        while letters.statistics().current_buffer_used:
            letters.receive_nowait().set()
        letters.close()

    async def ask():
        answered = trio.Event()
        try:
            await box.send(answered)
        except trio.BrokenResourceError:
            return
        await answered.wait()

    async def stop():
        await box.send("stop")

    await side_by_side(act, ask, stop)


async def sentinel_unread():
    """The worker sees the flag of the shutdown first and leaves; the shutdown waits for its sentinel to be read."""
    jobs, taken = trio.open_memory_channel(math.inf)
    answered = trio.Event()
    settled = ParkingLot()
    running = True
    unfinished = 0

    async def work():
        nonlocal unfinished
        while running:
            answer = await taken.receive()
            if answer is not None:
                answer.set()
                await checkpoint()  # writes its log
            unfinished -= 1
            settled.unpark_all()

    async def use_and_shut_down():
        nonlocal running, unfinished
        unfinished += 1
        await jobs.send(answered)
        await answered.wait()
        running = False
        unfinished += 1
        await jobs.send(None)
        while unfinished:
            await settled.park()

    await side_by_side(work, use_and_shut_down)


async def sentinel_unread_twin():
    """Holds: only the sentinel ends the worker, so everything before it and the sentinel itself are read."""
    jobs, taken = trio.open_memory_channel(math.inf)
    answered = trio.Event()
    settled = ParkingLot()
    unfinished = 0

    async def work():
        nonlocal unfinished
        answer = answered
        while answer is not None:
            answer = await taken.receive()
            if answer is not None:
                answer.set()
                await checkpoint()
            unfinished -= 1
            settled.unpark_all()

    async def use_and_shut_down():
        nonlocal unfinished
        unfinished += 1
        await jobs.send(answered)
        await answered.wait()
        unfinished += 1
        await jobs.send(None)
        while unfinished:
            await settled.park()

    await side_by_side(work, use_and_shut_down)


ENTRIES = (
    Entry(
        name="request on a stopped driver",
        kind="check then act on close",
        depth=2,
        source="Qadeer, Wu, KISS: Keep It Simple and Sequential, PLDI 2004: the Bluetooth driver",
        bug=io_after_stop,
        twin=io_after_stop_twin,
        shows="exception",
    ),
    Entry(
        name="close during use",
        kind="close during use",
        depth=2,
        source="aio-libs/aiohttp#12688: TCPConnector.close nullifies the resolver during an in-flight resolve",
        bug=close_during_use,
        twin=close_during_use_twin,
        shows="exception",
    ),
    Entry(
        name="check-in after close",
        kind="check-in after close",
        depth=2,
        source=MADE_UP,
        bug=check_in_after_close,
        twin=check_in_after_close_twin,
        shows="exception",
    ),
    Entry(
        name="reset after return",
        kind="use after release",
        depth=3,
        source="npgsql/npgsql#3247: a connector is changed after its return to the pool",
        bug=reset_after_return,
        twin=reset_after_return_twin,
        shows="exception",
    ),
    Entry(
        name="ask a stopped actor",
        kind="message to a stopped actor",
        depth=1,
        source="jodal/pykka#23: messages left in an actor's inbox after its stop are never answered",
        bug=ask_a_stopped_actor,
        twin=ask_a_stopped_actor_twin,
        shows="lost wake-up",
    ),
    Entry(
        name="sentinel unread",
        kind="producer-consumer termination",
        depth=1,
        source="langfuse/langfuse-python#1670: the consumer leaves before it has read the shutdown's sentinel",
        bug=sentinel_unread,
        twin=sentinel_unread_twin,
        shows="lost wake-up",
    ),
)
