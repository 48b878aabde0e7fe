"""Options of a resident actor, and the actor in plain Python: lists that are looked through at every question.

Times are sums of quarters of a second, chosen so that no two kinds of events fall on one moment: messages are sent and
workers come up at whole seconds, asks time out at halves, and shutdown budgets are spent at quarters.
"""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import strategies as st

from stageflow_actors import Backoff, Directive, Mailbox, Restart

TIMEOUT = 2.5
BUDGET = 2.25


class CrashError(Exception):
    """The actor is restarted after it."""


class ShrugError(Exception):
    """The actor resumes after it."""


class DieError(Exception):
    """The actor ends with it."""


ERRORS = {"crash": CrashError, "shrug": ShrugError, "die": DieError}
DIRECTIVES = {CrashError: Directive.RESTART, ShrugError: Directive.RESUME, DieError: Directive.FAIL}


@attrs.frozen
class Options:
    max_queued: int | None
    overflow: str
    pool: int
    policy: str
    max_deliveries: int
    delay: float
    """Seconds from a crash to the restart."""

    def spawn(self):
        """Return the options of `spawn`."""
        restart = None
        if self.policy != "temporary":
            backoff = Backoff(initial=self.delay, factor=1, jitter=0)
            restart = Restart(max_restarts=10_000, backoff=backoff, decide=lambda error: DIRECTIVES[type(error)])
        return {
            "mailbox": Mailbox(self.max_queued, self.overflow),
            "pool": self.pool,
            "policy": self.policy,
            "restart": restart,
            "max_deliveries": self.max_deliveries,
            "idempotent": self.max_deliveries > 1,
            "shutdown": BUDGET,
        }


def _make_options(max_queued, overflow, pool, policy, max_deliveries, delay):
    if max_queued is None:
        overflow = "wait"
    if policy == "temporary":  # which worker of a pool sees the end first is left to the schedule
        pool = 1
    return Options(max_queued, overflow, pool, policy, max_deliveries, delay)


options = st.builds(
    _make_options,
    st.sampled_from([1, 2, 0, 3, None]),
    st.sampled_from(["wait", "wait", "wait", "reject", "drop_oldest", "drop_newest"]),
    st.sampled_from([1, 1, 2]),
    st.sampled_from(["transient", "transient", "permanent", "temporary"]),
    st.sampled_from([1, 1, 2, 3]),
    st.sampled_from([0.0, 1.0, 3.0]),
)


@attrs.define(eq=False)
class Mail:
    """A message."""

    number: int
    kind: str
    """`ask`, `tell` or `nowait`."""
    is_quick: bool
    """Whether it is replied to at once."""
    gives_up: float
    """When its asker does."""
    is_awaited: bool = True
    deliveries: int = 0
    has_failed: bool = False

    @property
    def is_wanted(self):
        return self.is_awaited or self.kind != "ask"


@attrs.define(eq=False)
class Hand:
    """A worker: up, leaving (with something in hand) or down."""

    state: str = "up"
    mail: Mail | None = None
    has_begun: bool = False
    until: float = 0.0
    """When its budget for leaving is spent, or its backoff over."""


