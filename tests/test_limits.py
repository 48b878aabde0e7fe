"""Rates, token buckets and waiting queues, as plain calls."""

from __future__ import annotations

import copy
import math
import pickle
import weakref

import attrs
import pytest

from stageflow_actors._limiter import Limiter
from stageflow_actors._limits import (
    ITEM,
    LimiterBase,
    Rate,
    TokenBucket,
    WaitQueue,
    require_max_queued,
    require_overflow,
    require_priority,
)
from stageflow_actors.errors import PipelineValidationError

# Rates


def test_a_rate_bursts_by_its_count_unless_told():
    assert Rate(100).burst == 100
    assert Rate(100, burst=1).burst == 1
    assert Rate(100, 60.0, 5) == Rate(count=100, per=60.0, burst=5)
    assert str(Rate(1_000, per=0.5)) == "1,000 per 0.5 s"
    assert repr(Rate(3)) == "Rate(count=3, per=1.0, burst=3)"


def test_a_rate_is_a_frozen_value():
    rate = Rate(3, per=2.0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        rate.count = 4
    assert hash(rate) == hash(Rate(3, per=2.0))
    assert pickle.loads(pickle.dumps(rate)) == copy.deepcopy(rate) == rate
    assert attrs.evolve(rate, per=5.0) == Rate(3, per=5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "the count of a rate must be a whole number of at least 1, not 0"),
        ({"count": 1.5}, "the count of a rate must be a whole number of at least 1, not 1.5"),
        ({"count": True}, "the count of a rate must be a whole number of at least 1, not True"),
        (
            {"count": 10**12 + 1},
            "the count of a rate must be at most 1,000,000,000,000, not 1000000000001; leave the rate out for no limit",
        ),
        ({"per": 0}, "the per of a rate must be a positive number of seconds, not 0"),
        ({"per": math.nan}, "the per of a rate must be a positive number of seconds, not nan"),
        ({"burst": 0}, "the burst of a rate must be a whole number of at least 1, not 0"),
        ({"burst": "3"}, "the burst of a rate must be a whole number of at least 1, not '3'"),
    ],
)
def test_a_rate_that_cannot_be_used(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Rate(**{"count": 1, **options})
    assert str(caught.value) == message


# Token buckets


def take(bucket, now):
    """Reserve and spend as many tokens as there are."""
    taken = 0
    while bucket.reserve(now):
        bucket.spend(now)
        taken += 1
    return taken


def test_a_bucket_is_full_at_first_and_fills_up_to_its_burst():
    bucket = TokenBucket(Rate(10, per=2.0, burst=4), 100.0)
    assert take(bucket, 100.0) == 4
    assert take(bucket, 100.1) == 0
    assert take(bucket, 100.5) == 2
    assert take(bucket, 1e6) == 4
    assert take(bucket, 1e6) == 0


def test_a_reserved_token_is_not_there_for_others_and_a_refund_is():
    bucket = TokenBucket(Rate(1), 0.0)
    assert bucket.reserve(0.0)
    assert not bucket.reserve(0.0)
    bucket.refund(0.0)
    assert bucket.reserve(0.0)


def test_a_reservation_held_for_long_brings_no_second_burst():
    bucket = TokenBucket(Rate(2), 0.0)
    assert bucket.reserve(0.0)
    assert bucket.reserve(0.0)
    assert not bucket.reserve(50.0)
    assert bucket.next_at(50.0) == math.inf
    bucket.spend(50.0)
    bucket.spend(50.0)
    assert not bucket.reserve(50.0)
    assert bucket.next_at(50.0) == 50.5


def test_next_at_is_now_where_there_is_a_token():
    bucket = TokenBucket(Rate(2), 5.0)
    assert bucket.next_at(7.0) == 7.0
    assert take(bucket, 7.0) == 2
    assert bucket.next_at(7.0) == 7.5
    assert bucket.next_at(7.25) == 7.5


def test_a_million_tokens_do_not_drift():
    """Each one comes at its time to the last bit that floats have there, not at a sum of rounded intervals."""
    bucket = TokenBucket(Rate(3, burst=1), 0.1)
    now = 0.1
    for number in range(1_000):
        assert bucket.reserve(now)
        bucket.spend(now)
        now = bucket.next_at(now)
        assert not bucket.reserve(math.nextafter(now, 0.0))
        assert now == pytest.approx(0.1 + (number + 1) / 3, rel=1e-13)


def test_another_clock_changes_nothing_about_the_level():
    bucket = TokenBucket(Rate(4), 0.0)
    assert take(bucket, 0.0) == 4
    assert not bucket.reserve(0.125)
    bucket.rebase(1e6)
    assert bucket.next_at(1e6) == 1e6 + 0.125
    assert bucket.reserve(1e6 + 0.125)
    bucket.rebase(-7.0)
    assert bucket.reserve(-7.0)  # what was reserved is given back
    assert not bucket.reserve(-7.0)


# The order of waiting


def names(queue):
    """Take out everything, in order."""
    return [queue.pop()[ITEM] for _ in range(queue.size)]


def fill(queue, *arrivals):
    """Queue names with their priorities and times; return their places."""
    return {name: queue.add(name, priority, now) for name, priority, now in arrivals}


def test_equal_ones_in_the_order_of_arrival():
    queue = WaitQueue(None, "wait", 10.0)
    fill(queue, ("a", 0, 5.0), ("b", 0, 5.0), ("c", 0, 5.0), ("d", 0, 6.0))
    assert names(queue) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("later", "first"), [(9.9, "urgent"), (10.0, "early"), (10.1, "early")])
