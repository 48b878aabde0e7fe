"""A scheduler as one writes it in an afternoon: a trio nursery, graphlib, a task a stage, a completion channel.

No supervision: the first error ends everything, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import math
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import trio

from .by_hand import make_functions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .by_hand import Function, Outputs
    from .shapes import Shape

TITLE = "trio by hand"
REUSABLE = False  # a run uses the sorter up


async def run(sorter: TopologicalSorter[str], functions: Mapping[str, Function]) -> Outputs:
    outputs: Outputs = {}
    send, receive = trio.open_memory_channel[str](math.inf)

    async def run_stage(name: str) -> None:
        outputs[name] = await functions[name](outputs)
        send.send_nowait(name)

    sorter.prepare()
    async with trio.open_nursery() as nursery:
        while sorter.is_active():
            for name in sorter.get_ready():
                nursery.start_soon(run_stage, name)
            sorter.done(await receive.receive())
    return outputs


def drive(function: Callable[[], Awaitable[Any]]) -> Any:
    return trio.run(function)


host = contextlib.nullcontext


def prepare(shape: Shape) -> Callable[[None], Awaitable[Outputs]]:
    sorter, functions = TopologicalSorter(shape.graph()), make_functions(shape, trio.sleep)

    async def job(_host: None) -> Outputs:
        return await run(sorter, functions)

    return job


def read(result: Outputs) -> Outputs:
    return result
