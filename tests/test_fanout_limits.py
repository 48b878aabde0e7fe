"""Dynamic fan-outs: items in threads, limiters that turn items away, and limiters that others use too."""

from __future__ import annotations

import threading

import pytest
import trio
from fanout_cases import counts_of, ends, fan, follow, forever, held, ledger_of, nothing, run, second
from gauge import Gauge

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    OverloadedError,
    Pipeline,
    Rate,
    Supervisor,
    events,
)
from stageflow_actors.errors import ItemFailedError, ThreadAbandonedError

# Threads


def test_plain_functions_run_in_threads():
    seen = set()
    alone = threading.Barrier(3, timeout=30)

    def work(ctx):
        alone.wait()  # three at once
        seen.add(threading.get_ident())
        ctx.emit(ctx.stage_name)
        if ctx.snapshot.data["index"] % 3 == 2:
            raise ValueError("boom")
        return {"item": ctx.snapshot.data["item"]}

    limiter = Limiter(3)
    result, told = trio.run(follow, fan(work, range(6), limiter=limiter, on_item_failure="collect"))
    assert counts_of(result) == (6, 4, 0, 2)
    assert threading.get_ident() not in seen
    assert [one and one["item"] for one in result.data("f")["results"]] == [0, 1, None, 3, 4, None]
    assert sorted(e.event for e in told if isinstance(e, events.StageEmitted)) == [f"f[{item}]" for item in range(6)]
    assert held(limiter) == (0, 0)
    assert ledger_of(result) == (7, 5, 2, 0)


def test_the_supervisors_thread_limit_holds_for_items():
    running = most = 0
    lock = threading.Lock()

    def work(ctx):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        trio.from_thread.run(trio.lowlevel.checkpoint)
        with lock:
            running -= 1

    result = trio.run(lambda: run(fan(work, range(20), limiter=Limiter(8)), supervisor={"max_threads": 2}))
    assert counts_of(result) == (20, 20, 0, 0)
    assert most <= 2


def test_a_thread_that_is_given_up_keeps_its_slot_until_it_ends():
    go_on = threading.Event()
    begun = threading.Barrier(2, timeout=30)
    limiter = Limiter(2)

    def work(ctx):
        begun.wait()
        if ctx.snapshot.data["index"] == 1:
            raise ValueError("boom")
        go_on.wait(30)

    async def main():
        result, seen = await follow_briefly(fan(work, range(2), limiter=limiter))
        assert ends(seen)[0][0] == "abandoned"
        assert held(limiter) == (1, 0)
        go_on.set()
        async with limiter.slot(), limiter.slot():
            assert held(limiter) == (2, 0)
        return result

    async def follow_briefly(pipeline):
        async with Supervisor(shutdown=0.01) as supervisor:
            started = supervisor.start(pipeline, continue_on_failure=True)
            stream = started.events()
            return await started.result(), [event async for event in stream]

    result = trio.run(main)
    error = result.failures["f"].error
    assert isinstance(error, ItemFailedError)
    assert not isinstance(error.__cause__, ThreadAbandonedError)
    assert held(limiter) == (0, 0)
    assert ledger_of(result) == (3, 0, 3, 0)


# Limits that turn items away


async def test_items_that_are_refused_fail(autojump_clock):
    limiter = Limiter(2, max_queued=0, overflow="reject")
    result, seen = await follow(fan(second, range(5), limiter=limiter, on_item_failure="collect"))
    refused = [e.item for e in seen if isinstance(e, events.StageRejected)]
    failures = result.data("f")["failures"]
    assert counts_of(result) == (5, 2, 0, 3)
    assert refused == sorted(failures) == [2, 3, 4]
    error = failures[2].error
    assert isinstance(error, OverloadedError)
    assert failures[2].attempts == ()
    assert error.stage == "f[2]"
    assert limiter.statistics().rejected == 3
    assert ledger_of(result) == (6, 3, 3, 0)


async def test_an_item_that_is_refused_fails_the_stage(autojump_clock):
    limiter = Limiter(2, max_queued=0, overflow="drop_newest")
    result = await run(fan(second, range(5), limiter=limiter))
    error = result.failures["f"].error
    assert isinstance(error, ItemFailedError)
    assert error.index == 2
    assert isinstance(error.__cause__, OverloadedError)
    assert limiter.statistics().dropped == 1
    assert held(limiter) == (0, 0)
    assert ledger_of(result) == (4, 0, 2, 2)


async def test_an_item_that_waits_is_dropped_for_another(autojump_clock):
    limiter = Limiter(1, max_queued=1, overflow="drop_oldest")
    pipeline = fan(second, range(2), limiter=limiter, on_item_failure="collect")
    async with Supervisor() as supervisor:
        started = supervisor.start(pipeline)
        await trio.sleep(0.5)
        assert held(limiter) == (1, 1)
        async with limiter.slot():
            assert trio.current_time() == 1.0
        result = await started.result()
    assert isinstance(result.data("f")["failures"][1].error, OverloadedError)
    assert (
        result.data("f")["failures"][1]
        .error.describe()
        .endswith("and this one had waited longest; raise max_queued, or take overflow='wait'")
    )
    assert counts_of(result) == (2, 1, 0, 1)


async def test_refusals_leave_the_loop_its_turns(autojump_clock):
    taken = 0

    def endless(inputs):
        nonlocal taken
        while True:
            taken += 1
            assert taken < 100_000
            yield taken

    limiter = Limiter(1, overflow="reject")
    pipeline = fan(nothing, endless, limiter=limiter, on_item_failure="collect", collect=False)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, pipeline)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert limiter.statistics().admitted > 1
    assert held(limiter) == (0, 0)


