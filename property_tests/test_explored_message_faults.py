"""Messages that are late, doubled or dropped: every ask still ends in one way, and the books balance."""

from __future__ import annotations

import contextlib
from collections import Counter
from functools import partial

import pytest
import trio

from stageflow_actors import Backoff, Intensity, Mailbox, Pipeline, Restart, Supervisor
from stageflow_actors.testing import Cancel, Crash, Doubled, Dropped, Late, explore

from .actor_world import Desk, later, spawn
from .explored import FEW, check_result

OFTEN = Intensity(100)
LATER = Restart(max_restarts=9, backoff=Backoff(initial=1.0, jitter=0.0))
AGAIN = {"max_deliveries": 3, "idempotent": True}
PLANS = {
    "late": [Late("*"), Late("*", seconds=3)],
    "doubled": [Doubled("*"), Doubled("*")],
    "dropped": [Dropped("*"), Dropped("*")],
    "all": [Late("*", seconds=2), Doubled("*"), Dropped("*")],
}
plans = pytest.mark.parametrize("plan", PLANS)
mailboxes = pytest.mark.parametrize(
    "mailbox",
    [Mailbox(0), *(Mailbox(1, overflow=overflow) for overflow in ("wait", "reject", "drop_newest", "drop_oldest"))],
    ids=lambda mailbox: f"{mailbox.overflow}{mailbox.max_queued}",
)


class StruckDesk(Desk):
    """Keeps the books where a message that has been replied to may be delivered again."""

    def __init__(self, supervisor):
        super().__init__(supervisor)
        self.returned = Counter()
        """How many deliveries of a message came to a reply."""

    async def handle(self, ctx):
        output = await super().handle(ctx)
        self.returned[ctx.snapshot.data["number"]] += 1
        return output

    def _check_ledger(self, ledger):
        told = Counter(self.outcomes.values())
        doubled = self.ended["returned"] - ledger.replied
        assert 0 <= doubled <= 2
        assert sum(count - 1 for count in self.returned.values()) <= doubled
        assert told["reply"] <= ledger.replied + doubled
        assert ledger.late_reply <= told["begun"] + told["cancelled"] + told["run"] + doubled
        self.ended["returned"] -= doubled  # of which the message was delivered again, and ended otherwise
        for number in [number for number, outcome in self.outcomes.items() if outcome == "reply"]:
            assert self.count_begun(number)
            self.outcomes[number] = "begun"
        super()._check_ledger(ledger)


@contextlib.asynccontextmanager
async def open_desk(supervisor):
    async with supervisor:
        desk = StruckDesk(supervisor)
        yield desk
    desk.check()


def struck(body, plan, *, executions=FEW, strategy="auto", clock="explore", **options):
    """Explore a body with an actor, under a plan of faults."""

    async def program():
        supervisor = Supervisor(intensity=OFTEN)
        async with open_desk(supervisor) as desk:
            ref = await spawn(supervisor, desk, **options)
            async with trio.open_nursery() as nursery:
                await body(desk, ref, nursery)

    report = explore(program, max_executions=executions, strategy=strategy, clock=clock, faults=plan)
    report.raise_for_failure()
    return report


async def send_in_turn(desk, ref, *numbers):
    """Tell from one task, which keeps its order."""
    for number in numbers:
        await desk.tell(ref, number, sender=numbers)
    if numbers:
        await desk.ask(ref, 10 * numbers[0], sender=numbers)


async def use(desk, ref, nursery):
    """Send it what it has to handle, fails over, ends with, and what its sender gives up."""
    nursery.start_soon(partial(desk.ask, ref, 0, "step crash", "reply", timeout=2))
    nursery.start_soon(partial(desk.ask, ref, 1, "step", scope=trio.CancelScope(deadline=1)))
    nursery.start_soon(send_in_turn, desk, ref, 2, 3)
    desk.tell_nowait(ref, 4)


