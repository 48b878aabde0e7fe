"""Pykka actors as stages of runs and as resident actors: owned by one thread, supervised, and never waited for."""

from __future__ import annotations

import contextvars
import logging
import sqlite3
import threading
import traceback
from functools import partial

import pykka
import pytest
import trio
import trio.testing
from pykka_cases import FOREVER, Gate, add_one, exits, nothing_left

from stageflow_actors import (
    Directive,
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
    ActorStartError,
    ActorUnavailableError,
    AskTimeoutError,
    StageReturnTypeError,
    StageTimeoutError,
    ThreadAbandonedError,
)

__all__ = ["exits", "nothing_left"]

request_id = contextvars.ContextVar("request_id", default="none")


class Library(pykka.ThreadingActor):
    """Owns an SQLite handle, which no other thread may use."""

    def __init__(self, path=":memory:"):
        super().__init__()
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None)

    def on_start(self):
        self.db.execute("CREATE TABLE IF NOT EXISTS tracks (title TEXT)")

    def execute(self, ctx):
        title = ctx.snapshot.data.get("title")
        if title is not None:
            self.db.execute("INSERT INTO tracks VALUES (?)", (title,))
        if title == "noise":
            raise ValueError(title)
        (count,) = self.db.execute("SELECT count(*) FROM tracks").fetchone()
        return {"count": count, "thread": threading.get_ident()}

    def on_stop(self):
        self.db.close()


class Echo(pykka.ThreadingActor):
    """Does what the message says."""

    def on_receive(self, message):
        return {"got": message}

    def execute(self, ctx):
        return ctx.snapshot.data["do"](self, ctx)


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


# Resident actors


async def test_a_database_is_owned_across_messages_and_restarts(supervisor, tmp_path):
    library = await supervisor.spawn(pykka_stage(Library, tmp_path / "library.db"), name="library")
    counts = [(await library.ask({"title": title})).data for title in ("Blue Train", "Giant Steps")]
    assert [data["count"] for data in counts] == [1, 2]
    assert len({data["thread"] for data in counts}) == 1
    (before,) = pykka.ActorRegistry.get_by_class(Library)
    with pytest.raises(ValueError, match="noise"):
        await library.ask({"title": "noise"})
    assert (await library.ask()).data["count"] == 3
    (after,) = pykka.ActorRegistry.get_by_class(Library)
    assert after is not before
    assert library.statistics().restarts == 1
    pipeline = Pipeline("p").with_stage("library", library)
    assert (await supervisor.run(pipeline, {"title": "Crescent"})).data("library")["count"] == 4
    await library.stop()
    assert pykka.ActorRegistry.get_all() == []


async def test_it_resumes_where_its_policy_says_so(supervisor):
    restart = Restart(max_restarts=3, within=60, decide=lambda _: Directive.RESUME)
    library = await supervisor.spawn(pykka_stage(Library), name="library", restart=restart)
    with pytest.raises(ValueError, match="noise"):
        await library.ask({"title": "noise"})
    assert (await library.ask()).data["count"] == 1
    assert library.statistics().restarts == 0


async def test_a_first_start_that_fails_is_a_start_error(supervisor):
    with pytest.raises(ActorStartError) as caught:
        await supervisor.spawn(pykka_stage(Library, "/nowhere/library.db"), name="library")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)


async def test_those_that_depend_on_it_are_restarted_with_it():
    async with Supervisor(scope="dependents") as supervisor:
        library = await supervisor.spawn(pykka_stage(Library), name="library")
        reader = await supervisor.spawn(pykka_stage(Echo), name="reader", depends_on="library")
        other = await supervisor.spawn(pykka_stage(Echo), name="other")
        with pytest.raises(ValueError, match="noise"):
            await library.ask({"title": "noise"})
        assert (await library.ask()).data["count"] == 0
        assert (await reader.ask({"do": lambda *_: {"up": True}})).data == {"up": True}
        restarts = [ref.statistics().restarts for ref in (library, reader, other)]
    assert restarts == [1, 1, 0]


async def test_an_ask_that_times_out_leaves_a_late_reply(supervisor):
    gate = Gate()
    echo = await supervisor.spawn(pykka_stage(Echo, handle=gate.wait), name="echo")
    async with supervisor.dead_letters() as letters:
        with pytest.raises(AskTimeoutError):
            await echo.ask(timeout=0.01)
        gate.opened.set()
        assert (await anext(letters)).reason == "late_reply"
    await echo.ask()


async def test_what_is_queued_at_its_stop_becomes_dead_letters():
    gate = Gate()
    async with Supervisor() as supervisor, supervisor.dead_letters() as letters, trio.open_nursery() as nursery:
        echo = await supervisor.spawn(pykka_stage(Echo, handle=gate.wait), name="echo")
        await echo.tell()
        await trio.to_thread.run_sync(gate.wait_until_reached)
        await echo.tell({"n": 1})
        nursery.start_soon(echo.stop)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
        letter = await anext(letters)
    assert (letter.reason, letter.snapshot.data) == ("stopped", {"n": 1})


