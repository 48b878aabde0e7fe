"""The traps that pykka lays for a bridge: each as pykka has it today, and beside it how the bridge is not caught.

A test of the first kind that fails after an upgrade of pykka is news: what the bridge does about it may be needed no
more.
"""

from __future__ import annotations

import threading
from functools import partial

import pykka
import pytest
import trio
import trio.testing
from pykka_cases import FOREVER, Gate, adding, exits, join_new_threads, list_threads, nothing_left

from stageflow_actors import Pipeline, PipelineFailedError, Supervisor, parallel_stages
from stageflow_actors.embed.pykka import SupervisorActor, pykka_stage
from stageflow_actors.errors import ActorDeadError

__all__ = ["exits", "nothing_left"]


class Obedient(pykka.ThreadingActor):
    """Calls what it is sent."""

    def on_receive(self, message):
        return message()


def call(function):
    """A stage that calls a function in the thread of a pykka actor."""
    return pykka_stage(Obedient, handle=lambda _actor, _ctx: function())


async def run(stage):
    async with Supervisor() as supervisor:
        return await supervisor.run(Pipeline("p").with_stage("a", stage))


def make_cancelled():
    """A `trio.Cancelled`, which only trio can make."""
    made = []

    async def main():
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                made.append(error)
                raise

    trio.run(main)
    return made[0]


def raising(error):
    def handle():
        raise error

    return handle


# A handler that raises what is no Exception


@pytest.mark.parametrize("make", [KeyboardInterrupt, make_cancelled])
def test_pykka_leaves_its_asker_without_an_answer_and_stops_all_actors(make):
    before = list_threads()
    bystander, asked = Obedient.start(), Obedient.start()
    future = asked.ask(raising(make()), block=False)
    join_new_threads(before)
    assert not bystander.is_alive()
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)


@pytest.mark.parametrize(
    ("make", "told"),
    [(KeyboardInterrupt, "KeyboardInterrupt"), (make_cancelled, "StrayCancelledError")],
)
def test_the_bridge_answers_and_stops_nobody(make, told):
    bystander, error = Obedient.start(), make()
    with pytest.raises((KeyboardInterrupt, PipelineFailedError)) as caught:
        trio.run(run, call(raising(error)))
    raised = caught.value
    assert type(raised.failures["a"].error if told == "StrayCancelledError" else raised).__name__ == told
    assert bystander.is_alive()
    bystander.stop()


# A hook that fails at the start


class Exits(Obedient):
    def on_start(self):
        raise SystemExit(3)


class Fails(Obedient):
    def __init__(self, hooks):
        super().__init__()
        self.hooks = hooks

    def on_start(self):
        raise ValueError("no")

    def on_stop(self):
        self.hooks.append("on_stop")

    def on_failure(self, *_):
        self.hooks.append("on_failure")


@pytest.mark.usefixtures("exits")
def test_pykka_says_that_an_actor_is_alive_that_has_exited():
    before = list_threads()
    ref = Exits.start()
    join_new_threads(before)
    assert ref.is_alive()
    assert pykka.ActorRegistry.get_all() == [ref]
    with pytest.raises(pykka.Timeout):
        ref.ask(dict, block=False).get(timeout=0)
    pykka.ActorRegistry.unregister(ref)


def test_the_bridge_raises_what_it_exited_with_and_leaves_no_actor():
    with pytest.raises(SystemExit) as caught:
        trio.run(run, pykka_stage(Exits, handle=lambda *_: None))
    assert caught.value.code == 3
    assert pykka.ActorRegistry.get_all() == []


def test_pykka_calls_no_hook_where_on_start_fails():
    before = list_threads()
    hooks = []
    Fails.start(hooks)
    join_new_threads(before)
    assert hooks == []


@pytest.mark.usefixtures("exits")
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_the_bridge_needs_none(error):
    class Mine(SupervisorActor):
        def on_start(self):
            raise error

    before = list_threads()
    ref = Mine.start()
    join_new_threads(before)  # also the supervisor's
    assert not ref.is_alive()
    assert pykka.ActorRegistry.get_all() == []


# A message over which an actor fails


def test_pykka_lets_an_actor_live_after_a_failed_ask_and_die_of_a_failed_tell():
    before = list_threads()
    ref = Obedient.start()
    with pytest.raises(ValueError, match="no"):
        ref.ask(raising(ValueError("no")), timeout=FOREVER)
    assert ref.is_alive()
    ref.tell(raising(ValueError("no")))
    join_new_threads(before)
    assert not ref.is_alive()


async def test_with_the_bridge_its_policy_decides_about_both():
    async with Supervisor() as supervisor:
        actor = await supervisor.spawn(call(raising(ValueError("no"))), name="a")
        with pytest.raises(ValueError, match="no"):
            await actor.ask()
        await actor.tell()
        with pytest.raises(ValueError, match="no"):
            await actor.ask()
        assert actor.statistics().restarts >= 2


# An ask that races a stop


