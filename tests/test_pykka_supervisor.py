"""A supervisor as a pykka actor: what comes back through its proxy, and how."""

from __future__ import annotations

import contextvars
import logging
import queue
import subprocess
import sys
import threading
import traceback

import pykka
import pytest
import trio
from pykka_cases import FOREVER, Gate, Keeper, adding, endless, fail, failing, nothing_left

from stageflow_actors import (
    Intensity,
    OverloadedError,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    RunEnding,
    StageState,
)
from stageflow_actors.embed.pykka import PykkaResident, PykkaRun, SupervisorActor, SupervisorProxy, SupervisorRef
from stageflow_actors.errors import AskTimeoutError, UnknownActorError
from stageflow_actors.events import RunEnded, RunStopping, StageEmitted, StageEnded, StageStarted

__all__ = ["nothing_left"]

request_id = contextvars.ContextVar("request_id", default="none")


@pytest.fixture
def ref():
    ref = SupervisorActor.start()
    yield ref
    ref.stop(timeout=FOREVER)


@pytest.fixture
def proxy(ref):
    return ref.proxy()


@pytest.fixture
def keeper():
    ref = Keeper.start()
    yield ref
    ref.stop(timeout=FOREVER)


def hear(keeper):
    """What it has been told: asked after what was told before."""
    return keeper.proxy().kept.get(timeout=FOREVER)


# Runs


def test_a_run_gives_its_result(proxy):
    result = proxy.run(adding, {"n": 1}).get(timeout=FOREVER)
    assert result.data("add") == {"n": 2}
    assert result.ok


def test_it_is_in_the_registry_as_any_actor(ref):
    assert pykka.ActorRegistry.get_by_class(SupervisorActor) == [ref]
    assert isinstance(ref, SupervisorRef)
    assert isinstance(ref.proxy(), SupervisorProxy)
    assert str(ref) == f"SupervisorActor ({ref.actor_urn})"


def test_many_threads_run_at_once(proxy):
    results = []

    def work(number):
        results.append(proxy.run(adding, {"n": number}).get(timeout=FOREVER).data("add")["n"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(1, 21))


def test_futures_are_those_of_pykka(proxy):
    futures = [proxy.run(adding, {"n": number}) for number in range(3)]
    assert [result.data("add")["n"] for result in pykka.get_all(futures, timeout=FOREVER)] == [1, 2, 3]
    mapped = proxy.run(adding, {"n": 1}).map(lambda result: result.data("add")["n"])
    assert mapped.get(timeout=FOREVER) == 2


def test_the_timeout_of_get_ends_only_the_waiting(proxy):
    gate = Gate()
    future = proxy.run(Pipeline("p").with_stage("gate", gate.wait))
    gate.wait_until_reached()
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)
    gate.opened.set()
    assert future.get(timeout=FOREVER).ok


def test_the_timeout_of_a_run_gives_what_had_completed(proxy):
    result = proxy.run(endless, {"n": 1}, timeout=0.01).get(timeout=FOREVER)
    assert result.ended.ending is RunEnding.TIMED_OUT


def test_the_other_options_of_a_run_arrive(proxy):
    pipeline = endless.with_stage("bad", fail)
    result = proxy.run(pipeline, targets="add", overrides={"add": {"n": 5}}).get(timeout=FOREVER)
    assert (result.data("add"), list(result.states)) == ({"n": 5}, ["add"])
    result = proxy.run(failing, continue_on_failure=True, intensity=Intensity(1)).get(timeout=FOREVER)
    assert result.states == {"bad": StageState.FAILED}


def test_a_failure_keeps_its_type_its_cause_and_its_traceback(proxy):
    future = proxy.run(failing)
    with pytest.raises(PipelineFailedError) as caught:
        future.get(timeout=FOREVER)
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    error = caught.value.failures["bad"].error
    assert repr(error) == "OSError('disk full')"
    assert repr(error.__cause__) == "KeyError('sector')"
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["fail"]
    with pytest.raises(PipelineFailedError) as again:
        future.get()
    assert again.value is caught.value


