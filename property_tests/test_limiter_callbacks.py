"""Whoever is called back may request and release what it likes: the books stay right, and nobody is forgotten."""

from __future__ import annotations

from collections import Counter

import attrs
import trio
import trio.lowlevel
import trio.testing
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors._tickets import Ticket
from stageflow_actors.errors import OverloadedError

from .limit_model import POLICIES, Options


@attrs.frozen
class Plan:
    """What a ticket does when it is admitted: nothing, or release some, itself perhaps, or request others."""

    limiters: tuple[int, ...]
    priority: int
    releases: tuple[int, ...]
    requests: tuple[int, ...]


plans = st.lists(
    st.builds(
        Plan,
        st.sampled_from([(0,), (1,), (0, 1)]),
        st.integers(-2, 2),
        st.lists(st.integers(0, 19), max_size=3).map(tuple),
        st.lists(st.integers(0, 19), max_size=2).map(tuple),
    ),
    min_size=20,
    max_size=20,
)


class Tangle:
    """Tickets whose claimant releases and requests others, and themselves, while it is called."""

    def __init__(self, limiters, plans):
        self.limiters = limiters
        self.plans = plans
        self.tickets = [
            Ticket(self, number, tuple(limiters[index] for index in plan.limiters), plan.priority)
            for number, plan in enumerate(plans)
        ]
        self.holding = set()
        self.waiting = set()
        self.requests = 0
        self.answers = Counter()

    def admitted(self, ticket):
        self.waiting.remove(ticket.what)  # or it is told twice, or after its release
        self.accept(ticket.what)

    def refused(self, ticket, error):
        self.waiting.remove(ticket.what)
        self.answers["dropped"] += 1

    def accept(self, number):
        self.answers["admitted"] += 1
        self.holding.add(number)
        self.check()
        for other in self.plans[number].releases:
            self.release(other)
        for other in self.plans[number].requests:
            self.request(other)
        self.check()

    def request(self, number):
        if number in self.holding | self.waiting or self.requests >= 100:
            return
        self.requests += 1
        self.waiting.add(number)
        try:
            admitted = self.tickets[number].request()
        except OverloadedError:
            self.waiting.remove(number)
            self.answers["refused"] += 1
        else:
            if admitted:
                self.waiting.remove(number)
                self.accept(number)

    def release(self, number):
        self.answers["withdrawn"] += number in self.waiting
        self.waiting.discard(number)
        self.holding.discard(number)
        self.tickets[number].release()

    def check(self):
        for index, limiter in enumerate(self.limiters):
            statistics = limiter.statistics()
            users = sum(index in self.plans[number].limiters for number in self.holding)
            assert users <= statistics.running <= statistics.max_concurrency
            assert not statistics.queued or statistics.running == statistics.max_concurrency


async def entangle(limiters, plans, steps):
    tangle = Tangle(limiters, plans)
    for action, number in steps:
        if action == "rest":
            await trio.testing.wait_all_tasks_blocked()
        else:
            getattr(tangle, action)(number)
        tangle.check()
    await trio.testing.wait_all_tasks_blocked()
    event(f"requests: {min(tangle.requests // 10 * 10, 30)}")
    assert tangle.requests == tangle.answers.total() + len(tangle.waiting)
    while tangle.holding:  # nobody is forgotten: all that wait are admitted, if only others let go
        tangle.release(min(tangle.holding))
        await trio.testing.wait_all_tasks_blocked()
    assert not tangle.waiting
    assert tangle.requests == tangle.answers.total()
    assert all(limiter.statistics().running == limiter.statistics().queued == 0 for limiter in limiters)


unlimited_rates = st.builds(
    Options,
    st.integers(1, 3),
    st.sampled_from([None, 3, 1, 0]),
    st.sampled_from(POLICIES),
    st.none(),
    st.just(1.0),
)


@given(
    pair=st.tuples(unlimited_rates, unlimited_rates),
    plans=plans,
    steps=st.lists(
        st.tuples(st.sampled_from(["request", "request", "request", "release", "rest"]), st.integers(0, 19)),
        min_size=10,
        max_size=50,
    ),
)
def test_no_callback_upsets_the_books(pair, plans, steps):
    trio.run(entangle, [options.limiter() for options in pair], plans, steps)
