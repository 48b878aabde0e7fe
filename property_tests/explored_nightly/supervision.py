"""Supervision of three: dependants, every scope and policy, and whatever else is done to them meanwhile."""

from __future__ import annotations

import contextlib

import pytest
import trio

from property_tests.explored import Room, take_steps
from property_tests.residents import LATER, MANY, SCOPES, CrashError, all_answer, crash, spawn
from stageflow_actors import Intensity, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorError, RestartIntensityError
from stageflow_actors.events import ActorEnded, ActorStarted
from stageflow_actors.testing import race_test

from .world import until

POLICIES = ["transient", "permanent", "temporary"]


async def spawn_chain(supervisor, room, **options):
    """Spawn three, of which each depends on the one before."""
    a = await spawn(supervisor, room, "a", **options)
    b = await spawn(supervisor, room, "b", depends_on="a", **options)
    return a, b, await spawn(supervisor, room, "c", depends_on="b", **options)


@pytest.mark.parametrize("who", ["ab", "bc", "ac", "abc"])
@pytest.mark.parametrize("scope", SCOPES)
@race_test
async def test_some_of_three_crash_at_the_same_time(scope, who):
    """All are up again, once; whoever is below one that crashed was down with it, where the scope says so."""
    room = Room()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor:
        refs = dict(zip("abc", await spawn_chain(supervisor, room), strict=True))
        async with trio.open_nursery() as nursery:
            for name in who:
                nursery.start_soon(crash, refs[name])
        await all_answer(*refs.values())
        await until(lambda: room.inside == {"a": 1, "b": 1, "c": 1})
        for name in who if scope == "one_for_one" else "":
            assert room.entered[name] == 2
        if scope != "one_for_one" and who[0] == "a":
            assert all(count >= 2 for count in room.entered.values())
    assert supervisor.ledger.balanced
    room.check()


@pytest.mark.parametrize("scope", SCOPES)
@race_test
async def test_one_is_stopped_while_another_takes_it_along(scope):
    """What was stopped is not there any more, whoever was being restarted with it."""
    room = Room()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor:
        a, b, c = await spawn_chain(supervisor, room, stop=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, a)
            nursery.start_soon(b.stop)
        assert await b.wait_stopped() is None
        await all_answer(a, c)
        await until(lambda: +room.inside == {"a": 1, "c": 1})
        with pytest.raises(ActorDeadError):
            await b.ask()
    assert supervisor.ledger.balanced
    room.check()


@pytest.mark.parametrize("policy", POLICIES)
@race_test
async def test_what_a_policy_makes_of_a_crash(policy):
    """A `permanent` one and a `transient` one are up again; a `temporary` one has ended, and took nobody along."""
    room = Room()
    async with Supervisor(intensity=MANY) as supervisor:
        a = await spawn(supervisor, room, "a", policy=policy)
        b = await spawn(supervisor, room, "b", stop=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, a)
            nursery.start_soon(crash, b)
            nursery.start_soon(crash, a)
        await all_answer(b)
        if policy == "temporary":
            assert isinstance(await a.wait_stopped(), CrashError)
            assert room.entered["a"] == 1
        else:
            await all_answer(a)
            assert room.entered["a"] == 3
    assert supervisor.ledger.balanced
    room.check()


@race_test
async def test_a_permanent_one_that_ends_takes_its_supervisor_along():
    """And all that is below; whoever asks meanwhile hears of it."""
    room = Room()
    heard = []

    async def ask(ref):
        try:
            await ref.ask(timeout=None)
        except ActorError as error:
            heard.append(error)
        else:
            heard.append(None)

    never = LATER.__class__(max_restarts=0)
    async with trio.open_nursery() as nursery:
        with contextlib.suppress(CrashError, RestartIntensityError):
            async with Supervisor(intensity=MANY) as supervisor:
                a = await spawn(supervisor, room, "a", policy="permanent", restart=never)
                b = await spawn(supervisor, room, "b", stop=1)
                nursery.start_soon(crash, a)
                nursery.start_soon(ask, b)
                await trio.sleep_forever()
        room.is_closed = True
        assert room.inside.total() == 0
    assert len(heard) == 1
    assert supervisor.ledger.balanced
    room.check()


