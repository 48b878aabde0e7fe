"""A second controller, made of trio's private hooks, goes through the same schedules and must see the same steps."""

from __future__ import annotations

import random
from pathlib import PurePath

import pytest
import trio
from race_cases import lock_both, lose_an_update
from race_primitives import PROGRAMS

from property_tests.corpus import CORPUS
from property_tests.race_driving import run_all, run_traced
from property_tests.race_oracle import consult, consult_all

SCHEDULES = 12
MOST_STEPS = 400
STUCK = {"deadlock", "lost wake-up", "livelock"}


def place(step):
    """Return a step as the oracle notes it: who made it, and in which line it stood then."""
    file, _, line = step.where.partition(" in ")[0].rpartition(":")
    return step.task, "ends" if step.then.startswith("ends") else f"{PurePath(file).name}:{line}".strip(":")


def draw_schedules(name):
    """Return the default schedule, and some at random."""
    source = random.Random(name)
    return [(), *[tuple(source.choice((0, 0, 1, 2)) for _ in range(40)) for _ in range(SCHEDULES)]]


def compare(program, schedule, clock):
    """Go through a schedule both ways."""
    plain = consult(program, schedule, clock=clock, max_steps=MOST_STEPS)
    execution, steps = run_traced(program, schedule, clock=clock, max_steps=MOST_STEPS)
    assert (tuple(execution.choices), tuple(execution.widths)) == (plain.choices, plain.widths)
    assert tuple(execution.free) == plain.free
    assert [place(step)[1] for step in steps] == [where for _, where in plain.steps]
    if plain.stuck:
        assert execution.failure.kind in STUCK
        assert len(execution.failure.waiting) == len(plain.stuck)
    elif plain.error is not None:
        assert execution.failure.kind == "exception"
        assert type(execution.failure.error) is type(plain.error)
        assert str(execution.failure.error) == str(plain.error)
    else:
        assert execution.failure is None
        assert execution.value == plain.value


@pytest.mark.parametrize("clock", ["explore", "auto"])
@pytest.mark.parametrize(
    "program",
    [*PROGRAMS, *[entry.bug for entry in CORPUS], *[entry.twin for entry in CORPUS], lose_an_update(), lock_both()],
    ids=lambda program: program.__name__,
)
def test_the_same_schedule_leads_to_the_same_steps(program, clock):
    for schedule in draw_schedules(program.__name__):
        compare(program, schedule, clock)


@pytest.mark.parametrize("make", [lose_an_update, lock_both])
def test_the_search_visits_what_another_search_does(make):
    plain = consult_all(make())
    executions, frontier = run_all(make())
    assert frontier.is_complete
    assert sorted(tuple(execution.choices) for execution in executions) == sorted(plain)
    for execution in executions:
        outcome = plain[tuple(execution.choices)]
        assert (execution.failure is None) == (outcome.error is None and not outcome.stuck)


def test_the_oracle_is_of_plain_trio():
    """It wraps no task, and leaves trio as it was."""
    before = trio._core._run._r, trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING
    kinds = []

    async def program():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
            await trio.lowlevel.checkpoint()
            kinds.extend(type(task.coro).__name__ for task in (trio.lowlevel.current_task(), *nursery.child_tasks))

    consult(program)
    assert kinds == ["coroutine", "coroutine"]
    assert (trio._core._run._r, trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING) == before


def test_the_oracle_tells_schedules_apart():
    """Else it would confirm anything."""
    outcomes = consult_all(lose_an_update())
    assert {outcome.error is None for outcome in outcomes.values()} == {True, False}
    assert len({outcome.steps for outcome in outcomes.values()}) == len(outcomes)
