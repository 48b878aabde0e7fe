"""An ask ends in exactly one of five ways, in every order that the race toolkit finds.

`open_desk` checks in each execution that every ask has ended once, that the books agree, and that nobody is told that
a message was not begun with which was, or the other way round.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

from stageflow_actors import Backoff, Directive, Intensity, Mailbox, Restart, Supervisor
from stageflow_actors.testing import race_test

from .actor_world import explore_all, later, open_desk, spawn
from .explored import FEW
from .mailbox_model import ShrugError

OFTEN = Intensity(100)
LATER = Restart(max_restarts=9, backoff=Backoff(initial=1.0, jitter=0.0))
NEVER = Restart(max_restarts=0)
ENDS = {"reply", "error", "begun", "withdrawn", "dead", "unavailable", "cancelled"}


def resume(error):
    return Directive.RESUME if isinstance(error, ShrugError) else Directive.RESTART


RESUME = Restart(max_restarts=9, decide=resume)


# Each of the five ways, where nothing else can happen


async def be_answered(desk, ref):
    await desk.ask(ref, 0, "step")
    return {"reply"}


async def be_failed(desk, ref):
    await desk.ask(ref, 0, "step crash")
    return {"error"}


async def time_out_in_hand(desk, ref):
    await desk.ask(ref, 0, "hang", timeout=1)
    await ref.stop()
    return {"begun"}


async def time_out_in_the_queue(desk, ref):
    desk.tell_nowait(ref, 9, "hang")
    await desk.ask(ref, 0, timeout=1)
    await ref.stop()
    return {"withdrawn"}


async def find_it_dead(desk, ref):
    await ref.stop()
    await desk.ask(ref, 0)
    return {"dead"}


async def be_queued_when_it_dies(desk, ref):
    desk.tell_nowait(ref, 9, "hang")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, ref, 0)
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop()
    return {"dead"}


async def be_in_hand_when_it_is_stopped(desk, ref):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, ref, 0, "hang")
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop()
    return {"unavailable"}


WAYS = [
    be_answered,
    be_failed,
    time_out_in_hand,
    time_out_in_the_queue,
    find_it_dead,
    be_queued_when_it_dies,
    be_in_hand_when_it_is_stopped,
]


@pytest.mark.parametrize("way", WAYS)
async def test_the_five_ways(way, autojump_clock):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ends = await way(desk, await spawn(supervisor, desk))
        assert {desk.outcomes[0]} == ends
    assert set(ENDS) >= ends


# Races


@race_test(max_executions=2 * FEW)
async def test_a_reply_against_a_timeout():
    """The reply in time, or the timeout and then a late reply or a withdrawn message."""
    supervisor = Supervisor()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk)
        await desk.ask(ref, 0, "step", timeout=1)
        await desk.ask(ref, 1)
        ledger = ref.statistics().ledger
        assert desk.outcomes[1] == "reply"
        assert (desk.outcomes[0], ledger.replied, ledger.cancelled, ledger.late_reply) in {
            ("reply", 2, 0, 0),
            ("begun", 2, 0, 1),
            ("withdrawn", 1, 1, 0),
        }


@race_test(max_executions=2 * FEW)
async def test_a_crash_against_a_timeout():
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk)
        await desk.ask(ref, 0, "step crash", timeout=1)
        await desk.ask(ref, 1)
        ledger = ref.statistics().ledger
        assert desk.outcomes[1] == "reply"
        assert (desk.outcomes[0], ledger.failed, ledger.cancelled) in {
            ("error", 1, 0),
            ("begun", 1, 0),
            ("withdrawn", 0, 1),
        }


@pytest.mark.parametrize("script", ["step", "step crash", "step shrug"])
@race_test(max_executions=FEW)
async def test_a_cancellation_against_whatever_the_actor_does(script):
    """The asker is told, or cancelled; the actor goes on either way."""
    supervisor = Supervisor(intensity=OFTEN)
    scope = trio.CancelScope()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, restart=RESUME)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, 2, scope.cancel)
            await desk.ask(ref, 0, script, scope=scope)
        await desk.ask(ref, 1)
        assert desk.outcomes[0] in {"reply" if script == "step" else "error", "cancelled"}
        assert desk.outcomes[1] == "reply"
        ledger = ref.statistics().ledger
        assert ledger.accepted == 2
        assert ledger.cancelled == (desk.count_begun(0) == 0)


@pytest.mark.parametrize("script", ["step", "step crash", "sleep3", "hang"])
@race_test(max_executions=FEW)
async def test_a_stop_against_whatever_the_actor_does(script):
    """What was in hand is ended or, past the budget, given up; what was not begun with is known to be so."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, script)
            nursery.start_soon(desk.ask, ref, 1)
            nursery.start_soon(ref.stop)
        assert desk.outcomes[0] in ENDS - {"begun", "withdrawn", "cancelled"}
        assert desk.outcomes[1] in {"reply", "dead", "unavailable"}
        if script == "hang":
            assert desk.outcomes[0] in {"dead", "unavailable"}
        assert ref.statistics().ledger.balanced


