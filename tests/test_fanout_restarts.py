"""Dynamic fan-outs: items that are run again, and the stage that is."""

from __future__ import annotations

import threading

import pytest
import trio
from fanout_cases import ONE_SECOND, Taken, counts_of, ends, fan, follow, forever, held, ledger_of, nothing, run

from stageflow_actors import (
    Backoff,
    Directive,
    FanOutLimiterStage,
    Intensity,
    Limiter,
    OverloadedError,
    Pipeline,
    Rate,
    Restart,
    RunEnding,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
    events,
)
from stageflow_actors.errors import ItemFailedError, NotFreezableError, RestartIntensityError, StageReturnTypeError

IN_A_SECOND = Restart(backoff=ONE_SECOND)


def failing(times, took=0.0):
    """Return a worker whose attempts at item i fail `times[i]` times, each after `took` seconds."""

    async def work(ctx):
        await trio.sleep(took)
        if ctx.attempt <= times[ctx.snapshot.data["index"]]:
            raise ConnectionError(f"down {ctx.attempt}")
        return {"attempt": ctx.attempt}

    return work


def times_of(attempts):
    return [(attempt.number, attempt.started, attempt.ended, str(attempt.error)) for attempt in attempts]


async def test_items_are_restarted_each_by_itself(autojump_clock):
    pipeline = fan(failing([0, 2, 1], took=0.5), range(3), restart=IN_A_SECOND)
    result, seen = await follow(pipeline)
    assert [one["attempt"] for one in result.data("f")["results"]] == [1, 3, 2]
    assert result.duration == 3.5
    assert ledger_of(result) == (4, 4, 0, 0)
    told = [
        (type(e).__name__, e.at, e.attempt) for e in seen if getattr(e, "item", None) == 1 and hasattr(e, "attempt")
    ]
    assert told == [
        ("StageStarted", 0.0, 1),
        ("StageCrashed", 0.5, 1),
        ("StageRestarting", 0.5, 2),
        ("StageStarted", 1.5, 2),
        ("StageCrashed", 2.0, 2),
        ("StageRestarting", 2.0, 3),
        ("StageStarted", 3.0, 3),
    ]
    assert {e.delay for e in seen if isinstance(e, events.StageRestarting)} == {1.0}
    assert len(result.attempts["f"]) == 1


async def test_delays_grow_with_the_attempts_of_the_item(autojump_clock):
    restart = Restart(max_restarts=3, backoff=Backoff(initial=1.0, factor=2.0, jitter=0.0))
    _, seen = await follow(fan(failing([3, 3]), range(2), restart=restart))
    for item in (0, 1):
        delays = [e.delay for e in seen if isinstance(e, events.StageRestarting) and e.item == item]
        assert delays == [1.0, 2.0, 4.0]


async def test_exhausted_restarts_are_the_items_failure(autojump_clock):
    restart = Restart(max_restarts=2, backoff=ONE_SECOND)
    pipeline = fan(failing([0, 9, 0]), range(3), restart=restart, on_item_failure="collect")
    result = await run(pipeline)
    assert counts_of(result) == (3, 2, 0, 1)
    failure = result.data("f")["failures"][1]
    assert isinstance(failure.error, RestartIntensityError)
    assert str(failure.error) == (
        "pipeline 'p', stage 'f[1]': it failed 3 times, more than its max_restarts=2 allows; "
        "the last failure is ConnectionError: down 3"
    )
    assert times_of(failure.attempts) == [(1, 0.0, 0.0, "down 1"), (2, 1.0, 1.0, "down 2"), (3, 2.0, 2.0, "down 3")]
    assert failure.error.attempts == failure.attempts
    assert failure.error.__cause__ is failure.attempts[-1].error
    assert ledger_of(result) == (4, 3, 1, 0)


async def test_exhausted_restarts_fail_the_stage(autojump_clock):
    result = await run(fan(failing([0, 9]), range(2), restart=Restart(max_restarts=1, backoff=ONE_SECOND)))
    error = result.failures["f"].error
    assert isinstance(error, ItemFailedError)
    assert isinstance(error.__cause__, RestartIntensityError)
    assert ledger_of(result) == (3, 1, 2, 0)