async def test_a_resident_that_outlives_its_budget_is_abandoned(supervisor, caplog):
    caplog.set_level(logging.ERROR, logger="stageflow_actors")
    gate = Gate()
    echo = await supervisor.spawn(pykka_stage(Echo, handle=gate.wait), name="echo", shutdown=0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, ActorUnavailableError, partial(echo.ask, timeout=None))
        await trio.to_thread.run_sync(gate.wait_until_reached)
        await echo.stop()
    assert await echo.wait_stopped() is None
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith(
        "actor 'echo' failed while it was stopped: ThreadAbandonedError: pykka actor Echo was still "
    )
    gate.opened.set()


async def expect(kind, function):
    with pytest.raises(kind):
        await function()


# Deaths that its supervisor has not brought about


def stop_from_outside(ref):
    ref.stop()


def stop_all_actors(_ref):
    pykka.ActorRegistry.stop_all()


def tell_it_what_it_cannot_bear(ref):
    ref.tell("poison")


DEATHS = [stop_from_outside, stop_all_actors, tell_it_what_it_cannot_bear]


class Frail(Echo):
    def on_receive(self, message):
        raise ValueError(message)


def told_of(kill):
    if kill is tell_it_what_it_cannot_bear:
        return "pykka actor Frail ended: ValueError: poison"
    return "pykka actor Frail was stopped from outside; let its supervisor stop it"


@pytest.mark.parametrize("kill", DEATHS)
async def test_an_idle_resident_that_dies_is_restarted(kill, supervisor):
    frail = await supervisor.spawn(pykka_stage(Frail), name="frail")
    async with supervisor.events() as events:
        (ref,) = pykka.ActorRegistry.get_by_class(Frail)
        await trio.to_thread.run_sync(kill, ref)
        names = [type(event).__name__ for event in [await anext(events) for _ in range(3)]]
    assert names == ["ActorCrashed", "ActorRestarting", "ActorStarted"]
    assert (await frail.ask({"do": lambda *_: {"up": True}})).data == {"up": True}


@pytest.mark.parametrize("kill", DEATHS)
async def test_the_error_says_what_happened(kill, supervisor):
    frail = await supervisor.spawn(pykka_stage(Frail), name="frail", policy="temporary")
    (ref,) = pykka.ActorRegistry.get_by_class(Frail)
    await trio.to_thread.run_sync(kill, ref)
    error = await frail.wait_stopped()
    assert isinstance(error, ActorDeadError)
    assert error.describe() == told_of(kill)
    assert (repr(error.__cause__) == "ValueError('poison')") == (kill is tell_it_what_it_cannot_bear)


async def test_a_resident_that_stops_itself_has_answered_and_is_restarted(supervisor):
    def leave(actor, _ctx):
        actor.stop()
        return {"left": actor.actor_urn}

    echo = await supervisor.spawn(pykka_stage(Echo, handle=leave), name="echo")
    urns = []
    async with supervisor.events() as events:
        for _ in range(2):
            urns.append((await echo.ask()).data["left"])
            while type(await anext(events)).__name__ != "ActorStarted":
                pass
    assert len(set(urns)) == 2


async def test_a_message_behind_a_stop_is_not_handled_and_its_asker_is_told(supervisor):
    class Obedient(Echo):
        def on_receive(self, message):
            message()

    gate = Gate()
    echo = await supervisor.spawn(pykka_stage(Obedient), name="echo", policy="temporary")
    (ref,) = pykka.ActorRegistry.get_by_class(Obedient)
    ref.tell(gate.wait)
    ref.stop(block=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect, ActorDeadError, partial(echo.ask, {"do": lambda *_: None}, timeout=None))
        await trio.testing.wait_all_tasks_blocked()  # the message is in pykka's inbox now, behind the stop
        gate.opened.set()


async def test_a_stage_of_a_run_whose_actor_dies_with_the_message_fails():
    """Its inbox holds a stop when its message gets there."""

    class Leaving(Echo):
        def on_start(self):
            self.stop()

    error = await raised_in(Pipeline("p").with_stage("a", pykka_stage(Leaving)))
    assert isinstance(error, ActorDeadError)
    assert str(error) == (
        f"pipeline 'p', stage 'a': pykka actor {Leaving.__qualname__} was stopped from outside; "
        "let its supervisor stop it"
    )


@pytest.mark.usefixtures("exits")
async def test_a_future_that_cannot_be_set_ends_an_actor_and_is_noticed(supervisor):
    class Stubborn(pykka.ThreadingFuture):
        def set(self, value=None):
            raise OSError("full")

        def set_exception(self, exc_info=None):
            raise OSError("full")

    class Odd(Echo):
        _create_future = staticmethod(Stubborn)

    odd = await supervisor.spawn(pykka_stage(Odd), name="odd", policy="temporary")
    (ref,) = pykka.ActorRegistry.get_by_class(Odd)
    ref.ask("hello", block=False)
    assert repr((await odd.wait_stopped()).__cause__) == "OSError('full')"


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
