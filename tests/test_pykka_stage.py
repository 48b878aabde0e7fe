"""Pykka actors as stages of runs and as resident actors: owned by one thread, supervised, and never waited for."""

from __future__ import annotations

import contextvars
import logging
import threading
import traceback
from functools import partial

import pykka
import pytest
import trio
import trio.testing
from pykka_cases import FOREVER, Echo, Gate, Library, add_one, exits, nothing_left

from stageflow_actors import (
    Intensity,
    Limiter,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    Restart,
    StageOutput,
    StageState,
    Supervisor,
)
from stageflow_actors.embed.pykka import check_cancelled, pykka_stage
from stageflow_actors.errors import (
    ActorDeadError,
    StageReturnTypeError,
    StageTimeoutError,
    ThreadAbandonedError,
)

__all__ = ["exits", "nothing_left"]

request_id = contextvars.ContextVar("request_id", default="none")


def doing(function, **options):
    """A pipeline of one stage that does something in the actor's thread."""
    return Pipeline("p").with_stage("echo", pykka_stage(Echo, handle=lambda actor, ctx: function(actor), **options))


async def raised_in(pipeline, **options):
    """Run it, and return what its one stage has failed with."""
    async with Supervisor(**options) as supervisor:
        result = await supervisor.run(pipeline, continue_on_failure=True)
    (failure,) = result.failures.values()
    return failure.error


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=Intensity(100)) as supervisor:
        yield supervisor


# A stage of a run


async def test_an_actor_that_owns_a_database_is_a_stage(tmp_path):
    path = tmp_path / "library.db"
    pipeline = (
        Pipeline("p")
        .with_stage("one", pykka_stage(Library, path))
        .with_stage("two", pykka_stage(Library, path=path), dependencies="one")
    )
    async with Supervisor() as supervisor:
        first = await supervisor.run(pipeline, {"title": "Kind of Blue"})
    assert [first.data(name)["count"] for name in ("one", "two")] == [1, 2]
    assert first.data("one")["thread"] != threading.get_ident()


async def test_every_attempt_has_an_actor_of_its_own():
    seen = []

    def handle(actor):
        seen.append((actor.actor_urn, threading.current_thread()))
        if len(seen) < 3:
            raise ValueError("not yet")
        return {"attempts": len(seen)}

    pipeline = Pipeline("p").with_stage(
        "echo", pykka_stage(Echo, handle=lambda actor, _: handle(actor)), restart=Restart(max_restarts=5)
    )
    async with Supervisor() as supervisor:
        with trio.fail_after(FOREVER):
            result = await supervisor.run(pipeline)
    assert result.data("echo") == {"attempts": 3}
    assert len({urn for urn, _ in seen}) == len({thread for _, thread in seen}) == 3


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({}, {"double": 4}),
        ({"handle": "halve"}, {"half": 1}),
        ({"handle": lambda actor, ctx: {"plus": ctx.snapshot.data["n"] + actor.one}}, {"plus": 3}),
        ({"handle": "on_receive"}, {"got": {"n": 2}, "is": "dict"}),
    ],
)
async def test_what_it_does_with_a_message_can_be_said(options, output):
    class Calculator(pykka.ThreadingActor):
        one = 1

        def execute(self, ctx):
            return {"double": ctx.snapshot.data["n"] * 2}

        def halve(self, ctx):
            return StageOutput.ok({"half": ctx.snapshot.data["n"] // 2})

        def on_receive(self, message):
            return {"got": message, "is": type(message).__name__}

    result = await run_one(Pipeline("p").with_stage("a", pykka_stage(Calculator, **options)), {"n": 2})
    assert result.data("a") == output


async def run_one(pipeline, data=None):
    async with Supervisor() as supervisor:
        return await supervisor.run(pipeline, data)


async def test_what_it_returns_follows_the_rules_of_stages():
    error = await raised_in(doing(lambda _: 3))
    assert isinstance(error, StageReturnTypeError)
    result = await run_one(doing(lambda _: StageOutput.skip("nothing to do")))
    assert result.states == {"echo": StageState.SKIPPED}


async def test_what_it_raises_keeps_its_type_its_cause_and_its_traceback():
    def break_down(_actor):
        raise OSError("disk full") from KeyError("sector")

    error = await raised_in(doing(break_down))
    assert repr(error) == "OSError('disk full')"
    assert repr(error.__cause__) == "KeyError('sector')"
    assert traceback.extract_tb(error.__traceback__)[-1].name == "break_down"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, BaseException])
