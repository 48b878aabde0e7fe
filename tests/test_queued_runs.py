"""Supervisors that bound their runs: who goes on, who waits, who is turned away, and what they are told."""

from __future__ import annotations

import pytest
import trio
from gauge import Gauge

from stageflow_actors import (
    OverloadedError,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    RunEnding,
    StageOutput,
    StageState,
    Supervisor,
)

TURNED_AWAY = "raise max_runs or max_queued, or take overflow='wait'"


class BodyError(Exception):
    """What the body of a supervisor raises."""


class Abort(BaseException):
    """What is no `Exception`."""


def one(name, gauge):
    return Pipeline(name).with_stage(name, gauge)


async def fail(ctx):
    await trio.sleep(1)
    raise ValueError("boom")


async def abort(ctx):
    await trio.sleep(1)
    raise Abort


async def cancel(ctx):
    await trio.sleep(1)
    return StageOutput.cancel("enough")


# Who goes on


async def test_runs_begin_in_the_order_of_their_calls_and_never_too_many(autojump_clock):
    gauge = Gauge()

    async def call(name):
        result = await supervisor.run(one(name, gauge))
        assert result.ok

    async with Supervisor(max_runs=2) as supervisor, trio.open_nursery() as nursery:
        for name in "abcdef":
            if name in "ace":
                supervisor.start(one(name, gauge))
            else:
                nursery.start_soon(call, name)
                await trio.testing.wait_all_tasks_blocked()
    assert gauge.most == 2
    assert sorted(gauge.starts) == [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 1.0), ("e", 2.0), ("f", 2.0)]


async def test_a_run_that_waits_is_pending_and_its_times_count_from_its_start(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_runs=1) as supervisor:
        supervisor.start(one("first", gauge))
        run = supervisor.start(one("second", gauge).with_stage("below", gauge, dependencies="second"))
        async with run.events() as stream:
            await trio.sleep(0.5)
            assert (run.statistics().pending, run.statistics().running) == (2, 0)
            assert run.partial().ended.ending is RunEnding.UNFINISHED
            assert run.partial().ledger.accepted == 0
            told = [(event.at, type(event).__name__) async for event in stream]
        result = await run.result()
    assert gauge.starts[1] == ("second", 1.0)
    assert (result.timings["second"].started, result.duration) == (0.0, 2.0)
    assert told[0] == (0.0, "StageStarted")
    assert told[-1] == (2.0, "RunEnded")


@pytest.mark.parametrize("runner", [fail, abort, cancel])
async def test_a_run_that_ends_badly_makes_room_too(runner, autojump_clock):
    gauge = Gauge()
    with trio.CancelScope():
        try:
            async with Supervisor(max_runs=1) as supervisor:
                first = supervisor.start(one("first", runner))
                second = supervisor.start(one("second", gauge))
                with pytest.raises(PipelineFailedError) if runner is fail else trio.CancelScope():
                    await first.result()
                await second.result()
        except Abort:
            assert second.partial().ended.ending is RunEnding.CANCELLED
            assert gauge.starts == []
            return
    assert runner is not abort
    assert gauge.starts == [("second", 1.0)]


async def test_a_run_that_is_refused_for_another_reason_takes_no_place(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_runs=1) as supervisor:
        with pytest.raises(PipelineValidationError):
            supervisor.start(Pipeline("empty"))
        with pytest.raises(PipelineValidationError):
            await supervisor.run(one("a", gauge), timeout=-1)
        with pytest.raises(PipelineValidationError):
            supervisor.start(one("a", gauge), targets="unknown")
        await supervisor.run(one("a", gauge))
    assert gauge.starts == [("a", 0.0)]


# Runs that end while they wait


async def test_a_timeout_counts_from_the_call(autojump_clock):
    gauge = Gauge(took=5.0)
    async with Supervisor(max_runs=1) as supervisor:
        supervisor.start(one("first", gauge))
        waits = await supervisor.run(one("waits", gauge), timeout=3)
        assert trio.current_time() == 3.0
        begins = await supervisor.run(one("begins", gauge), timeout=4)
        assert trio.current_time() == 7.0
        after = await supervisor.run(one("after", gauge), timeout=6)
    assert (str(waits.ended), str(begins.ended)) == ("timed out: after 3 s", "timed out: after 4 s")
    assert (waits.states, waits.ledger.accepted, waits.timings) == ({"waits": StageState.CANCELLED}, 0, {})
    assert (begins.timings["begins"].started, begins.timings["begins"].ended) == (0.0, 2.0)
    assert after.ok
    assert gauge.order == ["first", "begins", "after"]


