"""A supervisor that is the child of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, final

import trio
from trio.lowlevel import enable_ki_protection

from ._bag import describe_error
from ._child import DOWN, LEAVING, Child, ChildOptions, Unit
from ._traceback import drop_own_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ._child import Home
    from ._resident import Resident
    from .statistics import ActorLedger, SupervisorStatistics


class Residents(Protocol):
    """The resident actors of a child supervisor."""

    async def revive(self) -> None:
        """Bring up again what was up when it was closed."""

    def end(self, why: str) -> None:
        """Let everything end that might have come up again."""

    def find(self, name: str, *, path: str = "") -> Resident:
        """Return one by its name, or by its path through further supervisors."""
        ...

    @property
    def ledger(self) -> ActorLedger:
        """The account of all messages to them."""
        ...


class Subordinate(Protocol):
    """A child supervisor, as far as the one above opens, watches and closes it."""

    @property
    def _household(self) -> Residents: ...

    _fatal: BaseException | None
    """Why it had to end."""

    def _reset(self) -> None:
        """Get ready to be opened once more."""

    def _stop_all(self, reason: str) -> None:
        """End all runs, here and further below, and admit no more."""

    def statistics(self) -> SupervisorStatistics:
        """Return what it has now."""
        ...

    def _find_busy(self) -> Subordinate | None:
        """Return it, or one further below, if it has runs."""

    async def _wait_for_runs(self) -> None:
        """Wait until it has none."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


@final
class Reign(Unit):
    """One opening of a child supervisor after the other."""

    __slots__ = ("_leave", "_life", "_realm", "_start", "_supervisor")

    def __init__(self, realm: Realm, supervisor: Subordinate) -> None:
        super().__init__(realm, 0)
        self._realm = realm
        self._supervisor = supervisor
        self._start: trio.CancelScope
        """Around the coming up of what was up before."""
        self._life: trio.CancelScope
        """Around everything: cancelled where it has to end in a hurry."""
        self._leave: trio.Event

    @property
    def is_unheard(self) -> bool:
        """Whether runs of it failed; that it has given up is its own affair once it is being ended."""
        return self._supervisor._fatal is None  # noqa: SLF001 (two sides of one thing)

    def spawn(self) -> None:
        """Open it, in a task of its own."""
        self._start, self._life, self._leave = trio.CancelScope(), trio.CancelScope(), trio.Event()
        start_soon: Callable[..., None] = self.child.home.nursery.start_soon
        self.child.context.run(start_soon, self._live, name=f"supervisor {self.child.path}")

    def end(self, *, hurry: bool) -> None:
        """Leave it: its runs are cancelled, and its children take as long as they may or, in a hurry, less."""
        self.ordered = True
        self._supervisor._stop_all("the supervisor was stopped")  # noqa: SLF001 (two sides of one thing)
        if hurry:
            self._life.cancel()
        self._start.cancel()
        self._leave.set()

    @enable_ki_protection
    async def _live(self) -> None:
        error: BaseException | None = None
        try:
            with self._life:
                if self.child.home.is_halting:
                    self.ordered = True  # it was not told, because it had not begun
                if not self.ordered:
                    await self._reign()
        except BaseException as raised:
            error = raised
        if error is not None:
            drop_own_frames(error)
        self.enter(DOWN)
        self.child.home.unit_ended(self, error)
        del error  # its traceback keeps this frame

    async def _reign(self) -> None:
        """Be open: with what was up when it was closed, until it is told to leave."""
        supervisor = self._supervisor
        supervisor._reset()  # noqa: SLF001 (two sides of one thing)
        self._realm.is_opening = True
        async with supervisor:
            self._realm.is_opening = False
            with self._start:
                await supervisor._household.revive()  # noqa: SLF001 (likewise)
            if not self.ordered:
                self.come_up()
            await self._leave.wait()
            self.enter(LEAVING)


@final
class Realm(Child):
    """A child supervisor, as the supervisor above sees it: one thing that is up, or gives up."""

    __slots__ = ("is_opening", "supervisor")

    noun = "supervisor"

    def __init__(self, home: Home, options: ChildOptions, supervisor: Subordinate, number: int) -> None:
        super().__init__(home, options, number)
        self.is_opening = False
        """Whether it is just being opened, by the one above."""
        self.supervisor = supervisor
        self.units = (Reign(self, supervisor),)

    def bury(self) -> None:
        """Let all of its children end."""
        self.supervisor._household.end(tell_end(self.error))  # noqa: SLF001 (likewise)

    def balance(self) -> ActorLedger:
        """Return the account of all messages below it."""
        return self.supervisor._household.ledger  # noqa: SLF001 (likewise)


def tell_end(error: BaseException | None) -> str:
    """Return why actors end that end with their supervisor, in words."""
    return "its supervisor has ended" + (f" with {describe_error(error)}" if error is not None else "")
