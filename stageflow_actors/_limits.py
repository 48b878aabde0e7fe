"""Rates and queues as pure state machines: the time comes in as an argument, in seconds on any clock."""

from __future__ import annotations

from collections import OrderedDict, deque
from functools import partial
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, final, get_args

import attrs

from ._validation import refuse, require_count, require_seconds, require_word

Overflow: TypeAlias = Literal["wait", "reject", "drop_oldest", "drop_newest"]
"""What becomes of one more where as many are queued as may be."""

_MOST: Final = 10**12
"""The largest count and priority; far past it floats are no longer exact."""

_T = TypeVar("_T")


def require_overflow(value: object) -> Overflow:
    """Return `value` if it names an overflow policy."""
    return cast("Overflow", require_word("overflow", value, get_args(Overflow)))


def require_max_queued(value: object) -> int | None:
    """Return `value` if it bounds a queue: a whole number of at least 0, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        refuse(f"max_queued must be a whole number of at least 0, or None, not {value!r}")
    return value


def require_priority(value: object, *, pipeline: str | None = None, stage: str | None = None) -> int:
    """Return `value` if it is a priority: a whole number, of either sign."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MOST:
        hint = f"it lies between {-_MOST:,} and {_MOST:,}" if type(value) is int else None
        refuse(f"priority must be a whole number, not {value!r}", pipeline=pipeline, stage=stage, hint=hint)
    return value


def _require_tokens(what: str, value: object) -> int:
    number = require_count(what, value)
    if number > _MOST:
        refuse(f"{what} must be at most {_MOST:,}, not {number!r}", hint="leave the rate out for no limit")
    return number


@final
@attrs.frozen(init=False)
class Rate:
    """How often something may start: a token bucket.

    In any `T` seconds there are at most `burst + T * count / per` starts. The bucket is full at first.

    Args:
        count: How many may start in `per` seconds.
        per: In seconds.
        burst: How many may start at once after a quiet time; `count` where it is left out.

    Raises:
        PipelineValidationError: A value cannot be used.
    """

    count: int
    """How many may start in `per` seconds."""
    per: float
    """In seconds."""
    burst: int
    """How many may start at once after a quiet time."""

    def __init__(self, count: int, per: float = 1.0, burst: int | None = None) -> None:
        _require_tokens("the count of a rate", count)
        require_seconds("the per of a rate", per)
        self.__attrs_init__(count, per, count if burst is None else _require_tokens("the burst of a rate", burst))

    def __str__(self) -> str:
        """Return such as `100 per 1 s`."""
        return f"{self.count:,} per {self.per:g} s"


@final
class TokenBucket:
    """A token bucket whose tokens are reserved first and spent later, or refunded.

    A reserved token is still in the bucket: one that is held back for long brings no second burst when
    it is spent. The level is not kept as a number that drifts with every addition, but as the time at
    which it was 0 and the tokens spent since (the generic cell rate algorithm, ITU-T I.371, with whole
    numbers). So `next_at` is exactly the first time at which `reserve` succeeds.
    """

    __slots__ = ("_burst", "_interval", "_origin", "_reserved", "_seen", "_spent")

    def __init__(self, rate: Rate, now: float) -> None:
        self._interval = rate.per / rate.count
        self._burst = rate.burst
        self._origin = now - self._burst * self._interval
        """When the level would have been 0, had nothing been spent since."""
        self._spent = 0
        self._reserved = 0
        self._seen = now

    def reserve(self, now: float) -> bool:
        """Reserve a token if there is one."""
        self._seen = now
        reserved = self._reserved
        # Reservations beyond the burst are refused here, so that the level needs no cap before the spending.
        if reserved >= self._burst or now < self._origin + (self._spent + reserved + 1) * self._interval:
            return False
        self._reserved = reserved + 1
        return True

    def spend(self, now: float) -> None:
        """Spend a reserved token."""
        self._seen = now
        if now > self._origin + (self._spent + self._burst) * self._interval:  # it was full: what ran over is lost
            self._origin = now - self._burst * self._interval
            self._spent = 0
        self._spent += 1
        self._reserved -= 1

    def refund(self, now: float) -> None:
        """Give a reserved token back."""
        self._seen = now
        self._reserved -= 1

    def next_at(self, now: float) -> float:
        """Return from when on a token can be reserved.

        It is infinite while as many are reserved as the bucket holds: a spending or a refund changes that.
        """
        self._seen = now
        if self._reserved >= self._burst:
            return inf
        return max(now, self._origin + (self._spent + self._reserved + 1) * self._interval)

    def rebase(self, now: float) -> None:
        """Go on with another clock, on which it is `now`: the level stays, what was reserved is given back."""
        self._origin += now - self._seen
        self._seen = now
        self._reserved = 0


Place: TypeAlias = list[Any]
"""A place in a queue: its key, its number in the order of arrival, what waits there, for how many it stands.

What was withdrawn is None. A list, because the heap compares places all the time, and lists without a call of
Python code.
"""

ITEM: Final = 2
_NUMBER: Final = 1
COUNT: Final = 3


