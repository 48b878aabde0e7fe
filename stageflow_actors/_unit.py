"""What a supervisor starts and stops: one worker of a resident actor, or a whole supervisor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._child import Child
    from ._policy import Directive


class UnitState(IntEnum):
    """Where a unit is in its life; it comes round as often as it is restarted."""

    DOWN = 0
    STARTING = 1
    UP = 2
    LEAVING = 3


DOWN, STARTING, UP, LEAVING = UnitState


class Unit(ABC):
    """One thing that a supervisor starts and stops, and whose end it is told."""

    __slots__ = ("child", "directive", "error", "incarnation", "index", "ordered", "started", "state")

    def __init__(self, child: Child, index: int) -> None:
        self.child = child
        self.index = index
        self.state: UnitState = DOWN
        self.incarnation = 0
        """How often it has been up."""
        self.ordered = False
        """Whether its supervisor has told it to end."""
        self.started = False
        """Whether it came up, this time."""
        self.error: BaseException | None = None
        """What it ended with, by itself."""
        self.directive: Directive | None = None
        """What its policy has said of that error already."""

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among all units of its supervisor, in the order of spawning."""
        return self.child.number, self.index

    def begin(self) -> None:
        """Start it, in a task of its own: it becomes UP or, where it cannot, DOWN with an error."""
        self.error = self.directive = None
        self.ordered = self.started = False
        self.enter(STARTING)
        self.spawn()

    @abstractmethod
    def spawn(self) -> None:
        """Start its task."""

    @abstractmethod
    def end(self, *, hurry: bool) -> None:
        """Tell it to end; it becomes DOWN within its budget. May be told again, then in a hurry.

        Args:
            hurry: Whether what it has in hand is cancelled, rather than given its time.
        """

    def come_up(self) -> None:
        """Note that it is up."""
        self.incarnation += 1
        self.started = True
        self.enter(UP)
        self.child.family.tell_started(self)

    def enter(self, state: UnitState) -> None:
        """Change its state, and wake those who wait for that."""
        self.state = state
        self.child.note_change()

    async def wait_down(self) -> None:
        """Wait until it is down."""
        while self.state is not DOWN:
            await self.child.change()
