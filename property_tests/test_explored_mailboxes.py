"""Mailboxes in every order that the race toolkit finds: who sends, who handles, who gives up, and who ends it all.

`open_desk` checks the books of each execution; what stands here is what must hold besides.
"""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import trio

from stageflow_actors import Backoff, Intensity, Mailbox, Restart, Supervisor
from stageflow_actors.testing import race_test

from .actor_world import explore_all, later, open_desk, spawn
from .explored import FEW

OFTEN = Intensity(100)
LATER = Restart(max_restarts=9, backoff=Backoff(initial=1.0, jitter=0.0))
POLICIES = ["wait", "reject", "drop_oldest", "drop_newest"]
every_policy = pytest.mark.parametrize("overflow", POLICIES)
every_bound = pytest.mark.parametrize("bound", [0, 1, 2])


async def tell_twice(desk, ref, sender, *script):
    """Tell two messages, one after the other, in the name of a sender."""
    for number in (10 * sender, 10 * sender + 1):
        await desk.tell(ref, number, *script, sender=sender)


async def flush(desk, ref):
    """Wait until everything was handled that is queued."""
    while ref.statistics().ledger.pending:  # noqa: ASYNC110 (nobody tells)
        await trio.sleep(1)
    assert ref.statistics().ledger.balanced
    assert ref.statistics().queued == ref.statistics().blocked == 0


def check_overflow(desk, ref, overflow):
    """Check what each policy promises of messages that all had to be handled in the end."""
    ledger = ref.statistics().ledger
    told = [number for number, outcome in desk.outcomes.items() if outcome == "told"]
    handled = {number for _, number, _ in desk.begun}
    assert len(desk.outcomes) == 4
    if overflow == "wait":
        assert ledger.replied == 4
        assert handled == set(told)
    elif overflow == "reject":
        assert ledger.rejected == 4 - len(told)
        assert handled == set(told)
    else:
        assert len(told) == 4
        assert ledger.replied + ledger.overflow == 4
        assert set(desk.outcomes) - handled == set(desk.lost("overflow"))


@every_bound
@every_policy
@race_test(max_executions=FEW // 2)
async def test_two_senders(overflow, bound):
    """Each policy does what it says, to whichever message comes at the wrong time."""
    supervisor = Supervisor()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(bound, overflow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_twice, desk, ref, 0)
            nursery.start_soon(tell_twice, desk, ref, 1)
        await flush(desk, ref)
        check_overflow(desk, ref, overflow)
        first, *_, last = desk.outcomes  # in the order in which they arrived
        if overflow == "drop_oldest" and bound:
            assert desk.count_begun(last) == 1
        if overflow == "drop_newest":
            assert desk.count_begun(first) == 1


@every_policy
@race_test(max_executions=FEW // 2)
async def test_a_slow_actor_and_impatient_senders(overflow):
    """`tell_nowait` never waits and never loses what it did not say it had lost."""
    supervisor = Supervisor()

    async def tell_all(sender):
        for number in (10 * sender, 10 * sender + 1):
            desk.tell_nowait(ref, number, "step", sender=sender)
            await trio.lowlevel.checkpoint()

    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1, overflow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell_all, 0)
            nursery.start_soon(tell_all, 1)
        await flush(desk, ref)
        check_overflow(desk, ref, "reject" if overflow == "wait" else overflow)
    assert all(outcome in {"told", "full"} for outcome in desk.outcomes.values())


@pytest.mark.parametrize("bound", [0, 1])
@pytest.mark.parametrize("kind", ["ask", "tell"])
@race_test(max_executions=2 * FEW)
async def test_a_blocked_sender_that_is_cancelled_has_sent_or_has_not(bound, kind):
    supervisor = Supervisor()
    scope = trio.CancelScope()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(bound))
        async with trio.open_nursery() as nursery:
            for number in range(bound + 1):
                nursery.start_soon(desk.ask, ref, number, "step")
            nursery.start_soon(partial(getattr(desk, kind), ref, 7, scope=scope))
            nursery.start_soon(later, 2, scope.cancel)
        await flush(desk, ref)
        ledger = ref.statistics().ledger
        assert desk.outcomes[7] in {"cancelled", "told" if kind == "tell" else "reply"}
        if kind == "tell":
            assert desk.count_begun(7) == (desk.outcomes[7] == "told")
            assert ledger.accepted == bound + 1 + desk.count_begun(7)
            assert ledger.cancelled == 0
        else:
            assert ledger.accepted in {bound + 1, bound + 2}
            assert ledger.late_reply == (desk.outcomes[7] == "cancelled" and desk.count_begun(7))
            assert ledger.cancelled <= (desk.count_begun(7) == 0)
        assert [desk.outcomes[number] for number in range(bound + 1)] == ["reply"] * (bound + 1)


