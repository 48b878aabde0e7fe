"""What the tests of message faults share: an actor that writes down what it is told, and who hears what of it."""

from __future__ import annotations

import contextlib
from collections import Counter

import trio
import trio.testing

from stageflow_actors import Intensity, Mailbox, Supervisor
from stageflow_actors.errors import ActorError, MailboxFullError
from stageflow_actors.testing import explore

AGAIN = {"idempotent": True, "max_deliveries": 2}


class BrokenError(Exception):
    """What the actor raises that is told to."""


class Log:
    """An actor that writes down what it is told, and what became of who told it."""

    def __init__(self):
        self.seen = []
        """What it has begun with: name and attempt."""
        self.sent = {}
        """When each was sent, by name."""
        self.at = {}
        """When the actor began with it, the last time."""
        self.keys = Counter()
        self.ends = {}
        """What became of who sent it, by name: `reply`, `told`, or the name of an error."""
        self.letters = []
        """Dead letters: reason and name."""

    async def handle(self, ctx):
        data = ctx.snapshot.data
        self.seen.append((data["name"], ctx.attempt))
        self.at[data["name"]] = trio.current_time()
        self.keys[ctx.idempotency_key] += 1
        how = data["how"][min(ctx.attempt, len(data["how"])) - 1]
        if how == "fail":
            raise BrokenError
        if how == "stop":
            ctx.stop()
        elif how:
            await trio.sleep(how)
        return {"attempt": ctx.attempt}

    async def send(self, call, name, *how, **options):
        """Ask or tell, `call`, so that the actor does so in each delivery: fails, stops, sleeps for some seconds."""
        assert name not in self.sent
        self.sent[name] = trio.current_time()
        try:
            reply = await call({"name": name, "how": how or (0,)}, **options)
        except (ActorError, MailboxFullError, BrokenError) as error:
            self.ends[name] = type(error).__name__.removesuffix("Error")
        except trio.Cancelled:
            self.ends[name] = "Cancelled"
            raise
        else:
            self.ends[name] = "told" if reply is None else f"reply {reply.data['attempt']}"

    async def ask(self, ref, name, *how, timeout=None):
        await self.send(ref.ask, name, *how, timeout=timeout)

    async def tell(self, ref, name, *how):
        await self.send(ref.tell, name, *how)

    def tell_nowait(self, ref, name):
        self.sent[name] = trio.current_time()
        try:
            ref.tell_nowait({"name": name, "how": (0,)})
        except MailboxFullError:
            self.ends[name] = "MailboxFull"
        else:
            self.ends[name] = "told"


@contextlib.asynccontextmanager
async def open_log(**options):
    """Open a supervisor with an actor `log`; when all is over, collect the letters and check the account."""
    log = Log()
    async with Supervisor(intensity=Intensity(10)) as supervisor:
        log.supervisor = supervisor
        letters = supervisor.dead_letters()
        yield log, await supervisor.spawn(log.handle, name="log", **options)
    async for letter in letters:
        log.letters.append((letter.reason, letter.snapshot.data["name"]))
    log.ledger = supervisor.ledger
    assert log.ledger.balanced
    counts = Counter(reason for reason, _ in log.letters)
    for reason in ("overflow", "stopped", "poison", "late_reply", "no_recipient"):
        assert counts[reason] == getattr(log.ledger, reason)


FEW = 150
"""Executions of a program that has too many schedules for all of them."""


def run_all(body, *faults, executions=FEW, **options):
    """Run a body with a log and its actor under many schedules with these faults; return each of the logs."""
    logs = []

    async def program():
        async with open_log(**options) as (log, ref):
            await body(log, ref)
        logs.append(log)

    explore(program, faults=faults, clock="auto", max_executions=executions).raise_for_failure()
    return logs


def agree(logs, *names):
    """Return what attributes of the logs are, which must be the same in all of them."""
    first, *others = ([getattr(log, name) for name in names] for log in logs)
    for other in others:
        assert other == first
    return first[0] if len(names) == 1 else first


async def together(*calls):
    """Run async calls, each a function with its arguments, in tasks of their own that start in this order."""
    async with trio.open_nursery() as nursery:
        for function, *args in calls:
            nursery.start_soon(function, *args)
            await trio.testing.wait_all_tasks_blocked()


SMALL = {overflow: Mailbox(1, overflow=overflow) for overflow in ("wait", "reject", "drop_newest", "drop_oldest")}
