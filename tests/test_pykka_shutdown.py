"""Every way in which a supervisor that is a pykka actor may end: nothing is left, and no future is left unset."""

from __future__ import annotations

import logging
import signal
import threading

import pykka
import pytest
import trio
from pykka_cases import FOREVER, Gate, Keeper, adding, endless, exits, nothing_left

from stageflow_actors import Intensity, Pipeline, PipelineValidationError, RunEnding, Supervisor
from stageflow_actors.embed._pykka_actor import ClosingInbox
from stageflow_actors.embed._pykka_desk import Desk
from stageflow_actors.embed.pykka import SupervisorActor, check_cancelled, pykka_stage
from stageflow_actors.errors import RestartIntensityError
from stageflow_actors.events import RunEnded, RunStopping, StageEnded, StageStarted

__all__ = ["exits", "nothing_left"]


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    return caplog


class Busy:
    """A run that is going on, and what becomes of it."""

    def __init__(self, ref):
        self.begun, self.cleaned = threading.Event(), threading.Event()
        self.future = ref.proxy().run(Pipeline("busy").with_stage("work", self.work))
        self.run = ref.proxy().start_run(endless, {"n": 1}).get(timeout=FOREVER)
        assert self.begun.wait(FOREVER)

    async def work(self, ctx):
        try:
            self.begun.set()
            await trio.sleep_forever()
        finally:
            self.cleaned.set()

    def check(self, ref):
        assert self.cleaned.is_set()
        assert not ref.is_alive()
        with pytest.raises(pykka.ActorDeadError) as caught:
            self.future.get(timeout=FOREVER)
        assert str(caught.value) == f"{ref} was stopped before this had ended"
        result = self.run.result().get(timeout=FOREVER)
        assert result.ended.ending is RunEnding.CANCELLED
        assert self.run.partial().get(timeout=FOREVER) is result
        assert self.run.statistics().get(timeout=FOREVER).running == 0
        self.run.cancel("too late")


# Stopped from outside


def test_a_stop_in_the_middle_of_runs_cancels_them():
    ref = SupervisorActor.start()
    busy = Busy(ref)
    assert ref.stop(timeout=FOREVER) is True
    busy.check(ref)


def test_a_run_whose_events_are_heard_is_cancelled_too_and_all_of_them_are_told():
    keeper = Keeper.start()
    ref = SupervisorActor.start()
    future = ref.proxy().run(endless, {"n": 1}, events_to=keeper)
    while len(keeper.proxy().kept.get(timeout=FOREVER)) < 3:
        pass
    ref.stop(timeout=FOREVER)
    with pytest.raises(pykka.ActorDeadError):
        future.get(timeout=FOREVER)
    told = [type(event) for event in keeper.proxy().kept.get(timeout=FOREVER)]
    assert told == [StageStarted, StageEnded, StageStarted, RunStopping, StageEnded, RunEnded]
    keeper.stop()


def test_after_it_every_call_gives_a_dead_actor():
    ref = SupervisorActor.start()
    proxy = ref.proxy()
    ref.stop(timeout=FOREVER)
    calls = (proxy.run(adding), proxy.start_run(adding), proxy.spawn(adding, name="a"), proxy.actor("a"))
    for future in calls:
        with pytest.raises(pykka.ActorDeadError) as caught:
            future.get(timeout=FOREVER)
        assert str(caught.value) == f"{ref} is not running"
    with pytest.raises(pykka.ActorDeadError, match="not found"):
        ref.proxy()


def test_a_second_stop_finds_nothing():
    ref = SupervisorActor.start()
    busy = Busy(ref)
    assert [ref.stop(timeout=FOREVER), ref.stop(timeout=FOREVER)] == [True, False]
    busy.check(ref)


