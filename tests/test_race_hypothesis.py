"""Race tests below `@given`: both sides make a failure simpler, and neither disturbs the other."""

from __future__ import annotations

import pytest
import trio
from hypothesis import (
    HealthCheck,
    Verbosity,
    assume,
    currently_in_test_context,
    event,
    given,
    note,
    reject,
    settings,
    target,
)
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument, StopTest, Unsatisfiable
from hypothesis.reporting import with_reporter
from race_cases import queue_up

from stageflow_actors.errors import PipelineValidationError, RaceError
from stageflow_actors.testing import race_test, replay  # noqa: F401  # in the lines that replay
from stageflow_actors.testing._examples import EXAMPLE_EXECUTIONS
from stageflow_actors.testing.strategies import fault_plans

quick = settings(max_examples=20, deadline=None, database=None, derandomize=True)


async def add_up(tasks):
    """Tasks that each read, wait, and write."""
    total = 0

    async def add():
        nonlocal total
        seen = total
        await trio.lowlevel.checkpoint()
        total = seen + 1

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(add)
    return total


async def meet(tasks=2):
    await queue_up(tasks)


# In this run of pytest


@pytest.fixture
def made():
    return object()


class TestExamples:
    @given(tasks=st.integers(0, 3))
    @settings(quick, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors])
    @race_test(max_executions=10)
    async def test_fixtures_and_inputs_come_together(self, made, tasks):
        assert type(made) is object
        assert await add_up(tasks) <= tasks


# What is explored


def test_each_example_is_explored():
    runs = {}

    @quick
    @given(st.integers(0, 3))
    @race_test
    async def counting(tasks):
        runs[tasks] = runs.get(tasks, 0) + 1
        await meet(tasks)

    counting()
    assert (runs[0], runs[1]) == (1, 1)
    assert 2 < runs[2] < runs[3] == EXAMPLE_EXECUTIONS


def test_the_number_of_executions_may_be_said():
    runs = {}

    @quick
    @given(st.integers(0, 3))
    @race_test(max_executions=4)
    async def counting(tasks):
        runs[tasks] = runs.get(tasks, 0) + 1
        await meet(tasks)

    counting()
    assert runs[3] == 4


# Failures


@quick
@given(tasks=st.integers(0, 8), text=st.text())
@race_test
async def losing(tasks, text):
    assert await add_up(tasks) >= min(tasks, 3), text


def fail(test):
    with pytest.raises(RaceError) as caught:
        test()
    return caught.value


def test_inputs_and_schedule_are_made_simpler():
    error = fail(losing)
    assert any("losing(\n    tasks=2,\n    text=''," in note for note in error.__notes__)
    assert (error.failure.schedule, error.failure.preemptions, error.failure.minimal) == ("01", 1, True)
    assert error.failure.reproduced
    assert len(error.failure.trace) == 6


def test_it_says_that_the_replay_needs_the_inputs():
    assert any("needs the inputs of this example" in note for note in fail(losing).__notes__)


def test_the_replay_line_has_the_inputs():
    from functools import partial  # noqa: PLC0415  # in the line that replays

    line = fail(losing).failure.call
    assert line == "replay(partial(losing.hypothesis.inner_test.__wrapped__, tasks=2, text=''), '01')"
    assert eval(line, globals(), {"partial": partial}).schedule == "01"


def test_it_is_not_flaky():
    first, second = fail(losing), fail(losing)
    assert str(first) == str(second)
    assert first.__notes__ == second.__notes__


def test_a_failure_that_changes_its_kind_while_it_is_made_simpler_is_not_flaky():
    """Without a preemption it is another error than the first that is found."""

    @quick
    @given(st.integers(2, 4))
    @race_test(strategy="random")
    async def varying(tasks):
        total = await add_up(tasks)
        if total == 1:
            message = "one"
            raise ValueError(message)
        assert total == tasks

    assert isinstance(fail(varying), RaceError)


