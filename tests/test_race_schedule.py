"""Schedules as text: how they look, what is refused, and what a replay does that no longer fits."""

from __future__ import annotations

import re

import pytest
import trio
from race_cases import find, lock_both, lose_an_update, side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.errors import ReplayError
from stageflow_actors.testing import Crash, explore, replay
from stageflow_actors.testing._schedule import decode, encode


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ([], "0"),
        ([0, 0, 0], "0"),
        ([1], "1"),
        ([0, 1, 1], "011"),
        ([1, 1, 1], "111"),
        ([1, 1, 1, 1], "1(4)"),
        ([0] * 17 + [1, 0] + [2] * 40, "0(17)102(40)"),
        ([9, 10, 35, 36, 100], "9az[36][100]"),
        ([36] * 5, "[36](5)"),
        ([0] * 10_000 + [1], "0(10000)1"),
    ],
)
def test_how_schedules_look(choices, text):
    assert encode(choices) == text
    decoded = list(decode(text))
    assert decoded == choices or not any(choices)
    assert encode(decoded) == text


@pytest.mark.parametrize("text", ["v1:01", "01", "010", "0100", "0(1)1", "010(0)", "0(1)1(1)0(3)"])
def test_texts_of_the_same_schedule(text):
    assert encode(decode(text)) == "01"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a schedule must be a non-empty string, not ''"),
        (None, "a schedule must be a non-empty string, not None"),
        (110, "a schedule must be a non-empty string, not 110"),
        (b"01", "a schedule must be a non-empty string, not b'01'"),
        ("01 1", "the schedule '01 1' has ' ' at position 3, which is no choice"),
        ("01A", "the schedule '01A' has 'A' at position 3, which is no choice"),
        ("0(", "the schedule '0(' has '(' at position 2, which is no choice"),
        ("(3)", "the schedule '(3)' has '(' at position 1, which is no choice"),
        ("0(-1)", "the schedule '0(-1)' has '(' at position 2, which is no choice"),
        ("[1", "the schedule '[1' has '[' at position 1, which is no choice"),
        ("-1", "the schedule '-1' has '-' at position 1, which is no choice"),
        ("v2:01", "the schedule 'v2:01' is of version 2, and this release knows version 1"),
        ("v1:v1:01", "the schedule 'v1:v1:01' has ':' at position 6, which is no choice"),
        ("0(999999999)", "the schedule '0(999999999)' has more than 10,000,000 choices"),
    ],
)
def test_what_is_no_schedule_is_refused(text, message):
    ran = []

    async def program():
        ran.append(None)

    with pytest.raises(ReplayError, match=re.escape(message)) as caught:
        replay(program, text)
    assert str(caught.value).startswith(message)
    assert not ran


def test_a_failure_found_is_replayed_from_its_text():
    for make in (lose_an_update, lock_both):
        failure = find(make())
        again = replay(make(), failure.schedule)
        assert (again.kind, again.schedule, again.steps) == (failure.kind, failure.schedule, failure.steps)
        assert list(map(str, again.trace)) == list(map(str, failure.trace))
        assert again.minimal is None


def test_a_schedule_that_does_not_fail_gives_none():
    assert replay(lose_an_update(), "0") is None
    assert replay(lose_an_update(), "000(50)") is None  # defaults after the end are no misfit


def test_a_schedule_with_too_many_choices_does_not_fit():
    message = "the schedule '0(63)1' does not fit it: it has 64 choices, and the program came to 2"
    with pytest.raises(ReplayError, match=re.escape(message)):
        replay(lose_an_update(), "0(63)1")


def test_a_schedule_with_an_option_that_is_not_there_does_not_fit():
    message = (
        "the program does not fail, and the schedule '7' does not fit it: choice 1 is option 7, and there are only 2"
    )
    with pytest.raises(ReplayError, match=re.escape(message)) as caught:
        replay(lose_an_update(), "7")
    assert "explore it again" in str(caught.value)


def test_a_program_that_fails_all_the_same_is_a_failure_whatever_fits():
    async def program():
        raise ValueError

    assert replay(program, "7").kind == "exception"
    assert replay(program, "0(50)1").schedule == "0"


def test_a_schedule_of_a_program_that_has_changed():
    async def before():
        await side_by_side(checkpoint, checkpoint, checkpoint)
        raise ValueError

    async def after():
        await side_by_side(checkpoint)

    failure = find(before, strategy="random")
    assert replay(after, failure.schedule) is None  # all its choices were defaults
    with pytest.raises(ReplayError, match="does not fit"):
        replay(after, "2")


def test_a_schedule_without_the_faults_that_it_was_found_with():
    async def worker():
        await checkpoint()

    async def program():
        await side_by_side(worker)

    failure = find(program, faults=[Crash("worker")])
    with pytest.raises(ReplayError, match="does not fit"):
        replay(program, failure.schedule)
    assert replay(program, failure.schedule, faults=[Crash("worker")]) is not None


def test_what_is_printed_is_what_replays():
    failure = find(lose_an_update())
    assert failure.call == f"replay(update, {failure.schedule!r})"
    assert str(failure).splitlines()[-1] == f"replay: {failure.call}"
    assert eval(failure.call, {"replay": replay, "update": lose_an_update()}).schedule == failure.schedule


def test_the_line_that_replays_has_all_options():
    async def worker():
        await checkpoint()

    async def program():
        await side_by_side(worker)

    faults = [Crash("worker", at=1)]
    failure = find(program, faults=faults, clock="auto", max_steps=50)
    assert failure.call == "replay(program, '0', faults=(Crash('worker', at=1),), clock='auto', max_steps=50)"
    assert eval(failure.call, {"replay": replay, "program": program, "Crash": Crash}).kind == "exception"


def test_schedules_of_long_programs_are_short():
    async def program():
        value = 0

        async def add():
            nonlocal value
            for _ in range(40):
                await checkpoint()
            seen = value
            await checkpoint()
            value = seen + 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add)
            nursery.start_soon(add)
        assert value == 2

    failure = find(program)
    assert len(failure.schedule) <= 40
    assert len(failure.trace) > 80


@pytest.mark.parametrize("strategy", ["auto", "random"])
def test_what_is_found_is_found_again_with_the_same_seed(strategy):
    one, other = (explore(lock_both(), strategy=strategy, seed=7) for _ in range(2))
    assert one.failure.schedule == other.failure.schedule
    assert (one.executions, one.simplified_in) == (other.executions, other.simplified_in)
