"""Trees of supervisors in every order that the race toolkit finds: what gives up comes up again, once and whole."""

from __future__ import annotations

import contextlib

import pytest
import trio

from stageflow_actors import Intensity, Pipeline, RunEnding, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorError
from stageflow_actors.testing import explore, race_test

from .explored import FEW, Room, check_result, take_steps
from .residents import ESCALATE, MANY, SCOPES, SOME, CrashError, all_answer, crash, spawn


@pytest.mark.parametrize("scope", SCOPES)
@race_test(max_executions=SOME)
async def test_a_crash_while_the_supervisor_gives_up(scope):
    """What was asked is answered, and who was there is there again."""
    room = Room()
    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(scope=scope, intensity=MANY), name="s")
        a = await spawn(below, room, "a")
        b = await spawn(below, room, "b", restart=ESCALATE)
        c = await spawn(below, room, "c", depends_on="a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(crash, a)
        await all_answer(a, b, c)
        await trio.sleep(1)
        assert room.inside == {"a": 1, "b": 1, "c": 1}
    assert top.ledger.balanced
    room.check()


@race_test(max_executions=FEW)
async def test_the_last_restart_of_a_supervisor_and_its_first_below():
    """The one below may restart once; a second failure is the affair of the one above."""
    room = Room()
    async with Supervisor(intensity=Intensity(1)) as top:
        below = await top.spawn_supervisor(Supervisor(scope="one_for_all", intensity=Intensity(1)), name="s")
        refs = [await spawn(below, room, name) for name in "ab"]
        async with trio.open_nursery() as nursery:
            for ref in refs:
                nursery.start_soon(crash, ref)
        await all_answer(*refs)
        await trio.sleep(1)
        assert room.inside == {"a": 1, "b": 1}
    room.check()


@race_test(max_executions=FEW)
async def test_spawning_below_while_it_is_restarted():
    room = Room()

    async def come(supervisor):
        while True:
            try:
                return await spawn(supervisor, room, "new", start=1)
            except (ActorError, RuntimeError):
                await take_steps(1)

    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(), name="s")
        b = await spawn(below, room, "b", restart=ESCALATE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(come, below)
        await all_answer(b, top.actor("s/new"))
        await trio.sleep(1)
        assert room.inside == {"b": 1, "new": 1}
    room.check()


@pytest.mark.parametrize("what", ["restart", "stop"])
@race_test(max_executions=SOME)
async def test_restarting_and_stopping_one_below_while_it_is_restarted(what):
    room = Room()

    async def act(ref):
        with contextlib.suppress(ActorDeadError):
            await getattr(ref, what)()

    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(), name="s")
        a = await spawn(below, room, "a", start=1)
        b = await spawn(below, room, "b", restart=ESCALATE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(act, a)
        await all_answer(b)
        await trio.sleep(1)
        assert +room.inside == ({"a": 1, "b": 1} if what == "restart" else {"b": 1})
    room.check()


@race_test(max_executions=FEW)
async def test_the_one_above_is_left_while_the_one_below_gives_up():
    room = Room()
    async with trio.open_nursery() as nursery:
        with contextlib.suppress(CrashError):
            async with Supervisor(intensity=MANY) as top:
                below = await top.spawn_supervisor(Supervisor(), name="s")
                a = await spawn(below, room, "a")
                b = await spawn(below, room, "b", restart=ESCALATE)
                nursery.start_soon(crash, b)
                nursery.start_soon(crash, a)
                await take_steps(1)
        room.is_closed = True
        assert room.inside.total() == 0
    assert top.ledger.balanced
    room.check()


@race_test(max_executions=FEW)
async def test_a_run_below_ends_when_its_supervisor_gives_up():
    """Or before; and its actor has nothing of it left."""
    room = Room()
    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(), name="s")
        a = await spawn(below, room, "a")
        b = await spawn(below, room, "b", restart=ESCALATE)
        run = below.start(Pipeline("p").with_stage("x", a).with_stage("y", a, dependencies="x"), {"wait": True})
        await crash(b)
        result = await run.result()
        check_result(result)
        assert result.ended.ending in {RunEnding.COMPLETED, RunEnding.CANCELLED}
        await all_answer(a, b)
    assert top.ledger.balanced
    room.check()


@race_test(max_executions=FEW)
async def test_a_run_is_started_below_a_supervisor_that_gives_up():
    """It ends: its actor does not come up again before the supervisor is down, and that waits for the run."""
    room = Room()

    async def come(supervisor):
        below = Supervisor()
        with contextlib.suppress(ActorError, RuntimeError):
            await supervisor.spawn_supervisor(below, name="new")
            await below.run(Pipeline("p").with_stage("x", b))

    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(), name="s")
        b = await spawn(below, room, "b", restart=ESCALATE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(come, below)
        await all_answer(b)
    assert top.ledger.balanced
    room.check()


@pytest.mark.parametrize(
    "program", [test_spawning_below_while_it_is_restarted, test_a_run_is_started_below_a_supervisor_that_gives_up]
)
def test_a_spawn_outlives_the_place_that_it_waited_for(program):
    """What came into a supervisor that was closed and opened meanwhile, found by random priorities in 30 to 130."""
    explore(program.__wrapped__, strategy="pos", max_executions=SOME).raise_for_failure()
