"""The parts of the search by themselves: the frontier, the samplers, and what PCT promises."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import sqrt

import pytest

from stageflow_actors.testing import _search as search
from stageflow_actors.testing._choosers import Given, Priorities, Resampled, Uniform
from stageflow_actors.testing._execution import Execution
from stageflow_actors.testing._search import Frontier, Portfolio, Reduced, Sampled, Systematic, make_search


def test_a_frontier_that_has_lost_schedules_claims_nothing_of_them(monkeypatch):
    monkeypatch.setattr(search, "_MOST_KEPT", 5)
    frontier = Frontier(None)
    systematic = Systematic(frontier)
    while (chooser := systematic.next()) is not None:
        choices = [*chooser.choices, *[0] * (4 - len(chooser.choices))]
        systematic.learn(Execution(choices, [3] * 4, [1] * 4, 4, None))
    assert not frontier.is_complete
    assert frontier.bound in (None, 0)


def test_a_sampler_looks_at_the_default_first_and_knows_how_long_it_is():
    asked = []

    def make(number, longest):
        asked.append((number, longest))
        return Given()

    sampler = Sampled(make)
    for length in (4, 9, 2):
        assert isinstance(sampler.next(), Given)
        sampler.learn(Execution([0] * length, [2] * length, [1] * length, length, None))
    assert asked == [(2, 4), (3, 9)]


def test_the_strategies_make_their_searches():
    for strategy in ("pct", "pos", "random"):
        plan = make_search(strategy, 0, 100)
        assert plan.frontier is plan.dpor is None
        made = plan.search
        made.next()
        made.learn(Execution([0], [2], [1], 1, None))
        assert type(made.next()) is {"pct": Priorities, "pos": Resampled, "random": Uniform}[strategy]
    assert isinstance(make_search("auto", 0, 100).search, Portfolio)
    assert isinstance(make_search("dfs", 0, 100).search, Systematic)
    assert isinstance(make_search("dpor", 0, 100).search, Reduced)


STEPS = 3
"""Of each of two tasks."""


def draw_order(seed, depth):
    """Return an order of the steps of two tasks that PCT draws, as names with numbers."""
    chooser = Priorities(seed, depth=depth, steps=2 * STEPS)
    left = {1: STEPS, 2: STEPS}
    order = []
    while any(left.values()):
        options = [_Actor(number) for number in left if left[number]]
        chosen = options[chooser.choose(options)].number if len(options) > 1 else options[0].number
        order.append((chosen, STEPS - left[chosen]))
        left[chosen] -= 1
    return order


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_pct_keeps_its_promise(depth):
    """Whatever d steps have to come before which others: it happens in at least one of n * k**(d-1) executions."""
    orders = [draw_order(str(seed), depth) for seed in range(2_000)]
    places = [{step: at for at, step in enumerate(order)} for order in orders]
    every = list(product(range(STEPS), range(STEPS)))
    promised = 1 / (2 * (2 * STEPS) ** (depth - 1))
    deviation = sqrt(promised / len(orders))
    for constraints in product(every, repeat=depth):
        # In turn: a step of the first task before one of the second, one of the second before one of the first.
        wanted = [
            ((1, one), (2, other)) if turn % 2 == 0 else ((2, one), (1, other))
            for turn, (one, other) in enumerate(constraints)
        ]
        hits = sum(all(place[one] < place[other] for one, other in wanted) for place in places)
        if hits or is_possible(wanted):
            assert hits / len(orders) >= promised - 3 * deviation, wanted


def is_possible(wanted):
    """Return whether some order of the steps meets all constraints."""
    for places in product(range(2), repeat=2 * STEPS):
        if sum(places) == STEPS:
            left = [iter(range(STEPS)), iter(range(STEPS))]
            order = [(task + 1, next(left[task])) for task in places]
            if all(order.index(one) < order.index(other) for one, other in wanted):
                return True
    return False


class _Actor:
    def __init__(self, number):
        self.number = number
        self.name = str(number)


def test_samplers_are_fair_enough():
    """No option of three is chosen first more than three times as often as another."""
    for make in (Uniform, Resampled, lambda seed: Priorities(seed, depth=2, steps=10)):
        firsts = Counter(make(str(seed)).choose([_Actor(number) for number in (1, 2, 3)]) for seed in range(600))
        assert max(firsts.values()) < 3 * min(firsts.values())
