"""The limiters that the stages of one run pass on their way: their own, and the supervisor's."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

from ._limiter import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._graph import Graph
    from ._limiter import Claimant, Limiter
    from ._limits import LimiterBase


@final
class Gates:
    """The tickets of the stages that wait for a slot, or hold one.

    A stage's own limiter comes first, then the supervisor's: so whoever waits for the one keeps nothing of
    the other from those that could run. What runs actors of its own holds no slot of the supervisor's.
    """

    __slots__ = ("_graph", "_limiters", "_running", "is_used", "tickets")

    def __init__(self, graph: Graph, running: Limiter | None) -> None:
        self._graph = graph
        self._running = running
        self._limiters: dict[tuple[LimiterBase | None, bool], tuple[Limiter, ...]] = {}
        self.is_used = graph.is_limited or running is not None
        """Whether any stage of the run passes one."""
        self.tickets: dict[int, Ticket] = {}

    def request(self, stage: int, claimant: Claimant) -> bool:
        """Send a stage off, and return whether all admit it at once; if not, it waits and the claimant is called.

        Raises:
            OverloadedError: One will not have it.
        """
        spec = self._graph.specs[stage]
        key = (spec.limiter, self._graph.forms[stage].is_container)
        limiters = self._limiters.get(key)
        if limiters is None:
            limiters = self._limiters[key] = self.list_limiters(*key)
        if not limiters:
            return True
        ticket = Ticket(claimant, stage, limiters, spec.priority)
        admitted = ticket.request()
        self.tickets[stage] = ticket
        return admitted

    def list_limiters(self, own: LimiterBase | None, is_container: bool = False) -> tuple[Limiter, ...]:  # noqa: FBT001, FBT002
        """Return what an actor passes that has a limiter `own`, in order."""
        shared = None if is_container else self._running
        return tuple(cast("Limiter", limiter) for limiter in (own, shared) if limiter is not None)

    def take(self, ticket: Ticket) -> bool:
        """Forget a ticket that was refused; return whether it was still a stage's."""
        mine = self.tickets.get(ticket.what) is ticket
        if mine:
            del self.tickets[ticket.what]
        return mine

    def list_waiting(self) -> list[int]:
        """Return the stages that wait."""
        return [stage for stage, ticket in self.tickets.items() if ticket.is_waiting]

    def start(self, stage: int) -> None:
        """Let a limiter's rate know that an attempt begins."""
        ticket = self.tickets.get(stage)
        if ticket is not None:
            ticket.start()

    def free(self, stage: int) -> None:
        """Give back the slots of a stage, or its place in a queue."""
        ticket = self.tickets.pop(stage, None)
        if ticket is not None:
            ticket.release()

    def keep(self, stage: int) -> Callable[[], None]:
        """Leave a stage its slots, because its thread still runs; return what gives them back."""
        ticket = self.tickets.pop(stage, None)
        return _nothing if ticket is None else ticket.release


def _nothing() -> None:
    pass
