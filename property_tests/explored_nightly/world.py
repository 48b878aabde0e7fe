"""What the programs of the nightly run share."""

from __future__ import annotations

import contextlib

import trio

from stageflow_actors import _engine, _items


async def until(holds):
    """Wait until something holds.

    Where time passes when it likes, no sleep is long enough. What never holds is a livelock, and so a failure.
    """
    while not holds():  # noqa: ASYNC110 (nobody tells)
        await trio.sleep(1)


@contextlib.contextmanager
def in_chunks_of(count):
    """Have stages and items begin in chunks of so many: by default no run that is small enough has two."""
    sizes = [(vars(module), module._CHUNK) for module in (_engine, _items)]
    for names, _ in sizes:
        names["_CHUNK"] = count
    try:
        yield
    finally:
        for names, size in sizes:
            names["_CHUNK"] = size
