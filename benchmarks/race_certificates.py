"""The row of certificates: how soon it is known of a correct twin that no schedule fails."""

from __future__ import annotations

import gc
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
from race_bars import Bar, time_call
from race_frontrun import HOLDS, UNBOUNDED, Prey, find_version, hunt_elsewhere
from rows import Figure, Taken

from stageflow_actors.testing import explore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from race_bars import Settings

    from property_tests.corpus import Entry

PHILOSOPHERS: Final = "three philosophers"
"""Whose twin is the one with ordered forks."""


def measure_certificates(settings: Settings) -> Taken:
    """Explore every correct twin by partial order reduction alone, until all its schedules are covered."""
    raw = {
        entry.name: settings.kept.take(f"certificates: {entry.name}", partial(_certify, settings, entry))
        for entry in settings.entries
    }
    lines: list[tuple[str, ...]] = [
        (
            name,
            f"{told['executions']:,}",
            f"by {told['method']}" if told["method"] else "not complete",
            f"{told['seconds']:.3f}",
            told["failed"] or "; ".join(told["untracked"]),
        )
        for name, told in raw.items()
    ]
    done = sum(told["method"] is not None for told in raw.values())
    reduced = sum(told["method"] == "dpor" for told in raw.values())
    all_made = sum(told["executions"] for told in raw.values())
    lines.append(("all", f"{all_made:,}", f"{done} of {len(raw)}, {reduced} of them by dpor", "", ""))
    figures: list[Figure] = []
    if PHILOSOPHERS in raw:
        beside = _hunt_philosophers(settings)
        lines.append((f"{PHILOSOPHERS}, frontrun", *_tell_beside(beside)))
        figures.append(judge(raw[PHILOSOPHERS], beside))
    head = ("twin", "executions", "complete", "seconds", "not tracked")
    return Taken(head, lines, figures, {"twins": raw})


def _certify(settings: Settings, entry: Entry) -> dict[str, Any]:
    settings.tell(f"certificates: {entry.name}")
    gc.collect()
    most = settings.twin_executions
    report, seconds = time_call(partial(explore, entry.twin, max_executions=most, strategy="dpor"))
    return {
        "executions": report.executions,
        "method": None if report.certificate is None else report.certificate.method,
        "untracked": report.untracked,
        "failed": "" if report.failure is None else f"{report.failure.kind}: {report.failure.schedule}",
        "seconds": seconds,
    }


def _hunt_philosophers(settings: Settings) -> dict[str, Any] | None:
    """Let frontrun go through all interleavings too, without its bound, and with ten times the budget."""
    if find_version() is None:
        return None
    settings.tell(f"certificates: {PHILOSOPHERS}, frontrun")
    budget = {"executions": 10 * settings.rival_executions, "seconds": 10 * settings.rival_seconds}
    prey = Prey(UNBOUNDED, PHILOSOPHERS, twin=True, rounds=1, **budget)  # type: ignore[arg-type]
    told: dict[str, Any] = settings.kept.take(f"certificates: {UNBOUNDED}", lambda: attrs.asdict(hunt_elsewhere(prey)))
    return told


def _tell_beside(beside: Mapping[str, Any] | None) -> tuple[str, ...]:
    if beside is None:
        return "", "not installed", "", ""
    seconds = "" if beside["seconds"] is None else f"{beside['seconds']:.3f}"
    verdict = "it says so" if beside["verdict"] == HOLDS else beside["verdict"]
    return f"{beside['executions'] or 0:,}", verdict, seconds, ""


def judge(told: Mapping[str, Any], beside: Mapping[str, Any] | None) -> Bar:
    """Return the figure: how many executions the ordered three philosophers take, if they come to an end."""
    reached = told["executions"] if told["method"] else math.inf
    note = "frontrun is not installed" if beside is None else f"frontrun, unbounded: {beside['executions']}"
    if beside is not None and beside["verdict"] != HOLDS:
        note += f", {beside['verdict']}"
    missed = () if reached <= 50 else (f"{PHILOSOPHERS}, with ordered forks",)
    what = "ordered three philosophers certified complete"
    return Bar(what, 50, reached, "executions", note=note, missed=missed, number=6)
