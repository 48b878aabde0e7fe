"""Fan-outs whose items fail, wait, restart and are stopped, beside others that want the same slots."""

from __future__ import annotations

import pytest
import trio

from property_tests.explored import Room, chain, check_idle, check_result, fork, get_result, take_steps
from property_tests.test_explored_restarts import AT_ONCE, LATER, flaky
from property_tests.test_explored_stops import stop_later
from stageflow_actors import FanOutLimiterStage, Intensity, Limiter, Restart, RunEnding, StageState, Supervisor
from stageflow_actors.events import StageEnded
from stageflow_actors.testing import race_test

from .world import in_chunks_of

OK, CANCELLED, FAILED = StageState.OK, StageState.CANCELLED, StageState.FAILED


def poison(room, *bad, steps=1):
    """Return a worker that fails at some items."""

    async def work(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(steps)
            if ctx.snapshot.data["item"] in bad:
                raise ConnectionError(ctx.snapshot.data["item"])
            return {"item": ctx.snapshot.data["item"]}

    return work


@pytest.mark.parametrize("most", [1, 2, 3])
@race_test
async def test_poison_is_collected_and_the_others_go_on(most):
    room = Room(most)
    limiter = Limiter(most)
    stage = FanOutLimiterStage(poison(room, 0, 2), items=range(4), limiter=limiter, on_item_failure="collect")
    async with Supervisor() as supervisor:
        result = await supervisor.run(chain("p", stage, room.stage(0)))
    check_result(result)
    data = result.data("a")
    assert (data["count"], data["ok"], data["failed"], data["skipped"]) == (4, 2, 2, 0)
    assert [each and each["item"] for each in data["results"]] == [None, 1, None, 3]
    assert sorted(data["failures"]) == [0, 2]
    check_idle(limiter)
    room.check()


@pytest.mark.parametrize("most", [1, 2])
@race_test
async def test_two_poison_items_and_the_first_of_them_ends_it(most):
    room = Room(most)
    limiter = Limiter(most)
    stage = FanOutLimiterStage(poison(room, 1, 2), items=range(4), limiter=limiter)
    async with Supervisor() as supervisor:
        run = supervisor.start(chain("p", stage, room.stage(0)), continue_on_failure=True)
        events = run.events()
        result = await get_result(run)
    check_result(result)
    assert (result.states["a"], result.states["b"]) == (FAILED, StageState.ISOLATED)
    assert result.failures["a"].error.index in {1, 2}
    told = [event.item for event in [each async for each in events] if isinstance(event, StageEnded)]
    items = [item for item in told if item is not None]
    assert len(items) == len(set(items))
    check_idle(limiter)
    room.check()


@race_test
async def test_two_fan_outs_and_a_stage_share_two_slots():
    room = Room(2)
    limiter = Limiter(2)
    stages = [FanOutLimiterStage(room.stage(0), items=range(2), limiter=limiter) for _ in range(2)]
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", *stages).with_stage("x", room.stage(1), limiter=limiter))
    check_result(result)
    assert [result.data(name)["ok"] for name in "ab"] == [2, 2]
    assert set(room.entered.values()) == {1}
    assert len(room.entered) == 5
    check_idle(limiter)
    room.check()


@pytest.mark.parametrize("way", ["cancel", "timeout"])
@race_test
async def test_items_that_come_slowly_and_a_run_that_is_stopped(way):
    """Whoever gives the items is closed, once, in whatever state it is."""
    room = Room(2)
    limiter = Limiter(2)
    closed = []

    async def give():
        try:
            for item in range(3):
                await take_steps(1)
                yield item
        finally:
            closed.append(True)

    stage = FanOutLimiterStage(room.stage(1), items=lambda _inputs: give(), limiter=limiter)
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(fork("p", stage), timeout=1 if way == "timeout" else None)

        async def cancel():
            await take_steps(4)
            run.cancel()

        if way == "cancel":
            nursery.start_soon(cancel)
        result = await run.result()
    check_result(result)
    assert result.states["a"] is OK or result.ended.ending in {RunEnding.CANCELLED, RunEnding.TIMED_OUT}
    assert len(closed) <= 1
    assert room.entered.total() == 0 or closed
    check_idle(limiter)
    room.check()


@race_test
async def test_items_that_restart_are_within_the_intensity_of_the_run():
    room = Room(2)
    limiter = Limiter(2)
    stage = FanOutLimiterStage(
        flaky(room, 9, 0), items=range(2), limiter=limiter, restart=AT_ONCE, on_item_failure="collect"
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", stage), continue_on_failure=True, intensity=Intensity(3))
        result = await run.result()
    check_result(result)
    assert result.data("a")["failed"] == 2
    assert room.entered.total() == 2 + 3
    check_idle(limiter)
    room.check()


@race_test
async def test_an_item_that_backs_off_and_another_that_is_poison():
    room = Room(2)
    limiter = Limiter(2)

    async def work(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(1)
            if ctx.snapshot.data["item"] == 1 or ctx.attempt == 1:
                raise ConnectionError(ctx.snapshot.data["item"])

    restart = Restart(max_restarts=1, backoff=LATER.backoff)
    stage = FanOutLimiterStage(work, items=range(2), limiter=limiter, restart=restart)
    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", stage), continue_on_failure=True)
        result = await run.result()
    check_result(result)
    assert result.states["a"] is FAILED
    assert result.failures["a"].error.index == 1
    assert room.entered["a[1]"] == 2
    assert room.entered["a[0]"] <= 2
    check_idle(limiter)
    room.check()


@race_test
async def test_items_that_take_too_long():
    """The time passes when it likes: each item is over, in one way."""
    room = Room(2)
    limiter = Limiter(2)

    async def sleep(ctx):
        with room.enter(ctx.stage_name):
            await trio.sleep(1)

    stage = FanOutLimiterStage(sleep, items=range(3), limiter=limiter, timeout=1, on_item_failure="collect")
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", stage))
    check_result(result)
    data = result.data("a")
    assert data["count"] == data["ok"] + data["failed"] == 3
    assert room.entered == {"a[0]": 1, "a[1]": 1, "a[2]": 1}
    check_idle(limiter)
    room.check()


@race_test
async def test_a_failure_elsewhere_ends_the_items():
    room = Room(2)
    limiter = Limiter(2)

    async def fail(_ctx):
        await take_steps(3)
        room.is_closed = True
        raise ZeroDivisionError

    stage = FanOutLimiterStage(room.stage(0), items=range(4), limiter=limiter)
    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", stage).with_stage("x", fail))
        result = await get_result(run)
    check_result(result)
    assert result.states["x"] is FAILED
    assert result.states["a"] in {OK, CANCELLED}
    check_idle(limiter)
    room.check()


@race_test
async def test_a_fan_out_in_a_bounded_supervisor():
    """The fan-out itself takes no place, or it would wait for its own items."""
    room = Room(1)
    limiter = Limiter(2)
    stage = FanOutLimiterStage(room.stage(0), items=range(2), limiter=limiter)
    async with Supervisor(max_running_stages=1) as supervisor:
        result = await supervisor.run(fork("p", stage).with_stage("x", room.stage(0)))
    check_result(result)
    assert result.ok
    assert result.data("a")["ok"] == 2
    check_idle(limiter)
    room.check()


@race_test
async def test_a_limiter_that_drops_items():
    """Each item is done or dropped, and the stage says how many were."""
    room = Room(1)
    limiter = Limiter(1, max_queued=1, overflow="drop_oldest")
    stage = FanOutLimiterStage(room.stage(0), items=range(3), limiter=limiter, on_item_failure="collect")
    async with Supervisor() as supervisor:
        result = await supervisor.run(
            fork("p", stage).with_stage("x", room.stage(0), limiter=limiter), continue_on_failure=True
        )
    check_result(result)
    data = result.data("a")
    assert data["count"] == data["ok"] + data["failed"] == 3
    assert limiter.statistics().dropped == data["failed"] + (result.states["x"] is FAILED)
    check_idle(limiter)
    room.check()


@pytest.mark.parametrize("way", ["completes", "fails", "is cancelled"])
@race_test
async def test_items_that_are_taken_in_chunks_and_one_of_them_is_poison(way):
    room = Room(2)
    limiter = Limiter(2)
    with in_chunks_of(1):
        stage = FanOutLimiterStage(poison(room, *[1] * (way == "fails"), steps=0), items=range(3), limiter=limiter)
        async with Supervisor() as supervisor, trio.open_nursery() as nursery:
            run = supervisor.start(fork("p", stage, room.stage(1)), continue_on_failure=True)
            if way == "is cancelled":
                nursery.start_soon(stop_later, 2, room, run.cancel)
            result = await get_result(run)
    check_result(result)
    if way == "completes":
        assert [each["item"] for each in result.data("a")["results"]] == [0, 1, 2]
    if way == "fails":
        assert result.failures["a"].error.index == 1
    check_idle(limiter)
    room.check()
