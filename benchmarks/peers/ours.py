"""This runtime, with everything on that is always on: supervision, ledger, isolation, frozen outputs, timings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from stageflow_actors import Pipeline, Supervisor, parallel_stages

from .shapes import SEED, Shape, Wide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from stageflow_actors import RunResult, StageContext

TITLE = "stageflow_actors"
REUSABLE = True


async def source(_ctx: StageContext) -> Mapping[str, Any]:
    return {"seed": SEED}


async def wait_for_ever(_ctx: StageContext) -> Mapping[str, Any]:
    await trio.sleep_forever()


async def work(ctx: StageContext) -> Mapping[str, Any]:
    return {"value": ctx.inputs.require_from("source", "seed") + ctx.config["key"]}


async def work_late(ctx: StageContext) -> Mapping[str, Any]:
    await trio.sleep(ctx.config["latency"])
    return {"value": ctx.inputs.require_from("source", "seed") + ctx.config["key"]}


async def join(ctx: StageContext) -> Mapping[str, Any]:
    return {"total": sum(output.data["value"] for output in ctx.inputs.outputs.values())}


async def start_chain(_ctx: StageContext) -> Mapping[str, Any]:
    return {"value": SEED}


async def link(ctx: StageContext) -> Mapping[str, Any]:
    return {"value": ctx.inputs.get("value") + 1}


def build(shape: Shape) -> Pipeline:
    """Return the shape as a pipeline, compiled."""
    if isinstance(shape, Wide):
        config = {"latency": shape.latency} if shape.latency else {}
        worker = work_late if shape.latency else work
        workers = parallel_stages("worker-{key}", worker, range(shape.size), dependencies="source", config=config)
        pipeline = Pipeline("wide").with_stage("source", wait_for_ever if shape.stuck else source)
        pipeline = pipeline.with_stages(workers).with_stage("join", join, dependencies=workers)
    else:
        pipeline = Pipeline("chain")
        for name, dependencies in shape.graph().items():
            pipeline = pipeline.with_stage(name, link if dependencies else start_chain, dependencies=dependencies)
    pipeline.validate()
    return pipeline


def add_workers(names: list[str]) -> Pipeline:
    """Return a source, first of the names, and a worker each for the rest, added one by one."""
    pipeline = Pipeline("built").with_stage(names[0], source)
    for name in names[1:]:
        pipeline = pipeline.with_stage(name, work, dependencies=("source",))
    return pipeline


def drive(function: Callable[[], Awaitable[Any]]) -> Any:
    return trio.run(function)


host = Supervisor


def prepare(shape: Shape) -> Callable[[Supervisor], Awaitable[RunResult]]:
    pipeline = build(shape)

    async def job(supervisor: Supervisor) -> RunResult:
        return await supervisor.run(pipeline)

    return job


def read(result: RunResult) -> Mapping[str, Mapping[str, Any]]:
    return {name: output.data for name, output in result.items()}
