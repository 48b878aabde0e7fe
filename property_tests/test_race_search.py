"""The search visits each schedule once, those with fewer preemptions first, and claims no more than it has visited."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate

import pytest
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors.testing import explore
from stageflow_actors.testing._search import Frontier, Systematic, make_search

from .race_driving import run_all
from .race_models import (
    ACQUIRE,
    CHECKPOINT,
    RELEASE,
    Tree,
    count_by_preemptions,
    count_interleavings,
    list_orders,
)

MOST = 600


def walk(checkpoints):
    """Return a program of tasks that let others go first so many times, which returns who made which step."""

    async def program():
        steps = []

        async def walker(task, times):
            steps.append(task)
            for _ in range(times):
                await trio.lowlevel.checkpoint()
                steps.append(task)

        async with trio.open_nursery() as nursery:
            for task, times in enumerate(checkpoints):
                nursery.start_soon(walker, task, times)
        return tuple(steps)

    return program


def follow(scripts, locks):
    """Return a program of tasks that take and leave locks, whose steps are kept although it may not end."""
    paths = []

    async def program():
        steps = []
        paths.append(steps)
        shared = [trio.Lock() for _ in range(locks)]

        async def worker(task, script):
            steps.append(task)
            for what, lock in script:
                if what == RELEASE:
                    shared[lock].release()
                    continue
                if what == ACQUIRE:
                    await shared[lock].acquire()
                else:
                    await trio.lowlevel.checkpoint()
                steps.append(task)

        async with trio.open_nursery() as nursery:
            for task, script in enumerate(scripts):
                nursery.start_soon(worker, task, script)

    return program, paths


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=3).filter(
        lambda times: count_interleavings([t + 1 for t in times]) <= MOST
    )
)
def test_tasks_that_wait_for_nobody_are_mixed_in_every_way(checkpoints):
    lengths = [times + 1 for times in checkpoints]
    executions, frontier = run_all(walk(checkpoints))
    assert frontier.is_complete
    assert len(executions) == count_interleavings(lengths)
    assert len({execution.value for execution in executions}) == len(executions)
    assert Counter(execution.cost for execution in executions) == count_by_preemptions(lengths)


@settings(max_examples=40)
@given(st.data())
def test_bound_and_complete_say_what_was_visited(data):
    checkpoints = data.draw(st.lists(st.integers(0, 2), min_size=2, max_size=3))
    counts = count_by_preemptions([times + 1 for times in checkpoints])
    totals = list(accumulate(counts[bound] for bound in range(max(counts) + 1)))
    most = data.draw(st.integers(1, min(totals[-1] + 3, MOST)))
    report = explore(walk(checkpoints), strategy="dfs", max_executions=most)
    assert report.executions == min(most, totals[-1])
    assert report.complete == (most >= totals[-1])
    exhausted = [bound for bound, total in enumerate(totals) if total <= most]
    assert report.bound == (exhausted[-1] if exhausted else None)


@st.composite
def scripts(draw, locks=2):
    """Draw what a task does with locks: it takes one only if it does not hold it, and leaves all that it has taken."""
    script, held = [], []
    for _ in range(draw(st.integers(0, 4))):
        what = draw(st.sampled_from([CHECKPOINT, ACQUIRE, ACQUIRE, RELEASE]))
        others = [lock for lock in range(locks) if lock not in held]
        if what == ACQUIRE and others:
            held.append(draw(st.sampled_from(others)))
            script.append((ACQUIRE, held[-1]))
        elif what == RELEASE and held:
            script.append((RELEASE, held.pop(draw(st.integers(0, len(held) - 1)))))
        elif what == CHECKPOINT:
            script.append((CHECKPOINT, None))
    return [*script, *((RELEASE, lock) for lock in held)]


NESTED = [[(ACQUIRE, one), (ACQUIRE, 1 - one), (RELEASE, 1 - one), (RELEASE, one)] for one in range(2)]


@settings(max_examples=60)
@given(st.lists(st.one_of(scripts(), st.sampled_from(NESTED)), min_size=2, max_size=3))
def test_locks_are_taken_in_every_order(drawn):
    expected = list_orders(drawn, 2)
    if len(expected) > MOST:
        event("too many")
        return
    program, paths = follow(drawn, 2)
    executions, frontier = run_all(program)
    assert frontier.is_complete
    deadlocks = [execution.failure is not None for execution in executions]
    found = [(tuple(path), stuck) for path, stuck in zip(paths, deadlocks, strict=True)]
    assert sorted(found) == sorted((path, bool(left)) for path, left in expected)
    event("deadlocks" if any(deadlocks) else "none")
    for execution, path in zip(executions, paths, strict=True):
        if execution.failure is not None:
            assert execution.failure.kind == "deadlock"
            left = next(left for found_path, left in expected if found_path == tuple(path))
            assert len(execution.failure.waiting) == 1 + len(left)  # the one in the nursery


@given(st.integers(0, 3), st.integers(0, 1))
def test_a_jump_of_the_clock_is_mixed_with_steps_in_every_way(checkpoints, others):
    """A timer has three steps: it begins, the clock jumps, it goes on."""

    async def program():
        steps = []

        async def timer():
            steps.append("timer")
            await trio.sleep(1)
            steps.append("timer")

        async def walker(name, times):
            steps.append((name, trio.current_time()))
            for _ in range(times):
                await trio.lowlevel.checkpoint()
                steps.append((name, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(timer)
            nursery.start_soon(walker, "walker", checkpoints)
            for _ in range(others):
                nursery.start_soon(walker, "other", 0)
        return tuple(steps)

    executions, frontier = run_all(program)
    assert frontier.is_complete
    assert len(executions) == count_interleavings([3, checkpoints + 1, *[1] * others])


# Without trio: trees of choices


@st.composite
def free_nodes(draw, children):
    drawn = draw(st.lists(children, min_size=2, max_size=3))
    return Tree(len(drawn), draw(st.integers(1, len(drawn))), tuple(drawn))


trees = st.recursive(st.just(Tree()), free_nodes, max_leaves=30)


@given(trees, st.sampled_from([None, "a seed"]))
def test_each_leaf_is_reached_once_and_cheaper_ones_first(tree, seed):
    frontier = Frontier(seed)
    search = Systematic(frontier)
    found = []
    leaves = dict(tree.list_leaves())
    while (chooser := search.next()) is not None:
        execution = tree.run(chooser)
        search.learn(execution)
        found.append(tuple(execution.choices))
        costs = Counter(leaves[path] for path in found)
        exhausted = -1
        while exhausted < max(leaves.values()) and costs[exhausted + 1] == Counter(leaves.values())[exhausted + 1]:
            exhausted += 1
        assert (frontier.bound is None) == (exhausted < 0)
        assert frontier.bound is None or frontier.bound >= exhausted
        assert frontier.is_complete == (len(found) == len(leaves))
        assert not any(
            leaves[path] <= (-1 if frontier.bound is None else frontier.bound) for path in leaves.keys() - set(found)
        )
    assert sorted(found) == sorted(leaves)
    assert [leaves[path] for path in found] == sorted(leaves.values())
    assert frontier.taken == len(leaves)
    assert not frontier.diverged


@given(trees, trees, st.integers(0, 10))
def test_a_program_that_changes_is_never_complete(tree, other, after):
    """Where an execution shows other options than the same choices had before, nothing is claimed any more."""
    frontier = Frontier(None)
    search = Systematic(frontier)
    seen, runs, conflicts = {}, 0, 0
    while (chooser := search.next()) is not None and runs < 200:
        execution = (tree if runs < after else other).run(chooser)
        search.learn(execution)
        runs += 1
        conflict = False
        for at, width in enumerate([*execution.widths, 0]):
            conflict = conflict or seen.setdefault(tuple(execution.choices[:at]), width) != width
        conflicts += conflict
    event("changes" if conflicts else "does not")
    assert (frontier.diverged > 0) == (conflicts > 0)
    if conflicts:
        assert not frontier.is_complete
        assert frontier.bound is None


@given(trees, st.integers(2, 40), st.integers(0, 3))
def test_the_portfolio_takes_turns_and_stops_when_all_was_run(tree, executions, seed):
    plan = make_search("auto", seed, executions)
    frontier = plan.frontier
    made = 0
    while made < executions and (chooser := plan.search.next()) is not None:
        plan.search.learn(tree.run(chooser))
        made += 1
    leaves = len(tree.list_leaves())
    assert frontier.is_complete == (frontier.taken == leaves)
    assert plan.systematic >= min(executions // 2, leaves)
    assert made == executions or frontier.is_complete


@pytest.mark.parametrize("strategy", ["auto", "dfs", "pct", "pos", "random"])
@given(seed=st.integers(0, 100))
@settings(max_examples=10)
def test_the_same_seed_makes_the_same_executions(strategy, seed):
    runs = []
    for _ in range(2):
        ran = []

        async def program(ran=ran):
            ran.append(await walk([2, 1, 1])())

        explore(program, strategy=strategy, seed=seed, max_executions=30)
        runs.append(ran)
    assert runs[0] == runs[1]
