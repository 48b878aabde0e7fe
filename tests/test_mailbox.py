"""Mailboxes as values, and the queue behind one: what is queued, who waits, what becomes of one message too many."""

from __future__ import annotations

import copy
import math
import pickle

import attrs
import pytest

from stageflow_actors import Mailbox, PipelineValidationError
from stageflow_actors._mailbox import MailQueue, Offer

QUEUED, BLOCKED, REFUSED, DROPPED = Offer.QUEUED, Offer.BLOCKED, Offer.REFUSED, Offer.DROPPED


def fill(max_queued, overflow, messages):
    """Return a queue to which these were offered, and what became of each."""
    queue = MailQueue(Mailbox(max_queued, overflow))
    return queue, [queue.offer(message) for message in messages]


# Options


def test_the_mailbox_that_is_not_asked_for():
    assert Mailbox() == Mailbox(max_queued=64, overflow="wait") == Mailbox(64, "wait")


@pytest.mark.parametrize("value", [Mailbox(), Mailbox(0), Mailbox(None), Mailbox(3, "drop_oldest")])
def test_mailboxes_are_values(value):
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    assert len({value, copy.copy(value)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.max_queued = 1


@pytest.mark.parametrize("overflow", ["wait", "reject", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("max_queued", [0, 1, 10**30])
def test_what_a_mailbox_may_be(max_queued, overflow):
    assert attrs.astuple(Mailbox(max_queued, overflow)) == (max_queued, overflow)


@pytest.mark.parametrize("bad", [-1, True, False, 1.0, "1", math.inf, math.nan, [], -(10**30)])
def test_a_bound_that_is_refused(bad):
    with pytest.raises(PipelineValidationError) as caught:
        Mailbox(max_queued=bad)
    assert str(caught.value) == f"max_queued must be a whole number of at least 0, or None, not {bad!r}"


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        ("rejct", "; did you mean 'reject'?"),
        ("drop", ""),
        ("drop-oldest", "; did you mean 'drop_oldest'?"),
        ("WAIT", ""),
        (None, ""),
        (True, ""),
        ([], ""),
        ({}, ""),
    ],
)
def test_an_overflow_that_is_refused(bad, hint):
    with pytest.raises(PipelineValidationError) as caught:
        Mailbox(overflow=bad)
    assert str(caught.value) == f"overflow must be one of wait, reject, drop_oldest, drop_newest, not {bad!r}{hint}"


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest", "drop_newest"])
def test_a_mailbox_without_a_bound_never_overflows(overflow):
    with pytest.raises(PipelineValidationError) as caught:
        Mailbox(None, overflow)
    assert str(caught.value) == (
        f"overflow={overflow!r} says nothing of a mailbox that is never full; give max_queued, or leave overflow out"
    )


# Offering


@pytest.mark.parametrize("overflow", ["wait", "reject", "drop_oldest", "drop_newest"])
def test_up_to_its_bound_every_mailbox_queues(overflow):
    queue, offers = fill(3, overflow, "abc")
    assert offers == [(QUEUED, None)] * 3
    assert (list(queue), len(queue), queue.blocked) == (["a", "b", "c"], 3, 0)


def test_without_a_bound_it_queues_everything():
    queue, offers = fill(None, "wait", range(1_000))
    assert set(offers) == {(QUEUED, None)}
    assert list(queue) == list(range(1_000))


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_one_too_many_waits(bound):
    queue, offers = fill(bound, "wait", "abcd")
    assert offers == [(QUEUED, None)] * bound + [(BLOCKED, None)] * (4 - bound)
    assert (len(queue), queue.blocked) == (bound, 4 - bound)


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_one_too_many_is_refused(bound):
    queue, offers = fill(bound, "reject", "abcd")
    assert offers == [(QUEUED, None)] * bound + [(REFUSED, None)] * (4 - bound)
    assert (len(queue), queue.blocked) == (bound, 0)


@pytest.mark.parametrize("bound", [0, 1, 2])
def test_one_too_many_is_dropped(bound):
    queue, offers = fill(bound, "drop_newest", "abcd")
    assert offers == [(QUEUED, None)] * bound + [(DROPPED, None)] * (4 - bound)
    assert list(queue) == ["a", "b"][:bound]


@pytest.mark.parametrize(
    ("bound", "offers", "kept"),
    [
        (2, [(QUEUED, None), (QUEUED, None), (QUEUED, "a"), (QUEUED, "b")], ["c", "d"]),
        (1, [(QUEUED, None), (QUEUED, "a"), (QUEUED, "b"), (QUEUED, "c")], ["d"]),
        (0, [(DROPPED, None)] * 4, []),
    ],
)
def test_the_oldest_is_dropped_for_one_too_many(bound, offers, kept):
    queue, made = fill(bound, "drop_oldest", "abcd")
    assert made == offers
    assert list(queue) == kept


def test_messages_are_told_apart_by_identity():
    class Letter:
        def __eq__(self, other):
            return self is other

        def __hash__(self):
            return 1

    first, second = Letter(), Letter()
    queue, _ = fill(2, "wait", [first, second])
    assert queue.withdraw(second)
    assert queue.take() is first


# Taking, and those who wait


def test_messages_are_taken_in_the_order_in_which_they_came():
    queue, _ = fill(2, "wait", "ab")
    assert [queue.take(), queue.take(), queue.take()] == ["a", "b", None]


def test_whoever_waits_is_admitted_in_order_and_only_where_there_is_room():
    queue, _ = fill(2, "wait", "abcd")
    assert queue.admit() is None
    assert queue.take() == "a"
    assert (queue.admit(), queue.admit()) == ("c", None)
    assert list(queue) == ["b", "c"]
    assert queue.blocked == 1


def test_a_newcomer_does_not_overtake_those_who_wait():
    queue, _ = fill(1, "wait", "ab")
    assert queue.take() == "a"
    assert queue.admit() == "b"  # as the actor does whenever a message has left
    assert queue.offer("c") == (BLOCKED, None)


def test_a_mailbox_of_nothing_passes_messages_from_those_who_wait_straight_to_a_worker():
    queue, _ = fill(0, "wait", "ab")
    assert queue.take() is None
    assert queue.admit() is None
    assert [queue.take_blocked(), queue.take_blocked(), queue.take_blocked()] == ["a", "b", None]


def test_nobody_is_taken_past_a_queue():
    queue, _ = fill(1, "wait", "ab")
    assert queue.take_blocked() is None
    empty, _ = fill(0, "wait", "b")
    empty.put_back("a")
    assert empty.take_blocked() is None
    assert [empty.take(), empty.take_blocked()] == ["a", "b"]


# What comes back


def test_what_comes_back_is_first_again():
    queue, _ = fill(3, "wait", "abc")
    taken = [queue.take(), queue.take()]
    for message in reversed(taken):
        queue.put_back(message)
    assert list(queue) == ["a", "b", "c"]
    assert [queue.take() for _ in range(4)] == ["a", "b", "c", None]


def test_what_comes_back_counts_as_queued_and_not_against_the_bound():
    queue, _ = fill(1, "reject", "a")
    queue.put_back("z")
    assert (len(queue), list(queue)) == (2, ["z", "a"])
    assert queue.offer("b") == (REFUSED, None)
    assert queue.take() == "z"
    assert queue.take() == "a"
    queue.put_back("a")
    assert queue.offer("b") == (QUEUED, None)


@pytest.mark.parametrize(("bound", "offer", "kept"), [(0, (DROPPED, None), ["z"]), (1, (QUEUED, "a"), ["z", "b"])])
def test_what_comes_back_is_never_dropped(bound, offer, kept):
    queue, _ = fill(bound, "drop_oldest", "a")
    queue.put_back("z")
    assert queue.offer("b") == offer
    assert list(queue) == kept


# Leaving


@pytest.mark.parametrize(("message", "was_queued"), [("a", True), ("b", True), ("c", False), ("z", True), ("?", False)])
def test_a_message_is_withdrawn_from_wherever_it_waits(message, was_queued):
    queue, _ = fill(2, "wait", "abcd")
    queue.put_back("z")
    assert queue.withdraw(message) is was_queued
    assert not queue.withdraw(message)
    assert [*queue] == [one for one in "zab" if one != message]
    assert queue.blocked == 2 - (message == "c")


def test_a_queue_is_emptied_in_order():
    queue, _ = fill(2, "wait", "abcd")
    queue.put_back("z")
    assert queue.drain() == (("z", "a", "b"), ("c", "d"))
    assert queue.drain() == ((), ())
    assert (len(queue), queue.blocked, queue.take(), queue.take_blocked()) == (0, 0, None, None)
