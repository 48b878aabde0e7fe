"""The limiter: slots and places, and who is called back when."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
import trio.testing
from limiter_desk import Desk, held

from stageflow_actors._limiter import Limiter, LimiterStatistics
from stageflow_actors._limits import Rate
from stageflow_actors._tickets import Ticket
from stageflow_actors.errors import OverloadedError


@pytest.fixture
def desk():
    return Desk()


# Slots


async def test_as_many_as_it_says_and_then_in_the_order_of_arrival(desk):
    limiter = Limiter(2)
    tickets = {what: desk.request(what, limiter) for what in "abcd"}
    assert desk.admissions == ["a", "b"]
    tickets["b"].release()
    assert desk.admissions == ["a", "b", "c"]
    tickets["a"].release()
    tickets["c"].release()
    assert desk.admissions == ["a", "b", "c", "d"]
    tickets["d"].release()
    assert held(limiter) == (0, 0)


async def test_a_more_urgent_one_comes_first_and_a_newcomer_never_before_one_that_waits(desk):
    limiter = Limiter(1)
    first = desk.request("first", limiter)
    desk.request("low", limiter)
    desk.request("high", limiter, priority=3)
    first.release()
    desk.request("late", limiter)
    assert desk.admissions == ["first", "high"]
    assert held(limiter) == (1, 2)


async def test_whoever_has_waited_long_enough_is_as_urgent(desk, mock_clock):
    limiter = Limiter(1, aging=10.0)
    first = desk.request("first", limiter)
    low = desk.request("low", limiter)
    mock_clock.jump(10.0)
    high = desk.request("high", limiter, priority=1)
    desk.request("higher", limiter, priority=2)
    for ticket in (first, low, high):
        desk.admissions.clear()
        ticket.release()
    first.release()
    assert desk.admissions == []
    assert held(limiter) == (1, 0)


async def test_releasing_is_idempotent_and_withdraws(desk):
    limiter = Limiter(1)
    first, second, third = (desk.request(what, limiter) for what in "abc")
    second.release()
    second.release()
    assert held(limiter) == (1, 1)
    first.release()
    first.release()
    assert desk.admissions == ["a", "c"]
    third.release()
    assert held(limiter) == (0, 0)


async def test_a_ticket_can_be_requested_again_after_its_release_only(desk):
    limiter = Limiter(1)
    ticket = desk.request("a", limiter)
    waiting = desk.request("b", limiter)
    assert not ticket.is_waiting
    assert waiting.is_waiting
    for each in (ticket, waiting):
        with pytest.raises(RuntimeError, match="requested again only after its release"):
            each.request()
    ticket.release()
    assert not waiting.is_waiting
    assert not ticket.request()
    waiting.release()
    assert desk.admissions == ["a", "b", "a"]


async def test_a_ticket_without_a_limiter_is_admitted(desk):
    assert desk.ticket("free").request()


# Two limiters


async def test_it_waits_for_one_limiter_after_the_other(desk):
    own, shared = Limiter(1), Limiter(1)
    blocker = desk.request("blocker", shared)
    first = desk.request("first", own, shared)
    second = desk.request("second", own, shared)
    assert (held(own), held(shared)) == ((1, 1), (1, 1))
    blocker.release()
    assert desk.admissions == ["blocker", "first"]
    first.release()
    assert desk.admissions == ["blocker", "first", "second"]
    second.release()
    assert (held(own), held(shared)) == ((0, 0), (0, 0))


async def test_withdrawing_gives_back_what_the_first_limiter_has_given(desk):
    own, shared = Limiter(1), Limiter(1)
    desk.request("blocker", shared)
    first = desk.request("first", own, shared)
    desk.request("second", own, shared)
    first.release()
    assert (held(own), held(shared)) == ((1, 0), (1, 1))


async def test_a_refusal_by_the_second_limiter_leaves_nothing_held_by_the_first(desk):
    own, shared = Limiter(1), Limiter(1, overflow="reject")
    desk.request("blocker", shared)
    ticket = desk.ticket("refused", own, shared)
    with pytest.raises(OverloadedError):
        ticket.request()
    assert held(own) == (0, 0)
    assert not ticket.is_waiting


async def test_a_refusal_after_waiting_comes_from_the_loop(desk):
    own, shared = Limiter(1), Limiter(1, overflow="reject")
    blocker = desk.request("blocker", own)
    waiting = desk.request("waiting", own, shared)
    desk.request("taker", shared)
    blocker.release()
    assert desk.refusals == []
    assert waiting.is_waiting
    await trio.testing.wait_all_tasks_blocked()
    assert [what for what, _ in desk.refusals] == ["waiting"]
    assert held(own) == (0, 0)


async def test_one_dropped_by_the_second_limiter_gives_back_the_first_at_once(desk):
    """Whom that admits is told from the loop, for it happens inside of a request."""
    own, shared = Limiter(1), Limiter(1, max_queued=1, overflow="drop_oldest")
    desk.request("blocker", shared)
    desk.request("dropped", own, shared)
    desk.request("next", own)
    desk.request("newcomer", shared)
    assert held(own) == (1, 0)
    assert desk.admissions == ["blocker"]
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["blocker", "next"]
    assert [what for what, _ in desk.refusals] == ["dropped"]


async def test_one_withdrawn_by_a_callback_that_its_refusal_brought_about_is_not_told(desk):
    own, shared = Limiter(1), Limiter(1, overflow="reject")
    first = desk.request("first", own)
    refused = desk.request("refused", own, shared)
    desk.request("next", own)
    desk.request("blocker", shared)
    desk.on_admitted = lambda ticket: refused.release()
    first.release()
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["first", "blocker", "next"]
    assert desk.refusals == []


async def test_the_next_of_the_first_limiter_finds_the_second_one_free(desk):
    own, shared = Limiter(1), Limiter(1, overflow="reject")
    first = desk.request("first", own, shared)
    second = desk.request("second", own, shared)
    first.release()
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["first", "second"]
    assert desk.refusals == []
    second.release()


# Callbacks that request and release


async def test_ten_thousand_in_a_row_do_not_recurse(desk):
    limiter = Limiter(1)
    first = desk.request("first", limiter)
    for number in range(10_000):
        desk.request(number, limiter)
    desk.on_admitted = Ticket.release
    first.release()
    assert desk.admissions == ["first", *range(10_000)]
    assert held(limiter) == (0, 0)


async def test_ten_thousand_in_a_row_through_two_limiters_do_not_recurse(desk):
    own, shared = Limiter(1), Limiter(1)
    first = desk.request("first", own, shared)
    for number in range(10_000):
        desk.request(number, own, shared)
    desk.on_admitted = Ticket.release
    first.release()
    assert len(desk.admissions) == 10_001
    assert (held(own), held(shared)) == ((0, 0), (0, 0))


async def test_the_books_are_right_inside_a_callback(desk):
    limiter = Limiter(2)
    tickets = [desk.request(number, limiter) for number in range(6)]
    seen = []

    def look(ticket):
        seen.append((ticket.what, held(limiter)))
        if ticket.what == 2:
            tickets[1].release()  # admits 3, which is told after this
            seen.append(("inside", held(limiter)))
            tickets[3].release()  # before it was told: it never is, and 4 is
            seen.append(("inside", held(limiter)))

    desk.on_admitted = look
    tickets[0].release()
    assert seen == [(2, (2, 3)), ("inside", (2, 2)), ("inside", (2, 1)), (4, (2, 1))]
    assert desk.admissions == [0, 1, 2, 4]


async def test_one_withdrawn_before_it_was_told_can_be_requested_again(desk):
    limiter = Limiter(2)
    tickets = [desk.request(number, limiter) for number in range(4)]

    def again(ticket):
        if ticket.what == 2 and desk.admissions.count(2) == 1:
            tickets[1].release()
            tickets[3].release()
            assert tickets[3].request()

    desk.on_admitted = again
    tickets[0].release()
    assert desk.admissions == [0, 1, 2]
    assert held(limiter) == (2, 0)


@pytest.mark.parametrize("rate", [None, Rate(10)])
async def test_a_callback_that_raises_hides_no_other(desk, rate):
    limiter = Limiter(2, rate=rate)
    tickets = [desk.request(number, limiter) for number in range(4)]

    def fail(ticket):
        desk.on_admitted = lambda ticket: None
        tickets[1].release()
        raise ValueError(ticket.what)

    desk.on_admitted = fail
    with pytest.raises(ValueError, match="2"):
        tickets[0].release()
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == [0, 1, 2, 3]


# Overflow


@pytest.mark.parametrize(("overflow", "rejected", "dropped"), [("reject", 1, 0), ("drop_newest", 0, 1)])
async def test_a_newcomer_is_refused(desk, overflow, rejected, dropped):
    limiter = Limiter(1, max_queued=1, overflow=overflow)
    first = desk.request("a", limiter)
    desk.request("b", limiter)
    with pytest.raises(OverloadedError) as caught:
        desk.request("c", limiter)
    assert str(caught.value) == (
        "limiter of 1 is full: 1 running, 1 of max_queued=1 queued; raise max_queued, or take overflow='wait'"
    )
    assert (caught.value.limit, caught.value.max_queued) == (1, 1)
    assert limiter.statistics() == LimiterStatistics(1, 1, 1, 1, rejected, dropped)
    first.release()
    assert desk.admissions == ["a", "b"]


@pytest.mark.parametrize("overflow", ["reject", "drop_newest", "drop_oldest"])
@pytest.mark.parametrize("max_queued", [None, 0])
async def test_without_a_queue_the_newcomer_is_refused(desk, overflow, max_queued):
    limiter = Limiter(1, max_queued=max_queued, overflow=overflow)
    desk.request("a", limiter)
    with pytest.raises(OverloadedError, match="1 running, 0 of max_queued=0 queued"):
        desk.request("b", limiter)
    assert held(limiter) == (1, 0)


async def test_the_one_that_has_waited_longest_is_dropped(desk):
    limiter = Limiter(1, max_queued=2, overflow="drop_oldest")
    first = desk.request("a", limiter)
    oldest = desk.request("urgent", limiter, priority=9)
    desk.request("b", limiter)
    desk.request("c", limiter)
    assert desk.refusals == []
    assert oldest.is_waiting
    await trio.testing.wait_all_tasks_blocked()
    [(what, error)] = desk.refusals
    assert what == "urgent"
    assert error.problem == (
        "limiter of 1 is full: 1 running, 2 of max_queued=2 queued, and this one had waited longest"
    )
    assert not oldest.is_waiting
    assert limiter.statistics() == LimiterStatistics(1, 1, 2, 1, 0, 1)
    first.release()
    assert desk.admissions == ["a", "b"]


async def test_one_withdrawn_after_it_was_dropped_is_not_told(desk):
    limiter = Limiter(1, max_queued=1, overflow="drop_oldest")
    desk.request("a", limiter)
    oldest = desk.request("b", limiter)
    desk.request("c", limiter)
    oldest.release()
    oldest.request()
    await trio.testing.wait_all_tasks_blocked()
    assert [what for what, _ in desk.refusals] == ["c"]


async def test_with_wait_more_than_may_queue_wait_before_the_queue(desk):
    limiter = Limiter(1, max_queued=2)
    tickets = [desk.request(number, limiter, priority=number) for number in range(5)]
    assert held(limiter) == (1, 4)
    tickets[3].release()
    for number in (0, 2, 4, 1):  # 4 moved in when 2 moved out
        tickets[number].release()
    assert desk.admissions == [0, 2, 4, 1]
    assert held(limiter) == (0, 0)
