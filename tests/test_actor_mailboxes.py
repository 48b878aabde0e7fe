"""The mailboxes of resident actors: order, overflow, giving up, and what survives."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from mail_desk import Handler, get_busy, message, read, settle

from stageflow_actors import Backoff, Intensity, Mailbox, Restart, Supervisor
from stageflow_actors.errors import ActorDeadError, MailboxFullError
from stageflow_actors.statistics import ActorLedger, ActorStatistics

OFTEN = Intensity(100)
LATER = Restart(max_restarts=9, backoff=Backoff(initial=10, jitter=0))


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=OFTEN) as supervisor:
        yield supervisor


# Order


async def test_messages_are_handled_one_after_the_other_in_order(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a")
    for number in range(5):
        ref.tell_nowait(message(number))
    assert (await ref.ask(message(5), timeout=10)).data == {"number": 5}
    assert handler.handled == [0, 1, 2, 3, 4, 5]
    assert trio.current_time() == 6


async def test_each_senders_order_is_kept_through_a_full_mailbox_and_crashes(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1))

    async def send(letter):
        for number in range(6):
            await ref.tell(message((letter, number), crashes=number % 2))

    async with trio.open_nursery() as nursery:
        for letter in "abc":
            nursery.start_soon(send, letter)
    await ref.ask(message("last"), timeout=None)
    assert len(handler.handled) == 19
    for letter in "abc":
        own = [number for who, number in handler.handled[:-1] if who == letter]
        assert own == [0, 1, 2, 3, 4, 5]


async def test_asks_and_tells_share_a_line(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a")
    async with trio.open_nursery() as nursery:
        ref.tell_nowait(message(0))
        nursery.start_soon(ref.ask, message(1))
        await settle()
        await ref.tell(message(2))
        await ref.ask(message(3))
    assert handler.handled == [0, 1, 2, 3]


async def test_a_pool_takes_from_one_line(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", pool=3)
    for number in range(9):
        ref.tell_nowait(message(number))
    await trio.sleep(0.5)
    assert sorted(handler.handled) == [0, 1, 2]
    assert ref.statistics().queued == 6
    await trio.sleep(3)
    assert sorted(handler.handled) == list(range(9))
    assert trio.current_time() == 3.5


async def test_an_actor_with_much_to_do_lets_others_go_on(supervisor):
    seen = []

    async def work(ctx):
        seen.append(ctx.snapshot.data["number"])

    ref = await supervisor.spawn(work, name="a", mailbox=Mailbox(None))
    for number in range(1_000):
        ref.tell_nowait(message(number))
    passes = 0
    while len(seen) < 1_000:
        await trio.lowlevel.checkpoint()
        passes += 1
    assert passes >= 10
    assert seen == list(range(1_000))


# A full mailbox


async def test_a_sender_waits_for_room(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1))
    await get_busy(ref)
    await ref.tell(message("queued"))
    assert trio.current_time() == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.tell, message("blocked"))
        await settle()
        assert ref.statistics() == ActorStatistics(
            pool=1, workers=1, idle=0, queued=1, blocked=1, restarts=0, ledger=ActorLedger(accepted=2)
        )
    assert trio.current_time() == 1
    await trio.sleep(5)
    assert handler.handled == ["first", "queued", "blocked"]
    assert ref.statistics().ledger == ActorLedger(accepted=3, replied=3)


async def test_without_room_a_sender_waits_until_its_message_is_taken(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(0))
    await ref.tell(message("first"))
    assert trio.current_time() == 0
    await ref.tell(message("second"))
    assert trio.current_time() == 1
    assert ref.statistics().queued == ref.statistics().blocked == 0


async def test_tell_nowait_does_not_wait(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1))
    await get_busy(ref)
    ref.tell_nowait(message("queued"))
    with pytest.raises(MailboxFullError) as caught:
        ref.tell_nowait(message("refused"))
    assert str(caught.value) == (
        "actor 'a': its mailbox is full, 1 message of max_queued=1, and the message was refused; "
        "await tell(...), which waits for room"
    )
    assert (caught.value.actor, caught.value.limit, caught.value.max_queued) == ("a", 1, 1)
    await trio.sleep(5)
    assert handler.handled == ["first", "queued"]
    assert ref.statistics().ledger == ActorLedger(accepted=2, replied=2, rejected=1)


async def send(ref, how, *args):
    made = getattr(ref, how)(*args)
    return made if made is None else await made


@pytest.mark.parametrize("how", ["ask", "tell", "tell_nowait"])
@pytest.mark.parametrize("bound", [0, 2])
async def test_reject_refuses_the_newcomer(supervisor, handler, bound, how, autojump_clock):
    letters = supervisor.dead_letters()
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(bound, "reject"))
    await get_busy(ref)
    for number in range(bound):
        ref.tell_nowait(message(number))
    with pytest.raises(MailboxFullError) as caught:
        await send(ref, how, message("refused"))
    assert str(caught.value).startswith(
        f"actor 'a': its mailbox is full, {bound} messages of max_queued={bound}, and the message was refused; "
    )
    await trio.sleep(9)
    assert handler.handled == ["first", *range(bound)]
    assert ref.statistics().ledger == ActorLedger(accepted=1 + bound, replied=1 + bound, rejected=1)
    assert read(letters) == []


@pytest.mark.parametrize("how", ["ask", "tell", "tell_nowait"])
@pytest.mark.parametrize(("overflow", "bound"), [("drop_newest", 0), ("drop_newest", 2), ("drop_oldest", 0)])
async def test_the_newcomer_is_dropped(supervisor, handler, overflow, bound, how, autojump_clock):
    """Its asker is told at once; who only told it is not."""
    letters = supervisor.dead_letters()
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(bound, overflow))
    await get_busy(ref)
    for number in range(bound):
        ref.tell_nowait(message(number))
    if how == "ask":
        with pytest.raises(MailboxFullError, match="and the message was dropped; send less"):
            await ref.ask(message("dropped"))
        assert trio.current_time() == 0
    else:
        await send(ref, how, message("dropped"))
    await trio.sleep(9)
    assert handler.handled == ["first", *range(bound)]
    assert ref.statistics().ledger == ActorLedger(accepted=2 + bound, replied=1 + bound, overflow=1)
    assert read(letters) == [("dropped", "overflow")]


@pytest.mark.parametrize("how", ["tell", "tell_nowait"])
async def test_the_oldest_is_dropped_and_its_asker_told(supervisor, handler, how, autojump_clock):
    letters = supervisor.dead_letters()
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(2, "drop_oldest"))
    await get_busy(ref)

    async def ask():
        with pytest.raises(MailboxFullError) as caught:
            await ref.ask(message("oldest"))
        assert str(caught.value).startswith(
            "actor 'a': its mailbox is full, 2 messages of max_queued=2, and it was dropped for a newer message; "
        )
        assert trio.current_time() == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await settle()
        ref.tell_nowait(message("old"))
        await send(ref, how, message("new"))
    await send(ref, how, message("newest"))
    await trio.sleep(9)
    assert handler.handled == ["first", "new", "newest"]
    assert ref.statistics().ledger == ActorLedger(accepted=5, replied=3, overflow=2)
    assert read(letters) == [("oldest", "overflow"), ("old", "overflow")]


async def test_any_number_is_queued_without_a_bound(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(None), shutdown=0)
    for number in range(10_000):
        ref.tell_nowait(message(number))
    assert ref.statistics().queued == 9_999
    await ref.stop()
    assert ref.statistics().ledger.stopped == 9_999 + (not handler.handled)


# Giving up


@pytest.mark.parametrize("how", ["ask", "tell"])
@pytest.mark.parametrize("bound", [0, 1])
async def test_a_blocked_sender_that_is_cancelled_has_sent_nothing(supervisor, handler, bound, how, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(bound))
    await get_busy(ref)
    for number in range(bound):
        ref.tell_nowait(message(number))
    with trio.move_on_after(0.5) as scope:
        await send(ref, how, message("cancelled"))
    assert scope.cancelled_caught
    assert ref.statistics().blocked == 0
    await ref.tell(message("next"))
    await trio.sleep(9)
    assert handler.handled == ["first", *range(bound), "next"]
    assert ref.statistics().ledger == ActorLedger(accepted=2 + bound, replied=2 + bound)


async def test_a_queued_ask_that_is_cancelled_makes_room(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1))
    await get_busy(ref)
    async with trio.open_nursery() as nursery:

        async def ask():
            with trio.move_on_after(0.5):
                await ref.ask(message("cancelled"))

        nursery.start_soon(ask)
        await settle()
        await ref.tell(message("next"))
        assert trio.current_time() == 0.5
    await trio.sleep(9)
    assert handler.handled == ["first", "next"]
    assert ref.statistics().ledger == ActorLedger(accepted=3, replied=2, cancelled=1)


async def test_tell_is_a_checkpoint_also_where_there_is_room(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a")
    with trio.testing.assert_checkpoints():
        await ref.tell(message(0))
    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.tell(message(1))
    assert scope.cancelled_caught
    with trio.testing.assert_no_checkpoints():
        ref.tell_nowait(message(2))
    await trio.sleep(9)
    assert handler.handled == [0, 2]


async def test_those_who_wait_for_room_when_it_ends_are_told(supervisor, handler, autojump_clock):
    letters = supervisor.dead_letters()
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1))
    told = []

    async def try_to(how, number):
        try:
            await send(ref, how, message(number))
        except ActorDeadError as error:
            told.append((number, str(error)))

    async with trio.open_nursery() as nursery:
        await get_busy(ref)
        for how, number in (("ask", "queued"), ("tell", "blocked"), ("ask", "blocked too")):
            nursery.start_soon(try_to, how, number)
            await settle()
        await ref.stop()
    assert trio.current_time() == 1
    dead = "actor 'a': it was stopped; the message was not handled"
    assert sorted(told) == [(number, dead) for number in ("blocked", "blocked too", "queued")]
    assert handler.handled == ["first"]
    assert ref.statistics().ledger == ActorLedger(accepted=2, replied=1, stopped=1, no_recipient=2)
    assert read(letters) == [("queued", "stopped"), ("blocked", "no_recipient"), ("blocked too", "no_recipient")]


# What survives


@pytest.mark.parametrize("how", ["crash", "restart", "sibling", "supervisor"])
async def test_what_is_queued_survives(how, handler, autojump_clock):
    """A crash, a restart that is asked for or comes with a sibling, and the end of a child supervisor."""
    inner = Supervisor(scope="one_for_all", intensity=Intensity(0 if how == "supervisor" else 9))
    async with Supervisor(intensity=OFTEN) as supervisor:
        child = await supervisor.spawn_supervisor(inner, name="child")
        ref = await child.spawn(handler, name="a", mailbox=Mailbox(2))
        sibling = await child.spawn(handler, name="b")
        ref.tell_nowait(message(0, crashes=how in {"crash", "supervisor"}))
        await settle()
        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3, 4):
                nursery.start_soon(ref.tell, message(number))
                await settle()
            if how == "restart":
                nursery.start_soon(ref.restart)
            elif how == "sibling":
                sibling.tell_nowait(message("b", takes=0, crashes=1))
        assert await ref.ask(message(5))
        assert [number for number in handler.handled if number != "b"] == [0, 1, 2, 3, 4, 5]
        assert ref.statistics().ledger.balanced
        assert ref.statistics().restarts == 1


async def test_messages_come_while_it_is_down(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(handler, name="a", restart=LATER, mailbox=Mailbox(2))
    ref.tell_nowait(message(0, crashes=1))
    await trio.sleep(2)
    assert ref.statistics().workers == 0
    ref.tell_nowait(message(1))
    ref.tell_nowait(message(2))
    assert repr(ref) == "<ActorRef of 'a': 0 of 1 worker up, 2 messages queued>"
    with pytest.raises(MailboxFullError):
        ref.tell_nowait(message(3))
    await trio.sleep(20)
    assert handler.handled == [0, 1, 2]


async def test_what_is_delivered_again_is_first_and_counts_against_no_bound(supervisor, handler, autojump_clock):
    ref = await supervisor.spawn(
        handler, name="a", restart=LATER, mailbox=Mailbox(1, "drop_oldest"), max_deliveries=3, idempotent=True
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(ref.ask, message(0, crashes=2), timeout=None))
        await trio.sleep(2)
        for number in (1, 2):
            ref.tell_nowait(message(number))
        assert ref.statistics().queued == 2
    await trio.sleep(5)
    assert handler.handled == [0, 0, 0, 2]
    assert ref.statistics().ledger == ActorLedger(accepted=3, replied=2, overflow=1)
