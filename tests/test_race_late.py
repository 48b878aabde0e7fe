"""Late messages: what overtakes them and what does not, and what becomes of one that is still to come."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from race_cases import explore_all, find
from race_mail import AGAIN, agree, open_log, run_all, together

from stageflow_actors import Backoff, Intensity, Pipeline, Restart, Supervisor
from stageflow_actors.testing import Late, explore, replay

FIRST = Late("log", at=1)


async def two_senders(log, ref):
    async def send(letter):
        await log.tell(ref, f"{letter}1")
        await log.tell(ref, f"{letter}2")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, "a")
        nursery.start_soon(send, "b")
    await trio.sleep(5)


def test_other_senders_overtake_and_the_same_one_does_not():
    orders = {tuple(name for name, _ in log.seen) for log in run_all(two_senders, Late("log"), executions=1000)}
    for order in orders:
        assert sorted(order) == ["a1", "a2", "b1", "b2"]
        assert order.index("a1") < order.index("a2")
        assert order.index("b1") < order.index("b2")
    assert len(orders) == 6  # all that there are


def test_a_late_message_comes_after_its_seconds_and_not_before():
    async def body(log, ref):
        await log.ask(ref, "late")
        await log.ask(ref, "next")

    logs = run_all(body, Late("log", at=1, seconds=2.5))
    assert agree(logs, "at", "ends") == [{"late": 2.5, "next": 2.5}, {"late": "reply 1", "next": "reply 1"}]


def test_a_message_that_is_late_by_nothing_is_overtaken_all_the_same():
    orders = {tuple(name for name, _ in log.seen) for log in run_all(two_senders, Late("log", at=1, seconds=0))}
    assert {order[0] for order in orders} == {"a1", "b1"}
    assert any(order[:2] == ("b1", "b2") for order in orders)


def test_what_the_same_task_sends_waits_behind_it_though_a_worker_is_free():
    async def body(log, ref):
        await log.tell(ref, "late")
        await log.tell(ref, "behind")
        assert ref.statistics().queued == 2
        assert ref.statistics().idle <= 1
        await log.ask(ref, "last")

    logs = run_all(body, FIRST)
    assert agree(logs, "seen") == [("late", 1), ("behind", 1), ("last", 1)]
    assert agree(logs, "at") == {"late": 1, "behind": 1, "last": 1}


def test_two_late_messages_of_a_task_come_when_both_have_come():
    async def body(log, ref):
        await log.tell(ref, "long")
        await log.tell(ref, "short")
        await log.ask(ref, "last")

    logs = run_all(body, Late("log", at=1, seconds=3), Late("log", at=2, seconds=2))
    assert agree(logs, "at") == {"long": 3, "short": 3, "last": 3}
    logs = run_all(body, Late("log", at=1, seconds=2), Late("log", at=2, seconds=3))
    assert agree(logs, "at") == {"long": 2, "short": 3, "last": 3}
    assert agree(logs, "seen") == [("long", 1), ("short", 1), ("last", 1)]


def test_it_is_accepted_at_once_and_queued_until_it_comes():
    async def body(log, ref):
        await log.tell(ref, "late")
        assert trio.current_time() == 0
        statistics = ref.statistics()
        assert (statistics.queued, statistics.ledger.accepted, statistics.ledger.pending) == (1, 1, 1)
        await trio.sleep(2)
        assert log.seen == [("late", 1)]

    run_all(body, FIRST)


# What becomes of one that has not come


def test_its_asker_gives_up_and_it_is_withdrawn():
    async def body(log, ref):
        await log.ask(ref, "late", timeout=2)
        assert trio.current_time() == 2
        await log.ask(ref, "next")
        assert trio.current_time() == 2

    logs = run_all(body, Late("log", at=1, seconds=5))
    assert agree(logs, "seen", "ends") == [[("next", 1)], {"late": "AskTimeout", "next": "reply 1"}]
    assert {(log.ledger.cancelled, log.ledger.replied) for log in logs} == {(1, 1)}


def test_an_asker_that_would_give_up_when_it_comes_gives_up():
    async def body(log, ref):
        await log.ask(ref, "late", timeout=2)

    logs = run_all(body, Late("log", at=1, seconds=2))
    assert agree(logs, "seen", "ends") == [[], {"late": "AskTimeout"}]


def test_its_asker_is_cancelled_and_it_is_withdrawn():
    async def body(log, ref):
        with trio.move_on_after(0.5):
            await log.ask(ref, "late")
        await log.ask(ref, "next")
        assert trio.current_time() == 0.5

    logs = run_all(body, FIRST)
    assert agree(logs, "seen", "ends") == [[("next", 1)], {"late": "Cancelled", "next": "reply 1"}]


def test_a_stop_makes_it_a_dead_letter():
    async def body(log, ref):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.ask, ref, "asked")
            await log.tell(ref, "told")
            await trio.sleep(0.5)
            await ref.stop()
        assert trio.current_time() == 0.5
        await log.ask(ref, "after")

    logs = run_all(body, Late("log", at=1), Late("log", at=2))
    assert {frozenset(log.ends.items()) for log in logs} == {
        frozenset({"asked": "ActorDead", "told": "told", "after": "ActorDead"}.items())
    }
    assert {tuple(sorted(log.letters)) for log in logs} == {
        (("no_recipient", "after"), ("stopped", "asked"), ("stopped", "told"))
    }
    assert not any(log.seen for log in logs)


def test_a_supervisor_that_is_left_makes_it_a_dead_letter():
    async def body(log, ref):
        await log.tell(ref, "late")
        await log.tell(ref, "behind")

    logs = run_all(body, FIRST)
    assert agree(logs, "seen", "letters") == [[], [("stopped", "late"), ("stopped", "behind")]]


def test_a_supervisor_that_is_cancelled_leaves_nothing_behind():
    async def program():
        with trio.move_on_after(0.5):
            async with open_log() as (log, ref):
                await log.ask(ref, "late")
        assert trio.current_time() == 0.5

    explore_all(program, clock="auto", faults=[FIRST])


def test_a_restart_in_the_middle_keeps_it():
    async def body(log, ref):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.ask, ref, "late")
            await trio.testing.wait_all_tasks_blocked()
            await log.ask(ref, "crash", "fail")
        assert ref.statistics().restarts == 1

    backoff = Restart(backoff=Backoff(initial=3, jitter=0))
    for restart, at in ((None, 1), (backoff, 3)):
        logs = run_all(body, FIRST, restart=restart)
        assert agree(logs, "seen") == [("crash", 1), ("late", 1)]
        assert {log.at["late"] for log in logs} == {at}


def test_a_supervisor_below_that_is_restarted_keeps_it():
    times = set()

    async def program():
        async with open_log() as (log, _):
            above = log.supervisor
            child = await above.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="below")
            ref = await child.spawn(log.handle, name="log")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.ask, ref, "late")
                await trio.testing.wait_all_tasks_blocked()
                await log.ask(ref, "crash", "fail")
            times.add(log.at["late"])
        assert log.ends == {"crash": "Broken", "late": "reply 1"}
        assert above.ledger.replied == 1

    report = explore(program, clock="auto", faults=[Late("below/log", at=1)], max_executions=300)
    report.raise_for_failure()
    assert times == {1}


# Others


def test_a_pool_and_messages_that_are_delivered_again():
    async def body(log, ref):
        await together((log.ask, ref, "late", "fail", 0), (log.ask, ref, "b", "fail", 0), (log.ask, ref, "c"))

    for options in ({"pool": 2}, {}):
        logs = run_all(body, FIRST, **AGAIN, **options)
        assert agree(logs, "ends") == {"late": "reply 2", "b": "reply 2", "c": "reply 1"}


def test_a_stage_of_a_run():
    async def body(log, ref):
        snapshot = {"name": "stage", "how": (0,)}
        pipeline = Pipeline("p").with_stage("asked", ref, timeout=0.5)
        result = await log.supervisor.run(pipeline, snapshot, continue_on_failure=True)
        assert result.states["asked"] == "failed"
        result = await log.supervisor.run(pipeline, {**snapshot, "name": "again"})
        assert result.states["asked"] == "ok"

    logs = run_all(body, FIRST)
    assert agree(logs, "seen") == [("again", 1)]


def test_a_client_that_assumes_an_order_between_two_senders_is_found():
    """Each hands over to the other by an event, and so takes what it sent for handled before."""

    async def program(ask):
        async with open_log() as (log, ref):
            begun = trio.Event()

            async def begin():
                await (log.ask if ask else log.tell)(ref, "begin")
                begun.set()

            async def end():
                await begun.wait()
                await log.ask(ref, "end")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(begin, name="begin")
                nursery.start_soon(end, name="end")
            await trio.sleep(1)
        assert [name for name, _ in log.seen][:2] == ["begin", "end"]

    async def assumes():
        await program(ask=False)

    async def waits():
        await program(ask=True)

    explore_all(assumes, clock="auto")
    explore_all(waits, clock="auto", faults=[Late("log")])
    failure = find(assumes, clock="auto", faults=[Late("log")])
    assert (failure.faults, failure.preemptions) == (1, 0)
    told = [str(step) for step in failure.trace]
    late = next(step for step in failure.trace if step.then == "struck by Late('log')")
    assert late.task == "begin"
    assert late.did == "the message {'name': 'begin', 'how': (0,)} to log comes late"
    assert late.choice == 1
    assert any(step.endswith("the late message {'name': 'begin', 'how': (0,)} arrives") for step in told)
    again = replay(assumes, failure.schedule, faults=[Late("log")], clock="auto")
    assert (again.trace, again.faults) == (failure.trace, 1)


@pytest.mark.parametrize("clock", ["auto", "explore"])
def test_time_may_pass_early(clock):
    """With a clock that is explored, a late message comes in the middle of everything."""
    orders = set()

    async def program():
        async with open_log() as (log, ref):
            await together((log.ask, ref, "late"), (log.ask, ref, "other"))
        orders.add(tuple(name for name, _ in log.seen))

    explore(program, clock=clock, faults=[FIRST], max_executions=300).raise_for_failure()
    assert orders == {("other", "late"), ("late", "other")} if clock == "explore" else {("other", "late")}
