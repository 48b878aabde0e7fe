"""Strategies find bugs and repeat themselves; a failure is made as simple as can be, and nothing more is claimed."""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise, product
from math import sqrt

import pytest
import trio
from race_cases import find, lock_both, lose_an_update, side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.testing import Cancel, Crash, _simplify, explore, replay
from stageflow_actors.testing import _search as search
from stageflow_actors.testing._choosers import Given, Priorities, Resampled, Uniform
from stageflow_actors.testing._execution import Execution
from stageflow_actors.testing._search import STRATEGIES, Frontier, Portfolio, Sampled, Systematic, make_search


def needing(preemptions):
    """Return a program that fails only if it is preempted at least so many times."""

    async def need():
        steps = []

        async def walk(name):
            for _ in range(preemptions + 1):
                steps.append(name)
                await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk, "a")
            nursery.start_soon(walk, "b")
        switches = sum(one != other for one, other in pairwise(steps))
        assert switches <= preemptions, steps

    return need


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("make", [lose_an_update, lock_both])
def test_every_strategy_finds_a_bug_of_depth_two(strategy, make):
    failure = find(make(), strategy=strategy, max_executions=200)
    assert failure.preemptions == 1
    assert failure.minimal
    assert failure.reproduced
    assert replay(make(), failure.schedule).kind == failure.kind


