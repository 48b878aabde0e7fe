"""What the strategies draw is valid, shrinks to something simple, and prints as the code that makes it."""

from __future__ import annotations

import json
import subprocess
import sys

import hypothesis
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stageflow_actors import (
    ContextSnapshot,
    Pipeline,
    PipelineValidationError,
    RunEnding,
    StageOutput,
    StageState,
    StageStatus,
    Supervisor,
    Trigger,
)
from stageflow_actors.errors import InjectedError
from stageflow_actors.testing._brief import brief
from stageflow_actors.testing._faults import ANY, Cancel, ClockJump, Crash, Delay, Doubled, Dropped, Late
from stageflow_actors.testing._run_stage import run_stage
from stageflow_actors.testing.strategies import Scripted, fault_plans, outputs, pipelines, snapshots

QUIETLY = settings(
    database=None,
    derandomize=True,
    max_examples=2000,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def find(strategy, wanted=lambda _drawn: True):
    """Return the simplest example as it is printed."""
    return brief(hypothesis.find(strategy, wanted, settings=QUIETLY))


async def work(ctx):
    """Return at once."""


async def rest(ctx):
    """Return at once."""


def run(pipeline):
    async def main():
        async with Supervisor() as supervisor:
            return await supervisor.run(pipeline, continue_on_failure=True)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# Pipelines


@given(pipeline=pipelines())
def test_pipelines_run_and_do_the_same_each_time(pipeline):
    assert 1 <= len(pipeline) <= 8
    first, second = run(pipeline), run(pipeline)
    assert first.ended.ending is RunEnding.COMPLETED
    assert first.states == second.states
    assert dict(first) == dict(second)


@given(pipeline=pipelines([work, rest], min_stages=3, max_stages=4, name="mine"))
def test_runners_and_sizes_are_as_asked_for(pipeline):
    assert pipeline.name == "mine"
    assert 3 <= len(pipeline) <= 4
    assert {spec.runner for spec in pipeline.stages} <= {work, rest}


@given(pipeline=pipelines(st.just(Scripted("skip"))))
def test_runners_may_be_a_strategy(pipeline):
    assert {spec.runner for spec in pipeline.stages} == {Scripted("skip")}


@given(pipeline=pipelines(triggers=False, routes=False, restarts=False))
def test_what_is_not_wanted_is_not_drawn(pipeline):
    for spec in pipeline.stages:
        assert (spec.trigger, spec.when, spec.restart) == (Trigger.ALL_SUCCESS, None, None)


@pytest.mark.parametrize("trigger", Trigger)
def test_every_trigger_is_drawn(trigger):
    assert find(pipelines(), lambda pipeline: any(spec.trigger is trigger for spec in pipeline.stages))


@pytest.mark.parametrize(
    ("state", "simplest"),
    [
        (StageState.OK, ".with_stage('s0', Scripted('ok'))"),
        (StageState.SKIPPED, ".with_stage('s0', Scripted('skip'))"),
        (StageState.FAILED, ".with_stage('s0', Scripted('fail'))"),
    ],
)
def test_stages_end_in_every_way(state, simplest):
    found = find(pipelines(routes=False), lambda pipeline: state in run(pipeline).states.values())
    assert found == f"Pipeline('drawn'){simplest}"


def test_stages_are_isolated():
    found = find(pipelines(), lambda pipeline: StageState.ISOLATED in run(pipeline).states.values())
    assert found.splitlines() == [
        "Pipeline('drawn')",
        "    .with_stage('s0', Scripted('fail'))",
        "    .with_stage('s1', Scripted('ok'), dependencies='s0')",
    ]


def test_stages_are_restarted():
    found = find(pipelines(), lambda pipeline: any(len(each) > 1 for each in run(pipeline).attempts.values()))
    restart = "Restart(max_restarts=1, backoff=Backoff(initial=0.0, jitter=0.0))"
    assert found == f"Pipeline('drawn').with_stage('s0', Scripted('retry', heals_at=2), restart={restart})"


def test_stages_are_chosen_by_labels():
    def has_chosen(pipeline):
        states = run(pipeline).states
        return any(spec.when is not None and states[spec.name] is StageState.OK for spec in pipeline.stages)

    assert find(pipelines(), has_chosen).replace("right", "left").splitlines() == [
        "Pipeline('drawn')",
        "    .with_stage('s0', Scripted('ok', label='left'))",
        "    .with_stage('s1', Scripted('ok'), dependencies='s0', when=route('s0', 'left'))",
    ]


def test_a_stage_may_stand_before_what_it_depends_on():
    def is_upside_down(pipeline):
        names = [spec.name for spec in pipeline.stages]
        return any(names.index(name) > names.index(spec.name) for spec in pipeline.stages for name in spec.dependencies)

    assert find(pipelines([work]), is_upside_down).splitlines() == [
        "Pipeline('drawn')",
        "    .with_stage('s1', work, dependencies='s0')",
        "    .with_stage('s0', work)",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_stages": 0}, "min_stages must be a whole number of at least 1, not 0"),
        ({"max_stages": "8"}, "max_stages must be a whole number of at least 1, not '8'"),
        ({"min_stages": 9}, "min_stages=9 is above max_stages=8"),
        ({"name": ""}, "the name of a pipeline must be a non-empty string, not ''"),
        ({"runners": []}, "runners is empty; give at least one, or leave it out"),
        ({"runners": 3}, "runners must be a strategy or a sequence of runners, not 3"),
        ({"runners": "ab"}, "runners must be a strategy or a sequence of runners, not 'ab'"),
        (
            {"runners": Scripted("ok")},
            "runners must be a strategy or a sequence of runners, not Scripted('ok'); write [Scripted('ok')]",
        ),
    ],
)
def test_what_no_pipeline_can_be_drawn_from_is_refused(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        pipelines(**options)
    assert str(caught.value) == message


# Scripted stages


@pytest.mark.parametrize(
    ("stage", "output"),
    [
        (Scripted("ok"), StageOutput.ok(sum=6, states={"a": "ok", "b": "ok"})),
        (Scripted("ok", label="left", checkpoints=3), StageOutput.route("left", sum=6, states={"a": "ok", "b": "ok"})),
        (Scripted("skip"), StageOutput.skip("s was told to skip")),
        (Scripted("fail"), StageOutput.fail("s was told to fail")),
        (Scripted("retry"), StageOutput.retry("s was told to retry")),
        (Scripted("raise", heals_at=1), StageOutput.ok(sum=6, states={"a": "ok", "b": "ok"})),
    ],
)
async def test_a_scripted_stage_does_what_it_is_told(stage, output):
    assert await run_stage(stage, inputs={"a": {"sum": 2}, "b": {"sum": 3}}, name="s") == output


async def test_a_scripted_stage_raises_until_it_heals():
    with pytest.raises(RuntimeError, match=r"^s was told to raise$"):
        await run_stage(Scripted("raise", heals_at=2), name="s")


async def test_a_scripted_stage_awaits_as_often_as_told():
    with trio.CancelScope() as scope:
        scope.cancel()
        await Scripted("ok", checkpoints=1).execute(None)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"says": "rase"},
            "what a Scripted says must be one of ok, skip, fail, retry, raise, not 'rase'; did you mean 'raise'?",
        ),
        (
            {"says": "ok", "checkpoints": -1},
            "the checkpoints of a Scripted must be a whole number of at least 0, not -1",
        ),
        ({"says": "ok", "heals_at": 0}, "the heals_at of a Scripted must be a whole number of at least 1, not 0"),
    ],
)
def test_a_script_that_cannot_be_is_refused(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Scripted(**options)
    assert str(caught.value) == message


# Snapshots and outputs


@given(snapshot=snapshots())
def test_snapshots_come_back_from_json(snapshot):
    assert ContextSnapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot
    assert snapshot.run_id is None


@given(
    snapshot=snapshots(
        st.just({"user": 7}),
        metadata=st.just({"m": 1}),
        input_text=st.just("text"),
        extensions=st.just((1, 2)),
        topology=st.just("wide"),
        execution_mode=st.just("fast"),
    )
)
def test_every_field_of_a_snapshot_may_be_drawn_otherwise(snapshot):
    assert snapshot == ContextSnapshot(
        data={"user": 7},
        metadata={"m": 1},
        input_text="text",
        extensions=(1, 2),
        topology="wide",
        execution_mode="fast",
    )


def test_snapshots_shrink_to_an_empty_one():
    assert find(snapshots()) == "ContextSnapshot()"
    assert find(snapshots(), lambda snapshot: snapshot.data) == "ContextSnapshot(data={'': None})"
    assert find(snapshots(), lambda snapshot: snapshot.input_text) == "ContextSnapshot(input_text='0')"


@given(output=outputs(statuses=("ok", "skip")))
def test_outputs_have_the_statuses_asked_for(output):
    given = trio.run(run_stage, read_input, {"output": output})
    assert given.data == {"same": True}


async def read_input(ctx):
    return {"same": ctx.snapshot.data["output"].status in (StageStatus.OK, StageStatus.SKIP)}


@pytest.mark.parametrize(
    ("status", "simplest"),
    [
        (StageStatus.OK, "StageOutput.ok()"),
        (StageStatus.SKIP, "StageOutput.skip()"),
        (StageStatus.CANCEL, "StageOutput.cancel()"),
        (StageStatus.FAIL, "StageOutput.fail('')"),
        (StageStatus.RETRY, "StageOutput.retry('')"),
    ],
)
def test_outputs_of_every_status_are_drawn(status, simplest):
    assert find(outputs(), lambda output: output.status is status) == simplest


def test_outputs_shrink_to_ok_without_data():
    assert find(outputs()) == "StageOutput.ok()"
    assert find(outputs(labels=["left"]), lambda output: output.label) == "StageOutput.route('left')"
    assert find(outputs(st.just({"a": 1})), lambda output: output.after) == "StageOutput.retry('', {'a': 1}, after=1.0)"


def test_statuses_that_cannot_be_drawn_are_refused():
    with pytest.raises(PipelineValidationError, match=r"status must be one of ok, skip, .*, not 'done'"):
        outputs(statuses=["ok", "done"])
    with pytest.raises(PipelineValidationError, match="statuses names no status; name at least one"):
        outputs(statuses=())


# Fault plans


@given(plan=fault_plans(["a", "b"], max_faults=3, max_at=2, max_step=4))
def test_plans_are_concrete_and_within_their_bounds(plan):
    assert len(plan) <= 3
    for fault in plan:
        aims = isinstance(fault, (Crash, Delay))
        assert 1 <= fault.at <= (2 if aims else 4)
        assert not aims or fault.on in ("a", "b")


@pytest.mark.parametrize("kind", [Crash, Delay, Cancel, ClockJump])
def test_every_kind_is_drawn_and_can_be_chosen(kind):
    simplest = {
        Crash: "Crash('*', at=1)",
        Delay: "Delay('*', at=1)",
        Cancel: "Cancel(at=1)",
        ClockJump: "ClockJump(1.0, at=1)",
    }
    assert find(fault_plans(), lambda plan: any(type(fault) is kind for fault in plan)) == f"({simplest[kind]},)"
    assert find(fault_plans(kinds=[kind]), lambda plan: plan) == f"({simplest[kind]},)"


@pytest.mark.parametrize("kind", [Late, Doubled, Dropped])
def test_faults_of_messages_are_drawn_where_they_are_asked_for(kind):
    kinds = [Late, Doubled, Dropped]
    simplest = f"({kind.__name__}('*', at=1),)"
    assert find(fault_plans(kinds=kinds), lambda plan: any(type(fault) is kind for fault in plan)) == simplest
    assert find(fault_plans(kinds=[kind]), lambda plan: plan) == simplest
    assert find(fault_plans(["shop/b", "a"], kinds=kinds), len) == "(Late('shop/b', at=1),)"


@given(plan=fault_plans())
def test_faults_of_messages_are_not_drawn_unless_they_are(plan):
    assert {type(fault) for fault in plan} <= {Crash, Delay, Cancel, ClockJump}


def test_plans_shrink_to_none_and_to_the_first_of_all():
    assert find(fault_plans()) == "()"
    assert (
        find(fault_plans(["b", "a"], kinds=[Crash]), lambda plan: len(plan) == 2)
        == "(Crash('b', at=1), Crash('b', at=1))"
    )
    assert find(fault_plans(max_faults=0)) == "()"


@given(plan=fault_plans(Pipeline("p").with_stage("a", work).with_stage("b", work), kinds=[Crash, Delay]))
def test_the_names_may_be_those_of_a_pipeline(plan):
    assert {fault.on for fault in plan} <= {"a", "b"}


@given(plan=fault_plans("a", kinds=[Crash], errors=[OSError]))
def test_a_single_name_and_other_errors_may_be_given(plan):
    assert {(fault.on, fault.error) for fault in plan} <= {("a", OSError)}


def test_by_default_any_task_crashes_with_an_injected_error():
    plan = hypothesis.find(fault_plans(kinds=[Crash]), bool, settings=QUIETLY)
    assert (plan[0].on, plan[0].error) == (ANY, InjectedError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": ()}, "on is empty, so that there is nothing to draw from; leave on out for all there is"),
        ({"on": Pipeline("p")}, "on is empty, so that there is nothing to draw from; leave on out for all there is"),
        ({"kinds": ()}, "kinds is empty, so that there is nothing to draw from; leave kinds out for all there is"),
        ({"errors": ()}, "errors is empty, so that there is nothing to draw from; leave errors out for all there is"),
        (
            {"kinds": [Crash, int]},
            (
                "a kind of fault must be one of 'Crash', 'Delay', 'Cancel', 'ClockJump', 'Late', 'Doubled', 'Dropped', "
                "not <class 'int'>"
            ),
        ),
        (
            {"on": Pipeline("p").with_stage("a", work), "kinds": [Crash, Late]},
            (
                "a Late strikes messages to an actor, and stages of a pipeline are none; give the full names of the "
                "actors as on, or '*'"
            ),
        ),
        ({"max_faults": -1}, "max_faults must be a whole number of at least 0, not -1"),
        ({"max_at": 0}, "max_at must be a whole number of at least 1, not 0"),
        ({"max_step": 0}, "max_step must be a whole number of at least 1, not 0"),
    ],
)
def test_what_no_plan_can_be_drawn_from_is_refused(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        fault_plans(**options)
    assert str(caught.value) == message


# What Hypothesis prints


def test_a_failing_example_prints_as_the_code_that_makes_it():
    @settings(QUIETLY)
    @given(
        pipeline=pipelines([work], min_stages=2),
        snapshot=snapshots(),
        output=outputs(),
        plan=fault_plans("s1"),
        one=pipelines([rest]),
    )
    def fail(pipeline, snapshot, output, plan, one):
        assert not plan

    with pytest.raises(AssertionError) as caught:
        fail()
    printed = [line.strip() for line in "\n".join(caught.value.__notes__).splitlines()]
    start = printed.index("pipeline=Pipeline('drawn')")
    assert printed[start : start + 7] == [
        "pipeline=Pipeline('drawn')",
        ".with_stage('s0', work)",
        ".with_stage('s1', work),",
        "snapshot=ContextSnapshot(),",
        "output=StageOutput.ok(),",
        "plan=(Crash('s1', at=1),),",
        "one=Pipeline('drawn').with_stage('s0', rest),",
    ]


def test_without_hypothesis_the_error_names_the_extra():
    code = "import sys; sys.modules['hypothesis'] = None; import stageflow_actors.testing.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(
        "MissingExtraError: the strategies need hypothesis; install it: pip install 'stageflow-actors[testing]'"
    )
