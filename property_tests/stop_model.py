"""The reference model of a run that ends before its time: what may become of each stage, given who had ended by then.

The contract: "the rest is decided once, from the states already ended: a stage that these make ISOLATED
is so, everything else unfinished is CANCELLED"; and work that returned a value although cancelled counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from stageflow_actors.events import Event, RunStopping, StageEnded, StageStarted

from .model import (
    BAD,
    CANCELLED,
    FAILED,
    ISOLATED,
    NOTICING,
    Ending,
    Seen,
    act,
    interrupted,
    predict,
    run_alone,
    settle,
)
from .plans import THREADED, Act, Ask, Form, Reaction, RunPlan, StagePlan

if TYPE_CHECKING:
    from stageflow_actors import StageState


@attrs.frozen
class Moment:
    """What the events of a run say of the moment at which it stopped."""

    time: float
    ended: dict[str, StageState]
    """The stages that had their final state."""
    begun: dict[str, float]
    """The stages that had begun, and when."""
    late: list[str]
    """The stages that began after it."""


def find_moment(events: list[Event]) -> Moment | None:
    """Return the moment at which a run stopped, or None where it came to its end."""
    number = next((number for number, event in enumerate(events) if isinstance(event, RunStopping)), None)
    if number is None:
        return None
    before, after = events[:number], events[number:]
    begun = {event.stage: event.at for event in before if isinstance(event, StageStarted)}
    ended = {event.stage: event.state for event in before if isinstance(event, StageEnded)}
    late = [event.stage for event in after if isinstance(event, StageStarted)]
    return Moment(events[number].at, ended, begun, late)


def foresee(plan: RunPlan, moment: Moment) -> dict[str, list[Ending]]:
    """Return the endings that the contract allows each stage."""
    seen = predict(plan)
    # Who ends the run by its reply ends as CANCELLED with all that is unfinished, and isolates nobody.
    isolated = settle(plan, {name: state for name, state in moment.ended.items() if state is not CANCELLED})
    if any(stage.form in THREADED for stage in plan.stages):
        # Real time, in which nobody sleeps: whoever runs at the stop may have been at any of its steps.
        moment = attrs.evolve(moment, begun=dict.fromkeys(moment.begun, moment.time))
    return {name: _allow(plan.by_name[name], seen, moment, isolated) for name in seen}


def _allow(stage: StagePlan, seen: Seen, moment: Moment, isolated: set[str]) -> list[Ending]:
    name = stage.name
    if name in moment.ended:
        expected = seen[name]
        return [Ending(expected.state, expected.output, expected.problem)]
    if name in moment.begun:
        return allow_running(stage, seen, moment.begun[name], moment.time)
    if name in isolated:
        return [Ending(ISOLATED)]
    allowed = [Ending(CANCELLED)]
    if stage.when is not None and stage.when.ask is Ask.RAISE:
        # It may be this stage's own predicate that stopped the run, before it raised.
        allowed.append(Ending(FAILED, problem=("PlannedError",)))
    return allowed


def allow_running(stage: StagePlan, seen: Seen, begun: float, stopped: float) -> list[Ending]:
    """Return the endings of a stage that runs when the run stops."""
    alone, _ = run_alone(stage, seen, begun)
    if stage.form in THREADED:
        # One that is a context manager begins before it has its thread, and may still be stopped then.
        return [alone, Ending(CANCELLED)] if stage.form is Form.THREAD_MANAGED else [alone]
    shielded = stage.reaction is Reaction.SHIELDED
    if shielded:
        noticed = Ending(CANCELLED) if stage.act in NOTICING else act(stage, seen)
    else:
        noticed = interrupted(stage) or Ending(CANCELLED)
    limit = stage.sleep if shielded or stage.timeout is None else min(stage.sleep, stage.timeout)
    over = begun + limit
    if over > stopped:
        return [noticed]
    if over < stopped:  # all that was left was its cleanup, which nobody cancels
        return [alone] + ([Ending(CANCELLED)] if stage.act is Act.KEPT_CANCELLED else [])
    return [alone, noticed] + ([Ending(CANCELLED)] if stage.act in NOTICING else [])


def find_parent(plan: RunPlan, name: str, states: dict[str, StageState]) -> str:
    """Return the first dependency, as declared, that one of these states makes the cause."""
    return next(parent for parent in plan.by_name[name].dependencies if states.get(parent) in BAD)


def may_fail_fast(plan: RunPlan, moment: Moment) -> str | None:
    """Return the stage whose failure stopped the run, or None where it was none."""
    seen = predict(plan)
    for name, state in moment.ended.items():
        if state is FAILED and (not plan.continue_on_failure or seen[name].problem == ("Abort",)):
            return name
    return None
