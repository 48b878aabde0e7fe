"""stageflow-core 1.2.0, as its own documentation writes a pipeline, built before the run."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from stageflow.api import Pipeline, PipelineContext, StageKind

from .shapes import SEED, Shape, Wide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from stageflow.api import PipelineResults, StageContext

TITLE = "stageflow-core"
REUSABLE = True


async def source(_ctx: StageContext) -> Mapping[str, Any]:
    return {"seed": SEED}


async def work(key: int, latency: float, ctx: StageContext) -> Mapping[str, Any]:
    if latency:
        await asyncio.sleep(latency)
    return {"value": ctx.inputs.require_from("source", "seed") + key}


async def join(names: list[str], ctx: StageContext) -> Mapping[str, Any]:
    return {"total": sum(ctx.inputs.get_from(name, "value") for name in names)}


async def start_chain(_ctx: StageContext) -> Mapping[str, Any]:
    return {"value": SEED}


async def link(before: str, ctx: StageContext) -> Mapping[str, Any]:
    return {"value": ctx.inputs.get_from(before, "value") + 1}


def make_runners(shape: Shape) -> dict[str, Callable[[StageContext], Awaitable[Mapping[str, Any]]]]:
    if isinstance(shape, Wide):
        workers = {name: partial(work, key, shape.latency) for key, name in enumerate(shape.workers)}
        return {"source": source, **workers, "join": partial(join, shape.workers)}
    graph = shape.graph().items()
    return {name: partial(link, dependencies[0]) if dependencies else start_chain for name, dependencies in graph}


def build(shape: Shape) -> Pipeline:
    """Return the shape as a pipeline."""
    pipeline, runners = Pipeline(name="benchmark"), make_runners(shape)
    for name, dependencies in shape.graph().items():
        pipeline = pipeline.with_stage(name, runners[name], StageKind.WORK, dependencies)
    return pipeline


def add_workers(names: list[str]) -> Pipeline:
    """Return a source, first of the names, and a worker each for the rest, added one by one."""
    pipeline, runner = Pipeline(name="built").with_stage(names[0], source, StageKind.WORK), partial(work, 0, 0.0)
    for name in names[1:]:
        pipeline = pipeline.with_stage(name, runner, StageKind.WORK, ("source",))
    return pipeline


def drive(function: Callable[[], Any]) -> Any:
    return asyncio.run(function())


host = contextlib.nullcontext


def prepare(shape: Shape) -> Callable[[None], Awaitable[PipelineResults]]:
    graph = build(shape).build()

    async def job(_host: None) -> PipelineResults:
        return await graph.run(PipelineContext.create(topology="benchmark"))

    return job


def read(result: PipelineResults) -> Mapping[str, Mapping[str, Any]]:
    return {name: output.data for name, output in result.items()}
