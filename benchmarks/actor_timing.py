"""How the benchmark of actors takes times: in interleaved rounds, both the processor's and the clock on the wall."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final, Self

import attrs
from measuring import WrongOutputError, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    Candidate = Callable[["Stopwatch"], None]
    """Gets everything ready, does its work while the watch runs, and looks at what came of it."""


@attrs.define
class Stopwatch:
    """Takes the time of a `with` block."""

    processor: float = 0.0
    """Seconds of all threads."""
    wall: float = 0.0
    _began: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> Self:
        gc.collect()
        self._began = process_time(), perf_counter()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.processor, self.wall = process_time() - self._began[0], perf_counter() - self._began[1]


@attrs.frozen
class Times:
    """What the candidates took, in seconds a round."""

    processor: dict[str, list[float]] = attrs.field(factory=dict)
    wall: dict[str, list[float]] = attrs.field(factory=dict)

    def note(self, name: str, watch: Stopwatch) -> None:
        """Add a round of one candidate."""
        self.processor.setdefault(name, []).append(watch.processor)
        self.wall.setdefault(name, []).append(watch.wall)

    def each(self, name: str, count: int) -> tuple[str, str]:
        """Return the medians of one of `count` things, in microseconds: wall and processor."""
        wall, processor = (1e6 * median(times[name]) / count for times in (self.wall, self.processor))
        return f"{wall:,.1f}", f"{processor:,.1f}"

    def compare(self, above: str, below: str) -> Ratios:
        """Return how much longer one takes than another."""
        return Ratios(*(ratio(times[above], times[below]) for times in (self.wall, self.processor)))

    def to_raw(self) -> dict[str, Any]:
        return {"processor seconds": self.processor, "wall seconds": self.wall}


@attrs.frozen
class Ratios:
    """The medians of the ratios of the rounds.

    Processor time is what is held against a bar, as others at work on the machine must not count: a program that is
    never idle, as ours, waits for them, while threads that sleep and wake, as pykka's, hardly do. On an idle
    machine it is the other way round, for processor time leaves out what a thread takes to wake up.
    """

    wall: float
    processor: float


def take(rounds: int, candidates: Mapping[str, Candidate], *, warm_up: bool = False) -> Times:
    """Take the time of every candidate once a round, in turn; first once for nothing, where they are to be warm."""
    times = Times()
    for number in range(-1 if warm_up else 0, rounds):
        for name, candidate in candidates.items():
            watch = Stopwatch()
            candidate(watch)
            if number >= 0:
                times.note(name, watch)
    return times


def require(what: str, found: object, expected: object) -> None:
    """Look at what came of some work.

    Raises:
        WrongOutputError: Something else than what had to come: its time is worth nothing.
    """
    if found != expected:
        raise WrongOutputError(f"{what}: it gave {found!r}, not {expected!r}")


CAN_STAY: Final = hasattr(os, "sched_setaffinity")
"""Whether the system lets a process say where it runs."""


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """Keep this thread, and all that it starts, on one processor: then threads wake one another up soonest."""
    if not CAN_STAY:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def logging_nowhere() -> Iterator[None]:
    """Let what is logged be made, and be written nowhere."""
    logger = logging.getLogger("stageflow_actors")
    handler, propagates = logging.NullHandler(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
