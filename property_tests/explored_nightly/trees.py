"""Supervisors below supervisors: failures that go up, stops that come down, and both at the same time."""

from __future__ import annotations

import contextlib

import pytest
import trio

from property_tests.explored import Room, check_result, take_steps
from property_tests.residents import ESCALATE, MANY, SCOPES, CrashError, all_answer, crash, spawn
from stageflow_actors import Intensity, Pipeline, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorError
from stageflow_actors.testing import race_test

from .world import until


@race_test
async def test_a_failure_goes_up_two_floors():
    """The one in the middle gives up with it, and all of its floor are up again."""
    room = Room()
    async with Supervisor(intensity=MANY) as top:
        middle = await top.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="m")
        low = await middle.spawn_supervisor(Supervisor(), name="l", policy="permanent")
        a = await spawn(middle, room, "a")
        b = await spawn(low, room, "b", restart=ESCALATE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(all_answer, a)
        await all_answer(a, b)
        await until(lambda: room.inside == {"a": 1, "b": 1})
    assert top.ledger.balanced
    room.check()


@pytest.mark.parametrize("scope", SCOPES)
@race_test
async def test_two_supervisors_below_and_the_scope_of_the_one_above(scope):
    """One gives up; the other, that depends on it, comes along where the scope says so."""
    room = Room()
    async with Supervisor(scope=scope, intensity=MANY) as top:
        one = await top.spawn_supervisor(Supervisor(), name="one")
        other = await top.spawn_supervisor(Supervisor(), name="other", depends_on="one")
        a = await spawn(one, room, "a", restart=ESCALATE)
        b = await spawn(other, room, "b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, a)
            nursery.start_soon(crash, b)
        await all_answer(a, b)
        await until(lambda: room.inside == {"a": 1, "b": 1})
        assert room.entered["a"] >= 2
        assert room.entered["b"] >= 2
    assert top.ledger.balanced
    room.check()


@pytest.mark.parametrize("way", ["stop", "crash"])
@race_test
async def test_a_supervisor_below_is_stopped_while_its_actors_are_asked(way):
    """What it had is gone, whoever was being restarted; the one above goes on."""
    room = Room()

    async def ask(ref):
        with contextlib.suppress(ActorError):
            await ref.ask(timeout=None)

    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(scope="one_for_all", intensity=MANY), name="s")
        beside = await spawn(top, room, "beside")
        a, b = [await spawn(below, room, name, stop=1) for name in "ab"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, a)
            if way == "crash":
                nursery.start_soon(crash, b)
            nursery.start_soon(below.stop)
        assert +room.inside == {"beside": 1}  # now, and not some time later
        await all_answer(beside)
        with pytest.raises(ActorDeadError):
            await a.ask()
    assert top.ledger.balanced
    room.check()


@race_test
async def test_the_one_above_is_left_while_two_below_give_up():
    room = Room()
    async with trio.open_nursery() as nursery:
        with contextlib.suppress(CrashError):
            async with Supervisor(intensity=MANY) as top:
                refs = []
                for name in "ab":
                    below = await top.spawn_supervisor(Supervisor(), name=f"s{name}")
                    refs.append(await spawn(below, room, name, restart=ESCALATE))
                for ref in refs:
                    nursery.start_soon(crash, ref)
                await take_steps(1)
        room.is_closed = True
        assert room.inside.total() == 0
    assert top.ledger.balanced
    room.check()


@race_test
async def test_temporary_actors_below_do_not_come_back():
    room = Room()
    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(), name="s")
        a = await spawn(below, room, "a", policy="temporary")
        b = await spawn(below, room, "b", restart=ESCALATE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(crash, a)
        await all_answer(b)
        await a.wait_stopped()
        await until(lambda: +room.inside == {"b": 1})
        assert room.entered["a"] == 1
    assert top.ledger.balanced
    room.check()


@race_test
async def test_a_pool_below_comes_back_whole():
    room = Room(2)
    numbers = iter(range(10_000))

    class Member:
        async def __aenter__(self):
            self.stack = contextlib.ExitStack()
            self.stack.enter_context(room.enter(next(numbers)))

        async def __aexit__(self, *exc):
            self.stack.close()

        async def execute(self, ctx):
            await take_steps(1)
            if ctx.snapshot.data.get("crash"):
                raise CrashError
            return {"by": "pool"}

    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(intensity=Intensity(1)), name="s")
        ref = await below.spawn(Member, name="pool", pool=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, ref)
            nursery.start_soon(crash, ref)
        replies = []
        while not replies:  # the supervisor may give up late, with a message in hand
            with contextlib.suppress(ActorError):
                replies.append(await ref.ask(timeout=None))
        await until(lambda: room.inside.total() == ref.statistics().workers == 2)
    assert top.ledger.balanced
    room.check()


@pytest.mark.parametrize("who", ["run", "actor"])
@race_test
async def test_runs_on_two_floors_share_an_actor_above(who):
    """A run below uses an actor of the one above, which goes on when the one below gives up."""
    room = Room()
    async with Supervisor(intensity=MANY) as top:
        shared = await spawn(top, room, "shared")
        below = await top.spawn_supervisor(Supervisor(), name="s")
        b = await spawn(below, room, "b", restart=ESCALATE)
        inner = below.start(Pipeline("p").with_stage("x", shared), {"wait": True}, continue_on_failure=True)
        outer = top.start(Pipeline("q").with_stage("x", shared), continue_on_failure=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, shared if who == "actor" else b)
        for run in (inner, outer):
            check_result(await run.result())
        await all_answer(shared, b)
        await until(lambda: room.inside == {"shared": 1, "b": 1})
    assert top.ledger.balanced
    room.check()
