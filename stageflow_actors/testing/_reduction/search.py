"""Dynamic partial order reduction: of schedules that differ in the order of independent steps, one is run. Pure.

The algorithm is source-DPOR with sleep sets: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order
reduction", POPL 2014, algorithm 1. After each execution, every pair of steps whose order was nothing but chance is
found; where none of the schedules that are run, or will be, begins with the other order, one is added.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, final

import attrs

from stageflow_actors.testing._choosers import ABANDON

from .events import Order, conflicts, find_initials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stageflow_actors.testing._choosers import Option
    from stageflow_actors.testing._execution import Execution

    from .events import Event, Footprint

CLOCK: Final = -1
"""The number of the clock."""

_MOST_RENAMED: Final = 8
"""How often that may be, before nobody sleeps any more: without names, it is not known what wakes them."""


@final
class Walk:
    """Chooses in one execution: given choices, then the first option that does not sleep.

    A process sleeps whose next step was run first before, from a state since which only steps were made that do not
    depend on it: whatever follows was seen already.

    Args:
        given: The first choices.
        asleep: Who sleeps after them, with what their next step does.
        is_lockstep: Whether another task makes the next step wherever one can, as with trio's own scheduler.
    """

    def __init__(
        self, given: Sequence[int] = (), asleep: Mapping[int, Footprint] | None = None, *, is_lockstep: bool = False
    ) -> None:
        self._given = given
        self._is_lockstep = is_lockstep
        self._asleep: dict[int, Footprint] = {}
        self._later = dict(asleep or {})
        """Who sleeps before the last of the given choices; from there on it is looked at what wakes them."""
        self.sleeps: list[dict[int, Footprint]] = []
        """Who slept at each choice."""
        self.options: list[tuple[int, ...]] = []
        """Who could be chosen, at each choice."""
        self.impossible: str | None = None
        self._last = 0

    def choose(self, options: Sequence[Option]) -> int:
        """Return the index of one of the options, or `ABANDON`."""
        at = len(self.options)
        numbers = tuple(option.number for option in options)
        self.options.append(numbers)
        if at < len(self._given):
            if at == len(self._given) - 1:
                self._asleep = self._later
            self.sleeps.append(dict(self._asleep))
            if self._given[at] < len(options):
                return self._given[at]
            self.impossible = f"choice {at + 1} is option {self._given[at]}, and there are only {len(options)}"
            return 0
        self.sleeps.append(dict(self._asleep))
        awake = [index for index, number in enumerate(numbers) if number not in self._asleep]
        if not awake:
            return ABANDON
        if self._is_lockstep:
            for index in awake:
                if numbers[index] >= 0 and numbers[index] != self._last:
                    return index
        return awake[0]

    def is_asleep(self, number: int) -> bool:
        """Return whether all that begins with a process was run before."""
        return number in self._asleep

    def hear(self, event: Event) -> None:
        """Wake who depends on a step that was made."""
        self._last = event.process
        if self._asleep:
            self._asleep = {
                number: footprint
                for number, footprint in self._asleep.items()
                if number != event.process
                and not event.is_opaque
                and not (number == CLOCK and event.meets_clock)
                and not conflicts(footprint, event.footprint)
            }


@final
@attrs.define(eq=False)
class _Node:
    """A choice, after the same choices before it."""

    options: tuple[int, ...]
    sleeping: dict[int, Footprint]
    """Who sleeps."""
    above: tuple[_Node, int] | None
    """The choice before, and the number of the option by which this one was come to."""
    depth: int
    """How many choices there are before."""
    to_run: dict[int, None] = attrs.field(factory=dict)
    """Who has to be chosen here, in this order."""
    done: dict[int, Footprint | None] = attrs.field(factory=dict)
    """Who was chosen, with what their step did; None where that is not known."""

    def list_path(self) -> list[_Node]:
        """Return the choices up to here, the first one first."""
        path = [self]
        while path[-1].above is not None:
            path.append(path[-1].above[0])
        return path[::-1]


@final
class Dpor:
    """Runs a schedule for each way in which dependent steps can be ordered, and says when there are no more.

    The first execution is in lockstep, for that shows more races than one task after another. Of what is to be run,
    the latest choice is changed first.
    """

    def __init__(self) -> None:
        self._begin()
        self.diverged = 0
        """How many executions did not begin as the one that they were to share the beginning with."""
        self.taken = 0
        """How many executions were begun."""
        self.pruned = 0
        """How many of them ended early, because all that was left had been run."""
        self.untracked: dict[str, None] = {}
        """State that several tasks touch and that cannot be followed."""
        self._is_over = False
        self._has_gap = False
        self._is_check = False
        """Whether the execution only has to be like the one before."""
        self._default: tuple[tuple[int, ...], ...] | None = None
        """Who could be chosen where nothing was given."""
        self._before = 0
        """How many executions there were before the search began for the last time."""
        self.weight = 0
        """How much the steps of all executions touched: that is what they cost."""
        self._renamed = 0
        """How often something turned out to have another name than before."""

    def _begin(self) -> None:
        self._walk: Walk | None = None
        self._path: list[_Node] = []
        """The choices of the last execution."""
        self._chosen = 0
        """The option that the last of those choices that were given was."""
        self._given = 0
        """How many of them were given."""
        self._nodes: list[_Node] = []
        self._pushed = 0
        self._open: list[tuple[int, int, _Node, int]] = []
        """What is to be run, as a heap: the node and the option, the latest choice first."""

    @property
    def is_complete(self) -> bool:
        """Whether every distinguishable schedule was run."""
        return self._is_over and not (self.diverged or self._has_gap or self.untracked)

    @property
    def is_open(self) -> bool:
        """Whether it is worth going on."""
        return not (self._is_over or self.diverged or self._has_gap or self.untracked)

    @property
    def executions(self) -> int:
        """How many executions there are since the search began for the last time."""
        return self.taken - self._before

    @property
    def has_choices(self) -> bool:
        """Whether there is more than one schedule."""
        return bool(self._nodes)

    def next(self) -> Walk | None:
        """Return the walk of the next execution; None where there is none."""
        if not self.is_open:
            return None
        if self._walk is None:
            self._walk = Walk(is_lockstep=True)
        else:
            self._walk = self._take()
            if self._walk is None and self.taken == 1 and self.has_choices:
                self._walk = Walk(is_lockstep=True)  # once more, for the program may not do the same again
                self._is_check = True
                self._path, self._given = [], 0
        if self._walk is None:
            self._is_over = True
        else:
            self.taken += 1
        return self._walk

    def _take(self) -> Walk | None:
        while self._open:
            _, _, node, number = heappop(self._open)
            if number in node.done or number in node.sleeping:
                continue
            self._path = node.list_path()
            self._given = len(self._path)
            self._chosen = number
            numbers = [one.above[1] for one in self._path if one.above is not None]
            given = [one.options.index(other) for one, other in zip(self._path, [*numbers, number], strict=True)]
            return Walk(given, self._list_sleepers(node))
        return None

    def _list_sleepers(self, node: _Node) -> dict[int, Footprint]:
        """Return whose next steps were seen at a choice; nobody where names are not to be relied on."""
        if self._renamed == _MOST_RENAMED:
            return {}
        done = {number: footprint for number, footprint in node.done.items() if footprint is not None}
        return node.sleeping | done

    def give_up(self, what: str) -> None:
        """Note what it is that the steps of the program depend on and that cannot be followed."""
        self.untracked[what] = None

    def learn(self, execution: Execution) -> None:
        """Find the races of an execution, and what has to be run because of them."""
        walk, trail = self._walk, execution.trail
        assert walk is not None
        if trail is None or execution.uncontrolled or execution.hurried:
            self._has_gap = True
            return
        self.untracked |= dict.fromkeys(trail.untracked)
        self.weight += sum(len(event.touched) for event in trail.events)
        expected = tuple(node.options for node in self._path[: self._given])
        if walk.impossible is not None or tuple(walk.options[: self._given]) != expected:
            self.diverged += 1
            return
        self._compare(walk)
        if self._is_check:
            self._is_over = True
            self._before = 1
        elif trail.has_news:
            self._begin()
            self._before, self.pruned = self.taken, 0
        elif trail.is_renamed and self._renamed < _MOST_RENAMED:
            self._renamed += 1
            self._forget()
        else:
            self.pruned += trail.is_abandoned
            self._grow(execution, walk, trail.events)

    def _compare(self, walk: Walk) -> None:
        """Notice a program that does not do the same under the default schedule."""
        if not self._given:
            options = tuple(walk.options)
            self.diverged += self._default is not None and self._default != options
            self._default = options

    def _forget(self) -> None:
        """Let nobody sleep any more because of what was run until now, and run once more what was run last."""
        for node in self._nodes:
            node.done = dict.fromkeys(node.done)
            node.sleeping = {}
        if self._given:
            self._push(self._path[self._given - 1], self._chosen)
        else:
            self._walk = None

    def _grow(self, execution: Execution, walk: Walk, events: Sequence[Event]) -> None:
        """Add the choices of an execution, what each of them led to, and what has to be chosen in their place."""
        by_ask = {event.ask: event for event in events if event.ask >= 0}
        chosen = self._chosen
        for at in range(max(self._given - 1, 0), len(execution.choices)):
            if at >= self._given:
                self._add_node(execution, walk, at, chosen)
                chosen = walk.options[at][execution.choices[at]]
            event = by_ask.get(at)
            if event is None:
                self._has_gap = True
                return
            # A step that may have done anything depends on all others: it never sleeps.
            self._path[at].done[chosen] = None if event.is_opaque else event.footprint
        self._reverse_races(events)

    def _add_node(self, execution: Execution, walk: Walk, at: int, chosen: int) -> None:
        above = self._path[at - 1] if at else None
        options = walk.options[at]
        node = _Node(options, walk.sleeps[at], None if above is None else (above, chosen), at)
        node.to_run[options[execution.choices[at]]] = None
        self._path.append(node)
        self._nodes.append(node)
        for number in options:
            if number < CLOCK:
                self._ask_for(node, number)  # a fault: with each of them, and without

    def _ask_for(self, node: _Node, number: int) -> None:
        """See to it that an option is chosen at some time."""
        if number not in node.to_run:
            node.to_run[number] = None
            self._push(node, number)

    def _push(self, node: _Node, number: int) -> None:
        self._pushed += 1
        heappush(self._open, (-node.depth, self._pushed, node, number))

    def _reverse_races(self, events: Sequence[Event]) -> None:
        order = Order()
        for number, event in enumerate(events):
            races = order.add(event)
            node = self._path[event.ask] if event.ask >= 0 else None
            if node is not None and event.meets_clock and CLOCK in node.options:
                self._ask_for(node, CLOCK)
            for first in races:
                self._reverse(events, order.past, first, number)

    def _reverse(self, events: Sequence[Event], past: Sequence[int], first: int, second: int) -> None:
        """See to it that the second of a race is run before the first, too."""
        ask = events[first].ask
        initials = find_initials(events, past, first, second)
        if initials == [CLOCK] and (ask < 0 or CLOCK not in self._path[ask].options):
            return  # there was no deadline yet
        if ask < 0:
            self._has_gap = True  # there was somebody else, who was not offered
            return
        node = self._path[ask]
        if any(number in node.to_run for number in initials):
            return
        offered = [number for number in initials if number in node.options]
        for number in offered[:1] or node.options:
            self._ask_for(node, number)
