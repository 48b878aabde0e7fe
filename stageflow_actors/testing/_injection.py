"""Faults at work in one execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import attrs
import outcome
import trio

from ._cell import Cell
from ._faults import ANY, Cancel, ClockJump, Crash, Delay, MessageFault, make_error
from ._frames import is_of, is_own, split
from ._message_faults import Post

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._choosers import Option
    from ._control import Controller
    from ._faults import Fault

_POINTS: Final = {"checkpoint", "sleep", "sleep_until", "sleep_forever", "to_thread_run_sync"}
_POINT_MODULES: Final = (
    "trio._socket",
    "trio._highlevel_",
    "trio._ssl",
    "trio._file_io",
    "trio._path",
    "trio._subprocess",
    "trio._unix_pipes",
)


def is_point(cell: Cell) -> bool:
    """Return whether what a task awaits could fail: sleeps and checkpoints, which stand for real work, threads, I/O.

    A lock, a channel or an event raises nothing of itself; a fault there would make states that cannot be.
    """
    frame, called = split(cell.inner)
    if frame is None or is_own(frame):
        return False
    first = next((other for other in called if is_of(other, "trio")), None)
    if first is None:
        return False
    module = first.f_globals["__name__"]
    return first.f_code.co_qualname in _POINTS or module.startswith(_POINT_MODULES)


@final
@attrs.frozen
class Raise:
    """The task goes on with an error. A cancellation that is on its way comes at its next checkpoint."""

    error: Exception

    def begin(self, _value: Any) -> tuple[Any, Any]:
        """Return the error."""
        return None, outcome.Error(self.error)


@final
@attrs.frozen
class Sleep:
    """The task goes on later."""

    seconds: float

    def begin(self, value: Any) -> tuple[Any, Any]:
        """Return the sleep."""
        return self._sleep(), value

    async def _sleep(self) -> None:
        # Shielded, for a sleep ends by the cancellation of a scope of its own.
        with trio.CancelScope(shield=True):
            await trio.sleep(self.seconds)


@final
@attrs.frozen
class Strike:
    """The option that a fault strikes here."""

    number: int
    index: int
    """Of the fault in the plan."""
    fault: Fault
    cell: Cell | None = None

    @property
    def name(self) -> str:
        """What strikes whom."""
        return f"{self.fault!r}" if self.cell is None else f"{self.fault!r} in {self.cell.name}"


AGAIN: Final = object()
"""A fault has struck, and it is still to be chosen who goes on."""


@final
class Injection:
    """A fault plan in one execution: each of its faults strikes once at most."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._open = {index: fault for index, fault in enumerate(faults) if not isinstance(fault, MessageFault)}
        """The faults of tasks and of the program that have not struck, by their index."""
        self.post = Post(faults) if len(self._open) < len(faults) else None
        """The faults of messages."""
        self._counts = [0] * len(faults)
        self._at_point: set[int] = set()
        """The numbers of the tasks that wait where something could fail."""

    def come(self, cell: Cell) -> None:
        """Note that a task has come to where it waits."""
        self._at_point.discard(cell.number)
        if cell.is_system or not is_point(cell):
            return
        self._at_point.add(cell.number)
        for index, fault in list(self._open.items()):
            if isinstance(fault, (Crash, Delay)) and fault.at is not None and _matches(fault.on, cell):
                self._counts[index] += 1
                if self._counts[index] == fault.at:
                    self._strike_task(index, fault, cell)

    def get_options(self, options: Sequence[Option]) -> list[Option]:
        """Return the faults that may strike now, or not at all."""
        return list(self._iterate_options(options))

    def _iterate_options(self, options: Sequence[Option]) -> Iterator[Strike]:
        for index, fault in self._open.items():
            number = -2 - 1000 * index
            if fault.at is not None:  # type: ignore[attr-defined]  # each fault has it
                continue
            if isinstance(fault, (Cancel, ClockJump)):
                yield Strike(number, index, fault)
            elif isinstance(fault, (Crash, Delay)):
                for cell in options:
                    if isinstance(cell, Cell) and cell.number in self._at_point and _matches(fault.on, cell):
                        yield Strike(number - cell.number, index, fault, cell)

    def strike_due(self, step: int, controller: Controller) -> object:
        """Let the faults strike whose step of the execution this is; return None where the clock has jumped."""
        for index, fault in list(self._open.items()):
            if isinstance(fault, (Cancel, ClockJump)) and fault.at == step:
                if controller.recorder is not None:
                    controller.recorder.note(repr(fault))
                if self.strike(Strike(0, index, fault), controller) is None:
                    return None
        return AGAIN

    def strike(self, option: Strike, controller: Controller) -> object:
        """Let a fault strike; return the task that goes on, `AGAIN`, or None where the clock has jumped."""
        fault = option.fault
        if option.cell is not None:
            self._strike_task(option.index, fault, option.cell)
            return option.cell
        del self._open[option.index]
        if isinstance(fault, ClockJump):
            controller.jump_by(fault.seconds)
            return None
        controller.cancel()
        return AGAIN

    def _strike_task(self, index: int, fault: Fault, cell: Cell) -> None:
        del self._open[index]
        self._at_point.discard(cell.number)
        if isinstance(fault, Crash):
            cell.detour = Raise(make_error(attrs.evolve(fault, on=cell.name)))
        elif isinstance(fault, Delay):
            cell.detour = Sleep(fault.seconds)


def _matches(on: str, cell: Cell) -> bool:
    if on == ANY:
        return cell.number != 1  # the program itself is what judges
    return on in (cell.name, cell.name.partition("#")[0])
