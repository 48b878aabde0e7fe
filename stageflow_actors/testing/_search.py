"""Which executions are made, in which order: pure, without trio.

A search hands out choosers, one an execution, and learns from what came of each. The systematic part is
iterative context bounding (Musuvathi and Qadeer, PLDI 2007): every schedule without a preemption first, then
those with one, and so on, so that the first failure has as few as can be. Here "preemption" counts whatever
costs: to stop a task that could go on, to let the clock jump while a task could go on, and a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final, get_args

import attrs

from ._choosers import Given, Priorities, Resampled, Uniform, make_random
from ._reduction.search import Dpor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from ._choosers import Chooser
    from ._execution import Execution

Strategy: TypeAlias = Literal["auto", "dpor", "dfs", "pct", "pos", "random"]
STRATEGIES: Final[tuple[str, ...]] = get_args(Strategy)

_MOST_KEPT: Final = 1_000_000
"""Schedules that wait to be run; past it no bound is exhausted any more, and the search says so."""

_SYSTEMATIC: Final = 0.5
"""The share of the executions of `auto` before which the samplers take turns with the systematic search."""

_BLOCK: Final = 8
"""How many executions the systematic search and the reduction make in turn."""

_WEIGHT: Final = 60
"""How much the steps of all executions of the reduction may touch, for each execution that there may be."""

_DEPTHS: Final = (2, 3, 5, 4)
"""Which depths of bugs PCT aims at, in turn."""

_Sibling: TypeAlias = "tuple[Sequence[int], Sequence[int], int, int]"
"""An execution's choices, how many options each had, and with which other option at which choice it differs."""


@final
class Frontier:
    """The schedules that are known and not yet run, by how many preemptions they have.

    Each execution is the default one after a prefix. Its siblings, which differ from it in one choice after the
    prefix, are added; so each schedule is reached exactly once.

    Args:
        seed: Of the order in which the schedules of one bound are taken; None for depth first.
    """

    def __init__(self, seed: str | None) -> None:
        self._seed = seed
        self._random: random.Random | None = None
        self._buckets: list[list[_Sibling]] = [[((), (), 0, 0)]]
        self._kept = 1
        self._lost = False
        self._bound = 0
        self._expected: Sequence[int] = ()
        self.diverged = 0
        """How many executions did not begin as the one that they were to share the beginning with."""
        self.taken = 0
        """How many schedules were handed out."""

    @property
    def bound(self) -> int | None:
        """With how many preemptions every schedule was run; None if not even without, or if that cannot be said."""
        return self._bound - 1 if self._bound and not self.diverged else None

    def covers(self, bound: int) -> bool:
        """Return whether every schedule with at most so many preemptions was run."""
        return self._bound > bound and not self.diverged

    @property
    def is_complete(self) -> bool:
        """Whether every schedule was run."""
        return self._kept == 0 and not self._lost and not self.diverged

    def take(self) -> tuple[Given, int] | None:
        """Return the next chooser and how many preemptions it has."""
        for cost, bucket in enumerate(self._buckets):
            if bucket:
                if self._seed is not None and len(bucket) > 1:
                    if self._random is None:
                        self._random = make_random(self._seed)  # not before it is needed: one execution is cheaper
                    index = int(self._random.random() * len(bucket))
                    bucket[index], bucket[-1] = bucket[-1], bucket[index]
                choices, widths, at, index = bucket.pop()
                self._kept -= 1
                self.taken += 1
                self._expected = widths[: at + 1]
                return Given((*choices[:at], index) if index else ()), cost
        return None

    def learn(self, prefix: int, cost: int, execution: Execution) -> None:
        """Add the siblings of an execution whose first choices, so many, were given."""
        choices, widths = execution.choices, execution.widths
        if execution.impossible is not None or widths[: len(self._expected)] != list(self._expected):
            self.diverged += 1
        for at in range(prefix, len(choices)):
            free = execution.free[at]
            for index in range(1, widths[at]):
                self._add(cost + (index >= free), (choices, widths, at, index))
        self._close()

    def _add(self, cost: int, sibling: _Sibling) -> None:
        if self._kept >= _MOST_KEPT:
            self._lost = True
            return
        while cost >= len(self._buckets):
            self._buckets.append([])
        self._buckets[cost].append(sibling)
        self._kept += 1

    def _close(self) -> None:
        """Note which bounds are exhausted."""
        if not self._lost and not self.diverged:
            while self._bound < len(self._buckets) and not self._buckets[self._bound]:
                self._bound += 1


class Search(Protocol):
    """Decides what is run."""

    def next(self) -> Chooser | None:
        """Return the chooser of the next execution; None where there is none."""

    def learn(self, execution: Execution) -> None:
        """Hear what came of it."""


@final
class Systematic:
    """Takes the frontier's schedules in order.

    Args:
        frontier: Where they are.
        below: Only those with fewer preemptions; None for all.
    """

    def __init__(self, frontier: Frontier, below: int | None = None) -> None:
        self._frontier = frontier
        self._below = below
        self._given = 0
        self._cost = 0

    def next(self) -> Chooser | None:
        """Return the chooser of the next execution; None where all were run."""
        if self._below is not None and self._frontier.covers(self._below - 1):
            return None
        taken = self._frontier.take()
        if taken is None:
            return None
        given, self._cost = taken
        self._given = len(given.choices)
        return given

    def learn(self, execution: Execution) -> None:
        """Add the siblings."""
        self._frontier.learn(self._given, self._cost, execution)


