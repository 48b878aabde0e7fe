"""The row of finding: every bug of the corpus, with default settings, beside trio as it is and trio seeded."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
from race_bars import EXECUTIONS, SECONDS, Bar, percent, time_call
from race_cost import twenty_steps
from race_peers import Hunt, hunt_plainly, hunt_seeded
from rows import Figure, Taken

from property_tests.corpus import find
from stageflow_actors._validation import count
from stageflow_actors.testing import explore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from race_bars import Settings

    from property_tests.corpus import Entry

EXTRA: Final = 300
LONGEST: Final = 40
DEEPEST: Final = 5
"""Bugs of this depth and deeper need not be found."""


@attrs.frozen
class Search:
    """What came of the search for one bug."""

    name: str
    executions: int
    """To find it, or to find nothing."""
    seconds: float
    """Of the whole call, with making the failure simpler and replaying it."""
    others: tuple[int | None, ...]
    """After how many executions other seeds found it; None where they did not."""
    plain: Hunt
    seeded: Hunt
    kind: str | None = None
    """Of the failure; None as there was none."""
    schedule: str = ""
    preemptions: int = 0
    jumps: int = 0
    minimal: bool | None = None
    extra: int = 0
    """Executions that made the failure simpler, and proved that it cannot be more so."""

    @property
    def entry(self) -> Entry:
        return find(self.name)

    @property
    def is_found(self) -> bool:
        return self.kind is not None and self.executions <= EXECUTIONS and self.seconds <= SECONDS

    @property
    def is_as_expected(self) -> bool:
        return self.kind in (self.entry.shows, self.entry.or_shows)

    @property
    def is_proven(self) -> bool:
        return self.kind is not None and self.minimal is True and self.extra <= EXTRA


def search(settings: Settings, entry: Entry) -> dict[str, Any]:
    """Look for a bug with default settings, with other seeds, and as others do; return a search as plain data."""
    settings.tell(f"finding: {entry.name}")
    gc.collect()
    report, seconds = time_call(partial(explore, entry.bug))
    others = []
    for seed in range(1, settings.rounds):
        other = explore(entry.bug, seed=seed)
        others.append(None if other.failure is None else other.executions)
    budget: dict[str, Any] = {"most": settings.peer_runs, "seconds": settings.peer_seconds}
    told: dict[str, Any] = {"name": entry.name, "executions": report.executions, "seconds": seconds, "others": others}
    told["plain"] = attrs.asdict(hunt_plainly(entry.bug, **budget))
    told["seeded"] = attrs.asdict(hunt_seeded(entry.bug, **budget))
    if report.failure is not None:
        names = ("kind", "schedule", "preemptions", "jumps", "minimal")
        told |= {name: getattr(report.failure, name) for name in names} | {"extra": report.simplified_in}
    return told


def read_search(told: Mapping[str, Any]) -> Search:
    """Return a search from plain data."""
    made = {"others": tuple(told["others"]), "plain": Hunt(**told["plain"]), "seeded": Hunt(**told["seeded"])}
    return Search(**{**told, **made})


def measure_finding(settings: Settings) -> Taken:
    """Look for every bug: with default settings, other seeds, plain trio, and trio seeded by Hypothesis."""
    explore(twenty_steps, max_executions=1)
    raw = [settings.kept.take(f"finding: {entry.name}", partial(search, settings, entry)) for entry in settings.entries]
    searches = [read_search(told) for told in raw]
    lines = [_tell_search(found) for found in searches]
    lines.append(_tell_all(searches))
    others = f"with {count(settings.rounds - 1, 'other seed')}"
    head: tuple[str, ...] = ("bug", "depth", "fails with", "executions", "seconds", others)
    head += ("preemptions", "jumps", "proven in", "characters", "plain trio", "seeded trio")
    return Taken(head, lines, judge(searches), {"searches": raw})


def judge(searches: Sequence[Search]) -> list[Figure]:
    """Return the figures of finding."""
    shallow = [found for found in searches if found.entry.depth < DEEPEST]
    failed = [found for found in searches if found.kind is not None]
    within = f"within {EXECUTIONS:,} executions and {SECONDS:g} s"
    lengths = {found.name: len(found.schedule) for found in failed}
    return [
        percent(
            f"bugs of depth below {DEEPEST} found {within}",
            100,
            [(found.name, found.is_found) for found in shallow],
            number=1,
        ),
        percent(f"bugs found {within}", 95, [(found.name, found.is_found) for found in searches], number=1),
        percent(
            "failures of the kind that the corpus says",
            100,
            [(found.name, found.is_as_expected) for found in failed],
            number=1,
        ),
        percent(
            f"failures proven minimal in {EXTRA} more executions",
            95,
            [(found.name, found.is_proven) for found in failed],
            number=5,
        ),
        Bar(
            "longest schedule to replay",
            LONGEST,
            max(lengths.values(), default=0),
            "characters",
            missed=tuple(name for name, length in lengths.items() if length > LONGEST),
            number=5,
        ),
    ]


def _tell_search(found: Search) -> tuple[str, ...]:
    entry = found.entry
    kind, needs, proven, length = "", ("", ""), "", ""
    made = f"not in {found.executions:,}"
    if found.kind is not None:
        made = f"{found.executions:,}"
        kind = found.kind if found.is_as_expected else f"{found.kind}, not {entry.shows}"
        needs = str(found.preemptions), str(found.jumps)
        proven = f"{found.extra} more" if found.minimal else f"not in {found.extra}"
        length = str(len(found.schedule))
    peers = tell_hunt(found.plain), tell_hunt(found.seeded)
    seconds, others = f"{found.seconds:.3f}", _tell_others(found.others)
    return entry.name, str(entry.depth), kind, made, seconds, others, *needs, proven, length, *peers


def _tell_others(others: Sequence[int | None]) -> str:
    found = [executions for executions in others if executions is not None]
    if len(found) < len(others):
        return f"{len(others) - len(found)} do not find it"
    return " to ".join(f"{number:,}" for number in sorted({min(found), max(found)})) if found else ""


def tell_hunt(hunt: Hunt) -> str:
    """Return what came of a hunt, in a few words."""
    return f"{hunt.kind} in {hunt.runs:,}" if hunt.kind else f"not in {hunt.runs:,}"


def _tell_all(searches: Sequence[Search]) -> tuple[str, ...]:
    total = len(searches)
    ours = sum(found.is_found for found in searches)
    stable = sum(None not in found.others for found in searches)
    proven = sum(found.is_proven for found in searches)
    plain = sum(found.plain.kind is not None for found in searches)
    seeded = sum(found.seeded.kind is not None for found in searches)
    seconds = sum(found.seconds for found in searches)
    longest = max((len(found.schedule) for found in searches), default=0)
    of = [f"{number} of {total}" for number in (ours, stable, proven, plain, seeded)]
    return "all", "", "", of[0], f"{seconds:.3f}", of[1], "", "", of[2], f"at most {longest}", of[3], of[4]
