"""What is wrong with a history: the few operations that no order explains."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from stageflow_actors._validation import count

from ._timeline import draw, tell_value

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from ._history import Operation

_CANDIDATES: Final = 5
"""Operations of which it is printed what the model would have replied."""


@final
@attrs.frozen
class Violation:
    """Operations that cannot be linearized, as few as were found. `print` it: a timeline, and where it goes wrong.

    The others are not needed for it: these fit into no order even if each of the others counts as pending.
    """

    operations: tuple[Operation, ...]
    """Those that cannot be linearized, by invocation."""
    context: tuple[Operation, ...]
    """Others that say where a result comes from, by invocation; they count as pending. Empty where there are many."""
    others: str
    """What the other operations count as: `"pending"`; or, in a large history of which too little is known then,
    `"returned"`: they took effect when they did, whatever they returned."""
    minimal: bool
    """Whether none of the operations can be left out; False where it would have taken too many steps to know."""
    key: Hashable
    """The key of their partition; None where the model has no partition."""
    total: int
    """How many operations the history has, those of other partitions included."""
    linearized: tuple[Operation, ...]
    """An order that the model accepts, of as many of them as can be."""
    state: Any
    """The state of the model after that."""
    next: tuple[Operation, ...]
    """Those that would have to be next, of which the model accepts none."""
    replies: tuple[Any, ...]
    """What the model replies to each of these; empty for a model with `accepts`."""

    def __str__(self) -> str:
        return "\n".join(self._tell())

    def _tell(self) -> Iterator[str]:
        shown = sorted((*self.operations, *self.context), key=lambda each: each.invoked)
        numbers = {id(each): number for number, each in enumerate(shown, 1)}
        where = "" if self.key is None else f" of {self.key!r}"
        beside = self.total - len(self.operations)
        became = "became of" if self.others == "pending" else "was returned by"
        whatever = f", whatever {became} the other {beside:,}" if beside else ""
        these = "this operation" if len(self.operations) == 1 else f"these {len(self.operations):,} operations"
        yield f"not linearizable: no order explains {these}{where}{whatever}"
        yield from draw(shown)
        if self.context:
            explains, counts = ("explains", "counts") if len(self.context) == 1 else ("explain", "count")
            yield f"{_list(numbers, self.context)} {explains} a result, and {counts} as pending"
        beginning = f"at best {_list(numbers, self.linearized)}, then" if self.linearized else "at first"
        yield f"{beginning} the state is {tell_value(self.state)}{', and next' if self.next else ''}"
        for place, each in enumerate(self.next[:_CANDIDATES]):
            reply = f"the model replies {tell_value(self.replies[place])}" if self.replies else "the model refuses it"
            yield f"  {numbers[id(each)]} cannot be: {reply}"
        if len(self.next) > _CANDIDATES:
            yield f"  and {len(self.next) - _CANDIDATES} more cannot be"
        if not self.minimal:
            yield "perhaps fewer operations do; it would have taken more steps to know"


def _list(numbers: dict[int, int], operations: Iterable[Operation]) -> str:
    """Return the numbers of operations in their order: `2, 1, 4 others, 3 to 7`."""
    told = []
    known = [numbers.get(id(each), 0) for each in operations]
    groups = groupby(enumerate(known), lambda pair: (pair[1] == 0, pair[1] and pair[1] - pair[0]))
    for (is_other, _), group in groups:
        run = [number for _, number in group]
        if is_other:
            told.append(count(len(run), "other"))
        elif len(run) > 2:
            told.append(f"{run[0]} to {run[-1]}")
        else:
            told += map(str, run)
    return ", ".join(told)
