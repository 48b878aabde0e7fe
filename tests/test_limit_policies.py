"""Limiters inside runs that also count starts, or turn stages away."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing
from gauge import Gauge, held

from stageflow_actors import (
    Backoff,
    Limiter,
    OverloadedError,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    Rate,
    Restart,
    Supervisor,
    Trigger,
    parallel_stages,
)
from stageflow_actors import events as told

IN_A_SECOND = Restart(backoff=Backoff(initial=1.0, factor=1.0, jitter=0.0))


def fan(name, gauge, width, **options):
    return Pipeline(name).with_stages(parallel_stages(name + "{key}", gauge, range(width), **options))


def name_states(result):
    return {name: state.value for name, state in result.states.items()}


# Rates


async def test_starts_come_at_the_rate_after_the_burst(autojump_clock):
    gauge = Gauge(took=0.0)
    limiter = Limiter(100, rate=Rate(2, per=1.0, burst=3))
    assert (await fan("w", gauge, 8, limiter=limiter).run()).ok
    assert gauge.times == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


async def test_restarts_count_for_the_rate(autojump_clock):
    starts = []

    async def flaky(ctx):
        starts.append(trio.current_time())
        if ctx.attempt <= 2:
            raise ValueError("boom")

    limiter = Limiter(100, rate=Rate(1, per=10.0))
    assert (await Pipeline("p").with_stage("a", flaky, limiter=limiter, restart=IN_A_SECOND).run()).ok
    assert starts == [0.0, 10.0, 20.0]


async def test_waiting_for_a_token_does_not_count_to_the_timeout(autojump_clock):
    limiter = Limiter(100, rate=Rate(1, per=10.0))
    result = await fan("w", Gauge(), 3, limiter=limiter, timeout=1.5).run()
    assert result.ok
    assert [timing.started for timing in result.timings.values()] == [0.0, 10.0, 20.0]


async def test_a_token_that_was_reserved_goes_back_when_the_stage_is_cancelled_before_its_start(autojump_clock):
    limiter, gauge = Limiter(5, rate=Rate(1, per=100.0)), Gauge(took=5.0)
    async with Supervisor(max_running_stages=1) as supervisor:
        supervisor.start(Pipeline("holds").with_stage("a", gauge))
        await trio.sleep(1)
        reserves = supervisor.start(Pipeline("reserves").with_stage("b", gauge, limiter=limiter))
        await trio.sleep(1)
        supervisor.start(Pipeline("waits").with_stage("c", gauge, limiter=limiter))
        await trio.sleep(1)
        assert held(limiter) == (1, 1)
        reserves.cancel("enough")
    assert gauge.starts == [("a", 0.0), ("c", 5.0)]
    assert held(limiter) == (0, 0)


async def test_a_token_goes_back_when_a_plain_def_is_cancelled_before_it_has_a_thread(mock_clock):
    """Its attempt starts when it has its thread."""
    limiter, gauge = Limiter(5, rate=Rate(1, per=100.0)), Gauge(took=0.0)
    started, gate = threading.Event(), threading.Event()

    def hold(ctx):
        started.set()
        gate.wait()

    def never(ctx):
        pytest.fail("it began although its run was cancelled")

    async with Supervisor(max_threads=1) as supervisor:
        supervisor.start(Pipeline("holds").with_stage("a", hold))
        await trio.to_thread.run_sync(started.wait)
        reserves = supervisor.start(Pipeline("reserves").with_stage("b", never, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        assert held(limiter) == (1, 0)
        reserves.cancel("enough")
        await reserves.result()
        assert (await supervisor.run(Pipeline("starts").with_stage("c", gauge, limiter=limiter))).ok
        gate.set()
    assert gauge.starts == [("c", 0.0)]


async def test_a_token_that_was_spent_stays_spent_when_the_stage_is_cancelled(autojump_clock):
    limiter, gauge = Limiter(5, rate=Rate(1, per=100.0)), Gauge(took=5.0)
    async with Supervisor() as supervisor:
        spends = supervisor.start(fan("w", gauge, 1, limiter=limiter))
        await trio.sleep(1)
        spends.cancel("enough")
        supervisor.start(Pipeline("waits").with_stage("c", gauge, limiter=limiter))
    assert gauge.starts == [("w0", 0.0), ("c", 100.0)]


async def test_stages_held_back_by_the_supervisor_bring_no_second_burst(autojump_clock):
    """In any T seconds there are at most burst + T * rate starts, whenever the tokens were reserved."""
    limiter, gauge = Limiter(10, rate=Rate(1, per=1.0, burst=2)), Gauge(took=0.0)
    async with Supervisor(max_running_stages=1) as supervisor:
        supervisor.start(Pipeline("holds").with_stage("a", Gauge(took=10.0)))
        await trio.sleep(1)
        supervisor.start(fan("w", gauge, 6, limiter=limiter))
    assert gauge.times == [10.0, 10.0, 11.0, 12.0, 13.0, 14.0]


@pytest.mark.parametrize("way", ["timeout", "scope", "handle", "fail fast"])
async def test_a_token_that_comes_at_the_moment_of_a_stop(way, autojump_clock):
    """It goes to nobody of the run that stops, which is still there to be asked when the first is withdrawn."""

    async def stop(ctx):
        await trio.sleep(1)
        if way == "handle":
            run.cancel("enough")
        elif way == "fail fast":
            raise ValueError("boom")
        await trio.sleep(1)

    limiter, gauge = Limiter(5, rate=Rate(1, per=1.0)), Gauge(took=5.0)
    pipeline = fan("w", gauge, 3, limiter=limiter).with_stage("stop", stop)
    with trio.move_on_at(1.0 if way == "scope" else 100.0):
        try:
            async with Supervisor() as supervisor:
                run = supervisor.start(pipeline, timeout=1.0 if way == "timeout" else None)
                await run.result()
        except PipelineFailedError:
            assert way == "fail fast"
    assert trio.current_time() == 1.0
    result = run.partial()
    assert result.ledger.balanced
    assert result.ledger.accepted == 4
    assert run.statistics().ended == 4
    assert held(limiter) == (0, 0)


# Queues that are full

FIVE = "abcde"
POLICIES = {
    "wait": ("abcde", 0, 0),
    "reject": ("abc", 2, 0),
    "drop_newest": ("abc", 0, 2),
    "drop_oldest": ("ade", 0, 2),
}


@pytest.mark.parametrize("overflow", POLICIES)
@pytest.mark.parametrize("restart", [None, IN_A_SECOND])
async def test_each_policy_for_a_full_queue(overflow, restart, autojump_clock):
    ran, rejected, dropped = POLICIES[overflow]
    limiter, gauge = Limiter(1, max_queued=2, overflow=overflow), Gauge()
    pipeline = Pipeline("p")
    for name in FIVE:
        pipeline = pipeline.with_stage(name, gauge, limiter=limiter, restart=restart)
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        async with run.events() as stream:
            events = [event async for event in stream]
        result = await run.result()
    assert "".join(gauge.order) == ran
    assert name_states(result) == {name: "ok" if name in ran else "failed" for name in FIVE}
    statistics = limiter.statistics()
    assert (statistics.admitted, statistics.rejected, statistics.dropped) == (len(ran), rejected, dropped)
    assert held(limiter) == (0, 0)
    ledger = result.ledger
    assert (ledger.accepted, ledger.replied, ledger.failed) == (5, len(ran), 5 - len(ran))
    refused = set(FIVE) - set(ran)
    assert {event.stage for event in events if isinstance(event, told.StageRejected)} == refused
    for name in refused:
        own = [event for event in events if getattr(event, "stage", None) == name]
        assert [type(event) for event in own] == [told.StageRejected, told.StageEnded]
        failure = result.failures[name]
        assert isinstance(failure.error, OverloadedError)
        assert (failure.error.limit, failure.error.max_queued, failure.attempts) == (1, 2, ())
        assert own[0].reason == failure.error.describe()
        assert name not in result.attempts


@pytest.mark.parametrize("overflow", ["reject", "drop_newest", "drop_oldest"])
async def test_the_error_says_what_is_full(overflow, autojump_clock, caplog):
    caplog.set_level("WARNING", logger="stageflow_actors")
    limiter = Limiter(1, max_queued=1, overflow=overflow)
    result = await fan("w", Gauge(), 3, limiter=limiter).run(continue_on_failure=True)
    (name,) = result.failures
    longest = ", and this one had waited longest" if overflow == "drop_oldest" else ""
    text = (
        f"limiter of 1 is full: 1 running, 1 of max_queued=1 queued{longest}; raise max_queued, or take overflow='wait'"
    )
    assert str(result.failures[name].error) == f"pipeline 'w', stage '{name}': {text}"
    assert [record.getMessage() for record in caplog.records] == [
        f"pipeline 'w', stage '{name}' failed: OverloadedError: {text}"
    ]


async def test_without_room_to_wait_whoever_finds_no_slot_is_turned_away(autojump_clock):
    limiter, gauge = Limiter(2, overflow="reject"), Gauge()
    result = await fan("w", gauge, 5, limiter=limiter).run(continue_on_failure=True)
    assert name_states(result) == {"w0": "ok", "w1": "ok", "w2": "failed", "w3": "failed", "w4": "failed"}


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest"])
async def test_being_turned_away_ends_a_run_that_fails_fast(overflow, autojump_clock):
    limiter, gauge = Limiter(1, max_queued=1, overflow=overflow), Gauge()
    with pytest.raises(PipelineFailedError) as caught:
        await fan("w", gauge, 4, limiter=limiter).run()
    result = caught.value.result
    assert all(isinstance(failure.error, OverloadedError) for failure in result.failures.values())
    assert len(result.failures) == 1
    assert set(name_states(result).values()) == {"failed", "cancelled"}
    assert result.ledger.balanced
    assert held(limiter) == (0, 0)


async def test_a_newcomer_of_another_run_drops_the_one_that_has_waited_longest(autojump_clock):
    limiter, gauge = Limiter(1, max_queued=2, overflow="drop_oldest"), Gauge(took=10.0)
    async with Supervisor() as supervisor, Supervisor() as elsewhere:
        first = supervisor.start(fan("a", gauge, 3, limiter=limiter), continue_on_failure=True)
        await trio.sleep(1)
        second = elsewhere.start(fan("b", gauge, 1, limiter=limiter))
        await trio.sleep(1)
        assert name_states(first.partial()) == {"a0": "running", "a1": "failed", "a2": "pending"}
        assert (await second.result()).ok
        result = await first.result()
    assert name_states(result) == {"a0": "ok", "a1": "failed", "a2": "ok"}
    assert gauge.order == ["a0", "a2", "b0"]


async def test_what_hangs_below_one_that_was_turned_away(autojump_clock):
    limiter, gauge = Limiter(1, overflow="reject"), Gauge()
    pipeline = (
        Pipeline("p")
        .with_stage("holder", gauge, limiter=limiter)
        .with_stage("rejected", gauge, limiter=limiter)
        .with_stage("below", gauge, dependencies="rejected")
        .with_stage("further", gauge, dependencies="below")
        .with_stage("after", gauge, dependencies=("rejected", "holder"), trigger=Trigger.ALL_DONE)
        .with_stage("either", gauge, dependencies=("rejected", "holder"), trigger=Trigger.ONE_SUCCESS)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert name_states(result) == {
        "holder": "ok",
        "rejected": "failed",
        "below": "isolated",
        "further": "isolated",
        "after": "ok",
        "either": "ok",
    }
    assert result.cause_chain("further") == ("further", "below", "rejected")
    assert (result.ledger.accepted, result.ledger.replied, result.ledger.failed) == (4, 3, 1)


async def test_what_hangs_below_one_that_was_dropped(autojump_clock):
    limiter, gauge = Limiter(1, max_queued=1, overflow="drop_oldest"), Gauge()
    pipeline = (
        fan("w", gauge, 3, limiter=limiter)
        .with_stage("below", gauge, dependencies="w1")
        .with_stage("after", gauge, dependencies="w1", trigger=Trigger.ALL_DONE)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert name_states(result) == {"w0": "ok", "w1": "failed", "w2": "ok", "below": "isolated", "after": "ok"}


async def test_a_stage_turned_away_at_its_restart_keeps_its_attempts(autojump_clock):
    limiter, gauge = Limiter(1, overflow="reject"), Gauge(took=5.0)

    async def fail(ctx):
        await trio.sleep(1)
        raise ValueError("boom")

    async def late(ctx):
        await trio.sleep(1.5)

    pipeline = (
        Pipeline("p")
        .with_stage("flaky", fail, limiter=limiter, restart=IN_A_SECOND)
        .with_stage("late", late)
        .with_stage("holder", gauge, dependencies="late", limiter=limiter)
        .with_stage("below", gauge, dependencies="flaky")
    )
    result = await pipeline.run(continue_on_failure=True)
    assert name_states(result) == {"flaky": "failed", "late": "ok", "holder": "ok", "below": "isolated"}
    failure = result.failures["flaky"]
    assert isinstance(failure.error, OverloadedError)
    assert failure.error.attempt == 2
    assert [str(attempt.error) for attempt in failure.attempts] == ["boom"]
    assert result.attempts["flaky"] == failure.attempts
    assert (result.timings["flaky"].started, result.timings["flaky"].ended) == (0.0, 1.0)
    assert (result.ledger.accepted, result.ledger.failed) == (3, 1)


# Nonsense


WRITE_A_LIMITER = "write limiter=Limiter(64), and share it between the stages that it limits together"


async def nothing(ctx):
    pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": 3}, f"limiter must be a Limiter, not 3; {WRITE_A_LIMITER}"),
        ({"limiter": Limiter}, f"limiter must be a Limiter, not {Limiter!r}; {WRITE_A_LIMITER}"),
        ({"limiter": Rate(3)}, f"limiter must be a Limiter, not {Rate(3)!r}; {WRITE_A_LIMITER}"),
        ({"priority": "high"}, "priority must be a whole number, not 'high'"),
        ({"priority": True}, "priority must be a whole number, not True"),
        ({"priority": 1.5}, "priority must be a whole number, not 1.5"),
        ({"restart": 3}, "restart must be a Restart, not 3; write restart=Restart(max_restarts=3)"),
        ({"restart": Restart}, f"restart must be a Restart, not {Restart!r}; write restart=Restart(max_restarts=3)"),
    ],
)
def test_a_stage_refuses_nonsense(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", nothing, **options)
    assert str(caught.value) == f"pipeline 'p', stage 'a': {message}"


@pytest.mark.parametrize(
    "options", [{"limiter": Limiter(1)}, {"limiter": Limiter(1, rate=Rate(1))}], ids=["plain", "rated"]
)
async def test_those_that_were_told_in_the_turn_that_ends_the_run_are_cancelled(options, autojump_clock):
    """They have not asked their limiter yet: that comes at the end of the turn."""

    def refuse(inputs):
        raise ValueError("boom")

    gauge = Gauge()
    pipeline = (
        Pipeline("p")
        .with_stage("told", gauge, **options)
        .with_stage("refuses", gauge, when=refuse)
        .with_stage("later", gauge, **options)
    )
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.run()
    result = caught.value.result
    assert name_states(result) == {"told": "cancelled", "refuses": "failed", "later": "cancelled"}
    assert (result.ledger.accepted, result.ledger.cancelled) == (1, 1)
    assert result.ledger.balanced
    assert held(options["limiter"]) == (0, 0)
    assert gauge.starts == []