@final
class WaitQueue(Generic[_T]):
    """Who waits, in the order of `arrived - priority * aging`; equal ones in the order of arrival.

    That is linear aging, where one is as urgent as `priority + waited / aging` says: whoever has the
    priority p is overtaken only by those of a priority q > p that arrive less than `aging * (q - p)`
    seconds after. The key never changes, so a heap keeps the order. What is withdrawn stays in the heap
    as an empty place until more than half of the places are empty.

    Args:
        max_queued: How many may wait; None for any number with `overflow="wait"`, for none with another.
        overflow: What becomes of one more. With `wait` it waits before the queue, in the order of
            arrival whatever its priority, and moves in with the time of its arrival.
        aging: In seconds: after so long a wait, one is as urgent as a newcomer of the next priority.
    """

    __slots__ = (
        "_aging",
        "_arrivals",
        "_empty",
        "_heap",
        "_is_plain",
        "_number",
        "_outside",
        "_room",
        "_run",
        "bound",
        "size",
    )

    def __init__(self, max_queued: int | None, overflow: Overflow, aging: float) -> None:
        self._aging = aging
        self._run: deque[Place] = deque()
        """Those that arrived in the order of the queue: all of them, where all are equally urgent."""
        self._heap: list[Place] = []
        """The others."""
        self._number = 0
        self._empty = 0
        """How many places, of both, are of withdrawn ones."""
        self.size = 0
        """How many wait."""
        waits = overflow == "wait"
        self.bound: float = inf if waits else max_queued or 0
        """With so many in it, something has to be dropped or refused for one more."""
        # With room for one, the order is that of arrival: what `wait` with a queue of 0 means.
        self._room: float = max(1, max_queued) if waits and max_queued is not None else inf
        self._outside: OrderedDict[int, Place] = OrderedDict()
        self._arrivals: OrderedDict[int, Place] | None = OrderedDict() if overflow == "drop_oldest" else None
        self._is_plain = self._arrivals is None and self._room == inf
        """Whether nobody waits but in the queue itself, where nobody looks for the oldest."""

    def add(self, item: _T, priority: int, now: float, count: int = 1) -> Place:
        """Queue an item that arrives now, and return its place.

        Args:
            item: What waits.
            priority: A larger one is more urgent.
            now: In seconds.
            count: For how many it stands: so often in a row it is the first. Only without bound and policy.
        """
        self._number = number = self._number + 1
        place: Place = [now - priority * self._aging, number, item, count]
        if self._is_plain or self.size < self._room:
            run = self._run
            if not run or run[-1] < place:
                run.append(place)
            else:
                heappush(self._heap, place)
        else:
            self._outside[number] = place
        if self._arrivals is not None:
            self._arrivals[number] = place
        self.size += count
        return place

    def pop(self) -> Place:
        """Take the first one out of a queue in which somebody waits."""
        run = self._run
        heap = self._heap
        while True:
            in_run = not heap or (run and run[0] < heap[0])
            place = run[0] if in_run else heap[0]
            if place[COUNT] > 1:
                place[COUNT] -= 1
                self.size -= 1
                return place
            if in_run:
                run.popleft()
            else:
                heappop(heap)
            if place[ITEM] is not None:
                self._forget(place)
                return place
            self._empty -= 1

    def discard(self, place: Place) -> bool:
        """Withdraw one, with all that it stands for, and return whether it was still queued."""
        if not place[COUNT]:
            return False
        if self._outside.pop(place[_NUMBER], None) is None:
            place[ITEM] = None
            self._empty += 1
        self._forget(place)
        return True

    def drop_oldest(self) -> _T | None:
        """Withdraw the one that has waited longest, and return it; None where nobody is dropped for a newcomer."""
        if not self._arrivals:
            return None
        place = next(iter(self._arrivals.values()))
        item = cast("_T", place[ITEM])
        self.discard(place)
        return item

    def _forget(self, place: Place) -> None:
        self.size -= place[COUNT]
        place[COUNT] = 0
        if self._is_plain and not self._empty:
            return
        if self._arrivals is not None:
            del self._arrivals[place[_NUMBER]]
        if self._outside and self.size - len(self._outside) < self._room:
            heappush(self._heap, self._outside.popitem(last=False)[1])
        if self._empty and self._empty * 2 > len(self._run) + len(self._heap):
            self._run = deque(kept for kept in self._run if kept[ITEM] is not None)
            self._heap = [kept for kept in self._heap if kept[ITEM] is not None]
            heapify(self._heap)
            self._empty = 0


@final
@attrs.frozen
class LimiterOptions:
    """What a limiter was made with, checked."""

    max_concurrency: int
    max_queued: int | None
    overflow: Overflow
    rate: Rate | None
    aging: float

    @property
    def is_plain(self) -> bool:
        """Whether everybody may wait, and starts are not counted."""
        return self.rate is None and self.overflow == "wait" and self.max_queued is None


class LimiterBase:
    """A limiter as far as a definition knows it: its options. What limits is `Limiter`, one floor up."""

    __slots__ = ("_gate", "_options")

    def __init__(
        self,
        max_concurrency: int,
        *,
        max_queued: int | None = None,
        overflow: Overflow = "wait",
        rate: Rate | None = None,
        aging: float = 10.0,
    ) -> None:
        if rate is not None and not isinstance(rate, Rate):
            refuse(f"rate must be a Rate, not {rate!r}", hint="write rate=Rate(100, per=1.0)")
        self._gate: Any = None
        """What it is within the present trio run: a `Gate`, one floor up."""
        self._options = LimiterOptions(
            require_count("max_concurrency", max_concurrency),
            require_max_queued(max_queued),
            require_overflow(overflow),
            rate,
            require_seconds("aging", aging),
        )

    @property
    def max_concurrency(self) -> int:
        """How many may run at once."""
        return self._options.max_concurrency

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as a fresh limiter with the same options."""
        options = attrs.asdict(self._options, recurse=False)
        return partial(type(self), **options), ()
