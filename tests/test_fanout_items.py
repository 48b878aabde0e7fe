"""Dynamic fan-outs: every way an item can end, and what that makes of the stage."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from fanout_cases import Abort, counts_of, ends, fan, follow, forever, ledger_of, nothing, run, second

from stageflow_actors import (
    Limiter,
    PipelineFailedError,
    RunEnding,
    StageFailedError,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
    events,
)
from stageflow_actors.errors import (
    ItemFailedError,
    NotFreezableError,
    NurseryLeftOpenError,
    StageReturnTypeError,
    StrayCancelledError,
    UndeclaredDependencyError,
)


def at_one(act, rest=second):
    """Return a worker that does something else with item 1, when all have begun."""

    async def work(ctx):
        if ctx.snapshot.data["index"] != 1:
            return await rest(ctx)
        await trio.sleep(0.25)
        return await act(ctx)

    return work


def reply(output):
    async def act(ctx):
        return output

    return act


def throw(make):
    async def act(ctx):
        raise make()

    return act


async def leave_open(ctx):
    nursery = await trio.open_nursery().__aenter__()
    nursery.start_soon(trio.sleep_forever)


async def stray(ctx):
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            kept = cancelled
    raise kept


async def fail_in_nursery(ctx):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(throw(lambda: ValueError("child")), ctx)
        nursery.start_soon(trio.sleep_forever)


async def ask_elsewhere(ctx):
    ctx.inputs.output("elsewhere")


LOOP: list[Any] = []
LOOP.append(LOOP)


@attrs.frozen(kw_only=True)
class Way:
    act: Any
    data: Any = None
    """What it gives."""
    skips: str | None = None
    error: type[BaseException] | None = None
    reason: str = ""
    timeout: float | None = None


WAYS = {
    "ok": Way(act=reply(StageOutput.ok(a=1)), data={"a": 1}),
    "a mapping": Way(act=reply({"a": [1]}), data={"a": (1,)}),
    "none": Way(act=nothing, data={}),
    "a route": Way(act=reply(StageOutput.route("left", {"a": 1})), data={"a": 1}),
    "skip": Way(act=reply(StageOutput.skip("blank", {"a": 1})), skips="blank"),
    "fail": Way(act=reply(StageOutput.fail("no row")), error=StageFailedError, reason="it returned fail: no row"),
    "retry": Way(
        act=reply(StageOutput.retry("busy")),
        error=StageFailedError,
        reason="it returned retry: busy; to have it run again give it restart=Restart(...)",
    ),
    "raise": Way(act=throw(lambda: ValueError("boom")), error=ValueError, reason="boom"),
    "raise a group": Way(act=fail_in_nursery, error=ExceptionGroup),
    "time out": Way(act=forever, error=StageTimeoutError, reason="it ran into its timeout of 0.5 s", timeout=0.5),
    "a wrong type": Way(act=reply(5), error=StageReturnTypeError),
    "what cannot be frozen": Way(act=reply({"a": LOOP}), error=NotFreezableError),
    "an undeclared dependency": Way(act=ask_elsewhere, error=UndeclaredDependencyError),
    "a nursery left open": Way(act=leave_open, error=NurseryLeftOpenError),
    "a stray Cancelled": Way(act=stray, error=StrayCancelledError),
}


def make_class(function):
    class Worker:
        async def execute(self, ctx):
            return await function(ctx)

    return Worker


class Managed:
    function: Any

    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        self.entered = True

    async def __aexit__(self, *exc):
        await trio.lowlevel.checkpoint()
        assert self.entered

    async def execute(self, ctx):
        return await type(self).function(ctx)


def make_managed(function):
    return type("Worker", (Managed,), {"function": staticmethod(function)})


FORMS = {
    "function": lambda function: function,
    "class": make_class,
    "instance": lambda function: make_class(function)(),
    "managed": make_managed,
}


def begin(way, form, *, failing="fail", collect=True):
    """Return the pipeline of four items of which the second ends in some way, the others after a second."""
    # The timeout is the same for all, so the others are quick where there is one.
    rest = nothing if way.timeout is not None else second
    options = {"on_item_failure": failing, "collect": collect, "timeout": way.timeout}
    return fan(FORMS[form](at_one(way.act, rest)), range(4), limiter=Limiter(10), **options)


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name, way in WAYS.items() if way.error is None])
@pytest.mark.parametrize("failing", ["fail", "collect"])
async def test_an_item_that_ends_well(name, form, failing, collect, autojump_clock):
    way = WAYS[name]
    result, seen = await follow(begin(way, form, failing=failing, collect=collect))
    assert result.ok
    skipped = way.skips is not None
    assert counts_of(result) == (4, 4 - skipped, skipped, 0)
    assert ledger_of(result) == (5, 5, 0, 0)
    assert ends(seen)[1] == (("skipped", "blank") if skipped else ("ok", ""))
    if collect:
        assert result.data("f")["results"] == ({}, way.data, {}, {})
    else:
        assert set(result.data("f")) == {"count", "ok", "skipped", "failed"}


def check_error(way, error):
    assert isinstance(error, way.error)
    if way.reason:
        assert str(error).removeprefix("pipeline 'p', stage 'f[1]': ") == way.reason


BAD = [name for name, way in WAYS.items() if way.error is not None]


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BAD)
async def test_an_item_that_fails_is_collected(name, form, collect, autojump_clock):
    way = WAYS[name]
    result, seen = await follow(begin(way, form, failing="collect", collect=collect))
    assert result.ok
    assert counts_of(result) == (4, 3, 0, 1)
    assert ledger_of(result) == (5, 4, 1, 0)
    assert ends(seen)[1][0] == "failed"
    (crash,) = [event for event in seen if isinstance(event, events.StageCrashed)]
    assert (crash.stage, crash.item, crash.attempt) == ("f", 1, 1)
    check_error(way, crash.error)
    if not collect:
        return
    assert result.data("f")["results"] == ({}, None, {}, {})
    ((position, failure),) = result.data("f")["failures"].items()
    assert (position, failure.stage, failure.error) == (1, "f[1]", crash.error)
    (attempt,) = failure.attempts
    ended = way.timeout or 0.25
    assert (attempt.number, attempt.started, attempt.ended, attempt.error) == (1, 0.0, ended, crash.error)


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BAD)
async def test_an_item_that_fails_fails_the_stage(name, form, collect, autojump_clock):
    way = WAYS[name]
    result, seen = await follow(begin(way, form, collect=collect))
    assert result.states == {"f": StageState.FAILED}
    error = result.failures["f"].error
    assert isinstance(error, ItemFailedError)
    assert (error.index, error.escalates, error.pipeline, error.stage, error.attempt) == (1, False, "p", "f", 1)
    check_error(way, error.__cause__)
    assert str(error).startswith(f"pipeline 'p', stage 'f': item 1 failed: {type(error.__cause__).__qualname__}: ")
    assert len(result.failures["f"].attempts) == 1
    if way.timeout is None:
        assert ledger_of(result) == (5, 0, 2, 3)
        assert {ends(seen)[item] for item in (0, 2, 3)} == {("cancelled", "the stage ended while it ran")}
    else:
        assert ledger_of(result) == (5, 3, 2, 0)


# What ends more than the stage


@pytest.mark.parametrize("failing", ["fail", "collect"])
async def test_an_item_that_cancels_ends_the_run(failing, autojump_clock):
    pipeline = fan(at_one(reply(StageOutput.cancel("nothing new"))), range(5), on_item_failure=failing)
    pipeline = pipeline.with_stage("other", forever).with_stage("after", nothing, dependencies="f")
    result, seen = await follow(pipeline)
    assert set(result.states.values()) == {StageState.CANCELLED}
    assert (result.ended.ending, result.ended.reason) == (RunEnding.CANCELLED, "stage 'f': nothing new")
    assert ends(seen)[1] == ("cancelled", "nothing new")
    assert {ends(seen)[item][0] for item in (0, 2)} == {"cancelled"}
    # Two that replied: the item and its stage.
    accepted, *others = ledger_of(result)
    assert others == [2, 0, accepted - 2]


@pytest.mark.parametrize("failing", ["fail", "collect"])
@pytest.mark.parametrize("keep_going", [True, False])
async def test_what_is_no_exception_ends_the_run_and_comes_out(failing, keep_going, autojump_clock):
    pipeline = fan(at_one(throw(lambda: Abort("enough"))), range(3), on_item_failure=failing)
    pipeline = pipeline.with_stage("other", forever)
    handle = None
    with pytest.raises(Abort, match=r"^enough$"):
        async with Supervisor() as supervisor:
            handle = supervisor.start(pipeline, continue_on_failure=keep_going)
            with pytest.raises(Abort):
                await handle.result()
    result = handle.partial()
    assert result.states == {"f": StageState.FAILED, "other": StageState.CANCELLED}
    assert isinstance(result.failures["f"].error, Abort)
    assert ledger_of(result) == (5, 0, 2, 3)


async def test_two_that_are_no_exceptions_come_out_together(autojump_clock):
    go = trio.Event()

    async def abort(ctx):
        if ctx.snapshot.data["index"] == 2:
            await trio.sleep(1)
            go.set()
        else:
            await go.wait()
            raise Abort

    pipeline = fan(abort, range(3), on_item_failure="collect")
    with pytest.raises(BaseExceptionGroup) as caught:
        await run(pipeline)
    assert caught.value.message == "items of 'f'"
    assert [type(error) for error in caught.value.exceptions] == [Abort, Abort]


async def test_what_is_no_exception_comes_before_what_failed_first(autojump_clock):
    async def act(ctx):
        if ctx.snapshot.data["index"] == 0:
            await trio.sleep(1)
            raise ValueError("first")
        try:
            await trio.sleep_forever()
        finally:
            raise Abort("late")

    with pytest.raises(Abort):
        await run(fan(act, range(2)))


@pytest.mark.parametrize("failing", ["fail", "collect"])
async def test_fail_fast_raises_and_names_the_item(failing, autojump_clock):
    pipeline = fan(at_one(throw(lambda: ValueError("boom"))), range(3), on_item_failure=failing)
    if failing == "collect":
        assert (await run(pipeline, continue_on_failure=False)).ok
        return
    with pytest.raises(PipelineFailedError) as caught:
        await run(pipeline, continue_on_failure=False)
    assert str(caught.value).splitlines()[0].endswith("item 1 failed: ValueError: boom")
    (cause,) = caught.value.__cause__.exceptions
    assert isinstance(cause.__cause__, ValueError)


async def test_the_first_failure_is_the_one_that_is_told(autojump_clock):
    async def act(ctx):
        index = ctx.snapshot.data["index"]
        try:
            await trio.sleep(3 - index)
        except trio.Cancelled:
            raise OSError(f"cleanup of {index}") from None
        raise ValueError(f"boom {index}")

    result, seen = await follow(fan(act, range(3)))
    error = result.failures["f"].error
    assert (error.index, str(error.__cause__)) == (2, "boom 2")
    assert {position: state for position, (state, _) in ends(seen).items()} == {0: "failed", 1: "failed", 2: "failed"}
    assert ledger_of(result) == (4, 0, 4, 0)


async def test_an_item_that_returns_a_value_although_cancelled_is_ok(autojump_clock):
    async def act(ctx):
        if ctx.snapshot.data["index"] == 1:
            await trio.sleep(1)
            raise ValueError("boom")
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return {"done": True}

    result, seen = await follow(fan(act, range(3)))
    assert isinstance(result.failures["f"].error, ItemFailedError)
    assert ends(seen)[0] == ends(seen)[2] == ("ok", "")
    assert ledger_of(result) == (4, 2, 2, 0)


async def test_an_item_that_overran_is_told(autojump_clock):
    async def act(ctx):
        with trio.CancelScope(shield=True):
            await trio.sleep(ctx.snapshot.data["item"])

    result, seen = await follow(fan(act, [2, 0.5], timeout=1))
    assert counts_of(result) == (2, 2, 0, 0)
    assert [(e.stage, e.attempt, e.item) for e in seen if isinstance(e, events.StageOverran)] == [("f", 1, 0)]


async def test_failures_are_in_the_order_of_the_items(autojump_clock):
    async def act(ctx):
        await trio.sleep(9 - ctx.snapshot.data["index"])
        raise ValueError("boom")

    result = await run(fan(act, range(5), limiter=Limiter(5), on_item_failure="collect"))
    assert list(result.data("f")["failures"]) == [0, 1, 2, 3, 4]