def test_what_a_stage_exits_with_is_raised_where_the_run_is_awaited(proxy):
    exit_code = SystemExit(3)

    async def leave(ctx):
        raise exit_code

    with pytest.raises(SystemExit) as caught:
        proxy.run(Pipeline("p").with_stage("leave", leave)).get(timeout=FOREVER)
    assert caught.value is exit_code
    assert proxy.run(adding, {"n": 1}).get(timeout=FOREVER).ok


def test_what_cannot_be_run_is_raised_by_the_future(proxy):
    with pytest.raises(PipelineValidationError, match="other"):
        proxy.run(adding, {"n": 1}, targets="other").get(timeout=FOREVER)
    with pytest.raises(TypeError, match="other"):
        proxy.run(adding, other=1).get(timeout=FOREVER)


def test_context_variables_cross_into_every_kind_of_stage(proxy):
    async def look(ctx):
        return {"id": request_id.get()}

    def look_in_thread(ctx):
        return {"id": request_id.get()}

    pipeline = Pipeline("p").with_stage("a", look).with_stage("b", look_in_thread)
    request_id.set("r-1")
    try:
        one, other = proxy.run(pipeline), proxy.start_run(pipeline)
    finally:
        request_id.set("none")
    for result in (one.get(timeout=FOREVER), other.get(timeout=FOREVER).result().get(timeout=FOREVER)):
        assert (result.data("a"), result.data("b")) == ({"id": "r-1"}, {"id": "r-1"})


def test_an_async_stage_cannot_wait_for_its_own_supervisor(proxy):
    async def ask(ctx):
        return {"n": proxy.run(adding, {"n": 1}).get().data("add")["n"]}

    with pytest.raises(PipelineFailedError) as caught:
        proxy.run(Pipeline("p").with_stage("ask", ask)).get(timeout=FOREVER)
    assert str(caught.value.failures["ask"].error) == (
        "an async stage cannot wait for a future that its own supervisor sets: it would wait for ever; "
        "await supervisor.run(...) of a supervisor of its own, or wait in a plain `def` stage"
    )


def test_a_plain_stage_can(proxy):
    def ask(ctx):
        return {"n": proxy.run(adding, {"n": 1}).get(timeout=FOREVER).data("add")["n"]}

    result = proxy.run(Pipeline("p").with_stage("ask", ask)).get(timeout=FOREVER)
    assert result.data("ask") == {"n": 2}


# Handles


def test_a_started_run_is_watched_and_cancelled(proxy):
    run = proxy.start_run(endless, {"n": 1}).get(timeout=FOREVER)
    assert isinstance(run, PykkaRun)
    assert run.pipeline == "endless"
    assert repr(run) == f"<PykkaRun of 'endless', run {run.run_id}>"
    while run.statistics().get(timeout=FOREVER).ok < 1:
        pass
    assert list(run.partial().get(timeout=FOREVER)) == ["add"]
    run.cancel("enough")
    result = run.result().get(timeout=FOREVER)
    assert str(result.ended) == "cancelled: enough"
    assert run.result() is run.result()
    run.cancel("again")
    assert run.partial().get(timeout=FOREVER) is result
    assert run.statistics().get(timeout=FOREVER).cancelled == 1


def test_a_started_run_that_fails_says_so_in_its_result(proxy):
    run = proxy.start_run(failing).get(timeout=FOREVER)
    with pytest.raises(PipelineFailedError):
        run.result().get(timeout=FOREVER)
    assert run.partial().get(timeout=FOREVER).states == {"bad": StageState.FAILED}


def test_what_is_not_admitted_is_raised_instead_of_a_handle():
    ref = SupervisorActor.start(max_runs=1, overflow="reject")
    proxy = ref.proxy()
    run = proxy.start_run(endless, {"n": 1}).get(timeout=FOREVER)
    with pytest.raises(OverloadedError):
        proxy.start_run(adding, {"n": 1}).get(timeout=FOREVER)
    with pytest.raises(OverloadedError):
        proxy.run(adding, {"n": 1}).get(timeout=FOREVER)
    run.cancel()
    run.result().get(timeout=FOREVER)
    with pytest.raises(PipelineValidationError, match="timeout must be a positive number of seconds, not -1"):
        proxy.start_run(adding, {"n": 1}, timeout=-1).get(timeout=FOREVER)
    ref.stop(timeout=FOREVER)


# Events


