"""Small programs that the tests of the race toolkit share, and what they do with them."""

from __future__ import annotations

import trio
from trio.lowlevel import checkpoint

from stageflow_actors.errors import InjectedError
from stageflow_actors.testing import explore

EVERY = 5_000
"""Executions: more than any program has of which every schedule is run here."""


def explore_all(program, **options):
    """Return the report of every schedule of a program that does not fail under any."""
    report = explore(program, strategy="dfs", max_executions=EVERY, **options)
    report.raise_for_failure()
    assert report.complete, report
    return report


def collect(program, **options):
    """Return what a program returns under each of its schedules."""
    returned = []

    async def collecting():
        returned.append(await program())

    explore_all(collecting, **options)
    return returned


def find(program, **options):
    """Return the failure of a program that has one."""
    report = explore(program, **options)
    assert report.failure is not None, report
    return report.failure


def waits(failure):
    """Return who waits for what, and for whom."""
    return {waiting.task: (waiting.awaits, waiting.holders) for waiting in failure.waiting}


async def side_by_side(*tasks):
    """Run async functions in a nursery, under the names that they have."""
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task, name=task.__name__)


async def queue_up(tasks=2):
    """Run tasks of two steps each, of which every order can be told from every other."""
    steps = []

    async def step(number):
        steps.append(number)
        await checkpoint()
        steps.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(tasks):
            nursery.start_soon(step, number)


async def leak_a_cancellation():
    """Raise a Cancelled outside of the scope that it belongs to."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except trio.Cancelled as error:
            kept = error
    raise kept


def lose_an_update():
    """Return a program in which two tasks read, wait, and write; it fails if they meet."""

    async def update():
        value = 0

        async def add():
            nonlocal value
            seen = value
            await checkpoint()
            value = seen + 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, name="one")
            nursery.start_soon(add, name="two")
        if value != 2:
            raise AssertionError(f"{value} instead of 2")

    return update


def lock_both():
    """Return a program in which two tasks take two locks, each the other one first."""

    async def lock():
        left, right = trio.Lock(), trio.Lock()

        async def work(first, second):
            async with first, second:
                await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, left, right, name="one")
            nursery.start_soon(work, right, left, name="two")

    return lock


class Ledger:
    """What tasks have done in the execution that ran last, and in all of them."""

    def __init__(self):
        self.done = []
        self.all = []

    def begin(self):
        self.done = []
        self.all.append(self.done)


async def work(ledger, points=3):
    """Come to so many points, and note what each gave."""
    for number in range(points):
        try:
            await checkpoint()
        except InjectedError:
            ledger.done.append((number, "crashed"))
        except trio.Cancelled:
            ledger.done.append((number, "cancelled"))
            raise
        else:
            ledger.done.append((number, trio.current_time()))


def working(ledger, points=3):
    async def worker():
        await work(ledger, points)

    async def program():
        ledger.begin()
        await side_by_side(worker)

    return program


async def working_alone():
    async def worker():
        await checkpoint()

    await side_by_side(worker)