async def test_what_is_no_exception_reaches_the_run_and_stops_no_other_actor(kind):
    other = Echo.start()
    error = kind("now")

    def interrupt(_actor):
        raise error

    with pytest.raises(kind) as caught:
        await run_one(doing(interrupt))
    assert caught.value is error
    assert other.is_alive()
    other.stop()


async def test_context_variables_cross_into_it():
    seen = []

    class Curious(pykka.ThreadingActor):
        def __init__(self):
            super().__init__()
            seen.append(request_id.get())

        def on_start(self):
            seen.append(request_id.get())

        def execute(self, ctx):
            seen.append(request_id.get())
            request_id.set("of the handler")

        def on_stop(self):
            seen.append(request_id.get())

    token = request_id.set("r-1")
    await run_one(Pipeline("p").with_stage("a", pykka_stage(Curious)))
    request_id.reset(token)
    assert seen == ["r-1"] * 4


async def test_it_emits_and_reads_its_inputs_and_configuration():
    def handle(actor, ctx):
        ctx.emit(ctx.config["greeting"])
        return {"n": ctx.inputs.require_from("add", "n") * 10}

    pipeline = (
        Pipeline("p")
        .with_stage("add", add_one)
        .with_stage("echo", pykka_stage(Echo, handle=handle), dependencies="add", config={"greeting": "hello"})
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, {"n": 1})
        async with run.events() as events:
            emitted = [event.event async for event in events if type(event).__name__ == "StageEmitted"]
        assert (await run.result()).data("echo") == {"n": 20}
    assert emitted == ["hello"]


async def test_its_class_is_what_the_registry_knows():
    def look(actor):
        (ref,) = pykka.ActorRegistry.get_by_class(Echo)
        assert ref is actor.actor_ref
        assert pykka.ActorRegistry.get_by_class_name("Echo") == [ref]
        return {"name": str(actor), "repr": repr(type(actor)), "urn": actor.actor_urn}

    found = (await run_one(doing(look))).data("echo")
    assert found["name"] == f"Echo ({found['urn']})"
    assert found["repr"] == repr(Echo)


async def test_an_actor_that_it_starts_is_an_actor_as_any_other():
    def multiply(actor):
        child = type(actor).start()
        try:
            assert child.is_alive()
            return child.ask("hello", timeout=FOREVER)
        finally:
            child.stop(timeout=FOREVER)

    assert (await run_one(doing(multiply))).data("echo") == {"got": "hello"}


async def test_other_messages_reach_it_as_before(supervisor):
    await supervisor.spawn(pykka_stage(Echo), name="echo")
    (ref,) = pykka.ActorRegistry.get_by_class(Echo)
    assert await trio.to_thread.run_sync(partial(ref.ask, "hello", timeout=FOREVER)) == {"got": "hello"}


# Starting and stopping


@pytest.mark.parametrize("hook", ["__init__", "on_start", "on_stop"])
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
async def test_what_its_hooks_raise_is_what_the_attempt_fails_with(hook, kind):
    error = kind("hook")

    def fail(self):
        raise error

    broken = type("Broken", (Echo,), {hook: fail})
    pipeline = Pipeline("p").with_stage("a", pykka_stage(broken, handle=lambda *_: None))
    if kind is SystemExit:
        with pytest.raises(SystemExit) as caught:
            await run_one(pipeline)
        assert caught.value is error
    else:
        assert await raised_in(pipeline) is error
        assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"


