"""The tokens of a limiter, and the task that waits for them."""

from __future__ import annotations

import contextvars

import pytest
import trio
import trio.lowlevel
import trio.testing
from limiter_desk import Desk, held

from stageflow_actors._limiter import Limiter
from stageflow_actors._limits import Rate
from stageflow_actors.errors import OverloadedError


@pytest.fixture
def desk():
    return Desk()


# Rates


async def test_tokens_are_waited_for(desk, autojump_clock):
    limiter = Limiter(10, rate=Rate(2, per=1.0))
    times = []

    def note(ticket):
        ticket.start()
        times.append(trio.current_time())

    desk.on_admitted = note
    for number in range(7):
        ticket = desk.request(number, limiter)
        if not ticket.is_waiting:
            note(ticket)
    await trio.sleep(100)
    assert times == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert held(limiter) == (7, 0)


async def test_a_token_unspent_goes_back_at_once(desk, mock_clock):
    limiter = Limiter(10, rate=Rate(1))
    first = desk.request("a", limiter)
    desk.request("b", limiter)
    first.release()
    assert desk.admissions == ["a", "b"]
    assert held(limiter) == (1, 0)


async def test_a_spent_token_does_not(desk, autojump_clock):
    limiter = Limiter(10, rate=Rate(1))
    first = desk.request("a", limiter)
    desk.request("b", limiter)
    first.start()
    first.start()
    first.release()
    assert desk.admissions == ["a"]
    assert held(limiter) == (0, 1)
    await trio.sleep(1)
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["a", "b"]


async def test_each_request_of_a_ticket_reserves_a_token_of_its_own(desk, mock_clock):
    limiter = Limiter(10, rate=Rate(2))
    ticket = desk.request("a", limiter)
    ticket.start()
    ticket.release()
    assert ticket.request()
    desk.request("b", limiter)
    ticket.release()  # not started this time
    assert desk.admissions == ["a", "b"]
    assert ticket.request() is False


async def test_a_block_spends_its_token_on_entry(autojump_clock):
    limiter = Limiter(10, rate=Rate(1, per=2.0))
    times = []
    for _ in range(3):
        async with limiter.slot():
            times.append(trio.current_time())
    assert times == [0.0, 2.0, 4.0]


async def test_a_token_held_back_brings_no_second_burst(desk, autojump_clock):
    limiter = Limiter(10, rate=Rate(2))
    tickets = [desk.request(number, limiter) for number in range(6)]
    await trio.sleep(100)
    assert desk.admissions == [0, 1]
    tickets[0].start()
    tickets[1].start()
    assert desk.admissions == [0, 1]
    await trio.sleep(0.75)
    assert desk.admissions == [0, 1, 2]


async def test_the_task_that_waits_for_a_token_exists_only_while_needed(desk, mock_clock):
    def tasks():
        return trio.lowlevel.current_statistics().tasks_living

    limiter = Limiter(1, rate=Rate(1))
    before = tasks()
    first = desk.request("a", limiter)
    first.start()
    second = desk.request("b", limiter)
    assert tasks() == before  # a slot is missing too
    first.release()
    assert tasks() == before + 1
    second.release()
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before
    second.request()
    third = desk.request("c", limiter)
    assert tasks() == before + 1
    mock_clock.jump(1)
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["a", "b"]
    assert tasks() == before
    third.release()


async def test_a_token_that_has_come_belongs_to_one_that_waited(desk, mock_clock):
    limiter = Limiter(10, max_queued=1, overflow="reject", rate=Rate(1))
    desk.request("a", limiter).start()
    desk.request("b", limiter)
    mock_clock.jump(1)
    desk.request("c", limiter, priority=9)
    assert desk.admissions == ["a"]  # b has its slot, and is told outside of the request
    assert held(limiter) == (2, 1)
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["a", "b"]


async def test_the_error_of_a_limiter_with_a_rate_says_so(desk, mock_clock):
    limiter = Limiter(10, overflow="reject", rate=Rate(1, per=0.5))
    desk.request("a", limiter)
    with pytest.raises(OverloadedError) as caught:
        desk.request("b", limiter)
    assert caught.value.problem == (
        "limiter of 10 is full: 1 running at a rate of 1 per 0.5 s, 0 of max_queued=0 queued"
    )


def test_the_next_run_finds_the_level_of_the_one_before_and_no_credit_for_the_gap(desk):
    limiter = Limiter(10, rate=Rate(4))

    async def spend():
        for number in range(3):
            desk.request(number, limiter).start()
        trio.lowlevel.current_clock().jump(0.25)
        desk.request(3, limiter)  # held back: it goes back to the bucket

    async def count():
        for number in range(10, 15):
            desk.request(number, limiter)

    trio.run(spend, clock=trio.testing.MockClock())
    clock = trio.testing.MockClock()
    clock.jump(1_000_000)
    trio.run(count, clock=clock)
    assert desk.admissions == [0, 1, 2, 3, 10, 11]
    assert held(limiter) == (2, 3)


async def test_its_task_has_a_context_of_its_own(desk, autojump_clock):
    variable = contextvars.ContextVar("variable", default="none")
    limiter = Limiter(10, rate=Rate(1))
    seen = []
    desk.on_admitted = lambda ticket: seen.append(variable.get())
    variable.set("the requester's")
    desk.request("a", limiter).start()
    desk.request("b", limiter)
    await trio.sleep(2)
    assert seen == ["none"]
