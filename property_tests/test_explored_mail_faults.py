"""Faults at any step: the program is cancelled, a worker fails where it waits, the clock jumps, a task falls behind."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from stageflow_actors import Backoff, Intensity, Mailbox, Pipeline, Restart, StageState, Supervisor
from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, explore, race_test

from .actor_world import Desk, later, open_desk, spawn
from .explored import FEW, check_result

OFTEN = Intensity(100)
LATER = Restart(max_restarts=9, backoff=Backoff(initial=1.0, jitter=0.0))
WORKERS = ["actor", "actor", "actor[0]", "actor[1]"]
"""Those of an actor of its own, of which each incarnation may fail, and those of a pool."""
AGAIN = {"max_deliveries": 2, "idempotent": True}


async def use(desk, ref, nursery):
    """Send it what it has to handle, ends with and replies to."""
    nursery.start_soon(partial(desk.ask, ref, 0, "step crash", timeout=2))
    nursery.start_soon(desk.ask, ref, 1, "step")
    nursery.start_soon(desk.tell, ref, 2)


@pytest.mark.parametrize("options", [{}, AGAIN, {"pool": 2}])
@pytest.mark.parametrize("bound", [0, 1])
@race_test(max_executions=FEW, faults=[Cancel()])
async def test_a_program_that_is_cancelled_at_any_step(bound, options):
    """Every sender is told or cancelled, and the books balance."""
    supervisor = Supervisor(intensity=OFTEN)
    desk = None
    try:
        async with trio.open_nursery() as senders, supervisor:
            desk = Desk(supervisor)
            ref = await spawn(supervisor, desk, mailbox=Mailbox(bound), restart=LATER, **options)
            await use(desk, ref, senders)
            await trio.sleep(3)
    finally:
        if desk is not None:
            desk.check()


@pytest.mark.parametrize("options", [{}, AGAIN, {"pool": 2}])
@race_test(max_executions=2 * FEW, faults=[Crash(name) for name in WORKERS])
async def test_a_worker_that_fails_at_any_step(options):
    """Twice at most: so does a message that may be delivered twice."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1), **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 1, "step")
            nursery.start_soon(desk.tell, ref, 2, "step")
        await desk.ask(ref, 3)
        ledger = ref.statistics().ledger
        assert ledger.failed + ledger.poison <= 2
        assert ledger.failed == 0 or "max_deliveries" not in options
        assert desk.outcomes[3] == "reply"


@pytest.mark.parametrize("options", [{}, AGAIN])
@pytest.mark.parametrize("bound", [0, 2])
@race_test(max_executions=FEW)
async def test_a_supervisor_that_gives_up_and_comes_back(bound, options):
    """Behind the same reference, with what was queued and those who wait for room."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        child = await supervisor.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="child", restart=LATER)
        ref = await spawn(child, desk, mailbox=Mailbox(bound), **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash", "reply")
            nursery.start_soon(desk.ask, ref, 1)
            nursery.start_soon(desk.tell, ref, 2)
        await desk.ask(ref, 3)
        assert desk.outcomes == {0: "reply" if options else "error", 1: "reply", 2: "told", 3: "reply"}
        assert sorted(number for _, number, _ in desk.begun) == [*([0] * (1 + bool(options))), 1, 2, 3]


@race_test(max_executions=2 * FEW)
async def test_a_supervisor_that_gives_up_for_good():
    """Whoever asked hears of it, in hand, queued or late."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        inner = Supervisor(intensity=Intensity(0))
        child = await supervisor.spawn_supervisor(inner, name="child", policy="temporary")
        ref = await spawn(child, desk, mailbox=Mailbox(1), shutdown=2)
        other = await spawn(child, desk, "other", shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash")
            nursery.start_soon(partial(desk.ask, other, 1, "sleep3"))
            nursery.start_soon(desk.ask, ref, 2)
            nursery.start_soon(desk.ask, other, 3)
        assert desk.outcomes[0] in {"error", "dead"}
        assert desk.outcomes[1] in {"reply", "unavailable", "dead"}
        assert desk.outcomes[2] in {"reply", "dead"}
        assert desk.outcomes[3] in {"reply", "dead", "unavailable"}


@pytest.mark.parametrize("script", ["step", "step crash", "sleep3"])
@pytest.mark.parametrize("stage", [{}, {"timeout": 2}])
@race_test(max_executions=FEW)
async def test_a_run_that_is_cancelled_while_its_stage_waits_for_an_actor(script, stage):
    """Whatever the actor does meanwhile, run and actor agree on what became of the message."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2)
        pipeline = Pipeline("p").with_stage("x", ref, **stage).with_stage("y", nothing, dependencies="x")
        run = supervisor.start(pipeline, desk.note_stage(ref, 0, script), continue_on_failure=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 2, run.cancel)
            nursery.start_soon(later, 3, ref.stop)
            result = await run.result()
        check_result(result)
        ledger, state = ref.statistics().ledger, result.states["x"]
        assert ledger.balanced
        assert ledger.accepted + ledger.no_recipient <= 1
        if state is StageState.OK:
            assert (ledger.replied, ledger.late_reply) == (1, 0)
        elif state is StageState.CANCELLED:
            assert ledger.replied == ledger.late_reply
        assert desk.count_begun(0) <= 1


async def nothing(_ctx):
    return None


async def crash_and_time_out():
    """Ask against a crash, a timeout, a cancellation and a stop."""
    supervisor = Supervisor(intensity=OFTEN)
    scope = trio.CancelScope(deadline=trio.current_time() + 1)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2, restart=LATER, **AGAIN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.ask, ref, 0, "step crash", "step", timeout=2))
            nursery.start_soon(partial(desk.ask, ref, 1, "step", timeout=1, scope=scope))
            nursery.start_soon(desk.tell, ref, 2, "sleep1")
            await trio.sleep(2)
            await ref.stop()
        assert ref.statistics().ledger.balanced


@pytest.mark.parametrize("fault", [Delay("*", seconds=3), Delay("actor", seconds=3), ClockJump(3)], ids=repr)
def test_time_that_passes_at_any_step(fault):
    """Real time does what it likes: a machine sleeps, a task falls behind."""
    report = explore(crash_and_time_out, max_executions=2 * FEW, faults=[fault])
    assert report.failure is None, str(report)
