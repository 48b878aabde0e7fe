"""Senders that write down what comes of each message, actors that do what their messages say, and what must hold."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict

import trio

from stageflow_actors import AskTimeoutError, Intensity, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, InjectedError, MailboxFullError
from stageflow_actors.testing import explore

from .explored import take_steps
from .mailbox_model import ERRORS

OUTCOMES = {
    AskTimeoutError: "timeout",
    ActorDeadError: "dead",
    ActorUnavailableError: "unavailable",
    MailboxFullError: "full",
    **dict.fromkeys([*ERRORS.values(), InjectedError], "error"),
}
NOT_BEGUN = {"dead", "full", "withdrawn"}
"""What only a sender is told whose message no worker has begun with, or ever will."""
BEGUN = {"reply", "error", "unavailable", "begun"}
"""What only a sender is told whose message a worker has begun with. The rest says nothing: `told`, `cancelled`."""


class Desk:
    """Sends messages in the name of senders, handles them, and keeps the books that a ledger is compared with."""

    def __init__(self, supervisor):
        self._supervisor = supervisor
        self._stream = supervisor.dead_letters(max_queued=10_000)
        self.sent = []
        """Of (actor, sender, number), in the order of sending."""
        self.kinds = {}
        self.outcomes = {}
        self.begun = []
        """Of (actor, number, delivery), in the order in which workers began with them."""
        self.ended = Counter()
        """How each delivery ended that came to its own end."""
        self.letters = defaultdict(list)
        self.most = {}
        """How often each actor may deliver a message; of an actor that is not in here, once."""
        self.pools = set()
        """The actors whose order nobody promises."""

    # Handling

    async def handle(self, ctx):
        """Do what the message says of this delivery; what it says of the last one counts for later ones."""
        data = ctx.snapshot.data
        number, script = data["number"], data["script"]
        self.begun.append((data["actor"], number, ctx.attempt))
        assert ctx.attempt == sum(other == number for _, other, _ in self.begun)
        how = script[min(ctx.attempt, len(script)) - 1]
        try:
            for part in how.split():
                await self._act(ctx, part)
        except trio.Cancelled:
            self.ended["cancelled"] += 1
            raise
        except BaseException:
            self.ended["raised"] += 1
            raise
        self.ended["returned"] += 1
        return {"number": number, "attempt": ctx.attempt}

    async def _act(self, ctx, part):
        if part in ERRORS:
            raise ERRORS[part](ctx.snapshot.data["number"])
        if part == "stop":
            ctx.stop()
        elif part == "step":
            await trio.lowlevel.checkpoint()
        elif part == "hang":
            await trio.sleep_forever()
        elif part.startswith("sleep"):
            await trio.sleep(float(part.removeprefix("sleep")))
        else:
            assert part == "reply"

    # Sending

    async def ask(self, ref, number, *script, sender=None, timeout=None, scope=None):
        """Ask, and note in which way that ended."""
        message = self._note(ref, "ask", number, script, sender)
        with scope or contextlib.nullcontext():
            try:
                await ref.ask(message, timeout=timeout)
            except tuple(OUTCOMES) as error:
                outcome = OUTCOMES[type(error)]
                if outcome == "timeout":
                    outcome = "begun" if "it has begun" in str(error) else "withdrawn"
                self._conclude(number, outcome)
            except trio.Cancelled:
                self._conclude(number, "cancelled")
                raise
            else:
                self._conclude(number, "reply")
        return self.outcomes[number]

    async def tell(self, ref, number, *script, sender=None, scope=None):
        """Tell, and note whether it was accepted."""
        message = self._note(ref, "tell", number, script, sender)
        with scope or contextlib.nullcontext():
            try:
                await ref.tell(message)
            except tuple(OUTCOMES) as error:
                self._conclude(number, OUTCOMES[type(error)])
            except trio.Cancelled:
                self._conclude(number, "cancelled")
                raise
            else:
                self._conclude(number, "told")
        return self.outcomes[number]

    def tell_nowait(self, ref, number, *script, sender=None):
        """Tell without waiting, and note whether it was accepted."""
        message = self._note(ref, "nowait", number, script, sender)
        try:
            ref.tell_nowait(message)
        except tuple(OUTCOMES) as error:
            self._conclude(number, OUTCOMES[type(error)])
        else:
            self._conclude(number, "told")
        return self.outcomes[number]

    def note_stage(self, ref, number, *script):
        """Note a message that a run is to send, whose asker is the run; return the run's snapshot."""
        self.outcomes[number] = "run"
        return self._note(ref, "stage", number, script, None)

    def _note(self, ref, kind, number, script, sender):
        assert number not in self.kinds
        self.kinds[number] = kind
        self.sent.append((ref.name, sender, number))
        return {"number": number, "script": script or ("reply",), "actor": ref.name}

    def _conclude(self, number, outcome):
        assert number not in self.outcomes, f"{number} ended with {self.outcomes[number]} and with {outcome}"
        self.outcomes[number] = outcome

    def lost(self, reason):
        """Return the messages that are dead letters for this reason so far."""
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                letter = self._stream._receive.receive_nowait()
                self.letters[letter.reason].append(letter.snapshot.data["number"])
        return self.letters[reason]

    # What must hold

    def count_begun(self, number):
        """Return how often a message was handled."""
        return sum(other == number for _, other, _ in self.begun)

    def check(self):
        """Check everything that must hold of a world that is over."""
        ledger = self._supervisor.ledger
        assert set(self.outcomes) == set(self.kinds)
        begun = Counter(number for _, number, _ in self.begun)
        for actor, _, number in self.sent:
            outcome = self.outcomes[number]
            assert begun[number] <= self.most.get(actor, 1)
            assert not (outcome in NOT_BEGUN and begun[number]), f"{number}: {outcome}, but handled"
            assert not (outcome in BEGUN and not begun[number]), f"{number}: {outcome}, but never handled"
        self._check_ledger(ledger)
        self._check_order()

    def _check_ledger(self, ledger):
        assert self._stream.dropped == 0
        assert ledger.balanced
        assert all(count >= 0 for count in (ledger.accepted, ledger.pending))
        told = Counter(self.outcomes.values())
        for reason in ("overflow", "stopped", "poison", "late_reply"):
            numbers = self.lost(reason)
            assert len(numbers) == len(set(numbers)) == getattr(ledger, reason), reason
        assert len(self.lost("no_recipient")) <= ledger.no_recipient  # nobody listens any more after the end
        ended = [number for reason in ("overflow", "stopped", "poison") for number in self.letters[reason]]
        assert len(ended) == len(set(ended))
        arrived = ledger.accepted + ledger.rejected + ledger.no_recipient
        unknown = told["cancelled"] + told["withdrawn"] + told["run"]
        assert len(self.sent) - unknown <= arrived <= len(self.sent)
        assert ledger.replied == self.ended["returned"]
        assert told["reply"] <= ledger.replied
        assert ledger.late_reply <= told["begun"] + told["cancelled"] + told["run"]
        assert ledger.failed + ledger.poison <= self.ended["raised"]
        assert ledger.rejected <= told["full"] + told["run"]

    def _check_order(self):
        """Check that what one sender sent to one actor, no pool, was begun with in that order, the first time."""
        firsts = defaultdict(list)
        for actor, number, delivery in self.begun:
            if delivery == 1:
                firsts[actor].append(number)
        lines = defaultdict(list)
        for actor, sender, number in self.sent:
            if sender is not None and actor not in self.pools:
                lines[actor, sender].append(number)
        for (actor, _), line in lines.items():
            begun = [number for number in firsts[actor] if number in set(line)]
            assert begun == [number for number in line if number in set(begun)]


