"""As `by_hand_trio`, but each stage awaits the sending of its completion, through a channel without a buffer.

That is the channel's usual form, and costs a turn of the loop a stage. Measured only where it is asked
for: the bars hold against the leaner one.
"""

from __future__ import annotations

import contextlib
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import trio

from .by_hand import make_functions
from .by_hand_trio import drive, read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .by_hand import Function, Outputs
    from .shapes import Shape

__all__ = ["REUSABLE", "TITLE", "drive", "host", "prepare", "read"]

TITLE = "trio by hand, awaiting"
REUSABLE = False  # a run uses the sorter up


async def run(sorter: TopologicalSorter[str], functions: Mapping[str, Function]) -> Outputs:
    outputs: Outputs = {}
    send, receive = trio.open_memory_channel[str](0)

    async def run_stage(name: str) -> None:
        outputs[name] = await functions[name](outputs)
        await send.send(name)

    sorter.prepare()
    async with trio.open_nursery() as nursery:
        while sorter.is_active():
            for name in sorter.get_ready():
                nursery.start_soon(run_stage, name)
            sorter.done(await receive.receive())
    return outputs


host = contextlib.nullcontext


def prepare(shape: Shape) -> Callable[[None], Awaitable[Outputs]]:
    sorter, functions = TopologicalSorter(shape.graph()), make_functions(shape, trio.sleep)

    async def job(_host: None) -> Outputs:
        return await run(sorter, functions)

    return job
