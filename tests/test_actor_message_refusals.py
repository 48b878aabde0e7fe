"""What cannot be sent, awaited, looked up or made a stage, with the exact message of each refusal."""

from __future__ import annotations

import math
from functools import partial

import pytest
from refusals import refusal

from stageflow_actors import (
    ActorRef,
    AskTimeoutError,
    ContextSnapshot,
    Mailbox,
    Pipeline,
    PipelineValidationError,
    Restart,
    Supervisor,
)
from stageflow_actors.errors import ActorDeadError, NotFreezableError, UnknownActorError

NO_COUNTS = [0, -1, True, 1.0, "2", None]


async def work(_ctx):
    return None


@pytest.fixture
async def supervisor():
    async with Supervisor() as supervisor:
        yield supervisor


# Messages


@pytest.mark.parametrize("send", ["ask", "tell", "tell_nowait"])
@pytest.mark.parametrize("bad", [5, "text", [("a", 1)], object, b"x"])
async def test_what_is_no_snapshot(supervisor, send, bad):
    ref = await supervisor.spawn(work, name="a")
    with pytest.raises(PipelineValidationError) as caught:
        made = getattr(ref, send)(bad)
        if made is not None:
            await made
    assert str(caught.value) == f"snapshot must be a ContextSnapshot or a mapping, not {bad!r}"
    assert ref.statistics().ledger.accepted == 0


@pytest.mark.parametrize("send", ["ask", "tell", "tell_nowait"])
async def test_what_cannot_be_frozen_is_not_sent(supervisor, send):
    ref = await supervisor.spawn(work, name="a")
    rows = []
    rows.append(rows)
    with pytest.raises(NotFreezableError, match="data"):
        made = getattr(ref, send)({"rows": rows})
        if made is not None:
            await made
    assert ref.statistics().ledger.accepted == 0


@pytest.mark.parametrize("bad", [0, -1, 0.0, math.nan, math.inf, -math.inf, True, "5", [1], 1e15, 10**400])
async def test_what_is_no_timeout(supervisor, bad):
    ref = await supervisor.spawn(work, name="a")
    hint = "; leave it out for no limit" if isinstance(bad, (int, float)) and bad >= 1e15 else ""
    assert await refusal(ref.ask, timeout=bad) == f"timeout must be a positive number of seconds, not {bad!r}{hint}"
    assert ref.statistics().ledger.accepted == 0


@pytest.mark.parametrize("good", [1, 0.5, 10**14, 5e-324, None])
async def test_what_is_a_timeout(supervisor, good):
    ref = await supervisor.spawn(work, name="a")
    try:
        await ref.ask(timeout=good)
    except AskTimeoutError:
        assert good == 5e-324


async def test_a_timeout_has_a_name(supervisor):
    ref = await supervisor.spawn(work, name="a")
    with pytest.raises(TypeError, match="positional argument"):
        await ref.ask({}, 5)


# An actor and itself


async def ask_itself(ctx):
    await ctx.snapshot.extensions.ask()


async def execute_itself(ctx):
    await ctx.snapshot.extensions.execute(ctx)


async def fill_its_own_mailbox(ctx):
    for _ in range(2):
        await ctx.snapshot.extensions.tell()


async def stop_itself(ctx):
    await ctx.snapshot.extensions.stop()


async def wait_for_its_end(ctx):
    await ctx.snapshot.extensions.wait_stopped()


async def restart_itself(ctx):
    await ctx.snapshot.extensions.restart()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (ask_itself, "ask itself: it would wait for ever"),
        (execute_itself, "ask itself: it would wait for ever"),
        (fill_its_own_mailbox, "wait for room in its own mailbox: nobody else makes any"),
        (stop_itself, "wait for its own end: call ctx.stop()"),
        (wait_for_its_end, "wait for its own end: call ctx.stop()"),
        (restart_itself, "wait for its own restart: call ctx.stop(), with policy='permanent'"),
    ],
)
async def test_an_actor_that_would_wait_for_itself(supervisor, handler, message):
    ref = await supervisor.spawn(handler, name="a", mailbox=Mailbox(1))
    with pytest.raises(RuntimeError) as caught:
        await ref.ask(ContextSnapshot(extensions=ref))
    assert str(caught.value) == f"actor 'a' cannot {message}"
    ledger = ref.statistics().ledger
    assert ledger.rejected == ledger.no_recipient == 0


