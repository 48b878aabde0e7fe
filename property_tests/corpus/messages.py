"""Messages and protocols: order, late messages, full mailboxes, closes, counts that never settle."""

from __future__ import annotations

import math
from collections import deque

import trio
from trio.lowlevel import checkpoint

from .entry import MADE_UP, Entry, side_by_side


async def message_order():
    """The request goes straight to the service, and overtakes the configuration, which goes over a relay."""
    to_relay, at_relay = trio.open_memory_channel(0)
    to_service, at_service = trio.open_memory_channel(2)
    received = []

    async def configure_and_ask():
        await to_relay.send("configuration")
        await to_service.send("request")

    async def relay():
        await to_service.send(await at_relay.receive())

    async def serve():
        received.extend([await at_service.receive() for _ in range(2)])

    await side_by_side(configure_and_ask, relay, serve)
    assert received == ["configuration", "request"]


async def message_order_twin():
    """Holds: both go over the relay, and a channel keeps the order of one sender."""
    to_relay, at_relay = trio.open_memory_channel(0)
    to_service, at_service = trio.open_memory_channel(2)
    received = []

    async def configure_and_ask():
        await to_relay.send("configuration")
        await to_relay.send("request")

    async def relay():
        for _ in range(2):
            await to_service.send(await at_relay.receive())

    async def serve():
        received.extend([await at_service.receive() for _ in range(2)])

    await side_by_side(configure_and_ask, relay, serve)
    assert received == ["configuration", "request"]


async def late_delete():
    """The order to delete the first result arrives when the second one is stored, and deletes that."""
    orders, ordered = trio.open_memory_channel(0)
    results = {}

    async def schedule():
        results["sum"] = 1
        await orders.send("sum")  # nobody needs it any more
        results["sum"] = 2  # somebody does, so it is computed again

    async def delete():
        key = await ordered.receive()
        await checkpoint()
        results.pop(key)

    await side_by_side(schedule, delete)
    assert results == {"sum": 2}


async def late_delete_twin():
    """Holds: the order names the result it means, and any other stays."""
    orders, ordered = trio.open_memory_channel(0)
    results = {}

    async def schedule():
        results["sum"] = 1
        await orders.send(("sum", 1))
        results["sum"] = 2

    async def delete():
        key, result = await ordered.receive()
        await checkpoint()
        if results[key] == result:
            del results[key]

    await side_by_side(schedule, delete)
    assert results == {"sum": 2}


class Frames:
    """The sending half of a websocket: one close frame, and nothing after it."""

    def __init__(self):
        self.open = True

    def write_close(self):
        if not self.open:
            raise RuntimeError("cannot write to a websocket in the closing state")
        self.open = False


async def two_closes():
    """We begin to close, the peer's close frame is answered meanwhile, and then our own is written."""
    frames = Frames()

    async def close():
        if frames.open:
            await checkpoint()  # arms the timeout of the handshake
            frames.write_close()

    async def answer_close():
        await checkpoint()  # the peer's close frame arrives
        if frames.open:
            frames.write_close()

    await side_by_side(close, answer_close)
    assert not frames.open


async def two_closes_twin():
    """Holds: looking and writing are one step."""
    frames = Frames()

    async def close():
        await checkpoint()
        if frames.open:
            frames.write_close()

    async def answer_close():
        await checkpoint()
        if frames.open:
            frames.write_close()

    await side_by_side(close, answer_close)
    assert not frames.open


async def mailbox_overflow():
    """The oldest message is announced as dropped, but read before it is taken out; another one goes instead."""
    mailbox = deque()
    read = []
    dropped = []

    async def tell():
        for message in range(3):
            if mailbox:
                dropped.append(mailbox[0])
                await checkpoint()  # publishes the dead letter
                mailbox.popleft()
            mailbox.append(message)

    async def listen():
        while mailbox:
            read.append(mailbox.popleft())
            await checkpoint()

    await side_by_side(tell, listen)
    assert sorted([*read, *dropped, *mailbox]) == [0, 1, 2]


async def mailbox_overflow_twin():
    """Holds: a message leaves the mailbox in the step that says where it goes."""
    mailbox = deque()
    read = []
    dropped = []

    async def tell():
        for message in range(3):
            if mailbox:
                dropped.append(mailbox.popleft())
                await checkpoint()
            mailbox.append(message)

    async def listen():
        while mailbox:
            read.append(mailbox.popleft())
            await checkpoint()

    await side_by_side(tell, listen)
    assert sorted([*read, *dropped, *mailbox]) == [0, 1, 2]