@pytest.mark.parametrize("method", ["run", "start_run"])
def test_another_actor_hears_all_events_in_order_and_before_the_result(method, proxy, keeper):
    async def emit(ctx):
        for number in range(1000):
            ctx.emit(number)

    pipeline = Pipeline("p").with_stage("emit", emit)
    future = getattr(proxy, method)(pipeline, events_to=keeper)
    if method == "start_run":
        future = future.get(timeout=FOREVER).result()
    result = future.get(timeout=FOREVER)
    events = hear(keeper)
    assert [type(event) for event in events] == [StageStarted, *[StageEmitted] * 1000, StageEnded, RunEnded]
    assert [event.event for event in events[1:-2]] == list(range(1000))
    assert {event.run_id for event in events} == {result.run_id}


def test_the_events_of_a_failing_run_come_before_its_error(proxy, keeper):
    with pytest.raises(PipelineFailedError):
        proxy.run(failing, events_to=keeper).get(timeout=FOREVER)
    assert [type(event) for event in hear(keeper)][-2:] == [RunStopping, RunEnded]


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    return caplog


def tell_of(log):
    return [record.getMessage() for record in log.records if "were not told" in record.getMessage()]


def test_a_slow_consumer_loses_what_does_not_fit_and_holds_nobody_up(proxy, log):
    gate = Gate()

    class Slow(Keeper):
        def on_receive(self, message):
            gate.wait()
            super().on_receive(message)

    slow = Slow.start()
    slow.tell("first")
    gate.wait_until_reached()  # its inbox is empty now, and stays as full as it gets

    async def emit(ctx):
        for number in range(100):
            ctx.emit(number)

    result = proxy.run(Pipeline("p").with_stage("emit", emit), events_to=slow, max_queued=10).get(timeout=FOREVER)
    assert result.ok
    gate.opened.set()
    kept = hear(slow)
    assert kept[0] == "first"
    assert [type(event) for event in kept[1:]] == [StageStarted, *[StageEmitted] * 9]
    assert tell_of(log) == [f"pipeline 'p', run {result.run_id}: 93 events were not told to {slow}: it was slow"]
    slow.stop()


def test_a_consumer_that_is_gone_disturbs_nobody(proxy, log):
    gone = Keeper.start()
    gone.stop()
    result = proxy.run(adding, {"n": 1}, events_to=gone).get(timeout=FOREVER)
    assert result.ok
    assert tell_of(log) == [f"pipeline 'adding', run {result.run_id}: 3 events were not told to {gone}: it has stopped"]


def test_neither_does_one_that_dies_in_the_middle(proxy, log):
    died = threading.Event()

    class Mortal(pykka.ThreadingActor):
        def on_receive(self, message):
            raise ValueError("no more")

        def on_failure(self, *_):
            died.set()

    mortal = Mortal.start()
    gate = Gate()
    pipeline = Pipeline("p").with_stage("gate", gate.wait)
    future = proxy.run(pipeline, events_to=mortal)
    assert died.wait(FOREVER)
    mortal.actor_stopped.wait(FOREVER)
    gate.opened.set()
    result = future.get(timeout=FOREVER)
    assert result.ok
    assert tell_of(log) == [f"pipeline 'p', run {result.run_id}: 2 events were not told to {mortal}: it has stopped"]


def test_a_consumer_whose_inbox_cannot_be_counted_is_told_everything(proxy):
    class Plain:
        def __init__(self):
            self.messages = []

        def put(self, envelope):
            self.messages.append(envelope.message)

    keeper = Keeper.start()
    inbox, keeper.actor_inbox = keeper.actor_inbox, Plain()
    proxy.run(adding, {"n": 1}, events_to=keeper, max_queued=1).get(timeout=FOREVER)
    assert [type(event) for event in keeper.actor_inbox.messages] == [StageStarted, StageEnded, RunEnded]
    keeper.actor_inbox = inbox
    keeper.stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"events_to": 3}, "events_to must be the reference to a pykka actor, not 3; pass what its start() returned"),
        ({"max_queued": 0}, "max_queued must be a whole number of at least 1, not 0"),
    ],
)
def test_events_that_cannot_be_told_are_refused_before_the_run(options, told, proxy, keeper):
    for method in (proxy.run, proxy.start_run):
        with pytest.raises(PipelineValidationError) as caught:
            method(adding, {"n": 1}, **{"events_to": keeper, **options}).get(timeout=FOREVER)
        assert str(caught.value) == told
    assert hear(keeper) == []


