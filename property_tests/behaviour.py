"""What drawn stages and items do when they are run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from stageflow_actors import Pipeline, StageContext, StageOutput

from .plans import Act, Reaction, StagePlan
from .problems import Abort, CleanupError, PlannedError, UnprintableError

if TYPE_CHECKING:
    from .recorder import Recorder


class Odd:
    """No output. Reprs of plain objects show addresses, which differ from run to run."""

    def __repr__(self) -> str:
        return "<odd>"


async def behave(stage: StagePlan, recorder: Recorder, ctx: StageContext) -> Any:
    """Do what the plan says, in a task."""
    plan = stage.at(ctx.attempt)
    recorder.note("begin", plan.name)
    try:
        with trio.CancelScope(shield=plan.reaction is Reaction.SHIELDED):
            for _ in recorder.jitter():
                await trio.lowlevel.checkpoint()
            for _ in range(plan.checkpoints):
                await trio.lowlevel.checkpoint()
            if plan.sleep:
                await (_sleep_in_a_run if plan.nested else trio.sleep)(plan.sleep)
    except trio.Cancelled as cancelled:
        if plan.reaction is Reaction.SWALLOW:
            return {"swallowed": plan.name}
        if plan.reaction is Reaction.MESSY:
            raise CleanupError(plan.name) from None
        if plan.reaction is Reaction.MIXED:
            raise BaseExceptionGroup("mixed", [cancelled, CleanupError(plan.name)]) from None
        raise
    else:
        return await _act_in_task(plan, ctx)
    finally:
        for _ in recorder.jitter():
            await trio.lowlevel.cancel_shielded_checkpoint()
        recorder.note("end", plan.name)


async def _sleep_in_a_run(seconds: float) -> None:
    async def sleep(_ctx: StageContext) -> None:
        await trio.sleep(seconds)

    await Pipeline("nested").with_stage("sleep", sleep).run()


def behave_in_thread(stage: StagePlan, recorder: Recorder, ctx: StageContext) -> Any:
    """Do what the plan says, in a worker thread."""
    plan = stage.at(ctx.attempt)
    recorder.note_in_thread("begin", plan.name)
    try:
        return _act(plan, ctx)
    finally:
        recorder.note_in_thread("end", plan.name)


def look_around(plan: StagePlan, ctx: StageContext) -> dict[str, Any]:
    """Return data that depends on all that a stage can see of its dependencies."""
    inputs = ctx.inputs
    return {
        "sum": plan.value + sum(inputs.get_from(name, "sum", 0) for name in inputs),
        "saw": {name: inputs.state(name).value for name in inputs},
        "outputs": list(inputs.outputs),
        "failed": [name for name in inputs if inputs.failure(name) is not None],
        "first": inputs.get("sum", -1),
        "attempt": ctx.attempt,
        "items": list(range(plan.value)),
    }


def _act(plan: StagePlan, ctx: StageContext) -> Any:
    """Do what needs no task."""
    data = look_around(plan, ctx)
    name = plan.name
    match plan.act:
        case Act.OK:
            return StageOutput.ok(data)
        case Act.MAPPING:
            return data
        case Act.NONE:
            return None
        case Act.ROUTE:
            return StageOutput.route(plan.label, data)
        case Act.SKIP:
            return StageOutput.skip("nothing to do")
        case Act.SKIP_DATA:
            return StageOutput.skip("nothing to do", data)
        case Act.FAIL:
            return StageOutput.fail("no luck")
        case Act.FAIL_ERROR:
            return StageOutput.fail(UnprintableError(name) if plan.value % 2 else PlannedError(name))
        case Act.RETRY:
            return StageOutput.retry("not yet", after=plan.after)
        case Act.CANCEL:
            return StageOutput.cancel("enough")
        case Act.WRONG_TYPE:
            return _never_awaited() if plan.value == 9 else ([3], 3, "text", Odd())[plan.value % 4]
        case Act.UNFREEZABLE:
            circle: list[Any] = []
            circle.append(circle)
            return {"circle": circle}
        case Act.UNDECLARED:
            return ctx.inputs.output("no such dependency")
        case Act.RAISE:
            raise PlannedError(name)
        case Act.RAISE_UNPRINTABLE:
            raise UnprintableError(name)
        case Act.RAISE_GROUP:
            raise ExceptionGroup("two", [PlannedError(name), ExceptionGroup("one", [PlannedError(name)])])
        case Act.ABORT:
            raise Abort(name)
    raise AssertionError(plan.act)


async def _never_awaited() -> None:
    pass


async def _act_in_task(plan: StagePlan, ctx: StageContext) -> Any:
    """Do what the plan says, that which needs a task included."""
    name = plan.name
    match plan.act:
        case Act.OWN_SCOPE:
            with trio.CancelScope() as scope:
                scope.cancel()
                await trio.sleep_forever()
            return look_around(plan, ctx)
        case Act.KEPT_CANCELLED:
            raise await _keep_cancelled()
        case Act.MIXED_GROUP:
            raise BaseExceptionGroup("mixed", [await _keep_cancelled(), PlannedError(name)])
        case Act.CHILD_FAILS:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(_fail, PlannedError(name))
        case Act.NURSERY_LEFT_OPEN | Act.NURSERY_LEFT_OPEN_FAILING:
            nursery = await trio.open_nursery().__aenter__()
            failing = plan.act is Act.NURSERY_LEFT_OPEN_FAILING
            nursery.start_soon(_fail_when_cancelled if failing else trio.sleep_forever, *([name] if failing else []))
            return look_around(plan, ctx)
        case _:
            return _act(plan, ctx)


async def _keep_cancelled() -> trio.Cancelled:
    kept: trio.Cancelled | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            kept = cancelled
    assert kept is not None
    return kept


async def _fail(error: Exception) -> None:
    raise error


async def _fail_when_cancelled(name: str) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise CleanupError(name)