def test_only_the_last_failure_is_made_simpler():
    runs = []

    @quick
    @given(st.integers(0, 6))
    @race_test
    async def counting(tasks):
        runs.append(tasks)
        assert await add_up(tasks) < 5

    fail(counting)
    assert runs[-1] == 5
    assert len(runs) < 21 * EXAMPLE_EXECUTIONS


def test_faults_are_made_simpler_too():
    @quick
    @given(faults=fault_plans(["child", "other"]))
    def crashing(faults):
        @race_test(faults=faults)
        async def below():
            async def child():
                await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, name="child")

        below()

    error = fail(crashing)
    assert error.failure.call == "replay(below.__wrapped__, '0', faults=(Crash('child', at=1),))"
    assert any("faults=(Crash('child', at=1),)" in note for note in error.__notes__)


# What Hypothesis offers inside


def test_an_assumption_rejects_the_example():
    runs = []

    @quick
    @given(st.integers(0, 9))
    @race_test
    async def odd(number):
        await trio.lowlevel.checkpoint()
        assume(number % 2)
        runs.append(number)
        assert number % 2

    odd()
    assert runs


@pytest.mark.parametrize("in_a_child", [False, True])
def test_rejecting_all_is_told_by_hypothesis(in_a_child):
    async def child():
        await trio.lowlevel.checkpoint()
        reject()

    @settings(quick, suppress_health_check=[HealthCheck.filter_too_much])
    @given(st.integers())
    @race_test
    async def rejecting(number):
        if not in_a_child:
            reject()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    with pytest.raises(Unsatisfiable):
        rejecting()


def test_events_are_counted():
    @quick
    @given(st.integers(0, 3))
    @race_test
    async def telling(tasks):
        await meet(tasks)
        event("met")
        assert currently_in_test_context()

    telling()


def test_notes_are_those_of_the_execution_that_is_shown():
    @quick
    @given(st.integers(0, 4))
    @race_test
    async def noting(tasks):
        note(f"{tasks} tasks")
        total = await add_up(tasks)
        note(f"{total} in all")
        assert total == tasks

    notes = [text for text in fail(noting).__notes__ if text.endswith(("tasks", "in all"))]
    assert notes == ["2 tasks", "1 in all"]


def test_notes_of_what_passes_are_not_lost_in_verbose_runs():
    told = []

    @settings(quick, max_examples=1, verbosity=Verbosity.verbose)
    @given(st.just(2))
    @race_test(max_executions=5)
    async def noting(tasks):
        note("begun")
        await meet(tasks)

    with with_reporter(told.append):
        noting()
    assert told.count("begun") == 1


def test_a_target_is_refused_by_hypothesis_itself():
    @quick
    @given(st.integers(0, 4))
    @race_test
    async def aiming(tasks):
        target(tasks)
        await meet()

    with pytest.raises(InvalidArgument, match="would overwrite"):
        aiming()


def test_drawing_inside_is_refused():
    @quick
    @given(st.data())
    @race_test
    async def drawing(data):
        data.draw(st.integers())

    with pytest.raises(PipelineValidationError, match=r"'data' of the race test drawing is data\(\).*@composite"):
        drawing()


def test_hypothesis_stops_an_example_without_wrecking_trio():
    """Its `StopTest` is no Exception; drawing raises it when Hypothesis has had enough."""
    stopped = []

    @settings(quick, max_examples=1, suppress_health_check=[HealthCheck.filter_too_much])
    @given(st.data())
    def outer(data):
        @race_test
        async def below():
            await meet()
            if data.draw(st.integers(0, 5)) < 6:
                data.conjecture_data.mark_invalid("enough")

        try:
            below()
        except StopTest:
            stopped.append(trio.lowlevel.in_trio_run())
            raise

    with pytest.raises(Unsatisfiable):
        outer()
    assert stopped
    assert not any(stopped)
