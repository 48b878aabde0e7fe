"""Resident actors of plain functions, which run in worker threads, and what may be called from there."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from stageflow_actors import Intensity, Supervisor
from stageflow_actors.errors import ActorUnavailableError, NotFreezableError, ThreadAbandonedError
from stageflow_actors.statistics import ActorLedger


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=Intensity(100)) as supervisor:
        yield supervisor


async def test_a_plain_function_is_handled_in_a_thread(supervisor):
    def work(ctx):
        return {"is_main": threading.current_thread() is threading.main_thread(), "x": ctx.snapshot.data["x"]}

    ref = await supervisor.spawn(work, name="a")
    assert (await ref.ask({"x": 3})).data == {"is_main": False, "x": 3}


async def test_so_is_the_method_of_an_instance_that_lives_on(supervisor):
    class Count:
        def __init__(self):
            self.seen = 0

        def execute(self, _ctx):
            self.seen += 1
            return {"seen": self.seen}

    ref = await supervisor.spawn(Count, name="a")
    assert [(await ref.ask()).data["seen"] for _ in range(3)] == [1, 2, 3]


async def test_what_it_raises_is_raised_where_it_was_asked(supervisor):
    def work(_ctx):
        raise KeyError("x")

    ref = await supervisor.spawn(work, name="a")
    for _ in range(2):
        with pytest.raises(KeyError, match="x"):
            await ref.ask()
    assert ref.statistics().restarts >= 1
    assert supervisor.ledger == ActorLedger(accepted=2, failed=2)


async def test_what_it_emits_is_heard(supervisor):
    def work(ctx):
        for number in range(3):
            ctx.emit({"number": number})

    ref = await supervisor.spawn(work, name="a")
    async with supervisor.events() as events, trio.open_nursery() as nursery:
        nursery.start_soon(ref.ask)
        heard = [(await anext(events)).event["number"] for _ in range(3)]  # it waits already when the thread emits
    assert heard == [0, 1, 2]


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_is_emitted_is_frozen(supervisor, is_async):
    rows = [1]

    def work(ctx):
        ctx.emit({"rows": rows})
        rows.append(2)
        if "bad" in ctx.snapshot.data:
            rows.append(rows)
            ctx.emit({"rows": rows})

    async def work_async(ctx):
        work(ctx)

    ref = await supervisor.spawn(work_async if is_async else work, name="a")
    events = supervisor.events()
    await ref.ask()
    assert (await anext(events)).event == {"rows": (1,)}
    with pytest.raises(NotFreezableError):
        await ref.ask({"bad": True})


async def test_messages_are_sent_from_a_thread_by_way_of_the_loop(supervisor):
    got = []

    async def sink(ctx):
        got.append(ctx.snapshot.data["number"])

    other = await supervisor.spawn(sink, name="other")

    def work(_ctx):
        trio.from_thread.run_sync(other.tell_nowait, {"number": 1})
        trio.from_thread.run(other.tell, {"number": 2})
        trio.from_thread.run(other.ask, {"number": 3})

    ref = await supervisor.spawn(work, name="a")
    await ref.ask()
    assert got == [1, 2, 3]


async def test_what_is_called_in_a_thread_all_the_same_is_refused_and_changes_nothing(supervisor):
    """The other actor's worker, which is idle, must not get lost over it."""
    got = []

    async def sink(ctx):
        got.append(ctx.snapshot.data["number"])

    other = await supervisor.spawn(sink, name="other")
    await trio.testing.wait_all_tasks_blocked()

    def work(_ctx):
        other.tell_nowait({"number": 1})

    ref = await supervisor.spawn(work, name="a")
    with pytest.raises(RuntimeError) as caught:
        await ref.ask()
    assert "trio.from_thread.run_sync" in str(caught.value)
    await other.ask({"number": 2})
    assert got == [2]
    assert other.statistics().ledger == ActorLedger(accepted=1, replied=1)


async def test_it_ends_itself_from_a_thread(supervisor):
    def work(ctx):
        ctx.stop()
        return {"last": True}

    ref = await supervisor.spawn(work, name="a")
    assert (await ref.ask()).data == {"last": True}
    assert await ref.wait_stopped() is None


async def test_a_thread_that_listens_ends_when_it_is_cancelled():
    began, told = trio.Event(), []

    def work(_ctx):
        trio.from_thread.run_sync(began.set)
        while True:
            trio.from_thread.check_cancelled()

    async def ask(ref):
        with pytest.raises(ActorUnavailableError) as caught:
            await ref.ask()
        told.append(caught.value.actor)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with Supervisor() as supervisor:
                nursery.start_soon(ask, await supervisor.spawn(work, name="a"))
                await began.wait()
                scope.cancel()
                await trio.sleep_forever()
    assert told == ["a"]
    assert supervisor.ledger == ActorLedger(accepted=1, cancelled=1)


async def test_a_thread_that_listens_ends_when_the_budget_of_a_stop_is_spent(supervisor):
    began = trio.Event()

    def work(_ctx):
        trio.from_thread.run_sync(began.set)
        while True:
            trio.from_thread.check_cancelled()

    ref = await supervisor.spawn(work, name="a", shutdown=0.01)
    async with trio.open_nursery() as nursery:

        async def ask():
            with pytest.raises(ActorUnavailableError):
                await ref.ask()

        nursery.start_soon(ask)
        await began.wait()
        await ref.stop()
    assert supervisor.ledger == ActorLedger(accepted=1, cancelled=1)


async def test_a_thread_that_does_not_is_abandoned_and_its_message_is_not_delivered_again(supervisor):
    """Or two threads might handle it at the same time."""
    began, go_on = trio.Event(), threading.Event()
    seen = []

    def work(ctx):
        seen.append(ctx.attempt)
        trio.from_thread.run_sync(began.set)
        go_on.wait()

    ref = await supervisor.spawn(work, name="a", shutdown=0.01, max_deliveries=3, idempotent=True)
    try:
        async with trio.open_nursery() as nursery:

            async def ask():
                with pytest.raises(ThreadAbandonedError) as caught:
                    await ref.ask(timeout=60)
                assert caught.value.actor == "a"

            nursery.start_soon(ask)
            await began.wait()
            await ref.restart()
        assert seen == [1]
        assert supervisor.ledger == ActorLedger(accepted=1, failed=1)
    finally:
        go_on.set()
