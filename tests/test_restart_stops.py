"""Runs that end while a stage is between two attempts, or at the second."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from restart_cases import ONE_SECOND, errors_of, failing

from stageflow_actors import (
    Backoff,
    Directive,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Restart,
    RunEnding,
    StageOutput,
    StageState,
    Supervisor,
    Trigger,
)
from stageflow_actors.errors import StageTimeoutError

FOR_LONG = Restart(backoff=Backoff(initial=100.0, maximum=100.0, jitter=0.0))
"""With it a stage is between two attempts for 100 seconds."""


class BodyError(Exception):
    """What the body of a supervisor raises."""


async def fail_later(ctx):
    await trio.sleep(1)
    raise ValueError("boom")


async def cancel_later(ctx):
    await trio.sleep(1)
    return StageOutput.cancel("enough")


def flaky(**options):
    return Pipeline("p").with_stage("a", failing(1), restart=FOR_LONG, **options)


# Each ends a run of `flaky` after one second, and returns its result.


async def by_its_handle(pipeline):
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        await trio.sleep(1)
        run.cancel("enough")
        return await run.result()


async def by_the_callers_scope(pipeline):
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run, pipeline)
        await trio.sleep(1)
        engine = next(iter(supervisor._engines))
        nursery.cancel_scope.cancel()
    return engine.result


async def by_an_error_in_the_supervisors_body(pipeline):
    with pytest.raises(BodyError):
        async with Supervisor() as supervisor:
            run = supervisor.start(pipeline)
            await trio.sleep(1)
            raise BodyError
    return run.partial()


async def by_its_timeout(pipeline):
    async with Supervisor() as supervisor:
        return await supervisor.run(pipeline, timeout=1)


async def by_a_sibling_that_fails(pipeline):
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.with_stage("sibling", fail_later).run()
    return caught.value.result


async def by_a_sibling_that_escalates(pipeline):
    escalate = Restart(decide=lambda error: Directive.ESCALATE)
    return await pipeline.with_stage("sibling", fail_later, restart=escalate).run(continue_on_failure=True)


async def by_a_sibling_that_cancels(pipeline):
    return await pipeline.with_stage("sibling", cancel_later).run()


STOPS = [
    (by_its_handle, RunEnding.CANCELLED),
    (by_the_callers_scope, RunEnding.CANCELLED),
    (by_an_error_in_the_supervisors_body, RunEnding.CANCELLED),
    (by_its_timeout, RunEnding.TIMED_OUT),
    (by_a_sibling_that_fails, RunEnding.FAILED),
    (by_a_sibling_that_escalates, RunEnding.FAILED),
    (by_a_sibling_that_cancels, RunEnding.CANCELLED),
]


@pytest.mark.parametrize(("stop", "ending"), STOPS, ids=[stop.__name__ for stop, _ in STOPS])
@pytest.mark.parametrize("limited", [False, True])
async def test_a_stage_that_backs_off_stops_at_once(stop, ending, limited, autojump_clock):
    limiter = Limiter(1) if limited else None
    result = await stop(flaky(limiter=limiter))
    assert trio.current_time() == 1
    assert result.ended.ending is ending
    assert result.states["a"] is StageState.CANCELLED
    assert result.reason("a") == "the run ended before it was restarted"
    assert errors_of(result.attempts["a"]) == ["down 1"]
    assert (result.timings["a"].started, result.timings["a"].ended) == (0.0, 0.0)
    assert "a" not in result.failures
    assert (result.ledger.balanced, result.ledger.cancelled) == (True, 1)
    assert limiter is None or (limiter.statistics().running, limiter.statistics().queued) == (0, 0)


@pytest.mark.parametrize(("stop", "ending"), STOPS, ids=[stop.__name__ for stop, _ in STOPS])
async def test_a_stage_that_waits_for_its_limiter_again_stops_at_once(stop, ending, autojump_clock):
    limiter = Limiter(1)

    async def hold(ctx):
        await trio.sleep_forever()

    pipeline = (
        Pipeline("p")
        .with_stage("a", failing(1), restart=Restart(backoff=Backoff(initial=0.5, jitter=0.0)), limiter=limiter)
        .with_stage("b", hold, limiter=limiter)
    )
    result = await stop(pipeline)
    assert trio.current_time() == 1
    assert result.ended.ending is ending
    assert (result.states["a"], result.states["b"]) == (StageState.CANCELLED, StageState.CANCELLED)
    assert errors_of(result.attempts["a"]) == ["down 1"]
    assert (result.ledger.balanced, result.ledger.cancelled) == (True, 2)
    assert (limiter.statistics().running, limiter.statistics().queued) == (0, 0)


@pytest.mark.parametrize(("stop", "ending"), STOPS, ids=[stop.__name__ for stop, _ in STOPS])
async def test_a_stage_stopped_at_its_second_attempt_is_cancelled(stop, ending, autojump_clock):
    async def hang_on(ctx):
        if ctx.attempt == 1:
            raise ConnectionError("down 1")
        await trio.sleep_forever()

    result = await stop(Pipeline("p").with_stage("a", hang_on, restart=Restart(backoff=Backoff(initial=0.5, jitter=0))))
    assert result.ended.ending is ending
    assert result.states["a"] is StageState.CANCELLED
    assert errors_of(result.attempts["a"]) == ["down 1", None]
    assert (result.timings["a"].started, result.timings["a"].ended) == (0.0, 1.0)
    assert result.ledger.cancelled == 1


@pytest.mark.parametrize("seed", range(8))
async def test_a_backoff_that_ends_at_the_very_moment_of_the_stop(seed, autojump_clock, monkeypatch):
    """Whichever of the two comes first: the next attempt has not begun."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio._core._run, "_r", random.Random(seed))
    pipeline = (
        Pipeline("p").with_stage("sibling", fail_later).with_stage("a", failing(1), restart=Restart(backoff=ONE_SECOND))
    )
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.run()
    result = caught.value.result
    assert list(result.failures) == ["sibling"]
    assert result.states["a"] is StageState.CANCELLED
    assert errors_of(result.attempts["a"]) == ["down 1"]
    assert result.ledger.balanced


