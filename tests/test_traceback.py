"""Tracebacks without the runtime's own frames."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from stageflow_actors import FanOutLimiterStage, Limiter, Pipeline, Supervisor
from stageflow_actors._traceback import drop_own_frames


def frames(error):
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]


def make_runtime_function(name):
    """A function that calls another, as if it stood in one of the runtime's private modules."""
    namespace = {"__name__": "stageflow_actors._engine"}
    exec(f"def {name}(function): return function()", namespace)
    return namespace[name]


def boom():
    raise ValueError("boom")


def catch(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def test_own_frames_go_wherever_they_stand():
    outer, inner = make_runtime_function("outer"), make_runtime_function("inner")

    def user():
        inner(boom)

    error = catch(partial(outer, partial(outer, user)))
    assert frames(error) == ["catch", "outer", "outer", "user", "inner", "boom"]
    drop_own_frames(error)
    assert frames(error) == ["catch", "user", "boom"]


def test_own_frames_at_the_end_go_too():
    namespace = {"__name__": "stageflow_actors._stage"}
    exec("def refuse(): raise LookupError('x')", namespace)
    error = catch(namespace["refuse"])
    drop_own_frames(error)
    assert frames(error) == ["catch"]


def test_only_own_frames_make_an_empty_traceback():
    namespace = {"__name__": "stageflow_actors._stage"}
    exec("def keep():\n try: raise LookupError('x')\n except LookupError as error: return error", namespace)
    error = namespace["keep"]()
    drop_own_frames(error)
    assert error.__traceback__ is None


def test_public_modules_and_lookalikes_stay():
    for name in ("stageflow_actors.cli", "stageflow_actors_extra._x", "my.stageflow_actors._x", "__main__", None):
        namespace = {"__name__": name}
        exec("def user(function): return function()", namespace)
        error = catch(partial(namespace["user"], boom))
        drop_own_frames(error)
        assert frames(error) == ["catch", "user", "boom"]


def test_causes_contexts_and_groups_are_cleaned():
    own = make_runtime_function("own")

    def chained():
        try:
            own(boom)
        except ValueError as error:
            raise KeyError("k") from error

    def handling():
        try:
            own(chained)
        except KeyError:
            raise ExceptionGroup("g", [catch(partial(own, boom)), ExceptionGroup("h", [catch(partial(own, boom))])])  # noqa: B904

    group = catch(partial(own, handling))
    drop_own_frames(group)
    assert frames(group) == ["catch", "handling"]
    assert frames(group.__context__) == ["handling", "chained"]
    assert frames(group.__context__.__cause__) == ["chained", "boom"]
    assert frames(group.exceptions[0]) == ["catch", "boom"]
    assert frames(group.exceptions[1].exceptions[0]) == ["catch", "boom"]


def test_errors_that_refer_to_each_other_do_not_go_round_for_ever():
    one, two = catch(partial(make_runtime_function("own"), boom)), catch(boom)
    one.__context__, two.__cause__ = two, one
    drop_own_frames(one)
    assert frames(one) == ["catch", "boom"]


def test_long_chains_need_no_recursion():
    first = error = ValueError(0)
    for number in range(1, 20_000):
        error.__context__ = ValueError(number)
        error = error.__context__
    deepest = catch(partial(make_runtime_function("own"), boom))
    error.__context__ = deepest
    drop_own_frames(first)
    assert frames(deepest) == ["catch", "boom"]
    while first is not None:  # taken apart here: deallocating it whole is the interpreter's own recursion
        first.__context__, first = None, first.__context__


def test_what_a_stage_raised_shows_the_users_lines_only():
    class Stage:
        async def execute(self, ctx):
            boom()

    async def function(ctx):
        boom()

    for runner, name in ((Stage, "execute"), (Stage(), "execute"), (function, "function")):
        pipeline = Pipeline("p").with_stage("s", runner).with_stage("timed", runner, timeout=5)
        result = trio.run(partial(pipeline.run, continue_on_failure=True))
        for failure in result.failures.values():
            assert frames(failure.error) == [name, "boom"]


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


async def test_a_frozen_error_is_a_failure_like_any():
    async def fail(ctx):
        raise FrozenError(7)

    result = await Pipeline("p").with_stage("a", fail).run(continue_on_failure=True)
    error = result.failures["a"].error
    assert error == FrozenError(7)
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["fail"]


async def test_a_stage_that_awaits_asyncio_on_trio_is_told_what_to_do():
    async def sleep(ctx):
        await asyncio.sleep(1)

    note = (
        "the stage awaits asyncio, and runs on trio: "
        "give it placement=asyncio_loop(...), from stageflow_actors.embed.asyncio"
    )
    fan = FanOutLimiterStage(sleep, items=[1], limiter=Limiter(1), on_item_failure="collect")
    result = await Pipeline("p").with_stage("a", sleep).with_stage("fan", fan).run(continue_on_failure=True)
    assert result.failures["a"].error.__notes__ == [note]
    assert result.data("fan")["failures"][0].error.__notes__ == [note]
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(sleep, name="actor")
        with pytest.raises(RuntimeError, match="no running event loop") as caught:
            await ref.ask()
    assert caught.value.__notes__ == [note]
