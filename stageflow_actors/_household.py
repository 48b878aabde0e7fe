"""The resident actors of a supervisor, from the first that is spawned to the end of the last.

A supervisor that only runs pipelines has none of this, and pays for none of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from ._family import Family
from ._freeze import FrozenDict
from ._realm import Realm, Subordinate, tell_end
from ._resident import Resident
from ._stream import EventStream
from ._validation import FEW_NAMES, count, refuse, suggest
from .errors import ActorDeadError, LedgerError, UnknownActorError
from .statistics import ActorLedger, SupervisorStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._bulletin import Listeners
    from ._policy import Intensity
    from ._ref import ActorRef
    from ._scopes import Scope
    from ._snapshot import RunIdentity

_logger: Final = logging.getLogger("stageflow_actors")


@final
@attrs.frozen
class Opening:
    """What a supervisor lends while it is open."""

    nursery: trio.Nursery
    threads: trio.CapacityLimiter
    give_up: Callable[[BaseException], None]
    """Ends it, with an error."""
    began: float
    """When it was opened, on trio's clock."""


def _ignore(_error: BaseException) -> None:
    pass


@final
class Household:
    """Makes the family of a supervisor when it is first asked for, and gives its tasks a place while it is open."""

    def __init__(
        self,
        scope: Scope,
        intensity: Intensity,
        identify: Callable[[], RunIdentity],
        random: Callable[[], float],
    ) -> None:
        self._scope: Scope = scope
        self._intensity = intensity
        self._identify = identify
        self._random = random
        self.realm: Realm | None = None
        """What the supervisor is to the one above, where there is one."""
        self._family: Family | None = None
        self._opening: Opening | None = None
        self._patience: trio.CancelScope
        """Around a halt that is not in a hurry yet."""
        self._hosted: trio.Event | None = None
        """Set when the family's tasks have a place."""
        self._streams: dict[EventStream[Any], None] = {}

    # Opening

    def open(self, opening: Opening) -> None:
        """Take note of what the supervisor lends while it is open."""
        self._opening = opening
        self._patience = trio.CancelScope()
        if self._family is not None:
            self._family.threads, self._family.give_up = opening.threads, opening.give_up

    def refuse_entry(self) -> None:
        """Refuse to be opened by anybody but the supervisor above, where there is one."""
        if self.realm is not None and not self.realm.is_opening:
            message = "another supervisor opens and closes this one; use it as it is, without `async with`"
            raise RuntimeError(message)

    def make_family(self) -> Family:
        """Return the family, made at the first call."""
        if self._family is None:
            assert self._opening is not None
            realm = self.realm
            above = None if realm is None else realm.home
            assert above is None or isinstance(above, Family)
            self._family = Family(
                self._scope,
                self._intensity,
                self._identify(),
                self._opening.threads,
                self._random,
                self._opening.give_up,
                above,
                "" if realm is None else f"{realm.path}/",
                self._opening.began,
            )
        return self._family

    async def prepare(self) -> Family:
        """Return the family, with a place for its tasks, unless the supervisor is closed meanwhile."""
        family = self.make_family()
        while self._opening is not None:
            hosted = self._hosted
            if hosted is None:
                hosted = self._hosted = trio.Event()
                family.invite()
                try:
                    with trio.CancelScope(shield=True):  # others wait for it
                        await self._opening.nursery.start(family.host, name="host of resident actors")
                finally:
                    hosted.set()
            else:
                await hosted.wait()
            if self._hosted is hosted:
                break
            # It was closed meanwhile, and perhaps opened again: that place is gone.
        return family

    async def revive(self) -> None:
        """Bring up again what was up when the supervisor, a child, was closed."""
        if self._family is not None:
            await (await self.prepare()).revive()

    # While it is open

    def subscribe(self, listeners: Callable[[Family], Listeners[Any]], max_queued: int) -> EventStream[Any]:
        """Return a stream of what some listeners of the family are told from now on."""
        stream: EventStream[Any] = EventStream(listeners(self.make_family()), max_queued, self._streams.pop)
        self._streams[stream] = None
        return stream

    def find(self, name: str, *, path: str = "") -> Resident:
        """Return an actor by its name, or by its path through child supervisors.

        Args:
            name: What is left of the path.
            path: What was asked for.

        Raises:
            UnknownActorError: There is none, or it has ended.
        """
        children = self._family.children if self._family is not None else {}
        first, _, rest = name.partition("/")
        child = children.get(first)
        if isinstance(child, Realm) and rest:
            return child.supervisor._household.find(rest, path=path or name)  # noqa: SLF001 (two sides of one thing)
        if not isinstance(child, Resident) or child.is_starting or rest:
            whose = "the supervisor" if self.realm is None else f"supervisor {self.realm.path!r}"
            hint = "it has none; spawn it"
            if children:
                hint = suggest(name, children, f"{whose} has", most=FEW_NAMES)
            if isinstance(child, Realm):
                hint = f"{first!r} is a supervisor; name one of its actors, {first}/..."
            raise UnknownActorError(f"there is no resident actor {path or name!r}", hint=hint)
        return child

    def check_actor(self, ref: ActorRef, pipeline: str, stage: str) -> None:
        """Refuse a stage that is an actor of a supervisor which may end before the run does, or that has ended.

        Raises:
            PipelineValidationError: It is.
        """
        resident = ref._resident  # noqa: SLF001 (likewise)
        if resident.is_retiring:
            refuse(f"its actor {ref.name!r} has ended", pipeline=pipeline, stage=stage, hint="spawn it again")
        if not any(family is resident.home for family in self._list_lineage()):
            problem = f"its actor {ref.name!r} lives in another supervisor"
            refuse(problem, pipeline=pipeline, stage=stage, hint="run the pipeline there, or in a supervisor below")

    def _list_lineage(self) -> Iterator[Family | None]:
        """Iterate over the families of this supervisor and those above."""
        yield self._family
        family = None if self.realm is None else self.realm.home
        while isinstance(family, Family):
            yield family
            family = family.above

    def list_below(self) -> Iterator[Subordinate]:
        """Iterate over the child supervisors."""
        for child in self._family.children.values() if self._family is not None else ():
            if isinstance(child, Realm):
                yield child.supervisor

    def view(self, runs: int) -> SupervisorStatistics:
        """Return what there is now.

        Args:
            runs: How many runs of the supervisor go on.
        """
        children = list(self._family.children.values()) if self._family is not None else []
        actors = {child.name: child.view() for child in children if isinstance(child, Resident)}
        below = {child.name: child.supervisor.statistics() for child in children if isinstance(child, Realm)}
        restarts = 0 if self.realm is None else self.realm.restarts
        return SupervisorStatistics(runs, restarts, FrozenDict(actors), FrozenDict(below), self.ledger)

    @property
    def ledger(self) -> ActorLedger:
        """The account of all messages."""
        return ActorLedger() if self._family is None else self._family.balance()

    def make_closed_error(self) -> Exception | None:
        """Return the error for whoever uses a child supervisor that is not open now."""
        if self.realm is None:
            return None
        if self.realm.is_retiring:
            return ActorDeadError("the supervisor has ended", actor=self.realm.path)
        problem = "the supervisor has given up, and is being restarted"
        return ActorDeadError(problem, actor=self.realm.path, hint="try again")

    # Closing

    def start_no_more(self) -> None:
        """From now on start and restart nothing: everything is about to be stopped."""
        if self._family is not None:
            self._family.start_no_more()

    async def halt(self, *, hurry: bool, fatal: BaseException | None) -> None:
        """Stop all resident actors, the last one first.

        Args:
            hurry: Whether what they have in hand is cancelled.
            fatal: What the supervisor ends with, where it has to.
        """
        for_good = self.realm is None
        why = tell_end(fatal)
        try:
            if self._family is not None and self._hosted is not None:
                with self._patience:
                    await self._family.halt(hurry=hurry, for_good=for_good, why=why)
        finally:
            if self._family is not None and self._hosted is not None:
                self._family.dismiss()
                self._hosted = None
            if for_good:
                self.end(why)
            self._opening = None  # which leads back to the supervisor
            if self._family is not None:
                self._family.give_up = _ignore

    def hurry(self) -> None:
        """Give what is being stopped no more time for what it has in hand."""
        self._patience.cancel()

    def end(self, why: str) -> None:
        """Let everything end that might have come up again."""
        if self._family is not None:
            self._family.bury_all(why)
            self._family.is_over = True
            if not self._family.balance().balanced:
                _logger.critical("the ledger of resident actors does not balance: %s", self._family.balance())
        for stream in list(self._streams):
            stream._end()  # noqa: SLF001 (likewise)
        self._streams.clear()

    def list_unheard(self) -> list[Exception]:
        """Return what went wrong while actors were stopped, and nobody has heard of."""
        if self._family is None:
            return []
        errors, self._family.errors = self._family.errors, []
        return errors

    def check_ledger(self) -> None:
        """Raise if the account does not balance although everything has ended.

        Raises:
            LedgerError: A bug of this library.
        """
        if self.realm is None and not self.ledger.balanced:
            problem = f"the ledger of resident actors does not balance: {count(self.ledger.pending, 'message')} pending"
            raise LedgerError(f"{problem} in {self.ledger}", hint="please report it")
