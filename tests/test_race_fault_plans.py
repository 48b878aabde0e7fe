"""The whole program is cancelled and its clock jumps; several faults make a plan."""

from __future__ import annotations

import pytest
import trio
from race_cases import Ledger, explore_all, find, working, working_alone
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint

from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, explore, replay


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_cancellation_from_outside_at_a_step(at):
    ledger = Ledger()
    explore_all(working(ledger), faults=[Cancel(at=at)])
    (done,) = ledger.all or [[]]
    assert [told for _, told in done if told == "cancelled"] == ["cancelled"] * (at > 1 or bool(done))
    assert len(done) <= at


def test_a_cancellation_from_outside_anywhere():
    ledger = Ledger()
    report = explore_all(working(ledger), faults=[Cancel()])
    cancelled_at = [next((number for number, told in done if told == "cancelled"), None) for done in ledger.all]
    assert report.executions == len(ledger.all)
    assert {None, 0, 1, 2} <= set(cancelled_at)


def test_a_cancelled_program_is_no_failure_and_its_cleanup_counts():
    async def program():
        try:
            await trio.sleep(10)
        finally:
            with trio.CancelScope(shield=True):
                await checkpoint()
            assert trio.current_time() == 10, "too early"

    failure = find(program, faults=[Cancel()])
    assert failure.faults == 1
    assert "too early" in str(failure.error)
    assert replay(program, failure.schedule, faults=[Cancel()]).faults == 1


def test_a_sleeping_program_hears_its_cancellation_before_time_passes():
    times = []

    async def program():
        try:
            await trio.sleep(10)
        except trio.Cancelled:
            times.append(trio.current_time())
            raise

    explore_all(program, faults=[Cancel(at=2)])
    assert 0.0 in times


def test_a_cancellation_that_may_come_hides_no_deadlock():
    async def program():
        await trio.Event().wait()

    for fault in (Cancel(), ClockJump(5), Crash("program"), Delay("program")):
        assert find(program, faults=[fault]).kind == "lost wake-up"


def test_a_clock_jump_at_a_step_and_anywhere():
    ledger = Ledger()
    explore_all(working(ledger), faults=[ClockJump(7, at=4)])
    assert ledger.all == [[(0, 0.0), (1, 7.0), (2, 7.0)]]
    ledger = Ledger()
    explore_all(working(ledger), faults=[ClockJump(7)])
    assert {tuple(told for _, told in done) for done in ledger.all} >= {
        (0.0, 0.0, 0.0),
        (7.0, 7.0, 7.0),
        (0.0, 7.0, 7.0),
        (0.0, 0.0, 7.0),
    }


def test_a_clock_jump_passes_deadlines_that_lie_between():
    async def program():
        with trio.move_on_after(3) as scope:
            await trio.sleep(2)
        return scope.cancelled_caught

    results = []

    async def collecting():
        results.append(await program())

    explore_all(collecting, faults=[ClockJump(10)])
    assert set(results) == {True, False}


def test_faults_at_neighbouring_steps_all_strike():
    ledger = Ledger()
    explore(working(ledger, 6), strategy="dfs", max_executions=1, faults=[ClockJump(1, at=3), ClockJump(1, at=4)])
    assert ledger.done[-1] == (5, 2.0)


def test_a_fault_at_the_step_after_a_cancellation_strikes():
    times = []

    async def program():
        for _ in range(5):
            await cancel_shielded_checkpoint()
        times.append(trio.current_time())

    explore(program, strategy="dfs", max_executions=1, faults=[Cancel(at=2), ClockJump(5, at=3)])
    assert times == [5.0]


def test_each_fault_strikes_once_at_most():
    ledger = Ledger()
    explore_all(working(ledger, 4), faults=[Crash("worker"), ClockJump(1)])
    for done in ledger.all:
        assert sum(told == "crashed" for _, told in done) <= 1
        assert max((told for _, told in done if told != "crashed"), default=0) <= 1


def test_what_struck_is_told_in_the_trace():
    failure = find(working_alone, faults=[Crash("worker")])
    assert any("struck by Crash('worker')" in str(step) for step in failure.trace)
    assert "faults=(Crash('worker'),)" in failure.call
    assert "1 fault" in str(failure)


def test_the_plan_of_a_failure_replays_it():
    faults = [Crash("worker"), Delay("worker"), Cancel(), ClockJump(3)]
    failure = find(working_alone, faults=faults)
    again = replay(working_alone, failure.schedule, faults=faults)
    assert [str(step) for step in again.trace] == [str(step) for step in failure.trace]