# Limiters that others use too


def add(pipeline, name, worker, items, limiter, /, **stage):
    return pipeline.with_stage(name, FanOutLimiterStage(worker, items=items, limiter=limiter), **stage)


async def test_two_fan_outs_and_a_stage_share_a_limiter(autojump_clock):
    gauge, limiter = Gauge(), Limiter(3)
    pipeline = add(Pipeline("p"), "a", gauge, range(10), limiter)
    pipeline = add(pipeline, "b", gauge, range(10), limiter).with_stage("c", gauge, limiter=limiter)
    result = await run(pipeline)
    assert result.ok
    assert gauge.most == 3
    assert limiter.statistics().admitted == 21
    assert result.duration == 7.0
    # Neither runs through before the other has its turns.
    first = gauge.order[:10]
    assert {name[0] for name in first} == {"a", "b", "c"}
    assert 2 <= sum(name[0] == "a" for name in first) <= 8


async def test_the_priority_of_the_stage_is_that_of_its_items(autojump_clock):
    gauge, limiter = Gauge(), Limiter(1)
    pipeline = add(Pipeline("p"), "low", gauge, range(3), limiter)
    pipeline = add(pipeline, "high", gauge, range(3), limiter, priority=5)
    async with Supervisor() as supervisor, limiter.slot():
        supervisor.start(pipeline)
        await trio.sleep(1)
        assert held(limiter) == (1, 2)
    assert gauge.order == ["high[0]", "high[1]", "high[2]", "low[0]", "low[1]", "low[2]"]


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_items_need_a_slot_of_the_supervisors_and_the_stage_needs_none(limit, autojump_clock):
    gauge, limiter = Gauge(), Limiter(3)
    pipeline = add(Pipeline("p"), "a", gauge, range(6), limiter)
    pipeline = add(pipeline, "b", gauge, range(6), Limiter(10), dependencies="a").with_stage("c", gauge)
    result = await run(pipeline, supervisor={"max_running_stages": limit})
    assert result.ok
    assert gauge.most == limit
    assert held(limiter) == (0, 0)


async def test_items_of_all_runs_are_within_the_supervisors_limit(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_running_stages=2) as supervisor:
        for _ in range(3):
            supervisor.start(add(Pipeline("p"), "f", gauge, range(4), Limiter(3)))
    assert gauge.most == 2
    assert trio.current_time() == 6.0


async def test_a_limiter_of_the_stage_says_how_many_such_stages_go_on(autojump_clock):
    gauge, outer, inner = Gauge(), Limiter(1), Limiter(2)
    pipeline = Pipeline("p")
    for name in "abc":
        pipeline = add(pipeline, name, gauge, range(4), inner, limiter=outer)
    result = await run(pipeline, supervisor={"max_running_stages": 2})
    assert result.ok
    assert result.duration == 6.0
    names = [name[0] for name in gauge.order]
    assert [names[position] for position in range(0, 12, 4)] == ["a", "b", "c"]
    assert sorted(names[:4]) == ["a"] * 4


async def test_the_items_of_a_fan_out_in_a_subpipeline(autojump_clock):
    gauge, limiter = Gauge(), Limiter(2)

    async def source(ctx):
        return {"items": range(4)}

    inner = Pipeline("inner").with_stage("up", source)
    inner = add(inner, "f", gauge, ("up", "items"), limiter, dependencies="up")
    pipeline = Pipeline("p").subpipeline("sub", inner).with_stage("end", nothing, "work", "sub")
    result, seen = await follow(pipeline)
    assert result.ok
    assert sorted(gauge.order) == [f"sub/f[{item}]" for item in range(4)]
    assert gauge.most == 2
    assert result.data("sub")["f"]["count"] == 4
    assert sorted(ends(seen)) == [0, 1, 2, 3]
    assert {event.stage for event in seen if getattr(event, "item", None) is not None} == {"sub/f"}


async def test_starts_come_at_the_rate(autojump_clock):
    gauge = Gauge(took=0.0)
    limiter = Limiter(10, rate=Rate(2, per=1.0, burst=3))
    assert (await run(fan(gauge, range(7), limiter=limiter))).ok
    assert gauge.times == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0]
    assert held(limiter) == (0, 0)


async def test_an_item_that_never_began_gives_its_token_back(autojump_clock):
    limiter = Limiter(10, rate=Rate(1, per=10.0))

    async def fail(ctx):
        raise ValueError("boom")

    async with Supervisor() as supervisor:
        started = supervisor.start(fan(forever, range(5), limiter=limiter), timeout=15, continue_on_failure=True)
        await started.result()
        assert limiter.statistics().admitted == 2
        async with limiter.slot():
            assert trio.current_time() == 20.0


def test_a_limiter_that_another_loop_uses_fails_the_stage():
    limiter = Limiter(1)
    inside, over = threading.Event(), threading.Event()

    async def hold():
        async with limiter.slot():
            inside.set()
            while not over.is_set():
                await trio.lowlevel.checkpoint()

    thread = threading.Thread(target=trio.run, args=(hold,))
    thread.start()
    try:
        assert inside.wait(30)
        error = trio.run(run, fan(nothing, range(2), limiter=limiter)).failures["f"].error
        assert type(error) is RuntimeError
        assert "is in use in another trio run" in str(error)
    finally:
        over.set()
        thread.join()
    assert counts_of(trio.run(run, fan(nothing, range(2), limiter=limiter))) == (2, 2, 0, 0)
