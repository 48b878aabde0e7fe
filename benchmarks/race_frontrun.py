"""How frontrun looks for a bug of the corpus on asyncio, and how we do on trio: each hunt in a process of its own.

frontrun replaces parts of asyncio while it explores, so it is imported by nobody but this file, run as a script. It
reads what to hunt from stdin, warms up on a small program, hunts, and writes what came of it to stdout. frontrun is
used as its documentation says: `frontrun.explore` with a state, workers and an invariant, DPOR being its default.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the corpus is in property_tests, not installed

from property_tests.corpus import find
from property_tests.corpus.on_asyncio import PAIRS, OnAsyncio

if TYPE_CHECKING:
    from collections.abc import Callable

DPOR: Final = "frontrun DPOR"
TUNED: Final = "frontrun DPOR, best settings"
UNBOUNDED: Final = "frontrun DPOR, unbounded"
RANDOM: Final = "frontrun random"
HASTY: Final = "frontrun random, hasty"
OURS: Final = "ours"
REDUCED: Final = "ours, dpor alone"
TOOLS: Final = (OURS, REDUCED, DPOR, TUNED, RANDOM, HASTY)
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    DPOR: {},
    TUNED: {"preemption_bound": None, "clock": "explored"},  # the clock tells who waits for ever, without a timeout
    UNBOUNDED: {"preemption_bound": None},
    RANDOM: {"strategy": "random", "seed": 0},
    # By default the first task that hangs takes all the time that there is.
    HASTY: {"strategy": "random", "seed": 0, "deadlock_timeout": 0.1, "timeout_per_run": 0.2},
}
"""What each is told beside the budget."""

FOUND: Final = "found"
HOLDS: Final = "holds"
"""It says so: nothing was found in all that was to be run."""
OPEN: Final = "no verdict"
"""It says that it does not know."""
CRASHED: Final = "crashed"
OVERDUE: Final = "ran out of time"

AGAIN: Final = 1.0
"""Seconds for which a short hunt is repeated, for the median of its times."""


@attrs.frozen
class Prey:
    """What is hunted, and with which budget."""

    tool: str
    name: str
    """Of the corpus."""
    twin: bool = False
    """Whether it is the correct twin."""
    executions: int = 1000
    seconds: float = 5.0
    """Of wall time, after which no further execution begins."""
    rounds: int = 5
    """Of the same hunt, for the time."""

    @property
    def patience(self) -> float:
        """The seconds of wall time after which the process is stopped: a last execution may hang, and be repeated."""
        return 4 * self.seconds + 20


@attrs.frozen
class Sighting:
    """What came of a hunt."""

    verdict: str
    executions: int | None = None
    seconds: float | None = None
    """Of wall time, for the whole call of the tool, as a test would make it; without the start of the process."""
    says: str = ""
    """In its own words, in short."""


def find_version() -> str | None:
    """Return the version of frontrun, None if it is not installed."""
    try:
        return version("frontrun")
    except PackageNotFoundError:
        return None


def hunt_elsewhere(prey: Prey) -> Sighting:
    """Hunt in a fresh process, which is stopped if it does not come to an end."""
    try:
        done = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(attrs.asdict(prey)),
            capture_output=True,
            text=True,
            check=False,
            timeout=prey.patience,
        )
    except subprocess.TimeoutExpired:
        return Sighting(OVERDUE, says=f"stopped after {prey.patience:g} s")
    said = done.stdout.strip().splitlines()
    if done.returncode or not said:
        complaint = (done.stderr.strip().splitlines() or [""])[-1]
        return Sighting(CRASHED, says=complaint or f"exit code {done.returncode}")
    return Sighting(**json.loads(said[-1]))


class Warm(OnAsyncio):
    """What is explored first, so that imports and caches do not count."""

    tasks = ("add", "add")

    def __init__(self) -> None:
        self.added = 0

    async def add(self) -> None:
        """Let the other task go on in between."""
        await asyncio.sleep(0)
        self.added += 1

    def holds(self) -> bool:
        """Both have added one."""
        return self.added == 2


async def idle() -> None:
    """Nothing is wrong with it."""


def choose_options(prey: Prey) -> dict[str, Any]:
    """Return what frontrun is told beside the program: its defaults, and the budget that all have."""
    options = {"total_timeout": prey.seconds, **OPTIONS[prey.tool]}
    options["max_attempts" if "strategy" in options else "max_executions"] = prey.executions
    if find(prey.name).needs_clock:
        options["clock"] = "explored"  # its documentation: when the timing of a timer's firing is itself the race
    return options


def hunt_with_frontrun(prey: Prey) -> Callable[[], Sighting]:
    """Return what hunts once."""
    import frontrun  # type: ignore[import-untyped]  # noqa: PLC0415  # by this process only

    pair = PAIRS[prey.name]
    options = choose_options(prey)

    async def explore(program: type[OnAsyncio]) -> Any:
        return await frontrun.explore(program, program.workers(), program.holds, **options)

    def hunt() -> Sighting:
        began = perf_counter()
        result = asyncio.run(explore(pair.twin if prey.twin else pair.bug))
        seconds = perf_counter() - began
        verdict = {True: HOLDS, False: FOUND, None: OPEN}[result.property_holds]
        says = next(iter((result.explanation or "").strip().splitlines()), "")
        return Sighting(verdict, result.num_explored, seconds, says[:200])

    asyncio.run(explore(Warm))
    return hunt


def hunt_ourselves(prey: Prey) -> Callable[[], Sighting]:
    """Return what hunts once, on the program for trio: with the default settings, or by partial order reduction."""
    from stageflow_actors.testing import explore  # noqa: PLC0415  # not where frontrun is

    entry = find(prey.name)
    strategy: Any = "dpor" if prey.tool == REDUCED else "auto"

    def hunt() -> Sighting:
        began = perf_counter()
        report = explore(entry.twin if prey.twin else entry.bug, max_executions=prey.executions, strategy=strategy)
        seconds = perf_counter() - began
        if report.failure is None:
            return Sighting(HOLDS if report.complete else OPEN, report.executions, seconds)
        return Sighting(FOUND, report.executions, seconds, report.failure.kind)

    explore(idle)
    return hunt


def hunt_here(prey: Prey) -> Sighting:
    """Hunt in this process, some times over if that is short; the time is the median."""
    hunt = hunt_ourselves(prey) if prey.tool in {OURS, REDUCED} else hunt_with_frontrun(prey)
    sightings = [hunt()]
    spent = sightings[0].seconds or 0.0
    while len(sightings) < prey.rounds and spent < AGAIN:
        sightings.append(hunt())
        spent += sightings[-1].seconds or 0.0
    times = [one.seconds for one in sightings if one.seconds is not None]
    return attrs.evolve(sightings[0], seconds=median(times))


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(hunt_here(Prey(**json.load(sys.stdin))))))