async def test_a_handler_that_failed_comes_before_a_stop_that_failed(caplog):
    class Broken(Echo):
        def on_stop(self):
            raise OSError("close")

    def handle(_actor, _ctx):
        raise ValueError("handle")

    caplog.set_level(logging.ERROR, logger="stageflow_actors")
    error = await raised_in(Pipeline("p").with_stage("a", pykka_stage(Broken, handle=handle)))
    assert repr(error) == "ValueError('handle')"
    told = [record.getMessage() for record in caplog.records]
    assert f"pykka actor {Broken.__qualname__} failed to stop: OSError: close" in told


@pytest.mark.parametrize("hook", ["__init__", "on_start", "execute", "on_stop"])
async def test_nothing_that_blocks_holds_up_the_loop(hook):
    """Something else in the loop has to go on for the hook to end."""
    gate = Gate()

    def block(self, *args):
        if hook != "execute":
            getattr(super(slow, self), hook)(*args)
        gate.wait()

    slow = type("Slow", (Echo,), {"execute": lambda self, ctx: None, hook: block})

    async def open_it(ctx):
        await trio.to_thread.run_sync(gate.wait_until_reached)
        gate.opened.set()

    assert (await run_one(Pipeline("p").with_stage("a", pykka_stage(slow)).with_stage("b", open_it))).ok


@pytest.mark.parametrize("hook", ["__init__", "on_start"])
async def test_a_run_that_ends_while_it_starts_waits_for_its_thread(hook):
    gate = Gate()
    done = []

    def block(self):
        getattr(super(slow, self), hook)()
        gate.wait()

    members = {hook: block, "execute": lambda self, ctx: done.append("execute")}
    slow = type("Slow", (Echo,), {"on_stop": lambda self: done.append("on_stop"), **members})
    async with Supervisor() as supervisor:
        run = supervisor.start(Pipeline("p").with_stage("a", pykka_stage(slow)))
        await trio.to_thread.run_sync(gate.wait_until_reached)
        run.cancel()
        await trio.testing.wait_all_tasks_blocked()  # it knows that it is not wanted any more
        gate.opened.set()
        assert (await run.result()).states == {"a": StageState.CANCELLED}
    assert done == (["on_stop"] if hook == "on_start" else [])


