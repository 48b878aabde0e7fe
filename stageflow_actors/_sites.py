"""The placements that a supervisor has opened, each when it was first needed."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING, Final, final

import trio
from trio.lowlevel import enable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._placement import Placement, Site

_logger: Final = logging.getLogger("stageflow_actors")


@final
class _Tenure:
    """One placement, from its opening to its closing."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._leave = trio.Event()
        self.opened = trio.Event()
        """Set also where it could not be opened."""
        self.site: Site | None = None
        self.error: Exception | None = None

    @enable_ki_protection
    async def hold(self) -> None:
        """Keep it open until it is to be left. The runs that use it are over by then, so no cancellation comes in."""
        with trio.CancelScope(shield=True):
            try:
                async with self._placement.open() as self.site:
                    self.opened.set()
                    await self._leave.wait()
            except Exception as error:
                if not self.opened.is_set():
                    self.error = error
                else:
                    _logger.exception("%r could not be closed in order", self._placement)
            self.opened.set()

    def leave(self) -> None:
        self._leave.set()


@final
class Sites:
    """The placements of one supervisor; opened in tasks of its nursery, from the context that it was entered in."""

    __slots__ = ("_context", "_nursery", "_tenures")

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._context = contextvars.copy_context()
        self._tenures: dict[Placement, _Tenure] = {}

    async def reach(self, placement: Placement) -> Site:
        """Return an open placement; the first to ask has it opened. One that could not be opened is tried again.

        Raises:
            Exception: What its opening raised.
        """
        tenure = self._tenures.get(placement)
        if tenure is None:
            tenure = self._tenures[placement] = _Tenure(placement)
            start_soon: Callable[..., None] = self._nursery.start_soon
            self._context.run(start_soon, tenure.hold, name=f"{placement!r}")
        if tenure.site is None:
            await tenure.opened.wait()
            if tenure.error is not None:
                if self._tenures.get(placement) is tenure:
                    del self._tenures[placement]
                raise tenure.error
        assert tenure.site is not None
        return tenure.site

    def close(self) -> None:
        """Have all closed; their tasks end with that."""
        for tenure in self._tenures.values():
            tenure.leave()
