"""Who may ask a resident actor, what it sees of its askers, and what a reference is."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from functools import partial

import pytest
import trio
import trio.testing

from stageflow_actors import AskTimeoutError, ContextSnapshot, Intensity, StageKind, Supervisor
from stageflow_actors.statistics import ActorLedger


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=Intensity(100)) as supervisor:
        yield supervisor


async def obey(ctx):
    """Take as long as the message says."""
    await trio.sleep(ctx.snapshot.data.get("takes", 0))
    return {"attempt": ctx.attempt}


async def test_a_cancelled_asker(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a")
    with trio.move_on_after(1) as scope:
        await ref.ask({"takes": 3})
    assert scope.cancelled_caught
    await ref.ask()
    assert trio.current_time() == 3
    with trio.CancelScope() as scope:
        scope.cancel()
        await ref.ask({"takes": 1})
    assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == 3
    assert supervisor.ledger == ActorLedger(accepted=3, replied=2, cancelled=1, late_reply=1)


async def test_many_askers(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", pool=10)
    replies = []

    async def ask(number):
        replies.append((number, (await ref.ask({"takes": number % 7}, timeout=None)).data))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, number)
    assert sorted(number for number, _ in replies) == list(range(200))
    assert supervisor.ledger == ActorLedger(accepted=200, replied=200)


async def test_actors_ask_actors(supervisor):
    async def relay(ctx):
        rest = ctx.snapshot.data["rest"]
        if not rest:
            return {"chain": [ctx.stage_name]}
        output = await supervisor.actor(rest[0]).ask({"rest": rest[1:]})
        return {"chain": [ctx.stage_name, *output.data["chain"]]}

    for name in "abc":
        ref = await supervisor.spawn(relay, name=name)
    output = await ref.ask({"rest": ["a", "b"]})
    assert output.data["chain"] == ("c", "a", "b")


async def test_actors_that_ask_each_other_time_out(supervisor, autojump_clock):
    async def ask_other(ctx):
        other = {"a": "b", "b": "a"}[ctx.stage_name]
        return await supervisor.actor(other).ask(timeout=2)

    await supervisor.spawn(ask_other, name="b")
    ref = await supervisor.spawn(ask_other, name="a")
    with pytest.raises(AskTimeoutError) as caught:
        await ref.ask()
    assert trio.current_time() == 2
    assert str(caught.value) == "actor 'b': it did not answer within 2 s; it has begun with the message"


async def test_a_pool_may_ask_itself(supervisor, autojump_clock):
    async def work(ctx):
        if ctx.snapshot.data.get("inner"):
            return {"inner": True}
        return await supervisor.actor("a").ask({"inner": True})

    ref = await supervisor.spawn(work, name="a", pool=2)
    assert (await ref.ask()).data == {"inner": True}


async def test_an_asker_in_another_thread(supervisor):
    ref = await supervisor.spawn(obey, name="a")
    output = await trio.to_thread.run_sync(lambda: trio.from_thread.run(ref.ask, {"x": 1}))
    assert output.data == {"attempt": 1}


async def test_a_plain_function_is_handled_in_a_thread(supervisor):
    def work(ctx):
        return {"thread": threading.current_thread() is threading.main_thread(), "x": ctx.snapshot.data["x"]}

    ref = await supervisor.spawn(work, name="a")
    assert (await ref.ask({"x": 3})).data == {"thread": False, "x": 3}


MARK = contextvars.ContextVar("mark", default="nobody")


async def test_the_actor_sees_the_context_that_it_was_spawned_in_and_no_askers(supervisor):
    async def work(_ctx):
        seen = MARK.get()
        MARK.set("the actor")
        return {"mark": seen}

    MARK.set("the spawner")
    ref = await supervisor.spawn(work, name="a")
    MARK.set("the asker")
    assert (await ref.ask()).data == {"mark": "the spawner"}
    assert MARK.get() == "the asker"


async def test_what_a_message_and_a_reply_hold_is_let_go_of(supervisor):
    class Big:
        pass

    async def work(ctx):
        return {"big": ctx.snapshot.extensions}

    ref = await supervisor.spawn(work, name="a")
    big = Big()
    seen = weakref.ref(big)
    output = await ref.ask(ContextSnapshot(extensions=big))
    del big, output
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    assert seen() is None


# References


async def test_a_reference(supervisor):
    class Guard:
        kind = StageKind.GUARD

        async def execute(self, ctx):
            return None

    ref = await supervisor.spawn(partial(Guard), name="a")
    plain = await supervisor.spawn(obey, name="b")
    assert (ref.name, plain.name) == ("a", "b")
    assert (ref.kind, plain.kind) == (StageKind.GUARD, StageKind.WORK)
    assert repr(ref) == "<ActorRef of 'a': 1 of 1 worker up, 0 messages queued>"
    assert supervisor.actor("a") == ref != plain
    assert len({supervisor.actor("a"), ref, plain}) == 2
    await ref.stop()
    assert repr(ref) == "<ActorRef of 'a': ended>"
