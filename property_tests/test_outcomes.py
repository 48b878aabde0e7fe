"""Every stage of a run that nothing stops early ends as the reference model says."""

from __future__ import annotations

import itertools

import attrs
from hypothesis import given

from stageflow_actors import RunEnding, StageState, StageStatus
from stageflow_actors.errors import RestartIntensityError

from .attempt_model import FAILED, ISOLATED
from .comparing import list_problems
from .harness import run_plan
from .model import predict
from .problems import find_behind, name_problem
from .stop_model import find_facts
from .strategies import plans


def check(outcome, expected):
    """Compare everything that a result says with the model."""
    result = outcome.result
    assert outcome.error is None
    assert outcome.returned
    assert result.ended.ending is RunEnding.COMPLETED
    assert result.states == {name: stage.state for name, stage in expected.items()}
    assert list(result.states) == list(expected)
    check_outputs(result, expected)
    check_failures(result, expected)
    check_attempts(result, expected)
    for name, stage in expected.items():
        assert result.cause_chain(name) == stage.chain
        assert all(word in result.reason(name) for word in stage.reason)
    assert result.ok == all(stage.state in {StageState.OK, StageState.SKIPPED} for stage in expected.values())


def check_outputs(result, expected):
    gave = {name: stage.output for name, stage in expected.items() if stage.output is not None}
    assert list(result) == list(gave)
    for name, output in gave.items():
        assert result[name].status is StageStatus(output.status)
        assert result.data(name) == output.data
        assert result[name].label == output.label


def check_failures(result, expected):
    failed = {name: stage for name, stage in expected.items() if stage.state is FAILED}
    assert list(result.failures) == list(failed)
    for name, stage in failed.items():
        failure = result.failures[name]
        assert failure.stage == name
        assert name_problem(failure.error) == stage.problem
        assert stage.hidden <= find_behind(failure.error)
        assert failure.attempts == result.attempts.get(name, ())
        if isinstance(failure.error, RestartIntensityError):
            assert failure.error.attempts == failure.attempts
            assert failure.error.__cause__ is failure.attempts[-1].error
        elif failure.attempts and stage.attempts[-1].problem == stage.problem and not stage.refused:
            assert failure.attempts[-1].error is failure.error


def check_attempts(result, expected):
    ran = {name: stage for name, stage in expected.items() if stage.ran}
    assert list(result.attempts) == list(ran)
    for name, stage in ran.items():
        attempts = result.attempts[name]
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert list_problems(result, name) == [span.problem for span in stage.attempts]


@given(plan=plans())
def test_the_runtime_agrees_with_the_model(plan):
    outcome = run_plan(plan)
    check(outcome, predict(plan))


@given(plan=plans(parts=True, max_stages=10))
def test_targets_and_overrides_agree_with_the_model(plan):
    outcome = run_plan(plan)
    check(outcome, predict(plan))


@given(plan=plans(threads=True, max_stages=8))
def test_stages_in_threads_agree_with_the_model(plan):
    outcome = run_plan(plan)
    check(outcome, predict(plan))


@given(plan=plans(limits=True, parts=True, max_stages=10))
def test_limits_decide_no_more_than_when(plan):
    """Given when attempts began, and in which order they failed."""
    outcome = run_plan(attrs.evolve(plan, started=True))
    check(outcome, predict(plan, find_facts(outcome.events)))
    assert not [problem for meter in outcome.recorder.meters.values() for problem in meter.problems]


@given(plan=plans(limits=True, threads=True, max_stages=8))
def test_limits_of_threads_decide_no_more_than_when(plan):
    untimed = tuple((name, attrs.evolve(limiter, rate=None)) for name, limiter in plan.limiters)
    outcome = run_plan(attrs.evolve(plan, started=True, limiters=untimed))
    check(outcome, predict(plan, find_facts(outcome.events)))
    assert not [problem for meter in outcome.recorder.meters.values() for problem in meter.problems]


@given(plan=plans(max_stages=10))
def test_cause_chains_are_paths_to_a_failure(plan):
    """Without the model: along declared dependencies, through isolated stages, to one that failed by itself."""
    result = run_plan(plan).result
    by_name = plan.by_name
    for name, state in result.states.items():
        chain = result.cause_chain(name)
        assert bool(chain) == (state is ISOLATED)
        if chain:
            assert chain[0] == name
            assert result.states[chain[-1]] is FAILED
            for below, above in itertools.pairwise(chain):
                assert above in by_name[below].dependencies
                assert result.states[below] is ISOLATED