@mailboxes
@plans
def test_whatever_is_sent(plan, mailbox):
    struck(use, PLANS[plan], mailbox=mailbox, executions=FEW // 2, **AGAIN)


@plans
@pytest.mark.parametrize("options", [{}, {"pool": 2, **AGAIN}], ids=["once", "pool"])
def test_whatever_is_sent_to_others(plan, options):
    struck(use, PLANS[plan], mailbox=Mailbox(1), executions=FEW // 2, **options)


@mailboxes
def test_a_stop_in_the_middle(mailbox):
    async def body(desk, ref, nursery):
        await use(desk, ref, nursery)
        nursery.start_soon(later, 4, ref.stop)

    struck(body, PLANS["all"], mailbox=mailbox, restart=LATER, **AGAIN)


@plans
def test_restarts_in_the_middle(plan):
    async def body(desk, ref, nursery):
        await use(desk, ref, nursery)
        nursery.start_soon(later, 4, ref.restart)

    struck(body, PLANS[plan], mailbox=Mailbox(1), restart=LATER, **AGAIN)


@plans
def test_a_supervisor_that_is_left_in_the_middle(plan):
    async def program():
        supervisor = Supervisor(intensity=OFTEN)
        async with trio.open_nursery() as senders, supervisor:
            desk = StruckDesk(supervisor)
            ref = await spawn(supervisor, desk, mailbox=Mailbox(1), **AGAIN)
            await use(desk, ref, senders)
            senders.start_soon(desk.ask, ref, 5)
            await later(3, trio.sleep, 0.5)
        desk.check()

    explore(program, max_executions=FEW, clock="auto", faults=PLANS[plan]).raise_for_failure()


@plans
@pytest.mark.parametrize("options", [{}, AGAIN], ids=["once", "again"])
@pytest.mark.parametrize("bound", [0, 2])
def test_a_supervisor_below_that_gives_up_and_comes_back(plan, bound, options):
    async def program():
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

    explore(program, max_executions=FEW // 2, clock="auto", faults=PLANS[plan]).raise_for_failure()


@plans
@pytest.mark.parametrize("script", ["step", "step crash", "sleep3"])
def test_a_stage_of_a_run(plan, script):
    async def program():
        supervisor = Supervisor(intensity=OFTEN)
        async with open_desk(supervisor) as desk:
            mailbox = Mailbox(1, overflow="reject")
            ref = await spawn(supervisor, desk, shutdown=2, mailbox=mailbox, **AGAIN)
            pipeline = Pipeline("p").with_stage("x", ref, timeout=2)
            run = supervisor.start(pipeline, desk.note_stage(ref, 0, script), continue_on_failure=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(later, 4, run.cancel)
                result = await run.result()
            check_result(result)
            assert result.states["x"] in {"ok", "failed", "cancelled"}

    explore(program, max_executions=FEW // 2, faults=PLANS[plan]).raise_for_failure()


@plans
def test_with_other_faults(plan):
    """The program is cancelled, a worker fails."""

    async def program():
        supervisor = Supervisor(intensity=OFTEN)
        desk = None
        try:
            async with trio.open_nursery() as senders, supervisor:
                desk = StruckDesk(supervisor)
                ref = await spawn(supervisor, desk, mailbox=Mailbox(1), restart=LATER, **AGAIN)
                await use(desk, ref, senders)
                await trio.sleep(3)
        finally:
            if desk is not None:
                desk.check()

    faults = [*PLANS[plan], Cancel(), Crash("actor")]
    explore(program, max_executions=2 * FEW, faults=faults).raise_for_failure()


# Small enough for every schedule there is


async def ask(desk, ref, _nursery):
    await desk.ask(ref, 0, timeout=2)
    assert desk.outcomes[0] in {"reply", "withdrawn", "begun", "full"}


async def ask_and_stop(desk, ref, nursery):
    nursery.start_soon(ref.stop)
    await desk.ask(ref, 0)
    assert desk.outcomes[0] in {"reply", "dead", "full"}


async def ask_and_restart(desk, ref, nursery):
    nursery.start_soon(ref.restart)
    await desk.ask(ref, 0)
    assert desk.outcomes[0] in {"reply", "full"}


async def tell_and_leave(desk, ref, _nursery):
    await desk.tell(ref, 0)
    assert desk.outcomes[0] in {"told", "full"}


FAULTS = [(Late("actor"), "wait"), (Doubled("actor"), "wait")]
FAULTS += [(Dropped("actor"), overflow) for overflow in ("wait", "reject", "drop_newest", "drop_oldest")]
BODIES = [ask, ask_and_stop, tell_and_leave, pytest.param(ask_and_restart, marks=pytest.mark.slow)]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("fault", "overflow"), FAULTS, ids=str)
def test_every_schedule(fault, overflow, body):
    """The whole of it, and no sample."""
    options = {"mailbox": Mailbox(1, overflow=overflow), **AGAIN}
    alone = struck(body, [], executions=5_000, strategy="dfs", clock="auto", **options)
    report = struck(body, [fault], executions=5_000, strategy="dfs", clock="auto", **options)
    assert report.complete, str(report)
    assert report.executions > alone.executions
