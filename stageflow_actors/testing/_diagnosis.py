"""Who waits for what, and since when: of a program in which nothing goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from ._cell import Cell, State
from ._frames import NURSERY, get_object, locate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from trio.lowlevel import Task

DEADLOCK: Final = "deadlock"
LOST_WAKE_UP: Final = "lost wake-up"
LIVELOCK: Final = "livelock"
EXCEPTION: Final = "exception"

TURN: Final = "its turn"


@final
@attrs.frozen
class Waiting:
    """A task that waits, or that could go on, when an execution was stopped."""

    task: str
    awaits: str
    """What it awaits: `Lock.acquire`; `its turn` where it could go on."""
    where: str
    """`file:line in function`; empty where it is in no code of the program's."""
    since: int
    """After which step."""
    holders: tuple[str, ...] = ()
    """The tasks that hold what it waits for, or the children of its nursery, where that is known."""

    def __str__(self) -> str:
        where = f", {self.where}" if self.where else ""
        holders = " and ".join(self.holders)
        if self.awaits == TURN:
            told = "could go on"
        elif self.awaits == NURSERY and holders:
            told = f"waits for the end of {holders}"
        else:
            told = f"waits for {self.awaits}{holders and f', held by {holders}'}"
        return f"{self.task} {told}, since step {self.since}{where}"


@final
@attrs.frozen
class Diagnosis:
    """What is wrong, and who waits."""

    kind: str
    tasks: tuple[Waiting, ...]


def diagnose(cells: Iterable[Cell]) -> Diagnosis:
    """Say who waits for what.

    A deadlock is where something that somebody holds is waited for, or tasks wait in a circle; where all that is
    waited for is a wake-up (an event, a condition, a message), it was lost: nobody is left to give it.
    """
    living = [cell for cell in cells if cell.state is not State.DONE]
    names = {cell.task: cell.name for cell in living}
    tasks = []
    held = False
    for cell in living:
        waiting, is_held = _describe(cell, names)
        tasks.append(waiting)
        held = held or is_held
    return Diagnosis(DEADLOCK if held else LOST_WAKE_UP, tuple(tasks))


def _describe(cell: Cell, names: Mapping[Task, str]) -> tuple[Waiting, bool]:
    place = locate(cell.inner)
    where = "" if place is None else str(place)
    if cell.state is not State.BLOCKED:
        return Waiting(cell.name, TURN, where, cell.since), False
    awaits = "something" if place is None else place.awaits
    waited_for = get_object(cell.inner)
    holders = tuple(names.get(task, "a task that has ended") for task in _get_holders(waited_for))
    children = () if awaits != NURSERY else _get_children(cell, names)
    return Waiting(cell.name, awaits, where, cell.since, holders or children), _can_be_held(waited_for)


def _can_be_held(waited_for: Any) -> bool:
    return isinstance(waited_for, (trio.Lock, trio.StrictFIFOLock, trio.Semaphore, trio.CapacityLimiter))


def _get_holders(waited_for: Any) -> Iterator[Task]:
    if isinstance(waited_for, (trio.Lock, trio.StrictFIFOLock)):
        owner = waited_for.statistics().owner
        if owner is not None:
            yield owner
    elif isinstance(waited_for, trio.CapacityLimiter):
        yield from (who for who in waited_for.statistics().borrowers if isinstance(who, trio.lowlevel.Task))


def _get_children(cell: Cell, names: Mapping[Task, str]) -> tuple[str, ...]:
    return tuple(
        names[child]
        for nursery in cell.task.child_nurseries
        for child in sorted(nursery.child_tasks, key=lambda task: names.get(task, ""))
        if child in names
    )
