"""Options of limiters, and a limiter in plain Python that keeps a list and looks through all of it.

Times, rates and keys are sums of a few powers of two, so that floats are exact and the model's answers
are, too.
"""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import strategies as st

from stageflow_actors._limiter import Limiter
from stageflow_actors._limits import Rate

POLICIES = ["wait", "wait", "reject", "drop_oldest", "drop_newest"]


@attrs.frozen
class Options:
    max_concurrency: int
    max_queued: int | None
    overflow: str
    rate: Rate | None
    aging: float

    def limiter(self):
        return Limiter(**attrs.asdict(self, recurse=False))


rates = st.builds(Rate, st.sampled_from([1, 2, 4]), st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 4))
options = st.builds(
    Options,
    st.integers(1, 4),
    st.sampled_from([3, 4, 2, 1, 0, None]),
    st.sampled_from(POLICIES),
    st.one_of(st.none(), rates),
    st.sampled_from([0.5, 2.0]),
)


class Model:
    """A limiter that recomputes everything from lists."""

    def __init__(self, options, now):
        self.options = options
        self.waiting = []
        """Of (arrived, priority, what), in the order of arrival; those beyond max_queued wait before the queue."""
        self.inside = []
        self.running = {}
        """What runs, and whether its token is spent."""
        self.told = []
        """Who was admitted after waiting, in order."""
        self.doomed = []
        """Who was dropped, and has not been told."""
        self.counts = Counter()
        self.tokens = options.rate.burst if options.rate else 0
        self.now = self.settled = now

    def advance(self, now):
        rate = self.options.rate
        if rate:
            self.tokens = min(rate.burst, self.tokens + (now - self.now) * rate.count / rate.per)
        self.now = now

    def has_room(self):
        unspent = sum(not spent for spent in self.running.values())
        return len(self.running) < self.options.max_concurrency and (
            self.options.rate is None or self.tokens - unspent >= 1
        )

    def settle(self):
        self.settled = self.now
        bound = self.options.max_queued
        room = max(1, bound) if self.options.overflow == "wait" and bound is not None else len(self.waiting)
        while True:
            self.inside = [one for one in self.inside if one in self.waiting]
            outside = [one for one in self.waiting if one not in self.inside]
            self.inside += outside[: max(0, room - len(self.inside))]
            if not (self.inside and self.has_room()):
                return
            # The sort is stable, and `waiting` in the order of arrival.
            queued = [one for one in self.waiting if one in self.inside]
            first = min(queued, key=lambda one: one[0] - one[1] * self.options.aging)
            self.waiting.remove(first)
            self.admit(first[2])
            self.told.append(first[2])

    def admit(self, what):
        self.counts["admitted"] += 1
        self.running[what] = False

    def request(self, what, priority):
        """Return True or False as a ticket does, or the name of the count of refusals."""
        self.settle()
        if not self.waiting and self.has_room():
            self.admit(what)
            return True
        overflow = self.options.overflow
        if overflow != "wait" and len(self.waiting) >= (self.options.max_queued or 0):
            outcome = "rejected" if overflow == "reject" else "dropped"
            self.counts[outcome] += 1
            if overflow != "drop_oldest" or not self.waiting:
                return outcome
            self.doomed.append(self.waiting.pop(0)[2])
        self.waiting.append((self.now, priority, what))
        self.settle()
        return False

    def start(self, what):
        if self.options.rate and not self.running[what]:
            self.tokens -= 1
        self.running[what] = True

    def release(self, what):
        if what in self.doomed:  # it has no place any more
            self.doomed.remove(what)
            return
        self.waiting = [one for one in self.waiting if one[2] != what]
        self.running.pop(what, None)
        self.settle()
