"""The same work for everyone: this runtime, stageflow-core, and two schedulers written by hand.

A peer is a module with:

- `TITLE`: its name in tables;
- `REUSABLE`: whether a job is good for more than one run;
- `drive(function)`: run an async function on the peer's event loop;
- `host()`: an async context manager around runs; what it gives is passed to every job;
- `prepare(shape)`: build a shape; returns a job, an async function of the host that runs it;
- `read(result)`: what a job returned, as a mapping of stage name to the data of its output.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

MODULES = {
    "ours": "ours",
    "trio": "by_hand_trio",
    "asyncio": "by_hand_asyncio",
    "stageflow": "stageflow_peer",
    "trio-await": "by_hand_trio_await",
}
USUAL = ("ours", "trio", "asyncio", "stageflow")
"""Those that are measured unless others are asked for."""


def load(names: Iterable[str]) -> dict[str, ModuleType | None]:
    """Return the peers by name, with None for one whose package is not installed."""
    return {name: _load(MODULES[name]) for name in names}


def _load(module: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "stageflow":
            raise
        return None
