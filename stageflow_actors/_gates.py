"""The limiters that the stages of one run pass on their way: their own, and the supervisor's."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias, final

from ._tickets import Ticket, bind
from .errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._graph import Graph
    from ._limits import LimiterBase, Place
    from ._tickets import Claimant, Gate


@final
class Batch:
    """Stages that ask one limiter for slots at the same time, equally urgent: one place in its queue for them all.

    What a ticket is to one stage, at a fraction of its price; for a limiter that neither refuses anybody
    nor counts starts.
    """

    __slots__ = ("_place", "claimant", "gate", "priority", "waiting", "what")

    def __init__(self, claimant: Claimant, gate: Gate, priority: int) -> None:
        self.claimant = claimant
        self.what: int = -1
        """The stage that has just been admitted."""
        self.waiting: deque[int] = deque()
        self.priority = priority
        self.gate = gate
        self._place: Place | None = None

    def enter(self) -> list[int]:
        """Ask for a slot for each; return those that are admitted at once. The others wait."""
        waiting = self.waiting
        count, self._place = self.gate.enter_many(self, self.priority, len(waiting))
        return [waiting.popleft() for _ in range(count)]

    def pass_gate(self, _gate: Gate) -> None:
        """Tell the claimant that the next of them was admitted."""
        self.what = self.waiting.popleft()
        if not self.waiting:
            self._place = None  # it leads back here
        self.claimant.admitted(self)

    def start(self) -> None:
        """Do nothing: nobody counts starts."""

    def release(self) -> None:
        """Give back the slot of one of those that were admitted."""
        self.gate.leave(False)

    def withdraw(self) -> None:
        """Let none of the others wait any more."""
        count = len(self.waiting)
        self.waiting.clear()
        place, self._place = self._place, None
        if place is not None and count:
            self.gate.withdraw_many(place, count)


Pass: TypeAlias = Ticket | Batch
"""What lets a stage through its limiters."""


@final
class Gates:
    """The passes of the stages that wait for a slot, or hold one.

    A stage's own limiter comes first, then the supervisor's: so whoever waits for the one keeps nothing of
    the other from those that could run. What runs actors of its own holds no slot of the supervisor's.
    """

    __slots__ = ("_graph", "_open", "_running", "has_rates", "is_used", "passes", "told")

    def __init__(self, graph: Graph, running: LimiterBase | None) -> None:
        self._graph = graph
        self._running = running
        self._open: dict[Gate, Batch] = {}
        """Those that have not entered yet."""
        self.is_used = graph.is_limited or running is not None
        """Whether any stage of the run passes one."""
        self.has_rates = False
        """Whether one that was passed so far counts starts."""
        self.passes: dict[int, Pass] = {}
        self.told: list[int] = []
        """The stages that are to enter at the end of the present turn."""

    def enter(self, claimant: Claimant, ready: deque[int]) -> None:
        """Send the stages that were told in one turn to their limiters, the most urgent first.

        Args:
            claimant: Is called when one that had to wait is admitted or refused; also one that is refused at once.
            ready: Takes those that are admitted at once.
        """
        told, self.told = self.told, []
        specs, forms = self._graph.specs, self._graph.forms
        if any(specs[stage].priority for stage in told):
            told.sort(key=lambda stage: -specs[stage].priority)
        limiter = form = batch = None  # no stage's form is None, so that the first stage is looked at
        limiters: tuple[LimiterBase, ...] = ()
        priority = 0
        for stage in told:
            spec = specs[stage]
            if spec.limiter is not limiter or forms[stage] is not form or spec.priority != priority:
                limiter, form = spec.limiter, forms[stage]
                limiters = self.list_limiters(limiter, is_container=form.is_container)
                if self._open and spec.priority != priority:
                    self._close_batches(ready)
                priority = spec.priority
                batch = self._find_batch(claimant, limiters, priority)
            if batch is not None:
                batch.waiting.append(stage)
                self.passes[stage] = batch
            elif limiters:
                self._close_batches(ready)
                self._request(Ticket(claimant, stage, limiters, priority), ready)
            else:
                ready.append(stage)
        self._close_batches(ready)

    def _find_batch(self, claimant: Claimant, limiters: tuple[LimiterBase, ...], priority: int) -> Batch | None:
        """Return the open batch for a limiter, or None where tickets are needed, or nothing."""
        options = [limiter._options for limiter in limiters]  # noqa: SLF001 (a limiter and its queue are one thing)
        self.has_rates = self.has_rates or any(each.rate is not None for each in options)
        if len(options) != 1 or not options[0].is_plain:
            return None
        gate = bind(limiters[0])
        if gate not in self._open:
            self._open[gate] = Batch(claimant, gate, priority)
        return self._open[gate]

    def _close_batches(self, ready: deque[int]) -> None:
        for batch in self._open.values():
            ready.extend(batch.enter())
        self._open.clear()

    def _request(self, ticket: Ticket, ready: deque[int]) -> None:
        self.passes[ticket.what] = ticket
        try:
            if ticket.request():
                ready.append(ticket.what)
        except OverloadedError as error:
            ticket.refuse_soon(error)

    def list_limiters(self, own: LimiterBase | None, *, is_container: bool = False) -> tuple[LimiterBase, ...]:
        """Return what an actor passes that has a limiter `own`, in order."""
        shared = None if is_container else self._running
        return tuple(limiter for limiter in (own, shared) if limiter is not None)

    def withdraw(self) -> list[int]:
        """Let no stage wait any more; return those that did."""
        told, self.told = self.told, []
        batches = {id(each): each for each in self.passes.values() if isinstance(each, Batch)}
        waiting: list[int] = []
        for stage, each in list(self.passes.items()):
            # Asked at its turn: what one gives back may be given to the next, which is then among those ready.
            if isinstance(each, Ticket) and each.is_waiting:
                waiting.append(stage)
                self.free(stage)
        for batch in batches.values():
            waiting += batch.waiting
            for stage in batch.waiting:
                del self.passes[stage]
            batch.withdraw()
        return told + waiting

    def start(self, stage: int) -> None:
        """Let a limiter's rate know that an attempt begins."""
        found = self.passes.get(stage)
        if found is not None:
            found.start()

    def free(self, stage: int) -> None:
        """Give back the slots of a stage, or its place in a queue."""
        found = self.passes.pop(stage, None)
        if found is not None:
            found.release()

    def keep(self, stage: int) -> Callable[[], None]:
        """Leave a stage its slots, because its thread still runs; return what gives them back."""
        found = self.passes.pop(stage, None)
        return _nothing if found is None else found.release


def _nothing() -> None:
    pass
