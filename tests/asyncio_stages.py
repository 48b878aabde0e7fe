"""A program of stages that await asyncio: run by a test in a process of its own, which trio-asyncio may change."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from functools import partial

import pytest
import trio
import trio.testing

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Restart,
    RunEnding,
    StageTimeoutError,
    Supervisor,
)
from stageflow_actors.embed.asyncio import asyncio_loop
from stageflow_actors.errors import StrayCancelledError

user = ContextVar("user", default="nobody")
log = []


async def sleep(ctx):
    await asyncio.sleep(0.001)
    return {"loop": id(asyncio.get_running_loop()), "user": user.get()}


async def gather(ctx):
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, value)) for value in range(3)]
    user.set("changed")
    return {"values": [task.result() for task in tasks]}


async def sleep_forever(ctx):
    try:
        await asyncio.Event().wait()
    finally:
        log.append("left")


async def fail(ctx):
    await asyncio.sleep(0)
    raise OSError(f"attempt {ctx.attempt}")


async def exits(ctx):
    raise SystemExit(3)


async def cancels_itself(ctx):
    raise asyncio.CancelledError


async def value_although_cancelled(ctx):
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    return {"value": 7}


async def echo(ctx):
    ctx.emit(ctx.snapshot.data["item"])
    await asyncio.sleep(0)
    return {"item": ctx.snapshot.data["item"]}


class Session:
    """As of an HTTP client: made, entered, used and left in the loop."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()

    async def __aenter__(self):
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, kind, error, traceback):
        await asyncio.sleep(0)
        log.append("closed")

    async def execute(self, ctx):
        return {"same": asyncio.get_running_loop() is self.loop}


class Plain:
    def __init__(self):
        asyncio.get_running_loop()

    async def execute(self, ctx):
        await asyncio.sleep(0)


async def check(place):
    """Run everything that stages do, in a placement."""
    user.set("ada")
    pipeline = (
        Pipeline("p")
        .with_stage("sleep", sleep, placement=place)
        .with_stage("gather", gather, placement=place, dependencies="sleep")
        .with_stage("user", sleep, placement=place, dependencies="gather")
        .with_stage("fails", fail, placement=place, restart=Restart(max_restarts=1))
        .with_stage("session", Session, placement=place)
        .with_stage("plain", Plain, placement=place)
        .with_stage("times out", sleep_forever, placement=place, timeout=0.01)
        .with_stage("stray", cancels_itself, placement=place)
        .with_stage("fan", FanOutLimiterStage(echo, items=range(3), limiter=Limiter(2)), placement=place)
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        async with run.events() as events:
            emitted = sorted([event.event async for event in events if hasattr(event, "event")])
        result = await run.result()
        assert set(result) == {"sleep", "gather", "user", "session", "plain", "fan"}, result
        assert result.data("sleep")["user"] == result.data("user")["user"] == "ada"
        assert result.data("gather") == {"values": (0, 1, 2)}
        assert result.data("session") == {"same": True}
        assert emitted == [0, 1, 2]
        assert [str(each.error) for each in result.failures["fails"].attempts] == ["attempt 1", "attempt 2"]
        assert isinstance(result.failures["times out"].error, StageTimeoutError)
        assert isinstance(result.failures["stray"].error, StrayCancelledError)
        assert log == ["closed", "left"] or log == ["left", "closed"]
        log.clear()

        run = supervisor.start(
            Pipeline("cancelled")
            .with_stage("waits", sleep_forever, placement=place)
            .with_stage("gives", value_although_cancelled, placement=place)
        )
        async with run.events() as events:
            started = 0
            async for event in events:
                started += type(event).__name__ == "StageStarted"
                if started == 2:
                    break
        await supervisor.run(Pipeline("turn").with_stage("sleep", sleep, placement=place))  # a turn of the loop
        run.cancel()
        result = await run.result()
        assert result.ended.ending is RunEnding.CANCELLED
        assert log == ["left"]
        assert result.data("gives") == {"value": 7}
        log.clear()
        with pytest.raises(SystemExit) as caught:
            await supervisor.run(Pipeline("exits").with_stage("a", exits, placement=place))
        assert caught.value.code == 3
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(Pipeline("failing").with_stage("a", fail, placement=place))
        assert isinstance(caught.value.failures["a"].error, OSError)


if __name__ == "__main__":
    trio.run(partial(check, asyncio_loop()))
    print("all is well")
