"""The traps that trio lays for a runtime like this one, each with its test."""

from __future__ import annotations

import gc
import signal
import threading

import pytest
import trio
import trio.testing

from stageflow_actors import (
    Limiter,
    Pipeline,
    PipelineFailedError,
    RunEnding,
    StageOutput,
    StageState,
    Supervisor,
    Trigger,
    parallel_stages,
)
from stageflow_actors.errors import NurseryLeftOpenError, StageTimeoutError, StrayCancelledError


async def nothing(ctx):
    """Return at once."""


async def forever(ctx):
    await trio.sleep_forever()


class Tasks(trio.abc.Instrument):
    """Counts the tasks that live."""

    def __init__(self):
        self.alive = 0

    def task_spawned(self, task):
        self.alive += 1

    def task_exited(self, task):
        self.alive -= 1


@pytest.fixture
async def tasks():
    counter = Tasks()
    trio.lowlevel.add_instrument(counter)
    yield counter
    trio.lowlevel.remove_instrument(counter)


# Cancellation from outside


async def test_outer_cancellation_of_run_is_not_swallowed(autojump_clock, tasks):
    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", forever, range(10)))
    async with Supervisor() as supervisor:
        with trio.move_on_after(1) as scope:
            await supervisor.run(pipeline)
            pytest.fail("run() returned although its caller was cancelled")
        assert scope.cancelled_caught
    assert tasks.alive == 0


async def test_outer_cancellation_comes_out_bare(autojump_clock):
    """Not in a group: `except trio.Cancelled` around run() finds it."""
    seen = []
    async with Supervisor() as supervisor:
        with trio.move_on_after(1):
            try:
                await supervisor.run(Pipeline("p").with_stage("a", forever))
            except trio.Cancelled as error:
                seen.append(error)
                raise
    assert len(seen) == 1


@pytest.mark.parametrize("count", [3, 5000])
async def test_no_unbegun_stage_runs_after_an_outer_cancellation(count, tasks):
    begun = []

    async def note(ctx):
        begun.append(ctx.stage_name)

    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", note, range(count)))
    async with Supervisor() as supervisor:
        with trio.CancelScope() as scope:
            scope.cancel()
            await supervisor.run(pipeline)
    assert scope.cancelled_caught
    assert begun == []
    assert tasks.alive == 0


async def test_no_unbegun_stage_runs_after_a_stop_from_within():
    begun = []

    async def stop(ctx):
        begun.append(ctx.stage_name)
        run.cancel("enough")

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stages(parallel_stages("w{key}", stop, range(1000))))
        result = await run.result()
    assert len(begun) == 1
    assert result.ledger.balanced
    assert result.ledger.replied == 1
    assert list(result.states.values()).count(StageState.CANCELLED) == 999


async def test_a_stage_that_swallows_cancelled_does_not_swallow_the_callers(autojump_clock):
    async def stubborn(ctx):
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return {"swallowed": True}

    async with Supervisor() as supervisor:
        with trio.move_on_after(1) as scope:
            await supervisor.run(Pipeline("p").with_stage("a", stubborn))
        assert scope.cancelled_caught


async def test_a_value_returned_although_cancelled_counts(autojump_clock):
    async def shielded(ctx):
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        return {"done": True}

    async def fail(ctx):
        await trio.sleep(1)
        raise ValueError("boom")

    pipeline = Pipeline("p").with_stage("slow", shielded).with_stage("bad", fail)
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(pipeline)
    assert caught.value.result.states == {"slow": StageState.OK, "bad": StageState.FAILED}
    assert caught.value.result.data("slow") == {"done": True}


# Timeouts


async def test_cleanup_that_raises_inside_a_timeout_keeps_the_timeout_as_context(autojump_clock):
    async def messy(ctx):
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    result = await Pipeline("p").with_stage("a", messy, timeout=1).run(continue_on_failure=True)
    error = result.failures["a"].error
    assert isinstance(error, OSError)
    assert isinstance(error.__context__, StageTimeoutError)


async def test_cleanup_in_a_nursery_inside_a_timeout(autojump_clock):
    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def messy(ctx):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    result = await Pipeline("p").with_stage("a", messy, timeout=1).run(continue_on_failure=True)
    error = result.failures["a"].error
    assert isinstance(error, ExceptionGroup)
    assert [type(leaf) for leaf in error.exceptions] == [OSError]
    assert isinstance(error.__context__, StageTimeoutError)


async def test_a_value_after_the_timeout_counts_and_is_an_event(autojump_clock):
    async def late(ctx):
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return {"late": True}

    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", late, timeout=1))
        async with run.events() as stream:
            kinds = [type(event).__name__ async for event in stream]
        result = await run.result()
    assert result.states["a"] is StageState.OK
    assert kinds == ["StageStarted", "StageOverran", "StageEnded", "RunEnded"]


