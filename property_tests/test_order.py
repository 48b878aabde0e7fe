"""No stage begins before all that it depends on has ended, and none waits any longer than that."""

from __future__ import annotations

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from stageflow_actors import Pipeline, parallel_stages
from stageflow_actors.events import StageCrashed, StageEnded, StageRestarting, StageStarted

from .harness import run_plan
from .model import predict
from .strategies import plans, stopped_plans


def check_trace(plan, outcome):
    """What stages and predicates saw: whoever begins finds everything that it depends on over."""
    first, last = {}, {}
    for number, entry in enumerate(outcome.recorder.entries):
        first.setdefault(entry.stage, number)
        last[entry.stage] = number
    for stage in plan.stages:
        for name in stage.dependencies:
            if stage.name in first and name in last:
                assert last[name] < first[stage.name]


def check_events(plan, outcome):
    """What the run told: likewise, and of stages that never ran too."""
    by_name = plan.by_name
    ended = set()
    for event in outcome.events:
        if isinstance(event, StageStarted):
            assert set(by_name[event.stage].dependencies) <= ended
        elif isinstance(event, StageEnded):
            ended.add(event.stage)


@given(plan=plans(max_stages=10))
def test_begins_follow_the_ends_of_all_dependencies(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    check_trace(plan, outcome)
    check_events(plan, outcome)


@given(plan=stopped_plans())
def test_begins_follow_ends_in_runs_that_stop_too(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    check_trace(plan, outcome)
    check_events(plan, outcome)


@given(plan=plans(threads=True, max_stages=8))
def test_begins_follow_ends_with_threads_too(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    check_trace(plan, outcome)
    check_events(plan, outcome)


@given(plan=plans())
def test_a_stage_begins_at_the_moment_when_the_last_dependency_has_ended(plan):
    outcome = run_plan(plan)
    expected = {name: stage for name, stage in predict(plan).items() if stage.ran}
    begun = [(entry.stage, entry.time) for entry in outcome.recorder.entries if entry.kind == "begin"]
    assert sorted(begun) == sorted((name, span.started) for name, stage in expected.items() for span in stage.attempts)
    timings = outcome.result.timings
    assert {name: (timing.started, timing.ended) for name, timing in timings.items()} == {
        name: (stage.started, stage.ended) for name, stage in expected.items()
    }
    assert {
        name: [(one.started, one.ended) for one in attempts] for name, attempts in outcome.result.attempts.items()
    } == {name: [(span.started, span.ended) for span in stage.attempts] for name, stage in expected.items()}
    assert outcome.result.duration == max((stage.ended for stage in expected.values()), default=0.0)


@given(plan=plans(max_stages=10))
def test_events_carry_the_moments(plan):
    outcome = run_plan(attrs.evolve(plan, started=True))
    expected = predict(plan)
    for event in outcome.events:
        if isinstance(event, StageStarted):
            assert event.at == expected[event.stage].attempts[event.attempt - 1].started
        elif isinstance(event, StageCrashed):
            assert event.at == expected[event.stage].attempts[event.attempt - 1].ended
        elif isinstance(event, StageRestarting):
            assert event.at + event.delay == expected[event.stage].attempts[event.attempt - 1].started
        elif isinstance(event, StageEnded):
            assert event.at == expected[event.stage].ended


@settings(max_examples=10)
@given(width=st.integers(1, 1200), again=st.booleans())
def test_a_fan_out_of_any_width_begins_at_once(width, again):
    """Wider than the runtime spawns at a time, and with a second fan-out on top of it."""
    begun = []

    async def work(ctx):
        begun.append(trio.current_time())
        await trio.sleep(1)

    pipeline = Pipeline("wide").with_stages(parallel_stages("w{key}", work, range(width)))
    if again:
        pipeline = pipeline.with_stages(parallel_stages("v{key}", work, range(width), dependencies="w0"))

    async def main():
        start = trio.current_time()
        await pipeline.run()
        return start

    start = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert begun == [start] * width + [start + 1] * width * again
