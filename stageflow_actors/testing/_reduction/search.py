"""Dynamic partial order reduction: of schedules that differ in the order of independent steps, one is run. Pure.

The algorithm is source-DPOR with sleep sets: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order
reduction", POPL 2014, algorithm 1. After each execution, every pair of steps whose order was nothing but chance is
found; where none of the schedules that are run, or will be, begins with the other order, one is added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import attrs

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

ABANDON: Final = -1
"""What a walk chooses where all that could be chosen leads to what was run before."""


@final
class Walk:
    """Chooses in one execution: given choices, then the first option that does not sleep.

    A process sleeps whose next step was run first before, from a state since which only steps were made that do not
    depend on it: whatever follows was seen already.

    Args:
        given: The first choices.
        asleep: Who sleeps after them, with what their next step does.
    """

    is_tracked: Final = True

    def __init__(self, given: Sequence[int] = (), asleep: Mapping[int, Footprint] | None = None) -> None:
        self._given = given
        self._asleep: dict[int, Footprint] = {}
        self._later = dict(asleep or {})
        """Who sleeps before the last of the given choices; from there on it is looked at what wakes them."""
        self.sleeps: list[dict[int, Footprint]] = []
        """Who slept at each choice."""
        self.options: list[tuple[int, ...]] = []
        """Who could be chosen, at each choice."""
        self.impossible: str | None = None

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
        for index, number in enumerate(numbers):
            if number not in self._asleep:
                return index
        return ABANDON

    def is_asleep(self, number: int) -> bool:
        """Return whether all that begins with a process was run before."""
        return number in self._asleep and len(self.options) >= len(self._given)

    def hear(self, event: Event) -> None:
        """Wake who depends on a step that was made."""
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
    """A choice of the execution that was run last."""

    options: tuple[int, ...]
    chosen: int
    """The number of the option."""
    sleeping: dict[int, Footprint]
    """Who slept when the choice was made first."""
    to_run: dict[int, None]
    """Who has to be chosen here, in this order."""
    done: dict[int, Footprint | None] = attrs.field(factory=dict)
    """Who was chosen, with what their step did; None where that has been forgotten."""

    def take(self) -> int | None:
        """Return who is to be chosen next."""
        for number in self.to_run:
            if number not in self.done and number not in self.sleeping:
                return number
        return None


@final
class Dpor:
    """Runs a schedule for each way in which dependent steps can be ordered, and says when there are no more."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._choices: Sequence[int] = ()
        self._walk: Walk | None = None
        self._divergence = 0
        """How many choices of the next execution are given."""
        self._expected: tuple[tuple[int, ...], ...] = ()
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
        self._renamed = 0
        """How often something turned out to have another name than before."""

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

    def next(self) -> Walk | None:
        """Return the walk of the next execution; None where there is none."""
        if not self.is_open:
            return None
        if self._walk is None:
            self._walk = Walk()
        else:
            self._walk = self._backtrack()
            if self._walk is None and self.taken == 1:
                self._walk = Walk()  # once more, for the program may not do the same again
                self._is_over = False
                self._is_check = True
        if self._walk is not None:
            self.taken += 1
        return self._walk

    def _backtrack(self) -> Walk | None:
        nodes = self._nodes
        while nodes:
            node = nodes[-1]
            number = node.take()
            if number is not None:
                at = len(nodes) - 1
                given = (*self._choices[:at], node.options.index(number))
                self._divergence = len(given)
                self._expected = tuple(other.options for other in nodes)
                node.chosen = number
                return Walk(given, self._list_sleepers(node))
            nodes.pop()
        self._is_over = True
        return None

    def give_up(self, what: str) -> None:
        """Note what it is that the steps of the program depend on and that cannot be followed."""
        self.untracked[what] = None

    def _list_sleepers(self, node: _Node) -> dict[int, Footprint]:
        """Return whose next steps were seen at a choice; nobody where names are not to be relied on."""
        if self._renamed == _MOST_RENAMED:
            return {}
        done = {number: footprint for number, footprint in node.done.items() if footprint is not None}
        return node.sleeping | done

    def _restart(self) -> None:
        """Begin again, for steps can be told more exactly now than those before."""
        self._nodes.clear()
        self._walk = None
        self._divergence = 0
        self._expected = ()
        self._is_over = False
        self._before = self.taken

    def _compare(self, walk: Walk) -> None:
        """Notice a program that does not do the same under the default schedule."""
        if not self._divergence:
            options = tuple(walk.options)
            self.diverged += self._default is not None and self._default != options
            self._default = options

    def _forget(self) -> None:
        """Let nobody sleep any more because of what was run until now, and run once more what was run last."""
        if not self._nodes:
            self._walk = None
        for node in self._nodes:
            node.done = dict.fromkeys(node.done)
            node.sleeping = {}

    def learn(self, execution: Execution) -> None:
        """Find the races of an execution, and what has to be run because of them."""
        walk, trail = self._walk, execution.trail
        assert walk is not None
        if trail is None:
            self._has_gap = True
            return
        self.untracked |= dict.fromkeys(trail.untracked)
        if execution.uncontrolled or execution.hurried:
            self._has_gap = True
            return
        self._compare(walk)
        if self._is_check:
            self._is_over = True
            self._before = 1
            return
        if trail.has_news:
            self._restart()
            return
        if walk.impossible is not None or tuple(walk.options[: self._divergence]) != self._expected:
            self.diverged += 1
            return
        if trail.is_renamed and self._renamed < _MOST_RENAMED:
            self._renamed += 1
            self._forget()
            return
        self.pruned += trail.is_abandoned
        self._choices = execution.choices
        events = trail.events
        by_ask = {event.ask: event for event in events if event.ask >= 0}
        self._add_nodes(execution, walk)
        for at in range(max(self._divergence - 1, 0), len(self._nodes)):
            node = self._nodes[at]
            event = by_ask.get(at)
            if event is None:
                self._has_gap = True
                return
            node.done[node.chosen] = event.footprint
        self._reverse_races(events)

    def _add_nodes(self, execution: Execution, walk: Walk) -> None:
        for at in range(self._divergence, len(execution.choices)):
            options = walk.options[at]
            chosen = options[execution.choices[at]]
            to_run = {chosen: None}
            for number in options:
                if number < CLOCK:
                    to_run[number] = None  # a fault: with each of them, and without
            self._nodes.append(_Node(options, chosen, walk.sleeps[at], to_run))

    def _reverse_races(self, events: Sequence[Event]) -> None:
        order = Order()
        nodes = self._nodes
        for number, event in enumerate(events):
            races = order.add(event)
            node = nodes[event.ask] if event.ask >= 0 else None
            if node is not None and event.meets_clock and CLOCK in node.options:
                node.to_run.setdefault(CLOCK)
            for first in races:
                self._reverse(events, order.past, first, number)

    def _reverse(self, events: Sequence[Event], past: Sequence[int], first: int, second: int) -> None:
        """See to it that the second of a race is run before the first, too."""
        ask = events[first].ask
        initials = find_initials(events, past, first, second)
        if initials == [CLOCK] and (ask < 0 or CLOCK not in self._nodes[ask].options):
            return  # there was no deadline yet
        if ask < 0:
            self._has_gap = True  # there was somebody else, who was not offered
            return
        node = self._nodes[ask]
        if any(number in node.to_run for number in initials):
            return
        offered = [number for number in initials if number in node.options]
        if offered:
            node.to_run[offered[0]] = None
        else:
            node.to_run.update(dict.fromkeys(node.options))