# Groups and strays


async def test_cancelled_is_split_off_a_group(autojump_clock):
    """The rest of the group is the failure, also while the run is being cancelled."""

    async def clean_up():
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def messy(ctx):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up)
            nursery.start_soon(trio.sleep_forever)

    async with Supervisor() as supervisor:
        result = await supervisor.run(Pipeline("p").with_stage("a", messy), timeout=1)
    assert result.ended.ending is RunEnding.TIMED_OUT
    assert result.states["a"] is StageState.FAILED
    error = result.failures["a"].error
    assert isinstance(error, ExceptionGroup)
    assert [str(leaf) for leaf in error.exceptions] == ["disk full"]


async def test_a_group_of_cancelled_alone_is_cancellation(autojump_clock):
    async def parents(ctx):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    async with Supervisor() as supervisor:
        result = await supervisor.run(Pipeline("p").with_stage("a", parents), timeout=1)
    assert result.states["a"] is StageState.CANCELLED
    assert not result.failures


async def test_a_cancelled_raised_outside_its_scope_is_a_failure():
    async def keeper(ctx):
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            except trio.Cancelled as error:
                kept = error
        raise kept

    async def other(ctx):
        return {"fine": True}

    pipeline = Pipeline("p").with_stage("a", keeper).with_stage("b", other)
    result = await pipeline.run(continue_on_failure=True)
    assert isinstance(result.failures["a"].error, StrayCancelledError)
    assert result.states["b"] is StageState.OK
    assert result.ended.ending is RunEnding.COMPLETED


async def test_a_stage_may_cancel_its_own_scope():
    async def own(ctx):
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        return {"reached": True}

    result = await Pipeline("p").with_stage("a", own).run()
    assert result.data("a") == {"reached": True}


async def test_a_nursery_whose_children_fail_is_a_failure_with_the_whole_group():
    async def child(text):
        raise ValueError(text)

    async def parent(ctx):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, "one")
            nursery.start_soon(child, "two")

    result = await Pipeline("p").with_stage("a", parent).run(continue_on_failure=True)
    error = result.failures["a"].error
    assert isinstance(error, ExceptionGroup)
    assert {str(leaf) for leaf in error.exceptions} == {"one", "two"}


# A nursery that is left open


@pytest.mark.parametrize("timeout", [None, 5])
async def test_a_stage_that_leaves_a_nursery_open_fails_alone(timeout, autojump_clock, tasks):
    async def leaky(ctx):
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(trio.sleep_forever)
        return {"x": 1}

    async def other(ctx):
        await trio.sleep(1)
        return {"fine": True}

    pipeline = Pipeline("p").with_stage("a", leaky, timeout=timeout).with_stage("b", other)
    result = await pipeline.run(continue_on_failure=True)
    assert isinstance(result.failures["a"].error, NurseryLeftOpenError)
    assert "its nurseries" not in str(result.failures["a"].error)
    assert result.states == {"a": StageState.FAILED, "b": StageState.OK}
    assert tasks.alive == 0


async def test_what_the_children_of_an_open_nursery_raise_is_the_cause():
    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def leaky(ctx):
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(child)
        await trio.lowlevel.checkpoint()

    result = await Pipeline("p").with_stage("a", leaky).run(continue_on_failure=True)
    error = result.failures["a"].error
    assert isinstance(error, NurseryLeftOpenError)
    assert isinstance(error.__cause__, ExceptionGroup)
    matcher = pytest.RaisesGroup(pytest.RaisesGroup(OSError))
    assert matcher.matches(error.__cause__)


async def test_a_stage_that_raises_with_a_nursery_open_keeps_its_error_as_context():
    async def leaky(ctx):
        await trio.open_nursery().__aenter__()
        raise ValueError("mine")

    result = await Pipeline("p").with_stage("a", leaky).run(continue_on_failure=True)
    error = result.failures["a"].error
    assert isinstance(error, NurseryLeftOpenError)
    assert str(error.__context__) == "mine"


async def test_two_nurseries_left_open_and_the_run_cancelled(autojump_clock):
    async def leaky(ctx):
        for _ in range(2):
            nursery = await trio.open_nursery().__aenter__()
            nursery.start_soon(trio.sleep_forever)
        with trio.CancelScope(shield=True):
            await trio.sleep(2)

    async with Supervisor() as supervisor:
        result = await supervisor.run(Pipeline("p").with_stage("a", leaky), timeout=1)
    assert result.states["a"] is StageState.FAILED
    assert "2 nurseries" in str(result.failures["a"].error)


