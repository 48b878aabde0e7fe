"""Telling those who listen to a supervisor what happens to its resident actors and to their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import trio

from ._threads import call_in_loop

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


@final
class Listeners(Generic[_T]):
    """Who listens to one kind of event, and in the supervisors above."""

    __slots__ = ("_above", "_listeners")

    def __init__(self, above: Listeners[_T] | None) -> None:
        self._above = above
        self._listeners: tuple[Callable[[_T], None], ...] = ()

    def listen(self, listener: Callable[[_T], None]) -> None:
        """Call `listener` with every event from now on, in order, on the trio thread. It must not raise."""
        self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Callable[[_T], None]) -> None:
        """Stop calling a listener."""
        self._listeners = tuple(other for other in self._listeners if other != listener)

    def __bool__(self) -> bool:
        """Return whether anybody listens."""
        return bool(self._listeners) or bool(self._above)

    def tell(self, event: _T) -> None:
        """Call every listener."""
        for listener in self._listeners:
            listener(event)
        if self._above is not None:
            self._above.tell(event)


@final
class Bulletin:
    """What a supervisor tells of its resident actors. Whoever tells looks first whether anybody listens."""

    __slots__ = ("_now", "_token", "began", "events", "letters")

    def __init__(self, began: float, above: Bulletin | None) -> None:
        self.events: Listeners[Any] = Listeners(above.events if above else None)
        self.letters: Listeners[Any] = Listeners(above.letters if above else None)
        self._token = trio.lowlevel.current_trio_token()
        self._now = trio.lowlevel.current_clock().current_time
        self.began: float = began if above is None else above.began
        """When the supervisor at the top was opened, on trio's clock."""

    def tell_from_anywhere(self, event: object) -> None:
        """Tell an event that a worker thread may have made."""
        call_in_loop(self._token, self.events.tell, event)

    def at(self) -> float:
        """Return the seconds since the supervisor, or the one at the top, was opened."""
        return self._now() - self.began
