"""The reference model of one actor: how an attempt at a stage or an item ends, and attempt after attempt."""

from __future__ import annotations

from typing import Any

import attrs

from stageflow_actors import StageState

from .plans import CHANCE, CLEANUP, THREADED, Act, Form, Reaction, StagePlan
from .restart_model import (
    EXHAUSTED,
    NEAR,
    RAISED_BY_POLICY,
    REFUSED,
    Facts,
    Failures,
    Problem,
    Verdict,
    asks_for,
    find_delay,
    find_leaves,
)

OK, SKIPPED, FAILED = StageState.OK, StageState.SKIPPED, StageState.FAILED
ISOLATED, CANCELLED, ABANDONED = StageState.ISOLATED, StageState.CANCELLED, StageState.ABANDONED
BAD = frozenset({FAILED, ISOLATED, CANCELLED, ABANDONED})

# What the acts that go wrong end with.
_PROBLEMS: dict[Act, Problem] = {
    Act.FAIL: ("StageFailedError",),
    Act.FAIL_ERROR: ("StageFailedError",),
    Act.RETRY: ("StageFailedError",),
    Act.WRONG_TYPE: ("StageReturnTypeError",),
    Act.UNFREEZABLE: ("NotFreezableError",),
    Act.UNDECLARED: ("UndeclaredDependencyError",),
    Act.RAISE: ("PlannedError",),
    Act.RAISE_UNPRINTABLE: ("UnprintableError",),
    Act.RAISE_GROUP: ("ExceptionGroup", "PlannedError", "PlannedError"),
    Act.KEPT_CANCELLED: ("StrayCancelledError",),
    Act.MIXED_GROUP: ("ExceptionGroup", "PlannedError"),
    Act.CHILD_FAILS: ("ExceptionGroup", "PlannedError"),
    Act.NURSERY_LEFT_OPEN: ("NurseryLeftOpenError",),
    Act.NURSERY_LEFT_OPEN_FAILING: ("NurseryLeftOpenError",),
    Act.ABORT: ("Abort",),
}
# The acts that find out, once the stage has slept, that it is cancelled.
NOTICING = frozenset({Act.OWN_SCOPE, Act.KEPT_CANCELLED})


@attrs.frozen
class Given:
    """An output, as far as the model knows it."""

    status: str
    data: dict[str, Any]
    label: str | None = None


@attrs.frozen
class Ending:
    """How a stage ends that runs."""

    state: StageState
    output: Given | None = None
    problem: Problem | None = None


@attrs.frozen
class Span:
    """One attempt."""

    started: float
    ended: float
    problem: Problem | None = None


@attrs.frozen
class Expected:
    """What the model says of a stage. Times are virtual, from the start of the run."""

    state: StageState
    output: Given | None = None
    problem: Problem | None = None
    attempts: tuple[Span, ...] = ()
    started: float = 0.0
    """When its dependencies had ended."""
    ended: float = 0.0
    chain: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    """Words that the reason holds, where the contract gives them."""
    hidden: frozenset[str] = frozenset()
    """The types of errors that stand behind its own, as causes or contexts."""
    refused: bool = False
    """Whether a limiter turned it away."""
    escalates: bool = False
    """Whether its failure ends the run, even one that is to continue on failure."""

    @property
    def ran(self) -> bool:
        """Whether there was an attempt."""
        return bool(self.attempts)

    @property
    def told(self) -> bool:
        """Whether there was a message for it."""
        return self.ran or self.refused


Seen = dict[str, Expected]


def find_sum(stage: StagePlan, seen: Seen) -> int:
    """Return the sum of what the dependencies of a stage gave."""
    outputs = [seen[name].output for name in stage.dependencies]
    return sum(output.data.get("sum", 0) for output in outputs if output is not None)


def _look_around(stage: StagePlan, seen: Seen, attempt: int) -> dict[str, Any]:
    names = stage.dependencies
    outputs = [name for name in names if seen[name].output is not None]
    sums = [output.data["sum"] for name in outputs if (output := seen[name].output) and "sum" in output.data]
    return {
        "sum": stage.value + find_sum(stage, seen),
        "saw": {name: seen[name].state.value for name in names},
        "outputs": tuple(outputs),
        "failed": tuple(name for name in names if seen[name].state is FAILED),
        "first": sums[0] if sums else -1,
        "attempt": attempt,
        "items": tuple(range(stage.value)),
    }


def act(stage: StagePlan, seen: Seen, attempt: int) -> Ending:
    """Return how an attempt ends that is left alone."""
    data = _look_around(stage, seen, attempt)
    match stage.act:
        case Act.OK | Act.MAPPING | Act.OWN_SCOPE:
            return Ending(OK, Given("ok", data))
        case Act.NONE:
            return Ending(OK, Given("ok", {}))
        case Act.ROUTE:
            return Ending(OK, Given("ok", data, stage.label))
        case Act.SKIP:
            return Ending(SKIPPED, Given("skip", {}))
        case Act.SKIP_DATA:
            return Ending(SKIPPED, Given("skip", data))
        case Act.CANCEL:
            return Ending(CANCELLED)
        case _:
            return Ending(FAILED, problem=_PROBLEMS[stage.act])