def test_trio_still_has_what_closing_a_nursery_needs():
    """A canary: the one private name of trio that the runtime uses."""
    assert callable(trio.Nursery._nested_child_finished)


# Interrupts


def test_a_spinning_stage_is_interrupted():
    async def spin(ctx):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the signal did not interrupt the stage")

    pipeline = Pipeline("p").with_stage("spin", spin).with_stage("wait", forever)
    with pytest.raises(KeyboardInterrupt):
        trio.run(pipeline.run)


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), BaseException("odd")])
def test_a_base_exception_ends_the_run_and_propagates_bare(error, keep_going):
    views = []

    async def raise_it(ctx):
        await trio.lowlevel.checkpoint()
        raise error

    async def main():
        pipeline = Pipeline("p").with_stage("bad", raise_it).with_stage("wait", forever).with_stage("ok", nothing)
        async with Supervisor() as supervisor:
            run = supervisor.start(pipeline, continue_on_failure=keep_going)
            views.append(run)
            await trio.sleep_forever()

    with pytest.raises(type(error)) as caught:
        trio.run(main)
    assert caught.value is error
    partial = views[0].partial()
    assert partial.states == {"bad": StageState.FAILED, "wait": StageState.CANCELLED, "ok": StageState.OK}
    assert partial.ledger.balanced
    assert partial.failures["bad"].error is error


def test_base_exceptions_of_several_stages_come_out_together():
    async def exit_with(ctx):
        await trio.lowlevel.checkpoint()
        raise SystemExit(ctx.config["key"])

    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", exit_with, range(2)))
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        trio.run(pipeline.run)
    # The second is cancelled where it had not begun to raise; where both raised, both are here.
    assert isinstance(caught.value, SystemExit | BaseExceptionGroup)


def test_an_interrupt_that_finds_the_caller_waiting():
    """In protected code a SIGINT goes to the main task, which is parked inside run()."""
    views = []

    async def protected(ctx):
        views.append(ctx)
        token.run_sync_soon(signal.raise_signal, signal.SIGINT)
        await trio.sleep_forever()

    async def main():
        nonlocal token
        token = trio.lowlevel.current_trio_token()
        async with Supervisor() as supervisor:
            await supervisor.run(Pipeline("p").with_stage("a", protected))

    token = None
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert len(views) == 1


@pytest.fixture
def _no_callbacks_of_the_collector():
    """Leave no place where Python itself loses an interrupt: hypothesis's callback is one, for nobody awaits it."""
    kept = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = kept


@pytest.mark.usefixtures("_no_callbacks_of_the_collector")
def test_random_interrupts_leave_every_ledger_balanced():
    """A second thread sends SIGINT at moments that nobody chose, 150 times."""
    unbalanced = []
    interrupted = 0
    main_thread = threading.get_ident()

    async def work(ctx):
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return {"n": sum(range(200))}

    workers = parallel_stages("w{key}", work, range(300))
    pipeline = Pipeline("p").with_stages(workers).with_stage("join", work, dependencies=workers)
    runs = []

    async def main(started):
        async with Supervisor() as supervisor:
            runs.append(supervisor.start(pipeline))
            started.set()
            await trio.sleep_forever()

    for round_ in range(150):
        started = threading.Event()

        def interrupt(started=started, spins=(round_ * 37) % 5000, main_thread=main_thread):
            started.wait()
            for _ in range(spins):
                pass
            signal.pthread_kill(main_thread, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            trio.run(main, started)
        except KeyboardInterrupt:
            interrupted += 1
        thread.join()
        result = runs[-1].partial()
        if not result.ledger.balanced or StageState.PENDING in result.states.values():
            unbalanced.append((round_, result.ledger))
    assert interrupted == 150
    assert unbalanced == []


# What one stage does, another does not see


async def test_all_done_stages_are_not_started_by_a_stop(autojump_clock):
    started = []

    async def clean(ctx):
        started.append(ctx.stage_name)

    pipeline = (
        Pipeline("p")
        .with_stage("a", forever)
        .with_stage("b", clean, dependencies="a", trigger=Trigger.ALL_DONE)
        .with_stage("c", clean, dependencies="a")
    )
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline, timeout=1)
    assert started == []
    assert set(result.states.values()) == {StageState.CANCELLED}


