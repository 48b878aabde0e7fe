"""Writes down what each step of an execution touches."""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from .classes import Telling, get_attributes_told
from .events import Event, Trail
from .frames import is_at_end_of_nursery, iterate_roots, walk
from .heap import Heap
from .kinds import Kind, get_kind, get_kind_of
from .objects import Objects
from .shared import TRACKERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stageflow_actors.testing._cell import Cell

    from .events import Key, Name
    from .frames import Place
    from .shared import State

_CLOCK: Final = -1

_MOST_RESTARTS: Final = 3
"""How often a search begins again because classes were met; those that are met later are compared after each step."""

_OF_TRIO: Final = ("_sync", "_channel", "_core._parking_lot", "_core._unbounded_queue", "testing._sequencer")
"""Where trio's primitives are, and what they consist of."""


def _list_primitives() -> list[type]:
    modules = [sys.modules[name] for part in _OF_TRIO if (name := f"trio.{part}") in sys.modules]
    found = [kind for module in modules for kind in vars(module).values() if isinstance(kind, type)]
    return [trio.CancelScope, trio.Nursery, *(kind for kind in found if get_kind_of(kind) is Kind.TELLS)]


@final
@attrs.define(eq=False)
class _Life:
    """What is known of a task."""

    last: int = -1
    """Its last event."""
    enabled_by: int = -1
    """The event that let it go on."""
    steps: int = 0
    turn: Key = -1
    places: tuple[Place, ...] = ()
    waits_with: frozenset[int] = frozenset()
    """The objects that its last step touched."""


