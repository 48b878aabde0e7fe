"""Concurrency bugs with their sources, each with a correct twin; what the race-testing toolkit is measured with.

The programs use trio only, keep their state to themselves, and leave everything to the schedule and the clock.
A new family is a module with `ENTRIES`, named in `FAMILIES` below.
"""

from __future__ import annotations

from . import cancellation, closing, depths, locks, lost_updates, messages, stale_views, starting, timers, wakeups
from .entry import MADE_UP, Entry

FAMILIES = (lost_updates, stale_views, wakeups, locks, messages, cancellation, closing, timers, starting, depths)

CORPUS: tuple[Entry, ...] = tuple(entry for family in FAMILIES for entry in family.ENTRIES)


def find(name: str) -> Entry:
    """Look an entry up by its name.

    Raises:
        KeyError: no entry has this name.

    """
    for entry in CORPUS:
        if entry.name == name:
            return entry
    raise KeyError(name)


__all__ = ["CORPUS", "MADE_UP", "Entry", "find"]
