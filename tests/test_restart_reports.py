"""What a run tells of its restarts: while it goes on, in its result, in its events and in the log."""

from __future__ import annotations

import json
import pickle

import pytest
import trio
from restart_cases import ONE_SECOND, errors_of, failing, run_one, times_of

from stageflow_actors import (
    Backoff,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Restart,
    StageState,
    StageTiming,
    Supervisor,
)
from stageflow_actors.errors import RestartIntensityError

GIVEN_UP = (
    "RestartIntensityError: it failed 2 times, more than its max_restarts=1 allows; "
    "the last failure is ConnectionError: down 2"
)


async def test_a_stage_that_backs_off_is_restarting(autojump_clock):
    seen = []
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", failing(1, took=1.0), restart=Restart(backoff=ONE_SECOND)))
        await trio.sleep(0.5)
        for _ in range(3):
            count, partial = run.statistics(), run.partial()
            seen.append((count.running, count.restarting, count.ended, partial.states["a"].value))
            await trio.sleep(1)
        result = await run.result()
    assert seen == [(1, 0, 0, "running"), (0, 1, 0, "restarting"), (1, 0, 0, "running")]
    assert errors_of(result.attempts["a"]) == ["down 1", None]


async def test_a_partial_result_knows_the_attempts_so_far(autojump_clock):
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", failing(1, took=1.0), restart=Restart(backoff=ONE_SECOND)))
        await trio.sleep(1.5)
        waiting = run.partial()
        await trio.sleep(1)
        running = run.partial()
        await run.result()
    for partial in (waiting, running):
        assert times_of(partial.attempts["a"]) == [(1, 0.0, 1.0)]
        assert partial.timings == {"a": StageTiming(0.0, 1.0)}
        assert partial.failures == {}


