"""A child of a supervisor, a resident actor or another supervisor, and the units behind it.

A unit is what is started and stopped: one worker of an actor, or a whole supervisor.
"""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, final

import attrs
import trio

from ._policy import NO_FAILURES, Directive, Window, direct
from ._threads import apart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._bulletin import Bulletin
    from ._deadlines import Deadlines
    from ._policy import Restart
    from ._scopes import Policy
    from ._snapshot import RunIdentity
    from .statistics import ActorLedger


class Home(Protocol):
    """What the supervisor's side lends to its children, and is told by them."""

    identity: RunIdentity
    threads: trio.CapacityLimiter
    prefix: str
    """The names of the supervisors above, as a path."""
    bulletin: Bulletin
    deadlines: Deadlines
    nursery: trio.Nursery
    now: Callable[[], float]
    is_halting: bool
    """Whether everything is being brought down, and nothing is started any more."""

    def tell_started(self, unit: Unit) -> None:
        """Tell that a unit is up."""

    def unit_ended(self, unit: Unit, error: BaseException | None) -> None:
        """Take note that a unit's task is over."""

    def note_lost(self) -> None:
        """Take note of a message to an actor that has ended."""

    def retire(self, child: Child, reason: str) -> None:
        """Let a child end for good."""

    async def restart(self, child: Child) -> None:
        """Restart a child because somebody asks for it."""


class UnitState(IntEnum):
    """Where a unit is in its life; it comes round as often as it is restarted."""

    DOWN = 0
    STARTING = 1
    UP = 2
    LEAVING = 3


DOWN, STARTING, UP, LEAVING = UnitState


class Unit(ABC):
    """One thing that a supervisor starts and stops, and whose end it is told."""

    __slots__ = (
        "child",
        "delivery",
        "directive",
        "error",
        "incarnation",
        "index",
        "ordered",
        "redelivers",
        "started",
        "state",
    )

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
        self.delivery: int | None = None
        """The delivery of the message over which it failed, counted from 1, where there was one."""
        self.redelivers = False
        """Whether that message is delivered again."""

    @property
    def is_unheard(self) -> bool:
        """Whether nobody else will hear of what it raised while it was told to end."""
        return False

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among all units of its supervisor, in the order of spawning."""
        return self.child.number, self.index

    def begin(self) -> None:
        """Start it, in a task of its own: it becomes UP or, where it cannot, DOWN with an error."""
        self.error = self.directive = self.delivery = None
        self.ordered = self.started = self.redelivers = False
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
        self.child.home.tell_started(self)

    def enter(self, state: UnitState) -> None:
        """Change its state, and wake those who wait for that."""
        self.state = state
        self.child.note_change()

    async def wait_down(self) -> None:
        """Wait until it is down."""
        while self.state is not DOWN:
            await self.child.change()


@final
@attrs.frozen
class ChildOptions:
    """What a child's supervisor goes by."""

    name: str
    policy: Policy
    restart: Restart | None
    depends_on: tuple[str, ...]


class Child(ABC):
    """One name in a supervisor, and the units behind it."""

    __slots__ = (
        "_changed",
        "context",
        "depends_on",
        "ended",
        "error",
        "home",
        "is_retiring",
        "is_starting",
        "name",
        "number",
        "path",
        "policy",
        "reason",
        "restart",
        "restarts",
        "units",
        "window",
    )

    units: Sequence[Unit]
    noun = "actor"
    """What it is called in a message."""

    def __init__(self, home: Home, options: ChildOptions, number: int) -> None:
        self.home = home
        self.name = options.name
        self.path = home.prefix + options.name
        """Its name, with those of the supervisors above."""
        self.policy: Policy = options.policy
        self.restart = options.restart
        self.depends_on = options.depends_on
        self.context = contextvars.copy_context()
        """Which the tasks of its units start from."""
        self.number = number
        """Its place in the order of spawning."""
        self.window: Window = NO_FAILURES
        """Its failures that count against its own restarts."""
        self.restarts = 0
        self.is_starting = True
        """Whether it is still being spawned."""
        self.is_retiring = False
        """Whether it is ending for good."""
        self.ended = trio.Event()
        """Set when it has."""
        self.reason = ""
        """Why it ended, in words."""
        self.error: BaseException | None = None
        """Why it ended, where it failed."""

        self._changed: trio.Event | None = None

    def note_change(self) -> None:
        """Wake those who wait for a change of one of its units."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set()

    async def change(self) -> None:
        """Wait for the next change of the state of one of its units."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    @abstractmethod
    def bury(self) -> None:
        """Let go of everything it has: its units are down, and stay so."""

    @abstractmethod
    def balance(self) -> ActorLedger:
        """Return the account of all messages to it, or below it."""

    def direct(self, error: BaseException) -> tuple[Directive, BaseException]:
        """Return what its own policy says of an error, and the error that is meant.

        Its functions are user code: what they raise is the error from then on, and final.
        """
        if not isinstance(error, Exception):
            return Directive.FAIL, error
        if self.restart is None:
            return Directive.RESTART, error
        try:
            return self.context.copy().run(next, apart(_direct, self.restart, error)), error
        except BaseException as raised:
            if raised is not error and raised.__context__ is None:
                raised.__context__ = error
            return Directive.FAIL, raised


def _direct(restart: Restart, error: Exception) -> Directive:
    return direct(restart, error, may_resume=True)
