"""What one step of an execution did, as far as others may notice: pure values, and which steps depend on which.

Two steps of different tasks are independent if neither writes what the other reads or writes. Executions that differ
in the order of independent steps only cannot be told apart (Mazurkiewicz, "Trace theory", 1987); one of them stands
for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Key: TypeAlias = int
"""Something that can be read and written, within one execution."""

Name: TypeAlias = "tuple[object, ...]"
"""What stands for it in other executions that begin alike: two things may share a name, one never has two."""

Footprint: TypeAlias = "Mapping[Name, bool]"
"""By name, whether it was written."""


@final
@attrs.define(eq=False)
class Event:
    """A step of a task, or a jump of the clock."""

    process: int
    """Who made it: the number of a task, of the clock or of a fault."""
    ask: int
    """The number of the choice by which it was chosen; -1 where there was no other option."""
    before: int
    """The events that must come before, whatever is chosen, as a set of bits."""
    touched: dict[Key, bool] = attrs.field(factory=dict)
    """Whether each thing was written, or only read."""
    footprint: Footprint = attrs.field(factory=dict)
    """The same, by name."""
    is_opaque: bool = False
    """Whether it may have done anything: it depends on all others."""
    meets_clock: bool = False
    """Whether it would have gone another way if the clock had jumped just before."""

    def touch(self, key: Key, *, wrote: bool) -> None:
        """Note that it reads something or, if so, writes it."""
        self.touched[key] = wrote or self.touched.get(key, False)


@final
@attrs.frozen
class Trail:
    """What the steps of an execution touched."""

    events: Sequence[Event]
    untracked: tuple[str, ...]
    """State that several tasks touched and that cannot be followed."""
    has_news: bool
    """Whether steps can be told more exactly from now on: classes were met that did not tell."""
    is_renamed: bool
    """Whether something was met that is from before the program, and had another name in the execution before."""
    is_abandoned: bool = False
    """Whether it ended early, because all that was left had been run before."""


def conflicts(one: Footprint, other: Footprint) -> bool:
    """Return whether two footprints share something that one of them has written."""
    if len(other) < len(one):
        one, other = other, one
    for name, wrote in one.items():
        also = other.get(name)
        if also is not None and (wrote or also):
            return True
    return False


@final
class Order:
    """Which events of an execution happen before which: by who enabled whom, and by who depends on whom.

    Sets of events are integers, a bit for each.
    """

    def __init__(self) -> None:
        self.past: list[int] = []
        """Of each event, all that happen before it."""
        self._last_write: dict[Key, int] = {}
        self._reads: dict[Key, int] = {}
        """Since the last write."""
        self._opaque = -1
        self._since_opaque = 0

    def add(self, event: Event) -> list[int]:
        """Add the next event; return those that race with it: that depend on it, and on nothing in between.

        The order between the two of a race is nothing but chance.
        """
        number = len(self.past)
        past = self._close(event.before)
        races = []
        for other in self._iterate_dependent(event):
            if not past >> other & 1:
                races.append(other)
                past |= self.past[other] | 1 << other
        self.past.append(past)
        self._remember(event, number)
        return races

    def _close(self, before: int) -> int:
        past = before
        while before:
            last = before.bit_length() - 1
            past |= self.past[last]
            before &= ~(self.past[last] | 1 << last)
        return past

    def _iterate_dependent(self, event: Event) -> Iterable[int]:
        """Return the events on which an event depends, from the last: of those before a write the write is enough."""
        found = 0
        for key, wrote in event.touched.items():
            last = self._last_write.get(key, -1)
            if last >= 0:
                found |= 1 << last
            if wrote:
                found |= self._reads.get(key, 0)
        if self._opaque >= 0:
            found |= 1 << self._opaque
        if event.is_opaque:
            found |= self._since_opaque
        while found:
            last = found.bit_length() - 1
            found ^= 1 << last
            yield last

    def _remember(self, event: Event, number: int) -> None:
        bit = 1 << number
        for key, wrote in event.touched.items():
            if wrote:
                self._last_write[key] = number
                self._reads[key] = 0
            else:
                self._reads[key] = self._reads.get(key, 0) | bit
        if event.is_opaque:
            self._opaque = number
            self._since_opaque = 0
        else:
            self._since_opaque |= bit


def find_initials(events: Sequence[Event], past: Sequence[int], first: int, second: int) -> list[int]:
    """Return who could begin if the second of a race came before the first.

    They are the processes whose first step, among those that do not need the first event, needs none of the others.
    Source: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order reduction", POPL 2014, section 4 (the
    initials of `notdep(e, E).proc(e')`).
    """
    kept = 0
    seen = set[int]()
    initials: list[int] = []
    for number in [*(other for other in range(first + 1, second) if not past[other] >> first & 1), second]:
        process = events[number].process
        if process not in seen:
            seen.add(process)
            if not past[number] & kept:
                initials.append(process)
        kept |= 1 << number
    if events[second].process in initials:
        initials.remove(events[second].process)
        initials.insert(0, events[second].process)
    return initials