# Resident actors


def test_a_resident_actor_is_asked_told_and_stopped(proxy):
    class Total:
        def __init__(self):
            self.total = 0

        async def execute(self, ctx):
            self.total += ctx.snapshot.data.get("n", 0)
            return {"total": self.total}

    total = proxy.spawn(Total, name="total", policy="transient").get(timeout=FOREVER)
    assert isinstance(total, PykkaResident)
    assert (total.name, repr(total)) == ("total", "<PykkaResident 'total'>")
    assert total.tell({"n": 1}).get(timeout=FOREVER) is None
    assert proxy.actor("total").get(timeout=FOREVER).ask({"n": 2}).get(timeout=FOREVER).data == {"total": 3}
    pipeline = Pipeline("p").with_stage("total", total.ref)
    assert proxy.run(pipeline, {"n": 4}).get(timeout=FOREVER).data("total") == {"total": 7}
    total.stop().get(timeout=FOREVER)
    with pytest.raises(UnknownActorError):
        proxy.actor("total").get(timeout=FOREVER)


def test_an_ask_keeps_its_own_time(proxy):
    class Slow:
        async def execute(self, ctx):
            await trio.sleep_forever()

    slow = proxy.spawn(Slow, name="slow", shutdown=0.01).get(timeout=FOREVER)
    with pytest.raises(AskTimeoutError):
        slow.ask(timeout=0.01).get(timeout=FOREVER)


# The actor itself


def test_an_unknown_message_is_as_unknown_as_to_any_pykka_actor(ref, caplog):
    caplog.set_level(logging.WARNING, logger="pykka")
    assert ref.ask("what?", timeout=FOREVER) is None
    ref.tell("what?")
    assert ref.proxy().run(adding, {"n": 1}).get(timeout=FOREVER).ok
    told = [record.getMessage() for record in caplog.records if record.name == "pykka"]
    assert told[0] == f"Unexpected message received by {ref}: what?"


def test_a_subclass_has_methods_and_hooks_of_its_own():
    seen = []

    class Mine(SupervisorActor):
        def on_start(self):
            seen.append("started")

        def double(self, number):
            return 2 * number

        def on_stop(self):
            super().on_stop()
            seen.append("stopped")

    ref = Mine.start(max_runs=3)
    assert ref.proxy().double(4).get(timeout=FOREVER) == 8
    assert ref.proxy().run(adding, {"n": 1}).get(timeout=FOREVER).ok
    ref.stop(timeout=FOREVER)
    assert seen == ["started", "stopped"]


@pytest.mark.parametrize("daemon", [False, True])
def test_both_threads_are_daemons_or_neither(daemon):
    class Mine(SupervisorActor):
        use_daemon_thread = daemon

    before = set(threading.enumerate())
    ref = Mine.start()
    assert [thread.daemon for thread in set(threading.enumerate()) - before] == [daemon, daemon]
    ref.stop(timeout=FOREVER)


def test_without_pykka_the_extra_is_named():
    program = """
import sys
sys.modules["pykka"] = None
try:
    import stageflow_actors.embed.pykka
except ImportError as error:
    print(type(error).__name__, error.extra, error, sep="|")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == (
        "MissingExtraError|pykka|the bridge to pykka needs pykka; install it: pip install 'stageflow-actors[pykka]'\n"
    )


def test_names_are_shown_as_they_are_imported():
    assert repr(SupervisorActor) == "<class 'stageflow_actors.embed.pykka.SupervisorActor'>"


def test_a_consumer_whose_inbox_is_full_keeps_nobody_waiting(proxy):
    class Narrow(pykka.ThreadingActor):
        @staticmethod
        def _create_actor_inbox():
            return queue.Queue(maxsize=1)

        def on_receive(self, event):
            gate.wait()

    gate = Gate()
    consumer = Narrow.start()
    assert proxy.run(adding, {"n": 1}, events_to=consumer).get(timeout=FOREVER).ok
    gate.opened.set()
    consumer.stop()