async def test_a_thread_that_does_not_start_is_a_failure_of_the_attempt(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    error = await raised_in(doing(lambda _: None))
    monkeypatch.undo()
    assert repr(error) == 'RuntimeError("can\'t start new thread")'


async def test_a_class_whose_start_starts_nothing_has_not_started():
    class Odd(Echo):
        @classmethod
        def start(cls, *args, **kwargs):
            return None

    error = await raised_in(Pipeline("p").with_stage("a", pykka_stage(Odd)))
    assert isinstance(error, ActorDeadError)


@pytest.mark.parametrize("daemon", [False, True])
async def test_its_thread_is_a_daemon_where_the_class_says_so(daemon):
    class Mine(Echo):
        use_daemon_thread = daemon

    def look(_actor, _ctx):
        return {"daemon": threading.current_thread().daemon, "name": threading.current_thread().name}

    found = (await run_one(Pipeline("p").with_stage("a", pykka_stage(Mine, handle=look)))).data("a")
    assert found == {"daemon": daemon, "name": f"pykka actor {Mine.__qualname__}"}


# Cancellation


async def test_a_handler_learns_that_it_was_cancelled(supervisor):
    gate = Gate()
    ended = []

    def handle(_actor):
        check_cancelled()
        gate.wait()
        try:
            while True:
                check_cancelled()
        except BaseException as error:
            ended.append(error)
            raise

    run = supervisor.start(doing(handle))
    await trio.to_thread.run_sync(gate.wait_until_reached)
    run.cancel()
    gate.opened.set()
    result = await run.result()
    assert result.states == {"echo": StageState.CANCELLED}
    assert [type(error) for error in ended] == [trio.Cancelled]


@pytest.mark.parametrize("last_word", ["returns", "raises", "exits"])
async def test_what_it_does_afterwards_does_not_count(last_word, supervisor):
    gate = Gate()

    def handle(_actor):
        gate.wait()
        if last_word != "returns":
            raise {"raises": ValueError, "exits": SystemExit}[last_word]
        return {"late": True}

    run = supervisor.start(doing(handle))
    await trio.to_thread.run_sync(gate.wait_until_reached)
    run.cancel()
    gate.opened.set()
    assert (await run.result()).states == {"echo": StageState.CANCELLED}


async def test_a_message_that_is_cancelled_before_it_is_begun_with_is_not_handled(supervisor):
    gate, handled = Gate(), []

    class Obedient(Echo):
        def on_receive(self, message):
            message()

        def on_start(self):
            self.actor_ref.tell(gate.wait)  # in front of the stage's message

    pipeline = Pipeline("p").with_stage("a", pykka_stage(Obedient, handle=lambda *_: handled.append(1)))
    run = supervisor.start(pipeline)
    await trio.to_thread.run_sync(gate.wait_until_reached)
    await trio.testing.wait_all_tasks_blocked()
    run.cancel()
    await trio.testing.wait_all_tasks_blocked()
    gate.opened.set()
    assert (await run.result()).states == {"a": StageState.CANCELLED}
    assert handled == []


def test_outside_of_a_handler_there_is_nothing_to_check():
    with pytest.raises(RuntimeError) as caught:
        check_cancelled()
    assert str(caught.value) == (
        "check_cancelled() is for the handler of a pykka_stage, in the actor's thread, and none is running here"
    )


async def test_a_timeout_ends_the_attempt():
    def handle(_actor):
        while True:
            check_cancelled()

    pipeline = Pipeline("p").with_stage("a", pykka_stage(Echo, handle=lambda actor, _: handle(actor)), timeout=0.01)
    assert isinstance(await raised_in(pipeline), StageTimeoutError)


@pytest.mark.parametrize("budget", ["its own", "that of the run"])
async def test_a_thread_that_outlives_the_budget_is_abandoned(budget, caplog):
    gate = Gate()
    options = {"its own": (0.01, FOREVER), "that of the run": (FOREVER, 0.01)}
    own, of_run = options[budget]
    pipeline = doing(gate.wait, shutdown=own)
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    async with Supervisor(shutdown=of_run) as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        await trio.to_thread.run_sync(gate.wait_until_reached)
        run.cancel()
        result = await run.result()
    assert result.states == {"echo": StageState.ABANDONED}
    error = result.failures["echo"].error
    assert isinstance(error, ThreadAbandonedError)
    assert (error.seconds == 0.01) == (budget == "its own")
    assert str(error) == (
        f"pipeline 'p', stage 'echo': pykka actor Echo was still running {error.seconds:.3g} s after it was told to "
        "stop; let its handler call check_cancelled() now and then"
    )
    assert pykka.ActorRegistry.get_all() == []  # nobody who stops all actors waits for it
    gate.opened.set()


async def test_so_is_one_that_does_not_come_up(caplog):
    gate = Gate()

    class Slow(Echo):
        def __init__(self):
            super().__init__()
            gate.wait()

    async with Supervisor() as supervisor:
        run = supervisor.start(
            Pipeline("p").with_stage("a", pykka_stage(Slow, shutdown=0.01)), continue_on_failure=True
        )
        await trio.to_thread.run_sync(gate.wait_until_reached)
        run.cancel()
        assert (await run.result()).states == {"a": StageState.ABANDONED}
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    gate.opened.set()
    for thread in threading.enumerate():
        if thread.name.startswith("pykka actor"):
            thread.join(FOREVER)
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"the abandoned thread of pykka actor {Slow.__qualname__} has ended"]


