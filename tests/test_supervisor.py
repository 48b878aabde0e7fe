"""Running: the supervisor, the handle, cancellation, timeouts, targets, overrides, threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import UTC, datetime
from functools import partial

import pytest
import trio
import trio.testing

from stageflow_actors import (
    ContextSnapshot,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    RunEnding,
    RunIdentity,
    StageFailedError,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
    Trigger,
    parallel_stages,
    route,
)
from stageflow_actors.errors import StageReturnTypeError, ThreadAbandonedError, UndeclaredDependencyError

STATE = StageState


async def nothing(ctx):
    """Return at once."""


async def forever(ctx):
    await trio.sleep_forever()


def returns(value):
    async def stage(ctx):
        return value

    return stage


def raises(error):
    async def stage(ctx):
        raise error

    return stage


# How a stage ends


@pytest.mark.parametrize(
    ("runner", "state", "message"),
    [
        (returns(None), STATE.OK, ""),
        (returns({"a": 1}), STATE.OK, ""),
        (returns(StageOutput.ok(a=1)), STATE.OK, ""),
        (returns(StageOutput.skip("not today")), STATE.SKIPPED, "not today"),
        (
            returns(StageOutput.fail("no luck")),
            STATE.FAILED,
            "StageFailedError: it returned fail: no luck",
        ),
        (
            returns(StageOutput.retry("later")),
            STATE.FAILED,
            "StageFailedError: it returned retry: later; to have it run again give it restart=Restart(...)",
        ),
        (raises(ValueError("boom")), STATE.FAILED, "ValueError: boom"),
        (
            returns(42),
            STATE.FAILED,
            "StageReturnTypeError: it returned 42, of type int; return StageOutput.ok(...), a mapping or None",
        ),
    ],
)
async def test_how_a_stage_ends(runner, state, message):
    result = await Pipeline("p").with_stage("s", runner).run(continue_on_failure=True)
    assert result.states == {"s": state}
    assert result.reason("s") == message
    assert result.ended.ending is RunEnding.COMPLETED
    assert result.ledger.balanced
    assert result.ledger.accepted == 1


async def test_a_wrong_return_type_is_a_type_error_that_names_the_stage():
    with pytest.raises(PipelineFailedError) as caught:
        await Pipeline("p").with_stage("s", returns([1, 2])).run()
    error = caught.value.failures["s"].error
    assert isinstance(error, TypeError)
    assert isinstance(error, StageReturnTypeError)
    assert error.stage == "s"


async def test_a_returned_fail_carries_its_output_and_its_cause():
    cause = OSError("disk full")
    result = (
        await Pipeline("p").with_stage("s", returns(StageOutput.fail(cause, {"at": 3}))).run(continue_on_failure=True)
    )
    error = result.failures["s"].error
    assert isinstance(error, StageFailedError)
    assert error.__cause__ is cause
    assert error.output.data == {"at": 3}
    assert "s" not in result


async def test_cancel_ends_the_run_without_an_error(autojump_clock):
    async def enough(ctx):
        await trio.sleep(1)
        return StageOutput.cancel("found it")

    pipeline = (
        Pipeline("p")
        .with_stage("early", nothing)
        .with_stage("enough", enough)
        .with_stage("other", forever)
        .with_stage("below", nothing, dependencies="enough")
    )
    result = await pipeline.run()
    assert result.states == {
        "early": STATE.OK,
        "enough": STATE.CANCELLED,
        "other": STATE.CANCELLED,
        "below": STATE.CANCELLED,
    }
    assert result.ended.ending is RunEnding.CANCELLED
    assert str(result.ended) == "cancelled: stage 'enough': found it"
    assert result.ledger.replied == 2


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_failure_at_the_same_moment_as_a_cancel_wins_under_fail_fast(keep_going, autojump_clock):
    ready = trio.Event()

    async def cancel(ctx):
        await ready.wait()
        return StageOutput.cancel("found it")

    async def fail(ctx):
        await ready.wait()
        raise ValueError("boom")

    async def go(ctx):
        await trio.testing.wait_all_tasks_blocked()
        ready.set()

    pipeline = Pipeline("p").with_stage("cancel", cancel).with_stage("fail", fail).with_stage("go", go)
    for _ in range(10):
        ready = trio.Event()
        if keep_going:
            result = await pipeline.run(continue_on_failure=True)
            assert result.ended.ending is RunEnding.CANCELLED
        else:
            with pytest.raises(PipelineFailedError) as caught:
                await pipeline.run()
            result = caught.value.result
            assert result.ended.ending is RunEnding.FAILED
        assert result.states["fail"] is STATE.FAILED


# Failing fast, and going on


async def test_fail_fast_raises_a_plain_exception_with_everything(autojump_clock):
    async def slow(ctx):
        await trio.sleep(5)

    pipeline = (
        Pipeline("report")
        .with_stage("fine", nothing)
        .with_stage("slow", slow)
        .with_stage("bad", raises(ValueError("boom")), dependencies="fine")
        .with_stage("below", nothing, dependencies="bad")
    )
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.run()
    error = caught.value
    assert str(error) == "pipeline 'report', stage 'bad': ValueError: boom"
    assert list(error.failures) == ["bad"]
    assert isinstance(error.__cause__, ExceptionGroup)
    assert [str(leaf) for leaf in error.__cause__.exceptions] == ["boom"]
    assert error.result.states == {
        "fine": STATE.OK,
        "slow": STATE.CANCELLED,
        "bad": STATE.FAILED,
        "below": STATE.ISOLATED,
    }
    assert error.result.ended.ending is RunEnding.FAILED


async def test_fail_fast_is_found_by_except_inside_a_nursery():
    async def one():
        try:
            await Pipeline("p").with_stage("s", raises(ValueError("boom"))).run()
        except PipelineFailedError as error:
            found.append(error)

    found = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
    assert len(found) == 1


async def test_continue_on_failure_isolates_the_dependents_and_nothing_else():
    pipeline = (
        Pipeline("p")
        .with_stage("good", returns({"n": 1}))
        .with_stage("bad", raises(ValueError("boom")))
        .with_stage("below-good", nothing, dependencies="good")
        .with_stage("below-bad", nothing, dependencies="bad")
        .with_stage("below-both", nothing, dependencies=("good", "below-bad"))
        .with_stage("report", nothing, dependencies=("below-both", "good"), trigger=Trigger.ALL_DONE)
        .with_stage("below-report", nothing, dependencies="report")
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.states == {
        "good": STATE.OK,
        "bad": STATE.FAILED,
        "below-good": STATE.OK,
        "below-bad": STATE.ISOLATED,
        "below-both": STATE.ISOLATED,
        "report": STATE.OK,
        "below-report": STATE.OK,
    }
    assert result.cause_chain("below-both") == ("below-both", "below-bad", "bad")
    assert not result.ok
    with pytest.raises(PipelineFailedError):
        result.raise_for_failures()


async def test_stages_that_run_although_something_failed_see_what_did():
    async def report(ctx):
        failure = ctx.inputs.failure("bad")
        return {"state": ctx.inputs.state("bad").value, "why": str(failure), "fine": ctx.inputs.failure("good") is None}

    pipeline = (
        Pipeline("p")
        .with_stage("good", nothing)
        .with_stage("bad", raises(ValueError("boom")))
        .with_stage("report", report, dependencies=("good", "bad"), trigger=Trigger.ALL_DONE)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.data("report") == {"state": "failed", "why": "ValueError: boom", "fine": True}


async def test_an_undeclared_dependency_fails_the_stage_and_names_the_place():
    async def asks(ctx):
        return {"x": ctx.inputs.get_from("sauce", "x")}

    pipeline = Pipeline("p").with_stage("source", nothing).with_stage("s", asks, dependencies="source")
    result = await pipeline.run(continue_on_failure=True)
    error = result.failures["s"].error
    assert isinstance(error, UndeclaredDependencyError)
    assert str(error) == "pipeline 'p', stage 's': 'sauce' is not a dependency; did you mean 'source'?"


async def test_every_failure_is_logged_once(caplog):
    caplog.set_level("INFO", logger="stageflow_actors")
    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", raises(ValueError("boom")), range(3)))
    await pipeline.run(continue_on_failure=True)
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"pipeline 'p', stage 'w{number}' failed: ValueError: boom" for number in range(3)
    ]


# Routing and conditions


async def test_routing_runs_the_chosen_branch():
    pipeline = (
        Pipeline("p")
        .with_stage("router", returns(StageOutput.route("left", {"n": 1})))
        .with_stage("left", nothing, dependencies="router", when=route("router", "left"))
        .with_stage("right", nothing, dependencies="router", when=route("router", "right", "wrong"))
        .with_stage("below-right", nothing, dependencies="right")
        .with_stage("join", nothing, dependencies=("left", "right"), trigger=Trigger.NONE_FAILED)
    )
    result = await pipeline.run()
    assert result.ok
    assert {name: state.value for name, state in result.states.items()} == {
        "router": "ok",
        "left": "ok",
        "right": "skipped",
        "below-right": "skipped",
        "join": "ok",
    }
    assert result.reason("right") == "not chosen by route('router', 'right', 'wrong')"
    assert result.reason("below-right") == "dependency 'right' was skipped"
    assert result.ledger.accepted == 3


@pytest.mark.parametrize("keep_going", [False, True])
async def test_a_predicate_that_raises_fails_its_stage(keep_going):
    def odd(inputs):
        return inputs.require_from("a", "missing")

    pipeline = (
        Pipeline("p")
        .with_stage("a", returns({"present": 1}))
        .with_stage("b", nothing, dependencies="a", when=odd)
        .with_stage("c", nothing, dependencies="b")
        .with_stage("d", nothing, dependencies="b", trigger=Trigger.ALL_DONE)
    )
    if keep_going:
        result = await pipeline.run(continue_on_failure=True)
        assert result.states["d"] is STATE.OK
    else:
        with pytest.raises(PipelineFailedError) as caught:
            await pipeline.run()
        result = caught.value.result
        assert result.states["d"] is STATE.CANCELLED
    assert result.states["b"] is STATE.FAILED
    assert result.states["c"] is STATE.ISOLATED
    assert result.failures["b"].attempts == ()
    assert "has no key 'missing', only 'present'" in str(result.failures["b"].error)
    assert result.ledger.balanced


async def test_a_long_chain_of_failing_predicates_needs_no_stack():
    def odd(inputs):
        raise ValueError("odd")

    pipeline = Pipeline("p").with_stage("s0", nothing)
    for number in range(1, 3000):
        pipeline = pipeline.with_stage(
            f"s{number}", nothing, dependencies=f"s{number - 1}", when=odd, trigger=Trigger.ALL_DONE
        )
    result = await pipeline.run(continue_on_failure=True)
    assert len(result.failures) == 2999


# Handles


async def test_start_gives_a_live_handle(autojump_clock):
    async def slow(ctx):
        await trio.sleep(10)

    pipeline = (
        Pipeline("p")
        .with_stage("quick", nothing)
        .with_stage("slow", slow)
        .with_stage("then", nothing, dependencies="slow")
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        assert run.pipeline == "p"
        await trio.sleep(1)
        now = run.statistics()
        assert (now.total, now.ok, now.running, now.pending, now.ended) == (3, 1, 1, 1, 1)
        partial = run.partial()
        assert partial.states == {"quick": STATE.OK, "slow": STATE.RUNNING, "then": STATE.PENDING}
        assert partial.ended.ending is RunEnding.UNFINISHED
        result = await run.result()
    assert result.ok
    assert partial.states["then"] is STATE.PENDING
    assert run.partial() is result


async def test_cancel_returns_what_had_completed(autojump_clock):
    pipeline = Pipeline("p").with_stage("quick", returns({"n": 1})).with_stage("slow", forever)
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        await trio.sleep(1)
        run.cancel("operator")
        result = await run.result()
        run.cancel("again")
    assert result.data("quick") == {"n": 1}
    assert result.states["slow"] is STATE.CANCELLED
    assert str(result.ended) == "cancelled: operator"


async def test_cancel_before_anything_began():
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", forever))
        run.cancel("at once")
        result = await run.result()
    assert result.states == {"s": STATE.CANCELLED}
    assert result.ledger.accepted == 0


async def test_cancelling_a_waiter_does_not_cancel_the_run(autojump_clock):
    async def slow(ctx):
        await trio.sleep(10)

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", slow))
        with trio.move_on_after(1) as scope:
            await run.result()
        assert scope.cancelled_caught
        assert (await run.result()).ok


async def test_every_waiter_gets_the_error():
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", raises(ValueError("boom"))))
        errors = []
        for _ in range(2):
            with pytest.raises(PipelineFailedError) as caught:
                await run.result()
            errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].result is errors[1].result


async def test_a_failed_run_that_nobody_awaited_is_raised_at_the_end():
    with pytest.raises(PipelineFailedError, match="boom"):
        async with Supervisor() as supervisor:
            supervisor.start(Pipeline("p").with_stage("s", raises(ValueError("boom"))))


async def test_failed_runs_that_nobody_awaited_are_raised_together():
    with pytest.raises(ExceptionGroup, match="2 runs failed") as caught:
        async with Supervisor() as supervisor:
            for _ in range(2):
                supervisor.start(Pipeline("p").with_stage("s", raises(ValueError("boom"))))
    assert all(isinstance(error, PipelineFailedError) for error in caught.value.exceptions)


async def test_a_failed_run_whose_waiter_was_cancelled_is_raised_at_the_end(autojump_clock):
    async def fail_late(ctx):
        await trio.sleep(2)
        raise ValueError("boom")

    with pytest.raises(PipelineFailedError, match="boom"):
        async with Supervisor() as supervisor:
            run = supervisor.start(Pipeline("p").with_stage("s", fail_late))
            with trio.move_on_after(1):
                await run.result()


async def test_a_failed_run_that_continued_is_no_error_at_the_end():
    async with Supervisor() as supervisor:
        supervisor.start(Pipeline("p").with_stage("s", raises(ValueError("boom"))), continue_on_failure=True)


# Events


async def test_events_tell_the_whole_story(autojump_clock):
    async def talks(ctx):
        ctx.emit({"half": "way"})
        return {"n": 1}

    pipeline = (
        Pipeline("p")
        .with_stage("talks", talks)
        .with_stage("bad", raises(ValueError("boom")), dependencies="talks")
        .with_stage("below", nothing, dependencies="bad")
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        story = []
        async with run.events() as stream:
            async for event in stream:
                story.append((type(event).__name__, getattr(event, "stage", None), getattr(event, "state", None)))
                assert event.run_id == run.run_id
        await run.result()
    assert story == [
        ("StageStarted", "talks", None),
        ("StageEmitted", "talks", None),
        ("StageEnded", "talks", STATE.OK),
        ("StageStarted", "bad", None),
        ("StageCrashed", "bad", None),
        ("StageEnded", "bad", STATE.FAILED),
        ("StageEnded", "below", STATE.ISOLATED),
        ("RunEnded", None, None),
    ]


async def test_a_slow_reader_loses_events_and_learns_how_many():
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stages(parallel_stages("w{key}", nothing, range(10))))
        stream = run.events(max_queued=5)
        await run.result()
        async with stream:
            read = [event async for event in stream]
    assert len(read) == 5
    assert stream.dropped == 16


async def test_events_of_a_run_that_is_over_end_at_once():
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", nothing))
        await run.result()
        async with run.events() as stream:
            assert [event async for event in stream] == []


async def test_events_that_nobody_reads_any_more_hurt_nobody(autojump_clock):
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stages(parallel_stages("w{key}", nothing, range(600))))
        async with run.events() as stream:
            async for _ in stream:
                break
        assert (await run.result()).ok


async def test_a_worker_thread_may_emit():
    def talks(ctx):
        ctx.emit("from a thread")

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("talks", talks))
        async with run.events() as stream:
            seen = [event.event async for event in stream if type(event).__name__ == "StageEmitted"]
        await run.result()
    assert seen == ["from a thread"]


# The supervisor's block


async def test_leaving_normally_waits(autojump_clock):
    async def slow(ctx):
        await trio.sleep(10)
        done.append(True)

    done = []
    async with Supervisor() as supervisor:
        supervisor.start(Pipeline("p").with_stage("s", slow))
    assert done == [True]


async def test_leaving_with_an_exception_cancels_and_raises_it_bare(autojump_clock):
    with pytest.raises(KeyError, match="mine") as caught:
        async with Supervisor() as supervisor:
            run = supervisor.start(Pipeline("p").with_stage("s", forever))
            await trio.sleep(1)
            raise KeyError("mine")
    assert caught.value.__context__ is None
    assert str(run.partial().ended) == "cancelled: the supervisor was left with KeyError"


async def test_cancelling_the_supervisors_task_comes_out_bare(autojump_clock):
    seen = []
    with trio.move_on_after(1) as scope:
        try:
            async with Supervisor() as supervisor:
                run = supervisor.start(Pipeline("p").with_stage("s", forever))
        except trio.Cancelled as error:
            seen.append(error)
            raise
    assert scope.cancelled_caught
    assert len(seen) == 1
    assert run.partial().states == {"s": STATE.CANCELLED}


async def test_leaving_waits_for_runs_that_other_tasks_execute(autojump_clock):
    async def slow(ctx):
        await trio.sleep(10)
        done.append(True)

    done = []
    async with trio.open_nursery() as nursery:
        async with Supervisor() as supervisor:
            nursery.start_soon(supervisor.run, Pipeline("p").with_stage("s", slow))
            await trio.sleep(1)
        assert done == [True]


async def test_leaving_with_an_exception_cancels_runs_that_other_tasks_execute(autojump_clock):
    async def caller():
        results.append(await supervisor.run(Pipeline("p").with_stage("s", forever)))

    results = []
    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError):
            async with Supervisor() as supervisor:
                nursery.start_soon(caller)
                await trio.sleep(1)
                raise KeyError("mine")
    assert results[0].ended.ending is RunEnding.CANCELLED


async def test_a_fatal_error_ends_a_body_that_waits_in_a_nursery(autojump_clock):
    with pytest.raises(SystemExit):
        async with Supervisor() as supervisor, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            supervisor.start(Pipeline("p").with_stage("s", raises(SystemExit(3))))
            await trio.sleep_forever()


async def test_a_waiter_gets_the_fatal_error_itself(autojump_clock):
    with pytest.raises(SystemExit):
        async with Supervisor() as supervisor:
            await supervisor.start(Pipeline("p").with_stage("s", raises(SystemExit(3)))).result()


@pytest.mark.parametrize("method", ["run", "start"])
async def test_a_supervisor_that_is_not_open_says_so(method):
    supervisor = Supervisor()
    pipeline = Pipeline("p").with_stage("s", nothing)

    async def call():
        value = getattr(supervisor, method)(pipeline)
        if method == "run":
            await value

    with pytest.raises(RuntimeError, match="the supervisor is not open"):
        await call()
    async with supervisor:
        pass
    with pytest.raises(RuntimeError, match="the supervisor has been left"):
        await call()
    with pytest.raises(RuntimeError, match="can be entered once"):
        async with supervisor:
            pass


async def test_a_stage_may_run_a_pipeline_itself():
    async def outer(ctx):
        result = await supervisor.run(Pipeline("inner").with_stage("s", returns({"n": 1})))
        return {"n": result.data("s")["n"] + 1}

    async with Supervisor() as supervisor:
        result = await supervisor.run(Pipeline("outer").with_stage("s", outer))
    assert result.data("s") == {"n": 2}


# Timeouts, targets, overrides


async def test_a_run_timeout_returns_what_had_completed(autojump_clock):
    pipeline = Pipeline("p").with_stage("quick", returns({"n": 1})).with_stage("slow", forever)
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, timeout=2.5)
    assert str(result.ended) == "timed out: after 2.5 s"
    assert result.data("quick") == {"n": 1}
    assert result.states["slow"] is STATE.CANCELLED


async def test_a_stage_timeout_is_an_ordinary_failure(autojump_clock):
    pipeline = Pipeline("p").with_stage("s", forever, timeout=2).with_stage("below", nothing, dependencies="s")
    result = await pipeline.run(continue_on_failure=True)
    error = result.failures["s"].error
    assert isinstance(error, StageTimeoutError)
    assert isinstance(error, TimeoutError)
    assert str(error) == "pipeline 'p', stage 's': it ran into its timeout of 2 s"
    (attempt,) = result.failures["s"].attempts
    assert (attempt.number, attempt.started, attempt.ended) == (1, 0.0, 2.0)
    assert result.states["below"] is STATE.ISOLATED


async def test_a_timeout_error_of_the_stages_own_is_its_own(autojump_clock):
    async def own(ctx):
        with trio.fail_after(1):
            await trio.sleep_forever()

    result = await Pipeline("p").with_stage("s", own, timeout=5).run(continue_on_failure=True)
    assert isinstance(result.failures["s"].error, trio.TooSlowError)


async def test_targets_run_what_they_need_and_no_more():
    ran = []

    async def note(ctx):
        ran.append(ctx.stage_name)

    pipeline = (
        Pipeline("p")
        .with_stage("a", note)
        .with_stage("b", note, dependencies="a")
        .with_stage("c", note, dependencies="a")
        .with_stage("d", note, dependencies=("b", "c"))
    )
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, targets=["b"])
        assert ran == ["a", "b"]
        assert list(result.states) == ["a", "b"]
        ran.clear()
        result = await supervisor.run(pipeline, targets=["d"], overrides={"b": {"n": 1}, "c": StageOutput.ok()})
        assert ran == ["d"]
        assert list(result.states) == ["b", "c", "d"]
        assert result.data("b") == {"n": 1}
        assert result.ledger.accepted == 1


async def test_an_override_may_be_a_skip():
    pipeline = Pipeline("p").with_stage("a", forever).with_stage("b", nothing, dependencies="a")
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, overrides={"a": StageOutput.skip("by hand")})
    assert result.states == {"a": STATE.SKIPPED, "b": STATE.SKIPPED}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "pipeline 'p': timeout must be a positive number of seconds, not 0"),
        ({"timeout": "5"}, "pipeline 'p': timeout must be a positive number of seconds, not '5'"),
        ({"targets": ["jion"]}, "pipeline 'p': unknown target 'jion'; did you mean 'join'?"),
        ({"targets": []}, "pipeline 'p': targets names no stage; name at least one, or leave it out"),
        ({"overrides": {"jion": {}}}, "pipeline 'p': unknown override 'jion'; did you mean 'join'?"),
        (
            {"overrides": {"join": 3}},
            "pipeline 'p', stage 'join': an override must be a StageOutput or a mapping, not 3",
        ),
        (
            {"overrides": {"join": StageOutput.fail("x")}},
            "pipeline 'p', stage 'join': an override must be an output of status ok or skip, not fail",
        ),
        ({"snapshot": 3}, "snapshot must be a ContextSnapshot or a mapping, not 3"),
    ],
)
async def test_bad_arguments_are_refused_before_anything_starts(options, message):
    pipeline = Pipeline("p").with_stage("join", forever)
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineValidationError) as caught:
            await supervisor.run(pipeline, **options)
    assert str(caught.value) == message


async def test_a_badly_built_pipeline_starts_nothing():
    ran = []

    async def note(ctx):
        ran.append(ctx.stage_name)

    pipeline = Pipeline("p").with_stage("worker-7", note).with_stage("join", note, dependencies="wroker-7")
    with pytest.raises(PipelineValidationError) as caught:
        await pipeline.run()
    assert str(caught.value) == "pipeline 'p', stage 'join': unknown dependency 'wroker-7'; did you mean 'worker-7'?"
    assert ran == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_threads": 0}, "max_threads must be a whole number of at least 1, not 0"),
        ({"shutdown": -1}, "shutdown must be a positive number of seconds, not -1"),
    ],
)
def test_a_supervisor_refuses_bad_options(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Supervisor(**options)
    assert str(caught.value) == message


# Snapshots and identity


async def test_a_run_stamps_its_identity():
    async def look(ctx):
        return {"id": ctx.snapshot.run_id, "at": ctx.snapshot.created_at, "key": ctx.idempotency_key}

    now = datetime(2026, 1, 2, tzinfo=UTC)
    async with Supervisor(identify=lambda: RunIdentity("run-1", now)) as supervisor:
        result = await supervisor.run(Pipeline("p").with_stage("s", look), ContextSnapshot(input_text="hello"))
    assert result.data("s") == {"id": "run-1", "at": now, "key": "run-1/s/1"}
    assert result.run_id == "run-1"


async def test_pipeline_run_takes_the_fields_of_a_snapshot():
    async def look(ctx):
        return {"text": ctx.snapshot.input_text, "n": ctx.snapshot.data["n"]}

    pipeline = Pipeline("p").with_stage("s", look)
    result = await pipeline.run(input_text="hello", data={"n": 1})
    assert result.data("s") == {"text": "hello", "n": 1}
    with pytest.raises(TypeError, match="not both"):
        await pipeline.run({"n": 1}, input_text="hello")


# Context variables


async def test_what_one_stage_sets_no_other_sees():
    variable = contextvars.ContextVar("variable", default="outside")

    async def sets(ctx):
        before = variable.get()
        variable.set(ctx.stage_name)
        return {"before": before}

    def asks(inputs):
        asked.append(variable.get())
        return True

    asked = []
    workers = parallel_stages("w{key}", sets, range(5), dependencies="source")
    pipeline = (
        Pipeline("p")
        .with_stage("source", sets)
        .with_stages(workers)
        .with_stage("join", sets, dependencies=workers, when=asks)
    )
    variable.set("caller")
    result = await pipeline.run()
    assert {output.data["before"] for output in result.values()} == {"caller"}
    assert asked == ["caller"]
    assert variable.get() == "caller"


# Threads


async def test_a_plain_def_runs_in_a_thread_of_the_supervisors_own():
    here = threading.get_ident()

    def work(ctx):
        return {"elsewhere": threading.get_ident() != here, "input": ctx.inputs.get_from("a", "n")}

    class Work:
        def execute(self, ctx):
            return work(ctx)

    pipeline = (
        Pipeline("p")
        .with_stage("a", returns({"n": 1}))
        .with_stage("function", work, dependencies="a")
        .with_stage("class", Work, dependencies="a")
        .with_stage("instance", Work(), dependencies="a")
        .with_stage("partial", partial(work), dependencies="a")
    )
    before = trio.to_thread.current_default_thread_limiter().statistics().borrowed_tokens
    result = await pipeline.run()
    for name in ("function", "class", "instance", "partial"):
        assert result.data(name) == {"elsewhere": True, "input": 1}
    assert trio.to_thread.current_default_thread_limiter().statistics().borrowed_tokens == before


async def test_max_threads_is_never_exceeded():
    lock = threading.Lock()
    now = most = 0

    def work(ctx):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        trio.from_thread.run(trio.lowlevel.checkpoint)
        with lock:
            now -= 1

    async with Supervisor(max_threads=3) as supervisor:
        result = await supervisor.run(Pipeline("p").with_stages(parallel_stages("w{key}", work, range(40))))
    assert result.ok
    assert 1 <= most <= 3


async def test_a_thread_that_ends_within_the_budget_counts_as_it_ended(mock_clock):
    started, gate = threading.Event(), threading.Event()

    def work(ctx):
        started.set()
        gate.wait()
        return {"n": 1}

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", work))
        await trio.to_thread.run_sync(started.wait)
        run.cancel("enough")
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4.9)
        await trio.testing.wait_all_tasks_blocked()
        assert run.statistics().running == 1
        gate.set()
        result = await run.result()
    assert result.states == {"s": STATE.OK}
    assert result.data("s") == {"n": 1}
    assert result.ended.ending is RunEnding.CANCELLED


async def test_a_thread_sees_cancellation_at_once(mock_clock):
    started, stopped = threading.Event(), threading.Event()

    def work(ctx):
        started.set()
        while True:
            try:
                trio.from_thread.check_cancelled()
            except trio.Cancelled:
                stopped.set()
                raise

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", work))
        await trio.to_thread.run_sync(started.wait)
        run.cancel("enough")
        await trio.to_thread.run_sync(stopped.wait)
        result = await run.result()
    assert result.states == {"s": STATE.CANCELLED}


@pytest.mark.parametrize("timeout", [None, 2])
async def test_a_thread_that_outlives_its_budget_is_abandoned_and_keeps_its_place(timeout, mock_clock, caplog):
    caplog.set_level("WARNING", logger="stageflow_actors")
    started, gate = threading.Event(), threading.Event()

    def work(ctx):
        started.set()
        gate.wait()
        raise ValueError("too late")

    async with Supervisor(shutdown=1, max_threads=1) as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", work, timeout=timeout), continue_on_failure=True)
        await trio.to_thread.run_sync(started.wait)
        if timeout is None:
            run.cancel("enough")
        else:
            mock_clock.jump(timeout)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
        result = await run.result()
        assert result.states == {"s": STATE.ABANDONED}
        error = result.failures["s"].error
        assert isinstance(error, ThreadAbandonedError)
        assert result.ledger.failed == 1
        assert isinstance(error.__context__, StageTimeoutError) is (timeout is not None)
        # Its place is free only once the thread has really ended.
        second = supervisor.start(Pipeline("q").with_stage("s", lambda ctx: {"n": 2}))
        await trio.testing.wait_all_tasks_blocked()
        assert second.statistics().pending == 1
        gate.set()
        assert (await second.result()).data("s") == {"n": 2}
    assert "the abandoned thread of stage 's' ended with ValueError: too late" in caplog.text


async def test_waiting_for_a_thread_does_not_count_to_the_timeout(mock_clock):
    """The timeout runs from the start of execute."""
    started, gate = threading.Event(), threading.Event()

    def hold(ctx):
        started.set()
        gate.wait()

    def work(ctx):
        return {"n": 1}

    async with Supervisor(max_threads=1) as supervisor:
        first = supervisor.start(Pipeline("p").with_stage("hold", hold))
        await trio.to_thread.run_sync(started.wait)
        second = supervisor.start(Pipeline("q").with_stage("work", work, timeout=5))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(100)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        assert (await first.result()).ok
        assert (await second.result()).ok


async def test_a_thread_that_was_cancelled_before_it_had_a_place(mock_clock):
    started, gate = threading.Event(), threading.Event()
    began = []

    def work(ctx):
        began.append(ctx.stage_name)
        started.set()
        gate.wait()

    async with Supervisor(max_threads=1) as supervisor:
        run = supervisor.start(Pipeline("p").with_stages(parallel_stages("w{key}", work, range(3))))
        await trio.to_thread.run_sync(started.wait)
        run.cancel("enough")
        gate.set()
        result = await run.result()
    assert len(began) == 1
    assert sorted(result.states.values()) == [STATE.CANCELLED, STATE.CANCELLED, STATE.OK]


async def test_a_plain_def_that_returns_a_coroutine_is_told_how_to_mend_it():
    def work(ctx):
        return nothing(ctx)

    result = await Pipeline("p").with_stage("s", work).run(continue_on_failure=True)
    assert "define the stage with `async def`" in str(result.failures["s"].error)


# Stages that are async context managers


class Managed:
    log = None
    fail_in = None

    def __init__(self):
        self.log.append("made")

    async def __aenter__(self):
        self.log.append("entered")
        if self.fail_in == "enter":
            raise ValueError("enter")

    async def __aexit__(self, kind, error, traceback):
        self.log.append(f"left with {kind.__name__ if kind else None}")
        await trio.sleep(1)
        self.log.append("really left")
        if self.fail_in == "exit":
            raise ValueError("exit")
        return self.fail_in == "swallow"

    async def execute(self, ctx):
        self.log.append("executed")
        if self.fail_in in {"execute", "swallow"}:
            raise KeyError("execute")
        if self.fail_in == "wait":
            await trio.sleep_forever()
        return {"n": 1}


@pytest.mark.parametrize(
    ("fail_in", "state", "log"),
    [
        (None, STATE.OK, "made, entered, executed, left with None, really left"),
        ("enter", STATE.FAILED, "made, entered"),
        ("execute", STATE.FAILED, "made, entered, executed, left with KeyError, really left"),
        ("exit", STATE.FAILED, "made, entered, executed, left with None, really left"),
        ("swallow", STATE.OK, "made, entered, executed, left with KeyError, really left"),
        ("wait", STATE.CANCELLED, "made, entered, executed, left with Cancelled, really left"),
    ],
)
async def test_a_stage_class_that_is_a_context_manager(fail_in, state, log, autojump_clock):
    stage = type("Stage", (Managed,), {"log": [], "fail_in": fail_in})
    async with Supervisor() as supervisor:
        result = await supervisor.run(Pipeline("p").with_stage("s", stage), continue_on_failure=True, timeout=10)
    assert ", ".join(stage.log) == log
    assert result.states == {"s": state}


async def test_a_timeout_leaves_the_context_manager_outside_it(autojump_clock):
    stage = type("Stage", (Managed,), {"log": [], "fail_in": "wait"})
    result = await Pipeline("p").with_stage("s", stage, timeout=0.5).run(continue_on_failure=True)
    assert stage.log[-1] == "really left"
    assert isinstance(result.failures["s"].error, StageTimeoutError)


async def test_leaving_is_bounded_by_the_shutdown_budget(autojump_clock):
    class Stuck:
        async def __aenter__(self):
            pass

        async def __aexit__(self, *exc):
            await trio.sleep_forever()

        async def execute(self, ctx):
            await trio.sleep_forever()

    async with Supervisor(shutdown=3) as supervisor:
        result = await supervisor.run(Pipeline("p").with_stage("s", Stuck), timeout=1)
    error = result.failures["s"].error
    assert isinstance(error, StageTimeoutError)
    assert "its __aexit__ was still running when the shutdown budget of 3 s was spent" in str(error)
    assert result.timings["s"].duration == 4


async def test_a_nursery_may_be_opened_on_entering_and_closed_on_leaving(autojump_clock):
    class Holder:
        async def __aenter__(self):
            self.manager = trio.open_nursery()
            self.nursery = await self.manager.__aenter__()

        async def __aexit__(self, *exc):
            self.nursery.cancel_scope.cancel()
            await self.manager.__aexit__(*exc)

        async def execute(self, ctx):
            self.nursery.start_soon(trio.sleep_forever)
            await trio.sleep(1)
            return {"n": 1}

    result = await Pipeline("p").with_stage("s", Holder).with_stage("t", Holder, timeout=5).run()
    assert result.ok


# What users' code may do at awkward moments


@pytest.mark.parametrize("answer", [True, False, "raise"])
async def test_a_predicate_that_cancels_the_run(answer):
    def when(inputs):
        run.cancel("by the predicate")
        if answer == "raise":
            raise ValueError("boom")
        return answer

    pipeline = (
        Pipeline("p")
        .with_stage("a", nothing)
        .with_stage("b", nothing, dependencies="a", when=when)
        .with_stage("c", nothing, dependencies="b")
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline)
        async with run.events() as stream:
            ended = [event.stage async for event in stream if type(event).__name__ == "StageEnded"]
        result = await run.result()
    assert sorted(ended) == ["a", "b", "c"]
    assert result.states["b"] is (STATE.FAILED if answer == "raise" else STATE.CANCELLED)
    assert result.states["c"] is STATE.CANCELLED
    assert result.ledger.balanced
    assert result.ledger.accepted == 1


class UnspeakableError(Exception):
    def __str__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize("runner", [raises(UnspeakableError()), returns(StageOutput.fail(UnspeakableError()))])
async def test_an_error_that_cannot_be_printed_fails_its_stage_alone(runner):
    pipeline = Pipeline("p").with_stage("bad", runner).with_stage("good", nothing)
    result = await pipeline.run(continue_on_failure=True)
    assert result.states == {"bad": STATE.FAILED, "good": STATE.OK}
    assert "whose __str__ raised ZeroDivisionError" in result.reason("bad")


async def test_a_condition_that_hides_a_coroutine_fails_its_stage():
    def hidden(inputs):
        return nothing(inputs)

    pipeline = Pipeline("p").with_stage("a", nothing).with_stage("b", nothing, dependencies="a", when=hidden)
    result = await pipeline.run(continue_on_failure=True)
    assert result.reason("b") == (
        "StageReturnTypeError: its condition returned the coroutine 'nothing'; "
        "a condition is a plain function of the stage's inputs"
    )


async def test_a_router_that_was_skipped_chose_nothing():
    pipeline = (
        Pipeline("p")
        .with_stage("router", returns(StageOutput.skip("no need")))
        .with_stage("a", nothing, dependencies="router", when=route("router", "a"), trigger=Trigger.NONE_FAILED)
    )
    result = await pipeline.run()
    assert result.states["a"] is STATE.SKIPPED


@pytest.mark.parametrize("listening", [False, True])
async def test_emitting_what_cannot_be_frozen_fails_whether_or_not_anybody_listens(listening):
    async def emits(ctx):
        cyclic = []
        cyclic.append(cyclic)
        ctx.emit(cyclic)

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("s", emits), continue_on_failure=True)
        stream = run.events() if listening else None
        result = await run.result()
        if stream:
            async with stream:
                pass
    assert result.states["s"] is STATE.FAILED


@pytest.mark.parametrize("value", ["pipeline", None, nothing])
async def test_running_what_is_no_pipeline(value):
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineValidationError, match="pipeline must be a Pipeline, not"):
            await supervisor.run(value)


async def test_a_subpipeline_that_fails_isolates_what_needs_it():
    inner = Pipeline("inner").with_stage("a", nothing).with_stage("b", raises(ValueError("boom")), dependencies="a")
    pipeline = (
        Pipeline("p")
        .with_stage("source", returns({"n": 1}))
        .subpipeline("sub", inner, "source")
        .with_stage("after", nothing, dependencies="sub")
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.cause_chain("after") == ("after", "sub", "sub/b")


async def test_a_subpipeline_sees_what_it_depends_on_and_gives_its_sinks():
    async def first(ctx):
        return {"n": ctx.inputs.get_from("source", "n") + 1}

    async def second(ctx):
        return {"n": ctx.inputs.get_from("first", "n") * 10}

    inner = Pipeline("inner").with_stage("first", first).with_stage("second", second, dependencies="first")
    pipeline = (
        Pipeline("p")
        .with_stage("source", returns({"n": 1}))
        .subpipeline("sub", inner, "source")
        .with_stage("after", returns(None), dependencies="sub")
    )
    result = await pipeline.run()
    assert result.data("sub") == {"second": {"n": 20}}
    assert list(result.states) == ["source", "sub/first", "sub/second", "sub", "after"]


async def test_a_subpipeline_below_a_skipped_stage_is_skipped():
    inner = Pipeline("inner").with_stage("a", nothing)
    pipeline = Pipeline("p").with_stage("source", returns(StageOutput.skip("no"))).subpipeline("sub", inner, "source")
    result = await pipeline.run()
    assert set(result.states.values()) == {STATE.SKIPPED}


async def test_a_plain_def_is_pending_until_it_has_a_thread(mock_clock):
    started, gate = threading.Event(), threading.Event()

    def work(ctx):
        started.set()
        gate.wait()

    async with Supervisor(max_threads=1) as supervisor:
        run = supervisor.start(Pipeline("p").with_stages(parallel_stages("w{key}", work, range(2))))
        await trio.to_thread.run_sync(started.wait)
        assert (run.statistics().running, run.statistics().pending) == (1, 1)
        mock_clock.jump(10)
        gate.set()
        result = await run.result()
    assert sorted(timing.duration for timing in result.timings.values()) == [0, 10]


async def test_a_context_that_is_kept_closes_with_its_stage():
    kept = []

    async def keeps(ctx):
        kept.append(ctx)
        ctx.emit("in time")

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", nothing).with_stage("b", keeps, dependencies="a"))
        async with run.events() as stream:
            emitted = []
            async for event in stream:
                if type(event).__name__ == "StageEmitted":
                    emitted.append(event.event)
                elif kept:
                    kept[0].emit("too late")
        await run.result()
    assert emitted == ["in time"]
    with pytest.raises(RuntimeError, match="stage 'b' has ended, and with it its inputs"):
        kept[0].inputs.get("anything")
    assert kept[0].stage_name == "b"


def test_outside_trio_the_message_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"this is no trio task; start it with trio\.run"):
        asyncio.run(Pipeline("p").with_stage("s", nothing).run())


async def test_cancel_before_anything_began_with_an_output_that_is_given(autojump_clock):
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", forever).with_stage("b", forever), overrides={"a": {}})
        run.cancel("at once")
        with trio.fail_after(10):
            result = await run.result()
    assert result.states == {"a": STATE.CANCELLED, "b": STATE.CANCELLED}
    assert result.ledger.balanced


async def test_waiting_for_the_end_of_a_run_does_not_hear_its_result():
    async def fail(ctx):
        raise ValueError("boom")

    with pytest.raises(PipelineFailedError, match="boom"):
        async with Supervisor() as supervisor:
            run = supervisor.start(Pipeline("p").with_stage("a", fail))
            await run.wait_ended()
            assert run.partial().ended.ending is RunEnding.FAILED
            await run.wait_ended()
