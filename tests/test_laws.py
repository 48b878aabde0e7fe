"""The laws that `check_pipeline` checks: each is told of when what is known of a sound run is changed to break it."""

from __future__ import annotations

from types import MappingProxyType

import attrs
import pytest
import trio
from law_cases import judge, observe

from stageflow_actors import (
    FanOutLimiterStage,
    Ledger,
    Limiter,
    Pipeline,
    Restart,
    RunEnd,
    RunEnding,
    StageOutput,
    StageState,
    Trigger,
    route,
)
from stageflow_actors.errors import StageReturnTypeError
from stageflow_actors.events import LedgerUnbalanced, RunStopping, StageEnded, StageRestarting, StageStarted
from stageflow_actors.testing._witness import Call, Notes, _Limit

OK, SKIPPED, FAILED = StageState.OK, StageState.SKIPPED, StageState.FAILED
ISOLATED, CANCELLED, ABANDONED = StageState.ISOLATED, StageState.CANCELLED, StageState.ABANDONED


async def work(_ctx):
    return {"x": 1}


async def skip(_ctx):
    return StageOutput.skip("idle")


async def fail(_ctx):
    await trio.sleep(0.01)  # "b" has failed by then, and backs off
    raise ConnectionError("no")


async def heal(ctx):
    if ctx.attempt == 1:
        raise ConnectionError("no")


async def left(_ctx):
    return StageOutput.route("left")


PIPELINE = (
    Pipeline("p")
    .with_stage("a", work)
    .with_stage("b", heal, dependencies="a", restart=Restart(max_restarts=1))
    .with_stage("bad", fail, dependencies="a")
    .with_stage("cut off", work, dependencies=("a", "bad"))
    .with_stage("idle", skip)
    .with_stage("skipped", work, dependencies="idle")
    .with_stage("end", work, dependencies=("cut off", "skipped"), trigger=Trigger.ALL_DONE)
    .with_stage("router", left)
    .with_stage("right", work, dependencies="router", when=route("router", "right"))
    .with_stage("asked", work, dependencies="router", when=lambda _inputs: False)
    .with_stage("limited", work, limiter=Limiter(2))
)


@pytest.fixture
def sound():
    seen = observe(PIPELINE, continue_on_failure=True)
    assert judge(*seen) == []
    return seen


@pytest.fixture
def stopped():
    pipeline = (
        PIPELINE.with_stage("late", work, dependencies="b")
        .with_stage("any", work, dependencies=("bad", "late"), trigger=Trigger.ONE_SUCCESS)
        .with_stage("below", work, dependencies="cut off")
    )
    seen = observe(pipeline)
    assert judge(*seen) == []
    return seen


def find(events, cls, stage):
    return next(at for at, event in enumerate(events) if isinstance(event, cls) and event.stage == stage)


def get_call(witness, stage):
    return next(call for call in witness.notes.calls if call.stage == stage)


# Order


def test_a_stage_that_begins_before_its_dependency_has_ended(sound):
    witness, result, events = sound
    events.insert(find(events, StageEnded, "a"), events.pop(find(events, StageStarted, "bad")))
    assert judge(witness, result, events) == ["order: stage 'bad' began before its dependency 'a' had ended"]


def test_a_stage_that_begins_after_it_has_ended(sound):
    witness, result, events = sound
    events.insert(-1, attrs.evolve(events[find(events, StageStarted, "a")], attempt=2))
    assert judge(witness, result, events) == [
        "order: stage 'a' began after it had ended",
        "order: stage 'a' was run 2 times, and 1 are allowed",
    ]


def test_attempts_in_the_wrong_order(sound):
    witness, result, events = sound
    restarting = find(events, StageRestarting, "b")
    again = restarting + find(events[restarting:], StageStarted, "b")
    events[again] = attrs.evolve(events[again], attempt=1)
    assert judge(witness, result, events) == ["order: stage 'b' began its attempts in the order [1, 1]"]


