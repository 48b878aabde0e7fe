"""`race_test`: what it makes of an async test, what it refuses, and how it fails."""

from __future__ import annotations

import inspect
import unittest
from functools import partial

import pytest
import trio

from stageflow_actors.errors import InjectedError, RaceError
from stageflow_actors.testing import Crash, explore, race_test, replay  # noqa: F401  # in the lines that replay


async def update_twice(checkpoint=trio.lowlevel.checkpoint):
    """Two tasks that each read, wait, and write."""
    value = 0

    async def add():
        nonlocal value
        seen = value
        await checkpoint()
        value = seen + 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(add)
        nursery.start_soon(add)
    return value


async def meet():
    """Two tasks that wait once each; all is well in every order."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        nursery.start_soon(trio.lowlevel.checkpoint)


def count_executions(**options):
    """How often a test runs that meets."""
    ran = []

    @race_test(**options)
    async def meeting():
        ran.append(None)
        await meet()

    meeting()
    return len(ran)


# In this run of pytest


@race_test
async def test_it_is_a_test():
    await meet()


@race_test()
async def test_it_is_a_test_with_parentheses():
    await meet()


@pytest.fixture
def made():
    return []


@race_test(max_executions=3)
async def test_fixtures_are_made_once(made):
    made.append(None)
    await meet()
    assert len(made) <= 3


@race_test
@pytest.mark.parametrize("tasks", [1, 2])
async def test_it_takes_marks_below(tasks, tmp_path):
    assert tmp_path.is_dir()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(trio.lowlevel.checkpoint)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.xfail(raises=RaceError, strict=True)
@race_test
async def test_it_takes_marks_above(number):
    assert await update_twice() == number - number


@pytest.mark.trio
@race_test
async def test_it_may_be_marked_as_a_test_of_trio():
    await meet()


class TestMethods:
    @race_test
    async def test_methods_are_tests(self, made):
        assert isinstance(self, TestMethods)
        await meet()
        assert made == []

    @staticmethod
    @race_test
    async def test_static_methods_are_tests(made):
        await meet()
        assert made == []

    @classmethod
    @race_test
    async def test_class_methods_are_tests(cls):
        await meet()
        assert cls is TestMethods


class TestCases(unittest.TestCase):
    def setUp(self):
        self.number = 1

    @race_test
    async def test_methods_of_test_cases_are_tests(self):
        await meet()
        self.assertEqual(self.number, 1)  # noqa: PT009  # as in a TestCase


# What it makes


def test_it_makes_a_plain_function_with_the_same_face():
    @race_test
    async def some_test(one, *, two=2):
        """Say something."""

    assert not inspect.iscoroutinefunction(some_test)
    assert some_test.__name__ == "some_test"
    assert some_test.__qualname__.endswith("<locals>.some_test")
    assert some_test.__doc__ == "Say something."
    assert list(inspect.signature(some_test).parameters) == ["one", "two"]
    assert inspect.iscoroutinefunction(some_test.__wrapped__)


def test_calling_it_explores():
    assert count_executions() == explore(meet).executions == 2
    assert count_executions(max_executions=1) == 1


def test_it_returns_nothing():
    @race_test
    async def giving():
        return 3

    assert giving() is None


def test_arguments_are_passed_on():
    seen = set()

    @race_test(max_executions=2)
    async def taking(one, *rest, two, **others):
        seen.add((one, rest, two, tuple(others.items())))
        await meet()

    taking(1, 2, 3, two=4, three=5)
    assert seen == {(1, (2, 3), 4, (("three", 5),))}
    with pytest.raises(TypeError, match="missing a required argument: 'two'"):
        taking(1)


def test_the_options_are_those_of_explore():
    async def child():
        await trio.lowlevel.checkpoint()

    @race_test(strategy="dfs", clock="auto", faults=iter([Crash("child")]), max_steps=50)
    async def crashing():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, name="child")

    for _ in range(2):  # an iterator of faults is read once
        with pytest.raises(RaceError) as caught:
            crashing()
        assert isinstance(caught.value.__cause__, InjectedError)
        assert "faults=(Crash('child'),), clock='auto', max_steps=50)" in caught.value.failure.call


def test_the_seed_decides_what_is_sampled():
    def explore(seed):
        order = []

        @race_test(strategy="random", seed=seed, max_executions=5)
        async def noting():
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(note, number)

        async def note(number):
            order.append(number)
            await trio.lowlevel.checkpoint()

        noting()
        return order

    assert explore(1) == explore(1) != explore(2)


# How it fails


@race_test
async def losing():
    assert await update_twice() == 2


def test_it_raises_from_what_the_test_raised():
    with pytest.raises(RaceError, match="losing: AssertionError: ") as caught:
        losing()
    error = caught.value
    assert type(error.__cause__) is AssertionError
    assert error.failure.error is error.__cause__
    assert error.report.failure is error.failure
    assert error.failure.schedule == "01"
    assert str(error) == str(error.report)


def test_it_raises_from_the_error_itself_where_it_comes_out_of_a_nursery():
    @race_test
    async def failing_in_a_child():
        async def child():
            await trio.lowlevel.checkpoint()
            message = "in a child"
            raise ValueError(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    with pytest.raises(RaceError) as caught:
        failing_in_a_child()
    assert repr(caught.value.__cause__) == "ValueError('in a child')"


def test_what_does_not_end_has_no_cause():
    @race_test
    async def forgotten():
        await trio.Event().wait()

    with pytest.raises(RaceError, match=r"forgotten: lost wake-up(.|\n)*forgotten waits for Event.wait") as caught:
        forgotten()
    assert caught.value.__cause__ is None


def test_only_the_decorators_own_frame_is_in_the_traceback():
    with pytest.raises(RaceError) as caught:
        losing()
    frames = [entry for entry in caught.traceback if entry.path.name != __file__.rpartition("/")[2]]
    assert [entry.name for entry in frames] == ["explored"]
    assert frames[0].ishidden(caught)


def get_line(test, *arguments):
    """The line that replays a failure."""
    with pytest.raises(RaceError) as caught:
        test(*arguments)
    line = caught.value.failure.call
    assert f"replay: {line}" in str(caught.value).splitlines()
    return line


def test_the_replay_line_runs():
    line = get_line(losing)
    assert line == "replay(losing.__wrapped__, '01')"
    assert eval(line).schedule == "01"


def test_the_replay_line_has_the_arguments():
    @race_test
    async def losing_with(expected, *, more=0):
        assert await update_twice() == expected + more

    line = get_line(partial(losing_with, more=1), 1)
    assert line == "replay(partial(losing_with.__wrapped__, 1, more=1), '01')"
    assert eval(line).schedule == "01"


# What ends a test in another way


@pytest.mark.parametrize(
    "outcome", [pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception, unittest.SkipTest]
)
@pytest.mark.parametrize("in_a_child", [False, True])
def test_what_says_something_else_than_failing_comes_through(outcome, in_a_child):
    ran = []

    async def say_so():
        ran.append(None)
        await trio.lowlevel.checkpoint()
        message = "for some reason"
        raise outcome(message)

    @race_test
    async def saying():
        if not in_a_child:
            await say_so()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say_so)

    with pytest.raises(outcome, match="for some reason"):
        saying()
    assert len(ran) == 1


def test_pytest_fail_is_a_failure():
    @race_test
    async def failing():
        pytest.fail("of course")

    with pytest.raises(RaceError, match="of course") as caught:
        failing()
    assert isinstance(caught.value.__cause__, pytest.fail.Exception)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_through(interrupt):
    ran = []

    @race_test
    async def interrupted():
        ran.append(None)
        await trio.lowlevel.checkpoint()
        raise interrupt

    with pytest.raises(interrupt):
        interrupted()
    assert len(ran) == 1
