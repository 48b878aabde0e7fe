"""Which frames of a suspended task have run in a step, and what they could have touched."""

from __future__ import annotations

import gc
import types
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from stageflow_actors.testing._frames import is_of

from .code import END, START, map_code
from .kinds import SUSPENDED, Kind, get_kind
from .modules import is_pure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .heap import Heap

_IN_LOOP: Final = "Nursery._nested_child_finished"


@final
@attrs.frozen
class Place:
    """A frame of a suspended task."""

    owner: Any
    """Its coroutine, generator or asynchronous generator."""
    code: types.CodeType
    at: int
    """The offset of the instruction at which it is."""
    awaited: Any
    values: Sequence[Any]
    """What its locals and its stack hold, without cells."""
    cells: dict[str, Any] | None
    """Its cells, by name; None where that cannot be said."""
    others: Sequence[Any]
    """Its cells, where their names are not known."""
    table: dict[str, Any]
    """Its globals."""


def _get_frame(owner: Any) -> tuple[Any, Any]:
    """Return a coroutine's frame and what it awaits."""
    frame, awaited = SUSPENDED[type(owner)]
    return getattr(owner, frame), getattr(owner, awaited)


def _has_begun(owner: Any) -> bool:
    return type(owner) is not types.CoroutineType or owner.cr_suspended


def _find_owner(awaited: Any) -> Any:
    """Return the coroutine or generator behind what is awaited: itself, or what its wrapper holds."""
    while awaited is not None and type(awaited) not in SUSPENDED:
        inner = getattr(awaited, "cr_frame", None)
        if inner is not None:
            return None  # a coroutine that is not Python's own
        awaited = next((one for one in gc.get_referents(awaited) if type(one) in SUSPENDED), None)
    return awaited


def walk(coroutine: Any, before: Sequence[Place]) -> tuple[Place, ...]:
    """Return the frames of a suspended coroutine, from the outermost, up to where trio's begin.

    Args:
        coroutine: The task's.
        before: What this returned last for the task: what has not run is taken from there.
    """
    places: list[Place] = []
    owner = coroutine
    while owner is not None:
        frame, awaited = _get_frame(owner)
        if frame is None or is_of(frame, "trio"):
            break
        at = frame.f_lasti if _has_begun(owner) else START
        number = len(places)
        old = before[number] if number < len(before) else None
        if old is not None and old.owner is owner and old.at == at and old.awaited is awaited is not None:
            places.append(old)
        else:
            places.append(_look(owner, frame, at, awaited))
        owner = _find_owner(awaited)
    return tuple(places)


def is_at_end_of_nursery(coroutine: Any) -> bool:
    """Return whether a suspended coroutine waits for the end of a nursery, or lets others go first there."""
    owner = coroutine
    while owner is not None:
        frame, awaited = _get_frame(owner)
        if frame is not None and frame.f_code.co_qualname == _IN_LOOP and is_of(frame, "trio"):
            return True
        owner = _find_owner(awaited)
    return False


def _look(owner: Any, frame: types.FrameType, at: int, awaited: Any) -> Place:
    code = frame.f_code
    values: list[Any] = []
    cells: list[Any] = []
    function: Any = None
    for one in gc.get_referents(owner):
        kind = type(one)
        if kind is types.CellType:
            cells.append(one)
        elif kind is types.FunctionType and one.__code__ is code:
            function = one
        elif one is not awaited and get_kind(one) is not Kind.ATOM:
            values.append(one)
    named = _name_cells(code, cells, function)
    return Place(owner, code, at, awaited, values, named, () if named is not None else cells, frame.f_globals)


def _name_cells(code: types.CodeType, cells: list[Any], function: Any) -> dict[str, Any] | None:
    arguments = [name for name in code.co_varnames if name in code.co_cellvars]
    made = [name for name in code.co_cellvars if name not in arguments]
    names = [*arguments, *made, *code.co_freevars]
    if len(names) == len(cells):
        return dict(zip(names, cells, strict=True))
    if function is not None and not code.co_cellvars:
        return dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    return None


def iterate_roots(before: Sequence[Place], after: Sequence[Place], heap: Heap) -> Iterator[Any]:
    """Yield what the frames of a task that have run in a step could have touched.

    Args:
        before: Its frames before the step.
        after: Those after it; empty where it has ended.
        heap: Knows the globals.
    """
    shared = 0
    while shared < min(len(before), len(after)) and before[shared] is after[shared]:
        shared += 1
    resumed = shared < min(len(before), len(after)) and before[shared].owner is after[shared].owner
    for number in range(shared, len(before)):
        place = before[number]
        follows = number == shared and resumed
        yield from place.values
        yield from _iterate_named(place, place.at, after[number].at if follows else END, heap)
    for number in range(shared, len(after)):
        place = after[number]
        yield from place.values
        if not (number == shared and resumed):
            yield from _iterate_named(place, START, place.at, heap)


def _iterate_named(place: Place, start: int, end: int, heap: Heap) -> Iterator[Any]:
    mapped = map_code(place.code)
    names = mapped.between(start, end) if type(place.owner) is types.CoroutineType else mapped.whole
    if place.cells is None:
        yield from place.others
    else:
        for name in names.cells:
            if name in place.cells:
                yield place.cells[name]
    if not is_pure(place.table.get("__name__")):
        yield from heap.iterate_globals(names, place.table, place.code.co_name)
