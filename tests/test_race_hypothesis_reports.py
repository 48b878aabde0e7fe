"""Race tests below `@given`: what pytest shows, and Hypothesis's tracer, which is not to see the executions."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageflow_actors.testing import race_test

pytest_plugins = ["pytester"]

once = settings(max_examples=1, deadline=None, database=None, derandomize=True)


# Hypothesis's own tracer


@contextmanager
def traced(tracer):
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(before)


def make_tracer(module):
    calls = []

    def trace(frame, what, argument):
        calls.append(frame.f_code.co_name)

    trace.__module__ = module
    return trace, calls


@pytest.mark.parametrize(("module", "expected"), [("hypothesis.internal.scrutineer", False), ("somebody.elses", True)])
def test_hypothesis_does_not_trace_what_is_explored(module, expected):
    trace, calls = make_tracer(module)
    after = []

    @once
    @given(st.just(2))
    def outer(tasks):
        with traced(trace):
            below(tasks)
            after.append(sys.gettrace())

    @race_test
    async def below(tasks):
        await marked()

    async def marked():
        """Do nothing."""

    outer()
    assert ("marked" in calls) is expected
    assert after == [trace]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with Python 3.12")
def test_hypothesis_does_not_monitor_what_is_explored():
    monitoring = sys.monitoring
    tool = next(tool for tool in range(6) if monitoring.get_tool(tool) is None)
    lines = []

    @race_test
    async def below(tasks):
        await marked()

    async def marked():
        """Do nothing."""

    @once
    @given(st.just(2))
    def outer(tasks):
        monitoring.use_tool_id(tool, "scrutineer")
        try:
            monitoring.register_callback(tool, monitoring.events.PY_START, lambda code, _: lines.append(code.co_name))
            monitoring.set_events(tool, monitoring.events.PY_START)
            below(tasks)
            assert monitoring.get_events(tool) == monitoring.events.PY_START
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)

    outer()
    assert "below" not in lines
    assert "marked" not in lines
    assert lines


# With pytest


LOSING = """
import trio
from hypothesis import given, settings, strategies as st
from stageflow_actors.testing import race_test


@settings(deadline=None{settings})
@given(tasks=st.integers(0, 4))
@race_test
async def test_it(tasks):
    total = 0

    async def add():
        nonlocal total
        seen = total
        await trio.lowlevel.checkpoint()
        total = seen + 1

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(add)
    assert total {condition}
"""


@pytest.fixture
def run(pytester):
    def run(condition, *options, **chosen):
        pytester.makeini("[pytest]\nfilterwarnings = error\ntrio_mode = true")
        added = "".join(f", {name}={value!r}" for name, value in chosen.items())
        pytester.makepyfile(LOSING.format(condition=condition, settings=added))
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)

    return run


def test_the_report_has_inputs_schedule_and_command(run):
    result = run("== tasks", database=None)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "tasks = 2",
            ">       assert total == tasks",
            "E       assert 1 == 2",
            "The above exception was the direct cause of the following exception:",
            "E   stageflow_actors.errors.RaceError: test_it: AssertionError: assert 1 == 2 after 6 steps, 1 pre*",
            "E   >   3  add#2 *",
            'E   replay: pytest "test_the_report_has_inputs_schedule_and_command.py::test_it" --race-replay "01"',
            "E   the replay needs the inputs of this example: *",
            "E *: test_it(",
            "E       tasks=2,",
        ]
    )
    assert "stageflow_actors/testing" not in result.stdout.str()


def test_the_summary_adds_up_the_examples(run):
    result = run("<= tasks", "--race-report", derandomize=True, max_examples=4)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_it: * examples in * executions, * complete", "race tests: 1 test, *"])


def test_the_number_of_executions_is_each_examples(run):
    result = run("<= tasks", "--race-executions=1", "--race-report", derandomize=True, max_examples=5)
    result.stdout.fnmatch_lines(["*::test_it: 5 examples in 5 executions, * complete"])


def test_a_replay_is_made_with_each_example(run):
    result = run("== tasks", "--race-replay=01", database=None)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E   stageflow_actors.errors.RaceError: *", 'race test replayed: *"01" fails with * of *']
    )
    result = run("<= tasks", "--race-replay=01", max_examples=5, derandomize=True)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(['race test replayed: *::test_it: the schedule "01" fails with none of 5 examples'])
