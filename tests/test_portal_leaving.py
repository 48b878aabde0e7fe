"""Leaving a portal, in every way that there is: nothing is left, everybody is told, and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio
from portal_cases import PATIENCE, Gated, Stubborn, Waiting, list_threads, open_portal, run, settle

from stageflow_actors import Pipeline, PipelineFailedError, RunEnding, Supervisor
from stageflow_actors.embed.asyncio import SupervisorPortal
from stageflow_actors.errors import SupervisorClosedError

__all__ = ["open_portal"]

WAS_LEFT = "the portal was left while this was under way"


async def nothing(ctx):
    """Return at once."""


async def fail(ctx):
    raise OSError("disk full")


quick = Pipeline("quick").with_stage("nothing", nothing)
backup = Pipeline("backup").with_stage("copy", fail)


# Normally


def test_leaving_waits_for_what_goes_on_and_takes_nothing_new(open_portal):
    async def main():
        gated = [Gated() for _ in range(3)]
        left = asyncio.Event()

        async def serve():
            nonlocal started
            async with portal:
                started = await portal.start(gated[0].pipeline)
                opened.set()
                await leave.wait()
            left.set()

        async def follow():
            async with portal.follow(gated[1].pipeline) as followed:
                return [type(event).__name__ async for event in followed.events()]

        portal, started, opened, leave = open_portal(), None, asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(serve())
        await opened.wait()
        following = asyncio.create_task(follow())
        running = asyncio.create_task(portal.run(gated[2].pipeline))
        for each in gated:
            await each.begun.wait()
        leave.set()
        await settle()
        for call in (lambda: portal.run(quick), lambda: portal.start(quick)):
            with pytest.raises(SupervisorClosedError) as caught:
                await call()
            assert str(caught.value) == "the portal is being left"
        assert (await started.statistics()).running == 1  # what goes on may still be looked at
        result = asyncio.create_task(started.result())
        for each in gated:
            assert not left.is_set()
            each.release()
            await settle()
        await serving
        assert (await running).ok
        assert (await result).ok
        assert await following == ["StageStarted", "StageEnded", "RunEnded"]

    run(main)


def test_a_failure_that_nobody_heard_of_is_raised(open_portal):
    async def main():
        with pytest.raises(PipelineFailedError, match="disk full"):
            async with open_portal() as portal:
                await portal.start(backup)
        with pytest.raises(ExceptionGroup, match="2 runs failed, and nobody awaited their results"):
            async with open_portal() as portal:
                for _ in range(2):
                    await portal.start(backup)

    run(main)


def test_a_failure_that_somebody_heard_of_is_not(open_portal):
    async def main():
        async with open_portal() as portal:
            started = await portal.start(backup)
            with pytest.raises(PipelineFailedError):
                await started.result()

    run(main)


def test_leaving_again_does_nothing(open_portal):
    async def main():
        portal = open_portal()
        with pytest.raises(PipelineFailedError):
            async with portal:
                await portal.start(backup)
        await portal.__aexit__(None, None, None)
        await portal.__aexit__(LookupError, LookupError("other"), None)

    run(main)


def test_leaving_in_two_tasks_at_once(open_portal):
    async def main():
        gated = Gated()
        portal = await open_portal().__aenter__()
        started = await portal.start(gated.pipeline)
        await gated.begun.wait()
        leaving = [asyncio.create_task(portal.__aexit__(None, None, None)) for _ in range(2)]
        await settle()
        assert [task.done() for task in leaving] == [False, False]
        assert (await started.statistics()).running == 1
        gated.release()
        await asyncio.gather(*leaving)

    run(main)


def test_a_task_that_uses_the_portal_may_leave_it(open_portal):
    async def main():
        portal = await open_portal().__aenter__()

        async def request():
            await portal.run(quick)
            await portal.__aexit__(None, None, None)

        await asyncio.create_task(request())
        with pytest.raises(SupervisorClosedError, match="the portal has been left"):
            await portal.run(quick)

    run(main)


def test_a_stage_may_bring_the_portal_down(open_portal):
    class Stops(Waiting):
        async def execute(self, ctx):
            self.tell(stop)
            await super().execute(ctx)

    async def main():
        nonlocal stop
        stop = asyncio.Event()
        stops = Stops()
        with pytest.raises(LookupError, match="told to stop"):
            async with open_portal() as portal:
                await portal.start(stops.pipeline)
                await stop.wait()
                raise LookupError("told to stop")
        assert stops.ended == 1

    stop = None
    run(main)


# With an exception, or cancelled


def test_leaving_with_an_exception_cancels_and_tells_who_waits(open_portal):
    async def main():
        waiting = [Waiting() for _ in range(4)]

        async def follow():
            async with portal.follow(waiting[3].pipeline) as followed:
                async for _ in followed.events():
                    pass

        with pytest.raises(LookupError, match="out of here") as caught:
            async with open_portal() as portal:
                started = await portal.start(waiting[0].pipeline)
                actor = await portal.spawn(waiting[2], name="waiting", shutdown=0.01)
                tasks = [
                    asyncio.create_task(coroutine)
                    for coroutine in (
                        started.result(),
                        portal.run(waiting[1].pipeline),
                        actor.ask(timeout=None),
                        follow(),
                    )
                ]
                for each in waiting:
                    await each.begun.wait()
                raise LookupError("out of here")
        assert caught.value.__context__ is None
        assert [each.ended for each in waiting] == [1] * 4
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [SupervisorClosedError] * 4
        assert {str(error) for error in errors[:3]} == {WAS_LEFT}
        # The reader may have been busy with an event, and have come back too late.
        assert str(errors[3]) in {WAS_LEFT, "the portal is being left", "the portal has been left"}

    run(main)


def test_the_exception_comes_before_failures_that_nobody_heard_of(open_portal):
    async def main():
        with pytest.raises(LookupError, match="out of here"):
            async with open_portal() as portal:
                started = await portal.start(backup)
                while (await started.partial()).ended.ending is RunEnding.UNFINISHED:  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0)
                raise LookupError("out of here")

    run(main)


def test_cancelling_the_block_cancels_what_it_runs(open_portal):
    async def main():
        waiting = Waiting()

        async def serve():
            async with open_portal() as portal:
                await portal.start(waiting.pipeline)
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await waiting.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert waiting.ended == 1

    run(main)


def test_cancelling_the_task_that_waits_in_leaving(open_portal):
    async def main():
        stubborn = Stubborn()

        async def serve():
            async with open_portal() as portal:
                await portal.start(stubborn.pipeline)
                await stubborn.begun.wait()

        task = asyncio.create_task(serve())
        await stubborn.begun.wait()
        await settle()
        task.cancel()
        await stubborn.stopping.wait()
        task.cancel()
        await settle()
        assert not task.done()
        stubborn.release()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


# Where it is not opened, or not left


def test_an_exception_while_it_opens_leaves_nothing(open_portal, monkeypatch):
    async def refuse(self):
        raise LookupError("not today")

    async def main():
        with pytest.raises(LookupError, match="not today"):
            async with portal:
                pytest.fail("it was entered")

    portal = open_portal()
    monkeypatch.setattr(Supervisor, "__aenter__", refuse)
    run(main)


def test_a_thread_that_cannot_start_leaves_nothing(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    async def main():
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await SupervisorPortal().__aenter__()

    run(main)


def test_being_cancelled_while_it_opens_leaves_nothing(open_portal):
    async def main():
        asyncio.current_task().cancel()
        with pytest.raises(asyncio.CancelledError):
            async with open_portal():
                pytest.fail("it was entered")
        asyncio.current_task().uncancel()

    run(main)


def test_a_loop_that_is_closed_under_the_portal_ends_it():
    """Nobody can leave it then; so it ends by itself, as soon as it has something to say."""
    before = list_threads()

    async def main():
        nonlocal portal, gated
        portal, gated = await SupervisorPortal().__aenter__(), Gated()
        await portal.start(Waiting().pipeline)
        task = asyncio.create_task(portal.run(gated.pipeline))
        await gated.begun.wait()
        return task

    portal = gated = None
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    gated.release()
    portal._loop.thread.join(PATIENCE)
    assert not portal._loop.thread.is_alive()
    assert list_threads() - before == set()
    task._log_destroy_pending = False  # it is what this test is about
    with pytest.raises(RuntimeError):
        task.get_coro().throw(RuntimeError("it was waiting"))
    del task
    gc.collect()


def test_a_host_that_pauses_pauses_its_guest():
    before = list_threads()

    async def enter():
        return await SupervisorPortal(guest=True).__aenter__()

    loop = asyncio.new_event_loop()
    portal = loop.run_until_complete(enter())
    assert loop.run_until_complete(portal.run(quick)).ok
    loop.run_until_complete(portal.__aexit__(None, None, None))
    loop.close()
    assert list_threads() - before == set()


ABANDONED = """
import asyncio, sys
from stageflow_actors import Pipeline
from stageflow_actors.embed.asyncio import SupervisorPortal