@race_test(max_executions=2 * FEW)
async def test_everything_at_once():
    """A reply or a crash, a timeout, a cancellation and a stop: one of them is what the asker hears of."""
    supervisor = Supervisor(intensity=OFTEN)
    scope = trio.CancelScope()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2, restart=LATER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.ask, ref, 0, "step crash", timeout=1))
            nursery.start_soon(partial(desk.ask, ref, 1, "step", timeout=1, scope=scope))
            nursery.start_soon(later, 2, scope.cancel)
            nursery.start_soon(later, 3, ref.stop)
        assert set(desk.outcomes.values()) <= ENDS
        assert ref.statistics().ledger.balanced


@race_test(max_executions=FEW)
async def test_a_restart_against_a_timeout_and_a_slow_actor():
    supervisor = Supervisor()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(desk.ask, ref, 0, "sleep3", timeout=2.5))
            nursery.start_soon(partial(desk.ask, ref, 1, timeout=4))
            nursery.start_soon(ref.restart)
        ends = {"begun", "withdrawn", "unavailable", "reply"}  # a reply where the clock is late
        assert set(desk.outcomes.values()) <= ends
        assert ref.statistics().restarts == 1


# Delivered again


@pytest.mark.parametrize("most", [2, 3])
@race_test(max_executions=FEW)
async def test_a_message_is_delivered_as_often_as_it_may_be_and_is_poison_then(most):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, max_deliveries=most, idempotent=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash")
            nursery.start_soon(desk.ask, ref, 1)
        assert desk.outcomes == {0: "error", 1: "reply"}
        assert desk.count_begun(0) == most
        assert desk.lost("poison") == [0]
        assert ref.statistics().ledger.failed == 0
        assert ref.statistics().restarts in {most - 1, most}


@race_test(max_executions=2 * FEW)
async def test_a_message_that_is_delivered_again_and_its_impatient_asker():
    """Once the asker has given up nobody handles it again."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, max_deliveries=3, idempotent=True, restart=LATER)
        await desk.ask(ref, 0, "step crash", "reply", timeout=1)
        before = desk.count_begun(0)
        await desk.ask(ref, 1)
        assert desk.outcomes[1] == "reply"
        assert before == desk.count_begun(0) or desk.lost("late_reply") == [0]
        assert ref.statistics().ledger.poison == 0


@race_test(max_executions=2 * FEW)
async def test_a_message_that_is_delivered_again_and_a_stop():
    """The asker hears of the failure, or of the end; it never hears that the message was not begun with."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, max_deliveries=2, idempotent=True, shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash", "hang")
            nursery.start_soon(later, 4, ref.stop)
        assert desk.outcomes[0] in {"error", "unavailable", "dead"}
        ledger = ref.statistics().ledger
        assert ledger.accepted == ledger.failed + ledger.cancelled + ledger.stopped
        assert ledger.poison == 0


@race_test(max_executions=2 * FEW)
async def test_a_pool_delivers_again_and_never_to_two_at_once():
    supervisor = Supervisor(intensity=OFTEN)
    inside = []

    async with open_desk(supervisor) as desk:

        async def handle(ctx):
            number = ctx.snapshot.data["number"]
            assert number not in inside
            inside.append(number)
            try:
                return await desk.handle(ctx)
            finally:
                inside.remove(number)

        ref = await supervisor.spawn(handle, name="actor", pool=2, max_deliveries=3, idempotent=True)
        desk.most["actor"] = 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash", "step crash", "reply")
            nursery.start_soon(desk.ask, ref, 1, "step")
        assert desk.outcomes == {0: "reply", 1: "reply"}
        assert (desk.count_begun(0), desk.count_begun(1)) == (3, 1)
        assert ref.statistics().ledger.replied == 2