async def test_one_that_waits_for_its_limiter_again_is_restarting(autojump_clock):
    limiter = Limiter(1)
    pipeline = (
        Pipeline("p")
        .with_stage("a", failing(1), restart=Restart(backoff=ONE_SECOND), limiter=limiter)
        .with_stage("b", failing(0, took=5.0), limiter=limiter)
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        await trio.sleep(3)
        assert run.partial().states == {"a": StageState.RESTARTING, "b": StageState.RUNNING}
        assert limiter.statistics().queued == 1
        result = await run.result()
    assert times_of(result.attempts["a"]) == [(1, 0.0, 0.0), (2, 5.0, 5.0)]


async def test_the_result_of_a_stage_that_was_healed(autojump_clock):
    async def join(ctx):
        return {"saw": ctx.inputs.require_from("a", "attempt")}

    pipeline = (
        Pipeline("p")
        .with_stage("a", failing(2, took=1.0), restart=Restart(backoff=ONE_SECOND))
        .with_stage("join", join, dependencies="a")
    )
    result = await pipeline.run()
    assert result.ok
    assert result.failures == {}
    assert result.data("join") == {"saw": 3}
    assert list(result.attempts) == ["a", "join"]
    assert times_of(result.attempts["a"]) == [(1, 0.0, 1.0), (2, 2.0, 3.0), (3, 4.0, 5.0)]
    assert errors_of(result.attempts["a"]) == ["down 1", "down 2", None]
    assert times_of(result.attempts["join"]) == [(1, 5.0, 5.0)]
    assert result.timings == {"a": StageTiming(0.0, 5.0), "join": StageTiming(5.0, 5.0)}
    assert result.duration == 5.0
    assert (result.ledger.accepted, result.ledger.replied) == (2, 2)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["restarted"] == {
        "a": [
            {"number": 1, "started": 0.0, "ended": 1.0, "error": "ConnectionError: down 1"},
            {"number": 2, "started": 2.0, "ended": 3.0, "error": "ConnectionError: down 2"},
            {"number": 3, "started": 4.0, "ended": 5.0, "error": None},
        ]
    }
    assert "  2 restarts of 1 stage" in str(result).splitlines()


async def down_once(ctx):
    return await failing(1)(ctx)


async def test_a_result_pickles_with_its_attempts(autojump_clock):
    pipeline = Pipeline("p").with_stage("a", down_once, restart=Restart(backoff=ONE_SECOND), limiter=Limiter(1))
    result = pickle.loads(pickle.dumps(await pipeline.run()))
    assert times_of(result.attempts["a"]) == [(1, 0.0, 0.0), (2, 1.0, 1.0)]
    assert errors_of(result.attempts["a"]) == ["down 1", None]


async def test_the_result_of_a_stage_whose_restarts_are_exhausted(autojump_clock):
    restart = Restart(max_restarts=2, backoff=ONE_SECOND)
    pipeline = Pipeline("p").with_stage("a", failing(9), restart=restart).with_stage("b", failing(0), dependencies="a")
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.run()
    text = "it failed 3 times, more than its max_restarts=2 allows; the last failure is ConnectionError: down 3"
    assert str(caught.value) == f"pipeline 'p', stage 'a': RestartIntensityError: {text}"
    result = caught.value.result
    failure = result.failures["a"]
    error = failure.error
    assert isinstance(error, RestartIntensityError)
    assert str(error) == f"pipeline 'p', stage 'a': {text}"
    assert (error.max_restarts, error.within, error.attempt) == (2, None, 3)
    assert error.attempts == failure.attempts == result.attempts["a"]
    assert errors_of(failure.attempts) == ["down 1", "down 2", "down 3"]
    assert error.__cause__ is failure.attempts[-1].error
    assert result.states == {"a": StageState.FAILED, "b": StageState.ISOLATED}
    assert result.cause_chain("b") == ("b", "a")
    assert (result.ledger.accepted, result.ledger.failed) == (1, 1)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["failures"]["a"]["error"] == f"RestartIntensityError: {text}"
    assert plain["failures"]["a"]["attempts"] == plain["restarted"]["a"]
    assert "  2 restarts of 1 stage" in str(result).splitlines()
    again = pickle.loads(pickle.dumps(error))
    assert (again.max_restarts, again.within, errors_of(again.attempts)) == (2, None, ["down 1", "down 2", "down 3"])


async def test_the_error_names_the_window(autojump_clock):
    result = await run_one(failing(9), restart=Restart(max_restarts=1, within=30.0))
    assert str(result.failures["a"].error) == (
        "pipeline 'p', stage 'a': it failed 2 times within 30 s, more than its max_restarts=1 allows; "
        "the last failure is ConnectionError: down 2"
    )
    assert result.failures["a"].error.within == 30.0


async def test_an_undisturbed_result_says_nothing_of_restarts():
    result = await run_one(failing(0), restart=Restart())
    assert result.to_dict()["restarted"] == {}
    assert "restarted" not in str(result)
    assert times_of(result.attempts["a"])[0][0] == 1


async def collect_events(pipeline):
    async with Supervisor(random=lambda: 1.0) as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        async with run.events() as stream:
            events = [event async for event in stream]
        await run.result()
    assert stream.dropped == 0
    assert {event.run_id for event in events} == {run.run_id}
    assert all(getattr(event, "item", None) is None for event in events)
    return events


def brief(event):
    what = next((getattr(event, name) for name in ("error", "delay", "state") if hasattr(event, name)), None)
    return event.at, type(event).__name__, getattr(event, "attempt", None), str(what) if what is not None else None


async def test_the_events_of_a_stage_that_heals(autojump_clock):
    restart = Restart(backoff=Backoff(initial=1.0, jitter=0.0))
    events = await collect_events(Pipeline("p").with_stage("a", failing(2, took=0.5), restart=restart))
    assert list(map(brief, events)) == [
        (0.0, "StageStarted", 1, None),
        (0.5, "StageCrashed", 1, "down 1"),
        (0.5, "StageRestarting", 2, "1.0"),
        (1.5, "StageStarted", 2, None),
        (2.0, "StageCrashed", 2, "down 2"),
        (2.0, "StageRestarting", 3, "2.0"),
        (4.0, "StageStarted", 3, None),
        (4.5, "StageEnded", None, "ok"),
        (4.5, "RunEnded", None, None),
    ]


async def test_the_events_of_a_stage_that_is_given_up(autojump_clock):
    restart = Restart(max_restarts=1, backoff=ONE_SECOND)
    pipeline = Pipeline("p").with_stage("a", failing(9), restart=restart).with_stage("b", failing(0), dependencies="a")
    events = await collect_events(pipeline)
    assert list(map(brief, events)) == [
        (0.0, "StageStarted", 1, None),
        (0.0, "StageCrashed", 1, "down 1"),
        (0.0, "StageRestarting", 2, "1.0"),
        (1.0, "StageStarted", 2, None),
        (1.0, "StageCrashed", 2, "down 2"),
        (1.0, "StageEnded", None, "failed"),
        (1.0, "StageEnded", None, "isolated"),
        (1.0, "RunEnded", None, None),
    ]
    assert events[5].reason == GIVEN_UP


async def test_every_failed_attempt_is_a_warning_and_the_final_failure_an_error_once(autojump_clock, caplog):
    caplog.set_level("INFO", logger="stageflow_actors")
    healed = Restart(backoff=Backoff(initial=0.1, jitter=0.0))
    await run_one(failing(2), restart=healed)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "pipeline 'p', stage 'a': attempt 1 failed, the next is in 0.1 s: ConnectionError: down 1"),
        ("WARNING", "pipeline 'p', stage 'a': attempt 2 failed, the next is in 0.2 s: ConnectionError: down 2"),
    ]
    caplog.clear()
    await run_one(failing(9), restart=Restart(max_restarts=1, backoff=ONE_SECOND))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "pipeline 'p', stage 'a': attempt 1 failed, the next is in 1 s: ConnectionError: down 1"),
        ("ERROR", f"pipeline 'p', stage 'a' failed: {GIVEN_UP}"),
    ]
    assert isinstance(caplog.records[-1].exc_info[1], RestartIntensityError)