@pytest.mark.parametrize("preemptions", [1, 2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failure_has_as_few_preemptions_as_there_can_be(strategy, preemptions):
    failure = find(needing(preemptions), strategy=strategy, max_executions=500)
    assert failure.preemptions == preemptions
    assert failure.minimal
    assert "none fails with fewer" in str(failure)


def test_minimal_is_not_claimed_where_not_all_was_looked_at(monkeypatch):
    monkeypatch.setattr(_simplify, "SIMPLIFYING", 3)
    failure = find(needing(3), strategy="random", max_executions=500)
    assert not failure.minimal
    assert "fewer may do" in str(failure)


def test_executions_are_as_many_as_asked_for():
    async def program():
        ran.append(None)
        await side_by_side(checkpoint, checkpoint, checkpoint)

    for strategy in STRATEGIES:
        for most in (1, 2, 7, 50):
            ran = []
            report = explore(program, strategy=strategy, max_executions=most)
            assert report.executions == len(ran) == most, strategy


def test_a_search_that_has_run_everything_stops():
    report = explore(lambda: side_by_side(checkpoint, checkpoint), strategy="auto", max_executions=10_000)
    assert report.complete
    assert report.executions == 6
    assert report.sampled == 0


@pytest.mark.parametrize("strategy", ["pct", "pos", "random"])
def test_samplers_claim_nothing(strategy):
    report = explore(lambda: side_by_side(checkpoint, checkpoint), strategy=strategy, max_executions=50)
    assert report.executions == report.sampled == 50
    assert not report.complete
    assert report.bound is None


def test_the_portfolio_samples_in_its_second_half():
    report = explore(lambda: side_by_side(*[checkpoint] * 6), max_executions=100)
    assert report.sampled == 37  # of the 50 in its second half, all but each fourth
    assert report.bound is None or report.bound >= 0
    assert not report.complete


def test_other_seeds_make_other_executions():
    def run(strategy, seed):
        orders = []

        async def program():
            order = []

            async def walk(name):
                for _ in range(3):
                    order.append(name)
                    await checkpoint()

            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(walk, name)
            orders.append("".join(order))

        explore(program, strategy=strategy, seed=seed, max_executions=20)
        return orders

    for strategy in ("auto", "pct", "pos", "random"):
        assert run(strategy, 1) != run(strategy, 2), strategy
        assert len(set(run(strategy, 1))) > 5, strategy
    assert run("dfs", 1) == run("dfs", 2)


def test_what_is_counted_of_a_failing_search_is_what_was_run_to_find_it():
    ran = []
    program = needing(3)

    async def counting():
        ran.append(None)
        await program()

    for strategy in STRATEGIES:
        ran.clear()
        report = explore(counting, strategy=strategy, max_executions=500)
        assert report.executions + report.simplified_in in (len(ran), len(ran) - 1)  # and once for its trace
        assert 0 <= report.sampled <= report.executions
        assert report.bound is None or report.bound < 3


def test_a_costly_failure_is_replaced_by_a_cheaper_one_of_any_kind():
    """The first that is found is not what is reported: the search goes on below it."""

    async def program():
        steps = []

        async def walk(name):
            for _ in range(3):
                steps.append(name)
                await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk, "a")
            nursery.start_soon(walk, "b")
        if steps == list("bbabaa"):
            raise ValueError("three switches")
        if steps == list("abbbaa"):
            raise KeyError("two")

    for strategy in ("pct", "pos", "random"):
        failure = find(program, strategy=strategy, max_executions=2_000)
        assert isinstance(failure.error, KeyError)
        assert (failure.preemptions, failure.minimal) == (1, True)


def test_choices_that_decide_nothing_are_defaults():
    """Of the schedules that fail in the same way, the one with the plainest choices is shown."""

    async def program():
        order = []

        async def step(name):
            order.append(name)

        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(step, name)
        assert order[0] != "c"

    for strategy in STRATEGIES:
        assert find(program, strategy=strategy, max_executions=300).schedule == "2"


# Programs that do not repeat themselves


def changing(*behaviours):
    """Return a program that does something else in each execution, then the last for ever."""
    runs = count()

    async def change():
        await behaviours[min(next(runs), len(behaviours) - 1)]()

    return change


async def two():
    await side_by_side(checkpoint, checkpoint)


async def three():
    await side_by_side(checkpoint, checkpoint, checkpoint)


async def none():
    pass


async def fails():
    raise ValueError("only once")


@pytest.mark.parametrize("behaviours", [(three, two), (two, three), (two, none), (none, two, two), (two, two, none)])
def test_a_program_that_changes_is_told_and_nothing_is_claimed(behaviours):
    report = explore(changing(*behaviours), strategy="dfs", max_executions=500)
    if report.diverged:
        assert not report.complete
        assert report.bound is None
        assert "not deterministic" in str(report)
    else:
        assert behaviours[0] is none  # its only schedule was run before it changed
        assert report.executions == 1


def test_a_failure_that_does_not_come_back_is_told():
    failure = find(changing(two, fails, two), strategy="dfs")
    assert not failure.reproduced
    assert not failure.minimal
    assert "did not fail in the same way" in str(failure)
    assert isinstance(failure.error, ValueError)


def test_the_order_of_a_set_of_objects_is_noticed():
    class Member:
        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return next(hashes)

        def __eq__(self, other):
            return self is other

    hashes = count()

    async def program():
        async def member(number):
            for _ in range(number):
                await checkpoint()

        async with trio.open_nursery() as nursery:
            for each in {Member(1), Member(2), Member(3)}:
                nursery.start_soon(member, each.number)

    report = explore(program, strategy="dfs", max_executions=300)
    assert report.diverged or not report.complete


# The parts by themselves


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
        made, frontier = make_search(strategy, 0, 100)
        assert frontier is None
        made.next()
        made.learn(Execution([0], [2], [1], 1, None))
        assert type(made.next()) is {"pct": Priorities, "pos": Resampled, "random": Uniform}[strategy]
    assert isinstance(make_search("auto", 0, 100)[0], Portfolio)
    assert isinstance(make_search("dfs", 0, 100)[0], Systematic)


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


@pytest.mark.parametrize("faults", [(Crash("walker"),), (Cancel(),)])
def test_faults_are_explored_by_every_strategy(faults):
    seen = set()

    async def walker():
        await checkpoint()

    async def program():
        try:
            await side_by_side(walker)
        except* Exception:
            seen.add("crash")
        except* trio.Cancelled:
            seen.add("cancel")
            raise

    for strategy in STRATEGIES:
        seen.clear()
        assert explore(program, strategy=strategy, faults=faults, max_executions=100).failure is None
        assert seen == {"crash" if isinstance(faults[0], Crash) else "cancel"}, strategy
