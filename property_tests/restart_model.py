"""The reference model of restarts: what the contract makes of a failed attempt, in plain Python.

An error is known by the names of its types. What the schedule decides (when attempts began, whom a limiter
turned away, in which order attempts of different stages failed) is given as `Facts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from .plans import Act, Decides, On, RestartPlan, RunPlan, StagePlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stageflow_actors import StageState

Problem = tuple[str, ...]
"""The name of an error's type; for a group, followed by the names of its leaves' types."""

PLANNED = frozenset({"PlannedError", "UnprintableError", "CleanupError", "PredicateError"})
_TIMEOUT = "StageTimeoutError"
CONTRACT = frozenset(
    {
        "StageReturnTypeError",
        "NotFreezableError",
        "UndeclaredDependencyError",
        "StrayCancelledError",
        "NurseryLeftOpenError",
    }
)
EXHAUSTED: Problem = ("RestartIntensityError",)
REFUSED: Problem = ("OverloadedError",)
RAISED_BY_POLICY: Problem = ("PredicateError",)
NEAR = 1e-9
"""Seconds within which two moments are one: where delays are left to chance, sums of floats are rounded."""


@attrs.frozen
class Crash:
    """An attempt that failed."""

    stage: str
    attempt: int
    at: float
    problem: Problem
    judged: bool = True
    """Whether its policy was asked about it: not after a stop."""


@attrs.frozen
class ItemEnd:
    """An item of a fan-out that ended."""

    index: int
    state: StageState
    at: float


@attrs.frozen
class Facts:
    """What the schedule decided in one run. Times count from its start. An item is named such as `s3[7]`."""

    starts: Mapping[tuple[str, int], float] = attrs.field(factory=dict)
    """When each attempt at each stage began; where it is not given, the model knows it."""
    refused: Mapping[str, tuple[int, float]] = attrs.field(factory=dict)
    """Before which attempt a limiter turned a stage away, and when."""
    crashes: tuple[Crash, ...] = ()
    """In their order."""
    items: Mapping[str, tuple[ItemEnd, ...]] = attrs.field(factory=dict)
    """How the items of each fan-out ended, in their order."""


NO_FACTS = Facts()


@attrs.frozen
class Verdict:
    """What becomes of a stage after a failed attempt."""

    restarts: bool
    problem: Problem
    """What it fails with, where it does."""
    escalates: bool = False


def find_leaves(problem: Problem) -> Problem:
    """Return the names of the leaves of a group, or of the one error."""
    return problem[1:] or problem


def _matches(on: On, problem: Problem) -> bool:
    leaves = set(find_leaves(problem))
    match on:
        case On.ANY:
            return True
        case On.PLANNED:
            return leaves <= PLANNED
        case On.TIMEOUT:
            return leaves <= {_TIMEOUT}
        case On.EITHER:
            return leaves <= PLANNED | {_TIMEOUT}
        case On.ASKED:
            return len(problem) == 1 and problem[0] in PLANNED
        case _:
            return False


def direct(restart: RestartPlan | None, act: Act, problem: Problem) -> Verdict:
    """Return what a policy says of a failed attempt, whatever happened before."""
    fails = Verdict(False, problem)
    if restart is None or "Abort" in problem or CONTRACT & set(find_leaves(problem)):
        return fails
    if problem == ("StageFailedError",):
        return Verdict(True, problem) if act is Act.RETRY else fails
    match restart.decides:
        case Decides.RESTART:
            return Verdict(True, problem)
        case Decides.FAIL:
            return fails
        case Decides.ESCALATE:
            return Verdict(False, problem, escalates=True)
        case Decides.RAISES:
            return Verdict(False, RAISED_BY_POLICY)
        case Decides.WRONG:
            return Verdict(False, ("StageReturnTypeError",))
    if restart.on is On.RAISES:
        return Verdict(False, RAISED_BY_POLICY)
    return Verdict(True, problem) if _matches(restart.on, problem) else fails


def count_recent(times: Iterable[float], within: float | None, now: float) -> int:
    """Count the failures that are not longer ago than a window is long."""
    return sum(within is None or now - time <= within + NEAR for time in times)


@attrs.define
class Failures:
    """The failures of one actor so far: those on which its policy would have restarted it."""

    times: list[float] = attrs.field(factory=list)

    def judge(self, restart: RestartPlan | None, act: Act, problem: Problem, now: float) -> Verdict:
        """Return what becomes of it after one more."""
        verdict = direct(restart, act, problem)
        if not verdict.restarts:
            return verdict
        assert restart is not None
        self.times.append(now)
        if self.count(restart, now) > restart.max_restarts:
            return Verdict(False, EXHAUSTED)
        return verdict

    def count(self, restart: RestartPlan, now: float) -> int:
        """Return how many count."""
        return count_recent(self.times, restart.within, now)


def find_delays(restart: RestartPlan, number: int, after: float) -> tuple[float, float]:
    """Return the shortest and the longest delay before restart `number`, of those that count."""
    longest = restart.initial * restart.factor ** (number - 1)
    low, high = longest * (1 - restart.jitter), longest
    return min(restart.maximum, max(after, low)), min(restart.maximum, max(after, high))


def find_delay(restart: RestartPlan, number: int, after: float, chance: float) -> float:
    """Return the delay before restart `number`, given what jitter draws."""
    jittered = restart.initial * restart.factor ** (number - 1) * (1 - restart.jitter * (1 - chance))
    return min(restart.maximum, max(after, jittered))


def find_denied(plan: RunPlan, crashes: Iterable[Crash]) -> set[tuple[str, int]]:
    """Return the failed attempts after which there is no restart because the run has had its share."""
    denied: set[tuple[str, int]] = set()
    if plan.intensity is None:
        return denied
    most, within = plan.intensity
    failures: dict[str, Failures] = {}
    restarts: list[float] = []
    tripped = False
    for crash in crashes:
        if not crash.judged:
            continue
        stage = plan.find(crash.stage)
        verdict = failures.setdefault(crash.stage, Failures()).judge(
            stage.restart, stage.at(crash.attempt).act, crash.problem, crash.at
        )
        if not verdict.restarts:
            continue
        if not tripped:
            restarts.append(crash.at)
            tripped = count_recent(restarts, within, crash.at) > most
        if tripped:
            denied.add((crash.stage, crash.attempt))
    return denied


def asks_for(stage: StagePlan, attempt: int, problem: Problem) -> float:
    """Return the seconds that a failed attempt asks to be left alone for."""
    at = stage.at(attempt)
    return at.after if at.act is Act.RETRY and problem == ("StageFailedError",) else 0.0
