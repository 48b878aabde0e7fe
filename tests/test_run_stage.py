"""One stage alone: every form of runner, every output, every end."""

from __future__ import annotations

import contextvars
import threading
from functools import partial

import pytest
import trio

from stageflow_actors import (
    ContextSnapshot,
    FanOutLimiterStage,
    Limiter,
    StageKind,
    StageOutput,
    StageState,
)
from stageflow_actors.testing._run_stage import run_stage


def see(ctx):
    """Return all that a stage sees."""
    return {
        "data": ctx.snapshot.data,
        "config": ctx.config,
        "name": ctx.stage_name,
        "attempt": ctx.attempt,
        "inputs": {name: dict(output.data) for name, output in ctx.inputs.outputs.items()},
        "main": threading.current_thread() is threading.main_thread(),
    }


async def work(ctx):
    return see(ctx)


def work_in_thread(ctx):
    return see(ctx)


class Worker:
    """Counts its instances."""

    made = 0

    def __init__(self, *args, **kwargs):
        type(self).made += 1

    async def execute(self, ctx):
        return see(ctx)


class ThreadedWorker:
    def execute(self, ctx):
        return see(ctx)


class Manager:
    """Notes that it was entered and left, in the order of things."""

    notes = ()

    async def __aenter__(self):
        type(self).notes = ("entered",)
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, kind, error, traceback):
        await trio.lowlevel.checkpoint()
        type(self).notes += ("left", kind)


class ManagedWorker(Manager):
    async def execute(self, ctx):
        type(self).notes += ("ran",)
        return see(ctx)


class ThreadedManagedWorker(Manager):
    def execute(self, ctx):
        type(self).notes += ("ran",)
        return see(ctx)


class Called:
    async def __call__(self, ctx):
        return see(ctx)


IN_TASK = [
    work,
    partial(Worker.execute, Worker()),
    Called(),
    Worker(),
    Worker,
    partial(Worker, 1, name="x"),
    ManagedWorker,
    partial(ManagedWorker),
]
IN_THREAD = [work_in_thread, partial(work_in_thread), ThreadedWorker(), ThreadedWorker, ThreadedManagedWorker]


@pytest.mark.parametrize("runner", IN_TASK + IN_THREAD)
async def test_every_form_of_runner_sees_what_it_is_given(runner):
    output = await run_stage(runner, {"user": 7}, inputs={"fetch": {"rows": [1, 2]}}, config={"limit": 3}, name="score")
    assert output == StageOutput.ok(
        data={"user": 7},
        config={"limit": 3},
        name="score",
        attempt=1,
        inputs={"fetch": {"rows": (1, 2)}},
        main=runner in IN_TASK,
    )


async def test_nothing_needs_to_be_given():
    output = await run_stage(work)
    assert output.data == {"data": {}, "config": {}, "name": "stage", "attempt": 1, "inputs": {}, "main": True}


async def test_a_snapshot_is_handed_on_with_an_identity():
    seen = []

    async def look(ctx):
        seen.append(ctx.snapshot)

    snapshot = ContextSnapshot(input_text="hello", data={"a": 1}, topology="wide")
    await run_stage(look, snapshot)
    assert seen[0].run_id is not None
    assert seen[0].stamped(None) == snapshot


@pytest.mark.parametrize("cls", [ManagedWorker, ThreadedManagedWorker])
async def test_a_context_manager_is_entered_and_left_once(cls):
    await run_stage(cls)
    assert cls.notes == ("entered", "ran", "left", None)


async def test_a_class_is_made_once():
    Worker.made = 0
    await run_stage(Worker)
    assert Worker.made == 1


OUTPUTS = [
    StageOutput.ok(a=1),
    StageOutput.route("left", a=1),
    StageOutput.skip("none today", {"a": 1}),
    StageOutput.cancel("enough", {"a": 1}),
    StageOutput.fail("bad", {"a": 1}),
    StageOutput.fail(ValueError("bad")),
    StageOutput.retry("later", {"a": 1}, after=3.0),
    StageOutput.retry(ValueError("later")),
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.status.value)
async def test_what_it_returns_comes_back_itself(output):
    calls = []

    async def reply(ctx):
        calls.append(ctx.attempt)
        return output

    def reply_in_thread(_ctx):
        return output

    class Stage:
        async def execute(self, ctx):
            return output

    class Managed(Manager, Stage):
        pass

    for runner in (reply, reply_in_thread, Stage, Stage(), Managed):
        assert await run_stage(runner) is output
    assert calls == [1]


async def test_a_mapping_and_none_are_ok():
    async def reply(_ctx):
        return {"rows": [1]}

    async def say_nothing(_ctx):
        return None

    assert await run_stage(reply) == StageOutput.ok(rows=(1,))
    assert await run_stage(say_nothing) == StageOutput.ok()


async def test_inputs_are_outputs_in_their_order_and_it_runs_whatever_they_are():
    async def look(ctx):
        return {name: ctx.inputs.state(name).value for name in ctx.inputs} | {"label": ctx.inputs.output("b").label}

    given = {"b": StageOutput.route("left", x=1), "a": StageOutput.skip("none"), "c": {"x": 2}}
    output = await run_stage(look, inputs=given)
    assert list(output.data.items()) == [
        ("b", StageState.OK),
        ("a", StageState.SKIPPED),
        ("c", StageState.OK),
        ("label", "left"),
    ]


async def test_inputs_are_frozen():
    rows = [1]
    seen = []

    async def look(ctx):
        seen.append(ctx.inputs.require_from("fetch", "rows"))

    await run_stage(look, inputs={"fetch": {"rows": rows}})
    assert seen == [(1,)]


async def test_a_cancelled_caller_cancels_the_stage(autojump_clock):
    ended = []

    async def sleep(_ctx):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    with trio.move_on_after(3) as scope:
        await run_stage(sleep)
    assert scope.cancelled_caught
    assert ended == [3]


async def test_nothing_that_it_sets_leaks():
    variable = contextvars.ContextVar("variable", default="before")

    async def change(_ctx):
        found = variable.get()
        variable.set("changed")
        return {"found": found}

    variable.set("mine")
    assert (await run_stage(change)).data == {"found": "mine"}
    assert variable.get() == "mine"


async def test_a_fan_out_runs_with_its_items():
    async def double(ctx):
        return {"twice": 2 * ctx.snapshot.data["item"]}

    fan = FanOutLimiterStage(double, items=("fetch", "rows"), limiter=Limiter(2))
    output = await run_stage(fan, inputs={"fetch": {"rows": [1, 2, 3]}})
    assert [result["twice"] for result in output.data["results"]] == [2, 4, 6]


def fan(worker, count=1):
    return FanOutLimiterStage(worker, items=range(count), limiter=Limiter(1))


async def test_a_fan_out_cancels_with_what_its_first_worker_to_cancel_returned():
    outputs = [StageOutput.ok(), StageOutput.cancel("enough", {"a": 1}), StageOutput.cancel("too late")]

    async def reply(ctx):
        return outputs[ctx.snapshot.data["index"]]

    assert await run_stage(fan(reply, 3)) is outputs[1]


async def test_a_kind_may_be_given():
    assert await run_stage(work, kind=StageKind.GUARD) == await run_stage(work)
