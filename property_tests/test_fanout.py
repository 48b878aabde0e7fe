"""Dynamic fan-outs: every item is accounted for exactly once, whatever it does and whenever it is stopped.

Limits are counted inside the workers, and what became of each item is read from the events; the output, the
ledger and the limiters have to say the same.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import attrs
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors import StageState, events
from stageflow_actors.errors import ItemFailedError, RestartIntensityError

from .fanout_world import CALM_FANS, ENDS_WELL, FANS, LIMITS, PATIENT, RESTARTED, STOPS, Act, plans, play


@attrs.define
class Round:
    """What was told of the items in one attempt at their stage."""

    starts: dict[int, list[int]] = attrs.field(factory=dict)
    ends: dict[int, str] = attrs.field(factory=dict)
    crashes: Counter[int] = attrs.field(factory=Counter)
    restarts: Counter[int] = attrs.field(factory=Counter)
    rejected: set[int] = attrs.field(factory=set)


def read_story(story, stage):
    """Return the rounds of a fan-out; each item is told of in a good order, and ends once."""
    rounds = [Round()]
    began = over = False
    for one in story:
        if getattr(one, "stage", None) != stage:
            continue
        if one.item is None:
            began = began or isinstance(one, events.StageStarted)
            over = isinstance(one, events.StageEnded)
            if isinstance(one, events.StageRestarting):
                rounds.append(Round())
            continue
        assert began
        assert not over
        now = rounds[-1]
        assert one.item not in now.ends
        match one:
            case events.StageStarted():
                now.starts.setdefault(one.item, []).append(one.attempt)
            case events.StageCrashed():
                now.crashes[one.item] += 1
                assert one.attempt == len(now.starts[one.item]) == now.crashes[one.item]
            case events.StageRestarting():
                now.restarts[one.item] += 1
                assert one.attempt == len(now.starts[one.item]) + 1
            case events.StageRejected():
                now.rejected.add(one.item)
            case events.StageEnded():
                now.ends[one.item] = one.state.value
    return rounds


def check_round(fan, told):
    """Every item that was taken ended once, and was run as often as its policy allows."""
    assert sorted(told.ends) == list(range(len(told.ends)))
    assert len(told.ends) <= len(fan.items)
    for item, attempts in told.starts.items():
        assert item in told.ends
        assert attempts == list(range(1, len(attempts) + 1))
        assert len(attempts) <= 1 + (fan.restart[0] if fan.restart else 0)
        assert len(attempts) - 1 <= told.restarts[item] <= len(attempts)
    for item in told.rejected:
        assert told.ends[item] == "failed"
    for item, state in told.ends.items():
        assert state in {"ok", "skipped", "failed", "cancelled"}
        assert item in told.starts or state in {"failed", "cancelled"}


def check_output(fan, told, data):
    """What an OK stage gives is what was told of its items, in their order."""
    states = Counter(told.ends.values())
    assert not states["cancelled"]
    assert data["count"] == len(fan.items) == len(told.ends)
    assert (data["ok"], data["skipped"], data["failed"]) == (states["ok"], states["skipped"], states["failed"])
    assert not (fan.ends_at_failure and data["failed"])
    if not fan.collects:
        assert set(data) == {"count", "ok", "skipped", "failed"}
        return
    assert len(data["results"]) == data["count"]
    for item, found in enumerate(data["results"]):
        assert (found is not None) == (told.ends[item] == "ok")
        assert not found or found == {"index": item, "attempt": told.starts[item][-1]}
    assert list(data["failures"]) == sorted(item for item, state in told.ends.items() if state == "failed")
    for item, failure in data["failures"].items():
        assert [attempt.number for attempt in failure.attempts] == told.starts.get(item, [])
        for before, after in pairwise(failure.attempts):
            assert before.started <= before.ended <= after.started


def check_stage(world, number, fan, ended):
    """Check one fan-out; add how its items ended to `ended`."""
    result, stage = world.result, f"f{number}"
    rounds = read_story(world.story, stage)
    for told in rounds:
        check_round(fan, told)
        ended.update(told.ends.values())
    state = result.states[stage]
    if state is StageState.OK:
        check_output(fan, rounds[-1], result.data(stage))
    else:
        assert state in {StageState.FAILED, StageState.CANCELLED}
    error = result.failures[stage].error if state is StageState.FAILED else None
    if isinstance(error, RestartIntensityError):
        error = error.__cause__
    if isinstance(error, ItemFailedError):
        assert rounds[-1].ends[error.index] == "failed"
        assert fan.ends_at_failure or error.escalates
        assert not error.escalates or fan.escalates
    return len(rounds)


@given(plan=plans(FANS, LIMITS, STOPS, st.none() | st.integers(0, 4)))
def test_every_item_is_accounted_for_exactly_once(plan):
    world = play(plan)
    result, ended = world.result, Counter()
    rounds = [check_stage(world, number, fan, ended) for number, fan in enumerate(plan.fans)]
    states = Counter(result.states.values())
    ledger = result.ledger
    assert ledger.balanced
    told = ledger.accepted - ended.total()
    assert told in {len(plan.fans), 0}
    assert told or not world.begun
    assert ledger.failed == ended["failed"] + states[StageState.FAILED]
    # One that returned `cancel` has replied, and so has its stage.
    replied = ended["ok"] + ended["skipped"] + states[StageState.OK]
    assert replied <= ledger.replied <= replied + ended["cancelled"] + states[StageState.CANCELLED]
    if ended.total() and not any(fan.stage_restart for fan in plan.fans) and set(states) == {StageState.OK}:
        starts = sum(isinstance(one, events.StageStarted) and one.item is not None for one in world.story)
        assert sum(limiter.statistics().admitted for limiter in world.limiters) == starts
    event(f"stages: {', '.join(sorted(state.value for state in states))}")
    event(f"items: {', '.join(sorted(ended))}")
    event(f"the stage was restarted: {max(rounds) > 1}")


def expect(fan, item):
    """Return how an item that nothing stops ends, and after how many attempts."""
    allowed = 1 + (fan.restart[0] if fan.restart else 0)
    for attempt in range(1, allowed + 1):
        if attempt >= item.heals_at:
            return "ok", attempt
        late = fan.timeout is not None and item.took > fan.timeout
        if not late and item.act in ENDS_WELL:
            return ENDS_WELL[item.act], attempt
        if not late and item.act not in RESTARTED:
            break
    return "failed", attempt


@given(plan=plans(CALM_FANS, PATIENT, st.none(), st.none()))
def test_an_item_that_nothing_stops_ends_as_it_would_alone(plan):
    world = play(plan)
    assert world.result.ok
    for number, fan in enumerate(plan.fans):
        (told,) = read_story(world.story, f"f{number}")
        expected = [expect(fan, item) for item in fan.items]
        check_round(fan, told)
        check_output(fan, told, world.result.data(f"f{number}"))
        assert [(told.ends[item], len(told.starts[item])) for item in sorted(told.ends)] == expected
        results = world.result.data(f"f{number}")["results"]
        for position, (item, (state, attempt)) in enumerate(zip(fan.items, expected, strict=True)):
            if state == "ok":
                healed = attempt >= item.heals_at
                given_ = {} if item.act is Act.NONE and not healed else {"index": position, "attempt": attempt}
                assert results[position] == given_
    items = sum(len(fan.items) for fan in plan.fans)
    ledger = world.result.ledger
    assert (ledger.accepted, ledger.cancelled) == (items + len(plan.fans), 0)
    event(f"items: {min(items, 10)}")
