"""A mailbox, and a resident actor behind one, do at every step exactly what plain lists would."""

from __future__ import annotations

from functools import partial

import trio
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors import AskTimeoutError, Intensity, Mailbox, StageOutput, Supervisor
from stageflow_actors._mailbox import MailQueue, Offer
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, MailboxFullError
from stageflow_actors.statistics import ActorLedger

from .mailbox_model import ERRORS, TIMEOUT, Mail, Model, options

OUTCOMES = {
    AskTimeoutError: "timeout",
    ActorDeadError: "dead",
    ActorUnavailableError: "unavailable",
    MailboxFullError: "full",
    **dict.fromkeys(ERRORS.values(), "error"),
}
ENDS = ["reply"] * 4 + ["fail", "crash", "crash", "shrug", "stop", "die"]
ACTIONS = [
    *["ask"] * 5,
    *["tell"] * 4,
    *["finish"] * 6,
    *["burst", "burst", "cancel", "cancel", "cancel", "tick", "tick", "flash", "restart"],
]
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 11)), min_size=10, max_size=70)


class Gate:
    """Where a message that is being handled waits to be told how it ends."""

    def __init__(self):
        self._event = trio.Event()

    def open(self, how):
        self._how = how
        self._event.set()

    async def wait(self):
        await self._event.wait()
        return self._how


class Bench:
    """An actor and its model, driven side by side."""

    def __init__(self, options, nursery):
        self.model = Model(options)
        self.nursery = nursery
        self.clock = trio.lowlevel.current_clock()
        self.mails = {}
        self.scopes = {}
        self.gates = {}
        """How each message that is being handled is to end."""
        self.begun = []
        self.outcomes = {}
        self.letters = []

    async def handle(self, ctx):
        number = ctx.snapshot.data["number"]
        self.begun.append((number, ctx.attempt))
        if ctx.snapshot.data["quick"]:
            return None
        gate = self.gates[number] = Gate()
        try:
            how = await gate.wait()
        finally:
            del self.gates[number]
        if how in ERRORS:
            raise ERRORS[how](number)
        if how == "stop":
            ctx.stop()
        return StageOutput.fail("no") if how == "fail" else None

    async def send(self, mail):
        data = {"number": mail.number, "quick": mail.is_quick}
        try:
            with self.scopes[mail.number]:
                if mail.kind == "ask":
                    await self.ref.ask(data, timeout=TIMEOUT)
                    self.outcomes[mail.number] = "reply"
                elif mail.kind == "tell":
                    await self.ref.tell(data)
                    self.outcomes[mail.number] = "told"
                else:
                    self.ref.tell_nowait(data)
                    self.outcomes[mail.number] = "told"
        except tuple(OUTCOMES) as error:
            self.outcomes[mail.number] = OUTCOMES[type(error)]
        else:
            if self.scopes[mail.number].cancelled_caught:
                self.outcomes[mail.number] = "cancelled"

    def make(self, kind, choice):
        """Return one more message: one in four is handled at once."""
        mail = Mail(len(self.mails), kind, choice % 4 == 0, self.model.now + TIMEOUT)
        self.mails[mail.number] = mail
        self.scopes[mail.number] = trio.CancelScope()
        return mail

    async def do(self, action, choice):
        model = self.model
        if action in {"ask", "tell"}:
            mail = self.make(action, choice)
            model.send(mail)
            self.nursery.start_soon(self.send, mail)
        elif action == "flash":
            mail = self.make("ask", choice)
            self.scopes[mail.number].cancel()
            model.send(mail)
            if mail in model.waiting:
                model.give_up(mail, "cancelled")
            self.nursery.start_soon(self.send, mail)
        elif action == "burst":
            for number in range(1 + choice % 4):
                mail = self.make("nowait", choice + number)
                model.send(mail)
                await self.send(mail)
        elif action == "cancel" and model.waiting:
            mail = model.waiting[choice % len(model.waiting)]
            model.give_up(mail, "cancelled")
            self.scopes[mail.number].cancel()
        elif action == "finish" and model.held:
            mail = model.held[choice % len(model.held)]
            how = ENDS[choice * 7 % len(ENDS)]
            if how == "die" and model.options.policy == "permanent":  # it would take its supervisor along
                how = "crash"
            model.finish(mail, "reply" if how == "fail" else how)
            self.gates[mail.number].open(how)
        elif action == "restart" and model.options.pool == 1 and not model.is_retiring:
            model.restart()
            self.nursery.start_soon(partial(self.order, self.ref.restart))
        elif action == "stop":
            model.retire()
            self.nursery.start_soon(self.order, self.ref.stop)
        elif action == "tick":
            for _ in range(4):
                self.clock.jump(0.25)
                model.pass_time(0.25)
                await self.rest()

    async def order(self, what):
        try:
            await what()
        except ActorDeadError:
            assert self.model.is_retiring

    async def rest(self):
        """Let everything come to rest, and compare the books."""
        await trio.testing.wait_all_tasks_blocked()
        model = self.model
        model.settle()
        statistics = self.ref.statistics()
        ledger = statistics.ledger
        assert ledger == ActorLedger(**model.counts), (ledger, model.counts)
        assert self.outcomes == model.outcomes
        assert sorted(self.letters) == sorted(model.letters)
        assert sorted(self.begun) == sorted(model.begun)
        assert statistics.queued == len(model.returned) + len(model.queue)
        assert statistics.blocked == len(model.blocked)
        assert ledger.pending == statistics.queued + len(model.held)
        assert sorted(self.gates) == sorted(mail.number for mail in model.held)
        if not model.is_ended:
            assert statistics.idle == len(model.idle)
            assert statistics.restarts == model.restarts
        if model.options.pool == 1:
            assert self.begun == model.begun
        queue = [message.snapshot.data["number"] for message in self.ref._resident._queue]
        assert queue == [mail.number for mail in [*model.returned, *model.queue]]

    async def read(self, stream):
        async with stream:
            async for letter in stream:
                self.letters.append((letter.snapshot.data["number"], letter.reason))
        assert stream.dropped == 0


