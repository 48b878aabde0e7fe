"""Bugs of a known depth: two tasks climb a ladder by turns, and must never get to its end."""

from __future__ import annotations

from contextlib import nullcontext

import trio
from trio.lowlevel import checkpoint

from .entry import MADE_UP, Entry


async def climb(rungs, *, alone):
    """Each task may take every second rung, and passes by it once.

    The last rung is reached only if the tasks alternate at every rung: `rungs - 1` ordering constraints.
    With `alone`, one task passes by all its rungs before the other one does.
    """
    height = 0
    turn = trio.Lock() if alone else nullcontext()

    async def pass_by(first):
        nonlocal height
        async with turn:
            for rung in range(first, rungs, 2):
                if height == rung:
                    height += 1
                await checkpoint()

    async with trio.open_nursery() as nursery:
        for first in range(2):
            nursery.start_soon(pass_by, first)
    assert height < rungs


async def depth_three():
    """Reached by alternating at all four rungs."""
    await climb(4, alone=False)


async def depth_three_twin():
    """Holds: under the lock nobody alternates, so the height is two at most."""
    await climb(4, alone=True)


async def depth_four():
    """Reached by alternating at all five rungs."""
    await climb(5, alone=False)


async def depth_four_twin():
    """Holds: under the lock nobody alternates, so the height is two at most."""
    await climb(5, alone=True)


async def depth_five():
    """Reached by alternating at all six rungs."""
    await climb(6, alone=False)


async def depth_five_twin():
    """Holds: under the lock nobody alternates, so the height is two at most."""
    await climb(6, alone=True)


ENTRIES = (
    Entry(
        name="depth 3",
        kind="three constraints",
        depth=3,
        source=MADE_UP,
        bug=depth_three,
        twin=depth_three_twin,
        shows="exception",
    ),
    Entry(
        name="depth 4",
        kind="four constraints",
        depth=4,
        source=MADE_UP,
        bug=depth_four,
        twin=depth_four_twin,
        shows="exception",
    ),
    Entry(
        name="depth 5",
        kind="five constraints",
        depth=5,
        source=MADE_UP,
        bug=depth_five,
        twin=depth_five_twin,
        shows="exception",
    ),
)
