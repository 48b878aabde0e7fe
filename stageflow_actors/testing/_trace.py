"""What happened in an execution, step by step, as a person reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from ._cell import Cell
from ._frames import locate
from ._injection import Strike

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._choosers import Option
    from ._control import Controller


_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
"""Of an object; the same failure is to be told in the same words in any process."""


@final
@attrs.frozen
class Step:
    """What one task did between two awaits, or a jump of the clock, or a fault."""

    number: int
    task: str
    """The task; `the clock` for a jump."""
    did: str
    """`starts`, or what it came back from: `after Lock.acquire`."""
    then: str
    """What it awaits now, `ends`, or the error that it ends with."""
    where: str
    """`file:line in function` of where it stands now; empty where it has ended."""
    preempts: str = ""
    """The task that could have gone on instead; empty where this is no preemption."""
    choice: int | None = None
    """The index of the option that was chosen before it; None where there was no choice."""

    def __str__(self) -> str:
        return self.tell(len(self.task))

    def tell(self, width: int) -> str:
        """Return the step in one line, with a column of this width for the task."""
        instead = f"{self.preempts} could go on; " if self.preempts else ""
        then = f", {self.then}" if self.then else ""
        where = f"  [{self.where}]" if self.where else ""
        return f"{'>' if self.preempts else ' '}{self.number:4}  {self.task:<{width}}  {instead}{self.did}{then}{where}"


@final
class Recorder:
    """Makes the trace of one execution. It costs more than the execution: failures are replayed with it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._was: dict[int, str] = {}
        """What each task awaited, by its number."""
        self._controller: Controller | None = None
        self._pending: tuple[str, str, int | None] = ("", "", None)
        self.preemptions = self.jumps = self.faults = 0
        """How many choices of each kind cost something."""

    def begin(self, controller: Controller) -> None:
        """Forget everything."""
        self.steps.clear()
        self._was.clear()
        self._controller = controller
        self.preemptions = self.jumps = self.faults = 0

    def choose(self, options: Sequence[Option], index: int, free: int) -> None:
        """Note what was chosen; the step that follows tells it."""
        first, chosen = options[0], options[index]
        costs = index >= free
        if isinstance(chosen, Strike):
            self.faults += costs
            self._pending = ("", repr(chosen.fault), index)
            if chosen.cell is None:
                self.note(chosen.name)
            return
        if isinstance(chosen, Cell):
            self.preemptions += costs
        else:
            self.jumps += costs
        self._pending = (first.name if costs and isinstance(first, Cell) else "", "", index)

    def note(self, fault: str) -> None:
        """Note a fault that strikes the program, and no task of it."""
        self._add(fault, "strikes", "", "")

    def befall(self, task: str, what: str, fault: str = "", choice: int | None = None) -> None:
        """Note what becomes of a message, in the middle of a step that is told below.

        Args:
            task: Who sends or handles it.
            what: What becomes of it.
            fault: What struck it.
            choice: The index of the option that the fault was; None where it was no choice.
        """
        self.faults += choice is not None
        pending, self._pending = self._pending, ("", "", choice)
        self._add(task, _ADDRESS.sub("", what), fault, "")
        self._pending = pending

    def jump(self, before: float, after: float) -> None:
        """Note a jump of the clock."""
        self._add("the clock", f"jumps from {before:g} s to {after:g} s", "", "")

    def stop(self, cell: Cell) -> None:
        """Note what a task awaits now."""
        place = locate(cell.inner)
        if place is None:
            self._tell(cell, "awaits something", "")
        else:
            self._tell(cell, f"awaits {place.awaits}", str(place))

    def leave(self, cell: Cell, error: BaseException) -> None:
        """Note that a task has ended."""
        controller = self._controller
        assert controller is not None
        if cell.number == 1 and controller.error is not None:
            error = controller.error
        ended = isinstance(error, StopIteration)
        self._tell(cell, "ends" if ended else f"ends with {tell_error(error)}", "")

    def _tell(self, cell: Cell, then: str, where: str) -> None:
        was = self._was.get(cell.number)
        self._was[cell.number] = then.removeprefix("awaits ")
        did = "starts" if was is None else f"after {was}"
        struck = self._pending[1]
        if struck:
            did = f"{did}, struck by {struck}"
        self._add(cell.name, did, then, where)

    def _add(self, task: str, did: str, then: str, where: str) -> None:
        preempted, _, choice = self._pending
        self._pending = ("", "", None)
        self.steps.append(Step(len(self.steps) + 1, task, did, then, where, preempted, choice))


def tell_error(error: BaseException) -> str:
    """Return an error in one line: of a group, what is in it."""
    if isinstance(error, trio.TrioInternalError) and error.__cause__ is not None:
        return f"TrioInternalError from {tell_error(error.__cause__)}"
    leaves = list(iterate_leaves(error))
    more = f" and {len(leaves) - 1} more" if len(leaves) > 1 else ""
    return describe(leaves[0]) + more


def unwrap_lone(error: BaseException) -> BaseException:
    """Return the only exception that is in a group: what a nursery makes of a child's error."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def iterate_leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that a group holds, or the one that is none."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from iterate_leaves(part)
    else:
        yield error


def describe(error: BaseException) -> str:
    """Return `Type: message`, of the first line of the message."""
    kind = type(error).__qualname__
    if isinstance(error, trio.Cancelled):
        return kind  # its text names who cancelled, by an address
    text = _ADDRESS.sub("", str(error).partition("\n")[0])
    return f"{kind}: {text}" if text else kind