class Routers:
    """Two routers, `far` and `near`, that tell each other what it costs to reach a network behind `near`."""

    def __init__(self, *, split_horizon):
        self.cost = {"far": 2, "near": 1}
        self._via = {"far": "near", "near": None}
        self._inboxes = {name: trio.open_memory_channel(math.inf) for name in self.cost}
        self._split_horizon = split_horizon
        self._unsettled = 2  # the refresh and the cut

    async def run(self):
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._refresh)
            nursery.start_soon(self._route, "near", "far")
            nursery.start_soon(self._route, "far", "near")
            nursery.start_soon(self._cut)

    def _advertise(self, sender, receiver):
        if not (self._split_horizon and self._via[sender] == receiver):
            self._unsettled += 1
            self._inboxes[receiver][0].send_nowait(self.cost[sender])

    def _settle(self):
        self._unsettled -= 1
        if self._unsettled == 0:
            self._scope.cancel()

    async def _refresh(self):
        self._advertise("far", "near")
        self._settle()

    async def _cut(self):
        self.cost["near"] = math.inf
        self._advertise("near", "far")
        self._settle()

    async def _route(self, me, other):
        async for heard in self._inboxes[me][1]:
            offered = heard + 1
            if offered < self.cost[me] or (self._via[me] == other and offered != self.cost[me]):
                self.cost[me] = offered
                self._via[me] = other
                self._advertise(me, other)
            self._settle()


async def count_to_infinity():
    """The far router's old advertisement arrives after the cut, and the two go on raising each other's cost."""
    routers = Routers(split_horizon=False)
    await routers.run()
    assert routers.cost == {"far": math.inf, "near": math.inf}


async def count_to_infinity_twin():
    """Holds: no router advertises a route to the neighbour it leads over, so no cost can come back."""
    routers = Routers(split_horizon=True)
    await routers.run()
    assert routers.cost == {"far": math.inf, "near": math.inf}


async def two_phase_commit():
    """A participant that has voted yes gives up waiting, and aborts what the coordinator commits."""
    votes, voted = trio.open_memory_channel(2)
    decisions = [trio.open_memory_channel(1) for _ in range(2)]
    outcomes = []

    async def coordinate():
        decision = "abort"
        with trio.move_on_after(5):
            for _ in decisions:
                await voted.receive()
            decision = "commit"
        outcomes.append(decision)
        for send, _ in decisions:
            await send.send(decision)

    async def take_part(number):
        await votes.send("yes")
        decision = "abort"
        with trio.move_on_after(5):
            decision = await decisions[number][1].receive()
        outcomes.append(decision)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(coordinate)
        for number in range(2):
            nursery.start_soon(take_part, number)
    assert len(set(outcomes)) == 1


async def two_phase_commit_twin():
    """Holds: after its vote a participant waits for the decision, and the coordinator decides once, for all."""
    votes, voted = trio.open_memory_channel(2)
    decisions = [trio.open_memory_channel(1) for _ in range(2)]
    outcomes = []

    async def coordinate():
        decision = "abort"
        with trio.move_on_after(5):
            for _ in decisions:
                await voted.receive()
            decision = "commit"
        outcomes.append(decision)
        for send, _ in decisions:
            await send.send(decision)

    async def take_part(number):
        await votes.send("yes")
        outcomes.append(await decisions[number][1].receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(coordinate)
        for number in range(2):
            nursery.start_soon(take_part, number)
    assert len(set(outcomes)) == 1


ENTRIES = (
    Entry(
        name="message order",
        kind="message order",
        depth=1,
        source="Akka documentation, Message Delivery Reliability: order holds for a pair of sender and receiver only",
        bug=message_order,
        twin=message_order_twin,
        shows="exception",
    ),
    Entry(
        name="late delete",
        kind="message order",
        depth=1,
        source="dask/distributed#145: recomputed data is deleted by a late message",
        bug=late_delete,
        twin=late_delete_twin,
        shows="exception",
    ),
    Entry(
        name="two closes",
        kind="check then act on close",
        depth=2,
        source="python-websockets/websockets#339: cannot write to a WebSocket in the CLOSING state",
        bug=two_closes,
        twin=two_closes_twin,
        shows="exception",
    ),
    Entry(
        name="mailbox overflow",
        kind="mailbox overflow",
        depth=2,
        source=MADE_UP,
        bug=mailbox_overflow,
        twin=mailbox_overflow_twin,
        shows="exception",
    ),
    Entry(
        name="count to infinity",
        kind="messages without end",
        depth=2,
        source="Hedrick, Routing Information Protocol, RFC 1058, 1988: counting to infinity; twin: split horizon",
        bug=count_to_infinity,
        twin=count_to_infinity_twin,
        shows="livelock",
    ),
    Entry(
        name="two-phase commit",
        kind="two-phase commit",
        depth=1,
        source="redpanda-data/redpanda#1572: only the coordinator knows the outcome of a prepared transaction",
        bug=two_phase_commit,
        twin=two_phase_commit_twin,
        shows="exception",
        needs_clock=True,
    ),
)