def test_stops_from_many_threads_all_return():
    ref = SupervisorActor.start()
    busy = Busy(ref)
    stopped = []
    threads = [threading.Thread(target=lambda: stopped.append(ref.stop(timeout=FOREVER))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stopped) == 8
    assert any(stopped)
    busy.check(ref)


def test_calls_that_race_a_stop_all_end():
    """One that is made as the supervisor is left must neither be lost nor break the loop."""

    def call_until_dead():
        begun.wait()
        with pytest.raises(pykka.ActorDeadError) as caught:
            while True:
                proxy.run(adding, {"n": 1}).get(timeout=FOREVER)
        causes.append(caught.value.__cause__)

    causes = []
    for _ in range(15):
        begun = threading.Barrier(5)
        ref = SupervisorActor.start()
        proxy = ref.proxy()
        threads = [threading.Thread(target=call_until_dead) for _ in range(4)]
        for thread in threads:
            thread.start()
        begun.wait()
        ref.stop(timeout=FOREVER)
        for thread in threads:
            thread.join()
    assert causes == [None] * 60


def test_stop_all_is_an_orderly_shutdown_and_another_finds_nothing():
    refs = [SupervisorActor.start() for _ in range(2)]
    busy = [Busy(ref) for ref in refs]
    assert pykka.ActorRegistry.stop_all(timeout=FOREVER) == [True, True]
    assert pykka.ActorRegistry.stop_all(timeout=FOREVER) == []
    for one, ref in zip(busy, refs, strict=True):
        one.check(ref)


def test_stop_all_stops_a_supervisor_before_the_actors_that_it_runs(log):
    closed = []

    class Library(pykka.ThreadingActor):
        def execute(self, ctx):
            begun.set()
            while True:
                check_cancelled()

        def on_stop(self):
            closed.append("library")

    begun = threading.Event()
    ref = SupervisorActor.start()
    resident = ref.proxy().spawn(pykka_stage(Library), name="library").get(timeout=FOREVER)
    assert [type(other).__name__ for other in pykka.ActorRegistry.get_all()] == ["BridgedRef", "SupervisorRef"]
    ask = resident.ask(timeout=None)
    assert begun.wait(FOREVER)
    assert pykka.ActorRegistry.stop_all(timeout=FOREVER) == [True, False]
    with pytest.raises(pykka.ActorDeadError):
        ask.get(timeout=FOREVER)
    assert closed == ["library"]
    assert log.records == []


# Stopped by one of its own stages


def stop_it(ref):
    return ref.stop()


def stop_it_and_ask(ref):
    return ref.stop(block=False).get()


def stop_all(_ref):
    return all(pykka.ActorRegistry.stop_all())


STOPS = [stop_it, stop_it_and_ask, stop_all]


def run_inside(stage, is_stopped):
    """Run a stage that stops its supervisor."""
    ref = SupervisorActor.start()
    future = ref.proxy().run(Pipeline("p").with_stage("stop", stage(ref)))
    with pytest.raises(pykka.ActorDeadError):
        future.get(timeout=FOREVER)
    assert ref.actor_stopped.wait(FOREVER)
    assert is_stopped == [True]


@pytest.mark.parametrize("stop", STOPS)
def test_an_async_stage_may_stop_it_and_does_not_wait(stop):
    stopped = []

    def make(ref):
        async def stage(ctx):
            stopped.append(stop(ref))
            await trio.sleep_forever()

        return stage

    run_inside(make, stopped)


@pytest.mark.parametrize("stop", STOPS)
def test_so_may_a_plain_one(stop):
    stopped = []

    def make(ref):
        def stage(ctx):
            stopped.append(stop(ref))
            while True:
                trio.from_thread.check_cancelled()

        return stage

    run_inside(make, stopped)


@pytest.mark.parametrize("stop", STOPS)
def test_so_may_a_stage_that_is_a_pykka_actor(stop):
    stopped = []

    def make(ref):
        class Stopper(pykka.ThreadingActor):
            def execute(self, ctx):
                stopped.append(stop(ref))
                while True:
                    check_cancelled()

        return pykka_stage(Stopper)

    run_inside(make, stopped)


@pytest.mark.parametrize("wait", ["for a run", "for an ask"])
def test_a_stage_that_waits_for_something_else_of_it_is_woken(wait):
    """Or else it would have the whole budget to end, and then be abandoned."""
    begun, woken = threading.Event(), []

    async def begin(ctx):
        begun.set()
        await trio.sleep_forever()

    ref = SupervisorActor.start(shutdown=FOREVER)
    resident = ref.proxy().spawn(begin, name="resident", shutdown=0.01).get(timeout=FOREVER)

    def nest(ctx):
        inner = Pipeline("inner").with_stage("begin", begin)
        future = ref.proxy().run(inner) if wait == "for a run" else resident.ask(timeout=None)
        try:
            future.get(timeout=FOREVER)
        except pykka.ActorDeadError as error:
            woken.append(str(error))

    future = ref.proxy().run(Pipeline("outer").with_stage("nest", nest))
    assert begun.wait(FOREVER)
    ref.stop(timeout=FOREVER)
    with pytest.raises(pykka.ActorDeadError):
        future.get(timeout=FOREVER)
    assert woken == [f"{ref} was stopped before this had ended"]


def test_a_method_of_its_own_may_stop_it():
    class Mine(SupervisorActor):
        def leave(self):
            return self.actor_ref.stop()

    ref = Mine.start()
    assert ref.proxy().leave().get(timeout=FOREVER) is True
    assert ref.actor_stopped.wait(FOREVER)


# Never started


def test_options_that_cannot_be_are_refused_in_the_callers_thread():
    with pytest.raises(PipelineValidationError, match="max_runs must be a whole number of at least 1, not 0"):
        SupervisorActor.start(max_runs=0)
    with pytest.raises(TypeError, match="max_running"):
        SupervisorActor.start(max_running=3)


def test_a_loop_that_does_not_start_is_the_error_of_the_start(monkeypatch):
    def run(*_):
        raise OSError("too many open files")

    monkeypatch.setattr(trio, "run", run)
    with pytest.raises(OSError, match="too many open files"):
        SupervisorActor.start()


@pytest.mark.parametrize("nth", [1, 2])
def test_so_is_a_thread_that_does_not_start(nth, monkeypatch):
    started = 0
    start = threading.Thread.start

    def count(thread):
        nonlocal started
        started += 1
        if started == nth:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", count)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        SupervisorActor.start()
    monkeypatch.undo()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
@pytest.mark.usefixtures("exits")
def test_a_hook_that_fails_at_the_start_takes_the_supervisor_along(error):
    class Mine(SupervisorActor):
        def on_start(self):
            raise error

    ref = Mine.start()
    assert ref.actor_stopped.wait(FOREVER)


def test_so_does_a_message_over_which_the_actor_fails():
    class Mine(SupervisorActor):
        def on_receive(self, message):
            raise ValueError("no")

    ref = Mine.start()
    busy = Busy(ref)
    ref.tell("anything")
    with pytest.raises(pykka.ActorDeadError):
        busy.future.get(timeout=FOREVER)
    busy.check(ref)


# Ended by itself


class Broken:
    async def execute(self, ctx):
        raise ValueError("broken")


def test_a_supervisor_that_gives_up_stops_the_actor_and_says_why_once(log):
    ref = SupervisorActor.start(intensity=Intensity(1))
    run = ref.proxy().start_run(endless, {"n": 1}).get(timeout=FOREVER)
    waiting = ref.proxy().run(endless, {"n": 1})
    broken = ref.proxy().spawn(Broken, name="broken").get(timeout=FOREVER)
    for _ in range(2):
        with pytest.raises((ValueError, pykka.ActorDeadError)):
            broken.ask(timeout=None).get(timeout=FOREVER)
    assert "the supervisor had to end: RestartIntensityError" in str(run.result().get(timeout=FOREVER).ended)
    with pytest.raises(pykka.ActorDeadError, match="ended: RestartIntensityError") as caught:
        waiting.get(timeout=FOREVER)
    assert isinstance(caught.value.__cause__, RestartIntensityError)
    assert ref.actor_stopped.wait(FOREVER)
    ended = [record for record in log.records if record.getMessage().startswith(f"{ref} ended: RestartIntensityError")]
    assert len(ended) == 1
    with pytest.raises(pykka.ActorDeadError, match="ended: RestartIntensityError") as caught:
        broken.ask().get(timeout=FOREVER)
    assert isinstance(caught.value.__cause__, RestartIntensityError)


def test_so_does_one_of_whose_started_runs_a_stage_exits(log):
    """And what was asked of it just before gets the reason, or what had completed."""
    exit_code = SystemExit(3)
    gate, begun = Gate(), threading.Event()

    async def leave(ctx):
        gate.wait()  # and all the loop with it
        raise exit_code

    async def busy(ctx):
        begun.set()
        await trio.sleep_forever()

    ref = SupervisorActor.start()
    proxy = ref.proxy()
    waiting = proxy.spawn(busy, name="busy").get(timeout=FOREVER).ask(timeout=None)
    assert begun.wait(FOREVER)
    run = proxy.start_run(Pipeline("p").with_stage("leave", leave)).get(timeout=FOREVER)
    gate.wait_until_reached()
    partial = run.partial()
    gate.opened.set()
    with pytest.raises(SystemExit) as caught:
        run.result().get(timeout=FOREVER)
    assert caught.value is exit_code
    with pytest.raises(pykka.ActorDeadError) as dead:
        waiting.get(timeout=FOREVER)
    assert str(dead.value) == f"{ref} ended: SystemExit: 3"
    assert dead.value.__cause__ is exit_code
    assert list(partial.get(timeout=FOREVER).states) == ["leave"]
    assert ref.actor_stopped.wait(FOREVER)


async def test_a_call_that_begins_as_the_supervisor_ends_asks_it_nothing():
    asked = []

    async def ask():
        asked.append(1)

    desk = Desk(Supervisor(), Keeper().actor_ref, lambda: None)
    with trio.CancelScope() as scope:
        scope.cancel()
        await desk._perform(ask)
    assert scope.cancelled_caught
    assert asked == []


# The application's own thread


def test_an_interrupt_of_who_waits_leaves_an_orderly_shutdown():
    ref = SupervisorActor.start()
    main_thread = threading.get_ident()

    def interrupt(ctx):
        signal.pthread_kill(main_thread, signal.SIGINT)

    pipeline = endless.with_stage("interrupt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ref.proxy().run(pipeline, {"n": 1}).get(timeout=FOREVER)
    busy = Busy(ref)
    assert pykka.ActorRegistry.stop_all(timeout=FOREVER) == [True]
    busy.check(ref)


def test_an_interrupt_of_the_start_leaves_nothing(monkeypatch):
    open_it = Desk.open

    def open_and_interrupt(desk, *, daemon):
        open_it(desk, daemon=daemon)
        raise KeyboardInterrupt

    monkeypatch.setattr(Desk, "open", open_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        SupervisorActor.start()


def test_nor_does_one_while_it_opens():
    """Whoever is interrupted does not know how far the loop has come."""

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            raise KeyboardInterrupt

    class Mine(SupervisorActor):
        def __init__(self):
            super().__init__()
            self._desk._opened = Interrupted()

    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            Mine.start()


# Its inbox


def test_what_comes_after_the_last_look_into_an_inbox_is_answered():
    class Envelope:
        def __init__(self, reply_to):
            self.reply_to = reply_to

    early, late = pykka.ThreadingFuture(), pykka.ThreadingFuture()
    inbox = ClosingInbox()
    inbox.put(Envelope(early))
    inbox.put(Envelope(None))
    inbox.close()
    inbox.put(Envelope(late))
    for future in (early, late):
        with pytest.raises(pykka.ActorDeadError, match="the actor stopped before handling the message"):
            future.get(timeout=FOREVER)


class Leaving(SupervisorActor):
    """Raises what is no `Exception`, wherever it is asked to."""

    def boom(self):
        raise SystemExit(3)

    def on_receive(self, message):
        raise message


def test_a_handler_that_exits_is_answered_and_ends_its_own_actor_alone():
    ref, other = Leaving.start(), SupervisorActor.start()
    for ask in (lambda: ref.proxy().boom(), lambda: ref.ask(KeyboardInterrupt(), block=False)):
        future = ask() if ref.is_alive() else None
        if future is not None:
            with pytest.raises(pykka.ActorDeadError):
                future.get(timeout=FOREVER)
    assert ref.actor_stopped.wait(FOREVER)
    assert other.proxy().run(adding, {"n": 1}).get(timeout=FOREVER).ok
    other.stop()


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("no")])
def test_a_subclass_whose_on_stop_raises_has_stopped_all_the_same(error):
    class Broken(SupervisorActor):
        def on_stop(self):
            raise error

    ref = Broken.start()
    run = ref.proxy().start_run(endless, {"n": 1}).get(timeout=FOREVER)
    assert ref.stop(timeout=FOREVER) is True
    assert run.result().get(timeout=FOREVER).ended.ending is RunEnding.CANCELLED


def test_an_interrupt_while_it_starts_leaves_nothing(monkeypatch):
    real = threading.Thread.start

    def start(self):
        real(self)
        if self.name.startswith("SupervisorActor-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        SupervisorActor.start()
    assert pykka.ActorRegistry.get_all() == []


def test_a_finalizer_and_a_signal_handler_may_call_while_a_call_is_made(monkeypatch):
    """They interrupt whatever their thread is doing, so nothing that a call does may keep them waiting for it."""
    ref = SupervisorActor.start()
    proxy = ref.proxy()
    token = proxy._desk.loop._token
    real = type(token).run_sync_soon
    inner = []

    def interrupted(self, function, *args):
        real(self, function, *args)
        if not inner:
            inner.append(None)
            inner.append(proxy.run(adding, {"n": 2}))

    monkeypatch.setattr(type(token), "run_sync_soon", interrupted)
    assert proxy.run(adding, {"n": 1}).get(timeout=FOREVER).ok
    assert inner[1].get(timeout=FOREVER).ok
    monkeypatch.undo()
    ref.stop()