@final
class Sampled:
    """Makes one sampler an execution.

    Args:
        make: Makes the chooser of the execution with this number, given how many choices one has, at most so far.
    """

    def __init__(self, make: Callable[[int, int], Chooser]) -> None:
        self._make = make
        self._number = 0
        self._longest = 0

    def next(self) -> Chooser:
        """Return the chooser of the next execution."""
        self._number += 1
        if self._number == 1:
            return Given()  # what is most likely is looked at first; and it shows how long an execution is
        return self._make(self._number, self._longest)

    def learn(self, execution: Execution) -> None:
        """Remember how long it was."""
        self._longest = max(self._longest, len(execution.choices))


@final
class Reduced:
    """Partial order reduction for as long as it can follow the program; then every schedule, by preemptions.

    Args:
        dpor: The reduction.
        frontier: Where the schedules are.
    """

    def __init__(self, dpor: Dpor, frontier: Frontier) -> None:
        self._dpor = dpor
        self._systematic = Systematic(frontier)
        self._current: Search = dpor

    def next(self) -> Chooser | None:
        """Return the chooser of the next execution; None where every schedule was run, or one for each."""
        chooser = self._dpor.next()
        if chooser is not None or self._dpor.is_complete:
            return chooser
        self._current = self._systematic
        return self._systematic.next()

    def learn(self, execution: Execution) -> None:
        """Hear what came of it."""
        self._current.learn(execution)


@final
class Portfolio:
    """Systematic search and partial order reduction in turn; from half of the executions on, samplers too.

    Args:
        frontier: Of the systematic search.
        dpor: The reduction.
        executions: How many there may be.
        samplers: Those that take turns.
    """

    def __init__(self, frontier: Frontier, dpor: Dpor, executions: int, samplers: Sequence[Sampled]) -> None:
        self._frontier = frontier
        self._dpor = dpor
        self._systematic = Systematic(frontier)
        self._samplers = samplers
        self._from = int(executions * _SYSTEMATIC)
        self._most = executions * _WEIGHT
        self._number = 0
        self._current: Search = self._systematic

    def next(self) -> Chooser | None:
        """Return the chooser of the next execution; None where every schedule was run, or one for each.

        Of a program that does not repeat itself the systematic search may run out early; the samplers go on.
        """
        self._number += 1
        if self._is_over():
            return None
        for search in self._list_turns():
            self._current = search
            chooser = search.next()
            if chooser is not None:
                return chooser
            if self._is_over():
                return None
        return None

    def _is_over(self) -> bool:
        if self._frontier.diverged or self._dpor.diverged:
            return False
        return self._frontier.is_complete or self._dpor.is_complete

    def _list_turns(self) -> list[Search]:
        """Return whose turn it is, and who is next where they have nothing to run."""
        sampler = self._samplers[self._number % len(self._samplers)]
        # In blocks, for to begin with it costs time; and not for ever where a step touches a thousand things.
        reduces = (self._number - 1) // _BLOCK % 2 == 0 and self._dpor.is_open and self._dpor.weight < self._most
        if self._number > self._from and self._number % (1 + len(self._samplers)):
            return [sampler]
        return [self._dpor, self._systematic, sampler] if reduces else [self._systematic, sampler]

    def learn(self, execution: Execution) -> None:
        """Hear what came of it."""
        self._current.learn(execution)


def make_sampler(strategy: str, seed: int) -> Sampled:
    """Return the search of a sampling strategy."""
    if strategy == "pct":
        return Sampled(
            lambda number, steps: Priorities(f"pct/{seed}/{number}", depth=_DEPTHS[number % len(_DEPTHS)], steps=steps)
        )
    if strategy == "pos":
        return Sampled(lambda number, _: Resampled(f"pos/{seed}/{number}"))
    return Sampled(lambda number, _: Uniform(f"random/{seed}/{number}"))


@final
@attrs.frozen
class Plan:
    """The search of a strategy, and what it consists of."""

    search: Search
    frontier: Frontier | None = None
    dpor: Dpor | None = None

    @property
    def diverged(self) -> int:
        """How many executions went another way than the same choices had gone before."""
        return sum(0 if part is None else part.diverged for part in (self.frontier, self.dpor))

    @property
    def systematic(self) -> int:
        """How many executions were not drawn by a sampler."""
        return sum(0 if part is None else part.taken for part in (self.frontier, self.dpor))


def make_search(strategy: str, seed: int, executions: int, *, unfollowed: str | None = None) -> Plan:
    """Return the search of a strategy.

    Args:
        strategy: Its name.
        seed: Of what is drawn.
        executions: How many there may be.
        unfollowed: What it is that partial order reduction cannot follow; None where nothing is known yet.
    """
    plan = _make_plan(strategy, seed, executions)
    if unfollowed is not None and plan.dpor is not None:
        plan.dpor.give_up(unfollowed)
    return plan


def _make_plan(strategy: str, seed: int, executions: int) -> Plan:
    if strategy == "dfs":
        frontier = Frontier(None)
        return Plan(Systematic(frontier), frontier)
    if strategy == "dpor":
        frontier, dpor = Frontier(None), Dpor()
        return Plan(Reduced(dpor, frontier), frontier, dpor)
    if strategy == "auto":
        frontier, dpor = Frontier(f"auto/{seed}"), Dpor()
        samplers = [make_sampler(name, seed) for name in ("pct", "pos", "random")]
        return Plan(Portfolio(frontier, dpor, executions, samplers), frontier, dpor)
    return Plan(make_sampler(strategy, seed))
