"""One actor: its first start, and its ends from outside and from inside."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from actor_cases import POLICIES, SCOPES, CrashError, Diary, at_once, later, name_of, send, spawn_all

from stageflow_actors import PipelineValidationError, Supervisor, events
from stageflow_actors.errors import ActorDeadError, ActorStartError, UnknownActorError

# First starts


class BadInit:
    def __init__(self):
        raise CrashError("in __init__")

    async def execute(self, ctx):
        pytest.fail("executed, though never made")


class BadEnter:
    async def __aenter__(self):
        raise CrashError("in __aenter__")

    async def __aexit__(self, *exc):
        pytest.fail("left, though never entered")

    async def execute(self, ctx):
        pytest.fail("executed, though never entered")


class Hangs:
    async def __aenter__(self):
        await trio.sleep_forever()

    async def __aexit__(self, *exc):
        pytest.fail("left, though never entered")

    async def execute(self, ctx):
        pytest.fail("executed, though never entered")


@pytest.mark.parametrize("runner", [BadInit, BadEnter])
@pytest.mark.parametrize("policy", ["permanent", "transient"])
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_first_start_that_fails_is_not_tried_again_and_concerns_nobody(scope, policy, runner, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, a={})
        with (
            at_once(),
            pytest.raises(ActorStartError, match="actor 'b': it did not start: CrashError: in __") as caught,
        ):
            await supervisor.spawn(runner, name="b", policy=policy, depends_on="a", restart=later(1.0))
        assert type(caught.value.__cause__) is CrashError
        await trio.sleep(10)
        assert diary.take() == []
        with pytest.raises(UnknownActorError):
            supervisor.actor("b")
        assert await name_of(await supervisor.spawn(diary.stage("b"), name="b")) == "b1"
        assert await name_of(refs["a"]) == "a1"


async def test_a_first_start_that_hangs_can_be_given_up(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        with trio.move_on_after(3) as scope:
            await supervisor.spawn(Hangs, name="a", shutdown=1000)
        assert scope.cancelled_caught
        assert diary.began + 3 == trio.current_time()
        with pytest.raises(UnknownActorError):
            supervisor.actor("a")
        assert await name_of(await supervisor.spawn(diary.stage("a"), name="a")) == "a1"


async def test_an_actor_that_is_starting_has_its_name_already_and_cannot_be_reached(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(partial(supervisor.spawn, diary.stage("a", start=3.0), name="a"))
        await trio.sleep(1)
        with pytest.raises(PipelineValidationError, match="the supervisor has an actor 'a' already"):
            await supervisor.spawn(diary.stage("b"), name="a")
        with pytest.raises(UnknownActorError):
            supervisor.actor("a")
        await trio.sleep(3)
        assert await name_of(supervisor.actor("a")) == "a1"


async def test_an_actor_may_end_in_its_first_step(autojump_clock):
    """It was up, so that is an end as any other."""
    diary = Diary()

    async def crash(number):
        if number == 1:
            raise CrashError

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(diary.stage("a", kept=crash), name="a")
        await trio.sleep(1)
        assert await name_of(ref) == "a2"
        assert diary.take() == ["a1 up", "a1 down", "a2 up"]


# Stopped from outside


async def test_an_actor_that_is_stopped_ends_its_message_and_no_more(autojump_clock):
    diary = Diary()
    answers = {}

    async def ask(ref, key, **data):
        answers[key] = await send(ref, **data)

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, a={}, b={"depends_on": "a"})
        nursery.start_soon(partial(ask, refs["a"], "in hand", after=3.0))
        await trio.sleep(1)
        nursery.start_soon(ask, refs["a"], "queued")
        await trio.testing.wait_all_tasks_blocked()
        await refs["a"].stop()
        await trio.testing.wait_all_tasks_blocked()
        assert diary.take_timed() == [(3.0, "a1 down")]
        assert answers["in hand"].data["by"] == "a1"
        assert isinstance(answers["queued"], ActorDeadError)
        assert await refs["a"].wait_stopped() is None
        await refs["a"].stop()


@pytest.mark.parametrize("policy", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_stop_concerns_nobody_else_whatever_the_policy(policy, scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, a={}, b={"policy": policy}, c={"depends_on": "b"})
        await refs["b"].stop()
        await trio.sleep(10)
        assert diary.take() == ["b1 down"]


async def test_an_actor_is_stopped_while_it_starts_again_or_backs_off(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={"start": {2: 100.0}}, b={"restart": later(100.0)})
        for ref in refs.values():
            await send(ref, "crash")
        await trio.sleep(1)
        for ref in refs.values():
            await ref.stop()
            assert await ref.wait_stopped() is None
        assert trio.current_time() - diary.began == 1.0
        assert sorted(diary.take()) == ["a1 down", "a2 is cut off", "a2 starts", "b1 down"]


async def test_a_start_that_does_not_listen_is_waited_for(autojump_clock):
    """What it does behind a shield of its own it may do to its end; then it is left as always, within its budget."""
    noted = []

    class Stubborn:
        async def __aenter__(self):
            noted.append("starts")
            with trio.CancelScope(shield=len(noted) > 1):
                await trio.sleep(2)

        async def __aexit__(self, *exc):
            await trio.sleep(1)
            noted.append("down")

        async def execute(self, ctx):
            raise CrashError

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Stubborn, name="a")
        assert isinstance(await send(ref), CrashError)
        await trio.sleep(2)
        before = trio.current_time()
        await ref.stop()
        assert trio.current_time() - before == 2.0
    assert noted == ["starts", "down", "starts", "down"]


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_reason_of_an_end_is_its_own(policy, autojump_clock):
    """Also of one that a scope was taking down when it was stopped: eight, for who wakes first is chance."""
    diary = Diary()
    names = "bcdefghi"
    async with Supervisor(scope="one_for_all") as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, a={}, **{name: {"policy": policy, "stop": 2.0} for name in names})
        async with supervisor.events() as stream:
            await send(refs["a"], "crash")
            await trio.sleep(1)
            for name in names:
                nursery.start_soon(refs[name].stop)
            ended = []
            while len(ended) < len(names):
                event = await anext(stream)
                if isinstance(event, events.ActorEnded):
                    ended.append(event.reason)
        expected = "it is temporary, and was stopped with another" if policy == "temporary" else "it was stopped"
        assert set(ended) == {expected}


async def test_those_who_stop_it_may_give_up_waiting(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={})
        await refs["a"].tell({"after": 3.0})
        await trio.sleep(1)
        with trio.move_on_after(1) as scope:
            await refs["a"].stop()
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(refs["a"].stop)
                nursery.start_soon(refs["a"].wait_stopped)
        assert diary.take_timed() == [(3.0, "a1 down")]


# Ended from inside


@pytest.mark.parametrize("policy", POLICIES)
async def test_stop_ends_it_after_the_message(policy, autojump_clock):
    diary = Diary()
    heard = []

    async def ask(ref):
        heard.append(await send(ref))

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, a={"policy": policy})
        nursery.start_soon(partial(send, refs["a"], "stop", after=1.0))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, refs["a"])
        await trio.sleep(2)
        if policy == "permanent":
            assert diary.take_timed() == [(1.0, "a1 down"), (1.0, "a2 up")]
            assert heard[0].data["by"] == "a2"
        else:
            assert diary.take_timed() == [(1.0, "a1 down")]
            assert isinstance(heard[0], ActorDeadError)
            assert await refs["a"].wait_stopped() is None
            assert refs["a"].statistics().ledger.stopped == 1


async def test_stop_and_a_crash_are_a_crash(autojump_clock):
    made = []

    class Both:
        def __init__(self):
            made.append(self)

        async def execute(self, ctx):
            ctx.stop()
            raise CrashError

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Both, name="a")
        assert isinstance(await send(ref), CrashError)
        await trio.testing.wait_all_tasks_blocked()
        assert ref.statistics().workers == 1
    assert len(made) == 2


async def test_stop_that_comes_too_late_ends_nothing(autojump_clock):
    """The context of a message that is over ends nothing any more."""
    kept = []

    async def keep(ctx):
        kept.append(ctx)

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(keep, name="a")
        await ref.ask()
        kept[0].stop()
        await ref.ask()
        kept[0].stop()
        await ref.ask()
        assert len(kept) == 3


@pytest.mark.parametrize("what", ["stop", "restart", "wait_stopped", "ask"])
async def test_it_cannot_wait_for_itself(what, autojump_clock):
    async def run(ctx):
        if not ctx.snapshot.data:
            await getattr(ref, what)()

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(run, name="a", policy="temporary")
        with pytest.raises(RuntimeError, match="actor 'a' cannot ") as caught:
            await ref.ask()
        assert await ref.wait_stopped() is caught.value


async def test_another_task_of_it_waits_for_the_end_within_the_budget(autojump_clock):
    """A handler that waits for its own end in a nursery is one that does not end in time."""

    async def run(ctx):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.stop)

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(run, name="a", shutdown=3.0)
        before = trio.current_time()
        await ref.tell()
        await ref.wait_stopped()
        assert trio.current_time() - before == 3.0
