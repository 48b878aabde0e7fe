"""Events of runs in asyncio: nothing is missed, nothing is pumped, and a followed run ends with its block."""

from __future__ import annotations

import asyncio
import gc

import pytest
import trio
from portal_cases import Gated, Stubborn, Waiting, open_portal, run, settle, wait_idle

from stageflow_actors import Pipeline, PipelineFailedError, PipelineValidationError, RunEnding
from stageflow_actors.events import RunEnded, StageEmitted, StageStarted

__all__ = ["open_portal"]


async def fail(ctx):
    raise OSError("disk full")


backup = Pipeline("backup").with_stage("copy", fail)


def emitting(count):
    async def emit(ctx):
        for number in range(count):
            ctx.emit(number)

    return Pipeline("emitting").with_stage("emit", emit)


def emitted(events):
    return [event.event for event in events if isinstance(event, StageEmitted)]


# Following


def test_a_followed_run_tells_everything_from_the_very_first_event_on(open_portal):
    async def main():
        async with open_portal() as portal, portal.follow(emitting(3000)) as followed:
            events = [event async for event in followed.events()]
            assert isinstance(events[0], StageStarted)
            assert isinstance(events[-1], RunEnded)
            assert emitted(events) == list(range(3000))
            assert followed.events().dropped == 0
            assert (await followed.result()).ok
            assert repr(followed) == f"<FollowedRun of 'emitting', run {followed.run_id}>"

    run(main)


def test_events_come_while_the_run_goes_on(open_portal):
    async def main():
        gated = Gated()
        async with open_portal() as portal, portal.follow(gated.pipeline) as followed:
            events = followed.events()
            assert isinstance(await anext(events), StageStarted)
            gated.release()
            assert [type(event).__name__ async for event in events] == ["StageEnded", "RunEnded"]

    run(main)


def test_a_slow_reader_loses_what_there_is_no_room_for_and_knows_how_much(open_portal):
    async def main():
        async with open_portal() as portal, portal.follow(emitting(3000), max_queued=10) as followed:
            assert (await followed.result()).ok
            events = [event async for event in followed.events()]
            assert len(events) == 10
            assert len(events) + followed.events().dropped == 3000 + 3

    run(main)