@pytest.mark.parametrize("most", [1, 2, 3])
@race_test
async def test_three_crash_and_so_many_restarts_are_left(most):
    room = Room()
    gave_up = False
    try:
        async with Supervisor(intensity=Intensity(most)) as supervisor:
            refs = [await spawn(supervisor, room, name) for name in "abc"]
            async with trio.open_nursery() as nursery:
                for ref in refs:
                    nursery.start_soon(crash, ref)
            await all_answer(*refs)
    except (RestartIntensityError, ActorDeadError):
        gave_up = True
    assert gave_up is (most < 3)
    assert room.entered.total() <= 3 + most
    room.check()


@race_test
async def test_spawning_stopping_and_crashing_at_the_same_time():
    """A name is free again once its actor has ended, and never before."""
    room = Room()
    async with Supervisor(scope="one_for_all", intensity=MANY) as supervisor:
        a = await spawn(supervisor, room, "a")
        b = await spawn(supervisor, room, "b", start=1)

        async def replace():
            await a.stop()
            await spawn(supervisor, room, "a", start=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replace)
            nursery.start_soon(crash, b)
        await all_answer(supervisor.actor("a"), b)
        await until(lambda: room.inside == {"a": 1, "b": 1})
    assert supervisor.ledger.balanced
    room.check()


@pytest.mark.parametrize("scope", SCOPES)
@race_test
async def test_two_restarts_that_are_asked_for_and_a_crash_between(scope):
    """Each of those who asked finds it up."""
    room = Room()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor:
        a, b, c = await spawn_chain(supervisor, room)

        async def restart(ref):
            await ref.restart()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart, a)
            nursery.start_soon(restart, c)
            nursery.start_soon(crash, b)
        await all_answer(a, b, c)
        await until(lambda: room.inside == {"a": 1, "b": 1, "c": 1})
    assert supervisor.ledger.balanced
    room.check()


@race_test
async def test_a_start_that_fails_now_and_then():
    """It is tried again, within the limits of the actor; whoever is queued meanwhile is answered."""
    room = Room()
    starts = []

    class Shaky:
        async def __aenter__(self):
            starts.append(True)
            await take_steps(1)
            if len(starts) in (2, 3):
                raise ConnectionError(len(starts))

        async def __aexit__(self, *exc):
            await take_steps(1)

        async def execute(self, ctx):
            with room.enter("shaky"):
                if ctx.snapshot.data.get("crash"):
                    raise CrashError
                return {"by": "shaky"}

    async with Supervisor(intensity=MANY) as supervisor:
        ref = await supervisor.spawn(Shaky, name="shaky", restart=LATER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, ref)
            nursery.start_soon(all_answer, ref)
        await all_answer(ref)
    assert len(starts) == 4
    assert supervisor.ledger.balanced
    room.check()


@race_test
async def test_starts_and_ends_are_told_in_pairs():
    """For every actor as many incarnations as the room has seen, and one end."""
    room = Room()
    async with Supervisor(scope="one_for_all", intensity=MANY) as supervisor:
        events = supervisor.events()
        a, b = [await spawn(supervisor, room, name) for name in "ab"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, a)
            nursery.start_soon(crash, b)
        await all_answer(a, b)
    told = [event async for event in events]
    for name in "ab":
        started = [event.incarnation for event in told if isinstance(event, ActorStarted) and event.actor == name]
        assert started == list(range(1, room.entered[name] + 1))
        assert sum(isinstance(event, ActorEnded) and event.actor == name for event in told) == 1
    room.check()


@pytest.mark.parametrize("way", ["normally", "error", "cancelled"])
@race_test
async def test_a_supervisor_is_left_during_a_restart_of_all(way):
    room = Room()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, contextlib.suppress(ZeroDivisionError):
            async with Supervisor(scope="one_for_all", intensity=MANY) as supervisor:
                refs = await spawn_chain(supervisor, room, start=1, stop=1)
                nursery.start_soon(crash, refs[0])
                await take_steps(2)
                if way == "error":
                    raise ZeroDivisionError
                if way == "cancelled":
                    scope.cancel()
        room.is_closed = True
        assert room.inside.total() == 0
    assert supervisor.ledger.balanced
    room.check()
