"""The race toolkit does with random programs what a controller made of trio's private hooks does with plain trio."""

from __future__ import annotations

from hypothesis import event, given, settings
from hypothesis import strategies as st

from .race_driving import run_all, run_traced
from .race_oracle import consult, consult_all
from .race_programs import programs, schedules, small_programs

clocks = st.sampled_from(["explore", "auto"])
STUCK = {"deadlock", "lost wake-up"}
MOST = 150
"""Schedules of a program of which all are compared."""


def place(step):
    """Return a step as the oracle notes it: who made it, and where it stood then."""
    where = step.where.partition(" in ")[0].rpartition("/")[2]
    return step.task, "ends" if step.then.startswith("ends") else where


@given(programs, schedules, clocks)
def test_the_same_choices_lead_to_the_same_steps(drawn, choices, clock):
    plain = consult(drawn.program, choices, clock=clock)
    execution, steps = run_traced(drawn.program, choices, clock=clock)
    event("waits for ever" if plain.stuck else "ends")
    assert (tuple(execution.choices), tuple(execution.widths)) == (plain.choices, plain.widths)
    assert tuple(execution.free) == plain.free
    assert list(map(place, steps)) == list(plain.steps)
    if plain.stuck:
        assert execution.failure.kind in STUCK
        assert {waiting.task for waiting in execution.failure.waiting} == set(plain.stuck)
    else:
        assert execution.failure is None
        assert execution.value == plain.value


@settings(max_examples=40)
@given(small_programs, clocks)
def test_the_search_finds_every_schedule_once(drawn, clock):
    plain = consult_all(drawn.program, clock=clock, most=MOST)
    executions, frontier = run_all(drawn.program, clock=clock, most=MOST)
    event("too many" if len(plain) == MOST else f"{len(plain) // 50 * 50} or more")
    if len(plain) == MOST:
        assert not frontier.is_complete or len(executions) == MOST
        return
    assert frontier.is_complete
    assert len(executions) == len(plain)
    assert {tuple(execution.choices) for execution in executions} == set(plain)
    for execution in executions:
        outcome = plain[tuple(execution.choices)]
        assert bool(outcome.stuck) == (execution.failure is not None)
        assert outcome.stuck or execution.value == outcome.value


@settings(max_examples=40)
@given(small_programs)
def test_costs_are_those_of_the_schedules(drawn):
    """Executions come in the order of what they cost, which the oracle counts for itself."""
    executions, _ = run_all(drawn.program, most=MOST)
    costs = [
        sum(choice >= free for choice, free in zip(outcome.choices, outcome.free, strict=True))
        for outcome in (consult(drawn.program, execution.choices) for execution in executions[:60])
    ]
    assert costs == [execution.cost for execution in executions[:60]]
    assert costs == sorted(costs)
