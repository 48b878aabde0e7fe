"""Mailboxes: those that are small enough for every schedule, and three senders against restarts, crashes and stops."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import trio

from property_tests.actor_world import later, open_desk, spawn
from property_tests.test_explored_mailboxes import (
    LATER,
    OFTEN,
    POLICIES,
    cancel,
    crash,
    flush,
    restart,
    stop,
    tell_twice,
)
from stageflow_actors import Mailbox, Supervisor
from stageflow_actors.testing import race_test

SMALL = list(itertools.product((cancel, crash, stop, restart), (0, 1), POLICIES))
every_policy = pytest.mark.parametrize("overflow", POLICIES)


@pytest.mark.parametrize(("body", "bound", "overflow"), SMALL)
@race_test(clock="auto")
async def test_two_tells_and_one_thing_besides(body, bound, overflow):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(bound, overflow))
        async with trio.open_nursery() as nursery:
            await body(desk, ref, nursery)


@every_policy
@pytest.mark.parametrize("what", ["crash", "restart"])
@race_test
async def test_three_senders_and_an_actor_that_comes_back(what, overflow):
    """What was accepted is handled, or dropped and said to be; in the order of each sender."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1, overflow), restart=LATER)
        async with trio.open_nursery() as nursery:
            for sender in (1, 2):
                nursery.start_soon(tell_twice, desk, ref, sender)
            if what == "crash":
                nursery.start_soon(desk.ask, ref, 5, "crash")
            else:
                nursery.start_soon(ref.restart)
        await flush(desk, ref)
        ledger = ref.statistics().ledger
        lost = set(desk.lost("overflow"))
        for number, outcome in desk.outcomes.items():
            if outcome == "told":
                assert desk.count_begun(number) == (number not in lost)
        assert ledger.overflow == len(lost)
        assert ledger.stopped == ledger.poison == 0


@pytest.mark.parametrize("bound", [0, 1])
@race_test
async def test_blocked_senders_when_the_actor_is_stopped_and_one_of_them_is_cancelled(bound):
    """Each has sent or has not, and none waits any more."""
    supervisor = Supervisor()
    scope = trio.CancelScope()
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(bound), shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step")
            nursery.start_soon(desk.tell, ref, 1)
            nursery.start_soon(partial(desk.tell, ref, 2, scope=scope))
            nursery.start_soon(later, 1, scope.cancel)
            nursery.start_soon(ref.stop)
        ledger = ref.statistics().ledger
        assert ledger.balanced
        assert ref.statistics().blocked == ref.statistics().queued == 0
        assert desk.outcomes[0] in {"reply", "dead", "unavailable"}
        assert desk.outcomes[1] in {"told", "dead"}
        assert desk.outcomes[2] in {"told", "dead", "cancelled"}


@every_policy
@race_test
async def test_asks_that_are_dropped_hear_of_it(overflow):
    """Three asks, room for one, a crash in between: each ends in one way, and only what was begun says so."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1, overflow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "step crash")
            nursery.start_soon(desk.ask, ref, 1, "step")
            nursery.start_soon(partial(desk.ask, ref, 2, "step", timeout=1))
        await flush(desk, ref)
        ledger = ref.statistics().ledger
        assert desk.outcomes[0] in {"error", "full"}
        assert desk.outcomes[1] in {"reply", "full"}
        assert desk.outcomes[2] in {"reply", "full", "begun", "withdrawn"}
        full = list(desk.outcomes.values()).count("full")
        assert overflow != "wait" or not full
        assert ledger.rejected + ledger.overflow >= full


@pytest.mark.parametrize("bound", [0, 1])
@race_test
async def test_a_pool_and_more_messages_than_it_has_workers(bound):
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, mailbox=Mailbox(bound), pool=2)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(desk.tell, ref, number, "crash" if number == 1 else "step")
        await flush(desk, ref)
        assert sorted(number for _, number, _ in desk.begun) == [0, 1, 2, 3]
        assert (ref.statistics().ledger.replied, ref.statistics().ledger.failed) == (3, 1)


@pytest.mark.parametrize("most", [2, 3])
@race_test
async def test_two_that_are_delivered_again_and_a_restart(most):
    """A restart that was asked for costs no delivery that failed; nobody is lost, and none is handled too often."""
    supervisor = Supervisor(intensity=OFTEN)
    async with open_desk(supervisor) as desk:
        ref = await spawn(supervisor, desk, max_deliveries=most, idempotent=True, shutdown=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.ask, ref, 0, "crash", "reply")
            nursery.start_soon(desk.ask, ref, 1, "crash", "reply")
            nursery.start_soon(ref.restart)
        await flush(desk, ref)
        assert desk.outcomes == {0: "reply", 1: "reply"}
        assert desk.count_begun(0) == desk.count_begun(1) == 2
