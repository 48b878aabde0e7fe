"""The search for an order of operations that a model accepts.

After J. M. Wing and C. Gong, "Testing and verifying concurrent objects" (1993), with the memory of G. Lowe, "Testing
for linearizability" (2017): what follows from a state is looked at once for each set of operations that led there.
Pending operations need not be in the order. Of two ways to the same state with the same operations that have returned,
the one that took fewer pending ones can do all that the other can; and of pending operations with equal calls, the one
that was invoked first does for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ._model import Evaluator

Follow: TypeAlias = "Callable[[int, int], tuple[int, ...]]"
"""A function of a state and an operation that returns the states after it."""

_Step: TypeAlias = tuple[int, int, int, int]
"""The event of an invocation, the state after the operation, and which operations are taken then: those that have
returned, and pending ones, as sets of bits."""


class SpentError(Exception):
    """The steps are used up, and nothing is decided."""


class Budget:
    """How many steps may be made; each tries one operation in one state."""

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises:
            SpentError: There are not so many left.
        """
        self.left -= steps
        if self.left < 0:
            raise SpentError


@final
@attrs.frozen
class Found:
    """What a search has found."""

    complete: bool
    """Whether every operation that has returned is in the order."""
    order: tuple[int, ...]
    """Operations in an order that the model accepts; no order that was tried has more that have returned."""
    state: int
    """The state after them."""
    candidates: tuple[int, ...]
    """The operations that have returned and could be next, if the model accepted them."""
    wall: int
    """The operation before whose response every order ends; -1 where none does. What was invoked before that response
    cannot be linearized."""


def linearize(evaluator: Evaluator, numbers: Iterable[int], budget: Budget, follow: Follow | None = None) -> Found:
    """Search for an order that the model accepts, and in which nothing comes before what was over when it began.

    Args:
        evaluator: The model with the operations.
        numbers: Those of the operations that are looked at.
        budget: How many steps may be made.
        follow: What stands for `Evaluator.follow`.

    Raises:
        SpentError: Nothing is decided.
    """
    return _Search(evaluator, numbers, budget, follow or evaluator.follow).run()


class _Search:
    """One search. The events are a list linked both ways, out of which an operation is lifted while it is taken."""

    def __init__(self, evaluator: Evaluator, numbers: Iterable[int], budget: Budget, follow: Follow) -> None:
        self._evaluator = evaluator
        self._follow = follow
        self._budget = budget
        events: list[tuple[float, bool, int]] = []
        for number in numbers:
            operation = evaluator.operations[number]
            events.append((operation.invoked, False, number))
            if operation.returned is not None:
                events.append((operation.returned, True, number))
        events.sort()  # what begins at the very moment at which another one ends overlaps it
        self._numbers = [number for _, _, number in events]
        self._is_end = [is_end for _, is_end, _ in events]
        end_of = {number: at for at, (_, is_end, number) in enumerate(events) if is_end}
        self._end = [end_of.get(number, -1) for number in self._numbers]
        """By the event of an invocation that of its response; -1 for a pending operation."""
        self._must = len(end_of)
        self._head = len(events)  # stands for the place before the first event, and after the last
        self._next = [*range(1, len(events) + 1), 0]
        self._previous = [self._head, *range(len(events))]
        self._seen: dict[tuple[int, int], list[int]] = {}
        self._order: list[int] = []
        self._reached = -1
        self._furthest = -1
        """The last response that came first of those left."""
        self._best = Found(complete=False, order=(), state=evaluator.initial, candidates=(), wall=-1)

    def run(self) -> Found:
        """Search depth first. The stack is a list: histories are longer than Python's own is deep."""
        state = self._evaluator.initial
        self._note(0, state)
        frames = [self._expand(state, 0, 0)]
        path: list[int] = []
        reached = 0
        while frames and self._reached < self._must:
            step = next(frames[-1], None)
            if step is None:
                frames.pop()
                if path:
                    at = path.pop()
                    self._put_back(at)
                    self._order.pop()
                    reached -= self._end[at] >= 0
                continue
            at, state, taken, used = step
            path.append(at)
            self._lift(at)
            self._order.append(self._numbers[at])
            reached += self._end[at] >= 0
            if reached > self._reached:
                self._note(reached, state)
            frames.append(self._expand(state, taken, used))
        if self._best.complete:
            return self._best
        return attrs.evolve(self._best, wall=self._numbers[self._furthest])

    def _note(self, reached: int, state: int) -> None:
        self._reached = reached
        candidates = tuple(self._numbers[at] for at in self._iterate_candidates() if self._end[at] >= 0)
        self._best = Found(reached == self._must, tuple(self._order), state, candidates, -1)

    def _expand(self, state: int, taken: int, used: int) -> Iterator[_Step]:
        """Yield the steps from here that lead to something new; first those with operations that have returned.

        Then pending ones: at first those after which one that has returned can be next, and could not before.
        """
        ready: list[int] = []
        pending: list[int] = []
        for at in self._iterate_candidates():
            (pending if self._end[at] < 0 else ready).append(at)
        self._budget.spend(len(ready))
        steps = [(at, after) for at in ready for after in self._follow(state, self._numbers[at])]
        steps.sort(key=lambda step: step[1] != state)  # what changes nothing is in nobody's way
        for at, after in steps:
            if self._is_new(taken | 1 << at, after, used):
                yield at, after, taken | 1 << at, used
        refused = [number for number in (self._numbers[at] for at in ready) if not self._follow(state, number)]
        later = []
        for at, after in self._iterate_pending(pending, state):
            if not any(self._follow(after, number) for number in refused):
                later.append((at, after))
            elif self._is_new(taken, after, used | 1 << at):
                yield at, after, taken, used | 1 << at
        for at, after in later:
            if self._is_new(taken, after, used | 1 << at):
                yield at, after, taken, used | 1 << at

    def _iterate_pending(self, pending: list[int], state: int) -> Iterator[tuple[int, int]]:
        """Yield pending operations with the states after them, one of those with equal calls."""
        tried = set()
        for at in pending:
            number = self._numbers[at]
            if self._evaluator.kinds[number] in tried:
                continue
            tried.add(self._evaluator.kinds[number])
            self._budget.spend(1)
            for after in self._follow(state, number):
                if after != state:  # otherwise it can as well never have happened
                    yield at, after

    def _is_new(self, taken: int, state: int, used: int) -> bool:
        """Return whether it was not here yet with as few pending operations; remember it."""
        before = self._seen.get((taken, state))
        if before is None:
            self._seen[taken, state] = [used]
            return True
        for known in before:
            if known & ~used == 0:
                return False
        if len(before) > 16:
            self._budget.spend(len(before) >> 4)
        before[:] = [known for known in before if used & ~known]
        before.append(used)
        return True

    def _iterate_candidates(self) -> Iterator[int]:
        """Yield the invocations before the first response: nothing that begins later can come before that operation."""
        at = self._next[self._head]
        while at != self._head and not self._is_end[at]:
            yield at
            at = self._next[at]
        if at != self._head and at > self._furthest:
            self._furthest = at

    def _lift(self, at: int) -> None:
        """Take an operation out of the list."""
        for event in (at, self._end[at]):
            if event >= 0:
                before, after = self._previous[event], self._next[event]
                self._next[before] = after
                self._previous[after] = before

    def _put_back(self, at: int) -> None:
        """Put the operation back that was taken out last: in the opposite order its links are still right."""
        for event in (self._end[at], at):
            if event >= 0:
                self._next[self._previous[event]] = event
                self._previous[self._next[event]] = event
