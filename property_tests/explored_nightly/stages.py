"""Resident actors as the stages of runs: restarted, stopped, crashed, full and shared while runs need them."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio

from property_tests.actor_world import Desk, later, open_desk, spawn
from property_tests.explored import check_idle, check_result, fork, take_steps
from property_tests.mailbox_model import CrashError
from property_tests.residents import ESCALATE
from property_tests.test_explored_mail_faults import nothing
from property_tests.test_explored_mailboxes import LATER, OFTEN, POLICIES
from stageflow_actors import FanOutLimiterStage, Limiter, Mailbox, Pipeline, StageState, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, MailboxFullError
from stageflow_actors.testing import race_test

OK, CANCELLED, FAILED, ISOLATED = StageState.OK, StageState.CANCELLED, StageState.FAILED, StageState.ISOLATED


def use(ref, **options):
    """Return a pipeline whose first stage is an actor."""
    return Pipeline("p").with_stage("x", ref, **options).with_stage("y", nothing, dependencies="x")


@pytest.mark.parametrize("what", ["restart", "stop"])
@pytest.mark.parametrize("script", ["step", "step crash"])
@race_test
async def test_an_actor_is_restarted_or_stopped_while_two_runs_need_it(script, what):
    """Each stage ends once, and says of the actor what has become of its message."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2)
        runs = [
            supervisor.start(use(ref), desk.note_stage(ref, number, script), continue_on_failure=True)
            for number in (0, 1)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 1, getattr(ref, what))
            results = [await run.result() for run in runs]
        for number, result in enumerate(results):
            check_result(result)
            assert result.states["x"] in {OK, FAILED}
            assert result.states["y"] is (OK if result.states["x"] is OK else ISOLATED)
            if result.states["x"] is FAILED:
                error = result.failures["x"].error
                assert isinstance(error, (CrashError, ActorDeadError, ActorUnavailableError)), error
                assert not isinstance(error, ActorDeadError) or desk.count_begun(number) == 0


@pytest.mark.parametrize("overflow", POLICIES)
@race_test
async def test_a_full_mailbox_and_two_runs_and_a_sender(overflow):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(0, overflow))
        runs = [
            supervisor.start(use(ref), desk.note_stage(ref, number, "step"), continue_on_failure=True)
            for number in (0, 1)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.tell, ref, 2, "step")
            results = [await run.result() for run in runs]
        for result in results:
            check_result(result)
            assert overflow != "wait" or result.ok
            assert result.ok or isinstance(result.failures["x"].error, MailboxFullError)


@pytest.mark.parametrize("way", ["cancel", "timeout"])
@race_test
async def test_one_of_two_runs_that_share_an_actor_is_stopped(way):
    """The other gets its reply, and the message of the one that was stopped is withdrawn, or ended with."""
    supervisor = Supervisor()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk)
        first = supervisor.start(use(ref), desk.note_stage(ref, 0, "step"), timeout=1 if way == "timeout" else None)
        second = supervisor.start(use(ref), desk.note_stage(ref, 1, "step"))
        async with trio.open_nursery() as nursery:
            if way == "cancel":
                nursery.start_soon(later, 1, first.cancel)
            results = [await first.result(), await second.result()]
        for result in results:
            check_result(result)
        assert results[1].ok
        assert results[0].states["x"] in {OK, CANCELLED}
    assert desk.count_begun(1) == 1


@race_test
async def test_a_pool_under_a_fan_out_while_it_is_restarted():
    supervisor = Supervisor(intensity=OFTEN)
    limiter = Limiter(2)
    handled = []

    async def work(ctx):
        await take_steps(1)
        handled.append(ctx.snapshot.data["item"])
        return {"item": ctx.snapshot.data["item"]}

    async with supervisor:
        ref = await supervisor.spawn(work, name="pool", pool=2)
        stage = FanOutLimiterStage(ref, items=range(3), limiter=limiter, on_item_failure="collect")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.restart)
            result = await supervisor.run(fork("p", stage))
        check_result(result)
        data = result.data("a")
        assert data["count"] == data["ok"] + data["failed"] == 3
        failed = {failure.error.__class__ for failure in data["failures"].values()}
        assert failed <= {ActorUnavailableError}
        assert len(handled) == data["ok"]
        check_idle(limiter)
    assert supervisor.ledger.balanced


@race_test
async def test_a_stage_whose_actor_escalates_ends_with_its_supervisor():
    """The run below the supervisor that gives up ends, that of the one above does not have to."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        below = await supervisor.spawn_supervisor(Supervisor(), name="s", restart=LATER)
        ref = await spawn(below, desk, restart=ESCALATE)
        inner = below.start(use(ref), desk.note_stage(ref, 0, "step crash"), continue_on_failure=True)
        outer = supervisor.start(fork("q", nothing))
        results = [await inner.result(), await outer.result()]
        for result in results:
            check_result(result)
        assert results[0].states["x"] in {FAILED, CANCELLED}
        assert results[1].ok
        await desk.ask(ref, 1)
        assert desk.outcomes[1] == "reply"


@pytest.mark.parametrize("deliveries", [1, 2])
@race_test
async def test_a_stage_whose_message_the_actor_dies_over(deliveries):
    """Where it may, it is delivered again, and the stage never hears of it."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, max_deliveries=deliveries, idempotent=deliveries > 1, restart=LATER)
        message = desk.note_stage(ref, 0, "step crash", "step")
        run = supervisor.start(use(ref), message, continue_on_failure=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.ask, ref, 1, "step"))
            result = await run.result()
        check_result(result)
        assert result.states["x"] is (OK if deliveries == 2 else FAILED)
        assert desk.count_begun(0) == deliveries
        assert desk.outcomes[1] == "reply"


@pytest.mark.parametrize("way", ["normally", "error"])
@race_test
async def test_a_supervisor_is_left_while_a_stage_waits_for_its_actor(way):
    supervisor = Supervisor()
    async with trio.open_nursery() as senders:
        with contextlib.suppress(ZeroDivisionError):
            async with supervisor:
                desk = Desk(supervisor)
                ref = await spawn(supervisor, desk, shutdown=2)
                run = supervisor.start(use(ref), desk.note_stage(ref, 0, "step"))
                senders.start_soon(desk.ask, ref, 1, "step")
                await take_steps(1)
                if way == "error":
                    raise ZeroDivisionError
    check_result(run.partial())
    assert run.partial().states["x"] in {OK, CANCELLED}
    assert way == "error" or run.partial().ok
    assert desk.outcomes[1] in {"reply", "dead", "unavailable"}
    desk.check()
