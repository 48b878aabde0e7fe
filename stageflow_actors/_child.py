"""A child of a supervisor: a resident actor, or another supervisor."""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

import attrs
import trio

from ._policy import NO_FAILURES, Directive, Window, direct
from ._threads import apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._family import Family
    from ._policy import Restart
    from ._scopes import Policy
    from ._unit import Unit
    from .statistics import ActorLedger


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
        "family",
        "is_retiring",
        "is_starting",
        "name",
        "number",
        "policy",
        "restart",
        "restarts",
        "units",
        "window",
    )

    units: Sequence[Unit]

    def __init__(self, family: Family, options: ChildOptions, number: int) -> None:
        self.family = family
        self.name = options.name
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

    @property
    def path(self) -> str:
        """Its name, with those of the supervisors above."""
        return self.family.prefix + self.name

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
