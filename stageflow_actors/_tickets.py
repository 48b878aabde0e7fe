"""Tickets and gates: who asks a limiter for a slot, and what a limiter is while trio runs.

The file is long because the two share their state: to ask and to admit is on the way of every stage.
"""

from __future__ import annotations

import contextvars
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVarTuple, cast, final

import trio
from trio.lowlevel import current_trio_token

from ._limits import COUNT, ITEM, TokenBucket, WaitQueue
from .errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._limits import LimiterBase, LimiterOptions, Place

_Arguments = TypeVarTuple("_Arguments")

_FULL_HINT: Final = "raise max_queued, or take overflow='wait'"


class Passer(Protocol):
    """What waits in a limiter's queue."""

    def pass_gate(self, gate: Gate, /) -> None:
        """Take the slot that has been granted."""


class Claimant(Protocol):
    """Whoever holds tickets, and is called back. Everything happens on the trio thread."""

    def admitted(self, ticket: Any, /) -> None:
        """Learn that a ticket that had to wait was admitted by all its limiters. It may request and release others."""

    def refused(self, ticket: Ticket, error: OverloadedError) -> None:
        """Learn that a waiting ticket was dropped. Called from the loop, never inside somebody's request."""


@final
class Ticket:
    """One actor's way through its limiters, in their order. While it waits it has no task.

    Args:
        claimant: Who is called back.
        what: The claimant's own key.
        limiters: Each is asked when the one before has admitted, and none of them twice.
        priority: A larger one is more urgent.
    """

    __slots__ = ("_gate", "_held", "_limiters", "_place", "_priority", "_started", "claimant", "what")

    def __init__(self, claimant: Claimant, what: Any, limiters: tuple[LimiterBase, ...], priority: int) -> None:
        self.claimant = claimant
        self.what = what
        self._limiters = limiters
        self._priority = priority
        self._held: tuple[Gate, ...] = ()
        self._gate: Gate | None = None
        """Where it waits."""
        self._place: Place | OverloadedError | None = None
        """How it waits: in a queue, or for the news that it was dropped."""
        self._started = False

    @property
    def is_waiting(self) -> bool:
        """Whether it was requested, and its claimant knows of no answer yet."""
        return self._place is not None

    def request(self) -> bool:
        """Ask for a slot of every limiter. Nobody is called back inside.

        Returns:
            Whether it is admitted by all of them at once. If not it waits, and `claimant.admitted`, or
            `refused`, comes later.

        Raises:
            OverloadedError: A limiter refuses it. Nothing is held.
            RuntimeError: It is in use already, or trio does not run, or a limiter is in use in another run.
        """
        if self._held or self._place is not None:
            raise RuntimeError(f"a ticket can be requested again only after its release: {self.what!r}")
        self._started = False
        if len(self._limiters) == 1:  # what comes below, in one step
            limiter = self._limiters[0]
            gate = limiter._gate  # noqa: SLF001 (a limiter and its tickets are one thing)
            if gate is None or gate.token is not current_trio_token():
                gate = bind(limiter)
            self._place = place = gate.enter(self, self._priority)
            if place is None:
                self._held = (gate,)
                return True
            self._gate = gate
            return False
        try:
            return self._advance()
        except BaseException:
            self.release()
            raise

    def start(self) -> None:
        """Spend the reserved tokens: what was admitted begins."""
        if not self._started:
            self._started = True
            for gate in self._held:
                if gate.bucket is not None:
                    gate.spend(gate.bucket)

    def release(self) -> None:
        """Give back slots, places and unspent tokens, whatever there is; withdraw if it waits.

        Others that this admits are called back inside, unless such a call is under way already.
        """
        if self._place is not None:
            place, self._place = self._place, None
            gate, self._gate = self._gate, None
            if gate is not None:
                gate.withdraw(cast("Place", place))
        held = self._held
        self._held = ()
        if len(held) == 1:
            held[0].leave(not self._started)
        else:
            for gate in reversed(held):  # the inner first: what the outer one admits then finds it free
                gate.leave(not self._started)

    def release_quietly(self) -> None:
        """Give everything back, and have those whom this admits told from the loop."""
        release: Callable[[], None] = self.release
        for gate in (*self._held, self._gate):
            if gate is not None:
                release = partial(gate.quietly, release)
        release()

    def _advance(self) -> bool:
        """Ask the limiters that have not admitted it yet, and return whether all have."""
        for limiter in self._limiters[len(self._held) :]:
            gate = limiter._gate  # noqa: SLF001 (a limiter and its tickets are one thing)
            if gate is None or gate.token is not current_trio_token():
                gate = bind(limiter)
            place = gate.enter(self, self._priority)
            if place is not None:
                self._place = place
                self._gate = gate
                return False
            self._held += (gate,)
        return True

    def pass_gate(self, gate: Gate) -> None:
        """Go on, after a gate at which it waited has admitted it."""
        self._place = self._gate = None
        if not self._held and len(self._limiters) == 1:
            self._held = (gate,)
            self.claimant.admitted(self)
            return
        self._held += (gate,)
        if len(self._held) < len(self._limiters):
            try:
                if not self._advance():
                    return
            except OverloadedError as error:
                self.refuse_soon(error)
                return
        self.claimant.admitted(self)

    def refuse_soon(self, error: OverloadedError) -> None:
        """Give everything back, and tell the claimant from the loop: somebody else's request is under way here."""
        self._gate = None
        self._place = error
        held, self._held = self._held, ()
        for gate in reversed(held):
            gate.quietly(gate.leave, True)
        current_trio_token().run_sync_soon(self._refuse, error)

    def _refuse(self, error: OverloadedError) -> None:
        if self._place is error:  # it was not withdrawn meanwhile
            self._place = None
            self.claimant.refused(self, error)


