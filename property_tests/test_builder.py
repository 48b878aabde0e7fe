"""The builder against lists: prefixes share a table, and never see each other's stages."""

from __future__ import annotations

import pickle
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import Pipeline, PipelineValidationError, parallel_stages


async def work(ctx):
    """Return at once."""


async def other_work(ctx):
    """Return at once."""


class Add(Enum):
    """What is done to a pipeline drawn earlier."""

    STAGE = "with_stage"
    STAGES = "with_stages"
    COMPOSE = "compose"
    VALIDATE = "validate"
    BAD = "with_stage that is refused for its options"


# Few names, so that many are refused; and from all branches of the tree, so that tables are copied.
NAMES = st.sampled_from("abcdefghij")
STEPS = st.tuples(
    st.sampled_from([Add.STAGE] * 4 + [Add.STAGES] * 2 + [Add.COMPOSE, Add.VALIDATE, Add.BAD]),
    st.integers(0, 30),
    st.integers(0, 30),
    st.lists(NAMES, min_size=1, max_size=4),
    st.booleans(),
)


def describe(pipeline):
    """Return what a pipeline says of its stages."""
    return [(spec.name, spec.runner, spec.dependencies, dict(spec.config)) for spec in pipeline.stages]


def apply(step, pipelines, models):
    """Do one step on a pipeline and on its model; return the grown pair, or None where it was refused."""
    add, base, other, names, upstream = step
    pipeline, model = pipelines[base % len(pipelines)], models[base % len(models)]
    taken = [name for name, *_ in model]
    dependencies = tuple(dict.fromkeys(name for name in taken if name not in names))[:2] if upstream else ()
    runner = work if upstream else other_work
    if add is Add.STAGE:
        if names[0] in taken:
            refuse(lambda: pipeline.with_stage(names[0], runner), names[0])
            return None
        grown = pipeline.with_stage(names[0], runner, dependencies=dependencies, config={"k": base})
        return grown, [*model, (names[0], runner, dependencies, {"k": base})]
    if add is Add.STAGES:
        specs = [spec for name in names for spec in parallel_stages("{key}", runner, [name])]
        if len(set(names)) < len(names) or set(names) & set(taken):
            refuse(lambda: pipeline.with_stages(iter(specs)), None)
            return None
        return pipeline.with_stages(iter(specs)), [*model, *((name, runner, (), {"key": name}) for name in names)]
    if add is Add.COMPOSE:
        more, more_model = pipelines[other % len(pipelines)], models[other % len(models)]
        if {name for name, *_ in more_model} & set(taken):
            refuse(lambda: pipeline.compose(more), None)
            return None
        return pipeline.compose(more), model + more_model
    if add is Add.BAD:
        refuse(lambda: pipeline.with_stage(names[0], work, timeout=-1), names[0])
    elif model:
        pipeline.validate()
    else:
        refuse(pipeline.validate, None)
    return None


def refuse(call, stage):
    with pytest.raises(PipelineValidationError) as caught:
        call()
    assert caught.value.pipeline == "drawn"
    assert stage is None or caught.value.stage == stage


@given(steps=st.lists(STEPS, max_size=40))
def test_any_tree_of_additions_agrees_with_lists(steps):
    pipelines, models = [Pipeline("drawn")], [[]]
    for step in steps:
        grown = apply(step, pipelines, models)
        if grown is not None:
            pipelines.append(grown[0])
            models.append(grown[1])
    for pipeline, model in zip(pipelines, models, strict=True):
        assert describe(pipeline) == model
        assert len(pipeline) == len(model)
    check_values(pipelines, models)


def check_values(pipelines, models):
    """Equal exactly where their stages are; with equal hashes; what was pickled is equal and grows on."""
    copies = pickle.loads(pickle.dumps(pipelines))
    for pipeline, model, twin in zip(pipelines, models, copies, strict=True):
        assert twin == pipeline
        assert hash(twin) == hash(pipeline)
        assert str(len(model)) in repr(pipeline)
        assert "'drawn'" in repr(pipeline)
        assert describe(twin.with_stage("new", work)) == [*model, ("new", work, (), {})]
        assert describe(pipeline) == model
        for other, other_model in zip(pipelines, models, strict=True):
            assert (pipeline == other) == (model == other_model)
            assert hash(pipeline) == hash(other) or model != other_model


@given(names=st.lists(NAMES, min_size=1, max_size=8, unique=True), data=st.data())
def test_a_refused_stage_does_not_claim_its_name(names, data):
    """Neither by an option, nor by standing in one list with a duplicate, nor as part of a whole pipeline."""
    pipeline = Pipeline("drawn").with_stage("taken", work)
    specs = parallel_stages("{key}", work, names)
    position = data.draw(st.integers(0, len(names)))
    duplicate = parallel_stages("{key}", work, ["taken"])
    mixed = [*specs[:position], *duplicate, *specs[position:]]
    other = Pipeline("other").with_stages(mixed)
    for call in (
        lambda: pipeline.with_stages(mixed),
        lambda: pipeline.compose(other),
        lambda: pipeline.with_stage(names[0], work, timeout=0),
        lambda: pipeline.with_stage(names[0], work, dependencies=names[0]),
        lambda: pipeline.with_stage(names[0], "no runner"),
    ):
        refuse(call, None)
    assert [spec.name for spec in pipeline.with_stages(specs).stages] == ["taken", *names]


@given(length=st.integers(0, 60), branches=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=8))
def test_branches_of_any_prefix_keep_to_themselves(length, branches):
    """The same names on every branch: refused nowhere, and seen on no other."""
    trunk = [Pipeline("drawn")]
    for number in range(length):
        trunk.append(trunk[-1].with_stage(f"t{number}", work, dependencies=f"t{number - 1}" if number else ()))
    grown = []
    for start, count in branches:
        pipeline = trunk[start % len(trunk)]
        for _ in range(count):
            pipeline = pipeline.with_stage(f"t{len(pipeline)}", other_work)
        grown.append((pipeline, start % len(trunk), count))
    for number, pipeline in enumerate(trunk):
        assert [spec.runner for spec in pipeline.stages] == [work] * number
    for pipeline, start, count in grown:
        assert [spec.runner for spec in pipeline.stages] == [work] * start + [other_work] * count
        assert [spec.name for spec in pipeline.stages] == [f"t{number}" for number in range(start + count)]
        pipeline.validate()