@contextlib.asynccontextmanager
async def open_desk(supervisor):
    """Open a supervisor with a desk that hears of its dead letters, and check the books when all is over."""
    async with supervisor:
        desk = Desk(supervisor)
        yield desk
    desk.check()


async def spawn(supervisor, desk, name="actor", **options):
    """Spawn an actor that does what its messages say."""
    ref = await supervisor.spawn(desk.handle, name=name, **options)
    desk.most[ref.name] = options.get("max_deliveries", 1)
    if options.get("pool", 1) > 1:
        desk.pools.add(ref.name)
    return ref


def explore_all(body, *, clock="auto", **options):
    """Run a body with an actor in every schedule that there is, and return how many these are.

    The body is given the desk, the actor and a nursery. The supervisor outlasts both.
    """

    async def program():
        supervisor = Supervisor(intensity=Intensity(100))
        async with open_desk(supervisor) as desk:
            ref = await spawn(supervisor, desk, **options)
            async with trio.open_nursery() as nursery:
                await body(desk, ref, nursery)

    report = explore(program, max_executions=5_000, strategy="dfs", clock=clock)
    assert report.failure is None, str(report)
    assert report.complete, str(report)
    return report.executions


async def later(steps, function, *args):
    """Call a function after so many steps; wait for it where it is async."""
    await take_steps(steps)
    made = function(*args)
    if made is not None:
        await made
