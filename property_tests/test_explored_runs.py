"""Runs that nothing stops, in every order that the race toolkit finds: the same result, whoever comes first."""

from __future__ import annotations

import contextlib

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from stageflow_actors import StageState, Supervisor, Trigger
from stageflow_actors.events import RunEnded, StageEnded, StageStarted
from stageflow_actors.testing import check_pipeline, race_test
from stageflow_actors.testing.strategies import fault_plans, pipelines, snapshots

from .explored import FEW, Room, chain, check_result, fork, take_steps

EXECUTIONS = 12
"""For each drawn pipeline: variety matters more."""


@settings(max_examples=30)
@given(pipeline=pipelines(max_stages=5), snapshot=snapshots())
def test_drawn_pipelines_keep_the_laws(pipeline, snapshot):
    check_pipeline(pipeline, snapshot, max_executions=EXECUTIONS)


@settings(max_examples=30)
@given(pipeline=pipelines(max_stages=5), limit=st.integers(1, 3), fail_fast=st.booleans())
def test_drawn_pipelines_keep_the_laws_behind_a_limit(pipeline, limit, fail_fast):
    options = {"max_running_stages": limit, "continue_on_failure": not fail_fast}
    check_pipeline(pipeline, max_executions=EXECUTIONS, **options)


@settings(max_examples=30)
@given(data=st.data(), pipeline=pipelines(max_stages=5), fail_fast=st.booleans())
def test_drawn_pipelines_keep_the_laws_whatever_goes_wrong(data, pipeline, fail_fast):
    plan = data.draw(fault_plans(pipeline))
    check_pipeline(pipeline, max_executions=EXECUTIONS, faults=plan, continue_on_failure=not fail_fast)


@race_test
async def test_a_stage_sees_what_those_before_it_have_put_out():
    """Also one that looks late."""

    async def put_out(ctx):
        await take_steps(1)
        return {"from": ctx.stage_name}

    async def join(ctx):
        await take_steps(1)
        return {"from": "".join(ctx.inputs.require_from(name, "from") for name in ctx.inputs)}

    pipeline = fork("p", put_out, put_out).with_stage("c", join, dependencies="a")
    pipeline = pipeline.with_stage("d", join, dependencies=("a", "b"), trigger=Trigger.ALL_DONE)
    async with Supervisor() as supervisor:
        result = await supervisor.run(pipeline)
    check_result(result)
    assert result.ok
    assert (result.data("c")["from"], result.data("d")["from"]) == ("a", "ab")


@race_test
async def test_a_run_ends_when_its_last_stage_has():
    room = Room()
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", room.stage(2), room.stage(2)))
    check_result(result)
    assert result.ok
    room.check()


@race_test(max_executions=FEW)
async def test_runs_at_the_same_time_know_nothing_of_each_other():
    async def keep(ctx):
        await take_steps(1)
        return {"own": ctx.snapshot.data["own"], "saw": ctx.inputs.get("own")}

    results = {}

    async def run(supervisor, own):
        results[own] = await supervisor.run(chain("p", keep, keep), {"own": own})

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        for own in (1, 2):
            nursery.start_soon(run, supervisor, own)
    for own, result in results.items():
        check_result(result)
        assert result.data("b") == {"own": own, "saw": own}


@race_test(max_executions=FEW)
async def test_a_reader_hears_everything_in_order():
    room = Room()
    heard = []

    async def read(stream):
        async with stream:
            async for event in stream:
                heard.append(event)
                await take_steps(1)

    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(chain("p", room.stage(), room.stage()))
        nursery.start_soon(read, run.events())
        await run.result()
    told = [type(event) for event in heard]
    assert told == [StageStarted, StageEnded, StageStarted, StageEnded, RunEnded]
    assert [event.stage for event in heard[:-1]] == ["a", "a", "b", "b"]


@race_test(max_executions=FEW)
async def test_whoever_waits_for_a_result_gets_it():
    """A waiter that is cancelled takes nothing from the others, nor from the run."""
    results = []

    async def wait(run, scope):
        with scope:
            results.append(await run.result())

    async def cancel(scope):
        await take_steps(3)
        scope.cancel()

    scopes = [trio.CancelScope() for _ in range(3)]
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(chain("p", Room().stage(2)))
        for scope in scopes:
            nursery.start_soon(wait, run, scope)
        nursery.start_soon(cancel, scopes[0])
    assert len(results) == 3 - scopes[0].cancelled_caught
    assert all(result is run.partial() for result in results)
    assert run.partial().states == {"a": StageState.OK}


@race_test(max_executions=FEW)
async def test_a_supervisor_waits_for_its_runs():
    room = Room()
    async with Supervisor() as supervisor:
        runs = [supervisor.start(chain("p", room.stage(2)), {"run": name}) for name in "xy"]
    assert [run.partial().ok for run in runs] == [True, True]
    assert room.entered == {"xa": 1, "ya": 1}
    room.check()


@race_test
async def test_a_supervisor_waits_for_the_runs_of_other_tasks():
    """Also for one that comes while it waits for another. Once it is left, there are none."""
    room = Room()

    async def run(supervisor, name, steps):
        await take_steps(steps)
        with contextlib.suppress(RuntimeError):  # it has been left
            await supervisor.run(chain("p", room.stage(3)), {"run": name})

    async with trio.open_nursery() as nursery:
        async with Supervisor() as supervisor:
            nursery.start_soon(run, supervisor, "x", 0)
            nursery.start_soon(run, supervisor, "y", 1)
            await take_steps(2)
        assert room.inside.total() == 0
        room.is_closed = True
    room.check()
