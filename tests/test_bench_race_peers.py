"""How others look for a bug: trio as it is, and trio seeded by Hypothesis."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import trio

from property_tests.corpus import find

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def peers(monkeypatch):
    """Import the module as a script does, and forget it afterwards."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    monkeypatch.delitem(sys.modules, "race_peers", raising=False)
    return importlib.import_module("race_peers")


async def hold():
    """Nothing is wrong with it."""
    await trio.lowlevel.checkpoint()


async def fail():
    raise ValueError


async def spin():
    while True:
        await trio.lowlevel.checkpoint()


async def swallow():
    """Hangs, and ends as if nothing was when it is cancelled."""
    with trio.CancelScope() as scope:
        try:
            await trio.sleep_forever()
        finally:
            scope.cancel()


async def sleep():
    await trio.sleep(3)


async def go_in_order():
    """Two tasks must begin in the order in which they were started."""
    begun = []

    async def begin(number):
        begun.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin, 1)
        nursery.start_soon(begin, 2)
    assert begun == [1, 2]


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        (hold, None),
        (sleep, None),
        (fail, "exception"),
        (spin, "no end"),
        (trio.sleep_forever, "hang"),
        (swallow, "hang"),
        (find("lock order").bug, "hang"),
    ],
)
def test_trio_by_itself_sees_how_a_program_fails(peers, program, kind):
    assert peers.run_once(program) == kind


@pytest.mark.parametrize("hunt", ["hunt_plainly", "hunt_seeded"])
def test_a_hunt_ends_with_the_first_failure(peers, hunt):
    hunt = getattr(peers, hunt)(fail, most=100, seconds=1000.0)
    assert (hunt.kind, hunt.runs) == ("exception", 1)


@pytest.mark.parametrize("hunt", ["hunt_plainly", "hunt_seeded"])
def test_a_hunt_ends_with_its_runs(peers, hunt):
    hunt = getattr(peers, hunt)(hold, most=20, seconds=1000.0)
    assert (hunt.kind, hunt.runs) == (None, 20)


@pytest.mark.parametrize("hunt", ["hunt_plainly", "hunt_seeded"])
def test_a_hunt_ends_with_its_time(peers, hunt):
    hunt = getattr(peers, hunt)(hold, most=20, seconds=1e-9)
    assert (hunt.kind, hunt.runs) == (None, 1)


@pytest.mark.parametrize("hunt", ["hunt_plainly", "hunt_seeded"])
def test_a_hunt_meets_both_orders_of_two_tasks(peers, hunt):
    hunt = getattr(peers, hunt)(go_in_order, most=100, seconds=1000.0)
    assert hunt.kind == "exception"


def test_a_seeded_hunt_is_the_same_again(peers):
    runs = {peers.hunt_seeded(find("stale cache").bug, most=100, seconds=1000.0).runs for _ in range(3)}
    assert len(runs) == 1


@pytest.mark.parametrize("hunt", ["hunt_plainly", "hunt_seeded"])
def test_a_hunt_leaves_the_scheduler_as_it_was(peers, hunt):
    run = trio._core._run
    before = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    getattr(peers, hunt)(hold, most=3, seconds=1000.0)
    assert (run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()) == before


def test_plain_trio_does_not_shuffle(peers):
    seen = []

    async def look():
        seen.append(trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING)

    peers.hunt_plainly(look, most=1, seconds=1000.0)
    peers.hunt_seeded(look, most=1, seconds=1000.0)
    assert seen == [False, True]
