"""The rows of the benchmark of the race-testing toolkit: what is measured, and which figure it has to reach."""

from __future__ import annotations

import gc
import sys
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
import trio.testing
from measuring import interleave, ratio
from race_peers import hunt_plainly, hunt_seeded, scheduling
from race_replaying import describe, replay_elsewhere
from rows import Figure, Taken

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the corpus is in property_tests, not installed

from stageflow_actors._validation import count
from stageflow_actors.testing import explore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from race_peers import Hunt, Program

    from property_tests.corpus import Entry
    from stageflow_actors.testing import Report

EXECUTIONS: Final = 1000
SECONDS: Final = 5.0
"""Of processor time, for others at work on the machine must not count."""
EXTRA: Final = 300
LONGEST: Final = 40
DEEPEST: Final = 5
"""Bugs of this depth and deeper need not be found."""
HASH_SEEDS: Final = (0, 1, 42, 4_294_967_295)
REPEAT: Final = 20
"""Executions of a program in one round, each beside one of trio's."""


@attrs.frozen
class Bar(Figure):
    """A figure to reach, with the names of what missed it."""

    missed: tuple[str, ...] = ()


@attrs.frozen
class Settings:
    """What all rows share."""

    entries: Sequence[Entry]
    rounds: int = 5
    """Of times; and how many seeds each bug is looked for with."""
    peer_runs: int = 10_000
    peer_seconds: float = SECONDS
    twin_executions: int = 10_000
    shared_executions: int = 1000
    replays: int = 25
    """Under each hash seed, at least."""
    together: int = 5
    """Replays in one process."""
    tell: Callable[[str], None] = lambda _: None
    """Is told what is going on."""


QUICK: Final[dict[str, Any]] = {
    "rounds": 2,
    "peer_runs": 100,
    "peer_seconds": 0.5,
    "twin_executions": 300,
    "shared_executions": 200,
    "together": 25,
}


@attrs.frozen
class Search:
    """What came of the search for one bug."""

    entry: Entry
    report: Report
    seconds: float
    """Of the whole call, with making the failure simpler and replaying it."""
    others: tuple[int | None, ...]
    """After how many executions other seeds found it; None where they did not."""
    plain: Hunt
    seeded: Hunt

    @property
    def is_found(self) -> bool:
        return self.report.failure is not None and self.seconds <= SECONDS

    @property
    def is_as_expected(self) -> bool:
        return self.report.failure is not None and self.report.failure.kind == self.entry.shows

    @property
    def is_proven(self) -> bool:
        failure = self.report.failure
        return failure is not None and failure.minimal is True and self.report.simplified_in <= EXTRA


def percent(what: str, bar: float, verdicts: Sequence[tuple[str, bool]]) -> Bar:
    """Return which share of some is as it has to be, in per cent; of none it is all."""
    missed = tuple(name for name, good in verdicts if not good)
    total = len(verdicts)
    good = total - len(missed)
    note = f"{good} of {total}"
    return Bar(what, bar, 100 * good / total if total else 100.0, "%", at_most=False, note=note, missed=missed)


def time_call(function: Callable[[], Any]) -> tuple[Any, float]:
    began = process_time()
    value = function()
    return value, process_time() - began


def search(settings: Settings, entry: Entry) -> Search:
    """Look for a bug with default settings, with other seeds, and as others do."""
    settings.tell(f"finding: {entry.name}")
    gc.collect()
    report, seconds = time_call(partial(explore, entry.bug))
    others = []
    for seed in range(1, settings.rounds):
        other = explore(entry.bug, seed=seed)
        others.append(None if other.failure is None else other.executions)
    budget: dict[str, Any] = {"most": settings.peer_runs, "seconds": settings.peer_seconds}
    plain, seeded = hunt_plainly(entry.bug, **budget), hunt_seeded(entry.bug, **budget)
    return Search(entry, report, seconds, tuple(others), plain, seeded)


