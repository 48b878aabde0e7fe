"""Stages that are run again: when, as what, how often, and what is told of it."""

from __future__ import annotations

import contextvars
import json
import threading
from itertools import pairwise

import pytest
import trio
import trio.testing
from restart_cases import NO_DELAY, ONE_SECOND, errors_of, failing, run_one, times_of

from stageflow_actors import (
    Backoff,
    Directive,
    Intensity,
    Pipeline,
    PipelineValidationError,
    Restart,
    StageFailedError,
    StageOutput,
    StageState,
    StageTiming,
    Supervisor,
    parallel_stages,
)
from stageflow_actors.errors import RestartIntensityError, ThreadAbandonedError

# When


@pytest.mark.parametrize(
    ("backoff", "chances", "delays"),
    [
        (Backoff(), [1.0], [0.1, 0.2, 0.4]),
        (Backoff(), [0.0], [0.05, 0.1, 0.2]),
        (Backoff(), [0.0, 0.5, 1.0], [0.05, 0.15, 0.4]),
        (Backoff(jitter=1.0), [0.0], [0.0, 0.0, 0.0]),
        (Backoff(jitter=0.0), [0.0], [0.1, 0.2, 0.4]),
        (Backoff(factor=1.0), [1.0], [0.1, 0.1, 0.1]),
        (Backoff(maximum=0.3), [1.0], [0.1, 0.2, 0.3]),
        (Backoff(initial=3, factor=10, maximum=1000, jitter=0), [0.5], [3, 30, 300]),
        (NO_DELAY, [1.0], [0.0, 0.0, 0.0]),
    ],
)
async def test_attempts_are_as_far_apart_as_the_backoff_says(backoff, chances, delays, autojump_clock):
    result = await run_one(failing(9, took=2.0), chances=chances, restart=Restart(backoff=backoff))
    expected, at = [], 0.0
    for number, delay in enumerate([*delays, 0.0], start=1):
        expected.append((number, pytest.approx(at), pytest.approx(at + 2.0)))
        at += 2.0 + delay
    assert times_of(result.attempts["a"]) == expected
    assert result.timings["a"] == StageTiming(0.0, pytest.approx(at))


@pytest.mark.parametrize(
    ("after", "delay"), [(0, 1.0), (0.5, 1.0), (1, 1.0), (3, 3.0), (10, 10.0), (60, 10.0), (float("inf"), 10.0)]
)
async def test_a_retry_comes_no_sooner_than_it_asks_for_and_never_later_than_the_maximum(after, delay, autojump_clock):
    async def ask(ctx):
        return StageOutput.retry("later", after=after) if ctx.attempt == 1 else {}

    result = await run_one(ask, restart=Restart(backoff=Backoff(initial=1.0, jitter=0.0), on=KeyError))
    assert times_of(result.attempts["a"]) == [(1, 0.0, 0.0), (2, delay, delay)]
    assert result.ok


async def test_a_retry_says_what_it_lacks_to_be_run_again(autojump_clock):
    async def ask(ctx):
        return StageOutput.retry(OSError("busy"), {"seen": 3})

    alone = await run_one(ask)
    error = alone.failures["a"].error
    assert str(error) == (
        "pipeline 'p', stage 'a': it returned retry: busy; to have it run again give it restart=Restart(...)"
    )
    spent = await run_one(ask, restart=Restart(max_restarts=1))
    cause = spent.failures["a"].error.__cause__
    assert isinstance(cause, StageFailedError)
    assert str(cause) == "pipeline 'p', stage 'a': it returned retry: busy"
    assert cause.output.data == {"seen": 3}
    assert isinstance(cause.__cause__, OSError)


async def test_a_timeout_is_each_attempts_own_and_backing_off_does_not_count(autojump_clock):
    async def slow_at_first(ctx):
        await trio.sleep(60 if ctx.attempt <= 2 else 0.75)
        return {}

    restart = Restart(backoff=Backoff(initial=5, factor=1, jitter=0))
    result = await run_one(slow_at_first, timeout=1.0, restart=restart)
    assert times_of(result.attempts["a"]) == [(1, 0.0, 1.0), (2, 6.0, 7.0), (3, 12.0, 12.75)]


# How often


@pytest.mark.parametrize(
    ("within", "attempts"),
    [(2.0, 2), (1.75, 6)],
    ids=["a failure exactly so long ago counts", "those longer ago do not"],
)
async def test_the_window_slides(within, attempts, autojump_clock):
    restart = Restart(max_restarts=1, within=within, backoff=ONE_SECOND)
    result = await run_one(failing(5, took=1.0), restart=restart)
    assert len(result.attempts["a"]) == attempts
    assert result.ok == (attempts == 6)


