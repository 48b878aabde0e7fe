"""The reference model of a dynamic fan-out: what becomes of the stage, given how its items ended.

How each item ends that is left alone is the model's own to say; in which order items end, and which of them
the end of their stage still finds running, is the schedule's.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import attrs

from .attempt_model import (
    CANCELLED,
    FAILED,
    OK,
    SKIPPED,
    Begun,
    Ending,
    Expected,
    Given,
    Seen,
    Span,
    allow_running,
    live,
)
from .plans import Act, FanPlan, Source, StagePlan
from .restart_model import NEAR, Facts, Problem, find_leaves

if TYPE_CHECKING:
    from .restart_model import ItemEnd

TIMED_OUT: Problem = ("StageTimeoutError",)
ITEM_FAILED: Problem = ("ItemFailedError",)


def count_items(stage: StagePlan, seen: Seen) -> int | Problem:
    """Return how many items a fan-out has, or the error of asking for them."""
    fan = stage.fan
    assert fan is not None
    if fan.source is not Source.PAIR:
        return fan.count
    output = seen[fan.giver].output
    if output is None:
        return ("NoOutputError",)
    return len(output.data["items"]) if "items" in output.data else ("MissingKeyError",)


@attrs.frozen
class Cause:
    """What an item did about its stage."""

    index: int
    act: str
    """`abort`, `fail`, `escalate` or `cancel`."""
    problem: Problem = ()


def find_cause(stage: StagePlan, end: ItemEnd, expected: Expected, facts: Facts, cutoff: float) -> Cause | None:
    """Return what an item that ended so does about its stage, None where nothing.

    Args:
        stage: The fan-out.
        end: How the item ended.
        expected: How it would, left alone.
        facts: What the schedule decided.
        cutoff: When its stage was stopped from outside; then no policy is asked any more.
    """
    fan = stage.fan
    assert fan is not None
    # At the very moment of a stop either may come first, and what the stage failed with tells.
    told = {crash.problem for crash in facts.crashes if crash.stage == stage.name}
    before, tied = end.at < cutoff - NEAR, end.at < cutoff + NEAR
    if end.state is CANCELLED and expected.state is CANCELLED and _replied(stage, end, facts):
        return None if not before and TIMED_OUT in told else Cause(end.index, "cancel")
    if end.state is not FAILED:
        return None
    problem = next((one.problem for one in reversed(facts.crashes) if one.stage == f"{stage.name}[{end.index}]"), ())
    if "Abort" in problem:
        return Cause(end.index, "abort", problem)
    asked = before or (tied and ITEM_FAILED in told)
    escalates = asked and expected.escalates and expected.attempts[-1].problem == problem
    if escalates or fan.ends_at_failure:
        return Cause(end.index, "escalate" if escalates else "fail", problem)
    return None


def _replied(stage: StagePlan, end: ItemEnd, facts: Facts) -> bool:
    """Return whether an item that was to cancel the run came to do so."""
    name = f"{stage.name}[{end.index}]"
    attempt = max((number for actor, number in facts.starts if actor == name), default=0)
    at = stage.item(end.index).at(max(attempt, 1))
    return bool(attempt) and at.act is Act.CANCEL and end.at >= facts.starts[name, attempt] + at.sleep - NEAR


def find_causes(
    stage: StagePlan,
    expected: dict[int, Expected],
    start: float,
    facts: Facts,
    stopped: float | None,
) -> list[Cause]:
    """Return what the items of a fan-out did about it, in order."""
    cutoff = min(inf if stopped is None else stopped, inf if stage.timeout is None else start + stage.timeout)
    ends = facts.items.get(stage.name, ())
    found = (find_cause(stage, end, expected[end.index], facts, cutoff) for end in ends)
    return [cause for cause in found if cause is not None]


def expect_items(
    stage: StagePlan, seen: Seen, start: float, facts: Facts, denied: set[tuple[str, int]]
) -> dict[int, Expected]:
    """Return how the items that ended would have ended, left alone."""
    ends = facts.items.get(stage.name, ())
    return {end.index: live(stage.item(end.index), seen, start, facts, denied) for end in ends}


def end_fan(
    stage: StagePlan,
    seen: Seen,
    start: float,
    facts: Facts,
    denied: set[tuple[str, int]],
    *,
    stopped: float | None = None,
    near: float = NEAR,
) -> list[Ending]:
    """Return the endings of a fan-out that began at `start`, and that its run stopped at `stopped`, or not.

    Args:
        stage: The fan-out.
        seen: What became of the stages before it.
        start: When it began.
        facts: What the schedule decided.
        denied: The failed attempts after which its run had no restart left.
        stopped: When its run stopped, where it did.
        near: The seconds that may pass, on a real clock, in what is one moment on a virtual one.
    """
    fan = stage.fan
    assert fan is not None
    count = count_items(stage, seen)
    if isinstance(count, tuple):
        return [Ending(FAILED, problem=count)]
    ends = facts.items.get(stage.name, ())
    expected = expect_items(stage, seen, start, facts, denied)
    causes = find_causes(stage, expected, start, facts, stopped)
    aborts = [cause for cause in causes if cause.act == "abort"]
    if aborts:
        leaves = [leaf for cause in aborts for leaf in find_leaves(cause.problem)]
        return [Ending(FAILED, problem=("Abort",) if len(aborts) == 1 else ("BaseExceptionGroup", *leaves))]
    if causes:
        return [Ending(CANCELLED) if causes[0].act == "cancel" else Ending(FAILED, problem=ITEM_FAILED)]
    deadline = inf if stage.timeout is None else start + stage.timeout
    stop = inf if stopped is None else stopped
    over = max([min(deadline, stop), *(end.at for end in ends)])
    cut = []
    if deadline <= stop + NEAR and over <= stop + NEAR and deadline < inf:
        cut.append(Ending(FAILED, problem=TIMED_OUT))
    if stop < inf and over >= stop - NEAR:  # also where it was held up after its timeout
        cut.append(Ending(CANCELLED))
    if len(ends) < count or any(end.state is CANCELLED for end in ends):
        return cut
    # Every item has replied, or failed, by itself: that counts, also after a stop.
    found = {end.index: _find_endings(stage, seen, end, expected, facts, min(stop, deadline)) for end in ends}
    whole = Ending(OK, Given("ok", make_data(fan, ends, found)))
    # It lets others run after each item that is refused, and may be stopped before it knows of that there are no more.
    refused = [facts.refused[name][1] for end in ends if (name := f"{stage.name}[{end.index}]") in facts.refused]
    paused = any(abs(at - min(stop, deadline)) <= near for at in refused)
    return [whole, *cut] if paused else [whole]


def _find_endings(
    stage: StagePlan, seen: Seen, end: ItemEnd, expected: dict[int, Expected], facts: Facts, cutoff: float
) -> list[Ending]:
    """Return the endings of an item that ended in its state, its stage having been stopped from outside at `cutoff`."""
    alone = expected[end.index]
    endings = [Ending(alone.state, alone.output, alone.problem)]
    if end.at > cutoff - NEAR:
        item = stage.item(end.index)
        attempt = max((number for actor, number in facts.starts if actor == item.name), default=0)
        if attempt:
            endings += allow_running(item, seen, Begun(attempt, facts.starts[item.name, attempt]), cutoff)
    return [ending for ending in endings if ending.state is end.state]


class OneOf:
    """Equal to each of some values."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __eq__(self, other: object) -> bool:
        return other in self._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return " or ".join(map(repr, self._values))