# Out of place


async def test_before_it_is_opened_and_after_it_was_left():
    supervisor = Supervisor()
    for told in ("is not open", "has been left"):
        for call, what in (
            (partial(supervisor.spawn, work, name="a"), "spawn actors"),
            (partial(supervisor.spawn_supervisor, Supervisor(), name="a"), "spawn supervisors"),
        ):
            with pytest.raises(RuntimeError) as caught:
                await call()
            assert str(caught.value) == (
                f"the supervisor {told}; {what} inside `async with Supervisor() as supervisor:`"
            )
        for listen in (supervisor.events, supervisor.dead_letters):
            with pytest.raises(RuntimeError, match=f"the supervisor {told}; listen to it inside"):
                listen()
        if told == "is not open":
            async with supervisor:
                pass


@pytest.mark.parametrize("bad", NO_COUNTS)
async def test_a_stream_of_nothing(supervisor, bad):
    for listen in (supervisor.events, supervisor.dead_letters):
        with pytest.raises(PipelineValidationError) as caught:
            listen(max_queued=bad)
        assert str(caught.value) == f"max_queued must be a whole number of at least 1, not {bad!r}"


@pytest.mark.parametrize("bad", ["", None, 5, ["a"]])
async def test_an_actor_is_looked_up_by_its_name(supervisor, bad):
    with pytest.raises(PipelineValidationError) as caught:
        supervisor.actor(bad)
    assert str(caught.value) == f"the name of an actor must be a non-empty string, not {bad!r}"


async def test_actors_that_are_not_there(supervisor):
    def look_up(name):
        with pytest.raises(UnknownActorError) as caught:
            supervisor.actor(name)
        return str(caught.value)

    await supervisor.spawn(work, name="parser")
    child = await supervisor.spawn_supervisor(Supervisor(), name="ingest")
    await child.spawn(work, name="loader")
    assert look_up("prser") == "there is no resident actor 'prser'; did you mean 'parser'?"
    assert look_up("zzz") == "there is no resident actor 'zzz'; the supervisor has 'parser', 'ingest'"
    assert look_up("parser/x").startswith("there is no resident actor 'parser/x'")
    assert look_up("ingest") == (
        "there is no resident actor 'ingest'; 'ingest' is a supervisor; name one of its actors, ingest/..."
    )
    assert look_up("ingest/zzz").startswith("there is no resident actor 'ingest/zzz'")
    assert supervisor.actor("ingest/loader") == child.actor("loader")
    assert isinstance(supervisor.actor("ingest/loader"), ActorRef)


async def test_nobody_makes_references():
    with pytest.raises(TypeError):
        ActorRef()


# As a stage


async def test_a_stage_that_is_an_actor_has_no_restart_of_its_own(supervisor):
    ref = await supervisor.spawn(work, name="a")
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("x", ref, restart=Restart())
    assert str(caught.value) == (
        "pipeline 'p', stage 'x': a stage that is a resident actor has no restart of its own; "
        "its supervisor restarts the actor; give the policy to spawn, with max_deliveries for the message"
    )


async def test_a_stage_whose_actor_lives_elsewhere_or_has_ended(supervisor):
    child = await supervisor.spawn_supervisor(Supervisor(), name="child")
    inner = await child.spawn(work, name="inner")
    outer = await supervisor.spawn(work, name="outer")
    pipeline = Pipeline("p").with_stage("x", inner)
    elsewhere = (
        "pipeline 'p', stage 'x': its actor 'child/inner' lives in another supervisor; "
        "run the pipeline there, or in a supervisor below"
    )
    assert await refusal(supervisor.run, pipeline) == elsewhere
    assert await refusal(pipeline.run) == elsewhere
    with pytest.raises(PipelineValidationError, match="lives in another supervisor"):
        supervisor.start(pipeline)
    assert (await child.run(pipeline)).ok
    assert (await child.run(Pipeline("p").with_stage("x", outer))).ok
    await inner.stop()
    assert await refusal(child.run, pipeline) == (
        "pipeline 'p', stage 'x': its actor 'child/inner' has ended; spawn it again"
    )
    with pytest.raises(ActorDeadError, match="the message was not handled"):
        await inner.ask()
