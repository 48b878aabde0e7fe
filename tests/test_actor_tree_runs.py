"""Runs and messages in a tree of supervisors, and trees that are left, whatever they are at."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from actor_cases import ESCALATE, LIMITS, CrashError, Diary, grow, later, send, spawn_all

from stageflow_actors import Intensity, Pipeline, PipelineFailedError, RunEnding, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, RestartIntensityError

# Messages and runs


async def test_one_that_gives_up_has_the_messages_in_hand_ended_first(autojump_clock):
    diary = Diary()
    answers = {}
    async with Supervisor() as top, trio.open_nursery() as nursery:
        _, refs = await grow(top, diary)

        async def ask(key, **data):
            answers[key] = await send(refs["a"], **data)

        nursery.start_soon(lambda: ask("in hand", after=3.0))
        await trio.sleep(1)
        nursery.start_soon(ask, "queued")
        await send(refs["b"], "crash")
        await trio.sleep(10)
        assert answers["in hand"].data == {"by": "a1"}
        assert answers["queued"].data == {"by": "a2"}
        assert (3.0, "a2 up") in diary.take_timed()


async def forever(ctx):
    await trio.sleep_forever()


@pytest.mark.parametrize("limit", LIMITS)
async def test_its_runs_are_cancelled_when_it_gives_up(limit, autojump_clock):
    diary = Diary()
    async with Supervisor() as top:
        below, refs = await grow(top, diary, limit=limit)
        run = below.start(Pipeline("p").with_stage("x", forever).with_stage("y", refs["a"]), {"after": 2.0})
        await trio.sleep(1)
        await send(refs["b"], "crash")
        result = await run.result()
        assert result.ended.ending is RunEnding.CANCELLED
        assert result.states["x"] == "cancelled"
        await trio.sleep(5)
        assert (await below.run(Pipeline("p").with_stage("y", refs["a"]))).ok


@pytest.mark.parametrize("where", ["top", "middle"])
async def test_runs_further_below_are_cancelled_too(where, autojump_clock):
    diary = Diary()
    runs = []
    caught = None
    try:
        async with Supervisor(intensity=Intensity(0)) as top:
            middle = await top.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="m", policy="temporary")
            below = await middle.spawn_supervisor(Supervisor(), name="s")
            refs = await spawn_all(top if where == "top" else middle, diary, a={})
            runs += [supervisor.start(Pipeline("p").with_stage("x", forever)) for supervisor in (middle, below)]
            await trio.sleep(1)
            await send(refs["a"], "crash")
            await trio.testing.wait_all_tasks_blocked()
    except RestartIntensityError as error:
        caught = error
    assert (caught is None) == (where == "middle")
    assert trio.current_time() - diary.began == 1.0
    assert {run.partial().ended.ending for run in runs} == {RunEnding.CANCELLED}


async def test_a_scope_above_restarts_it_without_waiting_for_its_runs(autojump_clock):
    """Which may themselves wait for an actor that comes up only after it."""
    diary = Diary()
    async with Supervisor(scope="one_for_all") as top:
        below, refs = await grow(top, diary)
        others = await spawn_all(top, diary, z={})
        pipeline = Pipeline("p").with_stage("x", others["z"]).with_stage("y", others["z"]).with_stage("w", forever)
        run = below.start(pipeline, {"do": "crash"}, continue_on_failure=True)
        result = await run.result()
        assert result.ended.ending is RunEnding.CANCELLED
        await trio.testing.wait_all_tasks_blocked()
        assert diary.take() == ["z1 down", "t1 down", "b1 down", "a1 down", "a2 up", "b2 up", "z2 up"]
        assert trio.current_time() == diary.began
        assert (await below.run(Pipeline("p").with_stage("x", others["z"]).with_stage("y", refs["a"]))).ok


async def test_leaving_normally_waits_for_runs_below(autojump_clock):
    diary = Diary()
    async with Supervisor() as top:
        others = await spawn_all(top, diary, z={})
        below, refs = await grow(top, diary)
        pipeline = Pipeline("p").with_stage("x", others["z"]).with_stage("y", refs["a"], dependencies="x")
        run = below.start(pipeline, {"after": 3.0})
        await trio.sleep(1)
    assert run.partial().ok
    assert diary.take_timed() == [(6.0, line) for line in ["t1 down", "b1 down", "a1 down", "z1 down"]]


async def test_a_run_below_that_failed_and_of_which_nobody_heard_is_raised(autojump_clock):
    async def crash(ctx):
        raise CrashError

    with pytest.raises(PipelineFailedError):
        async with Supervisor() as top:
            below = await top.spawn_supervisor(Supervisor(), name="s")
            below.start(Pipeline("p").with_stage("x", crash))


@pytest.mark.parametrize("way", ["with an error", "cancelled", "given up"])
async def test_nothing_is_admitted_below_one_that_ends(way, autojump_clock):
    """Although a run of it takes time to end, in which one below would have come up again."""
    diary = Diary()
    refused = []

    async def clean_up(ctx):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    async def start_later(below):
        await trio.sleep(2)
        try:
            below.start(Pipeline("q").with_stage("x", forever))
        except (ActorDeadError, RuntimeError) as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(100) as scope:
            try:
                async with Supervisor() as top:
                    others = await spawn_all(top, diary, z={"restart": ESCALATE})
                    below, refs = await grow(top, diary, restart=later(2.0))
                    top.start(Pipeline("p").with_stage("x", clean_up))
                    await send(refs["b"], "crash")
                    await trio.sleep(1)
                    nursery.start_soon(start_later, below)
                    if way == "with an error":
                        raise CrashError
                    if way == "given up":
                        await send(others["z"], "crash")
                    else:
                        scope.cancel()
                    await trio.sleep_forever()
            except CrashError:
                pass
        assert trio.current_time() - diary.began == 4.0
    assert len(refused) == 1
    assert "b2 up" not in diary.take()


# Left


@pytest.mark.parametrize("way", ["normally", "with an error", "cancelled"])
@pytest.mark.parametrize("when", ["up", "backs off", "comes up", "gives up"])
async def test_the_one_above_is_left_whatever_it_is_at(when, way, autojump_clock):
    diary = Diary()
    runs = []
    answers = []

    async def ask(ref):
        answers.append(await send(ref, after=4.0))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            try:
                async with Supervisor() as top:
                    await spawn_all(top, diary, z={})
                    below, refs = await grow(top, diary, restart=later(3.0), a={"start": {2: 100.0}})
                    if when == "gives up":
                        nursery.start_soon(ask, refs["a"])
                        await trio.testing.wait_all_tasks_blocked()
                    if when != "up":
                        await send(refs["b"], "crash")
                    elif way != "normally":
                        runs.append(below.start(Pipeline("p").with_stage("x", forever)))
                    await trio.sleep(5 if when == "comes up" else 1)
                    if way == "with an error":
                        raise ZeroDivisionError
                    if way == "cancelled":
                        scope.cancel()
                        await trio.sleep_forever()
            except ZeroDivisionError:
                pass
        took = trio.current_time() - diary.began
    lines = diary.take()
    assert lines[-1] == "z1 down"
    for name in "abtz":
        assert sum(line.startswith(name) and line.endswith("down") for line in lines) == 1
    assert took == {"comes up": 5.0, "gives up": 4.0 if way == "normally" else 1.0}.get(when, 1.0)
    assert all(run.partial().ended.ending is RunEnding.CANCELLED for run in runs)
    if when == "gives up":
        assert (type(answers[0]) is ActorUnavailableError) == (way != "normally")
    assert top.ledger.balanced


async def test_a_deep_tree_is_left_from_the_last_to_the_first(autojump_clock):
    diary = Diary()
    expected = []
    async with Supervisor() as top:
        supervisor = top
        for depth in range(6):
            await spawn_all(supervisor, diary, **{f"before{depth}_": {}})
            below = await supervisor.spawn_supervisor(Supervisor(), name="s")
            await spawn_all(supervisor, diary, **{f"after{depth}_": {}})
            expected.insert(0, f"before{depth}_1 down")
            expected.insert(0, f"after{depth}_1 down")
            supervisor = below
        names = [f"{'s/' * depth}before{depth}_" for depth in range(6)]
        assert [top.actor(name).name for name in names] == names
    order = diary.take()
    afters = [f"after{depth}_1 down" for depth in range(6)]
    assert order == [*afters, *[f"before{depth}_1 down" for depth in reversed(range(6))]]
    assert sorted(order) == sorted(expected)
