"""Messages that find the mailbox full: what each policy makes of them, and what their senders hear."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from race_cases import explore_all, find
from race_mail import SMALL, agree, open_log, run_all, together

from stageflow_actors import Mailbox, PipelineValidationError, Supervisor
from stageflow_actors.errors import MailboxFullError
from stageflow_actors.testing import Dropped, Late, explore, replay

FIRST = Dropped("log", at=1)
MAILBOXES = {overflow: Mailbox(overflow=overflow) for overflow in ("wait", "reject", "drop_newest", "drop_oldest")}


@pytest.mark.parametrize(
    ("overflow", "ask", "tell", "nowait"),
    [
        ("reject", "MailboxFull", "MailboxFull", "MailboxFull"),
        ("drop_newest", "MailboxFull", "told", "told"),
        ("drop_oldest", "MailboxFull", "told", "told"),
        ("wait", "reply 1", "told", "MailboxFull"),
    ],
)
def test_what_each_policy_makes_of_it(overflow, ask, tell, nowait):
    async def asking(log, ref):
        await log.ask(ref, "it")

    async def telling(log, ref):
        await log.tell(ref, "it")
        await trio.sleep(1)

    async def telling_at_once(log, ref):
        log.tell_nowait(ref, "it")
        await trio.sleep(1)

    for body, end in ((asking, ask), (telling, tell), (telling_at_once, nowait)):
        logs = run_all(body, FIRST, mailbox=MAILBOXES[overflow])
        assert agree(logs, "ends") == {"it": end}
        handled = overflow == "wait" and end != "MailboxFull"
        dropped = overflow.startswith("drop")
        assert agree(logs, "seen") == [("it", 1)] * handled
        assert agree(logs, "letters") == [("overflow", "it")] * dropped
        for log in logs:
            ledger = log.ledger
            assert (ledger.replied, ledger.overflow) == (handled, dropped)
            assert (ledger.accepted, ledger.rejected) == (handled + dropped, not handled and not dropped)


def test_the_one_that_was_queued_for_longest_is_dropped_for_it():
    async def body(log, ref):
        await together((log.ask, ref, "in hand", 1), (log.ask, ref, "old"), (log.ask, ref, "new"), (log.ask, ref, "it"))

    logs = run_all(body, Dropped("log", at=4), mailbox=MAILBOXES["drop_oldest"])
    assert agree(logs, "seen") == [("in hand", 1), ("new", 1), ("it", 1)]
    assert agree(logs, "letters") == [("overflow", "old")]
    assert agree(logs, "ends") == {
        "in hand": "reply 1",
        "old": "MailboxFull",
        "new": "reply 1",
        "it": "reply 1",
    }


def test_nothing_befalls_a_message_that_finds_the_mailbox_full_anyway():
    async def program():
        async with open_log(mailbox=SMALL["reject"]) as (log, ref):
            await together((log.ask, ref, "in hand", 1), (log.ask, ref, "queued"), (log.ask, ref, "it"))
        assert log.ends == {"in hand": "reply 1", "queued": "reply 1", "it": "MailboxFull"}

    alone = explore(program, clock="auto", max_executions=50)
    alone.raise_for_failure()
    struck = explore(program, clock="auto", max_executions=50, faults=[Dropped("log", at=3)])
    struck.raise_for_failure()


# A mailbox in which senders wait


def test_its_sender_waits_while_others_have_a_turn():
    """And no order between them is promised; its own stays."""
    orders = set()

    async def program():
        async with open_log() as (log, ref):

            async def send():
                await log.tell(ref, "a1")
                await log.tell(ref, "a2")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(log.tell, ref, "b")
            await trio.sleep(1)
        orders.add(tuple(name for name, _ in log.seen))

    explore(program, clock="auto", faults=[FIRST], max_executions=300).raise_for_failure()
    assert orders == {("a1", "a2", "b"), ("a1", "b", "a2"), ("b", "a1", "a2")}


def test_a_sender_that_waits_may_be_cancelled_and_has_sent_nothing():
    async def body(log, ref):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.tell, ref, "it")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

    logs = run_all(body, FIRST, executions=400)
    assert {(log.ends["it"], len(log.seen), log.ledger.accepted) for log in logs} <= {
        ("Cancelled", 0, 0),
        ("told", 1, 1),
        ("told", 0, 1),
    }
    assert all(log.letters in ([], [("stopped", "it")]) for log in logs)


def test_a_sender_that_waits_hears_of_the_end():
    async def body(log, ref):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.tell, ref, "it")
            nursery.start_soon(ref.stop)

    logs = run_all(body, FIRST, executions=400)
    assert {(log.ends["it"], *log.letters) for log in logs} == {
        ("told",),
        ("told", ("stopped", "it")),
        ("ActorDead", ("no_recipient", "it")),
    }


def test_an_actor_that_tells_itself_cannot_wait():
    async def program():
        async with Supervisor() as supervisor:

            async def tell_itself(_ctx):
                await supervisor.actor("self").tell()

            ref = await supervisor.spawn(tell_itself, name="self")
            await ref.ask(timeout=None)

    failure = find(program, clock="auto", faults=[Dropped("self", at=2)])
    assert "actor 'self' cannot wait for room in its own mailbox" in str(failure.error)


# Where it does not strike


@pytest.mark.parametrize("at", [None, 1])
def test_a_mailbox_that_is_named_and_never_full_is_refused(at):
    async def program():
        async with open_log(mailbox=Mailbox(None)) as (log, ref):
            await log.ask(ref, "it")
        assert log.ends == {"it": "reply 1"}

    with pytest.raises(PipelineValidationError) as caught:
        explore(program, faults=[Dropped("log", at=at)])
    assert str(caught.value) == (
        f"{Dropped('log', at=at)!r} can never strike: actor 'log' has a mailbox that is never full, max_queued=None; "
        "give its Mailbox a max_queued, or leave the fault out"
    )
    explore(program, clock="auto", faults=[Dropped("*", at=at)], max_executions=50).raise_for_failure()


def test_a_message_to_an_actor_that_has_ended():
    async def body(log, ref):
        await ref.stop()
        await log.ask(ref, "it")

    for fault in (FIRST, Late("log", at=1), Dropped("log"), Late("log")):
        logs = run_all(body, fault, mailbox=MAILBOXES["reject"])
        assert agree(logs, "ends") == {"it": "ActorDead"}


# Found


def asking(handles):
    async def client():
        async with open_log(mailbox=Mailbox(4, overflow="reject")) as (log, ref):
            answered = False
            while not answered:
                try:
                    answered = await ref.ask({"name": "it", "how": (0,)}, timeout=None)
                except MailboxFullError:
                    if not handles:
                        raise
                    await trio.sleep(1)
            assert log.seen == [("it", 1)]

    return client


def test_a_client_that_never_thinks_of_a_full_mailbox_is_found():
    explore_all(asking(handles=False), clock="auto")
    failure = find(asking(handles=False), clock="auto", faults=[Dropped("log")])
    assert failure.faults == 1
    assert "MailboxFullError: actor 'log': its mailbox is full, 4 messages of max_queued=4" in str(failure)
    (struck,) = [step for step in failure.trace if step.then == "struck by Dropped('log')"]
    assert struck.task == "client"
    assert struck.did == "the message {'name': 'it', 'how': (0,)} to log finds the mailbox full"
    again = replay(asking(handles=False), failure.schedule, clock="auto", faults=[Dropped("log")])
    assert again.trace == failure.trace


def test_one_that_tries_again_holds_in_every_schedule():
    explore_all(asking(handles=True), clock="auto", faults=[Dropped("log"), Dropped("log")])
