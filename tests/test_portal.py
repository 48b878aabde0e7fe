"""A supervisor inside an asyncio application: runs, handles, resident actors, context, errors."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import traceback

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from portal_cases import Gated, Waiting, list_threads, open_portal, run

from stageflow_actors import (
    OverloadedError,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    RunEnding,
    StageState,
    Supervisor,
    parallel_stages,
)
from stageflow_actors.embed._options import RunOptions, SpawnOptions, SupervisorOptions
from stageflow_actors.embed.asyncio import SupervisorPortal
from stageflow_actors.errors import ActorStartError, StrayCancelledError, SupervisorClosedError

__all__ = ["open_portal"]


async def greet(ctx):
    return {"text": f"hello {ctx.snapshot.data['user']}"}


async def fail(ctx):
    raise OSError("disk full")


greeting = Pipeline("greeting").with_stage("greet", greet)
backup = Pipeline("backup").with_stage("copy", fail)


# Runs


def test_a_run_gives_its_result(open_portal):
    async def main():
        async with open_portal() as portal:
            return await portal.run(greeting, {"user": "ada"})

    assert run(main).data("greet") == {"text": "hello ada"}


def test_any_number_of_tasks_may_run_at_once(open_portal):
    async def main():
        async with open_portal() as portal:
            results = await asyncio.gather(*[portal.run(greeting, {"user": number}) for number in range(300)])
        assert [result.data("greet")["text"] for result in results] == [f"hello {number}" for number in range(300)]

    run(main)


def test_the_options_of_a_run_reach_it(open_portal):
    async def main():
        waiting = Waiting()
        pipeline = waiting.pipeline.with_stage("greet", greet).with_stage("other", greet)
        async with open_portal() as portal:
            late = await portal.run(pipeline, {"user": "ada"}, timeout=0.01)
            part = await portal.run(pipeline, targets=["greet"], overrides={"greet": {"text": "given"}})
            kept = await portal.run(backup, continue_on_failure=True)
        assert late.ended.ending is RunEnding.TIMED_OUT
        assert set(late) == {"greet", "other"}
        assert {name: output.data for name, output in part.items()} == {"greet": {"text": "given"}}
        assert kept.states == {"copy": StageState.FAILED}

    run(main)


def test_an_error_keeps_its_type_its_cause_and_its_traceback(open_portal):
    async def main():
        async with open_portal() as portal:
            with pytest.raises(PipelineFailedError, match="disk full") as caught:
                await portal.run(backup)
        (error,) = caught.value.__cause__.exceptions
        assert isinstance(error, OSError)
        assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[0] == "main"
        assert "unwrap" in names
        assert caught.value.result.states == {"copy": StageState.FAILED}

    run(main)


def test_what_cannot_run_is_refused_and_nothing_starts(open_portal):
    async def main():
        async with open_portal() as portal:
            for call in (portal.run, portal.start):
                with pytest.raises(PipelineValidationError, match="it has no stages"):
                    await call(Pipeline("empty"))
            with pytest.raises(PipelineValidationError, match="it has no stages"):
                async with portal.follow(Pipeline("empty")):
                    pytest.fail("it was entered")
            with pytest.raises(PipelineValidationError, match="max_queued must be a whole number of at least 1, not 0"):
                async with portal.follow(greeting, max_queued=0):
                    pytest.fail("it was entered")
            assert (await portal.statistics()).runs == 0

    run(main)


def test_a_run_too_many_is_turned_away(open_portal):
    async def main():
        waiting = Waiting()
        one = {"max_runs": 1, "max_queued": 0, "overflow": "reject"}
        async with open_portal(**one) as portal, portal.follow(waiting.pipeline):
            with pytest.raises(OverloadedError):
                await portal.run(greeting)

    run(main)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("odd")])
def test_what_is_no_exception_comes_out_of_the_run_and_the_portal_goes_on(open_portal, error):
    async def leave(ctx):
        raise error

    async def main():
        async with open_portal() as portal:
            with pytest.raises(type(error)) as caught:
                await portal.run(Pipeline("p").with_stage("leave", leave))
            assert caught.value is error
            assert (await portal.run(greeting, {"user": "ada"})).ok

    run(main)


def test_a_stage_that_raises_asyncios_cancellation_does_not_cancel_the_task(open_portal):
    """A task that let it out would count as cancelled: a `TaskGroup` would take no notice of it."""
    stray = asyncio.CancelledError()

    async def confused(ctx):
        raise stray

    async def main():
        async with open_portal() as portal:
            with pytest.raises(StrayCancelledError) as caught:
                await portal.run(Pipeline("p").with_stage("confused", confused))
        assert caught.value.__cause__ is stray
        assert str(caught.value) == (
            "a stage raised asyncio.CancelledError, and nobody had cancelled the task that waits for it; "
            "catch it in the stage, and raise an error of its own"
        )

    run(main)


# Context


request_id = contextvars.ContextVar("request_id", default="none")


def test_context_variables_of_the_task_hold_in_the_stages_and_not_the_other_way(open_portal):
    async def read(ctx):
        seen.append(request_id.get())
        request_id.set("changed")

    async def handle(portal, number):
        request_id.set(f"r{number}")
        await portal.run(pipeline)
        await (await portal.start(pipeline)).result()
        async with portal.follow(pipeline) as followed:
            await followed.result()
        assert request_id.get() == f"r{number}"

    async def main():
        async with open_portal() as portal, asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(handle(portal, number))

    seen = []
    pipeline = Pipeline("p").with_stage("read", read)
    run(main)
    assert sorted(seen) == ["r0"] * 3 + ["r1"] * 3 + ["r2"] * 3


def test_a_plain_function_in_a_thread_has_the_context_too(open_portal):
    def read(ctx):
        return {"seen": request_id.get(), "thread": threading.current_thread().name}

    async def main():
        request_id.set("r7")
        async with open_portal() as portal:
            return await portal.run(Pipeline("p").with_stage("read", read))

    assert run(main).data("read")["seen"] == "r7"


def test_the_current_span_of_opentelemetry_is_that_of_the_task(open_portal):
    tracer = TracerProvider().get_tracer("test")

    async def read(ctx):
        with tracer.start_as_current_span("stage") as span:
            return {"trace": span.get_span_context().trace_id, "parent": span.parent.span_id}

    async def main():
        async with open_portal() as portal:
            with tracer.start_as_current_span("request") as span:
                result = await portal.run(Pipeline("p").with_stage("read", read))
                assert trace.get_current_span() is span
        own = span.get_span_context()
        assert result.data("read") == {"trace": own.trace_id, "parent": own.span_id}

    run(main)


# Handles


def test_a_started_run_can_be_looked_at_and_cancelled(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            started = await portal.start(waiting.pipeline.with_stage("greet", greet), {"user": "ada"})
            await waiting.begun.wait()
            while not list(await started.partial()):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0)
            assert (await started.statistics()).running == 1
            assert (await portal.statistics()).runs == 1
            assert started.pipeline == "waiting"
            assert repr(started) == f"<PortalRun of 'waiting', run {started.run_id}>"
            started.cancel("the operator said so")
            result = await started.result()
            assert str(result.ended) == "cancelled: the operator said so"
            assert result.run_id == started.run_id
            assert (await started.partial()).ended == result.ended
        assert waiting.ended == 1

    run(main)


def test_a_run_may_be_cancelled_from_another_thread(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            started = await portal.start(waiting.pipeline)
            await asyncio.to_thread(started.cancel, "from there")
            assert str((await started.result()).ended) == "cancelled: from there"
        started.cancel("afterwards this does nothing")

    run(main)


def test_cancelling_one_who_waits_for_a_result_does_not_cancel_the_run(open_portal):
    async def main():
        gated = Gated()
        async with open_portal() as portal:
            started = await portal.start(gated.pipeline)
            one, other = (asyncio.create_task(started.result()) for _ in range(2))
            await gated.begun.wait()
            one.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one
            gated.release()
            assert (await other).data("wait") == {"released": True}

    run(main)


def test_a_result_raises_what_run_would(open_portal):
    async def main():
        async with open_portal() as portal:
            started = await portal.start(backup)
            for _ in range(2):
                with pytest.raises(PipelineFailedError, match="disk full"):
                    await started.result()

    run(main)


# Resident actors


class Counter:
    """Counts its messages."""

    def __init__(self):
        self.count = 0

    async def execute(self, ctx):
        self.count += 1
        if ctx.snapshot.data.get("fail"):
            raise ValueError("not this one")
        return {"count": self.count}


def test_a_resident_actor_answers_asyncio(open_portal):
    async def main():
        async with open_portal() as portal:
            counter = await portal.spawn(Counter, name="counter")
            assert counter.name == "counter"
            assert repr(counter) == "<PortalActor of 'counter'>"
            await counter.tell({"n": 1})
            assert (await counter.ask({"n": 2})).data == {"count": 2}
            with pytest.raises(ValueError, match="not this one"):
                await counter.ask({"fail": True})
            result = await portal.run(Pipeline("p").with_stage("count", counter.ref))
            assert result.data("count") == {"count": 1}  # of a fresh instance
            assert (await counter.statistics()).restarts == 1
            assert list((await portal.statistics()).actors) == ["counter"]
            await counter.stop()
            assert list((await portal.statistics()).actors) == []

    run(main)


def test_an_actor_that_does_not_come_up_is_an_error(open_portal):
    class Broken(Counter):
        async def __aenter__(self):
            raise FileNotFoundError("no index")

        async def __aexit__(self, *error):
            pass

    async def main():
        async with open_portal() as portal:
            with pytest.raises(ActorStartError, match="no index"):
                await portal.spawn(Broken, name="index")

    run(main)


def test_a_cancelled_ask_withdraws_its_message(open_portal):
    async def main():
        waiting = Waiting()
        async with open_portal() as portal:
            actor = await portal.spawn(waiting, name="waiting", shutdown=0.01)
            first = asyncio.create_task(actor.ask(timeout=None))
            await waiting.begun.wait()
            second = asyncio.create_task(actor.ask(timeout=None))
            while (await actor.statistics()).queued == 0:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0)
            for task in (second, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await actor.statistics()).queued == 0
            await asyncio.gather(actor.stop(), actor.stop())

    run(main)


# Where it may be used


def test_a_portal_is_used_while_it_is_open(open_portal):
    async def main():
        portal = open_portal()
        with pytest.raises(SupervisorClosedError) as caught:
            await portal.run(greeting)
        assert str(caught.value) == "the portal is not open yet"
        async with portal:
            started = await portal.start(greeting, {"user": "ada"})
            counter = await portal.spawn(Counter, name="counter")
        for call in (
            lambda: portal.run(greeting),
            lambda: portal.start(greeting),
            lambda: portal.spawn(Counter, name="other"),
            portal.statistics,
            started.result,
            started.partial,
            counter.ask,
        ):
            with pytest.raises(SupervisorClosedError) as caught:
                await call()
            assert str(caught.value) == "the portal has been left"
        with pytest.raises(RuntimeError, match="a portal can be entered once; make another"):
            await portal.__aenter__()

    run(main)


def test_a_portal_is_entered_in_an_asyncio_task(open_portal):
    before = list_threads()
    with pytest.raises(RuntimeError) as caught:
        open_portal().__aenter__().send(None)
    message = "a portal is entered in an asyncio task, and this is none; start one with asyncio.run(...)"
    assert str(caught.value) == message
    assert list_threads() - before == set()


NOT_HERE = (
    "a portal is called in tasks of the asyncio loop that it was entered in, and this is none; "
    "open a portal in each loop, and use the supervisor's own means inside stages"
)


def test_a_portal_is_no_use_in_another_loop(open_portal):
    async def main():
        async with open_portal() as portal:

            def elsewhere():
                with pytest.raises(RuntimeError) as caught:
                    asyncio.run(portal.run(greeting))
                return str(caught.value)

            assert await asyncio.to_thread(elsewhere) == NOT_HERE

    run(main)


def test_a_portal_is_no_use_inside_a_stage(open_portal):
    """It would wait for asyncio there, in a trio task."""

    async def misuse(ctx):
        with pytest.raises(RuntimeError) as caught:
            await portal.run(greeting)
        return {"told": str(caught.value)}

    async def main():
        nonlocal portal
        async with open_portal() as portal:
            return await portal.run(Pipeline("p").with_stage("misuse", misuse))

    portal = None
    assert run(main).data("misuse") == {"told": NOT_HERE}


def test_bad_options_are_refused_before_anything_starts(open_portal):
    before = list_threads()
    with pytest.raises(PipelineValidationError, match="max_runs must be a whole number of at least 1, not 0"):
        open_portal(max_runs=0)
    with pytest.raises(TypeError, match="max_rnus"):
        open_portal(max_rnus=1)
    assert list_threads() - before == set()


@pytest.mark.parametrize(
    ("options", "function", "given"),
    [
        (SupervisorOptions, Supervisor.__init__, {"self"}),
        (RunOptions, Supervisor.run, {"self", "pipeline", "snapshot"}),
        (RunOptions, Supervisor.start, {"self", "pipeline", "snapshot"}),
        (SpawnOptions, Supervisor.spawn, {"self", "runner", "name"}),
    ],
)
def test_the_options_are_those_of_the_supervisor(options, function, given):
    parameters = inspect.signature(function).parameters
    assert list(options.__annotations__) == [name for name in parameters if name not in given]
    assert {name: str(each) for name, each in options.__annotations__.items()} == {
        name: f"ForwardRef({parameters[name].annotation!r}, module='stageflow_actors.embed._options')"
        for name in options.__annotations__
    }


def test_several_portals_in_one_loop_know_nothing_of_each_other():
    async def main():
        async with SupervisorPortal() as one, SupervisorPortal() as other, SupervisorPortal(guest=True) as guest:
            waiting = Waiting()
            started = await one.start(waiting.pipeline)
            for portal in (one, other, guest):
                assert (await portal.run(greeting, {"user": "ada"})).ok
            assert [(await portal.statistics()).runs for portal in (one, other, guest)] == [1, 0, 0]
            started.cancel()

    run(main)


def test_a_thread_has_one_guest():
    async def main():
        async with SupervisorPortal(guest=True) as portal:
            with pytest.raises(RuntimeError) as caught:
                await SupervisorPortal(guest=True).__aenter__()
            assert (await portal.run(greeting, {"user": "ada"})).ok
        assert str(caught.value) == (
            "a portal cannot be the guest of a thread that runs trio already; "
            "leave the portal that is its guest first, or leave out guest=True; "
            "a thread whose loop was closed under such a portal can have no other"
        )
        async with SupervisorPortal(guest=True) as portal:
            assert (await portal.run(greeting, {"user": "ada"})).ok

    run(main)


def test_a_wide_pipeline_runs_in_both_modes(open_portal):
    async def work(ctx):
        await trio.lowlevel.checkpoint()
        return {"n": ctx.config["key"]}

    workers = parallel_stages("w{key}", work, range(500))
    pipeline = Pipeline("wide").with_stages(workers)

    async def main():
        async with open_portal() as portal:
            return await portal.run(pipeline)

    assert len(run(main)) == 500
