"""In any window of T seconds at most `burst + T * count / per` tokens are spent, and none is withheld."""

from __future__ import annotations

import math

from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors._limits import Rate, TokenBucket

seconds = st.floats(1e-3, 1e3, allow_nan=False)
rates = st.builds(Rate, st.integers(1, 1_000), seconds, st.one_of(st.none(), st.integers(1, 50)))
# Where every time and level is a sum of a few powers of two, floats are exact, and so is the model.
exact_rates = st.builds(Rate, st.sampled_from([1, 2, 4, 8]), st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 6))
ACTIONS = st.sampled_from(["reserve", "reserve", "spend", "refund", "rebase"])
ACTS = st.sampled_from(["token", "token", "token", "reserve", "spend", "spend", "spend", "refund"])
exact_times = st.integers(0, 64).map(lambda number: number / 16)


class Model:
    """The bucket as the textbook has it: a level that is filled up at every look."""

    def __init__(self, rate, now):
        self.rate = rate
        self.level = float(rate.burst)
        self.reserved = 0
        self.seen = now

    def fill(self, now):
        self.level = min(self.rate.burst, self.level + (now - self.seen) * self.rate.count / self.rate.per)
        self.seen = now

    def reserve(self, now):
        self.fill(now)
        if self.level - self.reserved < 1:
            return False
        self.reserved += 1
        return True

    def spend(self, now):
        self.fill(now)
        self.level -= 1
        self.reserved -= 1

    def next_at(self, now):
        self.fill(now)
        missing = self.reserved + 1 - self.level
        if self.reserved + 1 > self.rate.burst:
            return math.inf
        return now + max(0.0, missing) * self.rate.per / self.rate.count


@given(
    rate=exact_rates,
    origin=st.sampled_from([0.0, 1024.0]),
    steps=st.lists(st.tuples(ACTIONS, exact_times), max_size=60),
)
def test_it_does_what_the_textbook_says(rate, origin, steps):
    now = origin
    bucket, model = TokenBucket(rate, now), Model(rate, now)
    for action, wait in steps:
        now += wait
        assert bucket.next_at(now) == model.next_at(now)
        if action == "reserve":
            assert bucket.reserve(now) == model.reserve(now)
        elif action == "rebase":
            now = 512.0
            bucket.rebase(now)
            model.seen, model.reserved = now, 0
        elif model.reserved:
            getattr(bucket, action)(now)
            if action == "spend":
                model.spend(now)
            else:
                model.reserved -= 1


@given(
    rate=rates,
    origin=st.sampled_from([0.0, 0.1, 1e5 + 0.3, 3e7]),
    steps=st.lists(st.tuples(ACTS, st.floats(0, 3)), min_size=20, max_size=80),
)
def test_no_window_sees_more_than_the_bound(rate, origin, steps):
    """However long reservations are held, however the times round. `token` waits for the next one and takes it."""
    now = origin
    bucket = TokenBucket(rate, now)
    reserved = 0
    spent = []
    for action, wait in steps:
        now += wait * rate.per / rate.count
        if action == "token" and bucket.next_at(now) < math.inf:
            now = bucket.next_at(now)
            assert bucket.reserve(now)  # or whoever sleeps until then would sleep in a busy loop
            reserved += 1
        elif action == "reserve":
            reserved += bucket.reserve(now)
        elif reserved and action in {"spend", "refund"}:
            reserved -= 1
            getattr(bucket, action)(now)
            if action == "spend":
                spent.append(now)
        assert 0 <= reserved <= rate.burst
    event(f"spent: {min(len(spent) // 10 * 10, 30)}")
    # What a time near 3e7 cannot express is 4e-9 s.
    blur = 1e-8 * rate.count / rate.per + 1e-6
    for first, begin in enumerate(spent):
        for last, end in enumerate(spent[first:], first):
            assert last - first + 1 <= rate.burst + (end - begin) * rate.count / rate.per + blur


@given(rate=rates, origin=st.floats(0, 1e6), number=st.integers(1, 300))
def test_whoever_takes_each_token_as_it_comes_gets_the_whole_rate(rate, origin, number):
    now = origin
    bucket = TokenBucket(rate, now)
    for _ in range(rate.burst + number):
        now = bucket.next_at(now)
        assert bucket.reserve(now)
        bucket.spend(now)
    expected = number * rate.per / rate.count
    assert math.isclose(now - origin, expected, rel_tol=1e-9, abs_tol=1e-9)


@given(rate=rates, origin=st.floats(0, 1e6), taken=st.integers(1, 60))
def test_no_token_before_its_time(rate, origin, taken):
    bucket = TokenBucket(rate, origin)
    for _ in range(taken):
        if not bucket.reserve(origin):
            break
        bucket.spend(origin)
    at = bucket.next_at(origin)
    if at > origin:
        assert not bucket.reserve(math.nextafter(at, -math.inf))
    assert bucket.reserve(at)
