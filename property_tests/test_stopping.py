"""A run that ends before its time: what was decided stays, the rest is decided once, nothing more begins or is left."""

from __future__ import annotations

import attrs
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors import PipelineFailedError, RunEnding
from stageflow_actors.events import StageEnded

from .attempt_model import CANCELLED, FAILED, ISOLATED, OK, SKIPPED
from .comparing import describe, flatten
from .harness import run_plan
from .model import predict
from .plans import Act, Ask, Reaction, Stop, Way
from .problems import Abort, leaves
from .stop_model import find_facts, find_moment, find_parent, foresee, may_fail_fast
from .strategies import STOP_TIMES, narrow_plans, stopped_plans


def check_completed(plan, outcome):
    """Nothing stopped it: nothing in it may have wanted to."""
    expected = predict(plan, find_facts(outcome.events))
    assert outcome.result.states == {name: stage.state for name, stage in expected.items()}
    assert outcome.result.ended.ending is RunEnding.COMPLETED
    ends = (stage.state is CANCELLED or stage.problem == ("Abort",) or stage.escalates for stage in expected.values())
    assert not any(ends)
    assert plan.continue_on_failure or not outcome.result.failures


def needs_handle(plan):
    return plan.stop is not None and plan.stop.way is Way.HANDLE


@settings(max_examples=3 * settings.default.max_examples)
@given(plan=stopped_plans())
def test_every_stage_ends_as_the_stop_allows(plan):
    check_stopped(plan, run_plan(attrs.evolve(plan, started=True)))


