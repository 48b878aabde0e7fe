"""Each attempt at a stage is made once, on an instance of its own, and the stage ends exactly once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import attrs
import trio
import trio.testing
from hypothesis import given

from stageflow_actors import StageState, Supervisor
from stageflow_actors.events import RunEnded, RunStopping, StageEnded, StageStarted

from .harness import run_plan
from .model import predict
from .plans import FRESH, MANAGED, Ask
from .recorder import Recorder
from .runners import build
from .strategies import plans, stopped_plans

UNFINISHED = {StageState.PENDING, StageState.RUNNING, StageState.RESTARTING}


def check_executions(plan, recorder):
    """No attempt too many, no predicate twice; a fresh instance each time; whatever was entered is left."""
    begun = recorder.count("begin")
    for name, count in begun.items():
        restart = plan.by_name[name].restart
        assert count == 1 or restart.within is not None or count <= 1 + restart.max_restarts
    assert set(recorder.count("ask").values()) <= {1}
    assert recorder.count("end") == begun
    assert recorder.count("enter") == recorder.count("exit")
    made = Counter(name for name, _ in recorder.instances)
    for stage in plan.stages:
        if stage.form in MANAGED:
            assert begun.get(stage.name, 0) <= recorder.count("enter").get(stage.name, 0)
        if stage.form in FRESH:
            assert made[stage.name] == recorder.count("enter" if stage.form in MANAGED else "begin").get(stage.name, 0)


@given(plan=plans(parts=True))
def test_exactly_those_run_once_that_the_model_says(plan):
    outcome = run_plan(plan)
    check_executions(plan, outcome.recorder)
    expected = predict(plan)
    assert outcome.recorder.count("begin") == {
        name: len(stage.attempts) for name, stage in expected.items() if stage.ran
    }
    given = {name for name, _ in plan.overrides}
    for name, stage in expected.items():
        when = plan.by_name[name].when
        if name not in given and when is not None and when.ask is not Ask.ROUTE and stage.ran:
            assert outcome.recorder.count("ask")[name] == 1


@given(plan=plans(threads=True, max_stages=8))
def test_in_threads_too(plan):
    outcome = run_plan(plan)
    check_executions(plan, outcome.recorder)
    assert outcome.recorder.count("begin") == {
        name: len(stage.attempts) for name, stage in predict(plan).items() if stage.ran
    }


@given(plan=stopped_plans())
def test_in_runs_that_stop_too(plan):
    outcome = run_plan(plan)
    check_executions(plan, outcome.recorder)


@given(plan=stopped_plans())
def test_every_stage_ends_exactly_once(plan):
    """By the events, and by the handle: a final state never changes."""
    outcome = run_plan(attrs.evolve(plan, started=True))
    events = outcome.events
    assert outcome.dropped == 0
    ended = [event.stage for event in events if isinstance(event, StageEnded)]
    assert sorted(ended) == sorted(outcome.result.states)
    started = [(event.stage, event.attempt) for event in events if isinstance(event, StageStarted)]
    assert len(set(started)) == len(started)
    assert isinstance(events[-1], RunEnded)
    assert events[-1].end == outcome.result.ended
    assert sum(isinstance(event, RunEnded) for event in events) == 1
    assert sum(isinstance(event, RunStopping) for event in events) <= 1
    assert {event.stage: event.state for event in events if isinstance(event, StageEnded)} == outcome.result.states
    check_views([dict(view.states) for view, _ in outcome.recorder.views], dict(outcome.result.states))


def check_views(views, final):
    """Compare each moment with the next: pending, then perhaps running and again, then a final state for good."""
    for before, after in pairwise([*views, final]):
        for name, state in before.items():
            if state not in UNFINISHED:
                assert after[name] is state
            elif state is not StageState.PENDING:
                assert after[name] is not StageState.PENDING


@given(plan=plans(max_stages=8))
def test_another_run_of_the_same_pipeline_makes_instances_of_its_own(plan):
    """Nothing of one run is in the compiled graph that the next one uses."""
    recorder = Recorder(plan)
    pipeline = build(plan, recorder)

    async def main():
        async with Supervisor() as supervisor:
            first = await supervisor.run(pipeline, continue_on_failure=True)
            second, third = (supervisor.start(pipeline, continue_on_failure=True) for _ in range(2))
            return [first, await second.result(), await third.result()]

    results = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len({id(instance) for _, instance in recorder.instances}) == len(recorder.instances)
    assert recorder.count("begin") == {
        name: 3 * len(stage.attempts) for name, stage in predict(plan).items() if stage.ran
    }
    assert len({str(dict(result.states)) for result in results}) == 1
    assert len({result.run_id for result in results}) == 3