def test_overtaken_by_those_of_one_priority_more_for_the_time_of_aging(later, first):
    """At exactly that time they are equal, and the order of arrival counts."""
    queue = WaitQueue(None, "wait", 10.0)
    fill(queue, ("early", 0, 0.0), ("urgent", 1, later))
    assert names(queue)[0] == first


def test_negative_priorities_come_later():
    queue = WaitQueue(None, "wait", 10.0)
    fill(queue, ("low", -1, 0.0), ("normal", 0, 9.0), ("high", 2, 9.0), ("late", 0, 11.0))
    assert names(queue) == ["high", "normal", "low", "late"]


def test_withdrawn_ones_leave_at_once_and_are_kept_by_nothing():
    class Waiter:
        pass

    queue = WaitQueue(None, "wait", 10.0)
    kept = queue.add("kept", 0, 0.0)
    for position in range(100):
        waiter = Waiter()
        link = weakref.ref(waiter)
        place = queue.add(waiter, position % 3, 1.0)
        assert queue.discard(place)
        assert not queue.discard(place)
        del waiter
        assert link() is None
    assert queue.size == 1
    assert len(queue._heap) + len(queue._run) <= 2
    assert queue.pop() is kept
    assert not queue.discard(kept)


def test_the_oldest_is_dropped_whatever_its_priority():
    queue = WaitQueue(3, "drop_oldest", 10.0)
    places = fill(queue, ("a", 0, 0.0), ("b", 9, 1.0), ("c", 0, 2.0))
    assert queue.size == queue.bound == 3
    queue.discard(places["a"])
    assert queue.drop_oldest() == "b"
    assert names(queue) == ["c"]
    assert queue.drop_oldest() is None


@pytest.mark.parametrize("overflow", ["wait", "reject", "drop_newest"])
def test_no_other_policy_drops_one_that_waits(overflow):
    queue = WaitQueue(1, overflow, 10.0)
    fill(queue, ("a", 0, 0.0))
    assert queue.drop_oldest() is None
    assert queue.size == 1


def test_without_a_bound_any_number_waits_and_with_another_policy_none():
    assert WaitQueue(None, "wait", 10.0).bound == WaitQueue(5, "wait", 10.0).bound == math.inf
    assert WaitQueue(None, "reject", 10.0).bound == WaitQueue(0, "drop_newest", 10.0).bound == 0


def test_before_a_full_queue_they_wait_in_the_order_of_arrival():
    queue = WaitQueue(2, "wait", 10.0)
    places = fill(queue, *((str(number), number, float(number)) for number in range(7)))
    queue.discard(places["4"])  # before the queue
    queue.discard(places["0"])  # in it: 2 moves in
    assert queue.size == 5
    assert names(queue) == ["2", "3", "5", "6", "1"]


@pytest.mark.parametrize("max_queued", [0, 1])
def test_before_a_queue_of_hardly_anything_it_is_the_order_of_arrival(max_queued):
    queue = WaitQueue(max_queued, "wait", 10.0)
    fill(queue, ("a", 0, 0.0), ("b", 1, 0.0), ("c", 2, 0.0))
    assert names(queue) == ["a", "b", "c"]


# Arguments


def test_what_the_checks_let_pass():
    assert require_priority(-(10**12)) == -(10**12)
    assert require_max_queued(None) is None
    assert require_max_queued(0) == 0
    assert require_overflow("drop_newest") == "drop_newest"


def test_a_priority_that_floats_do_not_carry():
    with pytest.raises(PipelineValidationError) as caught:
        require_priority(10**12 + 1, pipeline="p", stage="s")
    assert str(caught.value) == (
        "pipeline 'p', stage 's': priority must be a whole number, not 1000000000001; "
        "it lies between -1,000,000,000,000 and 1,000,000,000,000"
    )


def test_the_hint_of_an_overflow_far_from_all_names_none():
    with pytest.raises(PipelineValidationError) as caught:
        require_overflow("explode")
    assert str(caught.value) == "overflow must be one of wait, reject, drop_oldest, drop_newest, not 'explode'"


def test_a_definition_knows_a_limiter_by_its_base():
    limiter = Limiter(3)
    assert isinstance(limiter, LimiterBase)
    assert limiter.max_concurrency == 3
