"""Asks: those that are small enough for every schedule, and those in which three things happen at once."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from property_tests.actor_world import later, open_desk, spawn
from property_tests.test_explored_asks import (
    AGAIN,
    ENDS,
    LATER,
    OFTEN,
    RESUME,
    be_delivered_again,
    be_delivered_again_or_time_out,
    be_poison,
    cancel,
    crash_and_go_on,
    restart,
    stop,
    time_out,
)
from stageflow_actors import Intensity, Mailbox, Supervisor
from stageflow_actors.errors import ActorDeadError, AskTimeoutError
from stageflow_actors.testing import race_test

SMALL = [(body, {}) for body in (time_out, cancel, stop, restart, crash_and_go_on)]
SMALL += [(body, AGAIN) for body in (be_delivered_again, be_poison, be_delivered_again_or_time_out)]


SMALL += [(body, {**options, "pool": 2}) for body, options in SMALL if body is not crash_and_go_on]  # which wants order


@pytest.mark.parametrize(("body", "options"), SMALL)
@race_test
async def test_one_ask_and_one_thing_besides(body, options):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, **options)
        async with trio.open_nursery() as nursery:
            await body(desk, ref, nursery)


@pytest.mark.parametrize("what", ["stop", "restart"])
@pytest.mark.parametrize("script", ["step", "step crash", "sleep1", "step stop"])
@race_test
async def test_two_asks_with_little_patience_and_an_actor_that_is_stopped_or_restarted(script, what):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.ask, ref, 0, script, timeout=1))
            nursery.start_soon(partial(desk.ask, ref, 1, script, timeout=2))
            nursery.start_soon(later, 1, partial(_act, ref, what))
        assert set(desk.outcomes.values()) <= ENDS
        assert what == "stop" or script == "step stop" or ref.statistics().restarts >= 1


async def _act(ref, what):
    try:
        await getattr(ref, what)()
    except ActorDeadError:
        assert what == "restart"


@pytest.mark.parametrize("pool", [1, 2])
@race_test
async def test_a_pool_that_is_asked_cancelled_crashed_and_restarted(pool):
    supervisor = Supervisor(intensity=OFTEN)
    scope = trio.CancelScope()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, pool=pool, restart=LATER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.ask, ref, 0, "step crash"))
            nursery.start_soon(partial(desk.ask, ref, 1, "step", scope=scope))
            nursery.start_soon(later, 2, scope.cancel)
            nursery.start_soon(ref.restart)
        await desk.ask(ref, 2)
        await ref.restart()  # the one that crashed may still back off
        assert desk.outcomes[0] in {"error", "unavailable"}
        assert desk.outcomes[1] in {"reply", "cancelled", "unavailable"}
        assert desk.outcomes[2] == "reply"
        assert ref.statistics().workers == pool


@race_test
async def test_an_actor_that_resumes_keeps_what_it_has():
    """It fails who asked, and neither restarts nor forgets who is queued."""
    supervisor = Supervisor(intensity=Intensity(0))
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, restart=RESUME)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step shrug")
            nursery.start_soon(desk.ask, ref, 1, "step")
            nursery.start_soon(partial(desk.ask, ref, 2, "shrug", timeout=1))
        assert desk.outcomes[0] == "error"
        assert desk.outcomes[1] == "reply"
        assert desk.outcomes[2] in {"error", "begun", "withdrawn"}
        assert ref.statistics().restarts == 0


@pytest.mark.parametrize("way", ["stop", "restart", "crash"])
@race_test
async def test_an_actor_that_asks_another_which_goes_away(way):
    """The one that asks hears of it and tells its own asker; both go on, where they may."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        inner = await spawn(supervisor, desk, "inner", shutdown=2)

        async def ask_on(_ctx):
            return {"outcome": await desk.ask(inner, 1, "step crash" if way == "crash" else "step", timeout=2)}

        outer = await supervisor.spawn(ask_on, name="outer", shutdown=9)
        replies = []

        async def ask():
            replies.append((await outer.ask(timeout=None)).data["outcome"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            if way != "crash":
                nursery.start_soon(_act, inner, way)
        assert replies == [desk.outcomes[1]]
        assert replies[0] in {"reply", "dead", "unavailable", "error", "begun", "withdrawn"}
        if way != "stop":
            await desk.ask(inner, 2)
            assert desk.outcomes[2] == "reply"
        desk.sent.append((outer.name, None, "asked from outside"))
        desk.kinds["asked from outside"] = "ask"
        desk.outcomes["asked from outside"] = "run"
        desk.ended["returned"] += 1


@race_test
async def test_two_actors_ask_each_other_and_one_loses_its_patience():
    """No deadlock lasts longer than a timeout."""
    async with Supervisor(intensity=OFTEN) as supervisor:

        async def ask_other(ctx):
            if ctx.snapshot.data.get("last"):
                return {"ends": "here"}
            other = supervisor.actor("b" if ctx.snapshot.data["to"] == "a" else "a")
            try:
                await other.ask({"last": True}, timeout=1)
            except AskTimeoutError:
                return {"ends": "impatient"}
            return {"ends": "well"}

        refs = {name: await supervisor.spawn(ask_other, name=name) for name in "ab"}
        ends = []

        async def ask(name):
            ends.append((await refs[name].ask({"to": name}, timeout=None)).data["ends"])

        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(ask, name)
        assert len(ends) == 2
        assert set(ends) <= {"well", "impatient"}
    assert supervisor.ledger.balanced


@race_test
async def test_an_actor_that_stops_itself_with_others_in_the_queue():
    """The reply is given first; who is queued hears that it is dead, and was not handled."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step stop")
            nursery.start_soon(desk.ask, ref, 1, "step stop")
            nursery.start_soon(desk.tell, ref, 2)
        assert await ref.wait_stopped() is None
        replies = [number for number in (0, 1) if desk.outcomes[number] == "reply"]
        assert len(replies) == 1
        assert desk.outcomes[1 - replies[0]] == "dead"
        await desk.ask(ref, 3)
        assert desk.outcomes[3] == "dead"
