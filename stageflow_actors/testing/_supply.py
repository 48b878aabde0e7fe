"""What the operations that are left out could do together, where the states that they lead to can be counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from ._linearize import SpentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ._model import Evaluator

_STATES: Final = 2_000
"""How many states are looked at."""

_CALLS: Final = 500_000
"""How many calls are looked at, in all states."""


_NOTHING: Final[dict[int, tuple[int, ...]]] = {}


@final
class Supply:
    """All states that the calls of a history lead to, each made as often as one likes, at any time.

    That is more than pending operations can do, and easier to know: nobody has to remember which were made already.
    Only that there are no more calls than operations is kept, so that there are only so many values of a counter.

    Args:
        evaluator: The model with the operations.
        samples: For each kind of call a pending operation that makes it.
        most: How many operations there are.
    """

    def __init__(self, evaluator: Evaluator, samples: dict[int, int], most: int) -> None:
        self.evaluator = evaluator
        self._samples = samples
        self._most = most
        self._edges: dict[int, dict[int, tuple[int, ...]]] = {}
        self._sources: dict[int, set[int]] = {}
        """By state the kinds of calls that lead to it."""
        self._calls = 0
        self._is_spent = False

    def choose(self, missing: Collection[int]) -> Choice:
        """Return what can be done without some kinds of calls.

        Raises:
            SpentError: It is too much to know.
        """
        if not self._edges:
            self.explore(self.evaluator.initial)
        return Choice(self, frozenset(missing))

    def explore(self, state: int) -> None:
        """Look at all that follows from a state.

        Raises:
            SpentError: It is too much.
        """
        layer = [state]
        for _ in range(self._most):
            layer = [after for each in layer if each not in self._edges for after in self._look(each)]
            if not layer:
                break

    def _look(self, state: int) -> Iterable[int]:
        """Note what each call does in a state; return the states that this leads to."""
        edges = self._edges[state] = {}
        self._calls += len(self._samples)
        for kind, number in self._samples.items():
            after = tuple(each for each in self.evaluator.follow(state, number) if each != state)
            if after:
                edges[kind] = after
            for each in after:
                self._sources.setdefault(each, set()).add(kind)
        if self._calls > _CALLS or len(self._sources) > _STATES:
            self._is_spent = True
            raise SpentError
        return {each for after in edges.values() for each in after}

    def list_states(self, missing: frozenset[int]) -> frozenset[int]:
        """Return the states to which something leads without some kinds of calls."""
        return frozenset(state for state, kinds in self._sources.items() if kinds - missing)

    def reach(self, state: int, missing: frozenset[int], most: frozenset[int]) -> frozenset[int]:
        """Return the states that follow from a state without some kinds of calls: `most`, where it is as many.

        Raises:
            SpentError: It is too much to know.
        """
        if self._is_spent:
            raise SpentError
        if state not in self._sources and state not in self._edges:
            self.explore(state)
        able = len(most) - (state in most)
        found = {state: None}
        waiting = [state]
        while waiting and len(found) <= able:
            for kind, after in self._edges.get(waiting.pop(), _NOTHING).items():
                if kind not in missing:
                    waiting += [each for each in after if each not in found]
                    found.update(dict.fromkeys(after))
        return most if len(found) > able else frozenset(found)


@final
class Choice:
    """The states that follow from an operation and whatever else is done before it."""

    def __init__(self, supply: Supply, missing: frozenset[int]) -> None:
        self._supply = supply
        self._missing = missing
        self._most = supply.list_states(missing)
        self._after: dict[tuple[int, int], tuple[int, ...]] = {}
        self._reached: dict[int, frozenset[int]] = {}
        self._after_most: dict[int, tuple[int, ...]] = {}

    def follow(self, state: int, number: int) -> tuple[int, ...]:
        """Return the states after an operation; none, if the model does not accept its result.

        Raises:
            SpentError: It is too much to know.
        """
        found = self._after.get((state, number))
        if found is None:
            reached = self._reached.get(state)
            if reached is None:
                reached = self._reached[state] = self._supply.reach(state, self._missing, self._most)
            more = self._spread(reached, number)
            found = self._after[state, number] = (*self._supply.evaluator.follow(state, number), *more)
        return found

    def _spread(self, states: frozenset[int], number: int) -> tuple[int, ...]:
        """Return the states after an operation that is made in any of some states."""
        if states is self._most and number in self._after_most:
            return self._after_most[number]
        follow = self._supply.evaluator.follow
        after = tuple(dict.fromkeys(after for each in states for after in follow(each, number)))
        if states is self._most:
            self._after_most[number] = after
        return after
