"""The corpus on asyncio: each bug is there, in an order made by hand, and no twin fails in any of many orders."""

from __future__ import annotations

import asyncio
import random

import pytest
from asyncio_orders import draw, follow, run_in_order

from property_tests.corpus import CORPUS, find
from property_tests.corpus.on_asyncio import PAIRS, OnAsyncio

ORDERS = {
    "lost update": "01",
    "double initialisation": "01",
    "no second look": "001",
    "half built": "01",
    "torn pair": "101",
    "limit checked early": "0101",
    "stale cache": "01",
    "aba": "01",
    "iterator invalidated": "101",
    "stale retry": "01",
    "missed wake-up": "101",
    "condition with if": "002121",
    "one condition for two kinds of waiters": "332",
    "flag cleared after the work": "1001",
    "pending set late": "01",
    "slot of a newcomer": "21201",
    "lock order": "001",
    "two philosophers": "001",
    "three philosophers": "121",
    "send under a lock": "1",
    "two upgrades": "21",
    "double release": "01",
    "hyman": "11001",
    "message order": "010",
    "late delete": "010",
    "two closes": "101",
    "mailbox overflow": "01",
    "two-phase commit": "1t",
    "dropped item": "10t",
    "reply to another": "11t",
    "leaked slot": "0t",
    "wake-up of a cancelled waiter": "0t12",
    "request on a stopped driver": "01",
    "close during use": "101",
    "check-in after close": "01",
    "reset after return": "000110",
    "ask a stopped actor": "2",
    "sentinel unread": "101",
    "result after timeout": "1t",
    "lease ran out": "01t",
    "lock of another": "01t0102",
    "redelivered job": "0t",
    "parent sets late": "1",
    "call before listening": "1",
    "ready too early": "01",
    "wait before add": "12",
    "two restarts": "01",
    "name in use": "101",
    "barrier reused": "010",
    "depth 3": "010",
    "depth 4": "0101",
    "depth 5": "01010",
}
"""The number of the task for each step, `t` for the clock; then each task goes on for as long as it can."""

LEFT_OUT = {"count to infinity", "cancelled cleanup", "stale timer"}


def test_most_of_the_corpus_is_there():
    assert {entry.name for entry in CORPUS} - set(PAIRS) == LEFT_OUT
    assert set(ORDERS) == set(PAIRS)


def test_no_program_is_given_twice():
    programs = [program for pair in PAIRS.values() for program in (pair.bug, pair.twin)]
    assert len(set(programs)) == len(programs)


@pytest.mark.parametrize("name", PAIRS)
def test_a_bug_shows_in_an_order_made_by_hand(name):
    shows = find(name).shows
    assert run_in_order(PAIRS[name].bug, follow(ORDERS[name])) == (
        "hang" if shows in {"deadlock", "lost wake-up"} else shows
    )


@pytest.mark.parametrize("name", PAIRS)
def test_a_bug_does_not_show_when_each_task_goes_on_for_as_long_as_it_can(name):
    assert run_in_order(PAIRS[name].bug, follow("")) == "passed"


@pytest.mark.parametrize("name", PAIRS)
def test_a_twin_passes_in_many_orders(name):
    twin = PAIRS[name].twin
    assert {run_in_order(twin, draw(random.Random(seed))) for seed in range(40)} == {"passed"}


@pytest.mark.parametrize("name", PAIRS)
def test_a_twin_passes_with_the_loop_of_asyncio(name):
    asyncio.run(PAIRS[name].twin.run())


class Counted(OnAsyncio):
    tasks = (("count", 2), "count")

    def __init__(self):
        self.counted = []

    async def count(self, step=1):
        self.counted.append(step)

    def holds(self):
        return self.counted == [2, 1]


def test_tasks_are_told_their_arguments():
    asyncio.run(Counted.run())
    assert run_in_order(Counted, follow("01")) == "passed"


def test_what_must_hold_in_the_end_is_looked_at():
    assert run_in_order(Counted, follow("10")) == "exception"


class Sleeps(OnAsyncio):
    tasks = ("sleep", "work")

    def __init__(self):
        self.worked = False

    async def sleep(self):
        await asyncio.sleep(5)
        assert self.worked

    async def work(self):
        self.worked = True


@pytest.mark.parametrize(("order", "end"), [("", "passed"), ("01", "passed"), ("0t0", "exception")])
def test_the_clock_jumps_when_it_is_told_to_or_nothing_else_goes_on(order, end):
    assert run_in_order(Sleeps, follow(order)) == end


def test_an_order_in_which_a_task_cannot_go_on_is_refused():
    with pytest.raises(AssertionError, match=r"task 0 cannot go on, only \[1\]"):
        run_in_order(Sleeps, follow("00"))
