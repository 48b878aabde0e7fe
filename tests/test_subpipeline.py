"""A pipeline as a stage of another: names, inputs, states, and nesting."""

from __future__ import annotations

import pickle

import pytest

from stageflow_actors import (
    Pipeline,
    PipelineValidationError,
    StageOutput,
    StageState,
    Trigger,
    parallel_stages,
    route,
)
from stageflow_actors.errors import CycleDetectedError

STATE = StageState


async def nothing(ctx):
    """Return at once."""


async def seen(ctx):
    """Reply with what the stage sees of its dependencies."""
    return {name: dict(output.data) for name, output in ctx.inputs.outputs.items()}


async def number(ctx):
    return {"n": 1}


async def skip(ctx):
    return StageOutput.skip("nothing to do")


async def boom(ctx):
    raise ValueError("boom")


async def choose(ctx):
    return StageOutput.route("left")


def diamond():
    return (
        Pipeline("inner")
        .with_stage("root", seen)
        .with_stage("left", seen, dependencies="root")
        .with_stage("right", number, dependencies="root")
    )


def shape(pipeline):
    return {spec.name: (spec.dependencies, spec.local_names) for spec in pipeline.stages}


# How it is put together


def test_inner_stages_take_the_containers_name_and_keep_their_own_for_each_other():
    outer = Pipeline("outer").with_stage("fetch", number).subpipeline("sub", diamond(), "fetch")
    assert shape(outer) == {
        "fetch": ((), None),
        "sub/root": (("fetch",), None),
        "sub/left": (("sub/root",), ("root",)),
        "sub/right": (("sub/root",), ("root",)),
        "sub": (("sub/left", "sub/right", "fetch"), ("left", "right", "../fetch")),
    }


def test_the_inner_pipeline_stays_what_it_was():
    inner = diamond()
    before = shape(inner)
    Pipeline("outer").subpipeline("one", inner).subpipeline("two", inner, "one")
    assert shape(inner) == before
    assert len(inner) == 3


def test_nesting_twice():
    middle = Pipeline("middle").with_stage("m", number).subpipeline("in", diamond(), "m")
    outer = Pipeline("outer").with_stage("o", number).subpipeline("mid", middle, "o")
    assert shape(outer) == {
        "o": ((), None),
        "mid/m": (("o",), None),
        "mid/in/root": (("mid/m",), ("m",)),
        "mid/in/left": (("mid/in/root",), ("root",)),
        "mid/in/right": (("mid/in/root",), ("root",)),
        "mid/in": (("mid/in/left", "mid/in/right", "mid/m"), ("left", "right", "../m")),
        "mid": (("mid/in", "o"), ("in", "../o")),
    }
    outer.validate()


def test_it_pickles():
    outer = Pipeline("outer").with_stage("fetch", number).subpipeline("sub", diamond(), "fetch")
    assert pickle.loads(pickle.dumps(outer)) == outer


# What it does


async def test_the_output_maps_each_sink_to_its_data():
    outer = (
        Pipeline("outer")
        .with_stage("fetch", number)
        .subpipeline("sub", diamond(), "fetch")
        .with_stage("end", seen, dependencies="sub")
    )
    result = await outer.run()
    assert result.data("sub/root") == {"fetch": {"n": 1}}
    assert result.data("sub/left") == {"root": {"fetch": {"n": 1}}}
    assert result.data("sub") == {"left": {"root": {"fetch": {"n": 1}}}, "right": {"n": 1}}
    assert result.data("end") == {"sub": result.data("sub")}
    assert result.ok


async def test_nested_stages_know_their_neighbours_by_their_own_names():
    middle = Pipeline("middle").with_stage("m", number).subpipeline("in", diamond(), "m")
    outer = Pipeline("outer").subpipeline("mid", middle).with_stage("end", seen, dependencies="mid")
    result = await outer.run()
    assert result.data("mid/in/root") == {"m": {"n": 1}}
    assert result.data("mid/in/left") == {"root": {"m": {"n": 1}}}
    assert result.data("mid") == {"in": {"left": {"root": {"m": {"n": 1}}}, "right": {"n": 1}}}


async def test_the_same_pipeline_may_be_used_twice_and_one_after_the_other():
    outer = Pipeline("outer").subpipeline("one", diamond()).subpipeline("two", diamond(), "one")
    result = await outer.run()
    assert result.data("two/root") == {"one": result.data("one")}


async def test_a_route_inside_names_its_router_as_it_knows_it():
    inner = (
        Pipeline("inner")
        .with_stage("router", choose)
        .with_stage("left", number, dependencies="router", when=route("router", "left"))
        .with_stage("right", number, dependencies="router", when=route("router", "right"))
    )
    result = await Pipeline("outer").subpipeline("sub", inner).run()
    assert result.states["sub/right"] is STATE.SKIPPED
    assert result.data("sub") == {"left": {"n": 1}}


@pytest.mark.parametrize("how", ["by its own word", "by its trigger", "by its route"])
async def test_it_is_skipped_where_every_sink_was(how):
    inner = Pipeline("inner").with_stage("first", skip if how == "by its trigger" else choose)
    when = route("first", "right") if how == "by its route" else None
    inner = inner.with_stage("last", skip, dependencies="first", when=when)
    result = await Pipeline("outer").subpipeline("sub", inner).with_stage("end", nothing, dependencies="sub").run()
    assert result.states["sub/last"] is STATE.SKIPPED
    assert result.states["sub"] is STATE.SKIPPED
    assert result.reason("sub") == "every sink was skipped"
    assert result.states["end"] is STATE.SKIPPED