async def test_delays_start_anew_when_failures_have_left_the_window(autojump_clock):
    restart = Restart(max_restarts=2, within=4.0, backoff=Backoff(initial=1.0, factor=2.0, jitter=0.0))
    result = await run_one(failing(4, took=3.0), restart=restart)
    starts = [attempt.started for attempt in result.attempts["a"]]
    # The second failure is 4 s after the first, which still counts; the third 5 s after the second.
    assert [later - sooner - 3.0 for sooner, later in pairwise(starts)] == [1.0, 2.0, 1.0, 2.0]


async def test_every_stage_and_every_run_has_a_count_of_its_own(autojump_clock):
    specs = parallel_stages("w{key}", failing(2), range(3), restart=Restart(max_restarts=2))
    pipeline = Pipeline("p").with_stages(specs)
    async with Supervisor() as supervisor:
        for _ in range(2):
            result = await supervisor.run(pipeline)
            assert [len(attempts) for attempts in result.attempts.values()] == [3, 3, 3]


async def test_past_the_intensity_nothing_in_the_run_is_restarted_any_more(autojump_clock):
    async def late(ctx):
        await trio.sleep(100)
        raise ConnectionError("down")

    restart = Restart(max_restarts=9, backoff=ONE_SECOND)
    pipeline = (
        Pipeline("p")
        .with_stage("one", failing(2, took=0.25), restart=restart)
        .with_stage("two", failing(9, took=0.5), restart=restart)
        .with_stage("final", failing(9))
        .with_stage("late", late, restart=restart)
    )
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, continue_on_failure=True, intensity=Intensity(3, within=10))
        assert {name: len(attempts) for name, attempts in result.attempts.items()} == {
            "one": 3,
            "two": 2,
            "final": 1,
            "late": 1,
        }
        assert [name for name in result.states if result.states[name] is StageState.OK] == ["one"]
        error = result.failures["late"].error
        assert isinstance(error, RestartIntensityError)
        assert (error.max_restarts, error.within, error.stage, error.attempt) == (3, 10, "late", 1)
        assert (await supervisor.run(Pipeline("q").with_stage("a", failing(3), restart=restart))).ok


async def test_restarts_longer_ago_than_the_window_do_not_count_for_the_intensity(autojump_clock):
    restart = Restart(max_restarts=9, backoff=ONE_SECOND)
    result = await run_one(failing(8, took=1.0), restart=restart, intensity=Intensity(1, within=1.5))
    assert len(result.attempts["a"]) == 9


async def test_an_intensity_that_is_none():
    with pytest.raises(PipelineValidationError) as caught:
        await run_one(failing(1), intensity=3)
    assert str(caught.value) == (
        "pipeline 'p': intensity must be an Intensity, not 3; write intensity=Intensity(20, within=60)"
    )


# As what


@pytest.mark.parametrize("shared", [False, True])
async def test_a_class_makes_an_instance_an_attempt(shared, autojump_clock):
    seen = []

    class Stage:
        async def execute(self, ctx):
            seen.append(self)
            raise ConnectionError("down")

    await run_one(Stage() if shared else Stage, restart=Restart(max_restarts=2))
    assert len(seen) == 3
    assert len(set(map(id, seen))) == (1 if shared else 3)


async def test_every_attempt_is_entered_and_left(autojump_clock):
    story = []

    class Stage:
        async def __aenter__(self):
            story.append("enter")

        async def __aexit__(self, kind, *exc):
            story.append("leave" if kind is None else kind.__name__)

        async def execute(self, ctx):
            story.append(ctx.attempt)
            return await failing(2)(ctx)

    assert (await run_one(Stage, restart=Restart())).ok
    assert story == ["enter", 1, "ConnectionError", "enter", 2, "ConnectionError", "enter", 3, "leave"]


async def test_what_an_attempt_sees(autojump_clock):
    kept = []

    async def source(ctx):
        return {"n": 5}

    async def work(ctx):
        kept.append(ctx)
        seen = ctx.attempt, ctx.idempotency_key, ctx.inputs.require_from("source", "n"), ctx.snapshot.data["from"]
        ctx.emit(seen)
        return await failing(2)(ctx)

    pipeline = Pipeline("p").with_stage("source", source)
    pipeline = pipeline.with_stage("work", work, dependencies="source", restart=Restart(), config={"x": 1})
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, {"from": "caller"})
        async with run.events() as stream:
            emitted = [event async for event in stream if type(event).__name__ == "StageEmitted"]
        await run.result()
    key = f"{run.run_id}/work/1"
    assert [event.event for event in emitted] == [(number, key, 5, "caller") for number in (1, 2, 3)]
    assert [event.attempt for event in emitted] == [1, 2, 3]
    assert len(set(map(id, kept))) == 3
    with pytest.raises(RuntimeError, match="stage 'work' has ended, and with it its inputs"):
        kept[0].inputs.get("n")


