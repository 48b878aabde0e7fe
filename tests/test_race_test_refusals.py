"""`race_test`: what it cannot stand over, options that cannot be, arguments that executions cannot share."""

from __future__ import annotations

from functools import wraps

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors.errors import PipelineValidationError
from stageflow_actors.testing import Crash, race_test


class TestCases:
    """No function."""


async def a_test():
    """Do nothing."""


def plain():
    """Do nothing."""


async def generator():
    yield


@wraps(a_test)
def wrapper():
    return a_test()


@given(st.integers())
def of_hypothesis(number):
    """Do nothing."""


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (plain, "and plain is a plain def; make it an async def"),
        (generator, "and generator is an async generator; a test has no yield"),
        (wrapper, "and a_test is a plain def; if what it wraps is async, write race_test below the other decorators"),
        (of_hypothesis, "and of_hypothesis is a test of Hypothesis; write @given above @race_test"),
        (race_test(a_test), "and a_test is a race test; once is enough"),
        (staticmethod(a_test), "not over <staticmethod.*>; write @staticmethod above it"),
        (TestCases, "not over <class .*TestCases'>; options are given by name"),
        (1000, "not over 1000; options are given by name"),
    ],
    ids=lambda value: "" if isinstance(value, str) else getattr(value, "__name__", repr(value)),
)
def test_what_is_no_async_function_is_refused(test, message):
    with pytest.raises(PipelineValidationError, match=f"race_test must stand over an async function, {message}"):
        race_test(test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_executions": 0}, "max_executions must be a whole number of at least 1, not 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"max_steps": 2.5}, "max_steps must be a whole number of at least 1, not 2.5"),
        ({"strategy": "dsf"}, "strategy must be one of .*, not 'dsf'; did you mean 'dfs'?"),
        ({"clock": "real"}, "clock must be one of 'explore', 'auto', not 'real'"),
        ({"faults": Crash("a")}, "faults must be an iterable of faults"),
    ],
)
def test_options_are_checked_before_anything_is_decorated(options, message):
    with pytest.raises(PipelineValidationError, match=message):
        race_test(**options)


async def an_async_generator():
    yield


def test_arguments_that_can_be_used_once_only_are_refused():
    @race_test
    async def taking(value):
        await value

    coroutine = a_test()
    with pytest.raises(
        PipelineValidationError, match="'value' of the race test taking is a coroutine, which runs once"
    ):
        taking(coroutine)
    coroutine.close()
    with pytest.raises(PipelineValidationError, match="taking is an async generator, which runs once"):
        taking(an_async_generator())


def test_a_clock_is_refused(autojump_clock):
    @race_test
    async def waiting(autojump_clock):
        await trio.sleep(1)

    with pytest.raises(PipelineValidationError, match=r"is a clock, and the toolkit .* say clock='auto'"):
        waiting(autojump_clock)


async def test_inside_trio_it_is_refused():
    with pytest.raises(RuntimeError, match="call it from a plain def"):
        race_test(a_test)()
