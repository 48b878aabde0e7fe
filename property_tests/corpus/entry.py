"""What an entry of the corpus is, and how its programs start their tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
import trio

MADE_UP = "made up here"

Program = Callable[[], Awaitable[None]]
Shows = Literal["exception", "deadlock", "lost wake-up", "livelock"]


@attrs.frozen(kw_only=True)
class Entry:
    """A program with a concurrency bug, and its twin: the same program, mended."""

    name: str
    kind: str
    """The kind of mistake, in a few words."""
    depth: int = attrs.field(validator=attrs.validators.ge(1))
    """How many ordering constraints a schedule must meet to show the bug (Burckhardt et al., ASPLOS 2010)."""
    source: str
    """Where the bug was published, or `MADE_UP`."""
    bug: Program
    twin: Program
    """Correct in every schedule and for every timing of the clock."""
    shows: Shows
    """How the bug comes to light."""
    or_shows: Shows | None = None
    """How else, under other schedules."""
    needs_clock: bool = False
    """Whether a deadline has to pass while a task could still run."""

    @property
    def published(self) -> bool:
        """Whether the bug was published by others."""
        return self.source != MADE_UP


async def side_by_side(*tasks: Program) -> None:
    """Run tasks in a nursery, started in this order."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
