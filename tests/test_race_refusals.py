"""What `explore` and `replay` refuse, before anything runs, and in which words."""

from __future__ import annotations

import re
from functools import partial

import pytest
import trio
from race_cases import side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.errors import PipelineValidationError
from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, explore, replay


async def needs_an_argument(number):
    await checkpoint()


async def yields():
    yield


def generates():
    yield


ran = []


async def runs():
    ran.append(None)


coroutine = None


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (3, "program must be an async function, not 3"),
        (None, "program must be an async function, not None"),
        (needs_an_argument, "program must be an async function without arguments, and needs_an_argument has a missing"),
        (
            partial(needs_an_argument, 1, 2),
            "program must be an async function without arguments, and needs_an_argument",
        ),
        (generates, "program must be an async function, and generates is a generator"),
        (yields, "program must be an async function, and yields is a"),
    ],
    ids=["number", "none", "argument", "arguments", "generator", "async generator"],
)
@pytest.mark.parametrize("call", [explore, partial(replay, schedule="0")], ids=["explore", "replay"])
def test_programs_that_are_none(call, program, message):
    with pytest.raises(PipelineValidationError, match=re.escape(message)):
        call(program)


def test_a_coroutine_is_not_its_function():
    called = runs()
    with pytest.raises(PipelineValidationError, match="give the function itself, without calling it") as caught:
        explore(called)
    called.close()
    assert "program must be an async function, not <coroutine object runs" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_executions": 0}, "max_executions must be a whole number of at least 1, not 0"),
        ({"max_executions": -1}, "max_executions must be a whole number of at least 1, not -1"),
        ({"max_executions": 1.5}, "max_executions must be a whole number of at least 1, not 1.5"),
        ({"max_executions": True}, "max_executions must be a whole number of at least 1, not True"),
        ({"max_executions": "many"}, "max_executions must be a whole number of at least 1, not 'many'"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, not 0"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"seed": None}, "seed must be a whole number of at least 0, not None"),
        ({"strategy": "dsf"}, "strategy must be one of 'auto', 'dpor', 'dfs', 'pct', 'pos', 'random', not 'dsf'"),
        ({"strategy": None}, "strategy must be one of 'auto', 'dpor', 'dfs', 'pct', 'pos', 'random', not None"),
        ({"clock": "explroe"}, "clock must be one of 'explore', 'auto', not 'explroe'"),
        ({"clock": True}, "clock must be one of 'explore', 'auto', not True"),
        ({"faults": Crash("a")}, "faults must be an iterable of faults, not Crash('a'); write faults=(Crash('a'),)"),
        ({"faults": "crash"}, "faults must be an iterable of faults, not 'crash'"),
        ({"faults": 3}, "faults must be an iterable of faults, not 3"),
        ({"faults": None}, "faults must be an iterable of faults, not None"),
        (
            {"faults": [Crash]},
            "a fault must be a Crash, Delay, Cancel, ClockJump, Late, Doubled or",
        ),
        (
            {"faults": ["crash"]},
            "a fault must be a Crash, Delay, Cancel, ClockJump, Late, Doubled or",
        ),
    ],
    ids=str,
)
def test_options_that_cannot_be(options, message):
    ran.clear()
    with pytest.raises(PipelineValidationError) as caught:
        explore(runs, **options)
    assert str(caught.value).startswith(message)
    assert not ran


@pytest.mark.parametrize(("options", "hint"), [({"strategy": "dsf"}, "'dfs'"), ({"clock": "explroe"}, "'explore'")])
def test_what_was_probably_meant(options, hint):
    with pytest.raises(PipelineValidationError, match=f"did you mean {hint}"):
        explore(runs, **options)


@pytest.mark.parametrize("name", ["max_steps", "clock", "faults"])
def test_replay_refuses_the_same(name):
    with pytest.raises(PipelineValidationError, match=name):
        replay(runs, "0", **{name: object()})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crash(""), "the on of a Crash must be a non-empty string"),
        (lambda: Crash(3), "the on of a Crash must be a non-empty string"),
        (lambda: Crash("a", at=0), "the at of a Crash must be a whole number of at least 1, not 0"),
        (lambda: Crash("a", error=3), "the error of a Crash must be an Exception"),
        (lambda: Crash("a", error=KeyboardInterrupt), "the error of a Crash must be an Exception"),
        (lambda: Delay("a", at=-1), "the at of a Delay must be a whole number of at least 1, not -1"),
        (lambda: Delay("a", seconds=-1), "the seconds of a Delay must be"),
        (lambda: Delay("a", seconds=float("nan")), "the seconds of a Delay must be"),
        (lambda: Cancel(at=1.5), "the at of a Cancel must be a whole number of at least 1, not 1.5"),
        (lambda: ClockJump(-1), "the seconds of a ClockJump must be"),
        (lambda: ClockJump(float("inf")), "the seconds of a ClockJump must be"),
        (lambda: ClockJump("1"), "the seconds of a ClockJump must be"),
    ],
)
def test_faults_that_cannot_be(make, message):
    with pytest.raises(PipelineValidationError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_faults_may_come_from_a_generator_and_are_taken_once():
    async def worker():
        await checkpoint()

    async def program():
        await side_by_side(worker)

    report = explore(program, faults=(Crash("worker") for _ in range(1)))
    assert report.failure.call.endswith("faults=(Crash('worker'),))")


@pytest.mark.parametrize("call", [explore, partial(replay, schedule="0")], ids=["explore", "replay"])
def test_inside_trio_they_are_refused(call):
    async def main():
        with pytest.raises(RuntimeError, match="the race toolkit starts trio itself, and trio is running here"):
            call(runs)

    ran.clear()
    trio.run(main)
    assert not ran


def test_inside_an_explored_program_it_is_a_failure():
    async def program():
        explore(runs)

    error = explore(program).failure.error
    assert type(error) is RuntimeError


def test_in_a_thread_of_an_explored_program_it_is_allowed():
    async def program():
        report = await trio.to_thread.run_sync(explore, runs)
        assert report.complete

    assert explore(program, max_executions=2).failure is None


def test_a_program_that_returns_nothing_that_can_be_awaited_fails():
    assert isinstance(explore(lambda: 3).failure.error, TypeError)
