"""What an exploration says: the failure as a person reads it, and the coverage without a word too much."""

from __future__ import annotations

import re

import attrs
import pytest
import trio
from race_cases import explore_all, find, leak_a_cancellation, lock_both, lose_an_update, queue_up, side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.errors import RaceError, StageflowError
from stageflow_actors.testing import Crash, RaceFailure, Report, explore, replay
from stageflow_actors.testing._schedule import encode

LOST_UPDATE = """\
update: AssertionError: 1 instead of 2 after 6 steps, 1 preemption; none fails with fewer
    1  update  starts, awaits the end of its nursery  [tests/race_cases.py:LINE in update]
    2  one     starts, awaits trio.lowlevel.checkpoint  [tests/race_cases.py:LINE in add]
>   3  two     one could go on; starts, awaits trio.lowlevel.checkpoint  [tests/race_cases.py:LINE in add]
    4  two     after trio.lowlevel.checkpoint, ends
    5  one     after trio.lowlevel.checkpoint, ends
    6  update  after the end of its nursery, ends with AssertionError: 1 instead of 2
replay: replay(update, '01')
found in """


def unnumbered(report):
    """Return a report's text without what moves when a line is added to a test."""
    return re.sub(r"\.py:\d+", ".py:LINE", str(report))


def test_a_lost_update_as_a_person_reads_it():
    text = unnumbered(explore(lose_an_update()))
    assert text.startswith(LOST_UPDATE)
    assert re.fullmatch(r"\d+ executions?, simplified in \d+ more, seed 0", text.removeprefix(LOST_UPDATE))


def test_a_deadlock_as_a_person_reads_it():
    text = unnumbered(explore(lock_both()))
    assert text.startswith("lock: deadlock after ")
    waits = "\n      lock waits for the end of one and two, since step 1, tests/race_cases.py:LINE in lock\n"
    assert f"when it was stopped:{waits}" in text
    assert re.search(
        r"\n      one waits for Lock\.acquire, held by two, since step \d+, tests/race_cases\.py:LINE in work\n", text
    )


def test_the_error_is_raised_from_the_programs_own():
    report = explore(lose_an_update())
    with pytest.raises(RaceError) as caught:
        report.raise_for_failure()
    error = caught.value
    assert isinstance(error, (StageflowError, AssertionError))
    assert error.failure is report.failure
    assert error.report is report
    assert error.__cause__ is report.failure.error
    assert str(report) in str(error)


def test_the_error_of_one_child_is_the_cause_and_not_the_group():
    async def child():
        raise ValueError("mine")

    async def program():
        await side_by_side(child)

    report = explore(program)
    with pytest.raises(RaceError) as caught:
        report.raise_for_failure()
    assert isinstance(report.failure.error, ExceptionGroup)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_deadlock_has_no_cause():
    with pytest.raises(RaceError) as caught:
        explore(lock_both()).raise_for_failure()
    assert caught.value.__cause__ is None


def test_nothing_is_raised_where_nothing_failed():
    explore(checkpoint).raise_for_failure()


# Coverage


def test_complete():
    report = explore(lambda: side_by_side(checkpoint, checkpoint), strategy="dfs")
    assert str(report) == "<lambda>: no failure in any schedule: complete, 6 executions"


def test_complete_by_partial_order_reduction():
    report = explore(lambda: side_by_side(checkpoint, checkpoint))
    assert str(report) == (
        "<lambda>: no failure in any schedule that can be told apart: complete, 2 executions,"
        " 2 by partial order reduction"
    )


def test_one_execution():
    assert str(explore(one_task)) == "one_task: no failure in any schedule: complete, 1 execution"


async def one_task():
    await checkpoint()


def test_complete_for_a_clock_that_waits():
    text = str(explore(one_task, clock="auto"))
    assert text == (
        "one_task: no failure in any schedule: complete, 1 execution,"
        " with a clock that jumps only when nothing else can go on"
    )


@pytest.mark.parametrize(
    ("executions", "told"),
    [
        (1, "no failure in 1 execution"),
        (24, "no failure in 24 executions: every schedule without a preemption"),
        (200, "no failure in 200 executions: every schedule with at most 1 preemption"),
    ],
)
def test_what_a_bounded_search_says(executions, told):
    report = explore(lambda: side_by_side(*[checkpoint] * 4), strategy="dfs", max_executions=executions)
    assert str(report) == f"<lambda>: {told}"
    assert "holds" not in str(report)


def test_what_samplers_say():
    report = explore(one_task, strategy="pct", max_executions=30, seed=5)
    assert str(report) == "one_task: no failure in 30 executions: 30 sampled; seed 5"


