"""Resident actors as stages among others: below their supervisor, in subpipelines and fan-outs, behind limiters."""

from __future__ import annotations

import pytest
import trio
from actors_as_stages import OFTEN, obey, source

from stageflow_actors import (
    Backoff,
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    Restart,
    StageState,
    Supervisor,
    Trigger,
)
from stageflow_actors.statistics import ActorLedger

OK, FAILED = StageState.OK, StageState.FAILED


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=OFTEN) as supervisor:
        yield supervisor


async def test_an_actor_above_serves_the_runs_of_a_child_supervisor(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a")
    child = await supervisor.spawn_supervisor(Supervisor(), name="child")
    grandchild = await child.spawn_supervisor(Supervisor(), name="grandchild")
    for runner in (child, grandchild):
        assert (await runner.run(Pipeline("p").with_stage("x", ref))).ok
    assert supervisor.ledger.replied == 2
    assert child.ledger == ActorLedger()


async def test_in_a_subpipeline(supervisor):
    ref = await supervisor.spawn(obey, name="a")
    inner = Pipeline("inner").with_stage("x", ref).with_stage("y", ref, dependencies="x")
    outer = Pipeline("outer").with_stage("source", source).subpipeline("sub", inner, dependencies="source")
    result = await supervisor.run(outer)
    assert result.data("sub") == {"y": {"attempt": 1, "stage": "sub/y"}}
    async with Supervisor() as other:
        with pytest.raises(ValueError, match="its actor 'a' lives in another supervisor"):
            await other.run(outer)


async def test_behind_a_limiter(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", pool=4)
    limiter = Limiter(2)
    pipeline = Pipeline("p")
    for number in range(4):
        pipeline = pipeline.with_stage(f"s{number}", ref, limiter=limiter)
    assert (await supervisor.run(pipeline, {"takes": 1})).ok
    assert trio.current_time() == 2


async def test_as_the_worker_of_a_fan_out(supervisor):
    keys = []

    async def work(ctx):
        keys.append(ctx.idempotency_key)
        return {"square": ctx.snapshot.data["item"] ** 2}

    ref = await supervisor.spawn(work, name="a")
    fan_out = FanOutLimiterStage(ref, items=range(4), limiter=Limiter(2))
    pipeline = Pipeline("p").with_stage("f", fan_out)
    result = await supervisor.run(pipeline)
    assert [each["square"] for each in result.data("f")["results"]] == [0, 1, 4, 9]
    assert sorted(keys) == [f"{result.run_id}/f[{number}]/1" for number in range(4)]
    async with Supervisor() as other:
        with pytest.raises(ValueError, match="its actor 'a' lives in another supervisor"):
            await other.run(pipeline)
    with pytest.raises(ValueError, match="restart"):
        FanOutLimiterStage(ref, items=range(4), limiter=Limiter(2), restart=Restart())
    await ref.stop()
    with pytest.raises(ValueError, match="its actor 'a' has ended"):
        await supervisor.run(pipeline)


async def test_a_cleanup_after_a_failure(supervisor):
    ref = await supervisor.spawn(obey, name="a")
    pipeline = Pipeline("p").with_stage("x", ref, config={"crashes": 1})
    pipeline = pipeline.with_stage("z", ref, dependencies="x", trigger=Trigger.ALL_DONE)
    result = await supervisor.run(pipeline, continue_on_failure=True)
    assert result.states == {"x": FAILED, "z": OK}


async def test_targets_and_overrides_leave_actors_out(supervisor):
    """Also those of which the run could not make use."""
    ref = await supervisor.spawn(obey, name="a")
    pipeline = Pipeline("p").with_stage("x", ref).with_stage("y", source, dependencies="x")
    await ref.stop()
    assert (await supervisor.run(pipeline, overrides={"x": {"given": 1}})).ok
    with pytest.raises(ValueError, match="its actor 'a' has ended"):
        await supervisor.run(pipeline)


async def test_a_stage_of_a_run_cannot_stop(supervisor):
    async def work(ctx):
        ctx.stop()

    result = await supervisor.run(Pipeline("p").with_stage("x", work), continue_on_failure=True)
    assert str(result.failures["x"].error) == (
        "stage 'x' is no resident actor; it ends by returning, StageOutput.cancel ends its run"
    )


async def test_an_actor_that_stops_after_a_message_of_a_run(supervisor, autojump_clock):
    later = Restart(max_restarts=9, backoff=Backoff(initial=3, jitter=0))

    async def work(ctx):
        ctx.stop()
        return {"stage": ctx.stage_name}

    ref = await supervisor.spawn(work, name="a")
    result = await supervisor.run(Pipeline("p").with_stage("x", ref).with_stage("y", source, dependencies="x"))
    assert result.ok
    assert await ref.wait_stopped() is None
    lasting = await supervisor.spawn(work, name="b", policy="permanent", restart=later)
    result = await supervisor.run(Pipeline("p").with_stage("x", lasting).with_stage("y", lasting, dependencies="x"))
    assert result.ok
    assert lasting.statistics().restarts >= 1
