"""Values as the shortest expression that makes them."""

from __future__ import annotations

from functools import partial

import attrs
import pytest

import stageflow_actors
from stageflow_actors import (
    Backoff,
    ContextSnapshot,
    Pipeline,
    Restart,
    StageKind,
    StageOutput,
    StageStatus,
    Trigger,
    route,
)
from stageflow_actors.testing._brief import Brief, brief


async def work(ctx):
    """Return at once."""


class Worker:
    kind = StageKind.GUARD

    def __init__(self, *args, **kwargs):
        pass

    async def execute(self, ctx):
        """Return at once."""


class Told:
    async def execute(self, ctx):
        """Return at once."""

    def __repr__(self):
        return "Told()"


@attrs.frozen(repr=False)
class Point(Brief):
    x: int
    y: int = 0
    tags: tuple = attrs.field(factory=tuple)
    color: str = attrs.field(default="red", kw_only=True)
    weight: int = attrs.field(kw_only=True)


@pytest.mark.parametrize(
    ("made", "written"),
    [
        (Point(1, weight=2), "Point(1, weight=2)"),
        (Point(1, 2, ("a",), color="blue", weight=2), "Point(1, y=2, tags=('a',), color='blue', weight=2)"),
        (Point(Trigger.ALL_DONE, weight=work), "Point(Trigger.ALL_DONE, weight=work)"),
    ],
)
def test_a_brief_class_shows_what_is_no_default(made, written):
    assert repr(made) == brief(made) == written


@pytest.mark.parametrize(
    "made",
    [
        StageOutput.ok(),
        StageOutput.ok({"a": (1, "x")}),
        StageOutput.route("left"),
        StageOutput.route("left", {"a": 1}),
        StageOutput.skip(),
        StageOutput.skip("none today"),
        StageOutput.skip("", {"a": 1}),
        StageOutput.cancel("enough", {"a": 1}),
        StageOutput.fail(""),
        StageOutput.fail("bad", {"a": 1}),
        StageOutput.retry("later"),
        StageOutput.retry("", {"a": 1}, after=2.5),
        ContextSnapshot(),
        ContextSnapshot(input_text="x", data={"a": 1}, metadata={"b": ()}),
        Restart(),
        Restart(max_restarts=1, within=60.0, on=ValueError, backoff=Backoff(initial=0.5, jitter=0.0)),
        Trigger.ALL_DONE,
        StageStatus.OK,
        route("router", "left", "right"),
        [1, "x", None],
    ],
    ids=brief,
)
def test_the_expression_makes_an_equal_value(made):
    assert eval(brief(made), vars(stageflow_actors) | {"ValueError": ValueError}) == made


@pytest.mark.parametrize(
    ("made", "written"),
    [
        (StageOutput.ok(), "StageOutput.ok()"),
        (StageOutput.skip(), "StageOutput.skip()"),
        (StageOutput.fail(ValueError("x")), "StageOutput.fail(ValueError('x'))"),
        (ContextSnapshot(data={"a": 1}), "ContextSnapshot(data={'a': 1})"),
        (Restart(on=(OSError,)), "Restart(on=(OSError,))"),
        (Worker, "Worker"),
        (partial(Worker, 1, name="x"), "partial(Worker, 1, name='x')"),
        (Told(), "Told()"),
    ],
)
def test_it_is_short(made, written):
    assert brief(made) == written


def test_a_pipeline_is_written_as_it_is_built():
    pipeline = (
        Pipeline("report")
        .with_stage("fetch", Worker, config={"url": "x"}, restart=Restart(max_restarts=1))
        .with_stage("other", work, StageKind.AGENT, priority=2)
        .with_stage("left", Told(), dependencies="fetch", when=route("fetch", "left"), timeout=2.0)
        .with_stage("join", partial(work), dependencies=["left", "other"], trigger=Trigger.ALL_DONE)
    )
    written = brief(pipeline)
    assert written.split("\n    ") == [
        "Pipeline('report')",
        ".with_stage('fetch', Worker, config={'url': 'x'}, restart=Restart(max_restarts=1))",
        ".with_stage('other', work, kind=StageKind.AGENT, priority=2)",
        ".with_stage('left', Told(), dependencies='fetch', when=route('fetch', 'left'), timeout=2.0)",
        ".with_stage('join', partial(work), dependencies=('left', 'other'), trigger=Trigger.ALL_DONE)",
    ]
    names = {**vars(stageflow_actors), "Worker": Worker, "work": work, "partial": partial, "Told": Told}
    assert [spec.name for spec in eval(f"({written})", names).stages] == ["fetch", "other", "left", "join"]


def test_a_pipeline_of_one_stage_stands_in_one_line():
    assert brief(Pipeline("one").with_stage("a", work)) == "Pipeline('one').with_stage('a', work)"
    assert brief(Pipeline("none")) == "Pipeline('none')"