def test_a_restart_too_many(sound):
    witness, result, events = sound
    events.insert(find(events, StageEnded, "b"), attrs.evolve(events[find(events, StageStarted, "b")], attempt=3))
    assert judge(witness, result, events) == ["order: stage 'b' was run 3 times, and 2 are allowed"]


def test_a_stage_that_runs_without_being_started(sound):
    witness, result, events = sound
    del events[find(events, StageStarted, "a")]
    assert "order: stage 'a' was run without being started" in judge(witness, result, events)


def test_a_stage_that_sees_how_a_dependency_had_not_ended(sound):
    witness, result, events = sound
    call = get_call(witness, "bad")
    call.states = {"a": StageState.RUNNING}
    assert judge(witness, result, events) == ["order: stage 'bad' began when its dependency 'a' was running"]
    call.states = {"a": SKIPPED}
    assert judge(witness, result, events) == [
        "order: stage 'bad' saw its dependency 'a' as skipped, and in the end that is ok"
    ]


def test_a_stage_that_begins_although_the_run_stops(stopped):
    witness, result, events = stopped
    events.insert(-1, attrs.evolve(events[find(events, StageStarted, "a")], stage="late"))
    told = judge(witness, result, events)
    assert "order: stage 'late' began although the run was stopping" in told


# Conservation


def test_a_ledger_that_does_not_balance(sound):
    witness, result, events = sound
    result.ledger = attrs.evolve(result.ledger, replied=result.ledger.replied - 1)
    (told,) = judge(witness, result, events)
    assert told.startswith("conservation: the ledger does not balance: Ledger(accepted=7, replied=5, failed=1")
    result.ledger = attrs.evolve(result.ledger, replied=result.ledger.replied + 1)
    events.insert(-1, LedgerUnbalanced("run", 0.0, Ledger()))
    assert len(judge(witness, result, events)) == 1


@pytest.mark.parametrize("change", [-1, 2])
def test_messages_that_were_lost_or_counted_twice(sound, change):
    witness, result, events = sound
    ledger = result.ledger
    result.ledger = attrs.evolve(ledger, accepted=ledger.accepted + change, replied=ledger.replied + change)
    (told,) = judge(witness, result, events)
    assert told == f"conservation: 7 stages ran, and the ledger has {ledger.accepted + change} messages"


def test_a_stage_that_has_no_final_state(sound):
    witness, result, events = sound
    result.states["right"] = StageState.PENDING
    assert "conservation: stage 'right' is pending, and the run is over" in judge(witness, result, events)


def test_a_stage_that_ends_twice_or_never(sound):
    witness, result, events = sound
    at = find(events, StageEnded, "limited")
    events.insert(at, events[at])
    assert judge(witness, result, events) == ["conservation: stage 'limited' ended 2 times"]
    del events[at : at + 2]
    assert judge(witness, result, events) == ["conservation: stage 'limited' ended 0 times"]


def test_a_stage_that_ends_as_it_is_not(sound):
    witness, result, events = sound
    at = find(events, StageEnded, "limited")
    events[at] = attrs.evolve(events[at], state=CANCELLED)
    assert judge(witness, result, events) == ["conservation: stage 'limited' ended cancelled and is ok"]


def test_a_failure_or_an_output_that_does_not_belong_to_the_state(sound):
    witness, result, events = sound
    result.failures["a"] = result.failures["bad"]
    told = judge(witness, result, events)
    assert "conservation: stage 'a' is ok, and its failure is ConnectionError: no" in told
    del result.failures["a"]
    del result["limited"]
    assert judge(witness, result, events) == ["conservation: stage 'limited' is ok, and its output is None"]


def test_an_end_that_is_told_otherwise(sound):
    witness, result, events = sound
    result.ended = RunEnd(RunEnding.TIMED_OUT)
    told = judge(witness, result, events)
    assert told == ["conservation: the run ended timed out, and told of ['completed']"]


