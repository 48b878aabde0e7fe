"""What the tests of linearizability share: histories in short, models, and actors that keep to them or do not."""

from __future__ import annotations

from functools import partial
from operator import itemgetter

import trio
import trio.lowlevel

from stageflow_actors import Supervisor
from stageflow_actors.testing import History, Model, Operation, check_linearizable


def write(text):
    """Return the operations that are written as lines: a client, an interval, a call, and what came of it.

    `ann 1-4 put('a', 1) -> None`; `1-` for one that is pending, with nothing behind it.
    """
    operations = []
    for line in filter(None, map(str.strip, text.splitlines())):
        client, interval, told = line.split(maxsplit=2)
        call, _, result = told.partition(" -> ")
        name, _, arguments = call.partition("(")
        invoked, _, returned = interval.partition("-")
        read = eval(f"({arguments.removesuffix(')')}{',' if arguments.removesuffix(')') else ''})")
        end = float(returned) if returned else None
        done = eval(result) if result else None
        operations.append(Operation(client, (name, *read), done, invoked=float(invoked), returned=end))
    return operations


def keep(state, call):
    """Do what a store of values by key does."""
    match call:
        case ("put", key, value):
            return None, {**state, key: value}
        case ("get", key):
            return state.get(key), state


def enqueue(items, call):
    """Do what a queue does, to the list that it is."""
    match call:
        case ("push", item):
            items.append(item)
            return None, items
        case ("take",):
            return (items.pop(0) if items else None), items


def count(number, call):
    """Do what a counter does."""
    return (number + 1,) * 2


STORE = Model(keep, {}, partition=itemgetter(1))
QUEUE = Model(enqueue, [])
COUNTER = Model(count, 0)


# Actors


def obey(state, message):
    """Do what an actor does that keeps values."""
    match message:
        case {"op": "put", "key": key, "value": value}:
            return None, {**state, key: value}
        case {"op": "get", "key": key}:
            return {"value": state.get(key)}, state
        case {"op": "add", "key": key}:
            value = state.get(key, 0) + 1
            return {"value": value}, {**state, key: value}


KEEPER = Model(obey, {}, partition=itemgetter("key"))


class Keeper:
    """Keeps values by key: an actor whose state is in one place, and which never awaits between a look and a write."""

    def __init__(self):
        self.values = {}

    async def execute(self, ctx):
        await trio.lowlevel.checkpoint()
        reply, self.values = obey(self.values, ctx.snapshot.data)
        return reply


class Hasty(Keeper):
    """Awaits between its look and its write; in a pool, whose workers share it, an update is lost."""

    async def execute(self, ctx):
        reply, after = obey(self.values, ctx.snapshot.data)
        await trio.lowlevel.checkpoint()
        self.values = after
        return reply


class Cache:
    """Stands in front of a keeper, and remembers what it was told, but for what goes another way."""

    def __init__(self, keeper):
        self.keeper = keeper
        self.seen = {}

    async def execute(self, ctx):
        data = ctx.snapshot.data
        if data["op"] == "put":
            return await self.keeper.ask(data, timeout=None)
        if data["key"] not in self.seen:
            self.seen[data["key"]] = await self.keeper.ask(data, timeout=None)
        return self.seen[data["key"]]


class Behind:
    """Says that a value is written when it has only told the keeper to."""

    def __init__(self, keeper):
        self.keeper = keeper

    async def execute(self, ctx):
        data = ctx.snapshot.data
        if data["op"] == "put":
            await self.keeper.tell(data)
            return None
        return await self.keeper.ask(data, timeout=None)


PUT = {"op": "put", "key": "a", "value": 1}
GET = {"op": "get", "key": "a"}
ADD = {"op": "add", "key": "a"}


async def send(ref, messages):
    for message in messages:
        await ref.ask(message, timeout=None)


async def play(runner, scripts, *, front=None, model=KEEPER, **options):
    """Let clients send their messages to an actor, and check what they were told.

    Args:
        runner: The actor.
        scripts: By client the messages that it asks, one after the other.
        front: The runner of an actor that stands in front, of the reference to the other one.
        model: What the actor is compared with.
        options: Those of the actor.
    """
    history = History()
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(runner, name="keeper", **options)
        if front is not None:
            ref = await supervisor.spawn(partial(front, ref), name="front")
        async with trio.open_nursery() as nursery:
            for client, messages in scripts.items():
                nursery.start_soon(send, history.record(ref), messages, name=client)
    check_linearizable(history, model)
