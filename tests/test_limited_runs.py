"""Limiters inside runs: never more at once than they say, and every slot given back."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing
from gauge import Gauge, held

from stageflow_actors import (
    Backoff,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Restart,
    StageOutput,
    StageState,
    Supervisor,
    Trigger,
    parallel_stages,
)

IN_A_SECOND = Restart(backoff=Backoff(initial=1.0, factor=1.0, jitter=0.0))


async def nothing(ctx):
    pass


def fan(name, gauge, width, **options):
    return Pipeline(name).with_stages(parallel_stages(name + "{key}", gauge, range(width), **options))


def name_states(result):
    return {name: state.value for name, state in result.states.items()}


# Never above


@pytest.mark.parametrize(
    ("limit", "max_running_stages", "most", "seconds"),
    [(3, None, 3, 4.0), (None, 4, 4, 3.0), (3, 4, 3, 4.0), (4, 3, 3, 4.0), (1, 10, 1, 10.0), (None, None, 10, 1.0)],
)
async def test_as_many_at_once_as_the_tightest_limit(limit, max_running_stages, most, seconds, autojump_clock):
    gauge = Gauge()
    limiter = None if limit is None else Limiter(limit)
    async with Supervisor(max_running_stages=max_running_stages) as supervisor:
        result = await supervisor.run(fan("w", gauge, 10, limiter=limiter))
    assert result.ok
    assert gauge.most == most
    assert result.duration == seconds
    assert set(gauge.order[:most]) == {f"w{number}" for number in range(most)}


async def test_five_thousand_stages_behind_sixty_four(autojump_clock):
    gauge = Gauge()
    limiter = Limiter(64)
    specs = parallel_stages("w{key}", gauge, range(5000), limiter=limiter)
    pipeline = Pipeline("p").with_stages(specs).with_stage("join", nothing, dependencies=specs)
    result = await pipeline.run()
    assert result.ok
    assert gauge.most == 64
    assert result.duration == 79.0
    assert limiter.statistics().admitted == 5000
    assert held(limiter) == (0, 0)


async def test_stages_runs_and_supervisors_share_a_limiter(autojump_clock):
    gauge = Gauge()
    limiter = Limiter(3)
    pipeline = fan("a", gauge, 4, limiter=limiter).with_stages(fan("b", gauge, 4, limiter=limiter).stages)
    async with Supervisor() as one, Supervisor() as other, limiter.slot():
        for supervisor in (one, other):
            supervisor.start(pipeline)
            supervisor.start(pipeline)
        await trio.sleep(0.5)
        assert gauge.most == 2
        assert held(limiter) == (3, 30)
    assert gauge.most == 3
    assert trio.current_time() == 11.0
    assert held(limiter) == (0, 0)


async def test_max_running_stages_holds_over_all_runs(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_running_stages=3) as supervisor:
        for name in "abc":
            supervisor.start(fan(name, gauge, 4))
    assert gauge.most == 3
    assert trio.current_time() == 4.0


async def test_one_that_waits_for_its_own_limiter_keeps_nothing_of_the_supervisors(autojump_clock):
    own, gauge = Limiter(1), Gauge()
    pipeline = fan("narrow", gauge, 5, limiter=own).with_stages(parallel_stages("free{key}", gauge, range(5)))
    async with Supervisor(max_running_stages=2) as supervisor:
        result = await supervisor.run(pipeline)
    assert result.ok
    assert gauge.most == 2
    assert set(gauge.order[:2]) == {"narrow0", "free0"}


async def test_the_stages_of_a_subpipeline_are_limited_and_what_is_around_them_is_not(autojump_clock):
    gauge, limiter = Gauge(), Limiter(2)
    inner = fan("w", gauge, 5, limiter=limiter)
    async with Supervisor(max_running_stages=1) as supervisor:
        result = await supervisor.run(Pipeline("p").subpipeline("sub", inner).with_stage("end", nothing, "work", "sub"))
    assert result.ok
    assert gauge.most == 1
    assert gauge.order == [f"sub/w{number}" for number in range(5)]


# Given back


class BadEnter:
    async def __aenter__(self):
        await trio.sleep(1)
        raise OSError("in __aenter__")

    async def __aexit__(self, *exc):
        pytest.fail("never entered")

    async def execute(self, ctx):
        pytest.fail("never entered")


class BadExit:
    async def __aenter__(self):
        pass

    async def __aexit__(self, *exc):
        await trio.sleep(1)
        raise OSError("in __aexit__")

    async def execute(self, ctx):
        pass


async def crash(ctx):
    await trio.sleep(1)
    raise ValueError("boom")


async def forever(ctx):
    await trio.sleep_forever()


def replies(output):
    async def run(ctx):
        await trio.sleep(1)
        return output

    return run


HOLDERS = {
    "ok": (replies({}), {}),
    "skip": (replies(StageOutput.skip("idle")), {}),
    "fail": (replies(StageOutput.fail("no")), {}),
    "crash": (crash, {}),
    "timeout": (forever, {"timeout": 1.0}),
    "wrong type": (replies(3), {}),
    "__aenter__": (BadEnter, {}),
    "__aexit__": (BadExit, {}),
    "backing off": (crash, {"restart": Restart(backoff=Backoff(initial=10.0, jitter=0.0), max_restarts=1)}),
}


@pytest.mark.parametrize("how", HOLDERS)
@pytest.mark.parametrize("own", [True, False], ids=["its own", "the supervisor's"])
async def test_whoever_ends_gives_its_slot_to_the_next_at_that_moment(how, own, autojump_clock):
    runner, options = HOLDERS[how]
    limiter = Limiter(1) if own else None
    gauge = Gauge()
    pipeline = (
        Pipeline("p")
        .with_stage("holder", runner, limiter=limiter, **options)
        .with_stage("next", gauge, limiter=limiter)
        .with_stage("below", gauge, dependencies="holder", limiter=limiter)
    )
    async with Supervisor(max_running_stages=None if own else 1) as supervisor:
        await supervisor.run(pipeline, continue_on_failure=True)
        assert gauge.starts[0] == ("next", 1.0)
        assert len(gauge.starts) == (2 if how == "ok" else 1)
        assert own is False or held(limiter) == (0, 0)
        before = trio.current_time()
        await supervisor.run(Pipeline("q").with_stage("again", gauge, limiter=limiter))
        assert gauge.starts[-1] == ("again", before)


@pytest.mark.parametrize("way", ["cancel", "timeout", "scope", "fail fast", "reply", "BaseException"])
async def test_a_run_that_stops_gives_everything_back(way, autojump_clock):
    class Abort(BaseException):
        pass

    async def stop(ctx):
        await trio.sleep(1)
        if way == "cancel":
            run.cancel("enough")
        elif way == "reply":
            return StageOutput.cancel("enough")
        elif way == "fail fast":
            raise ValueError("boom")
        elif way == "BaseException":
            raise Abort
        await trio.sleep_forever()

    limiter, shared, gauge = Limiter(2), Limiter(3), Gauge(took=60.0)
    pipeline = (
        Pipeline("p")
        .with_stage("stop", stop)
        .with_stages(parallel_stages("a{key}", gauge, range(5), limiter=limiter))
        .with_stages(parallel_stages("b{key}", gauge, range(5), limiter=shared))
        .with_stages(parallel_stages("c{key}", gauge, range(5), dependencies="a0", limiter=shared))
    )
    with trio.CancelScope() as scope:
        if way == "scope":
            scope.deadline = 1.0
        try:
            async with Supervisor(max_running_stages=4) as supervisor:
                run = supervisor.start(pipeline, timeout=1.0 if way == "timeout" else None)
                await run.result()
        except (PipelineFailedError, Abort):
            assert way in {"fail fast", "BaseException"}
    assert trio.current_time() == 1.0
    assert (held(limiter), held(shared)) == ((0, 0), (0, 0))
    assert gauge.running == 0
    assert run.partial().ledger.balanced
    assert run.statistics().ended == 16
    other = Gauge()
    await fan("z", other, 5, limiter=shared).run()
    assert other.times == [1.0, 1.0, 1.0, 2.0, 2.0]


async def test_stages_that_never_run_hold_nothing(autojump_clock):
    limiter, gauge = Limiter(1), Gauge()
    pipeline = (
        Pipeline("p")
        .with_stage("bad", crash)
        .with_stage("isolated", gauge, dependencies="bad", limiter=limiter)
        .with_stage("not chosen", gauge, limiter=limiter, when=lambda inputs: False)
        .with_stage("after", gauge, dependencies="isolated", trigger=Trigger.ALL_DONE, limiter=limiter)
    )
    await pipeline.run(continue_on_failure=True)
    assert gauge.order == ["after"]
    assert limiter.statistics().admitted == 1


async def test_one_stage_after_the_other_needs_one_slot_and_no_queue(autojump_clock):
    """The slot is free before those that depend on its holder ask for it."""
    limiter, gauge = Limiter(1, overflow="reject"), Gauge()
    pipeline = Pipeline("p").with_stage("a", gauge, limiter=limiter)
    for name, before in zip("bcd", "abc", strict=True):
        pipeline = pipeline.with_stage(name, gauge, dependencies=before, limiter=limiter)
    assert (await pipeline.run()).ok


@pytest.mark.parametrize("own", [True, False], ids=["its own", "the supervisor's"])
async def test_an_abandoned_thread_keeps_its_slot_until_it_really_ends(own, mock_clock):
    started, gate = threading.Event(), threading.Event()
    limiter = Limiter(1) if own else None

    def work(ctx):
        started.set()
        gate.wait()

    async with Supervisor(shutdown=1, max_running_stages=None if own else 1) as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", work, limiter=limiter))
        await trio.to_thread.run_sync(started.wait)
        run.cancel("enough")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        assert (await run.result()).states == {"a": StageState.ABANDONED}
        second = supervisor.start(Pipeline("q").with_stage("b", nothing, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        assert second.statistics().pending == 1
        assert own is False or held(limiter) == (1, 1)
        gate.set()
        assert (await second.result()).ok
    assert own is False or held(limiter) == (0, 0)


async def test_an_abandoned_thread_in_a_run_that_goes_on(mock_clock):
    started, gate = threading.Event(), threading.Event()
    limiter = Limiter(1)

    def work(ctx):
        started.set()
        gate.wait()

    pipeline = Pipeline("p").with_stage("a", work, timeout=2, limiter=limiter).with_stage("b", nothing, limiter=limiter)
    async with Supervisor(shutdown=1) as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        await trio.to_thread.run_sync(started.wait)
        mock_clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        await trio.testing.wait_all_tasks_blocked()
        assert run.partial().states == {"a": StageState.ABANDONED, "b": StageState.PENDING}
        gate.set()
        result = await run.result()
    assert result.states == {"a": StageState.ABANDONED, "b": StageState.OK}
    assert (held(limiter), result.ledger.balanced) == ((0, 0), True)


async def test_waiting_for_a_limiter_does_not_count_to_the_timeout(autojump_clock):
    limiter = Limiter(1)
    result = await fan("w", Gauge(), 5, limiter=limiter, timeout=1.5).run()
    assert result.ok
    assert [timing.duration for timing in result.timings.values()] == [1.0] * 5


# Priorities


async def test_the_more_urgent_come_first(autojump_clock):
    limiter, gauge = Limiter(1), Gauge()
    pipeline = Pipeline("p")
    for name, priority in {"first": 0, "low": -1, "plain": 0, "high": 3, "high too": 3}.items():
        pipeline = pipeline.with_stage(name, gauge, limiter=limiter, priority=priority)
    assert (await pipeline.run()).ok
    assert gauge.order == ["high", "high too", "first", "plain", "low"]


async def test_priorities_hold_for_the_supervisors_limit_and_over_runs(autojump_clock):
    gauge = Gauge()
    async with Supervisor(max_running_stages=1) as supervisor:
        supervisor.start(fan("a", gauge, 3))
        supervisor.start(fan("b", gauge, 2, priority=1))
    assert gauge.order in (["a0", "b0", "b1", "a1", "a2"], ["b0", "b1", "a0", "a1", "a2"])


async def test_a_restarted_stage_waits_from_its_restart_on(autojump_clock):
    """It was there first, but is not before those that have come meanwhile."""
    limiter, gauge = Limiter(1), Gauge()
    tried = []

    async def flaky(ctx):
        tried.append(trio.current_time())
        if ctx.attempt == 1:
            raise ValueError("boom")

    pipeline = Pipeline("p").with_stage("flaky", flaky, limiter=limiter, restart=IN_A_SECOND)
    pipeline = pipeline.with_stages(parallel_stages("w{key}", gauge, range(3), limiter=limiter))
    assert (await pipeline.run()).ok
    assert tried == [0.0, 3.0]
    assert gauge.times == [0.0, 1.0, 2.0]
