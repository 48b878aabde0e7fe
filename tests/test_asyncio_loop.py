"""`asyncio_loop()`: stages that await asyncio, in a loop inside trio's or in the application's own."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import asyncio_stages
import pytest
import trio

from stageflow_actors import Limiter, Pipeline, PipelineValidationError, RunEnding, StageState, Supervisor
from stageflow_actors.embed.asyncio import SupervisorPortal, asyncio_loop
from stageflow_actors.errors import MissingExtraError, ThreadAbandonedError

TESTS = Path(__file__).parent


def test_in_a_loop_inside_trios():
    """In a process of its own: trio-asyncio changes how asyncio makes loops, for all that follow."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    done = subprocess.run(
        # trio-asyncio itself uses what newer versions of Python want to remove.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(TESTS / "asyncio_stages.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert (done.stdout, done.returncode) == ("all is well\n", 0), done.stderr


class LoopThread:
    """A loop that runs in a thread, and may be stopped and started again."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.start()

    def start(self):
        runs = threading.Event()
        self.loop.call_soon_threadsafe(runs.set)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        assert runs.wait(timeout=60)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def close(self):
        """Close it while tasks are left, about which it would complain."""
        for task in asyncio.all_tasks(self.loop):
            asyncio._unregister_task(task)
            task._log_destroy_pending = False
        self.loop.close()


@pytest.fixture
def thread():
    thread = LoopThread()
    yield thread
    if thread.thread.is_alive():
        thread.stop()
    assert asyncio.all_tasks(thread.loop) == set()
    thread.loop.close()


@pytest.fixture
def loop(thread):
    """A loop that runs in a thread of its own."""
    return thread.loop


def test_in_the_applications_own_loop(loop):
    asyncio_stages.log.clear()
    trio.run(partial(asyncio_stages.check, asyncio_loop(loop)))


def test_in_the_loop_that_trio_is_a_guest_of():
    async def main():
        async with SupervisorPortal(guest=True) as portal:
            place = asyncio_loop(asyncio.get_running_loop())
            result = await portal.run(Pipeline("p").with_stage("a", asyncio_stages.sleep, placement=place))
            return result.data("a")["loop"] == id(asyncio.get_running_loop())

    assert asyncio.run(main())


def test_it_is_imported_only_when_a_supervisor_needs_it():
    program = "import sys; from stageflow_actors.embed.asyncio import asyncio_loop; asyncio_loop(); "
    program += "sys.exit('trio_asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=TESTS.parent)


# Task factories


FACTORIES = [lambda loop, coroutine: asyncio.Task(coroutine, loop=loop)]
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


@pytest.mark.parametrize("make", FACTORIES)
async def test_a_task_factory_may_know_nothing_of_contexts(loop, make):
    loop.set_task_factory(make)
    asyncio_stages.user.set("ada")
    place = asyncio_loop(loop)
    pipeline = Pipeline("p").with_stage("a", asyncio_stages.sleep, placement=place)
    result = await pipeline.with_stage("b", asyncio_stages.fail, placement=place).run(continue_on_failure=True)
    assert result.data("a") == {"loop": id(loop), "user": "ada"}
    assert str(result.failures["b"].error) == "attempt 1"


async def test_what_a_task_factory_raises_is_the_failure_of_the_stage(loop):
    def make(loop, coroutine, **options):
        raise OSError("no more tasks")

    loop.set_task_factory(make)
    result = await run_one(asyncio_stages.sleep, loop)
    assert str(result.failures["a"].error) == "no more tasks"


# Loops that do not turn


async def run_one(stage, loop):
    return await Pipeline("p").with_stage("a", stage, placement=asyncio_loop(loop)).run(continue_on_failure=True)


async def test_a_loop_that_was_closed_meanwhile_fails_the_stage():
    loop = asyncio.new_event_loop()
    pipeline = Pipeline("p").with_stage("a", asyncio_stages.sleep, placement=asyncio_loop(loop))
    loop.close()
    result = await pipeline.run(continue_on_failure=True)
    hint = "give asyncio_loop() one that runs as long as the supervisor is open"
    assert str(result.failures["a"].error) == f"the asyncio loop {loop!r} is closed; {hint}"


async def test_a_loop_that_does_not_run_fails_the_stage(thread):
    thread.stop()
    result = await run_one(asyncio_stages.sleep, thread.loop)
    hint = "start it before the first run, and stop it after the supervisor"
    assert str(result.failures["a"].error) == f"the asyncio loop {thread.loop!r} does not run; {hint}"


def test_a_loop_that_waits_for_trio_fails_the_stage():
    async def main():
        here = asyncio.get_running_loop()
        result = trio.run(run_one, asyncio_stages.sleep, here)
        problem = f"the asyncio loop {here!r} waits for trio.run(), which was called in one of its tasks"
        hint = "use a SupervisorPortal there, from stageflow_actors.embed.asyncio"
        assert str(result.failures["a"].error) == f"{problem}; {hint}"

    asyncio.run(main())


class Stage:
    """Awaits asyncio, and tells the trio thread when it is there."""

    def __init__(self, execute):
        self.began = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.body = execute

    async def execute(self, ctx):
        self.token.run_sync_soon(self.began.set)
        return await self.body()


async def wait_for_ever():
    await asyncio.Event().wait()


def make_stubborn():
    """Return what to await in a stage that swallows its cancellations until it is released, and what releases it."""
    released = asyncio.Event()

    async def wait():
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return {"released": True}

    return wait, released.set


async def abandon(stage, thread, limiter, before=lambda: None, after=lambda: None):
    """Run a stage and cancel it; return what came of it.

    Args:
        stage: The stage.
        thread: Where its loop runs.
        limiter: Its limiter.
        before: Called when it has begun.
        after: Called when it is waited for.
    """
    async with Supervisor(shutdown=2) as supervisor:
        pipeline = Pipeline("p").with_stage("a", stage, placement=asyncio_loop(thread.loop), limiter=limiter)
        run = supervisor.start(pipeline)
        await stage.began.wait()
        before()
        run.cancel("enough")
        await trio.testing.wait_all_tasks_blocked()
        after()
        return await run.result()


async def until_free(limiter):
    async def nothing(ctx):
        return {}

    assert (await Pipeline("next").with_stage("a", nothing, limiter=limiter).run()).ok


async def test_a_stage_that_does_not_heed_its_cancellation_is_abandoned(thread, autojump_clock, caplog):
    wait, release = make_stubborn()
    limiter = Limiter(1)
    result = await abandon(Stage(wait), thread, limiter)
    assert result.states["a"] is StageState.ABANDONED
    error = result.failures["a"].error
    assert isinstance(error, ThreadAbandonedError)
    assert error.seconds == 2
    told = "its asyncio task was still running 2 s after it was cancelled; let it end with its CancelledError"
    assert str(error) == f"pipeline 'p', stage 'a': {told}"
    assert limiter.statistics().running == 1
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    thread.loop.call_soon_threadsafe(release)
    await until_free(limiter)
    assert [record.getMessage() for record in caplog.records] == [
        "the abandoned asyncio task of stage 'a' ended with a value"
    ]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_stage_whose_loop_stops_in_the_middle_is_abandoned(thread, autojump_clock, caplog, fails):
    async def wait():
        try:
            await wait_for_ever()
        except asyncio.CancelledError:
            if fails:
                raise OSError("too late") from None
            raise

    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    limiter = Limiter(1)
    result = await abandon(Stage(wait), thread, limiter, thread.stop)
    assert result.states["a"] is StageState.ABANDONED
    told = "its asyncio loop had stopped, and its task was not over 2 s after it was cancelled"
    hint = "let the loop run as long as the supervisor is open"
    assert str(result.failures["a"].error) == f"pipeline 'p', stage 'a': {told}; {hint}"
    assert limiter.statistics().running == 1
    caplog.clear()
    thread.start()
    await until_free(limiter)
    how = "OSError: too late" if fails else "its CancelledError"
    assert [record.getMessage() for record in caplog.records] == [
        f"the abandoned asyncio task of stage 'a' ended with {how}"
    ]


async def test_a_stage_whose_loop_is_closed_in_the_middle_is_over_when_it_is_cancelled(thread):
    def close():
        thread.stop()
        thread.close()

    result = await abandon(Stage(wait_for_ever), thread, None, close)
    assert result.states["a"] is StageState.CANCELLED


async def test_a_loop_that_is_closed_while_a_stage_is_waited_for_ends_the_wait(thread, autojump_clock):
    result = await abandon(Stage(wait_for_ever), thread, None, thread.stop, thread.close)
    assert result.states["a"] is StageState.CANCELLED


async def test_a_stage_that_its_loop_has_not_begun_never_begins(loop):
    """The loop is busy: that it is cancelled needs nothing of it."""
    reached, gate, began = threading.Event(), threading.Event(), []

    async def stage(ctx):
        began.append(ctx.stage_name)

    def block():
        reached.set()
        gate.wait(timeout=60)

    loop.call_soon_threadsafe(block)
    assert await trio.to_thread.run_sync(reached.wait, 60)
    try:
        pipeline = Pipeline("p").with_stage("a", stage, placement=asyncio_loop(loop))
        async with Supervisor() as supervisor:
            run = supervisor.start(pipeline)
            await trio.testing.wait_all_tasks_blocked()
            run.cancel("enough")
            result = await run.result()
    finally:
        gate.set()
    assert result.ended.ending is RunEnding.CANCELLED
    assert result.states["a"] is StageState.CANCELLED
    assert (await run_one(asyncio_stages.sleep, loop)).ok
    assert began == []


# Refusals


def test_a_plain_function_is_refused(loop):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", lambda ctx: None, placement=asyncio_loop())
    told = "placement asyncio_loop() is not for a stage that awaits nothing, as it is a plain `def`"
    assert str(caught.value) == f"pipeline 'p', stage 'a': {told}: leave the placement out"
    assert repr(asyncio_loop(loop)) == f"asyncio_loop({loop!r})"


def test_what_is_no_open_loop_is_refused():
    with pytest.raises(PipelineValidationError) as caught:
        asyncio_loop(asyncio)
    hint = "write asyncio_loop(asyncio.get_running_loop())"
    assert str(caught.value) == f"loop must be an asyncio loop, not {asyncio!r}; {hint}"
    loop = asyncio.new_event_loop()
    loop.close()
    with pytest.raises(PipelineValidationError) as caught:
        asyncio_loop(loop)
    assert str(caught.value) == f"loop {loop!r} is closed; give one that runs as long as the supervisor is open"


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        asyncio_loop()
    told = "asyncio_loop() without a loop needs trio_asyncio"
    assert str(caught.value) == f"{told}; install it: pip install 'stageflow-actors[asyncio]'"
    assert caught.value.extra == "asyncio"
