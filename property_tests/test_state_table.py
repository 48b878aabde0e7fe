"""The trigger table of the contract holds at every stage of every run, whatever the graph around it."""

from __future__ import annotations

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import Pipeline, StageOutput, StageState, Trigger

from .harness import run_plan
from .plans import Act
from .strategies import plans

BAD = {StageState.FAILED, StageState.ISOLATED, StageState.CANCELLED, StageState.ABANDONED}
RUN, ISOLATED, SKIPPED = "run", "isolated", "skipped"

# (trigger, column) to what happens; columns are "bad", "skipped", "ok", and for ONE_SUCCESS whether one is OK.
TABLE = {
    (Trigger.ALL_SUCCESS, "bad"): ISOLATED,
    (Trigger.ALL_SUCCESS, "skipped"): SKIPPED,
    (Trigger.ALL_SUCCESS, "ok"): RUN,
    (Trigger.NONE_FAILED, "bad"): ISOLATED,
    (Trigger.NONE_FAILED, "skipped"): RUN,
    (Trigger.NONE_FAILED, "ok"): RUN,
    (Trigger.ONE_SUCCESS, "bad, one ok"): RUN,
    (Trigger.ONE_SUCCESS, "bad, none ok"): ISOLATED,
    (Trigger.ONE_SUCCESS, "skipped, one ok"): RUN,
    (Trigger.ONE_SUCCESS, "skipped, none ok"): SKIPPED,
    (Trigger.ONE_SUCCESS, "ok"): RUN,
    (Trigger.ALL_DONE, "bad"): RUN,
    (Trigger.ALL_DONE, "skipped"): RUN,
    (Trigger.ALL_DONE, "ok"): RUN,
}


def find_cell(trigger, states):
    """Return the cell of the table for the states of all dependencies."""
    column = "bad" if BAD & set(states) else "skipped" if StageState.SKIPPED in states else "ok"
    if trigger is Trigger.ONE_SUCCESS and column != "ok":
        column += ", one ok" if StageState.OK in states else ", none ok"
    return TABLE[trigger, column]


@given(plan=plans())
def test_every_stage_stands_in_its_cell(plan):
    outcome = run_plan(plan)
    states = outcome.result.states
    touched = {entry.stage for entry in outcome.recorder.entries}
    for stage in plan.stages:
        cell = find_cell(stage.trigger, [states[name] for name in stage.dependencies])
        reason = outcome.result.reason(stage.name)
        if cell == RUN:
            assert states[stage.name] is not StageState.ISOLATED
            assert stage.when is not None or stage.name in touched
        else:
            assert states[stage.name].value == cell
            assert stage.name not in touched
            wanted = BAD if cell == ISOLATED else {StageState.SKIPPED}
            assert repr(next(name for name in stage.dependencies if states[name] in wanted)) in reason


@pytest.mark.parametrize("trigger", list(Trigger))
@given(ends=st.lists(st.sampled_from([Act.OK, Act.SKIP, Act.FAIL, "isolated"]), min_size=1, max_size=5))
def test_every_cell_directly(trigger, ends):
    """One stage over dependencies that end as drawn, in the order drawn."""
    ran = []

    async def end(ctx):
        return {
            Act.OK: StageOutput.ok(),
            Act.SKIP: StageOutput.skip("x"),
            Act.FAIL: StageOutput.fail("x"),
        }[ctx.config["end"]]

    async def note(ctx):
        ran.append(ctx.stage_name)

    pipeline = Pipeline("table").with_stage("fails", end, config={"end": Act.FAIL})
    for number, act in enumerate(ends):
        if act == "isolated":
            pipeline = pipeline.with_stage(f"d{number}", end, dependencies="fails")
        else:
            pipeline = pipeline.with_stage(f"d{number}", end, config={"end": act})
    names = [f"d{number}" for number in range(len(ends))]
    pipeline = pipeline.with_stage("x", note, dependencies=names, trigger=trigger)
    result = trio.run(lambda: pipeline.run(continue_on_failure=True))
    cell = find_cell(trigger, [result.states[name] for name in names])
    assert ran == (["x"] if cell == RUN else [])
    assert result.states["x"].value == ("ok" if cell == RUN else cell)


@given(plan=plans(max_stages=8))
def test_what_hangs_below_an_all_done_stage_depends_on_that_stage_alone(plan):
    """Two runs whose failures differ only above ALL_DONE stages: below them all is the same."""
    cut = [attrs.evolve(stage, trigger=Trigger.ALL_DONE, when=None, act=Act.NONE) for stage in plan.stages]
    root = attrs.evolve(plan.stages[0], name="root", dependencies=(), when=None, trigger=Trigger.ALL_SUCCESS)
    below = []
    for act in (Act.RAISE, Act.OK, Act.SKIP):
        stages = [attrs.evolve(root, act=act)]
        stages += [attrs.evolve(stage, dependencies=stage.dependencies or ("root",)) for stage in cut]
        below.append(dict(run_plan(attrs.evolve(plan, stages=tuple(stages))).result.states))
        del below[-1]["root"]
    assert below[0] == below[1] == below[2]
    assert ISOLATED not in {state.value for state in below[0].values()}
