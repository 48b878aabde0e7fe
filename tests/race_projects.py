"""Small projects with race tests, for runs of pytest on them."""

from __future__ import annotations

LOST = """
import pytest
import trio
from stageflow_actors.testing import race_test


async def update_twice():
    value = 0

    async def add():
        nonlocal value
        seen = value
        await trio.lowlevel.checkpoint()
        value = seen + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add)
        nursery.start_soon(add)
    return value


@race_test
async def test_lost():
    assert await update_twice() == 2


@race_test
async def test_kept():
    assert await update_twice() in (1, 2)
"""

LIGHT = ["-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest"]
"""Without the other plugins that take their time."""


def make_run(pytester):
    """Return a function that runs pytest on a module, without what is around this run."""
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider --strict-markers\nfilterwarnings = error")

    def run(source, *options):
        pytester.makepyfile(test_it=source)
        return pytester.runpytest_inprocess(*options)

    return run


def get_summary(result):
    """Return what is said about race tests at the end."""
    return [line for line in result.outlines if line.startswith("race test")]
