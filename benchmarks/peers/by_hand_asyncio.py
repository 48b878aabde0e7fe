"""The same scheduler by hand on asyncio: a TaskGroup, graphlib, a task a stage, a completion queue."""

from __future__ import annotations

import asyncio
import contextlib
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from .by_hand import make_functions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .by_hand import Function, Outputs
    from .shapes import Shape

TITLE = "asyncio by hand"
REUSABLE = False  # a run uses the sorter up


async def run(sorter: TopologicalSorter[str], functions: Mapping[str, Function]) -> Outputs:
    outputs: Outputs = {}
    completed: asyncio.Queue[str] = asyncio.Queue()

    async def run_stage(name: str) -> None:
        outputs[name] = await functions[name](outputs)
        completed.put_nowait(name)

    sorter.prepare()
    async with asyncio.TaskGroup() as group:
        while sorter.is_active():
            for name in sorter.get_ready():
                group.create_task(run_stage(name))
            sorter.done(await completed.get())
    return outputs


def drive(function: Callable[[], Any]) -> Any:
    return asyncio.run(function())


host = contextlib.nullcontext


def prepare(shape: Shape) -> Callable[[None], Awaitable[Outputs]]:
    sorter, functions = TopologicalSorter(shape.graph()), make_functions(shape, asyncio.sleep)

    async def job(_host: None) -> Outputs:
        return await run(sorter, functions)

    return job


def read(result: Outputs) -> Outputs:
    return result
