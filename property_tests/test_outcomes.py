"""Every stage of a run that nothing stops early ends as the reference model says."""

from __future__ import annotations

import itertools

from hypothesis import given

from stageflow_actors import RunEnding, StageState, StageStatus

from .harness import find_behind, name_problem, run_plan
from .model import FAILED, ISOLATED, find_hidden, predict
from .strategies import plans


def check(plan, outcome, expected):
    """Compare everything that a result says with the model."""
    result = outcome.result
    assert outcome.error is None
    assert outcome.returned
    assert result.ended.ending is RunEnding.COMPLETED
    assert result.states == {name: stage.state for name, stage in expected.items()}
    assert list(result.states) == list(expected)
    check_outputs(result, expected)
    check_failures(plan, result, expected)
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


def check_failures(plan, result, expected):
    failed = {name: stage for name, stage in expected.items() if stage.state is FAILED}
    assert list(result.failures) == list(failed)
    for name, stage in failed.items():
        failure = result.failures[name]
        assert failure.stage == name
        assert name_problem(failure.error) == stage.problem
        if stage.ran:
            assert find_hidden(plan.by_name[name], stage.problem) <= find_behind(failure.error)
        assert len(failure.attempts) == stage.ran
        for attempt in failure.attempts:
            assert attempt.error is failure.error


@given(plan=plans())
def test_the_runtime_agrees_with_the_model(plan):
    outcome = run_plan(plan)
    check(plan, outcome, predict(plan))


@given(plan=plans(parts=True, max_stages=10))
def test_targets_and_overrides_agree_with_the_model(plan):
    outcome = run_plan(plan)
    check(plan, outcome, predict(plan))


@given(plan=plans(threads=True, max_stages=8))
def test_stages_in_threads_agree_with_the_model(plan):
    outcome = run_plan(plan)
    check(plan, outcome, predict(plan))


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
