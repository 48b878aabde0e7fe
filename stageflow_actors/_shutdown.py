"""The shutdown budget of a run."""

from __future__ import annotations

from typing import final

import trio


@final
class Shutdown:
    """The one shutdown budget of a run: how long what it leaves behind may still take.

    While the run goes on nothing is limited; once it stops, every shielded cleanup and every thread
    has until the same moment.
    """

    __slots__ = ("_deadline", "_scopes", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None
        self._scopes: set[trio.CancelScope] | None = None
        """Made when there is one: each worker of an actor has a budget of its own."""

    def begin(self) -> None:
        """Start to count. Later calls change nothing."""
        if self._deadline is None:
            self._deadline = trio.current_time() + self.seconds
            for scope in self._scopes or ():
                scope.deadline = self._deadline

    def deadline(self) -> float:
        """Return until when a thing given up now may take, on trio's clock."""
        return trio.current_time() + self.seconds if self._deadline is None else self._deadline

    def shield(self, scope: trio.CancelScope) -> None:
        """Put a scope out of reach of every cancellation but the budget's."""
        scope.shield = True
        if self._deadline is not None:
            scope.deadline = self._deadline
        if self._scopes is None:
            self._scopes = set()
        self._scopes.add(scope)

    def release(self, scope: trio.CancelScope) -> None:
        """Forget a scope that was shielded."""
        if self._scopes is not None:
            self._scopes.discard(scope)