@final
class Tracker:
    """Tracks executions, one after another."""

    def __init__(self) -> None:
        self._telling = Telling(self._tell)
        for kind in _list_primitives():
            self._telling.add(kind)
        # By which a checkpoint knows that it is cancelled; it is not exported.
        self._telling.add(type(trio.lowlevel.current_task()._cancel_status))  # noqa: SLF001
        self._names: list[Name] = []
        self._heap = Heap(self._make_key, self._make_name, self._telling.__contains__)
        self._is_new = True
        """Whether there was no execution yet."""
        self._restarts = 0
        self._objects = Objects(self._make_name)
        self._event: Event | None = None
        self._clear()

    def begin(self, program: Any, nursery: trio.Nursery) -> None:
        """Begin an execution.

        Args:
            program: What is run.
            nursery: In which it is run.
        """
        self._event = None
        self._names.clear()
        self._clear()
        self._untold: dict[type, None] = {}
        self._touch_unseen: dict[str, dict[int, None]] = {}
        self._untracked: dict[str, None] = {}
        self._fresh = 0
        self._barrier = -1
        self._last_jump = -1
        self._ends: dict[int, int] = {}
        """By nursery, the events in which its children ended, as bits."""
        self._nursery_keys: dict[tuple[int, str], Key] = {}
        self._clock_key = self._make_key(("the clock",))
        if self._is_new:
            self._is_new = False
            self._explore(program)
        self._heap.begin()
        self._objects.begin(nursery)

    def _explore(self, program: Any) -> None:
        """Find what is there before the first execution."""
        objects, classes = self._heap.explore(program)
        self._objects.adopt(objects)
        for kind in classes:
            if get_kind_of(kind) is Kind.TELLS:
                self._telling.add(kind)

    def _clear(self) -> None:
        self._events: list[Event] = []
        self._cell: Cell | None = None
        self._lives: dict[int, _Life] = {}
        self._held: list[Any] = []
        """What the step has got hold of."""
        self._told: dict[int, Any] = {}
        """Objects that the step has read or written, by their identity."""
        self._wrote: dict[int, Any] = {}
        self._pending: Sequence[Any] | None = ()
        """What would be cancelled if the clock jumped; None where that is not known."""

    def let_go(self) -> None:
        """Hold nothing any more of the execution that was the last, and hear nothing of how it ends."""
        self._event = None
        self._clear()
        self._heap.let_go()
        self._objects.let_go()

    def turn(self, *, on: bool) -> None:
        """Have classes and what is declared as shared tell, or no longer."""
        self._telling.turn(on=on)
        if on and self not in TRACKERS:
            TRACKERS.append(self)
        elif not on and self in TRACKERS:
            TRACKERS.remove(self)

    def conclude(self, *, is_abandoned: bool) -> Trail:
        """End the execution."""
        self.finish()
        has_news = bool(self._untold) and self._restarts < _MOST_RESTARTS
        if has_news:
            self._restarts += 1
            for kind in self._untold:
                self._telling.add(kind)
        unseen = (name for name, processes in self._touch_unseen.items() if len(processes) > 1)
        is_renamed = self._objects.has_news or self._heap.has_news
        untracked = tuple(dict.fromkeys([*self._untracked, *unseen]))
        return Trail(self._events, untracked, has_news, is_renamed, is_abandoned)

    def _make_key(self, name: Name) -> Key:
        self._names.append(name)
        return len(self._names) - 1

    # Steps

    @property
    def is_open(self) -> bool:
        """Whether a step is being made."""
        return self._event is not None

    def start(self, cell: Cell, ask: int) -> None:
        """Begin a step of a task.

        Args:
            cell: Of the task.
            ask: The number of the choice by which it was chosen; -1 where there was no other option.
        """
        life = self._get_life(cell)
        before = 0
        for other in (life.last, life.enabled_by, self._barrier):
            if other >= 0:
                before |= 1 << other
        if life.places and self._ends and is_at_end_of_nursery(cell.inner):
            nurseries = cell.task.child_nurseries
            if nurseries:
                before |= self._ends.get(id(nurseries[-1]), 0)
        event = Event(cell.number, ask, before)
        self._open(event, cell)
        if cell.is_system:
            event.is_opaque = True
        life.last = len(self._events) - 1
        life.steps += 1

    def expect(self, scopes: Sequence[Any] | None) -> None:
        """Note what would be cancelled if the clock jumped before the step that was begun; None: it is not known."""
        self._pending = scopes

    def deliver(self, value: Any) -> None:
        """Note with what a task goes on."""
        inner = getattr(value, "value", None)
        if inner is not None:
            self.hold(inner)

    def spawn(self, cell: Cell) -> None:
        """Note that a task was started."""
        self._get_life(cell).places = walk(cell.inner, ())
        nursery = cell.task.parent_nursery
        if self._event is not None and nursery is not None:
            self._touch_nursery(nursery, "children", wrote=not self._is_inside(nursery))

    def enable(self, cell: Cell) -> None:
        """Note that a task can go on, because of the step that is being made."""
        life = self._get_life(cell)
        life.enabled_by = len(self._events) - 1
        if self._event is not None:
            self._touch_turn(life, cell)

    def _touch_turn(self, life: _Life, cell: Cell) -> None:
        """Note that the step makes a task go on, or is that task's: to be woken twice is an error."""
        if life.turn < 0:
            life.turn = self._make_key(("turn of", cell.number))
        assert self._event is not None
        self._event.touch(life.turn, wrote=True)

    def leave(self, cell: Cell) -> None:
        """Note that a task ends in the step that is being made."""
        nursery = cell.task.parent_nursery
        if nursery is not None and self._event is not None:
            self._touch_nursery(nursery, "children", wrote=False)
            self._ends[id(nursery)] = self._ends.get(id(nursery), 0) | 1 << len(self._events) - 1

    def give_up(self, what: str) -> None:
        """Note that a step depends on what cannot be followed."""
        self._untracked[what] = None

    def touch_part(self, state: State, part: tuple[Any, ...], *, wrote: bool) -> None:
        """Note that the step touches a part of what was declared as shared."""
        event = self._event
        if event is None:
            return
        met = self._objects.meet(state)
        try:
            key = met.keys.get(part)
        except TypeError:  # not hashable
            part = ("item",)
            key = met.keys.get(part)
        if key is None:
            key = met.keys[part] = self._make_key((met.name, *_name_part(part)))
        event.touch(key, wrote=wrote)

    def hold(self, value: Any) -> None:
        """Note that the step has got hold of an object."""
        if self._event is not None:
            self._held.append(value)

    def read_clock(self) -> None:
        """Note that the step that is being made asks for the time."""
        if self._event is not None and not (self._cell is not None and self._cell.is_waiting):
            self._event.touch(self._clock_key, wrote=False)

    def _touch_nursery(self, nursery: Any, what: str, *, wrote: bool) -> None:
        assert self._event is not None
        key = self._nursery_keys.get((id(nursery), what))
        if key is None:
            name = self._objects.meet(nursery).name
            key = self._nursery_keys[id(nursery), what] = self._make_key((name, what))
        self._event.touch(key, wrote=wrote)

    def start_jump(self, ask: int, *, is_barrier: bool) -> None:
        """Begin a jump of the clock.

        Args:
            ask: As in `start`.
            is_barrier: Whether it happens only when nothing else can.
        """
        before = (1 << len(self._events)) - 1 if is_barrier else 0
        if self._last_jump >= 0:
            before |= 1 << self._last_jump
        event = Event(_CLOCK, ask, before)
        self._open(event, None)
        self._last_jump = len(self._events) - 1
        event.touch(self._clock_key, wrote=True)
        if is_barrier:
            self._barrier = len(self._events) - 1

    def start_fault(self, number: int, ask: int) -> None:
        """Begin a fault that strikes the program, and no task of it."""
        self._open(Event(number, ask, 0, is_opaque=True), None)

    def _open(self, event: Event, cell: Cell | None) -> None:
        self.finish()
        self._events.append(event)
        self._event, self._cell = event, cell
        self._fresh = 0

    def finish(self) -> Event | None:
        """End the step; return it."""
        event, cell = self._event, self._cell
        if event is None:
            return None
        self._event = None  # what follows reads a lot, and that is not the program's doing
        context = None
        roots = self._held
        self._held = []
        if cell is not None:
            life = self._get_life(cell)
            places = () if cell.is_done else walk(cell.inner, life.places)
            roots += iterate_roots(life.places, places, self._heap)
            life.places = places
            context = cell.task.context
        fresh = self._scan(event, roots, context)
        event.meets_clock = self._meets_clock(event)
        self._pending = ()
        if event.meets_clock:
            event.touch(self._clock_key, wrote=False)
        event.footprint = self._make_footprint(event, fresh)
        if cell is not None:
            life.waits_with = frozenset(event.touched) - {self._clock_key}
        return event

    def _meets_clock(self, event: Event) -> bool:
        """Return whether a jump of the clock just before would have made a difference."""
        if self._pending is None:
            return True
        if not self._pending:
            return False
        if event.is_opaque or self._clock_key in event.touched:
            return True
        touched = event.touched.keys()
        open_ones = list(self._pending)
        while open_ones:
            thing = open_ones.pop()
            met = self._objects.find(thing)
            if met is not None and not touched.isdisjoint(met.keys.values()):
                return True
            if isinstance(thing, trio.CancelScope):
                open_ones.append(thing._cancel_status)  # noqa: SLF001 (no public way leads from a scope to its tasks)
            elif thing is not None:
                open_ones += thing._children  # noqa: SLF001
                for task in thing._tasks:  # noqa: SLF001
                    life = self._lives.get(id(task.coro))
                    if life is not None and not touched.isdisjoint(life.waits_with):
                        return True
        return False

    def _make_footprint(self, event: Event, fresh: set[Key]) -> dict[Name, bool]:
        footprint: dict[Name, bool] = {}
        names = self._names
        for key, wrote in event.touched.items():
            if key not in fresh:
                name = names[key]
                footprint[name] = wrote or footprint.get(name, False)
        return footprint

    def _scan(self, event: Event, roots: list[Any], context: Any) -> set[Key]:
        """Look at what the step could reach; return what it has made."""
        found = self._heap.scan(roots, context)
        for key, wrote in found.holders.items():
            event.touch(key, wrote=wrote)
        for name in found.unseen:
            event.is_opaque = True
            self._touch_unseen.setdefault(name, {})[event.process] = None
        self._untracked |= found.mourned
        for teller in found.tellers:
            self._told[id(teller)] = teller
        for number, thing in self._told.items():
            if get_attributes_told(type(thing)) is None and self._objects.has_changed(thing):
                event.is_opaque |= number not in self._wrote  # by a way around its class, and what of it is not known
        self._told.clear()
        self._wrote.clear()
        self._untold |= dict.fromkeys(found.untold)
        return found.fresh

    def _get_life(self, cell: Cell) -> _Life:
        life = self._lives.get(id(cell))
        if life is None:
            life = self._lives[id(cell)] = _Life()
        return life

    # What is told

    def _tell(self, thing: Any, attribute: str, value: Any, wrote: bool) -> None:  # noqa: FBT001 (called for each access)
        event, cell = self._event, self._cell
        if event is None or (cell is not None and cell.is_waiting):
            return
        if type(thing) is trio.Nursery:
            self._tell_of_nursery(thing, attribute, wrote=wrote)
            return
        met = self._objects.meet(thing)
        self._told[id(thing)] = thing
        if wrote:
            self._wrote[id(thing)] = thing
            self._tell_of_cancelling(event, thing, attribute, value)
        if attribute == "__dict__" or (wrote and attribute == "__class__"):
            event.is_opaque = True  # it is another object, or what is done with it is not told
        key = met.keys.get(attribute)
        if key is None:
            key = met.keys[attribute] = self._make_key((met.name, attribute))
        event.touch(key, wrote=wrote)
        if value is not None and get_kind(value) is not Kind.ATOM:
            self._held.append(value)

    def _tell_of_nursery(self, nursery: trio.Nursery, attribute: str, *, wrote: bool) -> None:
        """Note what a step has to do with the children of a nursery.

        That one starts and that one ends can be told apart only by who asks for them, and by who comes from outside:
        the nursery may have been closed by then.
        """
        if attribute == "_pending_excs":
            self._touch_nursery(nursery, "errors", wrote=True)
        elif attribute == "_closed":
            self._touch_nursery(nursery, "children", wrote=not (wrote or self._is_inside(nursery)))
        else:
            self._touch_nursery(nursery, "children", wrote=attribute == "child_tasks")

    def _is_inside(self, nursery: trio.Nursery) -> bool:
        """Return whether the step is that of a nursery's own task or of one of its children: then it is open."""
        task = None if self._cell is None else self._cell.task
        return task is not None and (nursery.parent_task is task or task.parent_nursery is nursery)

    def _tell_of_cancelling(self, event: Event, thing: Any, attribute: str, value: Any) -> None:
        """Note what a cancel scope has to do with the clock and with tasks that wait."""
        if attribute == "_registered_deadline" and type(thing) is trio.CancelScope:
            if value < inf:
                event.touch(self._clock_key, wrote=False)
        elif attribute == "effectively_cancelled":
            for task in getattr(thing, "_tasks", ()):
                if (life := self._lives.get(id(task.coro))) is not None:
                    self._touch_turn(life, task.coro)  # who wakes it comes before, or too late

    def _make_name(self) -> Name:
        """Name what is met first in the step that is being made, as it is met in every execution with this step."""
        self._fresh += 1
        cell = self._cell
        return (
            "made",
            -1 if cell is None else cell.number,
            0 if cell is None else self._get_life(cell).steps,
            self._fresh,
        )


def _name_part(part: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what stands for a part in other executions: its key, where that is the same object or value there."""
    return tuple(one if type(one) in (str, int, bool, bytes, type(None)) else type(one) for one in part)