async def test_a_returned_retry_waits_as_it_asks(autojump_clock):
    async def work(ctx):
        if ctx.attempt == 1:
            return StageOutput.retry("busy", after=7)
        return {"at": trio.current_time()}

    for maximum, at in ((5.0, 5.0), (30.0, 12.0)):
        restart = Restart(backoff=Backoff(initial=1.0, maximum=maximum))
        result = await run(fan(work, range(1), restart=restart))
        assert result.data("f")["results"] == ({"at": at},)


async def test_a_timeout_is_per_attempt_and_is_restarted(autojump_clock):
    async def work(ctx):
        if ctx.attempt <= 2:
            await trio.sleep_forever()
        await trio.sleep(3)
        return {"at": trio.current_time()}

    result, seen = await follow(fan(work, range(1), restart=IN_A_SECOND, timeout=4))
    assert result.data("f")["results"] == ({"at": 13.0},)
    assert [(e.at, type(e.error)) for e in seen if isinstance(e, events.StageCrashed)] == [
        (4.0, StageTimeoutError),
        (9.0, StageTimeoutError),
    ]


@pytest.mark.parametrize(
    "restart",
    [
        Restart(on=OSError),
        Restart(on=lambda error: False),
        Restart(decide=lambda error: Directive.FAIL),
    ],
)
async def test_what_is_not_to_be_restarted_is_not(restart):
    async def work(ctx):
        raise ValueError("boom")

    result, seen = await follow(fan(work, range(2), restart=restart, on_item_failure="collect"))
    assert counts_of(result) == (2, 0, 0, 2)
    assert not [event for event in seen if isinstance(event, events.StageRestarting)]


@pytest.mark.parametrize("output", [5, StageOutput.fail("no")])
async def test_what_breaks_the_contract_or_is_final_is_not_restarted(output):
    async def work(ctx):
        return output

    loop = []
    loop.append(loop)
    result = await run(fan(work, [1, loop], restart=IN_A_SECOND, on_item_failure="collect"))
    failures = result.data("f")["failures"]
    assert [len(failure.attempts) for failure in failures.values()] == [1, 1]
    assert isinstance(failures[1].error, NotFreezableError)
    assert isinstance(failures[0].error, StageReturnTypeError) == (output == 5)


@pytest.mark.parametrize("on_failure", ["fail", "collect"])
async def test_escalation_ends_the_run(on_failure, autojump_clock):
    async def work(ctx):
        await trio.sleep(1)
        if ctx.snapshot.data["index"] == 1:
            raise OSError("disk full")
        await trio.sleep_forever()

    restart = Restart(decide=lambda error: Directive.ESCALATE)
    whole = {"restart": Restart()}
    pipeline = fan(work, range(9), restart=restart, on_item_failure=on_failure, stage=whole)
    result, seen = await follow(pipeline.with_stage("other", forever).with_stage("after", nothing, dependencies="f"))
    assert result.states == {
        "f": StageState.FAILED,
        "other": StageState.CANCELLED,
        "after": StageState.ISOLATED,
    }
    assert result.ended.ending is RunEnding.FAILED
    error = result.failures["f"].error
    assert isinstance(error, ItemFailedError)
    assert (error.index, error.escalates, str(error.__cause__)) == (1, True, "disk full")
    assert not [event for event in seen if isinstance(event, events.StageRestarting)]
    assert result.duration == 1.0


async def test_the_intensity_of_the_run_counts_items(autojump_clock):
    pipeline = fan(failing([1, 1, 1, 1]), range(4), limiter=Limiter(1), restart=IN_A_SECOND, on_item_failure="collect")
    result, seen = await follow(pipeline, intensity=Intensity(2))
    assert counts_of(result) == (4, 2, 0, 2)
    assert len([event for event in seen if isinstance(event, events.StageRestarting)]) == 2
    failure = result.data("f")["failures"][3]
    assert str(failure.error) == (
        "pipeline 'p', stage 'f[3]': the run has had 2 restarts; the last failure is ConnectionError: down 1"
    )


