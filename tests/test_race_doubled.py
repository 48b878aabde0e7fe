"""Messages that are delivered twice: where that may be, what the second delivery sees, and what becomes of it."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio
from race_cases import explore_all, find
from race_mail import AGAIN, agree, open_log, run_all, together

from stageflow_actors import Mailbox, PipelineValidationError, Supervisor
from stageflow_actors.errors import ActorDeadError
from stageflow_actors.testing import Doubled, explore, replay

FIRST = Doubled("log", at=1)
OFTEN = {"idempotent": True, "max_deliveries": 3}


async def ask_once(log, ref):
    await log.ask(ref, "asked")
    await trio.sleep(1)


def test_the_asker_has_the_first_reply_and_the_second_is_late():
    logs = run_all(ask_once, FIRST, **AGAIN)
    assert agree(logs, "seen", "ends") == [[("asked", 1), ("asked", 2)], {"asked": "reply 1"}]
    assert agree(logs, "letters") == [("late_reply", "asked")]
    assert {tuple(log.keys.values()) for log in logs} == {(2,)}
    for log in logs:
        assert (log.ledger.accepted, log.ledger.replied, log.ledger.late_reply) == (1, 1, 1)


def test_nobody_waits_for_the_second_reply_to_a_tell_nor_for_the_first():
    async def body(log, ref):
        await log.tell(ref, "told")
        await trio.sleep(1)

    logs = run_all(body, FIRST, **AGAIN)
    assert agree(logs, "seen", "letters") == [[("told", 1), ("told", 2)], []]
    assert {(log.ledger.accepted, log.ledger.replied) for log in logs} == {(1, 1)}


def test_between_the_two_it_is_queued_before_the_others():
    async def body(log, ref):
        await together((log.ask, ref, "first", 1), (log.ask, ref, "second"), (log.ask, ref, "third"))

    logs = run_all(body, FIRST, mailbox=Mailbox(2), **AGAIN)
    assert agree(logs, "seen") == [("first", 1), ("first", 2), ("second", 1), ("third", 1)]


def test_a_second_delivery_that_fails_for_good_is_poison():
    async def body(log, ref):
        await log.ask(ref, "asked", 0, "fail")
        await log.ask(ref, "next")

    logs = run_all(body, FIRST, **AGAIN)
    assert agree(logs, "ends") == {"asked": "reply 1", "next": "reply 1"}
    assert agree(logs, "letters") == [("poison", "asked")]
    assert {(log.ledger.accepted, log.ledger.replied, log.ledger.poison) for log in logs} == {(2, 1, 1)}


def test_a_second_delivery_that_fails_may_be_followed_by_a_third():
    async def body(log, ref):
        await log.ask(ref, "asked", 0, "fail", 0)
        await log.ask(ref, "next")

    logs = run_all(body, FIRST, **OFTEN)
    assert agree(logs, "seen") == [("asked", 1), ("asked", 2), ("asked", 3), ("next", 1)]
    assert agree(logs, "letters") == [("late_reply", "asked")]


@pytest.mark.parametrize(("options", "attempts"), [(AGAIN, 2), (OFTEN, 3)])
def test_no_message_is_delivered_more_often_than_it_may_be(options, attempts):
    async def body(log, ref):
        await log.ask(ref, "asked", "fail", 0)
        await log.ask(ref, "next")

    logs = run_all(body, FIRST, Doubled("log", at=1), **options)
    assert {len(log.seen) for log in logs} == {attempts + 1}
    assert agree(logs, "ends") == {"asked": "reply 2", "next": "reply 1"}


def test_two_faults_double_two_messages():
    async def anything():
        async with open_log(**OFTEN) as (log, ref):
            await log.ask(ref, "a")
            await log.ask(ref, "b")
        assert sorted(log.letters) == [("late_reply", name) for name in "ab" if (name, 2) in log.seen]
        seen.add("".join(f"{name}{attempt}" for name, attempt in log.seen))

    seen = set()
    explore(anything, clock="auto", faults=[Doubled("log"), Doubled("log")], max_executions=400).raise_for_failure()
    assert seen == {"a1b1", "a1a2b1", "a1b1b2", "a1a2b1b2"}


# Where it does not strike


def test_an_asker_that_has_given_up_makes_it_one_delivery():
    async def body(log, ref):
        await log.ask(ref, "asked", 2, timeout=1)
        await log.ask(ref, "next")

    logs = run_all(body, FIRST, **AGAIN)
    assert agree(logs, "seen") == [("asked", 1), ("next", 1)]
    assert agree(logs, "letters") == [("late_reply", "asked")]


def test_an_actor_that_ends_with_the_message_has_it_once():
    async def stop_itself(log, ref):
        await log.ask(ref, "asked", "stop")
        assert await ref.wait_stopped() is None

    async def be_stopped(log, ref):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.ask, ref, "asked", 1)
            await trio.sleep(0.5)
            await ref.stop()

    for body in (stop_itself, be_stopped):
        logs = run_all(body, FIRST, **AGAIN)
        assert agree(logs, "seen", "letters") == [[("asked", 1)], []]


async def count(ctx):
    return {"attempt": ctx.attempt}


async def count_one():
    async with Supervisor() as supervisor:
        below = await supervisor.spawn_supervisor(Supervisor(), name="shop")
        ref = await below.spawn(count, name="log")
        assert (await ref.ask()).data["attempt"] == 1


@pytest.mark.parametrize("at", [None, 1, 2])
def test_an_actor_that_is_named_and_delivers_nothing_twice_is_refused(at):
    fault = Doubled("shop/log", at=at)
    for call in (explore, partial(replay, schedule="0")):
        with pytest.raises(PipelineValidationError) as caught:
            call(count_one, faults=[fault])
        assert str(caught.value) == (
            f"{fault!r} can never strike: actor 'shop/log' delivers a message once, max_deliveries=1; "
            "spawn it with idempotent=True and max_deliveries=2, or leave the fault out"
        )


def test_any_actor_may_be_meant_though_some_deliver_nothing_twice():
    async def program():
        async with open_log(**AGAIN) as (log, ref):
            other = await log.supervisor.spawn(count, name="other")
            await other.ask(timeout=None)
            await log.ask(ref, "asked")
        seen.add(len(log.seen))

    seen = set()
    # The first message is the other's.
    for fault, expected in ((Doubled("*"), {1, 2}), (Doubled("*", at=1), {1}), (Doubled("*", at=2), {2})):
        seen.clear()
        explore(program, clock="auto", faults=[fault], max_executions=200).raise_for_failure()
        assert seen == expected


# With others


def test_a_stop_makes_it_a_dead_letter_between_the_two():
    """A restart lets the worker end with the first delivery; before it is up again, the actor is stopped."""

    async def restart(ref):
        with contextlib.suppress(ActorDeadError):
            await ref.restart()

    async def body(log, ref):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.ask, ref, "asked", 1)
            await trio.sleep(0.5)
            nursery.start_soon(restart, ref)
            await trio.sleep(0.5)
            await ref.stop()

    logs = run_all(body, FIRST, executions=400, **AGAIN)
    assert {tuple(log.letters) for log in logs} == {(), (("stopped", "asked"),), (("late_reply", "asked"),)}
    for log in logs:
        assert log.ends == {"asked": "reply 1"}
        assert (log.ledger.accepted, log.ledger.replied + log.ledger.stopped) == (1, 1)


def test_a_restart_between_the_two_delivers_it_to_the_new_instance():
    async def body(log, ref):
        await log.ask(ref, "asked")
        await ref.restart()
        await log.ask(ref, "next")

    logs = run_all(body, FIRST, **AGAIN)
    assert agree(logs, "seen") == [("asked", 1), ("asked", 2), ("next", 1)]


def test_a_pool_may_have_another_worker_do_it():
    async def body(log, ref):
        await together((log.ask, ref, "first", 1, 1), (log.ask, ref, "second", 3), (log.ask, ref, "third"))

    logs = run_all(body, FIRST, pool=2, **AGAIN)
    for log in logs:
        assert log.ends == {"first": "reply 1", "second": "reply 1", "third": "reply 1"}
        assert [each for each in log.seen if each[0] == "first"] == [("first", 1), ("first", 2)]


def adding(make_handler):
    """Return a program in which two sums are added to an account; it fails if that is not their sum."""

    async def keep_account():
        account = {"total": 0}
        async with Supervisor() as supervisor:
            ref = await supervisor.spawn(make_handler(account), name="account", **AGAIN)
            await ref.ask({"sum": 5}, timeout=None)
            await ref.ask({"sum": 2}, timeout=None)
        assert account["total"] == 7

    return keep_account


def add_always(account):
    async def add(ctx):
        account["total"] += ctx.snapshot.data["sum"]

    return add


def add_once(account):
    done = set()

    async def add(ctx):
        if ctx.idempotency_key not in done:
            done.add(ctx.idempotency_key)
            account["total"] += ctx.snapshot.data["sum"]

    return add


def test_a_handler_that_is_not_idempotent_though_it_says_so_is_found():
    explore_all(adding(add_always), clock="auto")
    failure = find(adding(add_always), faults=[Doubled("account")], clock="auto")
    assert (failure.faults, failure.preemptions, failure.minimal) == (1, 0, True)
    again = replay(adding(add_always), failure.schedule, faults=[Doubled("account")], clock="auto")
    assert again.trace == failure.trace


def test_one_that_remembers_what_it_did_holds_in_every_schedule():
    alone = explore_all(adding(add_once), clock="auto").executions
    assert explore_all(adding(add_once), faults=[Doubled("account")], clock="auto").executions > alone
    assert explore_all(adding(add_once), faults=[Doubled("account", at=2)], clock="auto").executions <= alone


def test_it_is_told_in_the_trace():
    failure = find(adding(add_always), faults=[Doubled("*")], clock="auto")
    (struck,) = [step for step in failure.trace if step.then == "struck by Doubled('*')"]
    assert struck.task == "account"
    assert struck.did in {f"the message {{'sum': {amount}}} to account is delivered again" for amount in (5, 2)}
    failure = find(adding(add_always), faults=[Doubled("*", at=2)], clock="auto")
    assert failure.faults == 0  # nothing was chosen
    assert "the message {'sum': 2} to account is delivered again, struck by Doubled('*', at=2)\n" in str(failure)