async def test_an_abandoned_thread_keeps_its_slot_until_it_really_ends():
    gate, limiter = Gate(), Limiter(1)
    stuck = Pipeline("p").with_stage(
        "a", pykka_stage(Echo, handle=lambda *_: gate.wait(), shutdown=0.01), limiter=limiter
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(stuck, continue_on_failure=True)
        await trio.to_thread.run_sync(gate.wait_until_reached)
        run.cancel()
        assert (await run.result()).states == {"a": StageState.ABANDONED}
        following = supervisor.start(Pipeline("q").with_stage("b", nothing, limiter=limiter))
        await trio.testing.wait_all_tasks_blocked()
        assert following.statistics().pending == 1
        gate.opened.set()
        assert (await following.result()).ok
    assert limiter.statistics().running == 0


async def nothing(ctx):
    """Return nothing."""


def test_a_reply_after_the_loop_has_ended_reaches_nobody():
    gate = Gate()

    async def main():
        async with Supervisor(shutdown=0.01) as supervisor:
            run = supervisor.start(doing(gate.wait), continue_on_failure=True)
            await trio.to_thread.run_sync(gate.wait_until_reached)
            run.cancel()
            return await run.result()

    assert trio.run(main).states == {"echo": StageState.ABANDONED}
    gate.opened.set()


# Refusals


class Strange(pykka.ThreadingActor):
    value = 3

    def needs(self, ctx, more):
        """Takes more than a stage's context."""

    async def later(self, ctx):
        """Is a coroutine."""

    @staticmethod
    def alone(ctx):
        return {"n": 1}


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ((3,), {}, "pykka_stage takes a subclass of pykka.ThreadingActor, not 3; pass the class itself: "),
        (
            (dict,),
            {},
            "pykka_stage takes a subclass of pykka.ThreadingActor, not <class 'dict'>; pass the class itself: ",
        ),
        ((Echo, 1, 2), {}, None),
        ((Library, 1, 2), {}, "pykka actor Library(path=':memory:') cannot be called: too many positional arguments; "),
        ((Strange,), {}, "handle='execute' is no method of pykka actor Strange; name a method, or pass a function "),
        ((Strange,), {"handle": "value"}, "handle='value' is no method of pykka actor Strange; "),
        ((Strange,), {"handle": "needs"}, "handle='needs' of Strange(self, ctx, more) cannot be called: missing "),
        ((Strange,), {"handle": "later"}, "handle='later' of pykka actor Strange is no plain function; an actor's "),
        ((Strange,), {"handle": 3}, "handle must be the name of a method or a function, not 3; name a method, or "),
        ((Echo,), {"shutdown": 0}, "shutdown must be a positive number of seconds, not 0"),
    ],
)
def test_what_cannot_be_a_stage_is_refused(arguments, options, told):
    if told is None:  # pykka's own constructor takes anything
        assert pykka_stage(*arguments, **options)
        return
    with pytest.raises(PipelineValidationError) as caught:
        pykka_stage(*arguments, **options)
    assert str(caught.value).startswith(told)


async def test_a_static_method_will_do():
    pipeline = Pipeline("p").with_stage("a", pykka_stage(Strange, handle="alone"))
    assert (await run_one(pipeline)).data("a") == {"n": 1}


def test_a_class_whose_signature_is_unknown_is_believed():
    class Unknown(Echo):
        __signature__ = 3

    assert pykka_stage(Unknown, 1, 2)


async def test_a_failure_under_fail_fast_is_the_runs():
    with pytest.raises(PipelineFailedError):
        await run_one(doing(lambda _: 3))


class Paired(pykka.ThreadingActor):
    """Starts one of its own class, in its constructor."""

    def __init__(self, *, child=False):
        super().__init__()
        self.child = child
        self.mate = None if child else type(self).start(child=True)

    def execute(self, ctx):
        return {"child": self.child}

    def on_stop(self):
        if self.mate is not None:
            self.mate.stop()


async def test_an_actor_that_starts_one_of_its_own_class_is_the_stage_itself():
    result = await Pipeline("p").with_stage("a", pykka_stage(Paired)).run()
    assert result.data("a") == {"child": False}
