"""What a dynamic fan-out refuses when it is defined or run, and what its items may do wrong."""

from __future__ import annotations

from functools import partial

import pytest
from fanout_cases import below, echo, fan, forever, ledger_of, nothing, run, upstream

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineValidationError,
    StageOutput,
    StageState,
    Supervisor,
)
from stageflow_actors.errors import MissingKeyError, NoOutputError, StageReturnTypeError

# What a source may do wrong


def raise_at_once(inputs):
    raise OSError("no folder")


def raise_later(inputs):
    yield 0
    yield 1
    raise OSError("folder gone")


async def raise_later_async(inputs):
    yield 0
    yield 1
    raise OSError("folder gone")


@pytest.mark.parametrize(
    ("items", "text"), [(raise_at_once, "no folder"), (raise_later, "folder gone"), (raise_later_async, "folder gone")]
)
async def test_what_a_source_raises_fails_the_stage_and_cancels_its_items(items, text, autojump_clock):
    result = await run(fan(forever, items))
    error = result.failures["f"].error
    assert type(error) is OSError
    assert str(error) == text
    begun = 0 if items is raise_at_once else 2
    assert ledger_of(result) == (begun + 1, 0, 1, begun)


TAKES = "; it takes a list, a generator, or another iterable"


@pytest.mark.parametrize(
    ("items", "kind", "problem"),
    [
        (("up", "text"), StageReturnTypeError, f"the output 'text' of 'up' cannot be 'abc', of type str{TAKES}"),
        (("up", "number"), StageReturnTypeError, f"the output 'number' of 'up' cannot be 5, of type int{TAKES}"),
        (("up", "none"), StageReturnTypeError, f"the output 'none' of 'up' cannot be None, of type NoneType{TAKES}"),
        (
            ("up", "pages"),
            StageReturnTypeError,
            f"the output 'pages' of 'up' cannot be {{'a': 1}}, of type FrozenDict{TAKES}",
        ),
        (
            lambda inputs: 5,
            StageReturnTypeError,
            f"what its function for the items returned cannot be 5, of type int{TAKES}",
        ),
        (
            lambda inputs: b"abc",
            StageReturnTypeError,
            f"what its function for the items returned cannot be b'abc', of type bytes{TAKES}",
        ),
        (("up", "itmes"), MissingKeyError, None),
    ],
)
async def test_what_gives_no_items_fails_the_stage(items, kind, problem):
    result = await run(below(echo, items))
    error = result.failures["f"].error
    assert type(error) is kind
    if problem is None:
        assert "'itmes'" in str(error)
    else:
        assert str(error) == f"pipeline 'p', stage 'f': {problem}"
    assert ledger_of(result) == (2, 1, 1, 0)


async def test_a_dependency_that_was_skipped_gives_no_items():
    async def skip(ctx):
        return StageOutput.skip("nothing new")

    runner = FanOutLimiterStage(echo, items=("up", "items"), limiter=Limiter(3))
    pipeline = Pipeline("p").with_stage("up", skip).with_stage("f", runner, dependencies="up", trigger="none_failed")
    result = await run(pipeline)
    assert result.states["f"] is StageState.FAILED
    assert isinstance(result.failures["f"].error, (NoOutputError, MissingKeyError))


# What is refused


INNER = FanOutLimiterStage(nothing, items=[], limiter=Limiter(1))
ITEMS_HINT = "give ('stage', 'key'), an iterable, an async iterable, or a function of the stage's inputs"


async def late(inputs):
    return [1]


