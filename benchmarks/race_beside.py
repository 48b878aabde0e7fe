"""The row of frontrun: the bugs that have a program for asyncio, hunted by it and by us, and their twins."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import attrs
from race_bars import Bar, percent
from race_frontrun import (
    CRASHED,
    DPOR,
    FOUND,
    HOLDS,
    OPEN,
    OURS,
    OVERDUE,
    REDUCED,
    TOOLS,
    TUNED,
    Prey,
    Sighting,
    find_version,
    hunt_elsewhere,
)
from rows import Figure, Taken

from property_tests.corpus.on_asyncio import PAIRS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from race_bars import Settings

FIFTH: Final = 0.2

Sightings = dict[str, dict[str, Sighting]]
"""By the name of the bug, and by tool."""


def measure_rivals(settings: Settings) -> Taken:
    """Hunt the bugs that have a program for asyncio with frontrun, and with us on trio, each in a fresh process."""
    version = find_version()
    if version is None:
        return Taken(("bug", "frontrun is not installed"), [], [], {})
    names = [entry.name for entry in settings.entries if entry.name in PAIRS][: settings.rivals]
    bugs = {name: _hunt_all(settings, name, twin=False) for name in names}
    twins = {name: _hunt_all(settings, name, twin=True) for name in names}
    lines: list[tuple[str, ...]] = [(name, *(tell_sighting(bugs[name][tool]) for tool in TOOLS)) for name in names]
    lines += [(f"{name}, twin", *(tell_sighting(twins[name][tool]) for tool in TOOLS)) for name in names]
    raw = {
        kind: {name: {tool: attrs.asdict(one) for tool, one in found.items()} for name, found in sightings.items()}
        for kind, sightings in (("bugs", bugs), ("twins", twins))
    }
    return Taken(("program", *TOOLS), lines, judge(bugs), {"version": version, **raw})


def _hunt_all(settings: Settings, name: str, *, twin: bool) -> dict[str, Sighting]:
    found = {}
    for tool in TOOLS:
        settings.tell(f"frontrun: {name}{', twin' if twin else ''}, {tool}")
        prey = Prey(tool, name, twin, settings.rival_executions, settings.rival_seconds, settings.rounds)
        key = f"frontrun: {name}, {'twin' if twin else 'bug'}, {tool}"
        found[tool] = Sighting(**settings.kept.take(key, partial(_hunt, prey)))
    return found


def _hunt(prey: Prey) -> dict[str, Any]:
    return attrs.asdict(hunt_elsewhere(prey))


def tell_sighting(sighting: Sighting) -> str:
    """Return what came of a hunt, in a few words."""
    if sighting.executions is None or sighting.seconds is None:
        return sighting.verdict
    return f"{sighting.verdict} in {sighting.executions:,}, {sighting.seconds:.3f} s"


def judge(bugs: Sightings) -> list[Figure]:
    """Return the figures of the comparison with frontrun's DPOR as it is by default."""
    both = [name for name, found in bugs.items() if found[OURS].verdict == found[DPOR].verdict == FOUND]
    quick = [(name, divide_times(bugs, [name], DPOR) <= FIFTH) for name in bugs]
    of_both = sum(good for name, good in quick if name in both)
    tuned = sum(_needs_no_more(found, TUNED) for found in bugs.values())
    reduced = sum(_needs_no_more({OURS: found[REDUCED], DPOR: found[DPOR]}, DPOR) for found in bugs.values())
    fewer = percent(
        "bugs on which we need at most the executions of frontrun's DPOR",
        90,
        [(name, _needs_no_more(found, DPOR)) for name, found in bugs.items()],
        number=3,
    )
    per_bug = percent("bugs on which we take at most a fifth of its wall time", 90, quick, number=3)
    return [
        attrs.evolve(fewer, note=f"{fewer.note}; beside its best settings {tuned}; by our dpor alone {reduced}"),
        attrs.evolve(per_bug, note=f"{per_bug.note}; of those that both find {of_both} of {len(both)}"),
        Bar(
            f"our wall time for the {len(both)} that both find, against its",
            FIFTH,
            divide_times(bugs, both, DPOR),
            "x",
            note=f"for all {len(bugs)} bugs {divide_times(bugs, list(bugs), DPOR):.3f}x",
            number=3,
        ),
    ]


def _needs_no_more(found: Mapping[str, Sighting], tool: str) -> bool:
    ours, theirs = found[OURS], found[tool]
    if ours.verdict != FOUND:
        return False
    return theirs.verdict != FOUND or (ours.executions or 0) <= (theirs.executions or 0)


def divide_times(bugs: Sightings, names: Sequence[str], tool: str) -> float:
    """Return our wall time in sum against a tool's; what was stopped has none, and took for ever."""
    ours = sum(_time(bugs[name][OURS]) for name in names)
    theirs = sum(_time(bugs[name][tool]) for name in names)
    if not names:
        return 0.0
    return math.inf if math.isinf(ours) else ours / theirs


def _time(sighting: Sighting) -> float:
    return math.inf if sighting.seconds is None else sighting.seconds


VERDICTS: Final = (FOUND, HOLDS, OPEN, CRASHED, OVERDUE)


def count_verdicts(sightings: Mapping[str, Mapping[str, Sighting]], tool: str) -> tuple[str, ...]:
    """Return how often a tool came to each verdict."""
    counted = Counter(found[tool].verdict for found in sightings.values())
    return tuple(str(counted[verdict]) for verdict in VERDICTS)


def find_median(bugs: Sightings, tool: str) -> str:
    """Return the median of the executions to find a bug, of those that a tool finds."""
    made = [found[tool].executions or 0 for found in bugs.values() if found[tool].verdict == FOUND]
    return f"{median(made):,g}" if made else ""


def read_sightings(raw: Mapping[str, Any]) -> Sightings:
    """Return sightings from plain data."""
    return {name: {tool: Sighting(**one) for tool, one in found.items()} for name, found in raw.items()}
