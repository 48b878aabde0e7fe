"""The reference model: what the contract says comes of a drawn run, in plain Python.

It knows the plan and the contract, and of the package only the public names of states and triggers.
"""

from __future__ import annotations

from typing import Any

import attrs

from stageflow_actors import StageState, Trigger

from .plans import CLEANUP, GIVEN_SUM, Act, Ask, Form, Reaction, RunPlan, StagePlan

OK, SKIPPED, FAILED = StageState.OK, StageState.SKIPPED, StageState.FAILED
ISOLATED, CANCELLED, ABANDONED = StageState.ISOLATED, StageState.CANCELLED, StageState.ABANDONED
BAD = frozenset({FAILED, ISOLATED, CANCELLED, ABANDONED})

Problem = tuple[str, ...]
"""The name of an error's type; for a group, followed by the names of its leaves' types."""

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
class Expected:
    """What the model says of a stage."""

    state: StageState
    output: Given | None = None
    problem: Problem | None = None
    ran: bool = False
    started: float = 0.0
    """Virtual, from the start of the run."""
    ended: float = 0.0
    chain: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    """Words that the reason holds, where the contract gives them."""


Seen = dict[str, Expected]


def wanted(plan: RunPlan) -> list[StagePlan]:
    """Return the stages that take part: the targets and what they need."""
    if plan.targets is None and not plan.overrides:
        return list(plan.stages)
    given = dict(plan.overrides)
    by_name = plan.by_name
    found: set[str] = set()
    work = [stage.name for stage in plan.stages] if plan.targets is None else list(plan.targets)
    while work:
        name = work.pop()
        if name not in found:
            found.add(name)
            work += () if name in given else by_name[name].dependencies
    return [stage for stage in plan.stages if stage.name in found]


def predict(plan: RunPlan) -> Seen:
    """Return what comes of every stage of a run that nothing stops early."""
    given = dict(plan.overrides)
    waiting = {stage.name: stage for stage in wanted(plan)}
    seen: Seen = {}
    while waiting:
        for name, stage in list(waiting.items()):
            if name in given:
                seen[name] = _predict_given(given[name])
            elif all(dependency in seen for dependency in stage.dependencies):
                seen[name] = _predict_stage(stage, seen)
            else:
                continue
            del waiting[name]
    return {stage.name: seen[stage.name] for stage in wanted(plan)}


def _predict_given(what: str) -> Expected:
    if what == "skip":
        return Expected(SKIPPED, Given("skip", {"sum": GIVEN_SUM}))
    return Expected(OK, Given("ok", {"sum": GIVEN_SUM}))


def judge(trigger: Trigger, states: list[StageState]) -> str:
    """Return `run`, `skip` or `isolate`, given the states of all dependencies."""
    bad = any(state in BAD for state in states)
    skipped = SKIPPED in states
    if trigger is Trigger.ALL_DONE or all(state is OK for state in states):
        return "run"
    if trigger is Trigger.ONE_SUCCESS and OK in states:
        return "run"
    if bad:
        return "isolate"
    assert skipped
    return "run" if trigger is Trigger.NONE_FAILED else "skip"


def _predict_stage(stage: StagePlan, seen: Seen) -> Expected:
    now = max((seen[name].ended for name in stage.dependencies), default=0.0)
    states = [seen[name].state for name in stage.dependencies]
    verdict = judge(stage.trigger, states)
    if verdict == "isolate":
        parent = next(name for name in stage.dependencies if seen[name].state in BAD)
        chain = (stage.name, *(seen[parent].chain or (parent,)))
        return Expected(ISOLATED, chain=chain, reason=(repr(parent),), started=now, ended=now)
    if verdict == "skip":
        skipped = next(name for name in stage.dependencies if seen[name].state is SKIPPED)
        return Expected(SKIPPED, reason=("dependency", skipped, "skipped"), started=now, ended=now)
    asked = _ask(stage, seen)
    if isinstance(asked, tuple):
        return Expected(FAILED, problem=asked, started=now, ended=now)
    if not asked:
        return Expected(SKIPPED, reason=("not chosen",), started=now, ended=now)
    ending, ended = run_alone(stage, seen, now)
    reason = ("nothing to do",) if ending.state is SKIPPED else ()
    return Expected(ending.state, ending.output, ending.problem, ran=True, started=now, ended=ended, reason=reason)


def _ask(stage: StagePlan, seen: Seen) -> bool | Problem:
    """Return what the condition says, or what it raises."""
    when = stage.when
    if when is None or when.ask is Ask.TRUE:
        return True
    if when.ask is Ask.FALSE:
        return False
    if when.ask is Ask.RAISE:
        return ("PlannedError",)
    if when.ask is Ask.EVEN:
        return _sum(stage, seen) % 2 == 0
    output = seen[when.router].output
    return output is not None and output.label == when.label


def _sum(stage: StagePlan, seen: Seen) -> int:
    outputs = [seen[name].output for name in stage.dependencies]
    return sum(output.data.get("sum", 0) for output in outputs if output is not None)


def _look_around(stage: StagePlan, seen: Seen) -> dict[str, Any]:
    names = stage.dependencies
    outputs = [name for name in names if seen[name].output is not None]
    sums = [output.data["sum"] for name in outputs if (output := seen[name].output) and "sum" in output.data]
    return {
        "sum": stage.value + _sum(stage, seen),
        "saw": {name: seen[name].state.value for name in names},
        "outputs": tuple(outputs),
        "failed": tuple(name for name in names if seen[name].state is FAILED),
        "first": sums[0] if sums else -1,
    }


def act(stage: StagePlan, seen: Seen) -> Ending:
    """Return how a stage ends that is left alone."""
    data = _look_around(stage, seen)
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


def run_alone(stage: StagePlan, seen: Seen, now: float) -> tuple[Ending, float]:
    """Return how a stage ends that nothing but its own timeout stops, and when."""
    cleanup = CLEANUP if stage.form is Form.MANAGED else 0.0
    timed_out = Ending(FAILED, problem=("StageTimeoutError",))
    if stage.timeout is None or stage.timeout > stage.sleep:
        return act(stage, seen), now + stage.sleep + cleanup
    if stage.reaction is Reaction.SHIELDED:
        return timed_out if stage.act in NOTICING else act(stage, seen), now + stage.sleep + cleanup
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


def settle(plan: RunPlan, ended: dict[str, StageState]) -> set[str]:
    """Return which stages a stop isolates.

    Args:
        plan: The run.
        ended: The states of the stages that had ended by then.
    """
    states = dict(ended)
    given = dict(plan.overrides)
    others = [stage for stage in wanted(plan) if stage.name not in given]
    while True:
        added = {stage.name: ISOLATED for stage in others if stage.name not in states and _isolates(stage, states)}
        if not added:
            return {name for name in states if name not in ended}
        states |= added


def _isolates(stage: StagePlan, states: dict[str, StageState]) -> bool:
    """Return whether these states make a stage `ISOLATED`, whatever becomes of the rest."""
    known = [states[name] for name in stage.dependencies if name in states]
    if not any(state in BAD for state in known) or stage.trigger is Trigger.ALL_DONE:
        return False
    if stage.trigger is Trigger.ONE_SUCCESS:
        return len(known) == len(stage.dependencies) and OK not in known
    return True