@pytest.mark.parametrize(
    ("worker", "options", "message"),
    [
        (INNER, {}, "the worker of a fan-out cannot be a fan-out; make the items of both one sequence"),
        (
            5,
            {},
            "runner 5 cannot run a stage; pass a stage class, an instance of one, or a function of the stage's context",
        ),
        (nothing, {"limiter": 64}, "limiter must be a Limiter, not 64; write limiter=Limiter(64)"),
        (nothing, {"limiter": None}, "limiter must be a Limiter, not None; write limiter=Limiter(64)"),
        (
            nothing,
            {"on_item_failure": "colect"},
            "on_item_failure must be 'fail' or 'collect', not 'colect'; did you mean 'collect'?",
        ),
        (nothing, {"on_item_failure": None}, "on_item_failure must be 'fail' or 'collect', not None"),
        (nothing, {"timeout": 0}, "timeout must be a positive number of seconds, not 0"),
        (nothing, {"restart": 3}, "restart must be a Restart, not 3; write restart=Restart(max_restarts=3)"),
        (nothing, {"items": "abc"}, f"items cannot be 'abc', of type str; {ITEMS_HINT}"),
        (nothing, {"items": b"abc"}, f"items cannot be b'abc', of type bytes; {ITEMS_HINT}"),
        (nothing, {"items": {"a": 1}}, f"items cannot be {{'a': 1}}, of type dict; {ITEMS_HINT}"),
        (nothing, {"items": 5}, f"items cannot be 5, of type int; {ITEMS_HINT}"),
        (nothing, {"items": None}, f"items cannot be None, of type NoneType; {ITEMS_HINT}"),
        (nothing, {"items": list}, f"items cannot be <class 'list'>, of type type; {ITEMS_HINT}"),
        (
            nothing,
            {"items": late},
            f"items is the async function {late!r}; let it be a plain function, or an async generator",
        ),
        (
            nothing,
            {"items": partial(late)},
            f"items is the async function {partial(late)!r}; let it be a plain function, or an async generator",
        ),
    ],
)
def test_what_a_fan_out_refuses(worker, options, message):
    with pytest.raises(PipelineValidationError) as caught:
        FanOutLimiterStage(worker, **{"items": [], "limiter": Limiter(1), **options})
    assert str(caught.value) == message


def with_fan(limiter=None, dependencies="up"):
    runner = FanOutLimiterStage(nothing, items=("up", "items"), limiter=SHARED)
    return Pipeline("p").with_stage("up", upstream).with_stage("f", runner, None, dependencies, limiter=limiter)


SHARED = Limiter(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"dependencies": ()},
            "pipeline 'p', stage 'f': its items come from 'up', which is no dependency; add 'up' to its dependencies",
        ),
        (
            {"limiter": SHARED},
            (
                "pipeline 'p', stage 'f': its items wait for the very limiter that it would hold; "
                "leave it out here: the items are limited, and the stage around them holds no slot"
            ),
        ),
    ],
)
def test_what_with_stage_refuses(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        with_fan(**options)
    assert str(caught.value) == message


def test_a_class_where_a_fan_out_was_meant_is_refused():
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("f", FanOutLimiterStage).validate()
    assert str(caught.value) == (
        "pipeline 'p', stage 'f': runner FanOutLimiterStage is a class of fan-outs; "
        "pass an instance: FanOutLimiterStage(worker, items=...)"
    )


@pytest.mark.parametrize("key", ["item", "index"])
async def test_data_that_its_items_would_hide_is_refused(key):
    pipeline = with_fan()
    async with Supervisor() as supervisor:
        for call in (supervisor.start, supervisor.run):
            with pytest.raises(PipelineValidationError) as caught:
                await call(pipeline, {key: 1})
            assert str(caught.value) == (
                f"pipeline 'p', stage 'f': the snapshot's data has an entry '{key}', where its workers find their own; "
                "rename the entry"
            )
        assert (await supervisor.run(Pipeline("q").with_stage("a", nothing), {key: 1})).ok
        assert (await supervisor.run(pipeline, {key: 1}, targets="up")).ok


async def test_it_cannot_be_called_outside_of_a_run():
    async def call(ctx):
        await INNER.execute(ctx)

    error = (await run(Pipeline("p").with_stage("a", call))).failures["a"].error
    assert type(error) is RuntimeError
    assert str(error) == "stage 'a' is a fan-out, which runs as a stage of a pipeline and cannot be called"
