"""Cancelling an asyncio task cancels its run, waits until that has ended, and is never lost."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import trio
from portal_cases import PATIENCE, Stubborn, Waiting, open_portal, run, settle, wait_idle

from stageflow_actors import Pipeline
from stageflow_actors.embed.asyncio import SupervisorPortal

__all__ = ["open_portal"]


async def nothing(ctx):
    """Return at once."""


quick = Pipeline("quick").with_stage("nothing", nothing)


def test_cancelling_the_task_cancels_the_run(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            task = asyncio.create_task(portal.run(waiting.pipeline))
            await waiting.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert waiting.ended == 1
            assert (await portal.statistics()).runs == 0

    run(main)


def test_cancelling_waits_for_the_end_however_often_it_is_done(open_portal):
    async def main():
        stubborn = Stubborn()
        async with open_portal() as portal:
            task = asyncio.create_task(portal.run(stubborn.pipeline))
            await stubborn.begun.wait()
            task.cancel()
            await stubborn.stopping.wait()
            for _ in range(3):
                task.cancel()
                await settle()
                assert not task.done()
            assert (await portal.statistics()).runs == 1
            stubborn.release()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await portal.statistics()).runs == 0

    run(main)


async def use_timeout(portal, waiting):
    async with asyncio.timeout(0.01):
        await portal.run(waiting.pipeline)


async def use_nested_timeouts(portal, waiting):
    async with asyncio.timeout(0.01):
        try:
            async with asyncio.timeout(PATIENCE):
                await portal.run(waiting.pipeline)
        except TimeoutError:
            pytest.fail("the inner one")


async def use_wait_for(portal, waiting):
    await asyncio.wait_for(portal.run(waiting.pipeline), 0.01)


@pytest.mark.parametrize("use", [use_timeout, use_nested_timeouts, use_wait_for])
def test_timeouts_of_asyncio_end_the_run(open_portal, use):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            with pytest.raises(TimeoutError):
                await use(portal, waiting)
            assert asyncio.current_task().cancelling() == 0
            assert (await portal.statistics()).runs == 0
        assert waiting.ended == waiting.begun.is_set()

    run(main)


def test_a_second_timeout_during_the_wait_is_the_outer_ones(open_portal):
    """Both have fired when the run has ended: of the one `CancelledError` the outer one makes its `TimeoutError`."""

    async def main():
        stubborn = Stubborn()

        async def release(outer, inner):
            await stubborn.begun.wait()
            inner.reschedule(asyncio.get_running_loop().time())
            await stubborn.stopping.wait()
            outer.reschedule(asyncio.get_running_loop().time())
            while not outer.expired():  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0)
            stubborn.release()

        async with open_portal() as portal:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as outer:
                    try:
                        async with asyncio.timeout(None) as inner:
                            releasing = asyncio.create_task(release(outer, inner))
                            await portal.run(stubborn.pipeline)
                    except TimeoutError:
                        pytest.fail("the inner one")
            await releasing
            assert asyncio.current_task().cancelling() == 0

    run(main)


def test_a_task_group_that_fails_ends_its_runs(open_portal):
    async def main():
        waiting = Waiting()

        async def fail():
            await waiting.begun.wait()
            raise LookupError("the other one")

        async with open_portal() as portal:
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(portal.run(waiting.pipeline))
                    group.create_task(fail())
            assert [str(error) for error in caught.value.exceptions] == ["the other one"]
            assert waiting.ended == 1

    run(main)


def test_cancelling_a_gather_ends_all_its_runs(open_portal):
    async def main():
        waiting = [Waiting() for _ in range(5)]
        async with open_portal() as portal:
            gathered = asyncio.gather(*[portal.run(each.pipeline) for each in waiting])
            for each in waiting:
                await each.begun.wait()
            gathered.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gathered
            await wait_idle(portal)  # `gather` does not wait for all of them
        assert [each.ended for each in waiting] == [1] * 5

    run(main)


def test_a_run_that_has_ended_at_the_same_moment_is_cancelled_all_the_same():
    """The asyncio loop is held while the run ends, so that it finds both the result and the cancellation."""

    async def main():
        async with SupervisorPortal() as portal:
            task = asyncio.create_task(portal.run(Pipeline("p").with_stage("tell", tell)))
            await asyncio.to_thread(begun.wait, PATIENCE)
            release.set()
            give_up = time.monotonic() + PATIENCE
            while portal._loop._calls and time.monotonic() < give_up:
                time.sleep(0)  # noqa: ASYNC251 (the loop is to be held)
            assert not portal._loop._calls
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await portal.run(quick)).ok

    def tell(ctx):
        begun.set()
        release.wait(PATIENCE)

    begun, release = threading.Event(), threading.Event()
    run(main)


def test_a_task_that_is_cancelled_before_it_has_begun_runs_nothing(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            task = asyncio.create_task(portal.run(waiting.pipeline))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not waiting.begun.is_set()

    run(main)


def test_a_task_that_is_cancelled_before_its_call_leaves_no_run(open_portal):
    """Its call is posted, and the cancellation at once behind it."""

    async def main():
        waiting = Waiting()

        async def follow():
            async with portal.follow(waiting.pipeline):
                pytest.fail("it was entered")

        async with open_portal() as portal:
            for call in (
                lambda: portal.run(waiting.pipeline),
                lambda: portal.start(waiting.pipeline),
                follow,
                lambda: portal.spawn(waiting, name="waiting"),
            ):
                asyncio.current_task().cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call()
                asyncio.current_task().uncancel()
            statistics = await portal.statistics()
            while statistics.runs or statistics.actors:
                statistics = await portal.statistics()

    run(main)


def test_a_stage_that_exits_while_it_is_cancelled_comes_before_the_cancellation(open_portal):
    class Exits(Waiting):
        async def execute(self, ctx):
            try:
                await super().execute(ctx)
            finally:
                raise SystemExit(3)

    async def main():
        exits = Exits()

        async def call():
            try:
                await portal.run(exits.pipeline)
            except SystemExit as error:  # which would end the loop
                return error.code, type(error.__context__)

        async with open_portal() as portal:
            task = asyncio.create_task(call())
            await exits.begun.wait()
            task.cancel()
            assert (await task)[0] == 3

    run(main)


def test_closing_a_waiting_coroutine_cancels_its_run(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            waits = portal.run(waiting.pipeline)
            waits.send(None)
            await waiting.begun.wait()
            waits.close()
            await wait_idle(portal)
        assert waiting.ended == 1

    run(main)


def test_shutting_down_asyncio_ends_what_is_pending(open_portal):
    """`asyncio.run` cancels the tasks that its main function has left: the portal's, and those that use it."""

    async def serve():
        nonlocal portal
        async with open_portal() as portal:
            opened.set()
            await asyncio.sleep(PATIENCE)

    async def main():
        nonlocal opened, waiting
        opened, waiting = asyncio.Event(), Waiting()
        tasks.append(asyncio.create_task(serve()))
        await opened.wait()
        tasks.append(asyncio.create_task(portal.run(waiting.pipeline)))
        await waiting.begun.wait()

    portal = opened = waiting = None
    tasks = []
    asyncio.run(main())
    assert waiting.ended == 1
    assert [task.cancelled() for task in tasks] == [True, True]
    run(noop)  # finds no thread left


async def noop():
    """Do nothing."""


def test_a_stage_that_swallows_cancellation_does_not_swallow_the_tasks(open_portal):
    class Swallows(Waiting):
        async def execute(self, ctx):
            try:
                await super().execute(ctx)
            except trio.Cancelled:
                return {"swallowed": True}

    async def main():
        swallows = Swallows()
        async with open_portal() as portal:
            task = asyncio.create_task(portal.run(swallows.pipeline))
            await swallows.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)
