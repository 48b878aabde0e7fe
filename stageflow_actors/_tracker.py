"""Dependency tracking: who waits for how many, and what becomes of whom. No awaits, no clock, no user code."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ._graph import BELOW_BAD, BELOW_SKIPPED
from ._policy import ISOLATED, OK, PENDING, SKIPPED, Decision, decide, isolates_at_stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._bag import OutputBag
    from ._graph import Graph


@final
class Tracker:
    """The counts of one run, over its graph and the states in its bag."""

    __slots__ = ("_bag", "_dependents", "_graph", "_states", "flags", "unmet")

    def __init__(self, graph: Graph, bag: OutputBag) -> None:
        self._graph = graph
        self._bag = bag
        self._dependents = graph.dependents
        self._states = bag.states
        self.unmet = graph.unmet[:]
        """How many dependencies of a stage have not ended."""
        self.flags = graph.flags[:]
        """What makes a stage's start more than its last dependency having ended well."""

    def count_down(self, stage: int) -> Sequence[int]:
        """Count a stage that has ended down for its dependents; return those that now wait for nothing."""
        dependents = self._dependents[stage]
        state = self._states[stage]
        if state != OK:
            mark = BELOW_SKIPPED if state == SKIPPED else BELOW_BAD
            for dependent in dependents:
                self.flags[dependent] |= mark
        unmet = self.unmet
        ready: list[int] | None = None
        for dependent in dependents:
            unmet[dependent] = count = unmet[dependent] - 1
            if not count:
                if ready is None:
                    ready = [dependent]
                else:
                    ready.append(dependent)
        return ready or ()

    def judge(self, stage: int) -> Decision:
        """Return what the trigger of a stage says whose dependencies have all ended."""
        flags = self.flags[stage]
        return decide(
            self._graph.specs[stage].trigger,
            bad=bool(flags & BELOW_BAD),
            skipped=bool(flags & BELOW_SKIPPED),
            ok=self._has_ok(stage),
        )

    def isolate(self, stage: int) -> str:
        """Give a stage the state `ISOLATED` and its parent; return the reason."""
        parent = self._bag.find_parent(self._graph.dependencies[stage])
        self._bag.parents[stage] = parent
        self._bag.states[stage] = ISOLATED
        return f"{self._graph.names[parent]!r} did not end well"

    def settle(self) -> tuple[list[int], list[int]]:
        """Return what becomes of the stages that were not told when the run stops.

        Decided once, from the states that have ended by then, and from what follows of them.

        Returns:
            The stages that are isolated, their states set, and the rest, which is to be cancelled.
        """
        states = self._bag.states
        pending = [stage for stage, state in enumerate(states) if state == PENDING]
        work = [stage for stage in pending if self._isolates_now(stage)]
        while work:
            stage = work.pop()
            if states[stage] == PENDING:
                states[stage] = ISOLATED
                self.count_down(stage)
                work.extend(dependent for dependent in self._graph.dependents[stage] if self._isolates_now(dependent))
        isolated = [stage for stage in pending if states[stage] == ISOLATED]
        return isolated, [stage for stage in pending if states[stage] == PENDING]

    def _isolates_now(self, stage: int) -> bool:
        bad = bool(self.flags[stage] & BELOW_BAD)
        if not bad:
            return False
        all_ended = not self.unmet[stage]
        ok = all_ended and self._has_ok(stage)
        return isolates_at_stop(self._graph.specs[stage].trigger, bad=bad, all_ended=all_ended, ok=ok)

    def _has_ok(self, stage: int) -> bool:
        states = self._bag.states
        return any(states[dependency] == OK for dependency in self._graph.dependencies[stage])
