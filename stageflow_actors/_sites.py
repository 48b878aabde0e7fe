"""The placements that a supervisor has opened, each when it was first needed."""

from __future__ import annotations

import contextvars
import copy
import logging
from typing import TYPE_CHECKING, Final, final

import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._actor import split_cancelled
from ._failures import make_stray
from ._traceback import drop_own_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._placement import Placement, Site

_logger: Final = logging.getLogger("stageflow_actors")


@final
class _Opened:
    """A placement from `__aenter__` to `__aexit__`, in which interrupts reach what its author has written."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._manager: AbstractAsyncContextManager[Site]

    @disable_ki_protection
    async def __aenter__(self) -> Site:
        self._manager = self._placement.open()
        return await self._manager.__aenter__()

    @disable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, traceback)


@final
class _Tenure:
    """One placement, from its opening to its closing.

    Args:
        placement: What is opened. That it is kept here keeps its `id` from being another's.
        forget: Called with it when it has ended, so that the next who needs the placement has it opened anew.
        give_up: Ends the supervisor, with what is no `Exception` and has no stage to go to.
    """

    def __init__(
        self, placement: Placement, forget: Callable[[Placement], None], give_up: Callable[[BaseException], None]
    ) -> None:
        self._placement = placement
        self._forget = forget
        self._give_up = give_up
        # Stages that wait are cancelled on their own account; what they wait for is of use to those that come next.
        self._scope = trio.CancelScope(shield=True)
        self._leave = trio.Event()
        self._decided = trio.Event()
        """Set when it is open, or could not be opened."""
        self._site: Site | None = None
        self._error: BaseException | None = None
        """What its opening raised, for those who wait."""
        self._waiting = 0

    @enable_ki_protection
    async def hold(self) -> None:
        """Keep it open until it is to be left. The runs that use it are over by then."""
        error: BaseException | None = None
        try:
            if not self._leave.is_set():
                with self._scope:
                    async with _Opened(self._placement) as self._site:
                        self._decided.set()
                        await self._leave.wait()
        except BaseException as raised:
            remains = split_cancelled(raised)
            error = make_stray(raised) if remains is None else remains
            del remains
        self._forget(self._placement)
        if error is not None and self._site is None and self._waiting:
            self._error = error
        elif error is not None:
            self._report(error)
        elif not self._leave.is_set():
            _logger.warning("%r has closed itself; it is opened again when it is needed", self._placement)
        self._decided.set()
        del error  # its traceback keeps this frame

    def _report(self, error: BaseException) -> None:
        """Say what no stage waits for."""
        drop_own_frames(error)
        if not isinstance(error, Exception):
            self._give_up(error)
        elif self._site is None:
            _logger.error("%r could not be opened, and nobody waits for it any more", self._placement, exc_info=error)
        elif self._leave.is_set():
            _logger.error("%r could not be closed in order", self._placement, exc_info=error)
        else:
            told = "%r broke while it was open; it is opened again when it is needed"
            _logger.error(told, self._placement, exc_info=error)

    def leave(self) -> None:
        """Have it closed; while it is being opened, that is cancelled."""
        self._leave.set()
        if self._site is None:
            self._scope.cancel()

    async def wait(self) -> Site:
        """Return it when it is open.

        Raises:
            BaseException: What its opening raised: to each who waits an object of its own.
        """
        if self._site is None:
            self._waiting += 1
            try:
                await self._decided.wait()
            finally:
                self._waiting -= 1
            if self._error is not None:
                raise self._take_error()
        assert self._site is not None
        return self._site

    def _take_error(self) -> BaseException:
        error = self._error
        assert error is not None
        if self._waiting:
            return _copy_error(error)
        self._error = None
        return error


def _copy_error(error: BaseException) -> BaseException:
    """Return an error for one more stage, which gets a place and a traceback of its own; itself, if it has no copy."""
    try:
        made = copy.copy(error)
        if type(made) is not type(error):
            return error
        made.args = error.args  # a constructor may have built its message a second time
    except Exception:  # its class is a user's
        return error
    made.__cause__, made.__context__ = error.__cause__, error.__context__
    made.__suppress_context__ = error.__suppress_context__
    return made.with_traceback(error.__traceback__)


@final
class Sites:
    """The placements of one supervisor; opened in tasks of its nursery, from the context that it was entered in.

    Args:
        nursery: The supervisor's.
        give_up: Ends it.
    """

    __slots__ = ("_context", "_give_up", "_nursery", "_tenures")

    def __init__(self, nursery: trio.Nursery, give_up: Callable[[BaseException], None]) -> None:
        self._nursery = nursery
        self._give_up = give_up
        self._context = contextvars.copy_context()
        self._tenures: dict[int, _Tenure] = {}
        """By the `id` of the placement: one that is equal to another is another."""

    async def reach(self, placement: Placement) -> Site:
        """Return an open placement; the first to ask has it opened. One that could not be opened is tried again.

        Raises:
            BaseException: What its opening raised.
        """
        tenure = self._tenures.get(id(placement))
        if tenure is None:
            tenure = self._tenures[id(placement)] = _Tenure(placement, self._forget, self._give_up)
            start_soon: Callable[..., None] = self._nursery.start_soon
            self._context.run(start_soon, tenure.hold, name=f"{placement!r}")
        return await tenure.wait()

    def _forget(self, placement: Placement) -> None:
        del self._tenures[id(placement)]

    def close(self) -> None:
        """Have all closed; their tasks end with that."""
        del self._give_up  # it leads back to the supervisor; those that are open have it
        for tenure in self._tenures.values():
            tenure.leave()
