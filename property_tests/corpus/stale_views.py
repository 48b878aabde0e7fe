"""What a task has seen does not hold any more: stale values, nodes that come back, collections that change."""

from __future__ import annotations

import attrs
from trio.lowlevel import checkpoint

from .entry import MADE_UP, Entry, side_by_side


async def stale_cache():
    """The reader fetches the old value, the writer deletes the cached one, the reader then caches the old one."""
    database = "old"
    cache = {}

    async def read():
        if "key" not in cache:
            value = database
            await checkpoint()  # the answer travels
            cache["key"] = value

    async def write():
        nonlocal database
        database = "new"
        await checkpoint()
        cache.pop("key", None)

    await side_by_side(read, write)
    assert cache.get("key", database) == database


async def stale_cache_twin():
    """Holds: the delete that follows a write also voids every lease, and a value without its lease is not kept."""
    database = "old"
    cache = {}
    lease = 0

    async def read():
        if "key" not in cache:
            mine = lease
            value = database
            await checkpoint()
            if mine == lease:
                cache["key"] = value

    async def write():
        nonlocal database, lease
        database = "new"
        await checkpoint()
        cache.pop("key", None)
        lease += 1

    await side_by_side(read, write)
    assert cache.get("key", database) == database


@attrs.define(eq=False)
class Node:
    name: str
    rest: Node | None = None


def three_nodes():
    return Node("a", Node("b", Node("c")))


def names_from(node):
    while node is not None:
        yield node.name
        node = node.rest


async def aba():
    """The top is the same node as before, but below it nothing is: a node that was taken comes back."""
    top = three_nodes()
    owned = []

    async def pop():
        nonlocal top
        while True:
            node, rest = top, top.rest
            await checkpoint()
            if top is node:
                top = rest
                return node

    async def push(node):
        nonlocal top
        while True:
            node.rest = seen = top
            await checkpoint()
            if top is seen:
                top = node
                return

    async def take_one():
        owned.append((await pop()).name)

    async def take_the_second():
        first = await pop()
        owned.append((await pop()).name)
        await push(first)

    await side_by_side(take_one, take_the_second)
    assert sorted([*owned, *names_from(top)]) == ["a", "b", "c"]


async def aba_twin():
    """Holds: every change counts the tag up, so an equal tag says that nothing has changed since."""
    top, tag = three_nodes(), 0
    owned = []

    async def pop():
        nonlocal top, tag
        while True:
            node, rest, seen = top, top.rest, tag
            await checkpoint()
            if tag == seen:
                top, tag = rest, tag + 1
                return node

    async def push(node):
        nonlocal top, tag
        while True:
            node.rest, seen = top, tag
            await checkpoint()
            if tag == seen:
                top, tag = node, tag + 1
                return

    async def take_one():
        owned.append((await pop()).name)

    async def take_the_second():
        first = await pop()
        owned.append((await pop()).name)
        await push(first)

    await side_by_side(take_one, take_the_second)
    assert sorted([*owned, *names_from(top)]) == ["a", "b", "c"]


async def iterator_invalidated():
    """A client leaves while the broadcast goes over the clients."""
    inboxes = {"ann": [], "bob": []}

    async def broadcast():
        for inbox in inboxes.values():
            await checkpoint()
            inbox.append("news")

    async def leave():
        await checkpoint()
        del inboxes["bob"]

    await side_by_side(broadcast, leave)


async def iterator_invalidated_twin():
    """Holds: the broadcast goes over a copy that nobody else knows."""
    inboxes = {"ann": [], "bob": []}

    async def broadcast():
        for inbox in list(inboxes.values()):
            await checkpoint()
            inbox.append("news")

    async def leave():
        await checkpoint()
        del inboxes["bob"]

    await side_by_side(broadcast, leave)


async def stale_retry():
    """Whoever is overtaken tries again with the version it read at first, which never comes back."""
    version = 0

    async def commit():
        nonlocal version
        seen = version
        await checkpoint()
        while version != seen:
            await checkpoint()
        version += 1

    await side_by_side(commit, commit)
    assert version == 2


async def stale_retry_twin():
    """Holds: each try reads the version anew, and fails only if another commit got through: once at most."""
    version = 0

    async def commit():
        nonlocal version
        while True:
            seen = version
            await checkpoint()
            if version == seen:
                version += 1
                return

    await side_by_side(commit, commit)
    assert version == 2


ENTRIES = (
    Entry(
        name="stale cache",
        kind="stale cache",
        depth=2,
        source="Nishtala et al., Scaling Memcache at Facebook, NSDI 2013: stale sets, and leases against them",
        bug=stale_cache,
        twin=stale_cache_twin,
        shows="exception",
    ),
    Entry(
        name="aba",
        kind="ABA",
        depth=2,
        source="Treiber, Systems Programming: Coping with Parallelism, IBM RJ 5118, 1986: the stack, without its tag",
        bug=aba,
        twin=aba_twin,
        shows="exception",
    ),
    Entry(
        name="iterator invalidated",
        kind="iterator invalidation",
        depth=2,
        source="mopidy/mopidy#1993: clients come and go during a broadcast",
        bug=iterator_invalidated,
        twin=iterator_invalidated_twin,
        shows="exception",
    ),
    Entry(
        name="stale retry",
        kind="retry that cannot succeed",
        depth=2,
        source=MADE_UP,
        bug=stale_retry,
        twin=stale_retry_twin,
        shows="livelock",
    ),
)