async def wait(ctx):
    import trio
    await trio.sleep_forever()

async def main():
    portal = await SupervisorPortal(guest=sys.argv[1] == "guest").__aenter__()
    await portal.start(Pipeline("p").with_stage("wait", wait))
    print("abandoned")

asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["thread", "guest"])
def test_a_portal_that_is_never_left_does_not_keep_the_process(mode):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", ABANDONED, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "abandoned\n")


def test_events_of_a_run_that_ends_with_the_portal(open_portal):
    async def main():
        waiting = Waiting()
        with pytest.raises(LookupError):
            async with open_portal() as portal:
                started = await portal.start(waiting.pipeline)
                events = await started.events().__aenter__()
                await waiting.begun.wait()
                raise LookupError
        with pytest.raises(SupervisorClosedError, match="the portal has been left"):
            await anext(events)
        await events.__aexit__(None, None, None)
        assert waiting.ended == 1

    run(main)


def test_trio_has_no_task_left(open_portal):
    async def census(ctx):
        return {"tasks": trio.lowlevel.current_statistics().tasks_living}

    async def count(portal):
        return (await portal.run(Pipeline("census").with_stage("census", census))).data("census")["tasks"]

    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            await (await portal.spawn(nothing, name="first")).stop()  # the supervisor now has a task for its actors
            before = await count(portal)
            async with portal.follow(waiting.pipeline):
                await waiting.begun.wait()
            await (await portal.start(quick)).result()
            await (await portal.spawn(waiting, name="waiting")).stop()
            await portal.run(quick)
            while await count(portal) != before:  # noqa: ASYNC110 (what has told its outcome is about to end)
                await asyncio.sleep(0)

    run(main)


INTERRUPTED = """
import asyncio, sys, trio
from stageflow_actors import Pipeline
from stageflow_actors.embed.asyncio import SupervisorPortal

async def wait(ctx):
    try:
        print("begun", flush=True)
        await trio.sleep_forever()
    finally:
        print("stage ended", flush=True)

async def main():
    async with SupervisorPortal(guest=sys.argv[1] == "guest") as portal:
        await portal.run(Pipeline("p").with_stage("wait", wait))

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("mode", ["thread", "guest"])
def test_an_interrupt_ends_the_run_and_then_the_program(mode):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-W", "error", "-c", INTERRUPTED, mode]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=root) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "stage ended\ninterrupted\n", "")
