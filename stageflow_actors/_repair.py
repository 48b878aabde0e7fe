"""One restart: which units it brings down, when it brings them up again, and what comes in between."""

from __future__ import annotations

from itertools import count, groupby
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from ._child import DOWN, STARTING, UP

if TYPE_CHECKING:
    from collections.abc import Collection

    from ._child import Child, Unit


_numbers: Final = count()


class Judge(Protocol):
    """Who decides about failures, and is told how a repair goes."""

    def judge(self, unit: Unit, error: BaseException | None) -> None:
        """Decide what becomes of a unit that did not come up."""

    def end_with_sibling(self, child: Child) -> None:
        """Let a temporary child end that was brought down with a sibling."""

    def repair_ended(self, repair: Repair) -> None:
        """Forget a repair that is over."""


@final
class Repair:
    """Brings units down, in reverse order, and up again, in order; one more failure in between makes it begin anew.

    A unit belongs to one repair at most: a failure that concerns units of another is added to that one.
    """

    def __init__(self, judge: Judge, units: Collection[Unit], at: float) -> None:
        self._judge = judge
        self.number = next(_numbers)
        """Tells which of two began first."""
        self.units = set(units)
        """All that it has to do with."""
        self._todo = set(self.units)
        """Those that it has yet to bring up."""
        self.over = trio.Event()
        self._at = at
        """Not before this time is anything started."""
        self._is_stale = False
        """Whether more was added since it began to bring units down."""
        self._wait = trio.CancelScope()
        """Around what is waited for between the steps."""
        self._scope = trio.CancelScope()

    def add(self, units: Collection[Unit], at: float) -> None:
        """Take in more units: these are brought down, whereas what it has brought up stays as it is."""
        self.units.update(units)
        self._todo.update(units)
        self._at = max(self._at, at)
        self._is_stale = True
        self._wait.cancel()

    def awaits(self, unit: Unit) -> bool:
        """Return whether it has yet to bring a unit up, whatever becomes of that meanwhile."""
        return unit in self._todo and not self._scope.cancel_called

    def hasten(self) -> None:
        """Wait for no backoff any more."""
        self._at = -inf
        self._wait.cancel()
        self._is_stale = True

    def merge(self, other: Repair) -> None:
        """Take the place of another repair."""
        self.units |= other.units
        self.add(other._todo, other._at)
        other.cancel()

    def cancel(self) -> None:
        """End it, whatever it waits for; what is starting goes on to start."""
        self._scope.cancel()

    async def run(self) -> None:
        """Do it, to its end. Once it is cancelled it starts nothing, also where it does not get to wait."""
        try:
            with self._scope:
                while not self._scope.cancel_called:
                    self._is_stale = False
                    self._wait = trio.CancelScope()
                    await self._bring_down()
                    with self._wait:
                        await self._bring_up()
                    if not self._is_stale:
                        break
        finally:
            self._judge.repair_ended(self)
            self.over.set()

    async def _bring_down(self) -> None:
        for units in reversed(self._list_todo()):
            if self._scope.cancel_called:
                break
            child = units[0].child
            for unit in units:
                if unit.state is not DOWN:
                    unit.end(hurry=False)
            while any(unit.state is not DOWN for unit in units):
                await child.change()
            if child.is_retiring:
                self._judge.end_with_sibling(child)

    async def _bring_up(self) -> None:
        if trio.current_time() < self._at:
            await trio.sleep_until(self._at)
        for units in self._list_todo():
            if self._is_stale or self._scope.cancel_called:
                break
            if not units[0].child.is_retiring:
                await self._start(units[0].child, units)

    async def _start(self, child: Child, units: list[Unit]) -> None:
        """Start the units of a child that are to be, and see to it that each comes up or is decided about."""
        self._todo.difference_update(units)  # at once: from now on they may be added again
        for unit in units:
            if unit.state is DOWN:
                child.restarts += 1
                unit.begin()
        try:
            while any(unit.state is STARTING for unit in units):
                await child.change()
        except trio.Cancelled:
            self._todo.update(unit for unit in units if unit.state is not UP)
            raise
        for unit in units:
            if unit.state is DOWN and unit.error is not None and not unit.started and not child.is_retiring:
                self._judge.judge(unit, unit.error)  # which adds to this repair, or gives the unit up

    def _list_todo(self) -> list[list[Unit]]:
        """Return what is to be done, in the order of spawning; the workers of one actor are one step."""
        return [list(units) for _, units in groupby(sorted(self._todo, key=_place), key=_get_number)]


def _place(unit: Unit) -> tuple[int, int]:
    return unit.place


def _get_number(unit: Unit) -> int:
    return unit.child.number
