"""What came of one execution: values that the search, the report and the controller share."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

if TYPE_CHECKING:
    from ._diagnosis import Waiting
    from ._reduction.events import Trail


@final
@attrs.frozen
class Raw:
    """A failure as the controller sees it."""

    kind: str
    error: BaseException | None = None
    waiting: tuple[Waiting, ...] = ()
    step: int = 0


@final
@attrs.frozen
class Execution:
    """What came of one execution."""

    choices: list[int]
    widths: list[int]
    """How many options there were, by choice."""
    free: list[int]
    """How many of the first options cost nothing; each of the others is a preemption, a jump or a fault."""
    steps: int
    failure: Raw | None
    value: object = None
    """What the program returned."""
    uncontrolled: frozenset[str] = frozenset()
    impossible: str | None = None
    """The first given choice that there was no option for."""
    hurried: bool = False
    """Whether somebody had waited for so long that nobody else could be chosen: some schedules are out of reach."""
    trail: Trail | None = None
    """What its steps touched, where that was tracked."""

    @property
    def cost(self) -> int:
        """How many choices were no default where that costs something."""
        return sum(choice >= free for choice, free in zip(self.choices, self.free, strict=True))
