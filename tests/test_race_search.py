"""Strategies find bugs and repeat themselves; a failure is made as simple as can be, and nothing more is claimed."""

from __future__ import annotations

from itertools import count, pairwise

import pytest
import trio
from race_cases import find, lock_both, lose_an_update, queue_up, side_by_side
from trio.lowlevel import checkpoint

from property_tests.race_driving import run_choosers
from stageflow_actors.testing import Cancel, Crash, _simplify, explore, replay
from stageflow_actors.testing._search import STRATEGIES


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
        await queue_up(4)

    for strategy in STRATEGIES:
        for most in (1, 2, 7, 50):
            ran = []
            report = explore(program, strategy=strategy, max_executions=most)
            assert report.executions == len(ran) == most, strategy


def test_a_search_that_has_run_everything_stops():
    report = explore(lambda: queue_up(2), strategy="auto", max_executions=10_000)
    assert report.complete
    assert report.executions == report.reduced == 6
    assert report.sampled == 0


@pytest.mark.parametrize("strategy", ["pct", "pos", "random"])
def test_samplers_claim_nothing(strategy):
    report = explore(lambda: side_by_side(checkpoint, checkpoint), strategy=strategy, max_executions=50)
    assert report.executions == report.sampled == 50
    assert not report.complete
    assert report.bound is None


def test_the_portfolio_samples_in_its_second_half():
    report = explore(lambda: queue_up(6), max_executions=100)
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


async def walk_side_by_side():
    """Return in which order two tasks have made three steps each."""
    steps = []

    async def walk(name):
        for _ in range(3):
            steps.append(name)
            await checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(walk, "a")
        nursery.start_soon(walk, "b")
    return steps


def test_a_costly_failure_is_replaced_by_a_cheaper_one_of_any_kind():
    """The first that is found is not what is reported: the search goes on below it."""

    async def program():
        steps = await walk_side_by_side()
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


def test_where_the_systematic_search_runs_out_the_samplers_go_on():
    """Of a program that has become smaller, there are no schedules left that are known."""
    report = explore(changing(two, none), strategy="auto", max_executions=50)
    assert report.diverged
    assert report.executions == 50
    assert not report.complete


def test_a_verdict_under_another_schedule_does_not_hide_the_failure():
    """Made simpler, the program comes to schedules that were not run before; under some its test is skipped."""

    async def program():
        steps = await walk_side_by_side()
        if steps[0] == "b":
            assert steps != list("bbabaa")
        elif steps != list("aaabbb"):
            pytest.skip("not today")

    for seed in range(100):
        chooser = explore_until_skipped(program, seed)
        if chooser is not None:
            assert isinstance(chooser.failure.error, AssertionError)
            return
    pytest.fail("no seed finds the failure before it is skipped")


def explore_until_skipped(program, seed):
    """Return the report of a random walk; None if it came to a schedule under which the test is skipped."""
    try:
        report = explore(program, strategy="random", seed=seed)
    except pytest.skip.Exception:
        return None
    return report


class Broken:
    """A chooser that fails when it is asked the n-th time."""

    def __init__(self, times):
        self.left = times

    def choose(self, options):
        self.left -= 1
        if self.left < 0:
            raise LookupError("the toolkit's own")
        return len(options) - 1


@pytest.mark.parametrize("times", range(5))
def test_an_error_of_the_toolkits_own_comes_out_as_it_is(times):
    async def program():
        async def sleep():
            await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for task in (checkpoint, sleep, checkpoint):
                nursery.start_soon(task)

    with pytest.raises(LookupError, match="the toolkit's own"):
        run_choosers(program, [Broken(times)])


def test_an_error_of_the_toolkits_own_while_nothing_goes_on():
    async def program():
        await trio.sleep(1)

    with pytest.raises(LookupError, match="the toolkit's own"):
        run_choosers(program, [Broken(0)], faults=[Cancel()])


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