def test_what_the_portfolio_says():
    report = explore(lambda: queue_up(5), max_executions=1_000, seed=2)
    assert re.fullmatch(
        r"<lambda>: no failure in 1,000 executions: every schedule without a preemption, \d+ sampled; seed 2",
        str(report),
    )


# The failure


def test_long_traces_are_cut_and_steps_that_repeat_are_folded():
    async def program():
        for _ in range(30):
            await checkpoint()
        for number in range(60):
            await trio.sleep(number + 1)
        raise ValueError

    failure = find(program)
    lines = str(failure).splitlines()
    assert len(failure.trace) > 120
    assert "the first " in lines[1]
    assert "`failure.trace` has all" in lines[1]
    assert len(lines) < 70
    assert [step.number for step in failure.trace] == list(range(1, len(failure.trace) + 1))


def test_steps_that_repeat_are_folded():
    async def program():
        for _ in range(20):
            await checkpoint()
        raise ValueError

    text = str(find(program))
    assert "(and 18 more steps like it)" in text
    assert len(text.splitlines()) < 10


def test_many_waiting_tasks_are_cut():
    async def program():
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(trio.Event().wait)

    failure = find(program, max_executions=1)
    assert len(failure.waiting) == 51
    assert "      and 31 more tasks\n" in str(failure)


def test_tasks_of_the_same_name_are_told_apart():
    async def worker():
        await checkpoint()
        raise ValueError

    async def program():
        await side_by_side(worker, worker, worker)

    tasks = {step.task for step in find(program).trace}
    assert tasks == {"program", "worker", "worker#2", "worker#3"}


class Service:
    async def run(self):
        await checkpoint()
        raise ValueError

    async def __call__(self):
        await side_by_side(self.run)


def test_methods_are_told_with_their_class_and_objects_by_it():
    failure = find(Service())
    assert {step.task for step in failure.trace} >= {"run"}
    assert " at 0x" not in str(failure)
    assert failure.call.startswith("replay(Service")


def test_addresses_are_left_out():
    class Thing:
        pass

    async def other():
        raise ValueError(Thing())

    assert " at 0x" not in str(find(leak_a_cancellation))
    assert " at 0x" not in str(find(other))


def test_a_group_of_errors_is_told_in_one_line():
    async def fail():
        raise ValueError("a\nb")

    async def fail_too():
        raise KeyError("c")

    async def program():
        await side_by_side(fail, fail_too)

    first = str(find(program)).splitlines()[0]
    assert re.match(r"program: (ValueError: a|KeyError: 'c') and 1 more after \d+ steps, without a preemption", first)


def test_steps_say_what_was_chosen_and_who_was_preempted():
    failure = find(lose_an_update())
    preemptions = [step for step in failure.trace if step.preempts]
    assert len(preemptions) == failure.preemptions == 1
    assert (preemptions[0].preempts, preemptions[0].task, preemptions[0].choice) == ("one", "two", 1)
    choices = [step.choice for step in failure.trace if step.choice is not None]
    assert encode(choices) == failure.schedule


def test_the_trace_ends_with_what_happened():
    failure = find(lose_an_update())
    assert failure.trace[0].did == "starts"
    assert failure.trace[-1].then.startswith("ends with AssertionError")
    assert failure.trace[-1].task == "update"
    assert failure.steps == len(failure.trace)


def test_reports_and_failures_are_values():
    for value in (explore(lose_an_update()), find(lose_an_update())):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            value.program = "other"
    assert isinstance(explore(one_task), Report)
    assert isinstance(replay(lose_an_update(), find(lose_an_update()).schedule), RaceFailure)
    assert "trace" not in repr(find(lose_an_update()))


def test_cost_counts_preemptions_jumps_and_faults():
    async def worker():
        with trio.move_on_after(1):
            await checkpoint()
            await checkpoint()

    async def program():
        await side_by_side(worker)

    failure = find(program, faults=[Crash("worker")])
    assert (failure.preemptions, failure.jumps, failure.faults, failure.cost) == (0, 0, 1, 1)


def test_replayed_failures_claim_nothing_about_others():
    failure = find(lose_an_update())
    assert "none fails with fewer" in str(failure)
    again = replay(lose_an_update(), failure.schedule)
    assert "fewer" not in str(again)
    assert again.preemptions == 1


def test_a_program_that_is_silent_stays_silent(capsys, caplog):
    explore_all(lambda: side_by_side(checkpoint, checkpoint))
    find(lose_an_update())
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