@settings(max_examples=2 * settings.default.max_examples)
@given(plan=stopped_plans(limits=True))
def test_every_stage_ends_as_the_stop_allows_with_limits_too(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    check_stopped(plan, outcome)
    check_ending(plan, outcome)
    assert outcome.left == 0
    assert outcome.result.ledger.balanced
    assert not [problem for meter in outcome.recorder.meters.values() for problem in meter.problems]


@settings(max_examples=3 * settings.default.max_examples)
@given(plan=narrow_plans(acts=[Act.OK] * 5 + [Act.SKIP, Act.RAISE, Act.RAISE]))
def test_what_a_failure_isolates_of_the_rest(plan):
    """Nothing but triggers and failures, so that most stages are left for the stop to decide."""
    check_stopped(plan, run_plan(attrs.evolve(plan, started=True)))


STOPS_IN_PREDICATES = st.builds(
    Stop, st.sampled_from([Way.SCOPE, Way.HANDLE]), entry=st.integers(1, 4), kind=st.just("ask")
)


@given(
    plan=narrow_plans(
        acts=[Act.OK, Act.OK, Act.RAISE],
        asks=[None, Ask.TRUE, Ask.FALSE, Ask.RAISE],
        stops=STOPS_IN_PREDICATES,
        fail_fast=False,
    )
)
def test_a_predicate_that_stops_the_run_decides_nothing_twice(plan):
    outcome = run_plan(plan)
    check_stopped(plan, outcome)
    ended = [told.stage for told in outcome.events if isinstance(told, StageEnded)]
    assert sorted(ended) == sorted(outcome.result.states)
    assert outcome.result.ledger.balanced
    assert outcome.left == 0


@given(plan=stopped_plans(threads=True))
def test_every_thread_ends_as_the_stop_allows(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    check_stopped(plan, outcome)
    moment = find_moment(outcome.events)
    assert moment is None or not moment.late
    assert outcome.left == 0
    assert outcome.result.ledger.balanced


@given(plan=stopped_plans(), at=STOP_TIMES)
def test_a_second_stop_changes_nothing_that_the_first_decided(plan, at):
    """A scope around it that is cancelled before, with or after what stops it otherwise, or its end."""
    outcome = run_plan(attrs.evolve(plan, started=True, scope_at=at))
    check_stopped(plan, outcome)
    assert outcome.left == 0
    assert outcome.result.ledger.balanced


def check_stopped(plan, outcome):
    """Compare every stage with what the model allows it, given who had ended when the run stopped."""
    moment = find_moment(outcome.events)
    if moment is None:
        event("completed")
        check_completed(plan, outcome)
        return
    event(str(outcome.result.ended.ending))
    allowed = foresee(plan, moment)
    for name in outcome.result.states:
        assert describe(outcome.result, name) in [flatten(ending) for ending in allowed[name]], name


@given(plan=stopped_plans())
def test_nothing_begins_after_the_stop(plan):
    outcome = run_plan(plan)
    if plan.started:
        moment = find_moment(outcome.events)
        assert moment is None or not moment.late
    stopped = outcome.recorder.stopped_after
    if stopped is not None and plan.stop.entry is not None:
        before, after = outcome.recorder.entries[:stopped], outcome.recorder.entries[stopped:]
        entered = {entry.stage for entry in before if entry.kind == "enter"}
        # A scope cancelled by the first predicates is noticed where the run's own task first waits.
        unnoticed = plan.stop.way is Way.SCOPE and {entry.kind for entry in before} <= {"ask"}
        assert {entry.kind for entry in after} <= {"begin", "end", "exit"} | ({"ask"} if unnoticed else set())
        # An instance that was entered when the stop came is still run: its stage had begun.
        assert {entry.stage for entry in after if entry.kind == "begin"} <= entered


@given(plan=stopped_plans())
def test_no_task_is_left(plan):
    assert run_plan(plan).left == 0


@given(plan=stopped_plans())
def test_how_a_run_ended_is_told(plan):
    check_ending(plan, run_plan(attrs.evolve(plan, started=True)))


@given(plan=narrow_plans(acts=[Act.OK, Act.OK, Act.CANCEL], reactions=list(Reaction), fail_fast=False))
def test_a_reply_of_cancel_ends_the_run_unless_another_stage_fails(plan):
    outcome = run_plan(plan)
    check_stopped(plan, outcome)
    check_ending(plan, outcome)


def check_ending(plan, outcome):
    """Compare how a run says it ended with who or what must have ended it."""
    moment = find_moment(outcome.events)
    if moment is None:
        return
    ended = outcome.result.ended
    culprit = may_fail_fast(plan, moment)
    repliers = [name for name, state in moment.ended.items() if state is CANCELLED]
    if culprit is not None:
        assert ended.ending is RunEnding.FAILED
        assert repr(culprit) in ended.reason
    elif repliers:
        (replier,) = repliers
        assert plan.by_name[replier].act is Act.CANCEL
        failed_too = not plan.continue_on_failure and outcome.result.failures
        assert ended.ending is (RunEnding.FAILED if failed_too else RunEnding.CANCELLED)
        assert failed_too or (repr(replier) in ended.reason and "enough" in ended.reason)
    else:
        assert plan.stop is not None
        timed = plan.stop.way is Way.TIMEOUT
        assert ended.ending is (RunEnding.TIMED_OUT if timed else RunEnding.CANCELLED)
        assert plan.stop.at is None or moment.time == plan.stop.at
        assert plan.stop.way is not Way.HANDLE or ended.reason == "from outside"


def check_error(error, result):
    """Compare the error of a run that failed fast with its result: it holds what every stage raised."""
    assert result.ended.ending is RunEnding.FAILED
    assert error.result is result
    assert isinstance(error.__cause__, ExceptionGroup)
    assert list(error.__cause__.exceptions) == [failure.error for failure in result.failures.values()]
    assert error.failures == result.failures
    assert set(error.failures) == {name for name, state in result.states.items() if state is FAILED}


@given(plan=narrow_plans(acts=[Act.OK, Act.OK, Act.RAISE], reactions=[Reaction.PASS, Reaction.MESSY, Reaction.MIXED]))
def test_no_error_is_lost_when_many_stages_fail(plan):
    """The first fails by itself, others in the cleanup that follows."""
    outcome = run_plan(plan)
    check_stopped(plan, outcome)
    if outcome.error is not None:
        check_error(outcome.error, outcome.result)
        event(f"{min(len(outcome.result.failures), 3)} failures")


@given(plan=stopped_plans())
def test_what_comes_out_of_a_run(plan):
    """Its error, the Cancelled of the scope around it, or its result; and what is no Exception before all else."""
    outcome = run_plan(plan)
    result, error = outcome.result, outcome.error
    assert (outcome.returned, error is not None, outcome.cancelled).count(True) == 1
    if isinstance(error, PipelineFailedError):
        check_error(error, result)
    elif error is not None:
        assert {type(leaf) for leaf in leaves(error)} == {Abort}
        assert not plan.started or outcome.raised_again == leaves(error)
    elif outcome.returned:
        escalated = result.ended.ending is RunEnding.FAILED and plan.continue_on_failure
        assert escalated or result.ended.ending in {RunEnding.COMPLETED, RunEnding.TIMED_OUT, RunEnding.CANCELLED}
        assert plan.continue_on_failure or result.ended.ending is not RunEnding.COMPLETED or not result.failures
    else:
        assert plan.stop.way is Way.SCOPE
        assert outcome.caught
    aborts = {name for name, state in (result.states.items() if result else ()) if state is FAILED}
    if any(plan.by_name[name].act is Act.ABORT and isinstance(result.failures[name].error, Abort) for name in aborts):
        assert error is not None or outcome.cancelled
        assert not isinstance(error, PipelineFailedError)


@given(plan=stopped_plans().map(lambda plan: plan if needs_handle(plan) else attrs.evolve(plan, started=False)))
def test_a_scope_around_run_that_stops_it_catches_its_cancelled(plan):
    """Called from inside a stage or predicate, so that the run cannot have been over."""
    outcome = run_plan(plan)
    if outcome.recorder.stopped_after is None or plan.stop.way is not Way.SCOPE:
        return
    assert outcome.caught or outcome.error is not None
    assert outcome.cancelled or outcome.error is not None


@given(plan=stopped_plans())
def test_causes_are_those_of_the_moment(plan):
    """A stage that a stop isolates names the first dependency that had ended badly, or was isolated with it."""
    outcome = run_plan(attrs.evolve(plan, started=True))
    moment = find_moment(outcome.events)
    result = outcome.result
    if moment is None:
        return
    known = {name: state for name, state in moment.ended.items() if state is not CANCELLED}
    known |= {name: state for name, state in result.states.items() if state is ISOLATED}
    for name, state in result.states.items():
        chain = result.cause_chain(name)
        assert bool(chain) == (state is ISOLATED)
        if chain:
            assert chain[1] == find_parent(plan, name, known)
            assert known[chain[-1]] is FAILED
    ended = {told.stage: told.state for told in outcome.events if isinstance(told, StageEnded)}
    assert ended == result.states
    assert result.ok == (set(ended.values()) <= {OK, SKIPPED})
