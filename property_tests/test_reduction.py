"""The reduction, without trio: it runs one schedule of each that can be told apart, and none twice."""

from __future__ import annotations

from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors.testing._reduction.events import Order, conflicts
from stageflow_actors.testing._reduction.search import Dpor
from stageflow_actors.testing._search import Frontier, Systematic

from .race_models import count_interleavings
from .reduction_model import Step, list_classes, run

MOST = 1_500
VARIABLES = st.frozensets(st.integers(0, 2), max_size=2)
steps = st.builds(Step, VARIABLES, VARIABLES)
processes = st.lists(st.lists(steps, min_size=1, max_size=3), min_size=2, max_size=4).filter(
    lambda drawn: count_interleavings([len(process) for process in drawn]) <= MOST
)


@st.composite
def families(draw):
    """Draw processes of which some are started by others."""
    drawn = draw(processes)
    started = draw(st.integers(1, len(drawn) - 1))
    starter = draw(st.integers(0, started - 1))
    at = draw(st.integers(0, len(drawn[starter]) - 1))
    changed = [list(process) for process in drawn]
    step = changed[starter][at]
    changed[starter][at] = Step(step.reads, step.writes, started)
    return changed


def run_reduced(drawn):
    """Return the executions of the reduction, those that ended early last."""
    search = Dpor()
    executions = []
    while (walk := search.next()) is not None:
        executions.append(run(drawn, walk))
        search.learn(executions[-1])
    assert search.is_complete
    whole = [execution for execution in executions if not execution.trail.is_abandoned]
    assert search.taken == len(executions)
    assert search.pruned == len(executions) - len(whole)
    return whole, search


def run_all(drawn):
    """Return the executions of every schedule."""
    frontier = Frontier(None)
    search = Systematic(frontier)
    executions = []
    while (chooser := search.next()) is not None:
        executions.append(run(drawn, chooser, hear=False))
        search.learn(executions[-1])
    assert frontier.is_complete
    return executions


@given(st.one_of(processes, families()))
@settings(max_examples=150, deadline=None)
def test_each_distinguishable_schedule_is_run_once(drawn):
    every = run_all(drawn)
    reduced, search = run_reduced(drawn)
    classes = list_classes(every)
    assert list_classes(reduced) == classes
    assert {execution.value for execution in reduced} == {execution.value for execution in every}
    checks = 1 if search.executions < search.taken else 0
    assert len(reduced) - checks == len(classes)
    event("reduced" if len(reduced) < len(every) else "not")


@given(st.lists(steps, min_size=2, max_size=2))
def test_steps_are_independent_if_neither_writes_what_the_other_touches(drawn):
    one, other = drawn
    expected = bool(one.writes & (other.reads | other.writes) or other.writes & (one.reads | one.writes))
    assert conflicts(one.touched, other.touched) == conflicts(other.touched, one.touched) == expected


@given(processes)
@settings(max_examples=100, deadline=None)
def test_a_race_is_between_steps_that_nothing_else_orders(drawn):
    """Compared with what the definition says, by looking at every pair."""
    for execution in run_all(drawn)[:5]:
        events = execution.trail.events
        order = Order()
        for number, later in enumerate(events):
            races = set(order.add(later))
            past = order.past[number]
            direct = {
                other
                for other in range(number)
                if events[other].process == later.process or conflicts(events[other].touched, later.touched)
            }
            assert past == sum(1 << other for other in _close(direct, order.past))
            between = {other for one in direct for other in _bits(order.past[one])}
            assert races == {other for other in direct - between if events[other].process != later.process}


def _bits(past):
    return [number for number in range(past.bit_length()) if past >> number & 1]


def _close(direct, past):
    return direct | {other for one in direct for other in _bits(past[one])}