async def test_failures_in_later_cleanup_isolate_nobody(autojump_clock):
    async def messy(ctx):
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("late")

    async def fail(ctx):
        await trio.sleep(1)
        return StageOutput.fail("first")

    pipeline = (
        Pipeline("p")
        .with_stage("messy", messy)
        .with_stage("below-messy", nothing, dependencies="messy")
        .with_stage("first", fail)
        .with_stage("below-first", nothing, dependencies="first")
        .with_stage("below-both", nothing, dependencies=("messy", "below-first"))
    )
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(pipeline)
    result = caught.value.result
    assert result.states == {
        "messy": StageState.FAILED,
        "below-messy": StageState.CANCELLED,
        "first": StageState.FAILED,
        "below-first": StageState.ISOLATED,
        "below-both": StageState.ISOLATED,
    }
    assert result.cause_chain("below-both") == ("below-both", "below-first", "first")


@pytest.mark.parametrize("method", ["run", "start"])
def test_an_interrupt_at_admission_leaves_no_run_that_nobody_drives(method):
    class Loud(dict):
        def __setitem__(self, engine, value):
            super().__setitem__(engine, value)
            signal.raise_signal(signal.SIGINT)

    async def main():
        async with Supervisor() as supervisor:
            supervisor._engines = Loud()
            if method == "run":
                await supervisor.run(Pipeline("p").with_stage("a", forever))
            else:
                supervisor.start(Pipeline("p").with_stage("a", forever))
                await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)


async def test_no_thread_is_begun_after_the_stop():
    """The last step of a limiter is shielded: a stage may get its place in the batch in which the run stops."""
    ran = []

    def work(ctx):
        ran.append(ctx.stage_name)

    async def fail(ctx):
        raise ValueError("boom")

    pipeline = Pipeline("p").with_stages(parallel_stages("t{key}", work, range(3))).with_stage("bad", fail)
    async with Supervisor(max_threads=1) as supervisor:
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(pipeline)
        assert ran == []
        assert set(caught.value.result.states.values()) == {StageState.CANCELLED, StageState.FAILED}
        assert (await supervisor.run(Pipeline("q").with_stage("t", work))).ok  # its place was given back


async def test_a_stop_cancels_a_stage_that_one_success_would_have_started(autojump_clock):
    async def fail(ctx):
        await trio.sleep(1)
        raise ValueError("boom")

    pipeline = (
        Pipeline("p")
        .with_stage("good", nothing)
        .with_stage("bad", fail)
        .with_stage("either", nothing, dependencies=("good", "bad"), trigger=Trigger.ONE_SUCCESS)
        .with_stage("both", nothing, dependencies=("good", "bad"))
    )
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.run()
    assert caught.value.result.states["either"] is StageState.CANCELLED
    assert caught.value.result.states["both"] is StageState.ISOLATED


async def test_outputs_that_are_given_stay_whatever_happens():
    def odd(inputs):
        raise ValueError("odd")

    pipeline = (
        Pipeline("p")
        .with_stage("a", forever)
        .with_stage("b", nothing, dependencies="a", when=odd)
        .with_stage("c", forever)
    )
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(pipeline, overrides={"a": {}, "c": {"n": 1}})
    assert caught.value.result.data("c") == {"n": 1}


async def test_the_frames_of_what_is_suspended_are_left_alone(autojump_clock):
    """Who stops a run is in the tracebacks of what is raised in its cleanup, and may be waiting when it is over."""

    async def messy(ctx):
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleanup")

    async def slow(ctx):
        with trio.CancelScope(shield=True):
            await trio.sleep(0.1)

    async def stop_the_other(ctx):
        await trio.sleep(0.01)
        first.cancel("enough")
        await trio.sleep(1)
        return {"went": "on"}

    with pytest.raises(RuntimeError, match="body"):
        async with Supervisor() as supervisor:
            supervisor.start(Pipeline("p").with_stage("a", messy))
            supervisor.start(Pipeline("q").with_stage("b", slow))
            await trio.sleep(0.01)
            raise RuntimeError("body")
    async with Supervisor() as supervisor:
        first = supervisor.start(Pipeline("p").with_stage("a", messy))
        second = supervisor.start(Pipeline("q").with_stage("b", stop_the_other))
        assert (await second.result()).data("b") == {"went": "on"}
        assert first.partial().states == {"a": "failed"}


@pytest.mark.parametrize("limiter", [None, Limiter(600)], ids=["no limiter", "a wide one"])
async def test_all_that_is_ready_begins_although_nothing_ends(limiter, autojump_clock):
    """More than may be unbegun at once, each of which waits for all the others."""
    begun, all_have_begun = [], trio.Event()

    async def meet(ctx):
        begun.append(ctx.stage_name)
        if len(begun) == 600:
            all_have_begun.set()
        await all_have_begun.wait()

    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", meet, range(600), limiter=limiter))
    with trio.fail_after(1):
        assert (await pipeline.run()).ok
