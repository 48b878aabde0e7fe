"""Slots: never exceeded, never under-used, each ticket answered once, and what is given up goes back.

Random schedules of requests, starts, releases, withdrawals and passing time, compared with a model.
"""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors._tickets import Ticket
from stageflow_actors.errors import OverloadedError

from .limit_model import Model, options

# What is done, to which ticket, with which priority or for how many eighths of a second.
ACTIONS = ["request"] * 6 + ["start"] * 3 + ["release"] * 4 + ["withdraw", "rest", "rest", "jump"]
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 11), st.integers(0, 7)), min_size=30, max_size=80)


class Bench:
    """A limiter and its model, driven side by side, and the claimant of its tickets."""

    def __init__(self, options):
        self.limiter = options.limiter()
        self.model = Model(options, trio.current_time())
        self.tickets = {}
        self.told = []
        self.dropped = []

    def admitted(self, ticket):
        self.told.append(ticket.what)

    def refused(self, ticket, error):
        assert "had waited longest" in str(error)
        self.dropped.append(ticket.what)

    def check(self):
        """Compare the books, which are right at every moment."""
        statistics = self.limiter.statistics()
        model = self.model
        assert statistics.running == len(model.running) <= statistics.max_concurrency
        assert statistics.queued == len(model.waiting)
        assert (statistics.admitted, statistics.rejected, statistics.dropped) == tuple(
            model.counts[kind] for kind in ("admitted", "rejected", "dropped")
        )
        if model.settled == model.now:  # or tokens have come, and nobody has looked yet
            assert not (model.waiting and model.has_room())
        assert self.told == model.told[: len(self.told)]

    def request(self, what, priority):
        ticket = self.tickets[what] = Ticket(self, what, (self.limiter,), priority)
        expected = self.model.request(what, priority)
        if isinstance(expected, str):
            with pytest.raises(OverloadedError):
                ticket.request()
            del self.tickets[what]
        else:
            assert ticket.request() is expected

    def start(self, what):
        self.model.start(what)
        self.tickets[what].start()
        self.tickets[what].start()

    def release(self, what):
        ticket = self.tickets.pop(what)
        if ticket.is_waiting and what in self.model.running:  # admitted, and not told yet: it never is
            self.model.told.remove(what)
        ticket.release()
        ticket.release()
        self.model.release(what)

    async def rest(self):
        """Let everything come to rest: whoever is to be told has been."""
        await trio.testing.wait_all_tasks_blocked()
        self.model.settle()
        assert self.told == self.model.told
        for what in self.model.doomed:
            assert not self.tickets.pop(what).is_waiting
        assert self.dropped == self.model.doomed
        self.dropped.clear()
        self.model.doomed.clear()
        for what, ticket in self.tickets.items():
            assert ticket.is_waiting == (what not in self.model.running)

    def choose(self, action, choice):
        """Return a ticket to which the action can be done: those it knows to be admitted start and are released."""
        waits = action == "withdraw"
        names = [what for what, ticket in self.tickets.items() if ticket.is_waiting == waits]
        return names[choice % len(names)] if names else None


async def drive(options, steps):
    clock = trio.lowlevel.current_clock()
    tasks = trio.lowlevel.current_statistics().tasks_living
    bench = Bench(options)
    for number, (action, choice, amount) in enumerate(steps):
        if action == "request":
            bench.request(number, amount - 3)
        elif action in {"rest", "jump"}:
            clock.jump(amount / 8)
            bench.model.advance(trio.current_time())
            if action == "rest":
                await bench.rest()
        elif (what := bench.choose(action, choice)) is None:
            continue
        elif action == "start":
            bench.start(what)
            if options.rate:
                await bench.rest()
        else:
            bench.release(what)
        bench.check()
    await bench.rest()
    event(f"told: {min(len(bench.told) // 3 * 3, 9)}")
    for what in list(bench.tickets):
        bench.release(what)
    await trio.testing.wait_all_tasks_blocked()
    statistics = bench.limiter.statistics()
    assert (statistics.running, statistics.queued) == (0, 0)
    assert not bench.dropped
    assert trio.lowlevel.current_statistics().tasks_living == tasks


@settings(max_examples=3 * settings.default.max_examples)
@given(options=options, steps=steps)
def test_it_does_what_a_list_would(options, steps):
    trio.run(drive, options, steps, clock=trio.testing.MockClock())
