"""A pipeline that is a stage of another does what it does alone, under names of its own."""

from __future__ import annotations

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import Pipeline, StageOutput, StageState, Supervisor

from .attempt_model import BAD, ISOLATED, OK, SKIPPED
from .model import predict
from .plans import CHANCE
from .recorder import Recorder
from .runners import build
from .strategies import plans


def run(pipeline):
    """Run it to the end, on a virtual clock."""

    async def main():
        with trio.fail_after(1000):
            async with Supervisor(random=lambda: CHANCE) as supervisor:
                return await supervisor.run(pipeline, continue_on_failure=True)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def find_sinks(plan):
    needed = {dependency for stage in plan.stages for dependency in stage.dependencies}
    return [stage.name for stage in plan.stages if stage.name not in needed]


@given(plan=plans(max_stages=8), depth=st.integers(1, 3))
def test_inner_stages_end_as_they_would_alone(plan, depth):
    pipeline = build(plan, Recorder(plan))
    for level in range(depth):
        pipeline = Pipeline(f"level {level}").subpipeline(f"sub{level}", pipeline)
    result = run(pipeline)
    prefix = "/".join(f"sub{level}" for level in reversed(range(depth)))
    expected = predict(plan)
    for name, stage in expected.items():
        inner = f"{prefix}/{name}"
        assert result.states[inner] is stage.state
        assert (inner in result) == (stage.output is not None)
        assert stage.output is None or result.data(inner) == stage.output.data
        assert result.cause_chain(inner) == tuple(f"{prefix}/{cause}" for cause in stage.chain)
    check_outer(result, prefix, plan, expected)


def check_outer(result, name, plan, expected):
    """The stage itself gathers what its sinks gave; it is isolated or skipped with them."""
    sinks = find_sinks(plan)
    states = [expected[sink].state for sink in sinks]
    if BAD & set(states):
        assert result.states[name] is ISOLATED
        assert result.cause_chain(name)[1] == next(f"{name}/{sink}" for sink in sinks if expected[sink].state in BAD)
    elif OK not in states:
        assert result.states[name] is SKIPPED
    else:
        assert result.states[name] is OK
        assert result.data(name) == {sink: expected[sink].output.data for sink in sinks if expected[sink].state is OK}


@given(
    plan=plans(max_stages=8),
    upstream=st.sampled_from([StageOutput.ok(), StageOutput.skip("x"), StageOutput.fail("x")]),
)
def test_what_it_depends_on_is_waited_for_by_its_roots(plan, upstream):
    async def give(ctx):
        return upstream

    recorder = Recorder(plan)
    pipeline = Pipeline("outer").with_stage("up", give).subpipeline("sub", build(plan, recorder), "up")
    result = run(pipeline)
    roots = [stage.name for stage in plan.stages if not stage.dependencies]
    if result.states["up"] is StageState.OK:
        assert {name: result.states[f"sub/{name}"] for name in (stage.name for stage in plan.stages)} == {
            name: stage.state for name, stage in predict(plan).items()
        }
    else:
        wanted = SKIPPED if result.states["up"] is SKIPPED else ISOLATED
        assert {result.states[f"sub/{name}"] for name in roots} == {wanted}
        assert not set(roots) & {entry.stage for entry in recorder.entries}