@final
class Gate:
    """What a limiter is within one trio run: who holds its slots, who waits, and its tokens.

    Slots are given away at the very moment at which they become free; that whoever waited is told of it
    follows in a loop. So the books are right also inside a callback, which may request and release.
    """

    __slots__ = (
        "_alarm",
        "_granted",
        "_limit",
        "_now",
        "_options",
        "_telling",
        "admitted",
        "bucket",
        "dropped",
        "queue",
        "rejected",
        "running",
        "token",
    )

    def __init__(self, options: LimiterOptions, before: Gate | None) -> None:
        self.token = current_trio_token()
        self._options = options
        self._limit = options.max_concurrency
        self._now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.queue: WaitQueue[Passer] = WaitQueue(options.max_queued, options.overflow, options.aging)
        self.bucket: TokenBucket | None = None
        self.running = 0
        self.admitted = self.rejected = self.dropped = 0
        self._granted: deque[Place] = deque()
        """Those that have been admitted and not told yet."""
        self._telling = False
        self._alarm: trio.CancelScope | None = None
        """Of the task that waits for the next token, while only a token is missing."""
        if before is not None:
            self.admitted, self.rejected, self.dropped = before.admitted, before.rejected, before.dropped
            self.bucket = before.bucket
        if self.bucket is not None:
            self.bucket.rebase(self._now())
        elif options.rate is not None:
            self.bucket = TokenBucket(options.rate, self._now())

    def enter(self, ticket: Ticket, priority: int) -> Place | None:
        """Admit a newcomer at once, and return None, or queue it and return its place.

        Raises:
            OverloadedError: It is refused.
        """
        queue = self.queue
        bucket = self.bucket
        if bucket is None:
            if self.running < self._limit:  # so nobody waits
                self.running += 1
                self.admitted += 1
                return None
        else:
            if queue.size:
                self.quietly(self._settle)  # tokens that have come since belong to those who waited
            if self.running < self._limit and not queue.size and bucket.reserve(self._now()):
                self.running += 1
                self.admitted += 1
                return None
        if queue.size >= queue.bound:
            self._overflow()
        place = queue.add(ticket, priority, self._now())
        if bucket is not None:
            self._set_alarm()
        return place

    def try_enter(self) -> bool:
        """Admit a newcomer, or do nothing. Only where nobody is refused and starts are not counted."""
        if self.running >= self._limit:
            return False
        self.running += 1
        self.admitted += 1
        return True

    def enter_many(self, item: Passer, priority: int, count: int) -> tuple[int, Place | None]:
        """Admit as many newcomers as there is room for, and queue the others at one place.

        Only where nobody is refused and starts are not counted. Each of those that wait passes by a call of
        `item.pass_gate`.

        Returns:
            How many were admitted, and the place of the others.
        """
        free = min(count, self._limit - self.running)
        self.running += free
        self.admitted += free
        return free, self.queue.add(item, priority, self._now(), count - free) if free < count else None

    def withdraw_many(self, place: Place, count: int) -> None:
        """Take back a place for many, and what was granted meanwhile to those of its `count` that were not told."""
        untold = count - place[COUNT]
        if not self.queue.discard(place):
            place[ITEM] = None
        for _ in range(untold):
            self.leave(False)

    def leave(self, refund: bool) -> None:  # noqa: FBT001 (a keyword costs time here)
        """Take a slot back, and with `refund` the token that was reserved with it."""
        if self.bucket is None and not self._telling and self.queue.size:
            # What comes below, in one step: the slot goes from one to the next.
            self.admitted += 1
            self._telling = True
            try:
                self.queue.pop()[ITEM].pass_gate(self)
            except BaseException:
                self._telling = False
                self.quietly(self._settle)
                raise
            self._telling = False
            if self._granted:
                self._settle()
            return
        self.running -= 1
        if refund and self.bucket is not None:
            self.bucket.refund(self._now())
        if self.queue.size:
            self._settle()

    def withdraw(self, place: Place) -> None:
        """Take back a place in the queue, or what was granted to it meanwhile."""
        if not self.queue.discard(place):
            place[ITEM] = None
            self.leave(True)
        elif self.bucket is not None:
            self._settle()

    def spend(self, bucket: TokenBucket) -> None:
        """Spend a reserved token."""
        bucket.spend(self._now())
        self._set_alarm()

    def describe(self) -> str:
        """Return such as `64 running, 12 queued`."""
        return f"{self.running:,} running, {self.queue.size:,} queued"

    def _settle(self) -> None:
        """Admit whom there is room for, and tell them. What a callback brings about is left to the loop here."""
        queue = self.queue
        bucket = self.bucket
        granted = self._granted
        while queue.size and self.running < self._limit and (bucket is None or bucket.reserve(self._now())):
            self.running += 1
            self.admitted += 1
            granted.append(queue.pop())
        if bucket is not None:
            self._set_alarm()
        if self._telling:
            return
        self._telling = True
        try:
            while granted:
                ticket = granted.popleft()[ITEM]
                if ticket is not None:
                    ticket.pass_gate(self)
        finally:
            self._telling = False
            if granted:  # a callback raised; the others are told all the same
                self.token.run_sync_soon(self._settle)

    def quietly(self, change: Callable[[*_Arguments], None], *arguments: *_Arguments) -> None:
        """Make a change, and have those whom it admits told from the loop."""
        telling, self._telling = self._telling, True
        change(*arguments)
        self._telling = telling
        if self._granted:
            self.token.run_sync_soon(self._settle)

    def _overflow(self) -> None:
        """Make room in a full queue, or refuse the newcomer."""
        options = self._options
        limit, bound = options.max_concurrency, options.max_queued or 0
        at_rate = f" at a rate of {options.rate}" if options.rate is not None else ""
        problem = (
            f"limiter of {limit:,} is full: {self.running:,} running{at_rate}, "
            f"{self.queue.size:,} of max_queued={bound} queued"
        )
        oldest = cast("Ticket | None", self.queue.drop_oldest())  # where something can be dropped, all are tickets
        if options.overflow == "reject":
            self.rejected += 1
        else:
            self.dropped += 1
        if oldest is None:
            raise OverloadedError(problem, limit=limit, max_queued=bound, hint=_FULL_HINT)
        problem += ", and this one had waited longest"
        oldest.refuse_soon(OverloadedError(problem, limit=limit, max_queued=bound, hint=_FULL_HINT))

    def _set_alarm(self) -> None:
        """Have a task while, and only while, the first of the queue waits for nothing but a token."""
        assert self.bucket is not None
        if self.queue.size and self.running < self._limit and self.bucket.next_at(self._now()) < inf:
            if self._alarm is None:
                self._alarm = trio.CancelScope()
                context = contextvars.Context()
                trio.lowlevel.spawn_system_task(self._wait_for_tokens, self._alarm, context=context)
        elif self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _wait_for_tokens(self, alarm: trio.CancelScope) -> None:
        assert self.bucket is not None
        with alarm:
            while True:
                await trio.sleep_until(self.bucket.next_at(self._now()))
                self._settle()


def bind(limiter: LimiterBase) -> Gate:
    """Return the gate of a limiter in the trio run that is under way, made at its first use.

    Raises:
        RuntimeError: Trio does not run, or the limiter is in use in another run of it.
    """
    gate: Gate | None = limiter._gate  # noqa: SLF001 (a limiter and its gate are one thing)
    try:
        token = current_trio_token()
    except RuntimeError:
        problem = "a limiter can be used only while trio runs, on its thread"
        raise RuntimeError(f"limiter of {limiter.max_concurrency:,}: {problem}") from None
    if gate is not None and gate.token is token:
        return gate
    if gate is not None and (gate.running or gate.queue.size) and _runs(gate.token):
        problem = f"limiter of {limiter.max_concurrency:,} is in use in another trio run: {gate.describe()}"
        raise RuntimeError(f"{problem}; give each run that goes on at the same time a limiter of its own")
    limiter._gate = gate = Gate(limiter._options, gate)  # noqa: SLF001 (likewise)
    return gate


def _runs(token: trio.lowlevel.TrioToken) -> bool:
    """Return whether the trio run of a token is still under way."""
    try:
        token.run_sync_soon(int)
    except trio.RunFinishedError:
        return False
    return True
