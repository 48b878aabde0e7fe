"""What an instance keeps beside its messages, and how it is left."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from actor_cases import CrashError, Diary, later, name_of, obey, send, spawn_all

from stageflow_actors import Directive, Restart, StageTimeoutError, Supervisor, events
from stageflow_actors.errors import ActorDeadError


async def listen(supervisor, into):
    """Note all events of a supervisor."""
    async with supervisor.events() as stream:
        async for event in stream:
            into.append(event)


# What the instance keeps


async def crash_after(seconds, number):
    await trio.sleep(seconds)
    if number == 1:
        raise CrashError("in the background")


async def test_a_crash_in_the_background_while_it_is_idle(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={"kept": partial(crash_after, 3.0)})
        assert await name_of(refs["a"]) == "a1"
        await trio.sleep(5)
        assert diary.take_timed() == [(3.0, "a1 down"), (3.0, "a2 up")]
        assert await name_of(refs["a"]) == "a2"


async def test_a_crash_in_the_background_while_it_is_busy(autojump_clock):
    """The message in hand is cut off and fails with it; what is queued stays."""
    diary = Diary()
    answers = {}

    async def ask(ref, key, **data):
        answers[key] = await send(ref, **data)

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, a={"kept": partial(crash_after, 3.0)})
        nursery.start_soon(partial(ask, refs["a"], "in hand", after=100.0))
        await trio.sleep(1)
        nursery.start_soon(ask, refs["a"], "queued")
        await trio.sleep(5)
        assert isinstance(answers["in hand"], ExceptionGroup)
        assert isinstance(answers["in hand"].exceptions[0], CrashError)
        assert answers["queued"].data == {"by": "a2"}
        assert diary.take_timed() == [(3.0, "a1 down"), (3.0, "a2 up")]
        assert refs["a"].statistics().ledger.failed == 1


async def test_a_message_that_may_be_delivered_again_survives_a_crash_in_the_background(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        kept = {"kept": partial(crash_after, 3.0), "max_deliveries": 2, "idempotent": True}
        refs = await spawn_all(supervisor, diary, a=kept)
        answer = await send(refs["a"], after=5.0)
        assert answer.data == {"by": "a2"}
        assert trio.current_time() - diary.began == 8.0


async def test_a_crash_in_the_background_behind_a_shield_comes_after_the_message(autojump_clock):
    diary = Diary()

    class Shielded(diary.stage("a", kept=partial(crash_after, 1.0))):
        async def execute(self, ctx):
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            return {"by": self.who}

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Shielded, name="a")
        assert (await send(ref)).data == {"by": "a1"}
        await trio.sleep(1)
        assert diary.take_timed() == [(0.0, "a1 up"), (3.0, "a1 down"), (3.0, "a2 up")]


async def test_what_ends_in_the_background_ends_nothing_else(autojump_clock):
    diary = Diary()

    async def kept(number):
        await trio.sleep(1)

    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={"kept": kept})
        await trio.sleep(5)
        assert await name_of(refs["a"]) == "a1"


async def test_a_policy_sees_what_the_nursery_made_of_a_crash_in_the_background(autojump_clock):
    diary = Diary()
    seen = []

    def decide(error):
        seen.append(error)
        return Directive.FAIL

    async with Supervisor() as supervisor:
        kept = {"kept": partial(crash_after, 1.0), "restart": Restart(decide=decide)}
        refs = await spawn_all(supervisor, diary, a=kept)
        assert await refs["a"].wait_stopped() is seen[0]
        assert isinstance(seen[0], ExceptionGroup)
        assert isinstance(await send(refs["a"]), ActorDeadError)


async def test_resume_means_a_restart_where_there_is_nothing_to_go_on_with(autojump_clock):
    """The instance is gone when what it keeps has crashed."""
    diary = Diary()
    async with Supervisor() as supervisor:
        kept = {"kept": partial(crash_after, 1.0), "restart": Restart(decide=lambda _: Directive.RESUME)}
        refs = await spawn_all(supervisor, diary, a=kept)
        assert isinstance(await send(refs["a"], "crash"), CrashError)
        assert await name_of(refs["a"]) == "a1"
        await trio.sleep(5)
        assert await name_of(refs["a"]) == "a2"


@pytest.mark.parametrize("what", ["restart", "stop"])
async def test_what_it_keeps_may_end_it(what, autojump_clock):
    """That it is cancelled thereby does not stop it."""
    diary = Diary()

    async def end_it(number):
        await trio.sleep(1)
        if number == 1:
            await getattr(ref, what)()

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(diary.stage("a", kept=end_it), name="a")
        await trio.sleep(5)
        expected = [(0.0, "a1 up"), (1.0, "a1 down"), (1.0, "a2 up")]
        assert diary.take_timed() == (expected if what == "restart" else expected[:-1])
        assert ref.statistics().workers == (what == "restart")


# When it is left


def leaving(exit_):
    """Return a stage class that is left so, and a list of its instances."""
    made = []

    class Stage:
        def __init__(self):
            made.append(self)

        async def __aenter__(self):
            pass

        async def __aexit__(self, *exc):
            return await exit_(exc[1])

        async def execute(self, ctx):
            return await obey(ctx)

    return Stage, made


async def swallow(error):
    return True


async def fail(error):
    raise OSError("in __aexit__")


async def hang(error):
    await trio.sleep_forever()


@pytest.mark.parametrize("exit_", [swallow, fail, hang])
async def test_a_crash_is_a_crash_however_the_instance_is_left(exit_, autojump_clock):
    stage, made = leaving(exit_)
    seen = []
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(listen, supervisor, seen)
        ref = await supervisor.spawn(stage, name="a", shutdown=3.0)
        before = trio.current_time()
        assert isinstance(await send(ref, "crash"), CrashError)
        assert (await send(ref)).data == {}
        assert trio.current_time() - before == (3.0 if exit_ is hang else 0.0)
        assert len(made) == 2
        crashes = [event.error for event in seen if isinstance(event, events.ActorCrashed)]
        assert len(crashes) == 1
        assert isinstance(crashes[0], OSError if exit_ is fail else CrashError)
        await ref.stop()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("exit_", "error"), [(fail, OSError), (hang, StageTimeoutError)])
async def test_an_exit_that_goes_wrong_at_a_normal_end_is_a_failure(exit_, error, autojump_clock):
    """It has not ended normally then."""
    stage, made = leaving(exit_)
    seen = []
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(listen, supervisor, seen)
        ref = await supervisor.spawn(stage, name="a", shutdown=3.0)
        assert (await send(ref, "stop")).data == {}
        assert (await send(ref)).data == {}
        assert len(made) == 2
        assert [type(event.error) for event in seen if isinstance(event, events.ActorCrashed)] == [error]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("exit_", [swallow, fail, hang])
async def test_an_exit_that_goes_wrong_when_it_is_stopped_does_not_matter_to_others(exit_, autojump_clock):
    stage, made = leaving(exit_)
    diary = Diary()
    async with Supervisor(scope="one_for_all") as supervisor:
        await spawn_all(supervisor, diary, b={})
        ref = await supervisor.spawn(stage, name="a", shutdown=3.0)
        await ref.stop()
        assert await ref.wait_stopped() is None
        await trio.sleep(1)
        assert len(made) == 1
        assert diary.take() == []


async def test_a_crash_in_the_background_is_not_lost_in_an_exit_that_hangs(autojump_clock):
    made = []

    class Stage:
        async def __aenter__(self):
            made.append(self)
            self.manager = trio.open_nursery()
            (await self.manager.__aenter__()).start_soon(crash_after, 1.0, len(made))

        async def __aexit__(self, *exc):
            try:
                self.manager._nursery.cancel_scope.cancel()
                return await self.manager.__aexit__(*exc)
            finally:
                if len(made) == 1:
                    await trio.sleep_forever()

        async def execute(self, ctx):
            return None

    seen = []
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(listen, supervisor, seen)
        ref = await supervisor.spawn(Stage, name="a", shutdown=2.0, restart=later(1.0))
        await trio.sleep(10)
        assert ref.statistics().workers == 1
        assert len(made) == 2
        crashed = next(event for event in seen if isinstance(event, events.ActorCrashed))
        assert crashed.at == 3.0
        nursery.cancel_scope.cancel()