@pytest.mark.parametrize("limited", [False, True])
async def test_a_stage_delayed_by_its_backoff_does_restart(limited, autojump_clock):
    """Also when everything else has ended long ago, and a stage waits for it."""

    async def nothing(ctx):
        pass

    pipeline = (
        flaky(limiter=Limiter(1) if limited else None)
        .with_stage("quick", nothing)
        .with_stage("below", nothing, dependencies="a")
        .with_stage("after", nothing, dependencies=("a", "quick"), trigger=Trigger.ALL_DONE)
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        await trio.sleep(99)
        assert run.statistics().pending == 2
        assert (await run.result()).ok
    assert trio.current_time() == 100


async def test_leaving_the_supervisor_waits_for_a_stage_that_backs_off(autojump_clock):
    async with Supervisor() as supervisor:
        run = supervisor.start(flaky())
    assert run.partial().ok
    assert trio.current_time() == 100


async def test_a_run_that_stops_restarts_nothing(autojump_clock):
    """What fails because it was cancelled failed for good."""

    async def clean_up_badly(ctx):
        try:
            await trio.sleep_forever()
        finally:
            raise ConnectionError("in cleanup")

    result = await by_its_handle(Pipeline("p").with_stage("a", clean_up_badly, restart=Restart()))
    assert result.states == {"a": StageState.FAILED}
    assert errors_of(result.attempts["a"]) == ["in cleanup"]
    assert result.ended.ending is RunEnding.CANCELLED


async def test_a_stage_with_a_timeout_in_a_run_with_one(autojump_clock):
    async def forever(ctx):
        await trio.sleep_forever()

    pipeline = Pipeline("p").with_stage("a", forever, timeout=1.0, restart=Restart(backoff=ONE_SECOND))
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, timeout=4.5)
    assert result.ended.ending is RunEnding.TIMED_OUT
    assert [type(attempt.error) for attempt in result.attempts["a"]] == [
        StageTimeoutError,
        StageTimeoutError,
        type(None),
    ]
    assert result.states == {"a": StageState.CANCELLED}


async def test_escalation_ends_also_a_run_that_is_to_continue(autojump_clock):
    async def forever(ctx):
        await trio.sleep_forever()

    escalate = Restart(decide=lambda error: Directive.ESCALATE)
    pipeline = (
        Pipeline("p")
        .with_stage("a", fail_later, restart=escalate)
        .with_stage("sibling", forever)
        .with_stage("below", forever, dependencies="a")
        .with_stage("after", forever, dependencies="a", trigger=Trigger.ALL_DONE)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert str(result.ended) == "failed: stage 'a': ValueError: boom"
    assert result.states == {
        "a": StageState.FAILED,
        "sibling": StageState.CANCELLED,
        "below": StageState.ISOLATED,
        "after": StageState.CANCELLED,
    }
