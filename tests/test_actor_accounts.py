"""What is known of messages to resident actors: their keys, their dead letters, and the accounts of them."""

from __future__ import annotations

import pytest
import trio
from mail_desk import CrashError, Handler, get_busy, message, read

from stageflow_actors import Intensity, Mailbox, Supervisor
from stageflow_actors.errors import ActorDeadError
from stageflow_actors.statistics import ActorLedger

OFTEN = Intensity(100)


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=OFTEN) as supervisor:
        yield supervisor


async def test_a_key_is_the_same_for_all_deliveries_of_one_message(supervisor, autojump_clock):
    keys = []

    async def work(ctx):
        keys.append((ctx.snapshot.data["number"], ctx.attempt, ctx.idempotency_key))
        if ctx.snapshot.data["number"] == 1 and ctx.attempt < 3:
            raise CrashError

    for _ in range(2):
        ref = await supervisor.spawn(work, name="a", max_deliveries=3, idempotent=True)
        for number in range(3):
            await ref.ask(message(number))
        await ref.stop()
    assert [key[:2] for key in keys] == 2 * [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1)]
    assert len({key for _, _, key in keys}) == 6


async def test_dead_letters_say_everything(handler, autojump_clock):
    async with Supervisor() as supervisor, supervisor.dead_letters() as letters:
        await trio.sleep(1)
        child = await supervisor.spawn_supervisor(Supervisor(), name="child")
        ref = await child.spawn(handler, name="a")
        with trio.move_on_after(0.5):
            await ref.ask(message(0))
        await ref.stop()
        ref = await child.spawn(handler, name="b")
        await get_busy(ref)
        ref.tell_nowait(message(1))
        await ref.stop()
        with pytest.raises(ActorDeadError):
            ref.tell_nowait(message(2))
        told = [await anext(letters) for _ in range(3)]
        assert [(one.actor, one.reason, one.at) for one in told] == [
            ("child/a", "late_reply", 2.0),
            ("child/b", "stopped", 3.0),
            ("child/b", "no_recipient", 3.0),
        ]
        assert [one.snapshot.data["number"] for one in told] == [0, 1, 2]
        assert {one.stage for one in told} == {None}
        assert supervisor.ledger == ActorLedger(accepted=3, replied=2, stopped=1, late_reply=1, no_recipient=1)


async def test_a_slow_reader_misses_letters_and_the_ledger_none(handler, autojump_clock):
    async with Supervisor() as supervisor:
        letters = supervisor.dead_letters(max_queued=2)
        ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1, "drop_newest"))
        await get_busy(ref)
        for number in range(10):
            ref.tell_nowait(message(number))
        assert letters.dropped == 7
        assert read(letters) == [(1, "overflow"), (2, "overflow")]
        assert supervisor.ledger.overflow == 9
    assert supervisor.ledger == ActorLedger(accepted=11, replied=1, overflow=9, stopped=1)


async def test_the_ledger_of_a_supervisor_is_the_sum_of_all_that_are_and_were(handler, autojump_clock):
    async with Supervisor(intensity=OFTEN) as supervisor:
        child = await supervisor.spawn_supervisor(Supervisor(), name="child")
        refs = [await child.spawn(handler, name="a"), await supervisor.spawn(handler, name="b")]
        gone = await supervisor.spawn(handler, name="c")
        for ref in (*refs, gone, gone):
            await ref.ask(message(0))
        await gone.stop()
        with pytest.raises(ActorDeadError):
            await gone.ask(message(1))
        refs[0].tell_nowait(message(2, crashes=1))
        assert supervisor.ledger == ActorLedger(accepted=5, replied=4, no_recipient=1)
        assert (supervisor.ledger.pending, supervisor.ledger.balanced) == (1, False)
    assert supervisor.ledger == ActorLedger(accepted=5, replied=4, failed=1, no_recipient=1)
    assert child.ledger == ActorLedger(accepted=2, replied=1, failed=1)


def test_an_account_balances_when_every_message_has_ended():
    ledger = ActorLedger(accepted=7, replied=1, failed=1, cancelled=1, overflow=1, stopped=1, poison=1)
    assert (ledger.pending, ledger.balanced) == (1, False)
    beside = ActorLedger(late_reply=3, no_recipient=4, rejected=5)
    assert beside.balanced
    total = ledger + beside + ActorLedger(replied=1)
    assert total.balanced
    assert (total.late_reply, total.no_recipient, total.rejected) == (3, 4, 5)


async def test_a_message_is_frozen_when_it_is_sent(supervisor, autojump_clock):
    seen = []

    async def work(ctx):
        seen.append(ctx.snapshot.data["rows"])

    ref = await supervisor.spawn(work, name="a")
    rows = [1]
    ref.tell_nowait({"rows": rows})
    rows.append(2)
    await ref.ask({"rows": rows})
    assert seen == [(1,), (1, 2)]
