"""The reference model: what the contract says comes of a drawn run, in plain Python.

It knows the plan and the contract, and of the package only the public names of states and triggers.
"""

from __future__ import annotations

import attrs

from stageflow_actors import Trigger

from .attempt_model import BAD, FAILED, ISOLATED, OK, SKIPPED, Expected, Given, Seen, StageState, find_sum, live
from .fan_model import live_fan
from .plans import GIVEN_SUM, Ask, RunPlan, StagePlan
from .restart_model import NO_FACTS, Facts, Problem, find_denied


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


def predict(plan: RunPlan, facts: Facts = NO_FACTS) -> Seen:
    """Return what comes of every stage of a run that nothing stops early.

    Args:
        plan: The run.
        facts: What the schedule decided; not needed where there are no limits.
    """
    given = dict(plan.overrides)
    denied = find_denied(plan, facts.crashes)
    waiting = {stage.name: stage for stage in wanted(plan)}
    seen: Seen = {}
    while waiting:
        for name, stage in list(waiting.items()):
            if name in given:
                seen[name] = _predict_given(given[name])
            elif all(dependency in seen for dependency in stage.dependencies):
                seen[name] = _predict_stage(stage, seen, facts, denied)
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


def _predict_stage(stage: StagePlan, seen: Seen, facts: Facts, denied: set[tuple[str, int]]) -> Expected:
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
    make = live if stage.fan is None else live_fan
    return attrs.evolve(make(stage, seen, now, facts, denied), started=now)


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
        return find_sum(stage, seen) % 2 == 0
    output = seen[when.router].output
    return output is not None and output.label == when.label


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
