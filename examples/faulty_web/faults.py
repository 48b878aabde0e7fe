"""What goes wrong, decided by a seed, the path, and how often the path was asked for: the same on every schedule."""

import random
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import attrs


class Fault(StrEnum):
    """One way not to answer a request as it should be."""

    SLOW = "slow"
    """The right answer, late."""
    RESET = "reset"
    """The connection is reset."""
    GARBAGE = "garbage"
    """Bytes that are no HTTP."""
    TRUNCATED = "truncated"
    """Half of the body, and the end of the connection."""
    HANG = "hang"
    """Nothing at all, for as long as the client waits."""
    ERROR = "500"
    BUSY = "429"
    """Too many requests, with a Retry-After."""


WEIGHTS: Final[Mapping[Fault, int]] = {
    Fault.SLOW: 3,
    Fault.RESET: 2,
    Fault.GARBAGE: 1,
    Fault.TRUNCATED: 1,
    Fault.HANG: 1,
    Fault.ERROR: 3,
    Fault.BUSY: 2,
}
"""How often each fault is drawn, against the others."""


@attrs.frozen
class Course:
    """What becomes of the requests for one path."""

    faults: tuple[Fault, ...] = ()
    heals: bool = True
    """Whether all is well after the faults; otherwise they begin again."""

    def fault(self, asked: int) -> Fault | None:
        """Return what is wrong the `asked`-th time, counted from 1."""
        if not self.faults or (self.heals and asked > len(self.faults)):
            return None
        return self.faults[(asked - 1) % len(self.faults)]


@attrs.frozen(kw_only=True)
class Faults:
    """How faulty a server is. Times are in seconds."""

    seed: int = 0
    faulty: float = 0.25
    """The share of paths that fail at first."""
    longest: int = 3
    """With how many faults at most."""
    dead: float = 0.01
    """The share of paths that never answer well."""
    courses: Mapping[str, Course] = attrs.field(factory=dict)
    """What is not drawn but given, by path."""
    latency: tuple[float, float] = (0.01, 0.1)
    """How long an answer takes, between these two."""
    slow: float = 0.8
    """How much longer a slow one takes."""
    retry_after: tuple[float, float] = (0.1, 0.5)
    """What a `429` asks for, between these two."""

    def course(self, path: str) -> Course:
        """Return what becomes of the requests for a path."""
        if path in self.courses:
            return self.courses[path]
        draw = random.Random(f"{self.seed} {path}")
        chance = draw.random()
        if chance >= self.dead + self.faulty:
            return Course()
        length = draw.randint(1, self.longest)
        if chance >= self.dead:
            return Course(tuple(draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=length)))
        broken = [fault for fault in WEIGHTS if fault is not Fault.SLOW]  # a slow answer is a good one
        return Course(tuple(draw.choices(broken, [WEIGHTS[fault] for fault in broken], k=length)), heals=False)

    def delay(self, path: str, asked: int) -> float:
        """Return how long an answer takes that is not slow."""
        return random.Random(f"{self.seed} {path} {asked} delay").uniform(*self.latency)

    def wish(self, path: str, asked: int) -> float:
        """Return the Retry-After of a `429` that is no matter of the budget."""
        return random.Random(f"{self.seed} {path} {asked} wish").uniform(*self.retry_after)