async def test_each_attempt_has_an_instance_of_its_own(autojump_clock):
    entered, left = [], []

    class Worker:
        async def __aenter__(self):
            entered.append(self)
            await trio.lowlevel.checkpoint()

        async def __aexit__(self, *exc):
            left.append(self)
            await trio.lowlevel.checkpoint()

        async def execute(self, ctx):
            if ctx.attempt <= 2:
                raise ValueError("boom")

    assert (await run(fan(Worker, range(3), restart=IN_A_SECOND))).ok
    assert len(set(entered)) == 9
    assert set(left) == set(entered)


def test_threads_are_restarted():
    lock = threading.Lock()
    began = []

    def work(ctx):
        with lock:
            began.append((ctx.snapshot.data["index"], ctx.attempt))
        if ctx.attempt == 1:
            raise ValueError("boom")

    restart = Restart(backoff=Backoff(initial=0.0))
    limiter = Limiter(2, rate=Rate(1000))
    result = trio.run(run, fan(work, range(5), limiter=limiter, restart=restart))
    assert counts_of(result) == (5, 5, 0, 0)
    assert sorted(began) == [(item, attempt) for item in range(5) for attempt in (1, 2)]
    assert held(limiter) == (0, 0)


# Restarts and the limiter


async def test_an_item_in_backoff_holds_no_slot(autojump_clock):
    limiter = Limiter(1)
    async with Supervisor() as supervisor:
        started = supervisor.start(fan(failing([1]), range(1), limiter=limiter, restart=IN_A_SECOND))
        await trio.sleep(0.5)
        assert held(limiter) == (0, 0)
        async with limiter.slot():
            await trio.sleep(2)
            assert held(limiter) == (1, 1)
        assert (await started.result()).duration == 2.5
    assert limiter.statistics().admitted == 3


async def test_others_go_on_while_one_backs_off(autojump_clock):
    ended = []

    async def work(ctx):
        index = ctx.snapshot.data["index"]
        await trio.sleep(0.25)
        if index == 0 and ctx.attempt == 1:
            raise ValueError("boom")
        ended.append(index)

    restart = Restart(backoff=Backoff(initial=0.5, factor=1.0, jitter=0.0))
    result = await run(fan(work, range(4), limiter=Limiter(2), restart=restart))
    assert result.ok
    assert ended.index(0) == 3


async def test_in_an_outage_no_more_items_are_taken_than_the_limiter_admits(autojump_clock):
    source = Taken(1000)
    begun = []

    async def work(ctx):
        begun.append(ctx.snapshot.data["index"])
        await trio.sleep(1)
        if trio.current_time() < 100:
            raise ConnectionError("down")

    restart = Restart(max_restarts=20, backoff=Backoff(initial=10.0, factor=1.0, jitter=0.0))
    async with Supervisor() as supervisor:
        started = supervisor.start(fan(work, source.generate, limiter=Limiter(2), restart=restart))
        await trio.sleep(10.5)
        # Two fail at 1 s, and the one that had waited at 2 s; the fourth is taken, and waits.
        assert sorted(begun) == [0, 1, 2]
        assert source.taken == 4
        await trio.sleep(80)
        assert len(set(begun)) <= 4
        result = await started.result()
    assert counts_of(result) == (1000, 1000, 0, 0)


async def test_a_restart_that_the_limiter_refuses_is_the_end_of_the_item(autojump_clock):
    limiter = Limiter(1, overflow="reject")
    async with Supervisor() as supervisor:
        pipeline = fan(failing([1]), range(1), limiter=limiter, restart=IN_A_SECOND, on_item_failure="collect")
        started = supervisor.start(pipeline)
        stream = started.events()
        await trio.sleep(0.5)
        async with limiter.slot():
            result = await started.result()
    assert result.duration == 1.0
    failure = result.data("f")["failures"][0]
    assert isinstance(failure.error, OverloadedError)
    assert times_of(failure.attempts) == [(1, 0.0, 0.0, "down 1")]
    (rejected,) = [event async for event in stream if isinstance(event, events.StageRejected)]
    assert (rejected.item, rejected.at) == (0, 1.0)