@pytest.mark.parametrize(
    ("stage", "outcome", "told"),
    [
        ("a", "skip", "returned skip"),
        ("a", "cancel", "returned cancel"),
        ("a", "fail", "returned fail"),
        ("a", "raised", "raised"),
        ("a", "was cancelled", "was cancelled"),
        ("idle", "ok", "returned ok"),
        ("bad", "ok", "returned ok"),
    ],
)
def test_a_state_that_is_not_what_the_stage_did(sound, stage, outcome, told):
    witness, result, events = sound
    get_call(witness, stage).outcome = outcome
    state = result.states[stage].value
    assert judge(witness, result, events) == [f"conservation: stage {stage!r} is {state}, and its attempt 1 {told}"]


def test_a_stage_that_broke_the_contract_may_have_returned(sound):
    witness, result, events = sound
    get_call(witness, "bad").outcome = "ok"
    result.failures["bad"] = attrs.evolve(result.failures["bad"], error=StageReturnTypeError("no"))
    assert judge(witness, result, events) == []


# Isolation


@pytest.mark.parametrize(
    ("stage", "state", "told"),
    [
        ("cut off", SKIPPED, "is to be isolated (a ok, bad failed; all_success), and it did not run: skipped"),
        ("skipped", CANCELLED, "is to be skipped (idle skipped; all_success), and it did not run: cancelled"),
        ("right", CANCELLED, "is to run (router ok; all_success), and it did not run: cancelled"),
        ("asked", CANCELLED, "is to run (router ok; all_success), and it did not run: cancelled"),
        ("a", ISOLATED, "is to run (no dependencies; all_success), and it ran: isolated"),
    ],
)
def test_a_state_that_does_not_follow_from_the_trigger(sound, stage, state, told):
    witness, result, events = sound
    result.states[stage] = state
    assert f"isolation: stage {stage!r} {told}" in judge(witness, result, events)


def test_a_stage_that_ran_and_was_not_to(sound):
    witness, result, events = sound
    events.insert(-1, attrs.evolve(events[find(events, StageStarted, "a")], stage="skipped"))
    told = judge(witness, result, events)
    assert "isolation: stage 'skipped' is to be skipped (idle skipped; all_success), and it ran: skipped" in told


def test_the_wrong_cause(sound):
    witness, result, events = sound
    result.chains["cut off"] = ("cut off", "a")
    assert judge(witness, result, events) == [
        "isolation: stage 'cut off' is isolated, because of 'bad', and its cause chain is ('cut off', 'a')"
    ]


def test_what_is_given_does_not_run(sound):
    witness, result, events = sound
    told = judge(witness, result, events, given=["a"])
    assert "isolation: stage 'a' is given (no dependencies; all_success), and it ran: ok" in told


def test_what_a_stop_isolates(stopped):
    witness, result, events = stopped
    assert result.states["cut off"] is result.states["below"] is ISOLATED
    assert result.states["late"] is result.states["any"] is CANCELLED
    told = "what it needs {} ended badly when the run stopped"
    result.states["below"] = CANCELLED
    events[find(events, StageEnded, "below")] = attrs.evolve(events[find(events, StageEnded, "below")], state=CANCELLED)
    assert judge(witness, result, events) == [f"isolation: stage 'below' is cancelled; {told.format('had')}"]
    result.states["below"] = ISOLATED
    events[find(events, StageEnded, "below")] = attrs.evolve(events[find(events, StageEnded, "below")], state=ISOLATED)
    result.states["any"] = ISOLATED
    events[find(events, StageEnded, "any")] = attrs.evolve(events[find(events, StageEnded, "any")], state=ISOLATED)
    assert judge(witness, result, events) == [f"isolation: stage 'any' is isolated; {told.format('had not')}"]


@pytest.mark.parametrize(
    ("stage", "state", "told"),
    [
        ("late", SKIPPED, "is skipped, and was not decided when the run stopped"),
        ("b", ISOLATED, "ran, and is isolated"),
    ],
)
def test_what_a_stop_does_to_the_others(stopped, stage, state, told):
    witness, result, events = stopped
    result.states[stage] = state
    assert f"isolation: stage {stage!r} {told}" in judge(witness, result, events)


