"""A program of stages that await asyncio: run by a test in a process of its own, which trio-asyncio may change."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar

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
    StageState,
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


async def cancels_itself_in_a_group(ctx):
    raise BaseExceptionGroup("several", [asyncio.CancelledError()])


async def fails_in_a_group(ctx):
    raise BaseExceptionGroup("several", [asyncio.CancelledError(), OSError("one")])


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


async def start_all(supervisor, pipeline, place):
    """Start a run of stages that wait, and return it when they do."""
    run = supervisor.start(pipeline, continue_on_failure=True)
    async with run.events() as events:
        started = 0
        async for event in events:
            started += type(event).__name__ == "StageStarted"
            if started == len(pipeline.stages):
                break
    await supervisor.run(Pipeline("turn").with_stage("sleep", sleep, placement=place))  # a turn of the loop
    return run


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
        .with_stage("strays", cancels_itself_in_a_group, placement=place)
        .with_stage("several", fails_in_a_group, placement=place)
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
        for name in ("stray", "strays"):
            assert isinstance(result.failures[name].error, StrayCancelledError)
        (error,) = result.failures["several"].error.exceptions
        assert str(error) == "one"
        assert log == ["closed", "left"] or log == ["left", "closed"]
        log.clear()

        pipeline = Pipeline("cancelled").with_stage("waits", sleep_forever, placement=place)
        pipeline = pipeline.with_stage("gives", value_although_cancelled, placement=place)
        run = await start_all(supervisor, pipeline, place)
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


# What only the loop inside trio's is asked for: it belongs to the supervisor, which closes it.


async def stops_the_loop(ctx):
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()


async def breaks_the_loop(ctx):
    async def exit_when_told():
        gates.append(event := asyncio.Event())
        await event.wait()
        raise SystemExit(5)

    await asyncio.create_task(exit_when_told())


async def stubborn(ctx):
    """Swallows its cancellations, and so does a task that it leaves behind; both turn the loop all the time."""

    async def go_on(name):
        try:
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
        finally:
            log.append(name)

    background.add(asyncio.create_task(go_on("background")))
    await go_on("stage")


async def ignores_everything(ctx):
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            log.append(type(error).__name__)
            if isinstance(error, GeneratorExit):
                raise OSError("not in order") from None


background = set()
gates = []


async def check_stop(place):
    """A stage cannot stop the loop."""
    async with Supervisor() as supervisor:
        result = await supervisor.run(
            Pipeline("p").with_stage("stops", stops_the_loop, placement=place), continue_on_failure=True
        )
        told = "the loop of asyncio_loop() was told to stop(), and is that of other stages too"
        assert str(result.failures["stops"].error) == f"{told}; end the stage by returning"
        assert (await supervisor.run(Pipeline("q").with_stage("sleep", sleep, placement=place))).ok


async def check_stubborn(place):
    """Stages and tasks that nothing ends but the end of the loop neither keep a run nor the supervisor."""
    limiter = Limiter(2)
    pipeline = Pipeline("p")
    for stage in (stubborn, ignores_everything):
        pipeline = pipeline.with_stage(stage.__name__, stage, placement=place, limiter=limiter)
    async with Supervisor(shutdown=0.05) as supervisor:
        run = await start_all(supervisor, pipeline, place)
        run.cancel()
        result = await run.result()
        assert set(result.states.values()) == {StageState.ABANDONED}, result
        assert limiter.statistics().running == 2
        assert log == ["CancelledError"]
    assert sorted(log) == ["CancelledError", "CancelledError", "GeneratorExit", "background", "stage"]
    assert limiter.statistics().running == 0
    log.clear()
    background.clear()


async def check_break(place):
    """A loop that an exit of one stage's task ends takes the supervisor along, and the stages in it do not wait."""
    pipeline = Pipeline("p").with_stage("waits", sleep_forever, placement=place)
    pipeline = pipeline.with_stage("breaks", breaks_the_loop, placement=place)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with Supervisor() as supervisor:
            run = await start_all(supervisor, pipeline, place)
            gates.pop().set()
            await run.result()
    assert caught.value.subgroup(SystemExit)
    for name in ("waits", "breaks"):
        assert run.partial().states[name] in {StageState.FAILED, StageState.CANCELLED}
    log.clear()


async def check_all():
    """Run everything, in a loop of each supervisor's."""
    place = asyncio_loop()
    for each in (check, check_stop, check_stubborn, check_break, check):
        await each(place)


if __name__ == "__main__":
    trio.run(check_all)
    print("all is well")
