"""Resident actors as stages of runs: what they see, how they fail, and what becomes of a run that ends before them."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from actors_as_stages import OFTEN, CrashError, obey, source

from stageflow_actors import (
    ContextSnapshot,
    Mailbox,
    Pipeline,
    PipelineFailedError,
    RunEnding,
    StageKind,
    StageOutput,
    StageState,
    StageTimeoutError,
    Supervisor,
    route,
)
from stageflow_actors.errors import (
    ActorDeadError,
    ActorUnavailableError,
    MailboxFullError,
    StageFailedError,
    UndeclaredDependencyError,
)
from stageflow_actors.events import ActorEmitted, StageEmitted
from stageflow_actors.statistics import ActorLedger

OK, FAILED, SKIPPED = StageState.OK, StageState.FAILED, StageState.SKIPPED
CANCELLED, ISOLATED = StageState.CANCELLED, StageState.ISOLATED


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=OFTEN) as supervisor:
        yield supervisor


# What it sees


async def test_it_sees_what_any_stage_would(supervisor):
    seen = {}

    async def work(ctx):
        seen.update(
            name=ctx.stage_name,
            rows=ctx.inputs.require_from("source", "rows"),
            inputs=list(ctx.inputs),
            state=ctx.inputs.state("source"),
            config=ctx.config,
            attempt=ctx.attempt,
            key=ctx.idempotency_key,
            run_id=ctx.snapshot.run_id,
            data=ctx.snapshot.data,
        )
        with pytest.raises(UndeclaredDependencyError):
            ctx.inputs.output("other")
        return {"total": sum(seen["rows"])}

    ref = await supervisor.spawn(work, name="adder")
    pipeline = Pipeline("p").with_stage("source", source).with_stage("other", source)
    pipeline = pipeline.with_stage("sum", ref, dependencies="source", config={"unit": "m"})
    result = await supervisor.run(pipeline, ContextSnapshot(data={"x": 1}))
    assert result.data("sum") == {"total": 6}
    assert seen == {
        "name": "sum",
        "rows": (1, 2, 3),
        "inputs": ["source"],
        "state": OK,
        "config": {"unit": "m"},
        "attempt": 1,
        "key": f"{result.run_id}/sum/1",
        "run_id": result.run_id,
        "data": {"x": 1},
    }
    assert supervisor.ledger == ActorLedger(accepted=1, replied=1)


async def test_asked_by_hand_it_has_no_inputs_and_no_configuration(supervisor):
    async def work(ctx):
        return {"inputs": len(ctx.inputs), "config": dict(ctx.config), "name": ctx.stage_name}

    ref = await supervisor.spawn(work, name="a")
    assert (await ref.ask()).data == {"inputs": 0, "config": {}, "name": "a"}


async def test_one_actor_serves_many_stages_and_runs(supervisor, autojump_clock):
    class Count:
        kind = StageKind.ENRICH

        def __init__(self):
            self.seen = 0

        async def execute(self, _ctx):
            self.seen += 1
            return {"seen": self.seen}

    ref = await supervisor.spawn(Count, name="count")
    pipeline = Pipeline("p").with_stage("a", ref).with_stage("b", ref, dependencies="a")
    assert {spec.kind for spec in pipeline.stages} == {StageKind.ENRICH}
    results = [await supervisor.run(pipeline) for _ in range(2)]
    await ref.ask()
    assert [result.data(name)["seen"] for result in results for name in "ab"] == [1, 2, 3, 4]
    assert supervisor.ledger.replied == 5


async def test_stages_wait_in_line_for_their_actor(supervisor, autojump_clock):
    """However long it takes: a stage has a timeout where it is given one."""
    ref = await supervisor.spawn(obey, name="a", mailbox=Mailbox(1))
    pipeline = Pipeline("p")
    for number in range(10):
        pipeline = pipeline.with_stage(f"s{number}", ref)
    result = await supervisor.run(pipeline, {"takes": 100})
    assert result.ok
    assert trio.current_time() == 1_000


async def test_what_it_emits_is_heard_by_whoever_listens_to_the_run(supervisor):
    contexts = []

    async def work(ctx):
        contexts.append(ctx)
        ctx.emit({"half": 0.5})

    ref = await supervisor.spawn(work, name="a")
    listener = supervisor.events()
    run = supervisor.start(Pipeline("p").with_stage("x", ref))
    async with run.events() as events:
        emitted = [event async for event in events if isinstance(event, StageEmitted)]
    await run.result()
    assert [(event.stage, event.attempt, event.event) for event in emitted] == [("x", 1, {"half": 0.5})]
    contexts[0].emit({"too": "late"})  # nothing happens
    contexts[0].stop()
    assert (await ref.ask()).data == {}
    told = await anext(listener)
    assert isinstance(told, ActorEmitted)
    assert (told.actor, told.event) == ("a", {"half": 0.5})


# How it ends


@pytest.mark.parametrize(
    ("returned", "state", "ending"),
    [
        ({"x": 1}, OK, RunEnding.COMPLETED),
        (None, OK, RunEnding.COMPLETED),
        (StageOutput.skip("no"), SKIPPED, RunEnding.COMPLETED),
        (StageOutput.fail("no"), FAILED, RunEnding.COMPLETED),
        (StageOutput.retry("no"), FAILED, RunEnding.COMPLETED),
        (StageOutput.cancel("no"), CANCELLED, RunEnding.CANCELLED),
    ],
)
async def test_what_it_returns_means_what_it_does_of_any_stage(supervisor, returned, state, ending):
    async def work(_ctx):
        return returned

    ref = await supervisor.spawn(work, name="a", policy="temporary")
    pipeline = Pipeline("p").with_stage("x", ref).with_stage("y", source, dependencies="x")
    result = await supervisor.run(pipeline, continue_on_failure=True)
    assert result.states["x"] is state
    assert result.ended.ending is ending
    if state is FAILED:
        assert isinstance(result.failures["x"].error, StageFailedError)
    assert supervisor.ledger == ActorLedger(accepted=1, replied=1)
    assert ref.statistics().restarts == 0


async def test_a_router(supervisor):
    async def choose(_ctx):
        return StageOutput.route("left")

    ref = await supervisor.spawn(choose, name="router")
    pipeline = Pipeline("p").with_stage("r", ref)
    for label in ("left", "right"):
        pipeline = pipeline.with_stage(label, source, dependencies="r", when=route("r", label))
    result = await supervisor.run(pipeline)
    assert (result.states["left"], result.states["right"]) == (OK, SKIPPED)


async def test_its_crash_fails_the_stage_and_the_actor_lives_on(supervisor):
    ref = await supervisor.spawn(obey, name="a")
    pipeline = Pipeline("p").with_stage("x", ref).with_stage("y", source, dependencies="x")
    with pytest.raises(PipelineFailedError) as caught:
        await supervisor.run(pipeline, {"crashes": 1})
    assert isinstance(caught.value.failures["x"].error, CrashError)
    assert len(caught.value.failures["x"].attempts) == 1
    result = await supervisor.run(pipeline, {"crashes": 1}, continue_on_failure=True)
    assert result.states == {"x": FAILED, "y": ISOLATED}
    assert (await supervisor.run(pipeline)).ok
    assert supervisor.ledger == ActorLedger(accepted=3, replied=1, failed=2)


async def test_a_message_of_a_run_is_delivered_again_where_the_actor_may(supervisor):
    ref = await supervisor.spawn(obey, name="a", max_deliveries=3, idempotent=True)
    result = await supervisor.run(Pipeline("p").with_stage("x", ref), {"crashes": 2})
    assert result.data("x") == {"attempt": 3, "stage": "x"}
    assert len(result.attempts["x"]) == 1
    assert ref.statistics().restarts == 2


async def test_the_key_of_a_stage_is_the_same_for_each_delivery(supervisor):
    keys = []

    async def work(ctx):
        keys.append(ctx.idempotency_key)
        if ctx.attempt == 1:
            raise CrashError

    ref = await supervisor.spawn(work, name="a", max_deliveries=2, idempotent=True)
    pipeline = Pipeline("p").with_stage("x", ref).with_stage("y", ref, dependencies="x")
    results = [await supervisor.run(pipeline) for _ in range(2)]
    assert keys == [f"{result.run_id}/{name}/1" for result in results for name in "xxyy"]


@pytest.mark.parametrize("stage", [{}, {"timeout": 9}])
async def test_an_actor_that_ends_meanwhile(supervisor, stage, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", shutdown=2)
    pipeline = Pipeline("p").with_stage("x", ref, config={"takes": 8}, **stage).with_stage("y", ref, **stage)

    async def stop():
        await trio.sleep(1)
        await ref.stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        result = await supervisor.run(pipeline, continue_on_failure=True)
    errors = {name: type(failure.error) for name, failure in result.failures.items()}
    assert errors in ({"x": ActorUnavailableError, "y": ActorDeadError}, {"x": ActorUnavailableError})
    error = result.failures["x"].error
    assert str(error) == (
        "pipeline 'p', stage 'x', actor 'a': "
        "it was stopped while it handled the message, which it may have done in part"
    )
    assert trio.current_time() == 3


@pytest.mark.parametrize("overflow", ["reject", "drop_newest"])
async def test_a_full_mailbox_fails_the_stage(supervisor, overflow, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", mailbox=Mailbox(0, overflow))
    ref.tell_nowait({"takes": 1})
    await trio.testing.wait_all_tasks_blocked()
    result = await supervisor.run(Pipeline("p").with_stage("x", ref), continue_on_failure=True)
    error = result.failures["x"].error
    assert isinstance(error, MailboxFullError)
    assert (error.pipeline, error.stage, error.actor) == ("p", "x", "a")


async def test_an_exception_that_is_none_ends_everything(autojump_clock):
    async def work(_ctx):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        async with Supervisor() as supervisor:
            ref = await supervisor.spawn(work, name="a")
            run = supervisor.start(Pipeline("p").with_stage("x", ref), continue_on_failure=True)
            await trio.sleep_forever()
    assert run.partial().states["x"] in {FAILED, CANCELLED}
    assert supervisor.ledger.balanced


# Timeouts, cancellation, late replies


async def test_a_stages_timeout_covers_the_wait_in_line(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a")
    ref.tell_nowait({"takes": 10})
    await trio.testing.wait_all_tasks_blocked()
    result = await supervisor.run(Pipeline("p").with_stage("x", ref, timeout=2), continue_on_failure=True)
    assert trio.current_time() == 2
    assert isinstance(result.failures["x"].error, StageTimeoutError)
    await trio.sleep(20)
    assert supervisor.ledger == ActorLedger(accepted=2, replied=1, cancelled=1)


async def test_a_reply_after_a_stages_timeout_is_a_dead_letter(supervisor, autojump_clock):
    letters = supervisor.dead_letters()
    ref = await supervisor.spawn(obey, name="a")
    pipeline = Pipeline("p").with_stage("x", ref, timeout=2, config={"takes": 3})
    result = await supervisor.run(pipeline, continue_on_failure=True)
    assert isinstance(result.failures["x"].error, StageTimeoutError)
    await ref.ask()
    letter = await anext(letters)
    assert (letter.reason, letter.stage, letter.at) == ("late_reply", "x", 3)
    assert letter.snapshot.run_id == result.run_id
    assert supervisor.ledger == ActorLedger(accepted=2, replied=2, late_reply=1)


@pytest.mark.parametrize("how", ["timeout", "cancel", "failure", "scope"])
async def test_a_run_that_ends_lets_go_of_its_actors(supervisor, how, autojump_clock):
    """What is in hand is handled to its end, for nobody; what is queued is withdrawn."""
    seen = []

    async def work(ctx):
        seen.append(ctx.stage_name)
        await trio.sleep(5)
        assert ctx.inputs.require_from("source", "rows") == (1, 2, 3)  # as long as the message is handled
        ctx.emit({"too": "late"})

    async def fail(_ctx):
        await trio.sleep(2)
        raise CrashError

    ref = await supervisor.spawn(work, name="a")
    pipeline = Pipeline("p").with_stage("source", source).with_stage("x", ref, dependencies="source")
    pipeline = pipeline.with_stage("y", ref, dependencies="source")
    if how == "failure":
        pipeline = pipeline.with_stage("fail", fail)
    with trio.CancelScope() as scope:
        scope.deadline = 2 if how == "scope" else 1e3
        run = supervisor.start(pipeline, timeout=2 if how == "timeout" else None)
        if how == "cancel":
            await trio.sleep(2)
            run.cancel()
        if how == "scope":
            await supervisor.run(pipeline)
        elif how == "failure":
            with pytest.raises(PipelineFailedError):
                await run.result()
        else:
            await run.result()
        assert trio.current_time() == 2
    if how == "scope":
        assert scope.cancelled_caught
        run.cancel()
        await run.result()
    await trio.sleep(20)
    assert len(seen) == 1
    assert supervisor.ledger.balanced
    assert supervisor.ledger.replied == supervisor.ledger.late_reply == 1
    assert supervisor.ledger.cancelled == (3 if how == "scope" else 1)


async def test_the_supervisor_waits_for_runs_before_it_stops_their_actors(autojump_clock):
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(obey, name="a", shutdown=0)
        run = supervisor.start(Pipeline("p").with_stage("x", ref).with_stage("y", ref, dependencies="x"), {"takes": 9})
    assert run.partial().ok
    assert trio.current_time() == 18
