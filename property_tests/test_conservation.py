"""No message is lost and none counted twice: every stage that was told ends as one of replied, failed, cancelled."""

from __future__ import annotations

import attrs
from hypothesis import given

from stageflow_actors import StageState
from stageflow_actors.events import StageEnded, StageStarted

from .attempt_model import ABANDONED, CANCELLED, FAILED, ISOLATED, OK, SKIPPED
from .harness import run_plan
from .model import predict
from .strategies import plans, stopped_plans


def count(begun, states, *wanted):
    """Count the stages that ran and have one of these states."""
    return sum(state in wanted for name, state in states.items() if name in begun)


@given(plan=plans(parts=True))
def test_a_ledger_counts_the_states_of_those_that_ran(plan):
    outcome = run_plan(plan)
    expected = predict(plan)
    ran = {name for name, stage in expected.items() if stage.told}
    ledger = outcome.result.ledger
    assert ledger.balanced
    assert ledger.accepted == len(ran)
    assert ledger.replied == count(ran, outcome.result.states, OK, SKIPPED)
    assert ledger.failed == count(ran, outcome.result.states, FAILED)
    assert ledger.cancelled == 0


@given(plan=plans(threads=True, max_stages=8))
def test_a_ledger_counts_threads_too(plan):
    outcome = run_plan(plan)
    ran = {name for name, stage in predict(plan).items() if stage.ran}
    ledger = outcome.result.ledger
    assert ledger.balanced
    assert (ledger.accepted, ledger.cancelled) == (len(ran), 0)
    assert ledger.failed == count(ran, outcome.result.states, FAILED)


@given(plan=stopped_plans())
def test_a_ledger_balances_however_the_run_ends(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    states, ledger = outcome.result.states, outcome.result.ledger
    begun = {event.stage for event in outcome.events if isinstance(event, StageStarted)}
    assert ledger.balanced
    replied_cancel = ledger.replied - count(begun, states, OK, SKIPPED)
    assert ledger.failed == count(begun, states, FAILED, ABANDONED)
    cancelled = count(begun, states, CANCELLED)
    unbegun = sum(state is CANCELLED for name, state in states.items() if name not in begun)
    # Who replied `cancel` is CANCELLED and has replied; who was told and had not begun is CANCELLED too.
    assert 0 <= replied_cancel <= cancelled
    assert cancelled - replied_cancel <= ledger.cancelled <= cancelled - replied_cancel + unbegun
    assert all(states[name] is not ISOLATED for name in begun)
    assert StageState.PENDING not in states.values()
    assert StageState.RUNNING not in states.values()


@given(plan=stopped_plans())
def test_at_every_moment_what_is_open_is_told_or_running(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    total = len(outcome.result.states)
    for view, statistics in outcome.recorder.views:
        ledger = view.ledger
        still_open = ledger.accepted - ledger.replied - ledger.failed - ledger.cancelled
        assert statistics.total == total
        going = statistics.running + statistics.restarting
        assert going <= still_open <= going + statistics.pending
        assert statistics.ended + going + statistics.pending == total
        states = list(view.states.values())
        for state in StageState:
            assert getattr(statistics, state.value) == states.count(state)


@given(plan=stopped_plans())
def test_the_handle_counts_as_the_events_do(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    statistics = outcome.recorder.run.statistics()
    ended = [event.state for event in outcome.events if isinstance(event, StageEnded)]
    assert statistics.ended == statistics.total == len(ended)
    for state in set(ended):
        assert getattr(statistics, state.value) == ended.count(state)
