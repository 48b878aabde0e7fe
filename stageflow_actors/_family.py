"""The children of a supervisor: how they are started, what is made of their ends, and in which order they stop."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio
from trio.lowlevel import enable_ki_protection

from ._bag import describe_error
from ._bulletin import Bulletin
from ._child import DOWN, STARTING, UP
from ._deadlines import Deadlines
from ._failures import make_spent, name_window, quote, tell_failures
from ._policy import NO_FAILURES, Directive, count_failure, plan_restart
from ._repair import Repair
from ._scopes import select
from ._validation import count
from .errors import ActorDeadError, ActorStartError, RestartIntensityError
from .events import ActorCrashed, ActorEnded, ActorRestarting, ActorStarted
from .statistics import ActorLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._child import Child, Unit
    from ._policy import Intensity
    from ._scopes import Scope
    from ._snapshot import RunIdentity

_logger: Final = logging.getLogger("stageflow_actors")

_GOES_ON: Final = (Directive.RESTART, Directive.RESUME)
"""Who has ended cannot go on as it is, and so is restarted."""


@final
class Family:
    """The children of one supervisor. Decisions are turns on the trio thread; what has to wait is a task of its own.

    Its tasks are out of reach of every cancellation from outside: a supervisor that is cancelled stops its children
    itself, in order.
    """

    def __init__(
        self,
        scope: Scope,
        intensity: Intensity,
        identity: RunIdentity,
        threads: trio.CapacityLimiter,
        random: Callable[[], float],
        give_up: Callable[[BaseException], None],
        above: Family | None,
        prefix: str,
        began: float,
    ) -> None:
        self.identity = identity
        self.threads = threads
        self.prefix = prefix
        """The names of the supervisors above, as a path."""
        self.above = above
        self.bulletin: Bulletin = Bulletin(began, above.bulletin if above else None)
        # Those of the supervisor at the top, which is there while one below is closed and its mailboxes wait.
        self.deadlines: Deadlines = above.deadlines if above else Deadlines()
        self.children: dict[str, Child] = {}
        """In the order of spawning; without those that have ended."""
        self.nursery: trio.Nursery
        self._hosting: trio.CancelScope
        """Around the task in which they live: out of reach of every other cancellation."""
        self.errors: list[Exception] = []
        """What child supervisors raised while they were being stopped for good, and nobody else will hear of."""
        self.needed: Counter[str] = Counter()
        """How many children name one as what they depend on."""
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self._scope = scope
        self._intensity = intensity
        self._random = random
        self.give_up = give_up
        self._window = NO_FAILURES
        self._number = 0
        self._repairs: dict[Unit, Repair] = {}
        """What is about to restart which unit."""
        self._past = ActorLedger()
        """The account of those that have ended."""
        self.is_halting = False
        """Whether everything is being brought down."""
        self.is_over = False
        """Whether its supervisor has ended for good, and its account is closed."""

    async def host(self, task_status: trio.TaskStatus[None]) -> None:
        """Be the task in which all tasks of children live, until it is dismissed."""
        with self._hosting:
            async with trio.open_nursery() as self.nursery:
                if self.above is None:
                    self.nursery.start_soon(self.deadlines.keep, name="timeouts of asks")
                task_status.started()
                await trio.sleep_forever()

    def invite(self) -> None:
        """Get ready for that task."""
        self._hosting = trio.CancelScope(shield=True)

    def dismiss(self) -> None:
        """End that task, which may not have begun yet; no child is left in it."""
        self._hosting.cancel()

    def next_number(self) -> int:
        """Return the place of one more child in the order of spawning."""
        self._number += 1
        return self._number

    # Starting

    @enable_ki_protection
    async def start(self, child: Child) -> None:
        """Register a child and bring it up.

        Raises:
            ActorStartError: It did not come up. Nothing is left of it.
        """
        self.children[child.name] = child
        self.needed.update(child.depends_on)
        for unit in child.units:
            unit.begin()
        try:
            while child.is_starting and _is_still_starting(child):
                await child.change()
        except BaseException:
            await self._clear_away(child)
            raise
        if not child.is_starting:
            return
        failed = next(unit for unit in child.units if unit.state not in (UP, STARTING))
        await self._clear_away(child)
        error = failed.error
        for each in child.units:
            if each.error is not None and not isinstance(each.error, Exception):
                self._end_all(each.error)
        why = "it ended at once" if error is None else describe_error(error)
        if failed.ordered and error is None:
            why = "the supervisor was stopped meanwhile"
        raise ActorStartError(f"it did not start: {why}", actor=child.path) from error

    async def _clear_away(self, child: Child) -> None:
        child.is_retiring = True
        with trio.CancelScope(shield=True):
            await self._bring_down(child, hurry=True)
        self._bury(child, "it did not start")

    def tell_started(self, unit: Unit) -> None:
        """Take note that a unit is up, and tell it."""
        child = unit.child
        if child.is_starting and all(each.state is UP for each in child.units):
            child.is_starting = (
                False  # at this moment: from now on it is restarted with others, whoever spawns it waits
            )
        if self.bulletin.events:
            event = ActorStarted(child.path, self.bulletin.at(), unit.index, unit.incarnation)
            self.bulletin.events.tell(event)

    # What is made of an end

    def unit_ended(self, unit: Unit, error: BaseException | None) -> None:
        """Take note that a unit's task is over."""
        unit.error = error
        if unit.ordered or unit.child.is_retiring:
            if error is not None:
                self._note_late(unit, error)
        elif unit.started and not unit.child.is_starting:
            self.judge(unit, error)
        # Else whoever started it looks at it.

    def _note_late(self, unit: Unit, error: BaseException) -> None:
        """Take note of an error from a unit that was told to end."""
        if not isinstance(error, Exception):
            self._end_all(error)
            return
        _logger.error(
            "%s %r failed while it was stopped: %s",
            unit.child.noun,
            unit.child.path,
            describe_error(error),
            exc_info=error,
        )
        if unit.child.is_retiring and unit.is_unheard:
            self.errors.append(error)

    def judge(self, unit: Unit, error: BaseException | None) -> None:
        """Decide what becomes of a unit that has ended by itself, or did not come up again."""
        child = unit.child
        if error is not None:
            self._tell_crash(unit, error)
        if error is not None and not isinstance(error, Exception):
            self._end_all(error)
        elif self.is_halting or self._is_awaited(unit):
            pass
        elif error is None and child.policy == "permanent":
            self._restart(unit, None, 0.0)
        elif error is None:
            self.retire(child, "it ended by itself")
        elif child.policy == "temporary":
            self.retire(child, "it failed, and is temporary", error)
        else:
            self._judge_failure(unit, error)

    def _is_awaited(self, unit: Unit) -> bool:
        """Return whether a unit is to be restarted anyway: those that fail together count once, as with OTP."""
        repair = self._repairs.get(unit)
        return repair is not None and repair.awaits(unit)

    def _tell_crash(self, unit: Unit, error: BaseException) -> None:
        child = unit.child
        more = "; its message is delivered again" if unit.redelivers else ""
        _logger.error("%s %r failed: %s%s", child.noun, child.path, describe_error(error), more, exc_info=error)
        if self.bulletin.events:
            told = (unit.index, error, unit.delivery, unit.redelivers)
            self.bulletin.events.tell(ActorCrashed(child.path, self.bulletin.at(), *told))

    def _end_all(self, error: BaseException) -> None:
        """Let the supervisor end, because of an error."""
        self.start_no_more()
        self.give_up(error)

    def start_no_more(self) -> None:
        """From now on start and restart nothing: everything is about to be brought down."""
        self.is_halting = True
        for repair in dict.fromkeys(self._repairs.values()):
            repair.cancel()

    def _judge_failure(self, unit: Unit, error: Exception) -> None:
        """Ask a child's own policy what to do about a failure, and do it."""
        child = unit.child
        directive, final = (unit.directive, error) if unit.directive is not None else child.direct(error)
        delay: float | None = 0.0
        if directive in _GOES_ON and child.restart is not None:
            child.window, delay = plan_restart(child.restart, child.window, trio.current_time(), self._random())
            if delay is None:
                told = tell_failures(child.window, child.restart)
                directive, final = Directive.FAIL, make_spent(told, child.restart, error, actor=child.path)
        if directive in _GOES_ON:
            assert delay is not None
            self._restart(unit, error, delay)
        elif directive is Directive.ESCALATE or child.policy == "permanent" or not isinstance(final, Exception):
            self._end_all(final)
        else:
            self.retire(child, "it failed", final)

    def _restart(self, unit: Unit, error: Exception | None, delay: float) -> None:
        """Restart a unit, and those that the scope says, unless that would be one restart too many."""
        now = trio.current_time()
        self._window = count_failure(self._window, self._intensity.within, now)
        if self._window.count > self._intensity.max_restarts:
            self._end_all(self._make_intensity(unit.child, error))
            return
        others, temporary = self._list_affected(unit.child)
        self._tell_restart(unit, delay, others)
        units = {unit, *_list_units(others + temporary)}
        if self._scope == "one_for_all":
            units.update(unit.child.units)
        self._repair(units, now + delay)

    def _tell_restart(self, unit: Unit, delay: float, others: list[Child]) -> None:
        child = unit.child
        more = f", and {count(len(others), 'other')}" if others else ""
        _logger.warning("%s %r is restarted in %.3g s%s", child.noun, child.path, delay, more)
        if self.bulletin.events:
            names = tuple(other.path for other in others)
            self.bulletin.events.tell(ActorRestarting(child.path, self.bulletin.at(), unit.index, delay, names))

    def _list_affected(self, failed: Child) -> tuple[list[Child], list[Child]]:
        """Return who is restarted with a child, and who is stopped with it and ends: the temporary ones."""
        if self._scope == "one_for_one" or (self._scope == "dependents" and failed.name not in self.needed):
            return [], []
        settled = [child for child in self.children.values() if not (child.is_starting or child.is_retiring)]
        affected = select(self._scope, settled, failed)
        temporary = [child for child in affected if child.policy == "temporary"]
        for child in temporary:
            child.is_retiring = True
        return [child for child in affected if child.policy != "temporary"], temporary

    def _repair(self, units: Iterable[Unit], at: float) -> Repair:
        wanted = list(units)
        concerned = dict.fromkeys(self._repairs[unit] for unit in wanted if unit in self._repairs)
        if not concerned:
            first = Repair(self, wanted, at)
            self.nursery.start_soon(first.run, name="restart")
        else:
            first, *others = sorted(concerned, key=_began)
            first.add(wanted, at)
            for other in others:
                first.merge(other)
                self._repairs.update(dict.fromkeys(other.units, first))
        self._repairs.update(dict.fromkeys(wanted, first))
        return first

    def repair_ended(self, repair: Repair) -> None:
        """Forget a repair that is over."""
        for unit in repair.units:
            if self._repairs.get(unit) is repair:
                del self._repairs[unit]

    async def restart(self, child: Child) -> None:
        """Restart a child because somebody asks for it, and those that the scope says; it counts against nothing.

        Raises:
            ActorDeadError: Everything is being brought down.
        """
        self._refuse_while_halting(child)
        others, temporary = self._list_affected(child)
        for unit in child.units:
            self._tell_restart(unit, 0.0, others)
        self._repair(_list_units([child, *others, *temporary]), trio.current_time()).hasten()
        while (repair := next(filter(None, map(self._repairs.get, child.units)), None)) is not None:
            await repair.over.wait()
        self._refuse_while_halting(child)

    def _refuse_while_halting(self, child: Child) -> None:
        if self.is_halting:
            raise ActorDeadError("its supervisor is stopping, or is being restarted itself", actor=child.path)

    # Ending

    def retire(self, child: Child, reason: str, error: BaseException | None = None) -> None:
        """Let a child end for good: what is up of it is brought down first, in a task of its own."""
        if child.is_retiring:
            return
        child.is_retiring = True
        child.error, child.reason = error, reason
        if all(unit.state is DOWN for unit in child.units):
            self._bury(child, reason)
        else:
            self.nursery.start_soon(partial(self._retire, child, reason), name=f"end of {child.path}")

    async def _retire(self, child: Child, reason: str) -> None:
        await self._bring_down(child, hurry=False)
        self._bury(child, reason)

    async def _bring_down(self, child: Child, *, hurry: bool) -> None:
        for unit in child.units:
            if unit.state is not DOWN:
                unit.end(hurry=hurry)
        for unit in child.units:
            await unit.wait_down()

    def end_with_sibling(self, child: Child) -> None:
        """Let a temporary child end that was brought down with a sibling."""
        if all(unit.state is DOWN for unit in child.units):
            self._bury(child, "it is temporary, and was stopped with another")

    def _bury(self, child: Child, reason: str) -> None:
        if child.ended.is_set():
            return
        child.is_retiring = True
        child.reason = reason = child.reason or reason  # what came first
        child.bury()
        self._past += child.balance()
        for name in child.depends_on:
            self.needed[name] -= 1
            if not self.needed[name]:
                del self.needed[name]
        if self.children.get(child.name) is child:
            del self.children[child.name]
        child.ended.set()
        _logger.info("%s %r has ended: %s", child.noun, child.path, reason)
        if self.bulletin.events:
            self.bulletin.events.tell(ActorEnded(child.path, self.bulletin.at(), reason, child.error))

    @enable_ki_protection
    async def halt(self, *, hurry: bool, for_good: bool, why: str) -> None:
        """Bring all children down, the last one first. Cancelled while it waits, it goes on in a hurry.

        Args:
            hurry: Whether messages in hand are cancelled, rather than given their time.
            for_good: Whether they end; otherwise they keep their mailboxes, and may be brought up again.
            why: Why they end, in words.
        """
        self.start_no_more()
        self._repairs.clear()
        try:
            await self._halt_all(hurry=hurry, for_good=for_good, why=why)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._halt_all(hurry=True, for_good=for_good, why=why)
            raise

    async def _halt_all(self, *, hurry: bool, for_good: bool, why: str) -> None:
        with trio.CancelScope(shield=hurry):
            for child in sorted(self.children.values(), key=_number, reverse=True):
                if for_good or child.policy == "temporary":
                    child.is_retiring = True
                await self._bring_down(child, hurry=hurry)
                if child.is_retiring:
                    self._bury(child, why)

    def bury_all(self, why: str) -> None:
        """Let every child end for good; all are down."""
        for child in sorted(self.children.values(), key=_number, reverse=True):
            self._bury(child, why)

    async def revive(self) -> None:
        """Bring all children up again, in order, with nothing held against them; in as many tries as they may have."""
        self.is_halting = False
        self._window = NO_FAILURES
        settled = [child for child in self.children.values() if not (child.is_starting or child.is_retiring)]
        for child in settled:
            child.window = NO_FAILURES
        if settled:
            await self._repair(_list_units(settled), trio.current_time()).over.wait()

    def note_lost(self) -> None:
        """Take note of a message to an actor that has ended."""
        self._past += ActorLedger(no_recipient=1)
        if self.is_over and self.above is not None:
            self.above.note_lost()

    def balance(self) -> ActorLedger:
        """Return the account of all messages, with those of the supervisors below."""
        total = self._past
        for child in self.children.values():
            total += child.balance()
        return total

    def _make_intensity(self, child: Child, error: Exception | None) -> RestartIntensityError:
        limit = self._intensity
        last = "ended by itself" if error is None else f"failed with {quote(error)}"
        had = count(limit.max_restarts, "restart")
        problem = f"the supervisor has had {had}{name_window(limit)}, and {child.noun} {child.path!r} {last}"
        hint = "raise its intensity, or let the actor's restart policy resume after such an error"
        made = RestartIntensityError(problem, max_restarts=limit.max_restarts, within=limit.within, hint=hint)
        made.__cause__ = error
        return made


def _is_still_starting(child: Child) -> bool:
    """Return whether a unit is starting, and none has failed to."""
    states = {unit.state for unit in child.units}
    return STARTING in states and states <= {STARTING, UP}


def _list_units(children: Iterable[Child]) -> list[Unit]:
    return [unit for child in children for unit in child.units]


def _began(repair: Repair) -> int:
    return repair.number


def _number(child: Child) -> int:
    return child.number
