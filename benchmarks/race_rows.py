"""The rows of the benchmark of the race-testing toolkit: what is measured, and which figure it has to reach."""

from __future__ import annotations

import gc
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
from race_bars import percent, time_call
from race_beside import measure_rivals
from race_certificates import measure_certificates
from race_cost import measure_cost, measure_shared
from race_finding import measure_finding
from race_replaying import describe, replay_elsewhere
from rows import Taken

from stageflow_actors.testing import explore

if TYPE_CHECKING:
    from collections.abc import Callable

    from race_bars import Settings

    from property_tests.corpus import Entry
    from stageflow_actors.testing import RaceFailure

HASH_SEEDS: Final = (0, 1, 42, 4_294_967_295)


def measure_twins(settings: Settings) -> Taken:
    """Explore every correct twin: none may fail. Where that ends early, the executions that are left are drawn."""
    raw = [
        settings.kept.take(f"false-alarms: {entry.name}", partial(_explore_twin, settings, entry))
        for entry in settings.entries
    ]
    lines: list[tuple[str, ...]] = []
    for told in raw:
        bound = "none" if told["bound"] is None else f"up to {told['bound']}"
        covered = f"all, by {told['complete']}" if told["complete"] else bound
        rate = f"{(told['executions'] + told['drawn']) / told['seconds']:,.0f}"
        lines.append((told["name"], f"{told['executions']:,}", covered, f"{told['drawn']:,}", told["failed"], rate))
    what = f"twins without a false alarm in {settings.twin_executions:,} executions"
    figure = percent(what, 100, [(told["name"], not told["failed"]) for told in raw], number=2)
    head = ("twin", "executions", "preemptions covered", "drawn", "false alarm", "executions/s")
    return Taken(head, lines, [figure], {"twins": raw})


def _explore_twin(settings: Settings, entry: Entry) -> dict[str, Any]:
    settings.tell(f"false alarms: {entry.name}")
    gc.collect()
    most = settings.twin_executions
    report, seconds = time_call(partial(explore, entry.twin, max_executions=most))
    told: dict[str, Any] = {"name": entry.name, "executions": report.executions, "bound": report.bound}
    told["complete"] = None if report.certificate is None else report.certificate.method
    drawn, more = None, 0.0
    if report.failure is None and (left := most - report.executions) > 0:
        drawn, more = time_call(partial(explore, entry.twin, max_executions=left, strategy="random"))
    failure = report.failure or (drawn and drawn.failure)
    told["failed"] = "" if failure is None else f"{failure.kind}: {failure.schedule}"
    return told | {"drawn": drawn.executions if drawn else 0, "seconds": seconds + more}


def measure_replays(settings: Settings) -> Taken:
    """Replay the failures in fresh processes under four hash seeds: each has to be the same, with the same trace."""
    found: dict[str, RaceFailure] = {}
    raw = {
        str(seed): settings.kept.take(f"replays: {seed}", partial(_replay_all, settings, found, seed))
        for seed in HASH_SEEDS
    }
    lines: list[tuple[str, ...]] = []
    verdicts: list[tuple[str, bool]] = []
    for seed, alike in raw.items():
        verdicts += [(name, same) for name, same in alike]
        processes = -(-len(alike) // settings.together)
        lines.append((seed, str(processes), str(len(alike)), str(sum(same for _, same in alike))))
    figure = percent("replays with the same failure and the same trace", 100, verdicts, number=5)
    figure = attrs.evolve(figure, missed=tuple(dict.fromkeys(figure.missed)))
    head = ("PYTHONHASHSEED", "processes", "replays", "the same")
    return Taken(head, lines, [figure], {"different": figure.missed})


def _replay_all(settings: Settings, found: dict[str, RaceFailure], hash_seed: int) -> list[tuple[str, bool]]:
    for entry in settings.entries if not found else ():
        settings.tell(f"replays: finding {entry.name}")
        failure = explore(entry.bug).failure
        if failure is not None:
            found[entry.name] = failure
    names = list(found) * -(-settings.replays // max(len(found), 1))
    alike: list[tuple[str, bool]] = []
    for first in range(0, len(names), settings.together):
        part = names[first : first + settings.together]
        settings.tell(f"replays: hash seed {hash_seed}, {len(alike)} of {len(names)}")
        replayed = replay_elsewhere([(name, found[name].schedule) for name in part], hash_seed)
        alike += [(name, describe(found[name]) == other) for name, other in zip(part, replayed, strict=True)]
    return alike


ROWS: dict[str, Callable[[Settings], Taken]] = {
    "finding": measure_finding,
    "false-alarms": measure_twins,
    "frontrun": measure_rivals,
    "cost": measure_cost,
    "shared": measure_shared,
    "replays": measure_replays,
    "certificates": measure_certificates,
}
