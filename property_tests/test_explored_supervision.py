"""Supervision in every order that the race toolkit finds: nobody is there twice, forgotten, or left over."""

from __future__ import annotations

import contextlib

import pytest
import trio

from stageflow_actors import Intensity, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorStartError, RestartIntensityError
from stageflow_actors.testing import race_test

from .explored import FEW, Room, take_steps
from .residents import ESCALATE, LATER, MANY, SCOPES, SOME, CrashError, all_answer, crash, resident, spawn

# Failures together


@pytest.mark.parametrize("scope", SCOPES)
@race_test(max_executions=SOME)
async def test_two_that_crash_at_the_same_time_are_up_again(scope):
    room = Room()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor:
        a = await spawn(supervisor, room, "a")
        b = await spawn(supervisor, room, "b", depends_on="a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, a)
            nursery.start_soon(crash, b)
        await all_answer(a, b)
    assert supervisor.ledger.balanced
    room.check()


@race_test(max_executions=2 * FEW)
async def test_restarts_that_meet_become_one():
    room = Room()
    async with Supervisor(scope="dependents", intensity=MANY) as supervisor:
        root = await spawn(supervisor, room, "root")
        a, b = [await spawn(supervisor, room, name, depends_on="root") for name in "ab"]
        async with trio.open_nursery() as nursery:
            for ref in (a, b, root):
                nursery.start_soon(crash, ref)
        await all_answer(root, a, b)
    room.check()


@race_test(max_executions=FEW)
async def test_a_crash_comes_into_a_backoff_and_a_slow_start():
    room = Room()
    async with Supervisor(scope="rest_for_one", intensity=MANY) as supervisor:
        a = await spawn(supervisor, room, "a", start=1)
        b = await spawn(supervisor, room, "b", start=2, restart=LATER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(crash, a)
        await all_answer(a, b)
    room.check()


@pytest.mark.parametrize("left", [1, 2])
@race_test(max_executions=SOME)
async def test_the_intensity_is_spent_exactly(left):
    room = Room()
    caught = None
    refs = []
    try:
        async with Supervisor(intensity=Intensity(left)) as supervisor:
            refs += [await spawn(supervisor, room, name) for name in "ab"]
            async with trio.open_nursery() as nursery:
                for ref in refs:
                    nursery.start_soon(crash, ref)
            await all_answer(*refs)
    except (RestartIntensityError, ActorDeadError) as error:
        caught = error
    assert (caught is None) == (left == 2)
    assert sum(ref.statistics().restarts for ref in refs) <= left
    assert left == 1 or room.entered == {"a": 2, "b": 2}
    room.check()


# Restarts and ends that are asked for


@pytest.mark.parametrize("scope", ["one_for_one", "one_for_all"])
@race_test(max_executions=SOME)
async def test_a_restart_that_is_asked_for_and_a_crash(scope):
    room = Room()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor:
        a, b = [await spawn(supervisor, room, name) for name in "ab"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, a)
            nursery.start_soon(a.restart)
            nursery.start_soon(b.restart)
        await all_answer(a, b)
    room.check()


@pytest.mark.parametrize("restart", [None, LATER], ids=["at once", "later"])
@race_test(max_executions=SOME)
async def test_what_is_stopped_does_not_come_back(restart):
    room = Room()
    async with Supervisor(scope="one_for_all", intensity=MANY) as supervisor:
        a, b = [await spawn(supervisor, room, name, start=1, restart=restart) for name in "ab"]

        async def stop(ref):
            await ref.stop()
            assert ref.statistics().workers == 0
            room.problems += ["still inside"] * room.inside[ref.name]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, b)
            nursery.start_soon(stop, a)
            nursery.start_soon(crash, a)
        await all_answer(b)
        assert room.inside["a"] == 0
        with pytest.raises(ActorDeadError):
            await a.ask()
    room.check()


@race_test(max_executions=FEW)
async def test_a_restart_either_happens_or_is_refused():
    """Whenever the supervisor gives up."""
    room = Room()
    done = []

    async def restart(ref):
        try:
            await ref.restart()
        except ActorDeadError:
            done.append(None)
        else:
            done.append(ref.statistics().workers)

    async with trio.open_nursery() as nursery:
        with contextlib.suppress(CrashError):
            async with Supervisor() as supervisor:
                a = await spawn(supervisor, room, "a")
                b = await spawn(supervisor, room, "b", restart=ESCALATE)
                nursery.start_soon(restart, a)
                await crash(b)
                await trio.sleep_forever()
    assert done in ([None], [1])
    room.check()


# Pools


async def spawn_pool(supervisor, room, **options):
    """Spawn a pool of two; the room counts them, and tells them apart."""
    numbers = iter(range(1000))

    class Member(resident(room, "")):
        async def __aenter__(self):
            self.stack = contextlib.ExitStack()
            self.stack.enter_context(room.enter(next(numbers)))

    return await supervisor.spawn(Member, name="a", pool=2, **options)


@race_test(max_executions=FEW)
async def test_a_pool_that_crashes_and_is_restarted_is_complete_again():
    room = Room(2)
    async with Supervisor(intensity=MANY) as supervisor:
        ref = await spawn_pool(supervisor, room)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, ref)
            nursery.start_soon(crash, ref)
            nursery.start_soon(ref.restart)
        await ref.restart()
        assert ref.statistics().workers == 2
    room.check()


@race_test(max_executions=FEW)
async def test_a_pool_ends_as_a_whole():
    room = Room(2)
    async with Supervisor() as supervisor:
        ref = await spawn_pool(supervisor, room, policy="temporary")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, ref)
            nursery.start_soon(crash, ref)
            nursery.start_soon(crash, ref)
        assert isinstance(await ref.wait_stopped(), CrashError)
        assert room.inside.total() == 0
    assert supervisor.ledger.balanced
    room.check()


# Starts and ends of supervisors


@race_test(max_executions=2 * FEW)
async def test_a_supervisor_is_left_during_a_spawn():
    """Also the first one ever, for which much has still to be made."""
    room = Room()

    async def come(supervisor):
        with contextlib.suppress(ActorStartError, RuntimeError):
            await spawn(supervisor, room, "a", start=1)

    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        nursery.start_soon(come, supervisor)
        await take_steps(3)
    room.check()


@race_test(clock="auto")  # an early jump would spend the budget
async def test_a_spawn_that_is_given_up_leaves_nothing():
    """Or has come to its end; an instance that was entered is left, with the time that it needs."""
    room = Room()
    entered, left = [], []

    class Careful(resident(room, "a", start=1)):
        async def __aenter__(self):
            await super().__aenter__()
            entered.append(True)

        async def __aexit__(self, *exc):
            await take_steps(2)
            left.append(True)
            await super().__aexit__(*exc)

    async def cancel():
        await take_steps(2)
        scope.cancel()

    async with Supervisor() as supervisor:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                await supervisor.spawn(Careful, name="a")
                nursery.cancel_scope.cancel()
        await spawn(supervisor, room, "b" if room.inside["a"] else "a")
    assert left == entered
    room.check()


@pytest.mark.parametrize("way", ["normally", "cancelled"])
@race_test(max_executions=SOME)
async def test_a_supervisor_is_left_while_actors_crash(way):
    room = Room()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with Supervisor(scope="one_for_all", intensity=MANY) as supervisor:
                refs = [await spawn(supervisor, room, name) for name in "ab"]
                for ref in refs:
                    nursery.start_soon(crash, ref)
                await take_steps(1)
                if way == "cancelled":
                    scope.cancel()
        room.is_closed = True
        assert room.inside.total() == 0
    assert supervisor.ledger.balanced
    room.check()
