"""Ending a child supervisor by itself: what ends with it, and who is told."""

from __future__ import annotations

import pytest
import trio

from stageflow_actors import Pipeline, RunEnding, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, UnknownActorError


async def work(ctx):
    await trio.sleep(ctx.snapshot.data.get("seconds", 0))
    return {"by": ctx.stage_name}


async def open_below(above, name="below"):
    return await above.spawn_supervisor(Supervisor(), name=name)


async def test_its_actors_end_with_it_and_those_above_live_on(autojump_clock):
    async with Supervisor() as above:
        beside = await above.spawn(work, name="beside")
        below = await open_below(above)
        first = await below.spawn(work, name="first")
        await below.stop()
        assert await first.wait_stopped() is None
        with pytest.raises(ActorDeadError) as caught:
            await first.ask()
        assert str(caught.value) == "actor 'below/first': its supervisor has ended; the message was not handled"
        assert (await beside.ask()).data["by"] == "beside"
        with pytest.raises(UnknownActorError):
            above.actor("below/first")


async def test_the_message_in_hand_has_its_time(autojump_clock):
    async with Supervisor() as above:
        below = await open_below(above)
        actor = await below.spawn(work, name="actor")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.ask, {"seconds": 3})
            await trio.testing.wait_all_tasks_blocked()
            await below.stop()
            assert trio.current_time() == 3


async def test_its_runs_are_cancelled(autojump_clock):
    async with Supervisor() as above:
        below = await open_below(above)
        run = below.start(Pipeline("p").with_stage("long", work), {"seconds": 1000})
        await trio.testing.wait_all_tasks_blocked()
        await below.stop()
        result = await run.result()
        assert result.ended.ending is RunEnding.CANCELLED
        assert result.ended.reason == "the supervisor was stopped"
        assert trio.current_time() == 0


async def test_afterwards_it_does_nothing_and_its_name_is_free(autojump_clock):
    async with Supervisor() as above:
        below = await open_below(above)
        await below.stop()
        await below.stop()
        with pytest.raises(ActorDeadError) as caught:
            await below.spawn(work, name="late")
        assert str(caught.value) == "actor 'below': the supervisor has ended"
        again = await open_below(above)
        assert (await (await again.spawn(work, name="a")).ask()).data["by"] == "below/a"


async def test_who_is_cancelled_while_it_waits_does_not_stop_the_stop(autojump_clock):
    async with Supervisor() as above:
        below = await open_below(above)
        actor = await below.spawn(work, name="actor")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(actor.ask, {"seconds": 3})
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1) as scope:
                await below.stop()
            assert scope.cancelled_caught
            assert await actor.wait_stopped() is None


async def test_one_with_a_block_of_its_own_is_not_stopped_by_this():
    supervisor = Supervisor()
    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            await supervisor.stop()
        assert str(caught.value) == (
            "a supervisor that was opened with `async with` ends with its block; stop() ends one below another"
        )


async def test_a_message_that_is_cut_at_its_second_delivery_is_not_said_to_have_raised(autojump_clock):
    async def work(ctx):
        if ctx.attempt == 1:
            raise ValueError("first")
        await trio.sleep_forever()

    async with Supervisor() as above:
        below = await open_below(above)
        actor = await below.spawn(work, name="a", idempotent=True, max_deliveries=3, shutdown=1)
        raised = []

        async def ask():
            with pytest.raises(Exception) as caught:  # noqa: PT011 (which one it is, is looked at)
                await actor.ask(timeout=None)
            raised.append(type(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await below.stop()
        assert raised == [ActorUnavailableError]
