"""Pykka actors as resident actors: restarted, bounded, accounted for, and missed when somebody else stops them."""

from __future__ import annotations

import gc
import logging
import sqlite3
import weakref
from functools import partial

import pykka
import pytest
import trio
import trio.testing
from pykka_cases import Echo, Gate, Library, exits, nothing_left

from stageflow_actors import Directive, Intensity, Pipeline, PipelineFailedError, Restart, Supervisor
from stageflow_actors.embed.pykka import pykka_stage
from stageflow_actors.errors import (
    ActorDeadError,
    ActorStartError,
    ActorUnavailableError,
    AskTimeoutError,
)

__all__ = ["exits", "nothing_left"]


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=Intensity(100)) as supervisor:
        yield supervisor


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


async def test_it_keeps_no_message_while_it_waits_for_the_next(supervisor):
    class Load:
        """Something that is heavy to keep."""

    load = Load()
    seen = weakref.ref(load)
    echo = await supervisor.spawn(pykka_stage(Echo, handle=lambda *_: None), name="echo")
    await echo.ask({"load": load})
    await trio.testing.wait_all_tasks_blocked()
    del load
    gc.collect()
    assert seen() is None


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

    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError) as caught:
            await supervisor.run(Pipeline("p").with_stage("a", pykka_stage(Leaving)))
    error = caught.value.failures["a"].error
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
