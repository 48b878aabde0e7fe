"""Supervision in every order that the race toolkit finds: nobody is there twice, forgotten, or left over."""

from __future__ import annotations

import contextlib

import pytest
import trio

from stageflow_actors import Backoff, Directive, Intensity, Pipeline, Restart, RunEnding, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorError, ActorStartError, RestartIntensityError
from stageflow_actors.testing import race_test

from .explored import FEW, Room, check_result, take_steps

SCOPES = ["one_for_one", "dependents", "one_for_all", "rest_for_one"]
MANY = Intensity(1000)
ESCALATE = Restart(decide=lambda error: Directive.ESCALATE)
LATER = Restart(max_restarts=1000, backoff=Backoff(initial=1.0, factor=1.0, jitter=0.0))


class CrashError(Exception):
    """What a stage raises that is told to."""


def resident(room, name, start=0, stop=0):
    """Return a stage class whose instances are in the room from their start to their end, both of so many steps."""

    class Resident:
        async def __aenter__(self):
            self.stack = contextlib.ExitStack()
            with self.stack:
                self.stack.enter_context(room.enter(name))
                await take_steps(start)
                self.stack = self.stack.pop_all()

        async def __aexit__(self, *exc):
            with self.stack:
                await take_steps(stop)

        async def execute(self, ctx):
            if ctx.snapshot.data.get("crash"):
                raise CrashError
            if ctx.snapshot.data.get("wait"):
                await trio.sleep(1)
            return {"by": name}

    return Resident


async def spawn(supervisor, room, name, start=0, stop=0, **options):
    return await supervisor.spawn(resident(room, name, start, stop), name=name, **options)


async def crash(ref):
    with contextlib.suppress(CrashError, ActorError):
        await ref.ask({"crash": True}, timeout=None)


async def all_answer(*refs):
    for ref in refs:
        assert (await ref.ask(timeout=None)).data == {"by": ref.name.rpartition("/")[2]}


# Failures together


@pytest.mark.parametrize("scope", SCOPES)
@race_test(max_executions=FEW)
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
@race_test(max_executions=FEW)
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
@race_test(max_executions=FEW)
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
@race_test(max_executions=FEW)
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
@race_test(max_executions=FEW)
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


# Trees


@pytest.mark.parametrize("scope", SCOPES)
@race_test(max_executions=FEW)
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
@race_test(max_executions=FEW)
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
