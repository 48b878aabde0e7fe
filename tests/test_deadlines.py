"""The timeouts of all asks of a supervisor: called in order, once, not before their time, and forgotten in time."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from stageflow_actors import AskTimeoutError, Backoff, Intensity, Restart, Supervisor
from stageflow_actors._deadlines import Deadlines


@pytest.fixture
def calls():
    return []


async def keep(deadlines, nursery):
    nursery.start_soon(deadlines.keep)
    await trio.testing.wait_all_tasks_blocked()


def noting(calls, what):
    return lambda: calls.append((what, trio.current_time()))


async def test_each_is_called_once_at_its_time_and_in_order(autojump_clock, calls):
    deadlines = Deadlines()
    for at in (3, 1, 2, 2.5):
        deadlines.add(at, noting(calls, at))
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert calls == [(1, 1), (2, 2), (2.5, 2.5), (3, 3)]


async def test_of_equal_ones_the_first_is_called_first(autojump_clock, calls):
    deadlines = Deadlines()
    for number in range(5):
        deadlines.add(1, noting(calls, number))
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert [number for number, _ in calls] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("at", [-1, 0, 5])
async def test_one_that_is_due_already_is_called_soon(autojump_clock, calls, at):
    deadlines = Deadlines()
    await trio.sleep(5)
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        deadlines.add(at, noting(calls, at))
        assert calls == []
        await trio.testing.wait_all_tasks_blocked()
        assert calls == [(at, 5)]
        nursery.cancel_scope.cancel()


async def test_an_earlier_one_comes_between(autojump_clock, calls):
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        for at in (9, 5, 7, 3):
            deadlines.add(at, noting(calls, at))
        await trio.sleep(4)
        deadlines.add(4.5, noting(calls, 4.5))
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert calls == [(at, at) for at in (3, 4.5, 5, 7, 9)]


async def test_one_that_is_dropped_is_not_called(autojump_clock, calls):
    deadlines = Deadlines()
    entries = [deadlines.add(at, noting(calls, at)) for at in (1, 2, 3)]
    deadlines.drop(entries[1])
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        await trio.sleep(1.5)
        deadlines.drop(entries[2])
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert calls == [(1, 1)]


async def test_a_call_may_add_and_drop(autojump_clock, calls):
    deadlines = Deadlines()

    def act():
        deadlines.drop(second)
        deadlines.add(1, noting(calls, "at once"))
        deadlines.add(2, noting(calls, "later"))

    deadlines.add(1, act)
    second = deadlines.add(1, noting(calls, "dropped"))
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert calls == [("at once", 1), ("later", 2)]


async def test_those_that_are_over_do_not_pile_up(calls):
    deadlines = Deadlines()
    kept = [deadlines.add(1e6 + number, noting(calls, number)) for number in range(10)]
    for number in range(10_000):
        deadlines.drop(deadlines.add(1e3 + number, noting(calls, number)))
        assert len(deadlines._heap) <= 2 * len(kept) + 70
    assert [entry for entry in sorted(deadlines._heap) if entry[2] is not None] == kept


async def test_any_order_of_adding_and_dropping(autojump_clock, calls):
    chance = random.Random(1)
    deadlines = Deadlines()
    expected = []
    async with trio.open_nursery() as nursery:
        await keep(deadlines, nursery)
        waiting = {}
        for number in range(2_000):
            at = trio.current_time() + chance.randint(1, 30)
            waiting[number] = (at, deadlines.add(at, noting(calls, number)))
            if chance.random() < 0.7:
                deadlines.drop(waiting.pop(chance.choice(list(waiting)))[1])
            if chance.random() < 0.3:
                await trio.sleep(1)
                due = [one for one, (at, _) in waiting.items() if at <= trio.current_time()]
                await trio.testing.wait_all_tasks_blocked()
                expected += sorted((waiting.pop(one)[0], one) for one in due)
        nursery.cancel_scope.cancel()
    assert [number for number, _ in calls] == [number for _, number in expected]
    assert [time for _, time in calls] == [at for at, _ in expected]


# Of asks


async def never(_ctx):
    await trio.sleep_forever()


@pytest.mark.parametrize("timeout", [1, 0.5, 1e-9, 1e14, 3.0])
async def test_an_ask_ends_at_its_timeout_and_not_before(autojump_clock, timeout):
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(never, name="actor", shutdown=0)
        before = trio.current_time()
        with pytest.raises(AskTimeoutError) as caught:
            await ref.ask(timeout=timeout)
        assert trio.current_time() - before == pytest.approx(timeout, abs=1e-8)
        assert caught.value.seconds == timeout
        assert str(caught.value) == (
            f"actor 'actor': it did not answer within {timeout:g} s; it has begun with the message"
        )
        await ref.stop()


async def test_many_asks_end_each_at_its_own(autojump_clock):
    ended = []

    async def ask(seconds):
        with pytest.raises(AskTimeoutError):
            await ref.ask(timeout=seconds)
        ended.append((seconds, trio.current_time()))

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(never, name="actor", shutdown=0)
        async with trio.open_nursery() as nursery:
            for seconds in (5, 1, 3, 2, 4):
                nursery.start_soon(ask, seconds)
        await ref.stop()
    assert ended == [(seconds, seconds) for seconds in (1, 2, 3, 4, 5)]


async def test_without_a_timeout_an_ask_waits_for_ever(autojump_clock):
    async def work(_ctx):
        await trio.sleep(80_000)
        return {"done": True}

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(work, name="actor")
        assert (await ref.ask(timeout=None)).data == {"done": True}
        assert trio.current_time() == 80_000


async def test_asks_end_while_the_supervisor_of_their_actor_is_down(autojump_clock):
    """The one at the top keeps the timeouts."""

    async def work(ctx):
        if ctx.snapshot.data.get("crash"):
            raise KeyError

    async with Supervisor() as supervisor:
        later = Restart(backoff=Backoff(initial=10, jitter=0))
        child = await supervisor.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="child", restart=later)
        ref = await child.spawn(work, name="actor")
        with pytest.raises(KeyError):
            await ref.ask({"crash": True})
        await trio.sleep(1)
        before = trio.current_time()
        with pytest.raises(AskTimeoutError, match="it had not begun with the message, which was withdrawn"):
            await ref.ask(timeout=2)
        assert trio.current_time() - before == 2
        await ref.ask(timeout=20)
        assert trio.current_time() == pytest.approx(10, abs=0.1)