@every_policy
@race_test(max_executions=FEW)
async def test_a_crash_leaves_the_others_in_the_mailbox(overflow):
    """In order, and each is handled once; also those that come while it is down."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(2, overflow), restart=LATER)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 5, "step crash")
            nursery.start_soon(tell_twice, desk, ref, 1)
        await flush(desk, ref)
        ledger = ref.statistics().ledger
        assert desk.outcomes[5] in {"error", "full"}
        handled = [number for _, number, _ in desk.begun if number != 5]
        assert handled == sorted(handled)
        assert len(handled) == 2 - ledger.rejected - ledger.overflow + desk.lost("overflow").count(5)


@race_test(max_executions=2 * FEW)
async def test_a_stop_overtakes_what_is_queued_and_forgets_nobody():
    """Whoever is queued, waits for room or comes later is told; only what is in hand is handled to its end."""
    supervisor = Supervisor()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step")
            nursery.start_soon(desk.tell, ref, 1)
            nursery.start_soon(desk.ask, ref, 2)
            nursery.start_soon(ref.stop)
        assert await ref.wait_stopped() is None
        ledger = ref.statistics().ledger
        assert ledger.balanced
        assert desk.outcomes[0] in {"reply", "dead", "unavailable"}
        assert desk.outcomes[1] in {"told", "dead"}
        assert desk.outcomes[2] in {"reply", "dead", "unavailable"}
        begun = {number for _, number, _ in desk.begun}
        unheard = {number for number in (0, 2) if desk.outcomes[number] == "dead"}
        unheard |= {1} - begun
        assert sorted(unheard) == sorted(desk.lost("stopped") + desk.lost("no_recipient"))
        assert begun | unheard == {0, 1, 2}


@every_policy
@race_test(max_executions=FEW)
async def test_a_restart_overtakes_what_is_queued_and_loses_none_of_it(overflow):
    supervisor = Supervisor()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1, overflow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.tell, ref, 0, "step")
            nursery.start_soon(desk.tell, ref, 1)
            nursery.start_soon(desk.tell, ref, 2)
            nursery.start_soon(ref.restart)
        await flush(desk, ref)
        ledger = ref.statistics().ledger
        assert ref.statistics().restarts == 1
        assert ledger.cancelled <= 1  # in hand for longer than the budget, where the clock jumped
        assert len(desk.begun) == 3 - ledger.rejected - ledger.overflow


@race_test(max_executions=FEW)
async def test_a_pool_handles_each_message_once_whichever_of_it_crashes():
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1), pool=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 5, "crash")
            nursery.start_soon(desk.ask, ref, 6, "step")
            nursery.start_soon(desk.tell, ref, 7)
        await flush(desk, ref)
        assert desk.outcomes == {5: "error", 6: "reply", 7: "told"}
        assert sorted(number for _, number, _ in desk.begun) == [5, 6, 7]


@every_policy
@race_test(max_executions=FEW)
async def test_what_is_delivered_again_is_lost_in_no_mailbox(overflow):
    """It comes back in front of all, beside the bound; whoever comes meanwhile is the one too many."""
    supervisor = Supervisor(intensity=OFTEN)
    options = {"max_deliveries": 2, "idempotent": True, "restart": LATER}
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1, overflow), **options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 5, "step crash", "reply")
            nursery.start_soon(tell_twice, desk, ref, 1)
        await flush(desk, ref)
        assert desk.outcomes[5] in {"reply", "full"}
        assert desk.count_begun(5) == (2 if desk.outcomes[5] == "reply" else 0)
        ledger = ref.statistics().ledger
        assert ledger.poison == ledger.failed == 0
        assert ledger.replied + ledger.overflow + ledger.rejected == 3


@pytest.mark.parametrize("how", ["error", "cancel"])
@race_test(max_executions=FEW)
async def test_a_supervisor_that_is_left_in_a_hurry_forgets_nobody(how):
    """Those who wait for room, too."""
    supervisor = Supervisor()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        with contextlib.suppress(KeyError), scope:
            async with open_desk(supervisor) as desk:
                ref = await spawn(supervisor, desk, mailbox=Mailbox(0))
                for number in range(3):
                    nursery.start_soon(desk.ask, ref, number, "step")
                await later(3, {"error": {}.popitem, "cancel": scope.cancel}[how])
                await trio.lowlevel.checkpoint()
    desk.check()
    assert set(desk.outcomes.values()) <= {"reply", "dead", "unavailable"}
    assert set(desk.outcomes) == {0, 1, 2}
    assert supervisor.ledger.cancelled == list(desk.outcomes.values()).count("unavailable")


# Small enough for every schedule there is


def check_told(desk, number):
    """Check that a message was handled once if it was accepted and not dropped, and otherwise never."""
    assert desk.count_begun(number) == (desk.outcomes[number] == "told" and number not in desk.lost("overflow"))


async def cancel(desk, ref, nursery):
    scope = trio.CancelScope()
    nursery.start_soon(later, 0, scope.cancel)
    desk.tell_nowait(ref, 0)
    await desk.tell(ref, 1, scope=scope)
    await flush(desk, ref)
    check_told(desk, 1)


async def stop(desk, ref, nursery):
    nursery.start_soon(ref.stop)
    desk.tell_nowait(ref, 0)
    await desk.tell(ref, 1)
    await ref.wait_stopped()
    assert ref.statistics().ledger.balanced


async def restart(desk, ref, nursery):
    nursery.start_soon(ref.restart)
    desk.tell_nowait(ref, 0)
    await desk.tell(ref, 1)
    await flush(desk, ref)
    check_told(desk, 1)


async def crash(desk, ref, _nursery):
    desk.tell_nowait(ref, 0, "crash")
    await desk.tell(ref, 1)
    await flush(desk, ref)
    check_told(desk, 1)


MANY = pytest.mark.slow
"""Where there are more than a thousand."""


@pytest.mark.parametrize(
    ("body", "bound", "overflow"),
    [
        (cancel, 0, "wait"),
        (crash, 0, "wait"),
        *((body, 1, overflow) for body in (cancel, crash) for overflow in POLICIES),
        *((body, 0, overflow) for body in (cancel, crash) for overflow in POLICIES[1:]),
        *(pytest.param(body, 0, overflow, marks=MANY) for body in (stop, restart) for overflow in POLICIES),
        *(pytest.param(body, 1, overflow, marks=MANY) for body in (stop, restart) for overflow in POLICIES),
    ],
)
def test_every_schedule(body, bound, overflow):
    """The whole of it, and no sample."""
    assert explore_all(body, mailbox=Mailbox(bound, overflow)) > 10
