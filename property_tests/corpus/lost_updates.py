"""State that is read, awaited over, and written: lost updates, work done twice, values half written."""

from __future__ import annotations

import attrs
import trio
from trio.lowlevel import checkpoint

from .entry import Entry, side_by_side


async def lost_update():
    """Both deposits read the same balance, and one of them vanishes."""
    balance = 0

    async def deposit():
        nonlocal balance
        seen = balance
        await checkpoint()
        balance = seen + 10

    await side_by_side(deposit, deposit)
    assert balance == 20


async def lost_update_twin():
    """Holds: reading and writing happen under one lock."""
    balance = 0
    lock = trio.Lock()

    async def deposit():
        nonlocal balance
        async with lock:
            seen = balance
            await checkpoint()
            balance = seen + 10

    await side_by_side(deposit, deposit)
    assert balance == 20


async def double_initialisation():
    """Two first requests find no pool of connections, and both make one."""
    pools = []

    async def request():
        if not pools:
            await checkpoint()  # connects
            pools.append("pool")
        await checkpoint()  # asks over the pool

    await side_by_side(request, request)
    assert len(pools) == 1


async def double_initialisation_twin():
    """Holds: whoever comes second waits for the lock, looks again, and finds the pool."""
    pools = []
    lock = trio.Lock()

    async def request():
        async with lock:
            if not pools:
                await checkpoint()
                pools.append("pool")
        await checkpoint()

    await side_by_side(request, request)
    assert len(pools) == 1


async def no_second_look():
    """Both callers see that the token has expired; the lock only makes them refresh it one after the other."""
    expired = True
    refreshed = 0
    lock = trio.Lock()

    async def call():
        nonlocal expired, refreshed
        if expired:
            async with lock:
                await checkpoint()  # asks the server
                refreshed += 1
                expired = False

    await side_by_side(call, call)
    assert refreshed == 1


async def no_second_look_twin():
    """Holds: the state is looked at again under the lock, where nobody else can change it."""
    expired = True
    refreshed = 0
    lock = trio.Lock()

    async def call():
        nonlocal expired, refreshed
        if expired:
            async with lock:
                if expired:
                    await checkpoint()
                    refreshed += 1
                    expired = False

    await side_by_side(call, call)
    assert refreshed == 1


@attrs.define
class Session:
    ready: bool = False

    async def open(self):
        await checkpoint()
        self.ready = True


async def half_built():
    """The session is stored before it is open, so the second request gets one that is not."""
    session = None

    async def request():
        nonlocal session
        if session is None:
            session = Session()
            await session.open()
        assert session.ready

    await side_by_side(request, request)


async def half_built_twin():
    """Holds: only an open session is stored, and the lock lets one task at a time open one."""
    session = None
    lock = trio.Lock()

    async def request():
        nonlocal session
        async with lock:
            if session is None:
                opening = Session()
                await opening.open()
                session = opening
        assert session.ready

    await side_by_side(request, request)


async def torn_pair():
    """The reader takes the new offset with the old length, and reads over the end."""
    offset, length = 0, 6

    async def replace():
        nonlocal offset, length
        offset = 4
        await checkpoint()
        length = 2

    async def read():
        await checkpoint()
        assert offset + length <= 6

    await side_by_side(replace, read)


async def torn_pair_twin():
    """Holds: both are written with no await between them."""
    offset, length = 0, 6

    async def replace():
        nonlocal offset, length
        await checkpoint()
        offset, length = 4, 2

    async def read():
        await checkpoint()
        assert offset + length <= 6

    await side_by_side(replace, read)


async def limit_checked_early():
    """Two callers see a free place, and both take it."""
    inside = most = 0

    async def call():
        nonlocal inside, most
        if inside < 1:
            await checkpoint()  # measures the load
            inside += 1
            most = max(most, inside)
            await checkpoint()  # works
            inside -= 1

    await side_by_side(call, call)
    assert most <= 1


async def limit_checked_early_twin():
    """Holds: the place is taken in the step that sees it free."""
    inside = most = 0

    async def call():
        nonlocal inside, most
        if inside < 1:
            inside += 1
            await checkpoint()
            most = max(most, inside)
            await checkpoint()
            inside -= 1

    await side_by_side(call, call)
    assert most <= 1


ENTRIES = (
    Entry(
        name="lost update",
        kind="lost update",
        depth=2,
        source="Lu, Park, Seo, Zhou, Learning from Mistakes, ASPLOS 2008: atomicity violation on one variable",
        bug=lost_update,
        twin=lost_update_twin,
        shows="exception",
    ),
    Entry(
        name="double initialisation",
        kind="double initialisation",
        depth=2,
        source="BerriAI/litellm#20852: every first request makes a pool of its own",
        bug=double_initialisation,
        twin=double_initialisation_twin,
        shows="exception",
    ),
    Entry(
        name="no second look",
        kind="double initialisation",
        depth=2,
        source="authlib/authlib#266: concurrent token refreshes; here with a lock, but no second look under it",
        bug=no_second_look,
        twin=no_second_look_twin,
        shows="exception",
    ),
    Entry(
        name="half built",
        kind="use before ready",
        depth=2,
        source='Bacon et al., The "Double-Checked Locking is Broken" Declaration',
        bug=half_built,
        twin=half_built_twin,
        shows="exception",
    ),
    Entry(
        name="torn pair",
        kind="torn read",
        depth=2,
        source="Lu, Park, Seo, Zhou, Learning from Mistakes, ASPLOS 2008: multi-variable bug, Mozilla",
        bug=torn_pair,
        twin=torn_pair_twin,
        shows="exception",
    ),
    Entry(
        name="limit checked early",
        kind="check then act",
        depth=3,
        source="Netflix/concurrency-limits#140: SimpleLimiter.acquire exceeds its limit",
        bug=limit_checked_early,
        twin=limit_checked_early_twin,
        shows="exception",
    ),
)