@pytest.mark.parametrize("deliveries", [1, 2])
@race_test(max_executions=2 * FEW)
async def test_a_sibling_that_takes_it_along(deliveries):
    """What a restart of others cut short is delivered again where it may be, and otherwise may have run."""
    supervisor = Supervisor(scope="one_for_all", intensity=OFTEN)
    options = {"max_deliveries": deliveries, "idempotent": deliveries > 1, "shutdown": 2}
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, **options)
        sibling = await spawn(supervisor, desk, "sibling")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "sleep3", "reply")
            nursery.start_soon(desk.ask, sibling, 1, "crash")
        assert desk.outcomes[1] == "error"
        assert desk.outcomes[0] in {"reply", "unavailable"}
        if deliveries == 2:
            assert desk.outcomes[0] == "reply"
        assert ref.statistics().ledger.poison == 0


@pytest.mark.parametrize("policy", ["temporary", "transient"])
@race_test(max_executions=FEW)
async def test_an_actor_that_ends_over_a_message(policy):
    """Its asker gets the error, also where the message might have been delivered again; the next ones find it dead."""
    supervisor = Supervisor(intensity=OFTEN)
    restart = None if policy == "temporary" else NEVER
    async with open_desk(supervisor) as desk:
        ref = await spawn(
            supervisor, desk, policy=policy, restart=restart, max_deliveries=3, idempotent=True, mailbox=Mailbox(0)
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash")
            nursery.start_soon(desk.ask, ref, 1, "step crash")
        assert await ref.wait_stopped() is not None
        assert sorted(desk.outcomes.values()) == ["dead", "error"]
        assert len(desk.begun) == 1
        ledger = ref.statistics().ledger
        assert (ledger.failed, ledger.poison) == (1, 0)


# Small enough for every schedule there is


async def time_out(desk, ref, _nursery):
    await desk.ask(ref, 0, timeout=1)
    assert desk.outcomes[0] in {"reply", "begun", "withdrawn"}


async def cancel(desk, ref, nursery):
    scope = trio.CancelScope()
    nursery.start_soon(later, 0, scope.cancel)
    await desk.ask(ref, 0, "step", scope=scope)
    assert desk.outcomes[0] in {"reply", "cancelled"}


async def stop(desk, ref, nursery):
    nursery.start_soon(ref.stop)
    await desk.ask(ref, 0)
    assert desk.outcomes[0] in {"reply", "dead"}


async def restart(desk, ref, nursery):
    nursery.start_soon(ref.restart)
    await desk.ask(ref, 0)
    assert desk.outcomes[0] == "reply"


async def crash_and_go_on(desk, ref, _nursery):
    desk.tell_nowait(ref, 0, "crash")
    await desk.ask(ref, 1)
    assert desk.outcomes[1] == "reply"
    assert len(desk.begun) == 2


AGAIN = {"max_deliveries": 2, "idempotent": True}


async def be_delivered_again(desk, ref, _nursery):
    await desk.ask(ref, 0, "crash", "reply")
    assert desk.outcomes[0] == "reply"
    assert desk.count_begun(0) == 2


async def be_poison(desk, ref, _nursery):
    await desk.ask(ref, 0, "crash")
    assert desk.outcomes[0] == "error"
    assert desk.count_begun(0) == 2
    assert desk.lost("poison") == [0]


async def be_delivered_again_or_time_out(desk, ref, _nursery):
    await desk.ask(ref, 0, "crash", "reply", timeout=1)
    assert desk.outcomes[0] in {"reply", "begun", "withdrawn"}


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (time_out, {"clock": "explore"}),
        (cancel, {"clock": "explore"}),
        (stop, {}),
        (restart, {}),
        (crash_and_go_on, {"clock": "explore"}),
        (be_delivered_again, AGAIN),
        (be_poison, AGAIN),
        (be_delivered_again_or_time_out, AGAIN),
        pytest.param(stop, {"clock": "explore"}, marks=pytest.mark.slow),
        pytest.param(restart, {"clock": "explore"}, marks=pytest.mark.slow),
        pytest.param(cancel, {"pool": 2}, marks=pytest.mark.slow),
    ],
)
def test_every_schedule(body, options):
    """The whole of it, and no sample."""
    assert explore_all(body, **options) > 10
