"""Drawn fan-outs as real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stageflow_actors import FanOutLimiterStage, Limiter, StageContext, StageInputs

from .behaviour import behave, behave_in_thread
from .makers import make_restart
from .plans import THREADED, FanPlan, Form, Source, StagePlan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from .recorder import Recorder


def make_fan(stage: StagePlan, recorder: Recorder, *, limiters: Mapping[str, Limiter]) -> FanOutLimiterStage:
    """Return the runner of a drawn fan-out."""
    fan = stage.fan
    assert fan is not None
    return FanOutLimiterStage(
        _make_worker(stage, fan, recorder),
        items=_make_items(fan),
        limiter=limiters[fan.limiter],
        on_item_failure="fail" if fan.ends_at_failure else "collect",
        collect=fan.collects,
        restart=make_restart(fan.restart),
        timeout=fan.timeout,
    )


def _make_items(fan: FanPlan) -> Any:
    def generate(_inputs: StageInputs) -> Iterator[int]:
        yield from range(fan.count)

    async def generate_async(_inputs: StageInputs) -> AsyncIterator[int]:
        for number in range(fan.count):
            yield number

    match fan.source:
        case Source.LIST:
            return list(range(fan.count))
        case Source.PAIR:
            return fan.giver, "items"
        case Source.GENERATOR:
            return generate
        case Source.ASYNC:
            return lambda inputs: generate_async(inputs)  # noqa: PLW0108 (a plain function that gives one)


def _make_worker(stage: StagePlan, fan: FanPlan, recorder: Recorder) -> Any:
    def find(ctx: StageContext) -> StagePlan:
        data = ctx.snapshot.data
        item = stage.item(data["index"])
        assert data["item"] == data["index"]
        assert ctx.stage_name == item.name
        assert data["from"] == "caller"
        return item

    async def run(ctx: StageContext) -> Any:
        return await behave(find(ctx), recorder, ctx)

    def run_in_thread(ctx: StageContext) -> Any:
        return behave_in_thread(find(ctx), recorder, ctx)

    class Plain:
        async def execute(self, ctx: StageContext) -> Any:
            return await run(ctx)

    if fan.form in THREADED:
        return run_in_thread
    return Plain if fan.form is Form.CLASS else run
