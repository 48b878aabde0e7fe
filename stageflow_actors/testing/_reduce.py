"""From a history that is not linearizable to the few operations that make it so.

An operation is left out by taking it for pending. What cannot be linearized then cannot be linearized at all, whatever
the operation returned: unlike an operation that is struck out, it can still be what another one has read. The more is
left out, the more orders there are, so that no operation has to be tried twice (A. Zeller and R. Hildebrandt,
"Simplifying and isolating failure-inducing input", 2002, for the halves).
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Final, TypeAlias

from ._linearize import Budget, Found, SpentError, linearize
from ._supply import Supply
from ._violation import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from ._history import Operation
    from ._linearize import Follow
    from ._model import Evaluator

_Question: TypeAlias = "Callable[[list[int]], bool]"

_FEW: Final = 16
"""Operations of which it is asked at once what pending ones could do; of more, first what is easier to know."""

_MANY: Final = 6
"""How many operations are too many to be looked at, if it is not even known whether all are needed."""

_STEPS: Final = 2_000_000
"""How many steps are made at most."""

_SHARE: Final = 10_000
"""How many of them a question gets, of which there may be many."""

_CALL: Final = 50
"""How many steps a call of the model counts for, beside the one that it is."""

_SUBSETS: Final = 300
"""How many sets of operations are tried to find a smaller one, for each size."""

_CONTEXT: Final = 3
"""How many operations say where results come from."""


def reduce(evaluator: Evaluator, found: Found, *, key: Hashable, total: int, max_steps: int) -> Violation:
    """Return the violation of a history that is not linearizable.

    Args:
        evaluator: The model with the operations.
        found: What was found of them.
        key: The key of their partition.
        total: How many operations the history has, with those of other partitions.
        max_steps: How many steps may be made; where they are not enough, the violation is larger.
    """
    return _Reducer(evaluator, max_steps).run(found, key, total)


class _Reducer:
    def __init__(self, evaluator: Evaluator, max_steps: int) -> None:
        self._count = len(evaluator.operations)
        self._evaluator = evaluator
        evaluator.relax()
        self._operations = evaluator.operations[: self._count]
        self._left = min(max_steps, _STEPS)
        self._share = _SHARE
        self._undecided = False
        self._answers: dict[frozenset[int], bool] = {}
        kinds = self._evaluator.kinds
        samples = {kinds[number]: self._count + number for number in range(self._count)}
        self._supply = Supply(self._evaluator, samples, self._count)

    def run(self, found: Found, key: Hashable, total: int) -> Violation:
        """Find the operations, and say what is wrong with them."""
        end = self._get_end(found.wall)
        all_returned = [number for number, each in enumerate(self._operations) if not each.pending]
        early = (number for number in all_returned if self._operations[number].invoked <= end)
        returned = sorted(early, key=self._get_end)
        kept = self._choose(returned)
        kept = self._find_fewer(kept, all_returned) or kept
        minimal = not self._undecided
        if len(kept) > _MANY and not minimal:
            self._left = self._share = _STEPS
            fewer = self._narrow(returned, self._suffices_in_place)
            if len(fewer) < len(kept):
                self._undecided = False
                fewer = self._leave_out(fewer, 1, self._suffices_in_place)
                stuck, minimal = self._search(self._list_in_place(fewer)), not self._undecided
                return self._tell(fewer, [], stuck or found, key, total, minimal=minimal, others="returned")
        self._left, self._share = _STEPS, _SHARE
        context = self._find_context(kept)
        if context:
            kept, context = self._explain_alone(kept, all_returned) or (kept, context)
        self._share = _STEPS
        if context is None:
            stuck = self._search(self._list_in_place(kept))
        else:
            stuck = self._search([*kept, *(self._count + number for number in context)])
        return self._tell(kept, context or [], stuck or found, key, total, minimal=minimal, others="pending")

    def _choose(self, returned: list[int]) -> list[int]:
        """Return a few operations that suffice; `_undecided` says whether any of them could perhaps be left out."""
        kept = returned
        if len(kept) > _FEW:
            kept = self._narrow(kept, self._suffices_anyway)
        self._share = max(_SHARE, self._left // (2 * len(kept)))
        kept = self._narrow(kept, self._suffices)
        self._undecided = False
        return self._leave_out(kept, 1, self._suffices)

    def _narrow(self, kept: list[int], suffices: _Question) -> list[int]:
        """Return some of the operations that suffice, by questions of which each leaves out many."""
        kept = self._begin_late(kept, suffices)
        size = len(kept) // 2
        while size > 0:
            kept = self._leave_out(kept, size, suffices)
            size //= 2
        return kept

    def _begin_late(self, returned: list[int], suffices: _Question) -> list[int]:
        """Return some of the operations that returned last that suffice: twice as many each time."""
        size = 1
        while size < len(returned):
            if suffices(returned[-size:]):
                return returned[-size:]
            size *= 2
        return returned

    def _leave_out(self, kept: list[int], size: int, suffices: _Question) -> list[int]:
        """Return what is left when so many operations at a time were left out where the rest suffices."""
        at = 0
        while at < len(kept):
            rest = kept[:at] + kept[at + size :]
            if rest and suffices(rest):
                kept = rest
            else:
                at += size
        return kept

    def _find_fewer(self, kept: list[int], returned: list[int]) -> list[int] | None:
        """Return the smallest set, where there are so few that all can be tried."""
        for size in range(1, len(kept)):
            if comb(len(returned), size) > _SUBSETS:
                return None
            for some in combinations(returned, size):
                if self._suffices(some):
                    return list(some)
        return None

    def _explain_alone(self, kept: list[int], returned: list[int]) -> tuple[list[int], list[int]] | None:
        """Return a set of the same size whose results need no other operations, where all can be tried."""
        if comb(len(returned), len(kept)) > _SUBSETS:
            return None
        for some in combinations(returned, len(kept)):
            if self._suffices(some) and self._find_context(some) == []:
                return list(some), []
        return None

    def _get_end(self, number: int) -> float:
        end = self._operations[number].returned
        assert end is not None
        return end

    def _suffices_in_place(self, kept: Sequence[int]) -> bool:
        """Return whether operations are known not to be linearizable, whatever the others returned when they did."""
        found = self._search(self._list_in_place(kept))
        self._undecided |= found is None
        return found is not None and not found.complete

    def _list_in_place(self, kept: Sequence[int]) -> list[int]:
        chosen, last = set(kept), max(map(self._get_end, kept))
        return [
            number if number in chosen else number + (self._count if each.pending else 2 * self._count)
            for number, each in enumerate(self._operations)
            if each.invoked <= last
        ]

    def _suffices_anyway(self, kept: Sequence[int]) -> bool:
        """Return whether operations are known not to be linearizable, however often and whenever others are made."""
        kinds = self._evaluator.kinds
        chosen = set(kept)
        others = {kinds[number] for number in range(self._count) if number not in chosen}
        try:
            choice = self._supply.choose({kinds[number] for number in kept} - others)
        except SpentError:
            return False
        found = self._search(kept, choice.follow)
        return found is not None and not found.complete

    def _suffices(self, kept: Sequence[int]) -> bool:
        """Return whether operations are known not to be linearizable, with all others pending."""
        chosen = frozenset(kept)
        if chosen in self._answers:
            return self._answers[chosen]
        found = self._search(self._list_pending(kept))
        self._undecided |= found is None
        answer = found is not None and not found.complete
        if found is not None:
            self._answers[chosen] = answer
        return answer

    def _list_pending(self, kept: Sequence[int]) -> list[int]:
        chosen, last = set(kept), max(map(self._get_end, kept))
        return [
            number if number in chosen else self._count + number
            for number, each in enumerate(self._operations)
            if each.invoked <= last
        ]

    def _search(self, numbers: Sequence[int], follow: Follow | None = None) -> Found | None:
        budget = Budget(min(self._share, self._left))
        share, asked = budget.left, self._evaluator.asked
        try:
            return linearize(self._evaluator, numbers, budget, follow)
        except SpentError:
            return None
        finally:
            calls = 0 if follow else self._evaluator.asked - asked  # a supply has a bound of its own
            self._left -= share - budget.left + _CALL * calls
            self._left = max(0, self._left)

    def _find_context(self, kept: Sequence[int]) -> list[int] | None:
        """Return operations that explain those results that the kept ones do not; None if none do, or too many."""
        context: list[int] = []
        others = [number for number in range(self._count) if number not in kept]
        for number in kept:
            beside = [number, *(self._count + each for each in kept if each != number)]
            if self._explains(beside, context):
                continue
            source = next((each for each in others if self._explains(beside, [each])), None)
            if source is not None:
                context.append(source)
            elif len(others) > 2 * _CONTEXT or not self._explains(beside, others):
                return None
            else:
                context = others
        context = [each for each in context if not self._is_idle(kept, context, each)]
        return context if len(context) <= _CONTEXT else None

    def _is_idle(self, kept: Sequence[int], context: Sequence[int], source: int) -> bool:
        """Return whether results that are explained with a source are so without it."""
        rest = [each for each in context if each != source]
        cases = [[number, *(self._count + each for each in kept if each != number)] for number in kept]
        return all(self._explains(case, rest) for case in cases if self._explains(case, context))

    def _explains(self, numbers: Sequence[int], sources: Sequence[int]) -> bool:
        found = self._search([*numbers, *(self._count + each for each in sources)])
        return found is not None and found.complete

    def _tell(
        self,
        kept: Sequence[int],
        context: list[int],
        found: Found,
        key: Hashable,
        total: int,
        *,
        minimal: bool,
        others: str,
    ) -> Violation:
        evaluator = self._evaluator
        stuck = [number for number in found.candidates if number in kept]
        return Violation(
            operations=self._pick(sorted(kept)),
            context=self._pick(sorted(context)),
            others=others,
            minimal=minimal,
            key=key,
            total=total,
            linearized=self._pick(found.order),
            state=evaluator.get_state(found.state),
            next=self._pick(stuck),
            replies=tuple(evaluator.reply(found.state, each) for each in stuck) if evaluator.has_replies else (),
        )

    def _pick(self, numbers: Iterable[int]) -> tuple[Operation, ...]:
        return tuple(self._operations[number % self._count] for number in numbers)