@pytest.mark.parametrize("way", ["handle", "scope"])
async def test_a_run_may_be_cancelled_while_it_waits(way, autojump_clock):
    gauge = Gauge()

    async def call(name):
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await supervisor.run(one(name, gauge))
            pytest.fail("it returned although its caller was cancelled")

    scopes = []
    async with Supervisor(max_runs=1) as supervisor, trio.open_nursery() as nursery:
        supervisor.start(one("first", gauge))
        if way == "handle":
            run = supervisor.start(one("second", gauge))
        else:
            nursery.start_soon(call, "second")
            await trio.testing.wait_all_tasks_blocked()
        third = supervisor.start(one("third", gauge))
        await trio.sleep(0.5)
        if way == "handle":
            run.cancel("enough")
            result = await run.result()
            assert (result.states, str(result.ended)) == ({"second": StageState.CANCELLED}, "cancelled: enough")
            assert result.ledger.accepted == 0
        else:
            scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 0.5
        await third.result()
    assert gauge.starts == [("first", 0.0), ("third", 1.0)]


async def test_a_run_that_was_cancelled_while_it_waited_leaves_its_place_at_once(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_runs=1, max_queued=1, overflow="reject") as supervisor:
        supervisor.start(one("first", gauge))
        supervisor.start(one("second", gauge)).cancel("enough")
        supervisor.start(one("third", gauge))
    assert gauge.order == ["first", "third"]


async def test_a_run_cancelled_before_its_first_step_leaves_its_place(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_runs=1) as supervisor:
        supervisor.start(one("first", gauge)).cancel("enough")
        await supervisor.run(one("second", gauge))
    assert gauge.starts == [("second", 0.0)]


@pytest.mark.parametrize("way", ["normally", "raising", "cancelled"])
async def test_a_supervisor_that_is_left_while_runs_wait(way, autojump_clock):
    gauge = Gauge()
    runs = []
    with trio.CancelScope() as scope:
        try:
            async with Supervisor(max_runs=1) as supervisor:
                runs.extend(supervisor.start(one(name, gauge)) for name in "abc")
                await trio.sleep(0.5)
                if way == "raising":
                    raise BodyError
                if way == "cancelled":
                    scope.cancel()
        except BodyError:
            assert way == "raising"
    assert scope.cancelled_caught == (way == "cancelled")
    states = [run.partial().states[name] for name, run in zip("abc", runs, strict=True)]
    if way == "normally":
        assert gauge.times == [0.0, 1.0, 2.0]
        assert states == [StageState.OK] * 3
    else:
        assert gauge.times == [0.0]
        assert trio.current_time() == 0.5
        assert states == [StageState.CANCELLED] * 3
    assert all(run.partial().ledger.balanced for run in runs)


# Runs that are turned away


@pytest.mark.parametrize("overflow", ["reject", "drop_newest"])
@pytest.mark.parametrize(("max_queued", "room"), [(None, 0), (0, 0), (2, 2)])
async def test_a_newcomer_is_turned_away(overflow, max_queued, room, autojump_clock):
    gauge = Gauge()
    text = (
        f"pipeline 'late': the supervisor is full: 1 of max_runs=1 runs go on, {room} of max_queued={room} are queued; "
        + TURNED_AWAY
    )
    async with Supervisor(max_runs=1, max_queued=max_queued, overflow=overflow) as supervisor:
        for name in "abc"[: 1 + room]:
            supervisor.start(one(name, gauge))
        with pytest.raises(OverloadedError) as started:
            supervisor.start(one("late", gauge))
        with pytest.raises(OverloadedError) as ran:
            await supervisor.run(one("late", gauge))
        assert str(started.value) == str(ran.value) == text
        assert (ran.value.limit, ran.value.max_queued, ran.value.pipeline) == (1, room, "late")
        await trio.sleep(1.5 + room)
        assert (await supervisor.run(one("again", gauge))).ok
    assert gauge.order == [*"abc"[: 1 + room], "again"]


DROPPED = (
    "the supervisor is full: 1 of max_runs=1 runs go on, 1 of max_queued=1 are queued, "
    f"and this one had been for longest; {TURNED_AWAY}"
)


