"""A bounded stream of events, for whoever listens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import TypeVar  # with a default, which the standard library has from 3.13 on

    from .events import Event

    _T = TypeVar("_T", default=Event)
else:
    from typing import TypeVar

    _T = TypeVar("_T")


class Source(Protocol):
    """What calls its listeners with each event, on the trio thread."""

    def listen(self, listener: Callable[[Any], None]) -> None:
        """Call a listener from now on."""

    def unlisten(self, listener: Callable[[Any], None]) -> None:
        """Stop calling it."""


def _forget_nothing(_stream: object, _default: None) -> None:
    pass


@final
class EventStream(Generic[_T]):
    """The events since it was subscribed to, up to the end of what tells them. Use it with `async with`.

    Bounded: a reader that is slower than what it reads of loses the events for which there is no room.
    """

    def __init__(
        self, source: Source | None, max_queued: int, forget: Callable[[Any, None], object] = _forget_nothing
    ) -> None:
        self._source = source
        self._forget = forget
        """Called, with itself and None, when its reader leaves."""
        self._send, self._receive = trio.open_memory_channel[Any](max_queued)
        self._dropped = 0
        self._max_queued = max_queued
        self._taken = 0
        """How many were taken in a row without a checkpoint."""
        if source is not None:
            source.listen(self._put)
        else:
            self._send.close()

    @property
    def dropped(self) -> int:
        """How many events were lost, because the reader was slow."""
        return self._dropped

    def _put(self, event: _T) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._dropped += 1
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reader has left

    def _end(self) -> None:
        self._send.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._source is not None:
            self._source.unlisten(self._put)
        self._forget(self, None)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        """Return the next event; end when what tells them has ended and all were read.

        A checkpoint where it has to wait and, at the latest, after as many events as may be queued: a run tells
        hundreds in one pass of the scheduler, and a reader that got one a pass would lose most of them.
        """
        try:
            if self._taken < self._max_queued:
                self._taken += 1
                with contextlib.suppress(trio.WouldBlock):
                    return self._receive.receive_nowait()  # type: ignore[no-any-return]
            self._taken = 0
            return await self._receive.receive()  # type: ignore[no-any-return]
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
