"""The reference model of a run that ends before its time: what may become of each stage, given who had ended by then.

The contract: "the rest is decided once, from the states already ended: a stage that these make ISOLATED
is so, everything else unfinished is CANCELLED"; and work that returned a value although cancelled counts.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from stageflow_actors.events import (
    Event,
    RunStopping,
    StageCrashed,
    StageEnded,
    StageRejected,
    StageRestarting,
    StageStarted,
)

from .attempt_model import BAD, CANCELLED, FAILED, ISOLATED, Begun, Ending, Seen, allow_running
from .fan_model import end_fan
from .model import predict, settle
from .plans import THREADED, Ask, RunPlan, StagePlan
from .problems import name_problem
from .restart_model import EXHAUSTED, NEAR, Crash, Facts, ItemEnd, find_denied

if TYPE_CHECKING:
    from stageflow_actors import StageState


@attrs.frozen
class Moment:
    """What the events of a run say of the moment at which it stopped."""

    time: float
    ended: dict[str, StageState]
    """The stages that had their final state."""
    begun: dict[str, Begun]
    """The stages of which an attempt went on."""
    late: list[str]
    """The stages of which an attempt began after it."""
    facts: Facts
    """Of the whole run: a model of what had ended by then needs no others than those of that time."""


def name_actor(event: StageStarted | StageCrashed | StageEnded | StageRejected | StageRestarting) -> str:
    """Return the name of the stage or item that an event is about."""
    return event.stage if event.item is None else f"{event.stage}[{event.item}]"


def find_facts(events: list[Event]) -> Facts:
    """Return what the schedule decided."""
    starts: dict[tuple[str, int], float] = {}
    refused: dict[str, tuple[int, float]] = {}
    crashes: list[Crash] = []
    attempts: Counter[str] = Counter()
    items: dict[str, tuple[ItemEnd, ...]] = {}
    for event, following in zip(events, [*events[1:], None], strict=True):
        if isinstance(event, StageStarted):
            attempts[name_actor(event)] += 1
            starts[name_actor(event), event.attempt] = event.at
        elif isinstance(event, StageRejected):
            refused[name_actor(event)] = (1 + attempts[name_actor(event)], event.at)
        elif isinstance(event, StageCrashed):
            judged = isinstance(following, StageRestarting) or (
                isinstance(following, StageEnded) and following.reason.startswith(EXHAUSTED[0])
            )
            crashes.append(Crash(name_actor(event), event.attempt, event.at, name_problem(event.error), judged))
        elif isinstance(event, StageEnded) and event.item is not None:
            items[event.stage] = (*items.get(event.stage, ()), ItemEnd(event.item, event.state, event.at))
    return Facts(starts, refused, tuple(crashes), items)


def find_moment(events: list[Event]) -> Moment | None:
    """Return the moment at which a run stopped, or None where it came to its end."""
    number = next((number for number, event in enumerate(events) if isinstance(event, RunStopping)), None)
    if number is None:
        return None
    before, after = events[:number], events[number:]
    begun: dict[str, Begun] = {}
    for event in before:
        if isinstance(event, StageStarted):
            begun[name_actor(event)] = Begun(event.attempt, event.at)
        elif isinstance(event, StageRestarting):
            del begun[name_actor(event)]
    ended = {event.stage: event.state for event in before if isinstance(event, StageEnded) and event.item is None}
    late = [name_actor(event) for event in after if isinstance(event, StageStarted)]
    return Moment(events[number].at, ended, begun, late, find_facts(events))


def foresee(plan: RunPlan, moment: Moment, *, timed: bool = True) -> dict[str, list[Ending]]:
    """Return the endings that the contract allows each stage; not timed on a real clock, as with threads."""
    seen = predict(plan, moment.facts)
    # Who ends the run by its reply ends as CANCELLED with all that is unfinished, and isolates nobody.
    isolated = settle(plan, {name: state for name, state in moment.ended.items() if state is not CANCELLED})
    if not timed or any(stage.form in THREADED for stage in plan.stages):
        # Real time, in which nobody sleeps: whoever runs at the stop may have been at any of its steps.
        begun = {name: attrs.evolve(begun, at=moment.time) for name, begun in moment.begun.items()}
        moment = attrs.evolve(moment, begun=begun)
    near = NEAR if timed else 1.0
    return {name: _allow(plan, plan.by_name[name], seen, moment, isolated, near) for name in seen}


def _allow(
    plan: RunPlan, stage: StagePlan, seen: Seen, moment: Moment, isolated: set[str], near: float
) -> list[Ending]:
    name = stage.name
    if name in moment.ended:
        expected = seen[name]
        return [Ending(expected.state, expected.output, expected.problem)]
    if name in moment.begun:
        if stage.fan is not None:
            denied = find_denied(plan, moment.facts.crashes)
            begun = moment.begun[name].at
            return end_fan(stage, seen, begun, moment.facts, denied, stopped=moment.time, near=near)
        return allow_running(stage, seen, moment.begun[name], moment.time)
    if name in isolated:
        return [Ending(ISOLATED)]
    allowed = [Ending(CANCELLED)]
    if stage.when is not None and stage.when.ask is Ask.RAISE:
        # It may be this stage's own predicate that stopped the run, before it raised.
        allowed.append(Ending(FAILED, problem=("PlannedError",)))
    return allowed


def find_parent(plan: RunPlan, name: str, states: dict[str, StageState]) -> str:
    """Return the first dependency, as declared, that one of these states makes the cause."""
    return next(parent for parent in plan.by_name[name].dependencies if states.get(parent) in BAD)


def may_fail_fast(plan: RunPlan, moment: Moment) -> str | None:
    """Return the stage whose failure stopped the run, or None where it was none."""
    seen = predict(plan, moment.facts)
    for name, state in moment.ended.items():
        ends = not plan.continue_on_failure or "Abort" in (seen[name].problem or ()) or seen[name].escalates
        if state is FAILED and ends:
            return name
    return None