async def drive(options, steps):
    async with trio.open_nursery() as nursery, Supervisor(intensity=Intensity(100_000)) as supervisor:
        bench = Bench(options, nursery)
        bench.supervisor = supervisor
        nursery.start_soon(bench.read, supervisor.dead_letters())
        bench.ref = await supervisor.spawn(bench.handle, name="actor", **options.spawn())
        for action, choice in [*steps, ("stop", 0), ("tick", 0), ("tick", 0), ("tick", 0), ("ask", 1)]:
            await bench.do(action, choice)
            await bench.rest()
        assert bench.model.is_ended
        assert bench.ref.statistics().ledger.balanced
        assert supervisor.ledger == bench.ref.statistics().ledger
    check_order(bench, options)
    for name in sorted(set(bench.outcomes.values())):
        event(name)


def check_order(bench, options):
    """Check that one worker begins with messages in the order in which they were sent, each time for the first time."""
    assert max((delivery for _, delivery in bench.begun), default=1) <= options.max_deliveries
    assert len(bench.begun) == len(set(bench.begun))
    if options.pool == 1:
        firsts = [number for number, delivery in bench.begun if delivery == 1]
        assert firsts == sorted(firsts)


@settings(max_examples=2 * settings.default.max_examples)
@given(options=options, steps=steps)
def test_an_actor_does_what_lists_would(options, steps):
    trio.run(drive, options, steps, clock=trio.testing.MockClock())


# The queue alone

MOVES = ["offer"] * 6 + ["take"] * 4 + ["put_back"] * 2 + ["withdraw", "withdraw", "drain"]
moves = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 11)), max_size=60)
mailboxes = options.map(lambda options: Mailbox(options.max_queued, options.overflow))


class Shelf:
    """A queue in three lists."""

    def __init__(self, mailbox):
        self.mailbox = mailbox
        self.room = 10_000 if mailbox.max_queued is None else mailbox.max_queued
        self.returned, self.queued, self.senders = [], [], []

    def offer(self, message):
        if len(self.queued) < self.room:
            self.queued.append(message)
            return Offer.QUEUED, None
        if self.mailbox.overflow == "wait":
            self.senders.append(message)
            return Offer.BLOCKED, None
        if self.mailbox.overflow == "reject":
            return Offer.REFUSED, None
        if self.mailbox.overflow == "drop_newest" or not self.queued:
            return Offer.DROPPED, None
        self.queued.append(message)
        return Offer.QUEUED, self.queued.pop(0)

    def take(self):
        for each in (self.returned, self.queued):
            if each:
                return each.pop(0)
        return None

    def admit(self):
        """Return everybody for whom there is room."""
        admitted = self.senders[: max(0, self.room - len(self.queued))]
        self.senders = self.senders[len(admitted) :]
        self.queued += admitted
        return admitted

    def withdraw(self, message):
        for each in (self.returned, self.queued, self.senders):
            if message in each:
                each.remove(message)
                return each is not self.senders
        return False

    def drain(self):
        drained = (*self.returned, *self.queued), tuple(self.senders)
        self.returned, self.queued, self.senders = [], [], []
        return drained


@given(mailbox=mailboxes, moves=moves)
def test_a_queue_does_what_lists_would(mailbox, moves):
    queue, shelf = MailQueue(mailbox), Shelf(mailbox)
    taken = []
    for number, (move, choice) in enumerate(moves, 1):
        if move == "offer":
            assert queue.offer(number) == shelf.offer(number)
        elif move == "take":
            message = queue.take()
            assert message == shelf.take()
            if message is None:
                message = queue.take_blocked()
                assert message == (shelf.senders.pop(0) if shelf.senders else None)
            taken += [message] if message else []
        elif move == "put_back" and taken:
            message = taken.pop(choice % len(taken))
            queue.put_back(message)
            shelf.returned.insert(0, message)
        elif move == "withdraw":
            known = [*shelf.returned, *shelf.queued, *shelf.senders, -1]
            message = known[choice % len(known)]
            assert queue.withdraw(message) is shelf.withdraw(message)
        elif move == "drain" and choice > 8:
            assert queue.drain() == shelf.drain()
        assert list(iter(queue.admit, None)) == shelf.admit()
        assert list(queue) == [*shelf.returned, *shelf.queued]
        assert len(queue) == len(shelf.returned) + len(shelf.queued)
        assert queue.blocked == len(shelf.senders)
        assert len(shelf.queued) <= shelf.room