async def test_the_run_that_has_waited_longest_is_dropped(autojump_clock):
    gauge, dropped = Gauge(), []

    async def call(name):
        try:
            await supervisor.run(one(name, gauge))
        except OverloadedError as error:
            dropped.append((name, trio.current_time(), str(error)))

    async with Supervisor(max_runs=1, max_queued=1, overflow="drop_oldest") as supervisor:
        supervisor.start(one("first", gauge))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "called")
            await trio.sleep(0.25)
            started = supervisor.start(one("started", gauge))
            await trio.sleep(0.25)
            last = supervisor.start(one("last", gauge))
        with pytest.raises(OverloadedError) as caught:
            await started.result()
        with pytest.raises(OverloadedError):
            await started.result()
        assert (await last.result()).ok
    assert dropped == [("called", 0.25, f"pipeline 'called': {DROPPED}")]
    assert str(caught.value) == f"pipeline 'started': {DROPPED}"
    result = started.partial()
    assert (result.states, result.ledger.accepted) == ({"started": StageState.CANCELLED}, 0)
    assert str(result.ended) == f"cancelled: {DROPPED}"
    assert gauge.order == ["first", "last"]


async def test_a_dropped_run_that_nobody_awaited_is_raised_at_the_end(autojump_clock):
    gauge = Gauge()
    with pytest.raises(OverloadedError, match="pipeline 'b': the supervisor is full"):
        async with Supervisor(max_runs=1, max_queued=1, overflow="drop_oldest") as supervisor:
            for name in "abc":
                supervisor.start(one(name, gauge))
    assert gauge.order == ["a", "c"]


async def test_a_run_cancelled_before_it_learns_that_it_was_dropped_is_cancelled(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_runs=1, max_queued=1, overflow="drop_oldest") as supervisor:
        supervisor.start(one("a", gauge))
        run = supervisor.start(one("b", gauge))
        supervisor.start(one("c", gauge))
        run.cancel("enough")
        assert str((await run.result()).ended) == "cancelled: enough"
    assert gauge.order == ["a", "c"]


async def test_a_run_that_is_dropped_with_continue_on_failure_is_raised_all_the_same(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_runs=1, max_queued=1, overflow="drop_oldest") as supervisor:
        supervisor.start(one("a", gauge))
        run = supervisor.start(one("b", gauge), continue_on_failure=True)
        supervisor.start(one("c", gauge))
        with pytest.raises(OverloadedError):
            await run.result()


# Nonsense

ABOUT_RUNS = "is about runs that max_runs keeps waiting, and there is none; give max_runs too"
KNOWN = "overflow must be one of wait, reject, drop_oldest, drop_newest"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_running_stages": 0}, "max_running_stages must be a whole number of at least 1, not 0"),
        ({"max_running_stages": True}, "max_running_stages must be a whole number of at least 1, not True"),
        ({"max_running_stages": 2.0}, "max_running_stages must be a whole number of at least 1, not 2.0"),
        ({"max_runs": 0}, "max_runs must be a whole number of at least 1, not 0"),
        ({"max_runs": -3}, "max_runs must be a whole number of at least 1, not -3"),
        ({"max_runs": True}, "max_runs must be a whole number of at least 1, not True"),
        ({"max_runs": "3"}, "max_runs must be a whole number of at least 1, not '3'"),
        ({"max_queued": 3}, f"max_queued {ABOUT_RUNS}"),
        ({"max_queued": 0}, f"max_queued {ABOUT_RUNS}"),
        ({"overflow": "reject"}, f"overflow {ABOUT_RUNS}"),
        ({"max_queued": 3, "overflow": "reject", "max_running_stages": 3}, f"max_queued {ABOUT_RUNS}"),
        ({"max_runs": 1, "max_queued": -1}, "max_queued must be a whole number of at least 0, or None, not -1"),
        ({"max_runs": 1, "max_queued": True}, "max_queued must be a whole number of at least 0, or None, not True"),
        ({"max_runs": 1, "max_queued": 1.5}, "max_queued must be a whole number of at least 0, or None, not 1.5"),
        ({"max_runs": 1, "overflow": "rejects"}, f"{KNOWN}, not 'rejects'; did you mean 'reject'?"),
        ({"max_runs": 1, "overflow": None}, f"{KNOWN}, not None"),
    ],
)
def test_a_supervisor_refuses_nonsense(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Supervisor(**options)
    assert str(caught.value) == message