# Immutability


def test_an_output_that_is_not_what_was_returned(sound):
    witness, result, events = sound
    changed = StageOutput.ok({"x": 2})
    result["a"] = changed
    for call in witness.notes.calls:
        call.outputs = MappingProxyType({**call.outputs, **({"a": changed} if "a" in call.outputs else {})})
    assert judge(witness, result, events) == [
        "immutability: stage 'a' has put out something else than it returned: data['x'] is 2 and was 1"
    ]


def test_an_output_that_is_not_what_others_see(sound):
    witness, result, events = sound
    call = get_call(witness, "bad")
    call.outputs = {"a": StageOutput.ok({"x": 1})}
    assert judge(witness, result, events) == ["immutability: stage 'bad' saw another output of 'a' than the run has"]
    call.outputs = {}
    assert judge(witness, result, events) == ["immutability: stage 'bad' saw no output of 'a', and the run has one"]


# Limits and what is left


def test_a_limiter_that_is_not_idle_in_the_end(sound):
    witness, result, events = sound
    (limiter,) = witness.limiters.values()

    async def main():
        async with limiter.slot():
            return judge(witness, result, events)

    assert trio.run(main) == ["limits: the limiter of 'limited' still has 1 running and 0 queued"]


def test_more_behind_a_limit_than_it_admits():
    notes = Notes()
    limits = (_Limit("the limiter of 'a'", 1), _Limit("max_running_stages", 5))
    notes.enter(Call("a", "a", 1, {}, {}), limits, repeats=False)
    assert notes.problems == []
    notes.enter(Call("b", "b", 1, {}, {}), limits, repeats=False)
    assert [str(problem) for problem in notes.problems] == [
        "limits: stage 'b' began as number 2 behind the limiter of 'a', which admits 1"
    ]


def test_an_attempt_twice_or_beside_another():
    notes = Notes()
    first = Call("a", "a", 1, {}, {})
    notes.enter(first, (), repeats=False)
    notes.enter(Call("a", "a", 2, {}, {}), (), repeats=False)
    notes.leave(first, (), "ok")
    assert [str(problem) for problem in notes.problems] == [
        "order: stage 'a' began its attempt 2 while another was going on"
    ]
    notes = Notes()
    for repeats in (False, True, False):
        call = Call("a", "a[0]", 1, {}, {})
        notes.enter(call, (), repeats=repeats)
        notes.leave(call, (), "ok")
    assert [str(problem) for problem in notes.problems] == ["order: stage 'a[0]' began its attempt 1 twice"]


def test_who_is_still_inside(sound):
    witness, result, events = sound
    call = get_call(witness, "a")
    call.outcome = None
    assert judge(witness, result, events) == ["no task left: stage 'a' is still inside its attempt 1"]
    result.states["a"] = ABANDONED
    events[find(events, StageEnded, "a")] = attrs.evolve(events[find(events, StageEnded, "a")], state=ABANDONED)
    assert not [told for told in judge(witness, result, events) if told.startswith("no task left")]


# Fan-outs


def test_items_are_heard_and_their_limiter_is_the_fan_outs():
    worker = FanOutLimiterStage(heal, items=range(3), limiter=Limiter(2), restart=Restart(max_restarts=1))
    witness, result, events = observe(Pipeline("p").with_stage("f", worker), continue_on_failure=True)
    assert judge(witness, result, events) == []
    assert {call.actor for call in witness.notes.calls} == {"f[0]", "f[1]", "f[2]"}
    assert len(witness.notes.calls) == 6
    assert [limiter.statistics().admitted for limiter in witness.limiters.values()] == [6]
    assert worker.limiter.statistics().admitted == 0
    at = find(events, StageStarted, "f")
    events.insert(-1, RunStopping("run", 0.0, RunEnd(RunEnding.CANCELLED)))
    events.insert(-1, attrs.evolve(events[at], item=1))
    assert "order: stage 'f[1]' began although the run was stopping" in judge(witness, result, events)
