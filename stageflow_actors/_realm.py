"""A supervisor that is the child of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import enable_ki_protection

from ._child import Child, ChildOptions
from ._traceback import drop_own_frames
from ._unit import DOWN, LEAVING, STARTING, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._family import Family
    from ._supervisor import Supervisor
    from .statistics import ActorLedger


@final
class Reign(Unit):
    """One opening of a child supervisor after the other."""

    __slots__ = ("_leave", "_life", "_realm", "_supervisor")

    def __init__(self, realm: Realm, supervisor: Supervisor) -> None:
        super().__init__(realm, 0)
        self._realm = realm
        self._supervisor = supervisor
        self._life: trio.CancelScope
        self._leave: trio.Event

    def spawn(self) -> None:
        """Open it, in a task of its own."""
        self._life, self._leave = trio.CancelScope(), trio.Event()
        start_soon: Callable[..., None] = self.child.family.nursery.start_soon
        self.child.context.run(start_soon, self._live, name=f"supervisor {self.child.path}")

    def end(self, *, hurry: bool) -> None:
        """Leave it: its runs are cancelled, and its children take as long as they may or, in a hurry, less."""
        self.ordered = True
        self._supervisor._stop_all("the supervisor was stopped")  # noqa: SLF001 (two sides of one thing)
        if self.state is STARTING or hurry:
            self._life.cancel()
        self._leave.set()

    @enable_ki_protection
    async def _live(self) -> None:
        error: BaseException | None = None
        try:
            with self._life:
                if not self.ordered:
                    await self._reign()
        except BaseException as raised:
            error = raised
        if error is not None:
            drop_own_frames(error)
        self.enter(DOWN)
        self.child.family.unit_ended(self, error)
        del error  # its traceback keeps this frame

    async def _reign(self) -> None:
        """Be open: with what was up when it was closed, until it is told to leave."""
        supervisor = self._supervisor
        supervisor._reset()  # noqa: SLF001 (two sides of one thing)
        self._realm.is_opening = True
        async with supervisor:
            self._realm.is_opening = False
            await supervisor._household.revive()  # noqa: SLF001 (likewise)
            self.come_up()
            await self._leave.wait()
            self.enter(LEAVING)


@final
class Realm(Child):
    """A child supervisor, as the supervisor above sees it: one thing that is up, or gives up."""

    __slots__ = ("above", "is_opening", "supervisor")

    def __init__(
        self, family: Family, options: ChildOptions, above: Supervisor, supervisor: Supervisor, number: int
    ) -> None:
        super().__init__(family, options, number)
        self.above = above
        self.is_opening = False
        """Whether it is just being opened, by the one above."""
        self.supervisor = supervisor
        self.units = (Reign(self, supervisor),)

    def bury(self) -> None:
        """Let all of its children end."""
        self.supervisor._household.end()  # noqa: SLF001 (likewise)

    def balance(self) -> ActorLedger:
        """Return the account of all messages below it."""
        return self.supervisor.ledger