def ask_while_it_stops(actor_class):
    """Ask an actor that ends after pykka has seen that it is alive; return the future."""
    before = list_threads()
    ref = actor_class.start()

    def is_alive():
        del ref.is_alive
        assert ref.stop(timeout=FOREVER)
        join_new_threads(before)
        return True

    ref.is_alive = is_alive
    return ref.ask("anything", block=False)


def test_pykka_leaves_the_future_of_an_ask_that_races_a_stop_unset():
    future = ask_while_it_stops(Obedient)
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)


def test_the_bridge_sets_it():
    future = ask_while_it_stops(SupervisorActor)
    with pytest.raises(pykka.ActorDeadError, match="the actor stopped before handling the message"):
        future.get(timeout=FOREVER)


# A reply that cannot be set


class Stubborn(pykka.ThreadingFuture):
    def set(self, value=None):
        raise trio.RunFinishedError

    def set_exception(self, exc_info=None):
        raise trio.RunFinishedError


class Replying(Obedient):
    _create_future = staticmethod(Stubborn)


@pytest.mark.usefixtures("exits")
def test_pykka_leaves_a_zombie_where_a_reply_cannot_be_set():
    before = list_threads()
    ref = Replying.start()
    ref.ask(dict, block=False)
    join_new_threads(before)
    assert ref.is_alive()
    pykka.ActorRegistry.unregister(ref)


@pytest.mark.usefixtures("exits")
async def test_the_bridge_notices_and_restarts_it():
    async with Supervisor() as supervisor:
        actor = await supervisor.spawn(pykka_stage(Replying, handle=lambda *_: {"up": True}), name="a")
        (ref,) = pykka.ActorRegistry.get_by_class(Replying)
        async with supervisor.events() as events:
            ref.ask(dict, block=False)
            assert isinstance((await anext(events)).error, ActorDeadError)
        assert (await actor.ask()).data == {"up": True}


def test_a_reply_of_the_bridge_for_which_it_is_too_late_ends_no_actor():
    """The loop has ended when the handler of an abandoned actor returns: the actor still stops as it should."""
    gate, stopped = Gate(), threading.Event()

    class Late(Obedient):
        def on_stop(self):
            stopped.set()

    async def main():
        async with Supervisor() as supervisor:
            pipeline = Pipeline("p").with_stage("a", pykka_stage(Late, handle=gate.wait, shutdown=0.01))
            run = supervisor.start(pipeline, continue_on_failure=True)
            await trio.to_thread.run_sync(gate.wait_until_reached)
            run.cancel()
            await run.result()

    trio.run(main)
    gate.opened.set()
    assert stopped.wait(FOREVER)


# An actor that needs the loop that waits for it


def call_back(token):
    async def answer():
        return {"answer": 42}

    return trio.from_thread.run(answer, trio_token=token)


async def test_pykka_blocks_the_loop_that_its_actor_calls_back_into():
    ref = Obedient.start()
    handler = partial(call_back, trio.lowlevel.current_trio_token())
    future = ref.ask(handler, block=False)
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.05)  # it could wait for ever: nobody else runs the loop
    assert await trio.to_thread.run_sync(partial(future.get, timeout=FOREVER)) == {"answer": 42}
    ref.stop()


async def test_the_bridge_waits_without_blocking():
    result = await run(call(partial(call_back, trio.lowlevel.current_trio_token())))
    assert result.data("a") == {"answer": 42}


def test_the_bridge_refuses_to_block_its_own_loop():
    ref = SupervisorActor.start()
    seen = []

    async def ask(ctx):
        with pytest.raises(RuntimeError, match="an async stage cannot wait for a future that its own supervisor sets"):
            ref.proxy().run(adding, {"n": 1}).get()
        seen.append("refused")

    assert ref.proxy().run(Pipeline("p").with_stage("ask", ask)).get(timeout=FOREVER).ok
    assert seen == ["refused"]
    ref.stop()


# Many asks that wait at once


async def test_threads_that_wait_for_pykka_starve_everybody_else():
    limiter = trio.to_thread.current_default_thread_limiter()
    gate = Gate()
    ref = Obedient.start()
    async with trio.open_nursery() as nursery:
        for _ in range(int(limiter.total_tokens) + 1):
            nursery.start_soon(trio.to_thread.run_sync, partial(ref.ask, gate.wait, timeout=FOREVER))
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.statistics().tasks_waiting == 1
        gate.opened.set()
    ref.stop()


async def test_the_bridge_holds_no_thread_while_it_waits():
    limiter = trio.to_thread.current_default_thread_limiter()
    count = int(limiter.total_tokens) + 5
    all_there = threading.Barrier(count)
    borrowed = []

    def meet():
        all_there.wait(FOREVER)
        borrowed.append(limiter.borrowed_tokens)

    stages = parallel_stages("w{key}", call(meet), range(count))
    async with Supervisor(max_threads=1) as supervisor:
        result = await supervisor.run(Pipeline("p").with_stages(stages))
    assert result.ok
    assert borrowed == [0] * count
