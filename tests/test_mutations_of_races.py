"""Concurrency bugs seeded into the runtime, one at a time: the race toolkit finds each with its default settings."""

from __future__ import annotations

import inspect

import pytest
import trio
import trio.testing

from property_tests import (
    test_explored_admission,
    test_explored_limits,
    test_explored_restarts,
    test_explored_runs,
    test_explored_stops,
)
from property_tests.mutate import Bench, find_stale
from property_tests.mutations_of_races import MUTATIONS, NOTICED_BY

MODULES = {
    f"{module.__name__.rpartition('.')[2]}.py": module
    for module in (
        test_explored_admission,
        test_explored_limits,
        test_explored_restarts,
        test_explored_runs,
        test_explored_stops,
    )
}


def find_test(node):
    file, _, name = node.partition("::")
    return getattr(MODULES[file], name)


def test_there_are_ten_at_least_and_none_is_stale():
    assert len({mutation.name for mutation in MUTATIONS}) >= 10
    assert find_stale(MUTATIONS) == []


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("mutations") / "copy", [], examples=1)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_is_found(bench, mutation):
    module, _, name = NOTICED_BY[mutation].replace(".py", "").partition("::")
    with bench.mutated(mutation):
        done = bench.python("-c", f"from property_tests.{module} import {name}; {name}()")
    assert f"errors.RaceError: {name}: " in done.stderr


@pytest.mark.parametrize("node", sorted(set(NOTICED_BY.values())))
def test_they_are_found_with_default_settings(node):
    source = inspect.getsource(find_test(node))
    assert source.startswith("@race_test\nasync def test_")


@pytest.mark.parametrize("node", sorted(set(NOTICED_BY.values())))
def test_what_finds_them_runs_in_plain_trio_too(node):
    """That nothing is found there in so many runs, with a mutation, is measured and not promised."""

    async def main():
        with trio.fail_after(1000):
            await find_test(node).__wrapped__()

    for _ in range(5):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
