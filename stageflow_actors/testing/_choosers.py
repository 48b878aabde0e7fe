"""Who chooses at each point of an execution: given choices, or samplers with a seed.

A chooser is asked where there are at least two options. It gets them in their order, the default first, each
with a `number` that names the same actor for the whole execution: a task's is positive, those of the clock and
of faults are negative.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from collections.abc import Sequence


ABANDON: Final = -1
"""What is chosen where all that could be chosen leads to what was run before: the execution ends."""


class Option(Protocol):
    """Somebody who can go on, the clock, or a fault."""

    @property
    def number(self) -> int:
        """Names it for the whole execution."""

    @property
    def name(self) -> str:
        """Names it for people."""


class Chooser(Protocol):
    """Chooses in one execution; a chooser is used for one only."""

    def choose(self, options: Sequence[Option]) -> int:
        """Return the index of one of the options."""


def make_random(seed: str) -> random.Random:
    """Return random numbers that a seed repeats, under every hash seed."""
    return random.Random(seed)  # noqa: S311 (nothing secret hangs on which schedule is run)


@final
class Given:
    """Follows given choices, then the default."""

    def __init__(self, choices: Sequence[int] = ()) -> None:
        self.choices: Final = choices
        self._at = 0
        self.impossible: str | None = None
        """The first choice that there was no option for."""

    def choose(self, options: Sequence[Option]) -> int:
        at = self._at
        if at >= len(self.choices):
            return 0
        self._at = at + 1
        index = self.choices[at]
        if index < len(options):
            return index
        if self.impossible is None:
            self.impossible = f"choice {at + 1} is option {index}, and there are only {len(options)}"
        return 0

    @property
    def unused(self) -> int:
        """How many choices were never asked for."""
        return len(self.choices) - self._at


@final
class Uniform:
    """A random walk: every option is as likely as another."""

    def __init__(self, seed: str) -> None:
        self._random = make_random(seed)

    def choose(self, options: Sequence[Option]) -> int:
        return int(self._random.random() * len(options))


@final
class Priorities:
    """PCT: random priorities, lowered at a few random steps.

    Finds a bug of depth d in n actors and k steps with probability 1 / (n * k**(d-1)) at least.
    Source: Burckhardt, Kothari, Musuvathi, Nagarakatte, "A randomized scheduler with probabilistic guarantees of
    finding bugs", ASPLOS 2010.

    Args:
        seed: Of the random numbers.
        depth: The d that is aimed at: there are d - 1 changes.
        steps: How many choices an execution has, about: the changes fall within as many.
    """

    def __init__(self, seed: str, *, depth: int, steps: int) -> None:
        self._random = make_random(seed)
        self._changes = {self._random.randrange(max(steps, 1)): depth - number for number in range(1, depth)}
        self._priority: dict[int, float] = {}
        self._at = 0

    def choose(self, options: Sequence[Option]) -> int:
        priority = self._priority
        for option in options:
            if option.number not in priority:
                priority[option.number] = 1000 + self._random.random()
        best = max(range(len(options)), key=lambda index: priority[options[index].number])
        low = self._changes.get(self._at)
        self._at += 1
        if low is None:
            return best
        priority[options[best].number] = low
        return max(range(len(options)), key=lambda index: priority[options[index].number])


@final
class Resampled:
    """POS, without knowledge of which steps depend on each other: each step has a random priority.

    A step keeps its priority until it is taken; the next step of the same actor draws another.
    Source: Yuan, Yang, Gu, "Partial order aware concurrency sampling", CAV 2018 (the basic form, in which the
    priorities of racing steps are not drawn again).
    """

    def __init__(self, seed: str) -> None:
        self._random = make_random(seed)
        self._priority: dict[int, float] = {}

    def choose(self, options: Sequence[Option]) -> int:
        priority = self._priority
        best, highest = 0, -1.0
        for index, option in enumerate(options):
            value = priority.get(option.number)
            if value is None:
                value = priority[option.number] = self._random.random()
            if value > highest:
                best, highest = index, value
        del priority[options[best].number]
        return best