async def test_the_functions_of_a_policy_are_given_the_error_and_the_context_of_the_run(autojump_clock):
    variable = contextvars.ContextVar("variable", default="nobody's")
    asked = []

    def decide(error):
        asked.append((str(error), variable.get()))
        variable.set("decide's")
        return Directive.RESTART

    async def work(ctx):
        assert variable.get() == "the run's"
        variable.set("the stage's")
        return await failing(2)(ctx)

    variable.set("the run's")
    assert (await run_one(work, restart=Restart(decide=decide))).ok
    assert asked == [("down 1", "the run's"), ("down 2", "the run's")]
    assert variable.get() == "the run's"


async def test_a_stage_in_a_subpipeline_is_restarted(autojump_clock):
    inner = Pipeline("inner").with_stage("x", failing(2), restart=Restart())
    result = await Pipeline("outer").subpipeline("sub", inner).run()
    assert result.ok
    assert errors_of(result.attempts["sub/x"]) == ["down 1", "down 2", None]


# Errors of other runs


@pytest.mark.parametrize("restarts", [None, 2])
async def test_an_inner_runs_exhausted_restarts_are_not_its_own(restarts, autojump_clock):
    async def outer(ctx):
        inner = await run_one(failing(9), restart=Restart(max_restarts=4))
        raise inner.failures["a"].error

    result = await run_one(outer, restart=None if restarts is None else Restart(max_restarts=restarts))
    assert len(result.attempts["a"]) == len(result.failures["a"].attempts) == 1 + (restarts or 0)


async def test_an_inner_runs_returned_failure_is_an_ordinary_error(autojump_clock):
    async def fail(ctx):
        return StageOutput.fail("no")

    async def outer(ctx):
        inner = await run_one(fail)
        raise inner.failures["a"].error

    result = await run_one(outer, restart=Restart(max_restarts=2))
    assert len(result.attempts["a"]) == 3


@pytest.mark.parametrize("which", ["on", "decide"])
async def test_a_function_that_raises_the_very_error_makes_no_circle(which, autojump_clock):
    def again(error):
        raise error

    result = await run_one(failing(9), restart=Restart(**{which: again}))
    error = result.failures["a"].error
    assert str(error) == "down 1"
    assert error.__context__ is None


async def test_a_function_that_raises_something_else_keeps_the_error(autojump_clock):
    def look_up(error):
        return {}[str(error)]

    result = await run_one(failing(9), restart=Restart(on=look_up))
    error = result.failures["a"].error
    assert isinstance(error, KeyError)
    assert str(error.__context__) == "down 1"


# In threads


async def test_a_plain_def_is_restarted_in_a_thread_of_its_own_turn(mock_clock):
    calls = []
    ready, gate = threading.Event(), threading.Event()

    def work(ctx):
        calls.append(ctx.attempt)
        if ctx.attempt == 1:
            raise ConnectionError("down")
        ready.set()
        gate.wait()
        return {"attempt": ctx.attempt}

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", work, restart=Restart(backoff=NO_DELAY)))
        await trio.to_thread.run_sync(ready.wait)
        assert run.partial().states == {"a": StageState.RUNNING}
        gate.set()
        assert (await run.result()).data("a") == {"attempt": 2}
    assert calls == [1, 2]


async def test_one_that_waits_for_a_thread_again_is_restarting_and_stops_at_once(mock_clock):
    failed, ready, gate = threading.Event(), threading.Event(), threading.Event()

    def hold(ctx):
        ready.set()
        gate.wait()

    def fail(ctx):
        failed.wait()
        raise ConnectionError("down")

    async with Supervisor(max_threads=1) as supervisor:
        pipeline = Pipeline("p").with_stage("a", fail, restart=Restart(backoff=NO_DELAY))
        run = supervisor.start(pipeline)
        await trio.testing.wait_all_tasks_blocked()
        other = supervisor.start(Pipeline("q").with_stage("hold", hold))
        failed.set()
        await trio.to_thread.run_sync(ready.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert run.statistics().restarting == 1
        run.cancel("enough")
        result = await run.result()
        gate.set()
        await other.result()
    assert result.states == {"a": StageState.CANCELLED}
    assert errors_of(result.attempts["a"]) == ["down"]
    json.dumps(result.to_dict(), allow_nan=False)


async def test_an_abandoned_thread_is_never_restarted(mock_clock):
    started, gate = threading.Event(), threading.Event()

    def work(ctx):
        started.set()
        gate.wait()

    async with Supervisor(shutdown=1) as supervisor:
        pipeline = Pipeline("p").with_stage("a", work, timeout=2, restart=Restart(decide=lambda e: Directive.RESTART))
        run = supervisor.start(pipeline, continue_on_failure=True)
        await trio.to_thread.run_sync(started.wait)
        mock_clock.jump(2)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        result = await run.result()
        gate.set()
    assert result.states == {"a": StageState.ABANDONED}
    assert isinstance(result.failures["a"].error, ThreadAbandonedError)
    assert len(result.attempts["a"]) == 1
