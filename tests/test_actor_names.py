"""Actors that are spawned by actors, and names that are used again."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from actor_cases import CrashError, Diary, name_of, obey, send, spawn_all

from stageflow_actors import PipelineValidationError, Supervisor
from stageflow_actors.errors import ActorDeadError, UnknownActorError

# Spawned from inside


async def test_a_handler_may_spawn_actors_which_live_on_without_it(autojump_clock):
    diary = Diary()

    async def hire(ctx):
        name = ctx.snapshot.data["name"]
        ref = await supervisor.spawn(diary.stage(name), name=name, depends_on=ctx.snapshot.data.get("needs", ()))
        await obey(ctx)
        return {"name": ref.name}

    async with Supervisor(scope="dependents") as supervisor:
        boss = await supervisor.spawn(hire, name="boss")
        await boss.ask({"name": "a", "needs": "boss"})
        await boss.ask({"name": "b"})
        assert isinstance(await send(boss, "crash", name="c"), CrashError)
        await trio.testing.wait_all_tasks_blocked()
        assert diary.take() == ["a1 up", "b1 up", "c1 up", "a1 down", "a2 up"]
        with pytest.raises(PipelineValidationError, match="has an actor 'b' already"):
            await boss.ask({"name": "b"})
        await trio.testing.wait_all_tasks_blocked()
        diary.take()
    assert diary.take() == ["c1 down", "b1 down", "a3 down"]


async def test_a_start_may_spawn_what_it_needs(autojump_clock):
    """That is later in the order of spawning, and stopped sooner."""
    diary = Diary()

    class Front(diary.stage("front")):
        async def __aenter__(self):
            self.back = await supervisor.spawn(diary.stage("back"), name=f"back{self.number}")
            await super().__aenter__()

        async def __aexit__(self, *exc):
            await self.back.stop()
            await super().__aexit__(*exc)

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Front, name="front")
        await send(ref, "crash")
        await trio.testing.wait_all_tasks_blocked()
        assert diary.take() == ["back1 up", "front1 up", "back1 down", "front1 down", "back1 up", "front2 up"]


async def test_a_handler_may_stop_the_one_that_spawned_it(autojump_clock):
    diary = Diary()

    async def stop(ctx):
        await refs["a"].stop()

    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={})
        ref = await supervisor.spawn(stop, name="b", depends_on="a")
        await ref.ask()
        assert diary.take() == ["a1 down"]
        assert await refs["a"].wait_stopped() is None


async def test_nothing_is_spawned_while_the_supervisor_stops(autojump_clock):
    diary = Diary()
    raised = []

    async def late(ctx):
        await trio.sleep(2)
        try:
            await supervisor.spawn(diary.stage("b"), name="b")
        except RuntimeError as error:
            raised.append(str(error))

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(late, name="a")
        await ref.tell()
        await trio.sleep(1)
    assert raised == ["the supervisor has been left; spawn actors inside `async with Supervisor() as supervisor:`"]
    assert diary.take() == []


# Names


async def crash_for_good(ref):
    await send(ref, "crash")
    await ref.wait_stopped()


async def end_by_itself(ref):
    await send(ref, "stop")
    await ref.wait_stopped()


async def stop(ref):
    await ref.stop()


@pytest.mark.parametrize("end", [crash_for_good, end_by_itself, stop])
async def test_a_name_is_free_again_after_the_end(end, autojump_clock):
    """The old reference stays what it is, and what names it means the new one."""
    diary = Diary()
    stage = diary.stage("a")
    async with Supervisor(scope="dependents") as supervisor:
        old = await supervisor.spawn(stage, name="a", policy="temporary")
        refs = await spawn_all(supervisor, diary, b={"depends_on": "a"})
        await end(old)
        with pytest.raises(UnknownActorError):
            supervisor.actor("a")
        new = await supervisor.spawn(stage, name="a")
        assert isinstance(await send(old), ActorDeadError)
        assert await name_of(supervisor.actor("a")) == "a2"
        diary.take()
        await send(new, "crash")
        await trio.testing.wait_all_tasks_blocked()
        assert diary.take() == ["a2 down", "b1 down", "b2 up", "a3 up"]
        assert await name_of(refs["b"]) == "b2"
        await old.stop()
        assert await name_of(new) == "a3"


async def test_a_name_is_taken_until_the_end_is_over(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, a={"stop": 3.0})
        nursery.start_soon(refs["a"].stop)
        await trio.sleep(1)
        with pytest.raises(PipelineValidationError, match="has an actor 'a' already"):
            await supervisor.spawn(diary.stage("a"), name="a")
        await trio.sleep(3)
        await supervisor.spawn(diary.stage("a"), name="a")
