"""Bugs of the corpus and their twins with asyncio's primitives in place of trio's, for tools that know asyncio only.

`asyncio.sleep(0)` stands where the trio program has a checkpoint, also where one is inside a primitive: taking
a free lock is a checkpoint in trio, and none in asyncio. State is in attributes, tasks are methods. Three bugs are
left out: those that asyncio's rules rule out, or that need tasks started as they go.
"""

from __future__ import annotations

from . import cancellation, closing, depths, locks, lost_updates, messages, stale_views, starting, timers, wakeups
from .form import OnAsyncio, Pair

FAMILIES = (lost_updates, stale_views, wakeups, locks, messages, cancellation, closing, timers, starting, depths)

PAIRS: dict[str, Pair] = {name: pair for family in FAMILIES for name, pair in family.PAIRS.items()}
"""A bug and its twin, by the name of the entry."""

__all__ = ["PAIRS", "OnAsyncio", "Pair"]
