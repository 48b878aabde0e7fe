"""Messages that are delivered again: as often as they may be, and for as long as anybody wants them."""

from __future__ import annotations

import pytest
import trio

from stageflow_actors import AskTimeoutError, Backoff, Intensity, Restart, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, NotFreezableError
from stageflow_actors.statistics import ActorLedger

OFTEN = Intensity(100)
LATER = Restart(max_restarts=9, backoff=Backoff(initial=10, jitter=0))


class CrashError(Exception):
    pass


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=OFTEN) as supervisor:
        yield supervisor


async def later(seconds, function):
    await trio.sleep(seconds)
    await function()


@pytest.mark.parametrize(("crashes", "deliveries"), [(0, 1), (1, 2), (2, 3), (3, 3), (9, 3)])
async def test_a_message_is_delivered_as_often_as_it_may_be(supervisor, crashes, deliveries, autojump_clock):
    seen = []
    letters = supervisor.dead_letters()

    async def work(ctx):
        seen.append(ctx.attempt)
        if ctx.attempt <= crashes:
            raise CrashError(ctx.attempt)
        return {"attempt": ctx.attempt}

    ref = await supervisor.spawn(work, name="a", max_deliveries=3, idempotent=True)
    if crashes < 3:
        assert (await ref.ask()).data == {"attempt": deliveries}
        assert supervisor.ledger == ActorLedger(accepted=1, replied=1)
    else:
        with pytest.raises(CrashError, match="3"):
            await ref.ask()
        assert supervisor.ledger == ActorLedger(accepted=1, poison=1)
        assert (await anext(letters)).reason == "poison"
    assert seen == [1, 2, 3][:deliveries]


async def test_without_leave_a_message_is_never_delivered_twice(supervisor):
    seen = []

    async def work(ctx):
        seen.append(ctx.attempt)
        raise CrashError

    ref = await supervisor.spawn(work, name="a")
    with pytest.raises(CrashError):
        await ref.ask()
    assert seen == [1]
    assert supervisor.ledger == ActorLedger(accepted=1, failed=1)


async def test_an_asker_that_gives_up_meanwhile_withdraws_its_message(supervisor, autojump_clock):
    seen = []

    async def work(ctx):
        seen.append(ctx.attempt)
        raise CrashError

    ref = await supervisor.spawn(work, name="a", restart=LATER, max_deliveries=3, idempotent=True)
    with pytest.raises(AskTimeoutError, match="it has begun with the message"):
        await ref.ask()
    assert ref.statistics().queued == 0
    await trio.sleep(99)
    assert seen == [1]
    assert supervisor.ledger == ActorLedger(accepted=1, cancelled=1)


async def test_an_actor_that_ends_before_it_delivers_a_message_again_may_have_handled_it(autojump_clock):
    """It was cut short for a sibling, which backs off: the message was begun with, and nobody knows how far it got."""
    seen = []

    async def work(ctx):
        seen.append(ctx.attempt)
        await trio.sleep_forever()

    async def fail(_ctx):
        await trio.sleep(1)
        raise CrashError

    async with Supervisor(scope="one_for_all", intensity=OFTEN) as supervisor:
        sibling = await supervisor.spawn(fail, name="sibling", restart=LATER)
        ref = await supervisor.spawn(work, name="a", max_deliveries=3, idempotent=True, shutdown=1)
        sibling.tell_nowait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 4, ref.stop)
            with pytest.raises(ActorUnavailableError, match="which it may have done in part"):
                await ref.ask(timeout=None)
        assert trio.current_time() == 4
        assert ref.statistics().ledger == ActorLedger(accepted=1, stopped=1)
    assert seen == [1]


async def test_so_may_one_that_failed_in_the_background(supervisor, autojump_clock):
    class Work:
        async def __aenter__(self):
            self.manager = trio.open_nursery()
            self.nursery = await self.manager.__aenter__()

        async def __aexit__(self, *exc):
            return await self.manager.__aexit__(*exc)

        async def fail(self):
            await trio.sleep(1)
            raise CrashError("background")

        async def execute(self, _ctx):
            self.nursery.start_soon(self.fail)
            await trio.sleep_forever()

    ref = await supervisor.spawn(Work, name="a", policy="temporary", max_deliveries=3, idempotent=True)
    with pytest.raises((ActorUnavailableError, ExceptionGroup)):
        await ref.ask()
    with pytest.raises(ActorDeadError, match="the message was not handled"):
        await ref.ask()
    assert ref.statistics().ledger.balanced


async def test_what_would_go_wrong_again_is_not_delivered_again(supervisor):
    """Also where it comes out of a nursery, in a group."""
    seen = []

    async def fail():
        raise NotFreezableError("it is soft")

    async def work(ctx):
        seen.append(ctx.attempt)
        if ctx.snapshot.data.get("alone"):
            await fail()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)

    ref = await supervisor.spawn(work, name="a", max_deliveries=3, idempotent=True)
    with pytest.raises(NotFreezableError):
        await ref.ask({"alone": True})
    with pytest.raises(ExceptionGroup):
        await ref.ask()
    assert seen == [1, 1]
    assert supervisor.ledger == ActorLedger(accepted=2, failed=2)