class Model:
    """A mailbox and the workers behind it."""

    def __init__(self, options):
        self.options = options
        self.now = 0.0
        self.queue = []
        self.returned = []
        """What is to be delivered again, before the queue and beside its bound."""
        self.blocked = []
        self.hands = [Hand() for _ in range(options.pool)]
        self.is_retiring = False
        self.is_ended = False
        self.restarts = 0
        self.counts = Counter()
        self.outcomes = {}
        """What each sender was told."""
        self.letters = []
        self.begun = []
        """Of (number, delivery), in order."""

    # What is seen of it

    @property
    def held(self):
        return [hand.mail for hand in self.hands if hand.mail is not None]

    @property
    def idle(self):
        return [hand for hand in self.hands if hand.state == "up" and hand.mail is None]

    @property
    def waiting(self):
        """Those whose senders wait, in the order of sending."""
        alive = [*self.returned, *self.queue, *self.blocked, *self.held]
        waits = [mail for mail in alive if mail.is_awaited and (mail.kind == "ask" or mail in self.blocked)]
        return sorted(waits, key=lambda mail: mail.number)

    # Sending

    def send(self, mail):
        overflow = self.options.overflow
        room = self.options.max_queued
        if self.is_retiring:
            self._lose(mail)
        elif self.idle:
            self._accept(mail)
            self._hand(self.idle[0], mail)
        elif room is None or len(self.queue) < room:
            self._accept(mail)
            self.queue.append(mail)
        elif overflow == "wait" and mail.kind != "nowait":
            self.blocked.append(mail)
        elif overflow in {"wait", "reject"}:
            self.counts["rejected"] += 1
            self.outcomes[mail.number] = "full"
        else:
            self._accept(mail)
            if overflow == "drop_oldest" and self.queue:
                self.queue.append(mail)
                mail = self.queue.pop(0)
            self._end(mail, "overflow", "full", letter=True)

    def give_up(self, mail, outcome):
        """Let the sender of a message not wait any more: it was cancelled, or its time is over."""
        mail.is_awaited = False
        self.outcomes[mail.number] = outcome
        if mail in self.blocked:
            self.blocked.remove(mail)
        for waits in (self.returned, self.queue):
            if mail in waits:
                waits.remove(mail)
                self.counts["cancelled"] += 1
        self._admit()

    # Handling

    def settle(self):
        """Let every worker go as far as it can."""
        for hand in self.hands:
            while hand.state == "up":
                if hand.mail is None:
                    if self.returned:
                        self._hand(hand, self.returned.pop(0))
                    elif self.queue:
                        self._hand(hand, self.queue.pop(0))
                        self._admit()
                    elif self.blocked:
                        self._accept(self.blocked[0])
                        self._hand(hand, self.blocked.pop(0))
                    else:
                        break
                if hand.has_begun:
                    break
                if not hand.mail.is_wanted:
                    self.counts["cancelled"] += 1
                    hand.mail = None
                    continue
                hand.has_begun = True
                hand.mail.deliveries += 1
                self.begun.append((hand.mail.number, hand.mail.deliveries))
                if hand.mail.is_quick:
                    self._reply(hand)

    def finish(self, mail, how):
        """Let the worker that handles a message end with it: `reply`, `stop`, or an error."""
        hand = next(hand for hand in self.hands if hand.mail is mail)
        was_told = hand.state == "leaving"
        if how in {"reply", "stop"}:
            self._reply(hand)
            if was_told:
                self._go_down(hand)
            elif how == "stop" and self.options.policy == "permanent":
                self._restart(hand)
            elif how == "stop":
                self._go_down(hand, restarts=False)
                self.retire()
            return
        hand.mail = None
        if how == "shrug" and not was_told and self.options.policy != "temporary":
            hand.has_begun = False
            self._fail(mail)
            return
        hand.state = "down"
        is_temporary = self.options.policy == "temporary"
        final = not was_told and (is_temporary or how == "die")
        if not final and self._may_redeliver(mail) and (is_temporary or how == "crash"):
            mail.has_failed = True
            self._put_back(mail)
        else:
            self._fail(mail)
        if was_told:
            self._go_down(hand)
        elif final:
            self._go_down(hand, restarts=False)
            self.retire()
        else:
            self._go_down(hand, restarts=False)
            hand.until = self.now + self.options.delay
            if not self.options.delay:
                self._come_up(hand)

    def restart(self):
        """Restart the worker, the only one, once it has ended what it has in hand; it waits for no backoff."""
        (hand,) = self.hands
        if hand.mail is None:
            self._restart(hand)
        elif hand.state == "up":
            self._tell_to_leave(hand)

    def retire(self):
        """Let the actor end, once its workers have ended what they have in hand."""
        self.is_retiring = True
        for hand in self.hands:
            if hand.state == "up" and hand.mail is not None and hand.has_begun:
                self._tell_to_leave(hand)
            elif hand.state == "up":
                if hand.mail is not None:
                    self._put_back(hand.mail)
                hand.mail = None
                hand.state = "down"
        self._bury()

    def pass_time(self, seconds):
        """Let so much time pass, and what is due happen."""
        self.now += seconds
        for mail in [mail for mail in self.waiting if mail.kind == "ask" and mail.gives_up <= self.now]:
            self.give_up(mail, "timeout")
        for hand in self.hands:
            if hand.state == "leaving" and hand.until <= self.now:
                mail, hand.mail = hand.mail, None
                if self._may_redeliver(mail):
                    self._put_back(mail)
                else:
                    self._end(mail, "cancelled", "unavailable")
                self._go_down(hand)
            elif hand.state == "down" and hand.until == self.now and not self.is_retiring:
                self._come_up(hand)

    # Its parts

    def _accept(self, mail):
        self.counts["accepted"] += 1
        if mail.kind != "ask":
            self.outcomes[mail.number] = "told"

    def _admit(self):
        room = self.options.max_queued
        while self.blocked and (room is None or len(self.queue) < room):
            self._accept(self.blocked[0])
            self.queue.append(self.blocked.pop(0))

    def _hand(self, hand, mail):
        hand.mail, hand.has_begun = mail, False

    def _put_back(self, mail):
        if not mail.is_wanted:
            self.counts["cancelled"] += 1
        elif self.idle and not self.is_retiring:
            self._hand(self.idle[0], mail)
        else:
            self.returned.insert(0, mail)

    def _may_redeliver(self, mail):
        return mail.deliveries < self.options.max_deliveries and not self.is_retiring and mail.is_wanted

    def _reply(self, hand):
        mail, hand.mail = hand.mail, None
        is_late = not mail.is_wanted
        self._end(mail, "replied", "reply")
        if is_late:
            self.counts["late_reply"] += 1
            self.letters.append((mail.number, "late_reply"))

    def _fail(self, mail):
        if mail.deliveries >= self.options.max_deliveries > 1:
            self._end(mail, "poison", "error", letter=True)
        else:
            self._end(mail, "failed", "error")

    def _end(self, mail, count, outcome, *, letter=False):
        self.counts[count] += 1
        if mail.kind == "ask" and mail.is_awaited:
            self.outcomes[mail.number] = outcome
        mail.is_awaited = False
        if letter:
            self.letters.append((mail.number, count))

    def _lose(self, mail):
        self.counts["no_recipient"] += 1
        self.letters.append((mail.number, "no_recipient"))
        self.outcomes[mail.number] = "dead"

    def _tell_to_leave(self, hand):
        hand.state, hand.until = "leaving", self.now + BUDGET

    def _go_down(self, hand, *, restarts=True):
        """Be down after the order to leave, or by itself."""
        hand.state, hand.until = "down", 0.0
        if self.is_retiring:
            self._bury()
        elif restarts:
            self._come_up(hand)

    def _restart(self, hand):
        hand.state = "down"
        self._come_up(hand)

    def _come_up(self, hand):
        self.restarts += 1
        hand.state, hand.has_begun = "up", False

    def _bury(self):
        if self.is_ended or any(hand.state != "down" for hand in self.hands):
            return
        self.is_ended = True
        for mail in [*self.returned, *self.queue]:
            if mail.has_failed:
                self._fail(mail)
            else:
                self._end(mail, "stopped", "unavailable" if mail.deliveries else "dead", letter=True)
        for mail in self.blocked:
            self._lose(mail)
        for each in (self.returned, self.queue, self.blocked):
            each.clear()