def measure_finding(settings: Settings) -> Taken:
    """Look for every bug: with default settings, other seeds, plain trio, and trio seeded by Hypothesis."""
    explore(twenty_steps, max_executions=1)
    searches = [search(settings, entry) for entry in settings.entries]
    lines = [_tell_search(found) for found in searches]
    lines.append(_tell_all(searches))
    others = f"with {count(settings.rounds - 1, 'other seed')}"
    head: tuple[str, ...] = ("bug", "depth", "fails with", "executions", "seconds", others)
    head += ("preemptions", "jumps", "proven in", "characters", "plain trio", "seeded trio")
    return Taken(head, lines, judge(searches), {"searches": [_make_raw(found) for found in searches]})


def judge(searches: Sequence[Search]) -> list[Figure]:
    """Return the figures of finding."""
    shallow = [found for found in searches if found.entry.depth < DEEPEST]
    failed = [found for found in searches if found.report.failure is not None]
    within = f"within {EXECUTIONS:,} executions and {SECONDS:g} s"
    lengths = {found.entry.name: len(found.report.failure.schedule) for found in failed if found.report.failure}
    return [
        percent(
            f"bugs of depth below {DEEPEST} found {within}",
            100,
            [(found.entry.name, found.is_found) for found in shallow],
        ),
        percent(f"bugs found {within}", 95, [(found.entry.name, found.is_found) for found in searches]),
        percent("failures of the kind that the corpus says", 100, [(f.entry.name, f.is_as_expected) for f in failed]),
        percent(
            f"failures proven minimal in {EXTRA} more executions", 95, [(f.entry.name, f.is_proven) for f in failed]
        ),
        Bar(
            "longest schedule to replay",
            LONGEST,
            max(lengths.values(), default=0),
            "characters",
            missed=tuple(name for name, length in lengths.items() if length > LONGEST),
        ),
    ]


def _tell_search(found: Search) -> tuple[str, ...]:
    entry, report, failure = found.entry, found.report, found.report.failure
    kind, needs, proven, length = "", ("", ""), "", ""
    made = f"not in {report.executions:,}"
    if failure is not None:
        made = f"{report.executions:,}"
        kind = failure.kind if found.is_as_expected else f"{failure.kind}, not {entry.shows}"
        needs = str(failure.preemptions), str(failure.jumps)
        proven = f"{report.simplified_in} more" if failure.minimal else f"not in {report.simplified_in}"
        length = str(len(failure.schedule))
    peers = _tell_hunt(found.plain), _tell_hunt(found.seeded)
    seconds, others = f"{found.seconds:.3f}", _tell_others(found.others)
    return entry.name, str(entry.depth), kind, made, seconds, others, *needs, proven, length, *peers


def _tell_others(others: Sequence[int | None]) -> str:
    found = [executions for executions in others if executions is not None]
    if len(found) < len(others):
        return f"{len(others) - len(found)} do not find it"
    return " to ".join(f"{number:,}" for number in sorted({min(found), max(found)})) if found else ""


def _tell_hunt(hunt: Hunt) -> str:
    return f"{hunt.kind} in {hunt.runs:,}" if hunt.kind else f"not in {hunt.runs:,}"


def _tell_all(searches: Sequence[Search]) -> tuple[str, ...]:
    total = len(searches)
    ours = sum(found.is_found for found in searches)
    stable = sum(None not in found.others for found in searches)
    proven = sum(found.is_proven for found in searches)
    plain = sum(found.plain.kind is not None for found in searches)
    seeded = sum(found.seeded.kind is not None for found in searches)
    seconds = sum(found.seconds for found in searches)
    longest = max((len(found.report.failure.schedule) for found in searches if found.report.failure), default=0)
    of = [f"{number} of {total}" for number in (ours, stable, proven, plain, seeded)]
    return "all", "", "", of[0], f"{seconds:.3f}", of[1], "", "", of[2], f"at most {longest}", of[3], of[4]


def _make_raw(found: Search) -> dict[str, Any]:
    failure = found.report.failure
    told: dict[str, Any] = {"name": found.entry.name, "depth": found.entry.depth, "seconds": found.seconds}
    told |= {"executions": found.report.executions, "other seeds": found.others}
    if failure is not None:
        told |= {"kind": failure.kind, "schedule": failure.schedule, "minimal": failure.minimal}
        told |= {"preemptions": failure.preemptions, "jumps": failure.jumps, "extra": found.report.simplified_in}
    return told | {"plain trio": attrs.asdict(found.plain), "seeded trio": attrs.asdict(found.seeded)}