# The stage's own restart


async def test_the_stage_takes_its_items_again(autojump_clock):
    source = Taken(3)
    calls = []

    async def work(ctx):
        index = ctx.snapshot.data["index"]
        calls.append((index, ctx.attempt))
        await trio.sleep(1)
        if calls.count((2, 1)) == 1 and index == 2:
            raise ValueError("boom")

    async with Supervisor() as supervisor:
        pipeline = fan(work, source.generate, limiter=Limiter(1), stage={"restart": IN_A_SECOND})
        started = supervisor.start(pipeline)
        await trio.sleep(3.5)
        assert started.statistics().restarting == 1
        result = await started.result()
    assert result.ok
    assert calls == [(0, 1), (1, 1), (2, 1)] * 2
    assert (source.taken, source.closed) == (6, 2)
    first, again = result.attempts["f"]
    assert isinstance(first.error, ItemFailedError)
    assert (first.number, first.started, first.ended) == (1, 0.0, 3.0)
    assert (again.number, again.started, again.ended, again.error) == (2, 4.0, 7.0, None)
    assert counts_of(result) == (3, 3, 0, 0)
    assert ledger_of(result) == (7, 6, 1, 0)


async def test_a_stage_whose_iterator_is_used_up_cannot_be_restarted(autojump_clock):
    result = await run(fan(failing([9, 9]), iter(range(2)), stage={"restart": IN_A_SECOND}))
    first, again = result.failures["f"].attempts
    assert isinstance(first.error, ItemFailedError)
    assert isinstance(again.error, StageReturnTypeError)
    assert ledger_of(result)[0] == 3


async def test_items_count_their_attempts_anew_when_the_stage_is_restarted(autojump_clock):
    restart = Restart(max_restarts=1, backoff=ONE_SECOND)
    seen = []

    async def work(ctx):
        seen.append((trio.current_time(), ctx.attempt))
        raise ConnectionError("down")

    result = await run(fan(work, range(1), restart=restart, stage={"restart": restart}))
    assert seen == [(0.0, 1), (1.0, 2), (2.0, 1), (3.0, 2)]
    error = result.failures["f"].error
    assert isinstance(error, RestartIntensityError)
    assert isinstance(error.__cause__, ItemFailedError)
    assert isinstance(error.__cause__.__cause__, RestartIntensityError)
    assert ledger_of(result) == (3, 0, 3, 0)


async def test_what_the_limiter_of_the_stage_holds_is_free_while_the_stage_backs_off(autojump_clock):
    outer = Limiter(1)
    worker = failing([9])
    pipeline = Pipeline("p")
    for name in "ab":
        runner = FanOutLimiterStage(worker, items=range(1), limiter=Limiter(1))
        pipeline = pipeline.with_stage(name, runner, limiter=outer, restart=Restart(max_restarts=1, backoff=ONE_SECOND))
    result = await run(pipeline)
    assert result.duration == 1.0
    assert set(result.states.values()) == {StageState.FAILED}
    assert held(outer) == (0, 0)


async def test_cancelled_items_are_told_apart_from_those_in_backoff(autojump_clock):
    restart = Restart(on=ConnectionError, backoff=Backoff(initial=50.0, maximum=50.0, jitter=0.0))

    async def work(ctx):
        index = ctx.snapshot.data["index"]
        if index == 0:
            raise ConnectionError("down")
        await trio.sleep(index)
        raise ValueError("boom")

    limiter = Limiter(3)
    result, seen = await follow(fan(work, range(3), limiter=limiter, restart=restart))
    assert result.failures["f"].error.index == 1
    assert ends(seen)[0] == ("cancelled", "the stage ended before it was restarted")
    assert ends(seen)[2] == ("cancelled", "the stage ended while it ran")
    assert held(limiter) == (0, 0)
