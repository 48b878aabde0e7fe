"""What the two schedulers by hand have in common: the stages, as async functions of all outputs so far."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from .shapes import SEED, Shape, Wide

Outputs = dict[str, Mapping[str, Any]]
Function = Callable[[Outputs], Awaitable[Mapping[str, Any]]]
Sleep = Callable[[float], Awaitable[None]]


async def source(_outputs: Outputs) -> Mapping[str, Any]:
    return {"seed": SEED}


async def wait_for_ever(sleep: Sleep, _outputs: Outputs) -> Mapping[str, Any]:
    while True:
        await sleep(3600)


async def work(key: int, outputs: Outputs) -> Mapping[str, Any]:
    return {"value": outputs["source"]["seed"] + key}


async def work_late(key: int, sleep: Sleep, latency: float, outputs: Outputs) -> Mapping[str, Any]:
    await sleep(latency)
    return {"value": outputs["source"]["seed"] + key}


async def join(names: list[str], outputs: Outputs) -> Mapping[str, Any]:
    return {"total": sum(outputs[name]["value"] for name in names)}


async def start_chain(_outputs: Outputs) -> Mapping[str, Any]:
    return {"value": SEED}


async def link(before: str, outputs: Outputs) -> Mapping[str, Any]:
    return {"value": outputs[before]["value"] + 1}


def make_functions(shape: Shape, sleep: Sleep) -> dict[str, Function]:
    """Return the stages of a shape by name."""
    if not isinstance(shape, Wide):
        graph = shape.graph().items()
        return {name: partial(link, dependencies[0]) if dependencies else start_chain for name, dependencies in graph}
    workers: dict[str, Function] = {
        name: partial(work_late, key, sleep, shape.latency) if shape.latency else partial(work, key)
        for key, name in enumerate(shape.workers)
    }
    first = partial(wait_for_ever, sleep) if shape.stuck else source
    return {"source": first, **workers, "join": partial(join, shape.workers)}