def test_leaving_the_block_early_cancels_the_run_and_waits_for_its_end(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            async with portal.follow(waiting.pipeline) as followed:
                async for event in followed.events():
                    assert isinstance(event, StageStarted)
                    break
            assert waiting.ended == waiting.begun.is_set()
            assert (await portal.statistics()).runs == 0
            assert str((await followed.result()).ended) == "cancelled: its block was left"

    run(main)


def test_leaving_the_block_with_an_exception_ends_the_run_first(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            with pytest.raises(LookupError, match="mine"):
                async with portal.follow(waiting.pipeline):
                    await waiting.begun.wait()
                    raise LookupError("mine")
            assert waiting.ended == 1

    run(main)


def test_cancelling_the_block_waits_for_the_end_of_the_run_however_often_it_is_done(open_portal):
    async def main():
        stubborn = Stubborn()

        async def follow():
            async with portal.follow(stubborn.pipeline) as followed:
                async for _ in followed.events():
                    pass

        async with open_portal() as portal:
            task = asyncio.create_task(follow())
            await stubborn.begun.wait()
            task.cancel()
            await stubborn.stopping.wait()
            task.cancel()
            await settle()
            assert not task.done()
            stubborn.release()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main)


def test_a_failure_comes_out_of_the_block_once(open_portal):
    async def main():
        async with open_portal() as portal:
            with pytest.raises(PipelineFailedError, match="disk full"):
                async with portal.follow(backup) as followed:
                    async for _ in followed.events():
                        pass
            async with portal.follow(backup) as followed:
                with pytest.raises(PipelineFailedError, match="disk full"):
                    await followed.result()
            with pytest.raises(LookupError, match="mine"):
                async with portal.follow(backup) as followed:
                    async for _ in followed.events():
                        pass
                    raise LookupError("mine")

    run(main)


async def read(portal, pipeline):
    """Read as a handler of server-sent events does."""
    async with portal.follow(pipeline) as followed:
        async for event in followed.events():
            yield event


def test_a_generator_that_is_closed_ends_its_run(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            reading = read(portal, waiting.pipeline)
            await anext(reading)
            await reading.aclose()
            assert (await portal.statistics()).runs == 0
        assert waiting.ended == waiting.begun.is_set()

    run(main)


def test_a_generator_that_is_dropped_ends_its_run(open_portal):
    """Asyncio closes it, in a task of its own."""

    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            reading = read(portal, waiting.pipeline)
            await anext(reading)
            await waiting.begun.wait()
            del reading
            gc.collect()
            await wait_idle(portal)
            await settle()
        assert waiting.ended == 1

    run(main)


# Listening to a started run


def test_events_of_a_started_run_begin_with_the_first_that_is_awaited(open_portal):
    async def main():
        gated = Gated()
        async with open_portal() as portal:
            started = await portal.start(gated.pipeline)
            await gated.begun.wait()
            async with started.events() as events:
                gated.release()
                kinds = [type(event).__name__ async for event in events]
            assert kinds == ["StageEnded", "RunEnded"]
            assert [event async for event in started.events()] == []

    run(main)


def test_a_bound_that_cannot_be_is_refused(open_portal):
    async def main():
        gated = Gated()
        async with open_portal() as portal:
            started = await portal.start(gated.pipeline)
            with pytest.raises(PipelineValidationError, match="max_queued must be a whole number of at least 1, not 0"):
                started.events(max_queued=0)
            await gated.begun.wait()
            gated.release()

    run(main)


def test_a_reader_that_is_gone_costs_no_more_than_its_bound(open_portal):
    class Emits(Gated):
        async def execute(self, ctx):
            await super().execute(ctx)
            for number in range(1000):
                ctx.emit(number)

    async def main():
        emits = Emits()
        async with open_portal() as portal:
            started = await portal.start(emits.pipeline)
            await emits.begun.wait()
            gone = await started.events(max_queued=1).__aenter__()
            here = await started.events().__aenter__()
            left = started.events()
            async with left:
                pass
            emits.release()
            assert emitted([event async for event in here]) == list(range(1000))
            assert emitted([event async for event in gone]) == [0]
            assert (gone.dropped, here.dropped, left.dropped) == (1001, 0, 0)

    run(main)


def test_a_reader_that_is_cancelled_again_and_again_loses_nothing(open_portal):
    """What was on its way to it waits for it."""

    class Emits(Gated):
        async def execute(self, ctx):
            await super().execute(ctx)
            for number in range(300):
                ctx.emit(number)
                await trio.lowlevel.checkpoint()

    async def main():
        emits = Emits()
        found = []
        async with open_portal() as portal, portal.follow(emits.pipeline) as followed:
            await emits.begun.wait()
            emits.release()
            events = followed.events()
            ended = False
            while not ended:
                task = asyncio.ensure_future(anext(events, None))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
                try:
                    event = await task
                except asyncio.CancelledError:
                    continue
                ended = event is None
                found.append(event)
        assert emitted(found) == list(range(300))

    run(main)


def test_a_cancelled_run_tells_so(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal, portal.follow(waiting.pipeline) as followed:
            await waiting.begun.wait()
            followed.cancel("the server stops")
            events = [event async for event in followed.events()]
            assert str(events[-1].end) == "cancelled: the server stops"
            assert (await followed.result()).ended.ending is RunEnding.CANCELLED

    run(main)


def test_a_followed_run_is_not_heard_by_an_error_that_is_not_its_own(open_portal):
    async def fail(ctx):
        raise OSError("disk full")

    async def main():
        async with open_portal() as portal:
            with pytest.raises(PipelineFailedError, match="disk full"):
                async with portal.follow(Pipeline("p").with_stage("a", fail)) as followed:
                    assert [event async for event in followed.events()]  # up to its end: leaving would cancel it
                    with pytest.raises(RuntimeError):
                        await asyncio.to_thread(asyncio.run, followed.result())
                    assert not followed.was_heard

    run(main)
