"""Where the supervisor of a portal gives up, the block's task is cancelled and the block raises why."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from portal_cases import Waiting, open_portal, run

from stageflow_actors import Intensity, Pipeline
from stageflow_actors.errors import RestartIntensityError, StrayCancelledError, SupervisorClosedError

__all__ = ["open_portal"]

GAVE_UP = "the portal has ended: its supervisor gave up"


async def nothing(ctx):
    """Return at once."""


quick = Pipeline("quick").with_stage("nothing", nothing)


class Fragile:
    """An actor whose crash its supervisor does not forgive."""

    async def execute(self, ctx):
        raise MemoryError("the model is gone")


STRICT = {"intensity": Intensity(1, within=3600.0)}


async def give_up(portal):
    """Make the supervisor give up."""
    actor = await portal.spawn(Fragile, name="fragile")
    for _ in range(2):
        with pytest.raises(MemoryError):
            await actor.ask()


def test_the_blocks_task_is_cancelled_and_the_block_raises_why(open_portal):
    async def main():
        waiting = Waiting()
        reached = []
        with pytest.raises(RestartIntensityError, match="the model is gone") as caught:
            async with open_portal(**STRICT) as portal:
                pending = asyncio.create_task(portal.run(waiting.pipeline))
                await waiting.begun.wait()
                helper = asyncio.create_task(give_up(portal))
                try:
                    await asyncio.Event().wait()
                finally:
                    reached.append("unwound")
        assert reached == ["unwound"]
        assert asyncio.current_task().cancelling() == 0
        assert isinstance(caught.value.__cause__, MemoryError)
        assert not isinstance(caught.value.__context__, asyncio.CancelledError)
        with pytest.raises(SupervisorClosedError) as told:
            await pending
        assert str(told.value) == GAVE_UP
        await helper
        with pytest.raises(SupervisorClosedError) as told:
            await portal.run(quick)
        assert str(told.value) == GAVE_UP

    run(main)


def test_a_block_that_swallows_that_cancellation_raises_why_all_the_same(open_portal):
    async def main():
        with pytest.raises(RestartIntensityError):
            async with open_portal(**STRICT) as portal:
                helper = asyncio.create_task(give_up(portal))
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        assert asyncio.current_task().cancelling() == 0
        await helper

    run(main)


def test_what_the_block_raises_itself_becomes_the_context(open_portal):
    async def main():
        with pytest.raises(RestartIntensityError) as caught:
            async with open_portal(**STRICT) as portal:
                helper = asyncio.create_task(give_up(portal))
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise LookupError("mine") from None
        assert str(caught.value.__context__) in {"mine", "the model is gone"}
        assert asyncio.current_task().cancelling() == 0
        await helper

    run(main)


def test_what_is_no_exception_leaves_the_block_before_the_reason(open_portal):
    async def main():
        with pytest.raises(KeyboardInterrupt):
            async with open_portal(**STRICT) as portal:
                helper = asyncio.create_task(give_up(portal))
                try:
                    await asyncio.Event().wait()
                finally:
                    raise KeyboardInterrupt
        await helper

    run(main)


def test_a_cancellation_from_outside_beside_it(open_portal):
    """The reason is raised, as by a `TaskGroup`; the count of cancellations is what the others have made of it."""

    async def main():
        async def serve():
            async with open_portal(**STRICT) as portal:
                helpers.append(asyncio.create_task(give_up(portal)))
                try:
                    await asyncio.Event().wait()
                finally:
                    asyncio.current_task().cancel()

        helpers = []
        task = asyncio.create_task(serve())
        with pytest.raises(RestartIntensityError):
            await task
        assert task.cancelling() == 1
        await asyncio.gather(*helpers)

    run(main)


@pytest.mark.parametrize("error", [SystemExit(3), BaseException("odd")])
def test_what_a_started_run_raises_that_is_no_exception_leaves_the_block(open_portal, error):
    async def leave(ctx):
        raise error

    async def main():
        with pytest.raises(type(error)) as caught:
            async with open_portal() as portal:
                await portal.start(Pipeline("p").with_stage("leave", leave))
                await asyncio.Event().wait()
        assert caught.value is error
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_a_started_run_that_raises_asyncios_cancellation_does_not_cancel_the_block(open_portal):
    async def confused(ctx):
        raise asyncio.CancelledError

    async def main():
        with pytest.raises(StrayCancelledError):
            async with open_portal() as portal:
                await portal.start(Pipeline("p").with_stage("confused", confused))
                await asyncio.Event().wait()
        assert asyncio.current_task().cancelling() == 0

    run(main)


def test_whoever_calls_while_it_gives_up_is_told_so(open_portal):
    """At whatever moment; not that a supervisor, of which they know nothing, has been left."""

    async def call(told, make):
        while True:
            try:
                await make()
            except SupervisorClosedError:
                told.append(make)
                return

    async def main():
        told = []
        with pytest.raises(RestartIntensityError):
            async with open_portal(**STRICT) as portal:
                tasks = [
                    asyncio.create_task(call(told, make))
                    for make in [lambda: portal.run(quick), lambda: portal.start(quick)]
                    for _ in range(5)
                ]
                await give_up(portal)
                await asyncio.Event().wait()
        await asyncio.gather(*tasks)
        assert len(told) == 10

    run(main)