def interrupted(stage: StagePlan) -> Ending | None:
    """Return how a stage ends that is cancelled while it sleeps; None where it passes Cancelled on."""
    match stage.reaction:
        case Reaction.SWALLOW:
            return Ending(OK, Given("ok", {"swallowed": stage.name}))
        case Reaction.MESSY:
            return Ending(FAILED, problem=("CleanupError",))
        case Reaction.MIXED:
            return Ending(FAILED, problem=("ExceptionGroup", "CleanupError"))
        case _:
            return None


def run_alone(stage: StagePlan, seen: Seen, now: float, attempt: int) -> tuple[Ending, float]:
    """Return how an attempt ends that nothing but its own timeout stops, and when."""
    cleanup = CLEANUP if stage.form is Form.MANAGED else 0.0
    timed_out = Ending(FAILED, problem=("StageTimeoutError",))
    if stage.timeout is None or stage.timeout > stage.sleep:
        return act(stage, seen, attempt), now + stage.sleep + cleanup
    if stage.reaction is Reaction.SHIELDED:
        return timed_out if stage.act in NOTICING else act(stage, seen, attempt), now + stage.sleep + cleanup
    return interrupted(stage) or timed_out, now + stage.timeout + cleanup


def find_hidden(stage: StagePlan, problem: Problem) -> set[str]:
    """Return the types of errors that stand behind the one with which a stage failed, as causes or contexts."""
    if problem[-1] == "CleanupError":
        return {"StageTimeoutError"}
    if stage.act is Act.FAIL_ERROR and problem == ("StageFailedError",):
        return {"UnprintableError" if stage.value % 2 else "PlannedError"}
    if stage.act is Act.NURSERY_LEFT_OPEN_FAILING and problem == ("NurseryLeftOpenError",):
        return {"CleanupError"}
    return set()


def live(stage: StagePlan, seen: Seen, now: float, facts: Facts, denied: set[tuple[str, int]]) -> Expected:
    """Return what comes of a stage that is to run: attempt after attempt."""
    failures = Failures()
    attempts: list[Span] = []
    refused = facts.refused.get(stage.name)
    while True:
        number = len(attempts) + 1
        if refused is not None and refused[0] == number:
            return Expected(FAILED, problem=REFUSED, attempts=tuple(attempts), ended=refused[1], refused=True)
        at = stage.at(number)
        start = facts.starts.get((stage.name, number), now)
        ending, ended = run_alone(at, seen, start, number)
        problem = ending.problem
        if problem is None:
            attempts.append(Span(start, ended))
            reason = ("nothing to do",) if ending.state is SKIPPED else ()
            return Expected(ending.state, ending.output, attempts=tuple(attempts), ended=ended, reason=reason)
        verdict = failures.judge(stage.restart, at.act, problem, ended)
        if verdict.restarts and (stage.name, number) in denied:
            verdict = Verdict(False, EXHAUSTED)
        if not verdict.restarts:
            return _fail(at, Span(start, ended, problem), verdict, attempts)
        attempts.append(Span(start, ended, problem))
        assert stage.restart is not None
        count = failures.count(stage.restart, ended)
        now = ended + find_delay(stage.restart, count, asks_for(stage, number, problem), CHANCE)


def _fail(at: StagePlan, last: Span, verdict: Verdict, earlier: list[Span]) -> Expected:
    """Return the final failure of a stage, given its last attempt."""
    assert last.problem is not None
    hidden = find_hidden(at, last.problem)
    if verdict.problem == EXHAUSTED:
        hidden |= set(find_leaves(last.problem))
    elif verdict.problem == RAISED_BY_POLICY:
        hidden = set(find_leaves(last.problem))
    return Expected(
        FAILED,
        problem=verdict.problem,
        attempts=(*earlier, last),
        ended=last.ended,
        hidden=frozenset(hidden),
        escalates=verdict.escalates,
    )


@attrs.frozen
class Begun:
    """An attempt that went on."""

    attempt: int
    at: float


def allow_running(plan: StagePlan, seen: Seen, begun: Begun, stopped: float) -> list[Ending]:
    """Return the endings of a stage that runs when the run stops: whatever they are, it is not restarted."""
    stage = plan.at(begun.attempt)
    alone, _ = run_alone(stage, seen, begun.at, begun.attempt)
    if stage.form in THREADED:
        # One that is a context manager begins before it has its thread, and may still be stopped then.
        return [alone, Ending(CANCELLED)] if stage.form is Form.THREAD_MANAGED else [alone]
    shielded = stage.reaction is Reaction.SHIELDED
    if shielded:
        noticed = Ending(CANCELLED) if stage.act in NOTICING else act(stage, seen, begun.attempt)
    else:
        noticed = interrupted(stage) or Ending(CANCELLED)
    limit = stage.sleep if shielded or stage.timeout is None else min(stage.sleep, stage.timeout)
    over = begun.at + limit
    if over > stopped + NEAR:
        return [noticed]
    if over < stopped - NEAR:  # all that was left was its cleanup, which nobody cancels
        return [alone] + ([Ending(CANCELLED)] if stage.act is Act.KEPT_CANCELLED else [])
    return [alone, noticed] + ([Ending(CANCELLED)] if stage.act in NOTICING else [])