def measure_twins(settings: Settings) -> Taken:
    """Explore every correct twin: none may fail."""
    lines: list[tuple[str, ...]] = []
    verdicts = []
    raw = []
    for entry in settings.entries:
        settings.tell(f"false alarms: {entry.name}")
        gc.collect()
        report, seconds = time_call(partial(explore, entry.twin, max_executions=settings.twin_executions))
        verdicts.append((entry.name, report.failure is None))
        failed = "" if report.failure is None else f"{report.failure.kind}: {report.failure.schedule}"
        bound = "all" if report.complete else "none" if report.bound is None else f"up to {report.bound}"
        lines.append((entry.name, f"{report.executions:,}", bound, failed, f"{report.executions / seconds:,.0f}"))
        raw.append({"name": entry.name, "executions": report.executions, "bound": report.bound})
        raw[-1] |= {"complete": report.complete, "failed": failed, "seconds": seconds}
    what = f"twins without a false alarm in {settings.twin_executions:,} executions, or in all there are"
    head = ("twin", "executions", "preemptions covered", "false alarm", "executions/s")
    return Taken(head, lines, [percent(what, 100, verdicts)], {"twins": raw})


async def twenty_steps() -> None:
    """Three workers take turns at a lock and put what they have into a channel: 20 steps as it comes."""
    lock = trio.Lock()
    sends, receives = trio.open_memory_channel[int](3)

    async def work(number: int) -> None:
        await trio.lowlevel.checkpoint()
        async with lock:
            await trio.lowlevel.checkpoint()
        await sends.send(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(work, number)
    assert sorted([await receives.receive() for _ in range(3)]) == [0, 1, 2]


def lets_time_pass(program: Program) -> bool:
    """Return whether a program sleeps: without control, it would do so in real time."""
    for _ in range(REPEAT):
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(program, clock=clock)
        if clock.current_time() > 0:
            return True
    return False


async def nothing() -> None:
    """End at once."""


@scheduling(seeded=False)
def measure_cost(settings: Settings) -> Taken:
    """Compare an execution with `trio.run` of the same program: one of many, as `explore` makes them, and one alone."""
    awake = {entry.name: entry.twin for entry in settings.entries if not lets_time_pass(entry.twin)}
    programs: dict[str, Program] = {"nothing": nothing, "20 steps": twenty_steps, **awake}
    taken: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in programs} for kind in ("trio.run", "one of many", "alone")
    }
    for number in range(settings.rounds):
        for name, program in programs.items():
            settings.tell(f"cost of an execution: round {number + 1}, {name}")
            many = partial(explore, program, max_executions=REPEAT, strategy="random")
            uncontrolled = partial(_run_often, program)
            alone = partial(_explore_often, program)
            for kind, seconds in zip(taken, time_in_turn(uncontrolled, many, alone), strict=True):
                taken[kind][name].append(seconds / REPEAT)
    ratios = {name: ratio(taken["one of many"][name], taken["trio.run"][name]) for name in programs}
    ratios_alone = {name: ratio(taken["alone"][name], taken["trio.run"][name]) for name in programs}
    ranked = sorted(["20 steps", *awake], key=ratios.__getitem__)
    shown = {"an empty one": "nothing", "the least": ranked[0], "the median": ranked[len(ranked) // 2]}
    shown["the most"] = ranked[-1]
    lines: list[tuple[str, ...]] = []
    for title, name in shown.items():
        times = (f"{1e6 * median(taken[kind][name]):,.0f}" for kind in taken)
        lines.append((title, name, *times, f"{ratios[name]:.2f}x", f"{ratios_alone[name]:.2f}x"))
    left = len(settings.entries) - len(awake)
    beside = median(ratios_alone[name] for name in ranked)
    note = f"one alone, in a run of its own: {beside:.2f}x; {left} that sleep are left out"
    what = f"an execution, of {REPEAT}, against uncontrolled trio, median of {len(ranked)} programs"
    figure = Bar(what, 1.5, median(ratios[name] for name in ranked), "x", note=note)
    head = ("cost", "program", "trio.run, us", "one of many, us", "alone, us", "many", "alone")
    return Taken(
        head, lines, [figure], {f"{kind}: {name}": times for kind in taken for name, times in taken[kind].items()}
    )


def _run_often(program: Program) -> None:
    for _ in range(REPEAT):
        trio.run(program)


def _explore_often(program: Program) -> None:
    for _ in range(REPEAT):
        explore(program, max_executions=1)


def time_in_turn(*functions: Callable[[], Any]) -> list[float]:
    """Call each once, in turn; return the processor time of each."""
    gc.collect()
    return [time_call(function)[1] for function in functions]


@scheduling(seeded=False)
def measure_shared(settings: Settings) -> Taken:
    """Explore a program of 20 steps, many executions sharing a run of trio, beside as many runs of trio."""
    measures: dict[str, Callable[[], float]] = {"trio.run": partial(_time_runs, settings)}
    for strategy in ("auto", "dfs", "pct", "pos", "random"):
        measures[strategy] = partial(_time_exploration, settings, strategy)
    settings.tell("executions that share a run")
    taken = interleave(settings.rounds, measures)
    lines: list[tuple[str, ...]] = [
        (name, f"{median(1 / one for one in times):,.0f}", f"{ratio(times, taken['trio.run']):.2f}x")
        for name, times in taken.items()
    ]
    rate = median(1 / one for one in taken["auto"])
    figure = Bar("executions a second that share a run, of 20 steps", 2000, rate, "/s", at_most=False)
    return Taken(("strategy", "executions/s", "time against trio.run"), lines, [figure], {"seconds": taken})


def _time_runs(settings: Settings) -> float:
    gc.collect()
    began = process_time()
    for _ in range(settings.shared_executions):
        trio.run(twenty_steps)
    return (process_time() - began) / settings.shared_executions


def _time_exploration(settings: Settings, strategy: Any) -> float:
    gc.collect()
    most = settings.shared_executions
    report, seconds = time_call(partial(explore, twenty_steps, strategy=strategy, max_executions=most))
    assert report.executions == most
    report.raise_for_failure()
    return seconds / most


def measure_replays(settings: Settings) -> Taken:
    """Replay the failures in fresh processes under four hash seeds: each has to be the same, with the same trace."""
    found = {}
    for entry in settings.entries:
        settings.tell(f"replays: finding {entry.name}")
        failure = explore(entry.bug).failure
        if failure is not None:
            found[entry.name] = failure
    names = list(found) * -(-settings.replays // max(len(found), 1))
    parts = [names[first : first + settings.together] for first in range(0, len(names), settings.together)]
    lines: list[tuple[str, ...]] = []
    verdicts: list[tuple[str, bool]] = []
    for hash_seed in HASH_SEEDS:
        alike: list[tuple[str, bool]] = []
        for part in parts:
            settings.tell(f"replays: hash seed {hash_seed}, {len(alike)} of {len(names)}")
            replayed = replay_elsewhere([(name, found[name].schedule) for name in part], hash_seed)
            same = [describe(found[name]) == other for name, other in zip(part, replayed, strict=True)]
            alike += zip(part, same, strict=True)
        verdicts += alike
        lines.append((str(hash_seed), str(len(parts)), str(len(names)), str(sum(same for _, same in alike))))
    figure = percent("replays with the same failure and the same trace", 100, verdicts)
    figure = attrs.evolve(figure, missed=tuple(dict.fromkeys(figure.missed)))
    head = ("PYTHONHASHSEED", "processes", "replays", "the same")
    return Taken(head, lines, [figure], {"different": figure.missed})


ROWS: dict[str, Callable[[Settings], Taken]] = {
    "finding": measure_finding,
    "false-alarms": measure_twins,
    "cost": measure_cost,
    "shared": measure_shared,
    "replays": measure_replays,
}
