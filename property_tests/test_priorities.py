"""The order of waiting: the documented formula, and that nobody starves by it.

Whoever has the priority p is overtaken only by those of a priority q > p that arrive less than
`aging * (q - p)` seconds after. So under an endless load of at most the priority q, who arrives at the
time a has before it only those who were there and those who arrive before `a + aging * (q - p)`.
"""

from __future__ import annotations

import math

import attrs
import trio
import trio.testing
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors._limiter import Limiter
from stageflow_actors._limits import ITEM, WaitQueue

priorities = st.integers(-3, 3)
waits = st.integers(0, 16).map(lambda number: number / 8)
agings = st.sampled_from([0.25, 1.0, 3.0])


@attrs.frozen
class Waiter:
    number: int
    priority: int
    arrived: float

    def overtakes(self, other, aging):
        """Whether it comes before one that arrived before it."""
        return self.arrived - other.arrived < aging * (self.priority - other.priority)


def first_of(waiting, aging):
    """Return whom nobody overtakes, by comparing everybody with everybody."""
    return next(
        one
        for one in waiting
        if all(
            one.overtakes(other, aging) if one.number > other.number else not other.overtakes(one, aging)
            for other in waiting
            if other is not one
        )
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), priorities, waits),
        st.tuples(st.just("pop"), st.just(0), waits),
        st.tuples(st.just("discard"), st.integers(0, 30), waits),
    ),
    max_size=60,
)


@given(steps=steps, aging=agings)
def test_the_order_is_that_of_the_formula(steps, aging):
    queue = WaitQueue(None, "wait", aging)
    places = {}
    now = 0.0
    for number, (action, argument, wait) in enumerate(steps):
        now += wait
        if action == "add":
            waiter = Waiter(number, argument, now)
            places[waiter] = queue.add(waiter, argument, now)
        elif places and action == "pop":
            expected = first_of(places, aging)
            assert queue.pop()[ITEM] == expected
            del places[expected]
        elif places and action == "discard":
            waiter = list(places)[argument % len(places)]
            assert queue.discard(places.pop(waiter))
        assert queue.size == len(places)
        kept = len(queue._run) + len(queue._heap)
        assert kept == queue.size + queue._empty <= 2 * queue.size
    while places:
        expected = first_of(places, aging)
        assert queue.pop()[ITEM] == expected
        del places[expected]


@given(urgent=st.lists(st.tuples(priorities, st.booleans()), min_size=10, max_size=60))
def test_withdrawals_leave_the_order_of_the_others(urgent):
    """So many at once that the queue is rebuilt. All arrive at once: the priority alone decides, then the arrival."""
    queue = WaitQueue(None, "wait", 1.0)
    places = [queue.add(number, priority, 0.0) for number, (priority, _) in enumerate(urgent)]
    for place, (_, stays) in zip(places, urgent, strict=True):
        if not stays:
            queue.discard(place)
    expected = sorted((-priority, number) for number, (priority, stays) in enumerate(urgent) if stays)
    assert [queue.pop()[ITEM] for _ in range(queue.size)] == [number for _, number in expected]


@given(steps=steps, aging=agings, max_queued=st.integers(1, 5))
def test_before_a_full_queue_the_order_of_arrival_counts(steps, aging, max_queued):
    """A naive queue and a naive line before it: whoever is first of the line moves in as there is room."""
    queue = WaitQueue(max_queued, "wait", aging)
    places, inside, line = {}, [], []
    now = 0.0
    for number, (action, argument, wait) in enumerate([*steps, *[("pop", 0, 0.0)] * len(steps)]):
        now += wait
        if action == "add":
            waiter = Waiter(number, argument, now)
            places[waiter] = queue.add(waiter, argument, now)
            line.append(waiter)
        elif places:
            waiter = first_of(inside, aging) if action == "pop" else list(places)[argument % len(places)]
            if action == "pop":
                assert queue.pop()[ITEM] == waiter
            else:
                assert queue.discard(places[waiter])
            del places[waiter]
            (inside if waiter in inside else line).remove(waiter)
        while line and len(inside) < max_queued:
            inside.append(line.pop(0))
        assert queue.size == len(inside) + len(line)
    assert not places


@attrs.frozen
class Load:
    """An endless load of urgent work, more than the limiter can serve, and one that is not urgent at all."""

    slots: int
    hold: float
    """How long each holds its slot, in seconds."""
    gap: float
    """Between the arrivals of urgent work."""
    urgency: int
    """How much more urgent it is at most."""
    aging: float
    backlog: int
    """How much waits already when the one that is not urgent arrives."""

    def before(self):
        """Return how many the formula puts before it: those that were there, and the newcomers of that time."""
        return self.slots + self.backlog + math.ceil(self.aging * self.urgency / self.gap) - 1

    def bound(self):
        """Return the longest wait that the formula allows: all the time all slots serve those before it."""
        return self.before() * self.hold / self.slots


loads = st.builds(
    Load,
    slots=st.integers(1, 3),
    hold=st.sampled_from([0.5, 1.0, 2.5]),
    gap=st.sampled_from([0.125, 0.25]),
    urgency=st.integers(1, 5),
    aging=st.sampled_from([0.5, 1.0, 2.0]),
    backlog=st.integers(0, 8),
)


async def measure(load):
    """Return how long the one that is not urgent waits, and what was admitted before it."""
    limiter = Limiter(load.slots, aging=load.aging)
    before = 0

    async def urgent(number):
        nonlocal before
        async with limiter.slot(1 + number % load.urgency):
            before += 1
            await trio.sleep(load.hold)

    async def arrive(nursery):
        for number in range(1_000_000):
            await trio.sleep(load.gap)
            nursery.start_soon(urgent, number)

    async with trio.open_nursery() as nursery:
        for number in range(load.slots + load.backlog):
            nursery.start_soon(urgent, number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(arrive, nursery)
        arrived = trio.current_time()
        async with limiter.slot(0):
            waited = trio.current_time() - arrived
            nursery.cancel_scope.cancel()
    return waited, before


@given(load=loads)
def test_nobody_starves(load):
    waited, before = trio.run(measure, load, clock=trio.testing.MockClock(autojump_threshold=0))
    event(f"share of the bound: {round(waited / load.bound(), 1)}")
    assert waited <= load.bound()
    assert before <= load.before() + load.slots - 1  # others that were admitted at the same moment