async def test_a_sink_that_failed_isolates_it():
    inner = diamond().with_stage("bad", boom, dependencies="root")
    outer = Pipeline("outer").subpipeline("sub", inner).with_stage("end", nothing, dependencies="sub")
    result = await outer.run(continue_on_failure=True)
    assert result.states["sub/left"] is STATE.OK
    assert result.states["sub"] is STATE.ISOLATED
    assert result.cause_chain("end") == ("end", "sub", "sub/bad")
    assert list(result.failures) == ["sub/bad"]


async def test_a_failure_inside_that_reaches_no_sink_does_not_isolate_it():
    inner = diamond().with_stage("bad", boom, dependencies="root")
    inner = inner.with_stage("cleanup", nothing, dependencies="bad", trigger=Trigger.ALL_DONE)
    result = await Pipeline("outer").subpipeline("sub", inner).run(continue_on_failure=True)
    assert result.states["sub"] is STATE.OK
    assert set(result.data("sub")) == {"left", "right", "cleanup"}


async def test_what_it_depends_on_decides_over_its_first_stages():
    outer = Pipeline("outer").with_stage("bad", boom).subpipeline("sub", diamond(), "bad")
    result = await outer.run(continue_on_failure=True)
    assert [result.states[name] for name in ("sub/root", "sub/left", "sub")] == [STATE.ISOLATED] * 3
    outer = Pipeline("outer").with_stage("skip", skip).subpipeline("sub", diamond(), "skip")
    result = await outer.run()
    assert [result.states[name] for name in ("sub/root", "sub/left", "sub")] == [STATE.SKIPPED] * 3


async def test_a_wide_one():
    inner = Pipeline("inner").with_stages(parallel_stages("w{key}", number, range(300)))
    result = await Pipeline("outer").subpipeline("sub", inner).run()
    assert len(result.data("sub")) == 300


async def test_a_chain_of_nestings():
    pipeline = Pipeline("p").with_stage("s", number)
    for _ in range(30):
        pipeline = Pipeline("p").subpipeline("in", pipeline)
    result = await pipeline.run()
    data = result.data("in")
    for _ in range(29):
        data = data["in"]
    assert data == {"s": {"n": 1}}


# Refusals


def refusal(add):
    with pytest.raises(PipelineValidationError) as caught:
        add()
    return str(caught.value)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (
            Pipeline("inner"),
            (
                "pipeline 'inner': it has no stages (it is the subpipeline 'sub' of 'outer'); "
                "add a stage: with_stage('name', runner)"
            ),
        ),
        (
            Pipeline("inner").with_stage("fetch", nothing).with_stage("a", nothing, dependencies="fetsch"),
            (
                "pipeline 'inner', stage 'a': unknown dependency 'fetsch' (it is the subpipeline 'sub' of 'outer'); "
                "did you mean 'fetch'?"
            ),
        ),
    ],
)
def test_an_inner_pipeline_must_be_valid_by_itself(inner, message):
    assert refusal(lambda: Pipeline("outer").subpipeline("sub", inner)) == message
    with pytest.raises(PipelineValidationError) as caught:
        inner.validate()
    assert "subpipeline" not in str(caught.value)


def test_a_cycle_inside():
    inner = Pipeline("inner").with_stage("a", nothing, dependencies="b").with_stage("b", nothing, dependencies="a")
    with pytest.raises(CycleDetectedError, match=r"a -> b -> a.*\(it is the subpipeline 'sub' of 'outer'\)"):
        Pipeline("outer").subpipeline("sub", inner)


def test_the_stage_of_a_subpipeline_is_as_immutable_as_others():
    spec = Pipeline("outer").subpipeline("sub", diamond()).stages[-1]
    with pytest.raises(TypeError, match="this mapping is frozen"):
        spec.config["sinks"] = ()
    assert isinstance(hash(spec), int)


def test_names_are_checked_like_those_of_stages():
    outer = Pipeline("outer").with_stage("a", nothing)
    assert refusal(lambda: outer.subpipeline("", diamond())) == (
        "pipeline 'outer': stage name must be a non-empty string, not ''"
    )
    assert refusal(lambda: outer.subpipeline("sub", diamond(), "sub")) == (
        "pipeline 'outer', stage 'sub': 'sub' depends on itself; remove it from its dependencies"
    )
    assert refusal(lambda: outer.subpipeline("a", diamond())) == (
        "pipeline 'outer', stage 'a': the pipeline has a stage of this name already; rename one of the two"
    )
    twice = outer.subpipeline("sub", diamond())
    assert "stage 'sub/root': the pipeline has a stage of this name already" in refusal(
        lambda: twice.subpipeline("sub", diamond())
    )


def test_an_unknown_outer_dependency_is_found_at_the_first_run():
    outer = Pipeline("outer").with_stage("fetch", nothing).subpipeline("sub", diamond(), "fetsch")
    message = refusal(outer.validate)
    assert message == "pipeline 'outer', stage 'sub/root': unknown dependency 'fetsch'; did you mean 'fetch'?"