def make_data(fan: FanPlan, ends: tuple[ItemEnd, ...], found: dict[int, list[Ending]]) -> dict[str, Any]:
    """Return the data of a fan-out all of whose items came to an end of their own."""
    states = [end.state for end in ends]
    counts = {"count": len(ends), **{name: states.count(state) for name, state in _COUNTED.items()}}
    if not fan.collects:
        return counts
    state_of = {end.index: end.state for end in ends}
    given = {index: [one.output.data for one in endings if one.output] for index, endings in found.items()}
    return {
        **counts,
        "results": tuple(OneOf(given[index]) if state_of[index] is OK else None for index in sorted(found)),
        "failures": {
            index: OneOf([one.problem for one in found[index]]) for index in sorted(found) if state_of[index] is FAILED
        },
    }


_COUNTED = {"ok": OK, "skipped": SKIPPED, "failed": FAILED}


def live_fan(stage: StagePlan, seen: Seen, now: float, facts: Facts, denied: set[tuple[str, int]]) -> Expected:
    """Return what comes of a fan-out that nothing outside stops. It is not restarted as a whole."""
    start = facts.starts.get((stage.name, 1), now)
    endings = end_fan(stage, seen, start, facts, denied)
    if not endings:
        return Expected(FAILED, problem=("items are missing",))
    told = {crash.problem for crash in facts.crashes if crash.stage == stage.name}
    ending = next((one for one in endings if one.problem in told), endings[0])
    ended = max((end.at for end in facts.items.get(stage.name, ())), default=start)
    if ending.problem == TIMED_OUT:
        assert stage.timeout is not None
        ended = max(ended, start + stage.timeout)
    span = Span(start, ended, ending.problem)
    causes = find_causes(stage, expect_items(stage, seen, start, facts, denied), start, facts, None)
    escalates = ending.problem == ITEM_FAILED and causes[0].act == "escalate"
    return Expected(ending.state, ending.output, ending.problem, attempts=(span,), ended=ended, escalates=escalates)
