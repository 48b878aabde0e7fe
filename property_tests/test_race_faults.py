"""Whatever strikes a random program, its executions end, repeat themselves, and are what their faults make of them."""

from __future__ import annotations

from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, explore, replay
from stageflow_actors.testing._schedule import encode

from .race_driving import run_all, run_schedules, run_traced
from .race_programs import programs, schedules, small_programs

names = st.sampled_from(["t1", "t2", "t3", "*", "Drawn.program"])
points = st.one_of(st.none(), st.integers(1, 4))
plans = st.lists(
    st.one_of(
        st.builds(Crash, names, points),
        st.builds(Delay, names, points, st.sampled_from([0.0, 0.5, 3.0])),
        st.builds(Cancel, points),
        st.builds(ClockJump, st.sampled_from([0.5, 3.0]), points),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
KINDS = {"deadlock", "lost wake-up"}
MOST = 60


@given(programs, schedules, plans)
def test_the_same_choices_and_faults_lead_to_the_same_steps(drawn, choices, faults):
    first, second = run_schedules(drawn.program, [choices, choices], faults=faults)
    assert first.value == second.value
    assert (first.choices, first.widths, first.free) == (second.choices, second.widths, second.free)
    traced, steps = run_traced(drawn.program, first.choices, faults=faults)
    assert traced.value == first.value
    assert traced.choices == first.choices
    assert (traced.failure is None) == (first.failure is None)
    assert traced.failure is None or traced.failure.kind in KINDS
    event("waits for ever" if traced.failure else "ends")
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))


@settings(max_examples=50)
@given(small_programs, plans)
def test_the_search_repeats_itself_and_strikes_each_fault_once(drawn, faults):
    executions, frontier = run_all(drawn.program, faults=faults, most=MOST)
    assert not frontier.diverged
    assert len({tuple(execution.choices) for execution in executions}) == len(executions)
    assert [execution.cost for execution in executions] == sorted(execution.cost for execution in executions)
    for execution in executions[::7]:
        _, steps = run_traced(drawn.program, execution.choices, faults=faults)
        for fault in set(faults):
            told = sum(f"struck by {fault!r}" in step.did or step.task == repr(fault) for step in steps)
            assert told <= faults.count(fault)


@settings(max_examples=50)
@given(small_programs, plans)
def test_what_is_found_is_replayed(drawn, faults):
    report = explore(drawn.failing, faults=faults, max_executions=MOST)
    event("fails" if report.failure else "does not")
    assert not report.diverged
    if report.failure is not None:
        again = replay(drawn.failing, report.failure.schedule, faults=faults)
        assert report.failure.reproduced
        assert list(map(str, again.trace)) == list(map(str, report.failure.trace))
        assert encode(choice for step in again.trace if (choice := step.choice) is not None)


@settings(max_examples=50)
@given(small_programs, plans)
def test_without_a_strike_it_is_the_program_without_faults(drawn, faults):
    """Faults that may strike anywhere are further choices: who never takes one sees what there is without them."""
    anywhere = [type(fault)(*fault_values(fault)) for fault in faults]
    plain, _ = run_all(drawn.program, most=MOST)
    struck, _ = run_all(drawn.program, faults=anywhere, most=4 * MOST)
    cheap = {execution.value for execution in plain if execution.cost == 0}
    others = {execution.value for execution in struck if execution.cost == 0}
    if len(plain) < MOST and len(struck) < 4 * MOST:
        assert others == cheap
    event("all" if len(struck) < 4 * MOST else "too many")


def fault_values(fault):
    """Return a fault's values up to where it strikes, which is left open."""
    if isinstance(fault, ClockJump):
        return (fault.seconds,)
    return (fault.on,) if isinstance(fault, (Crash, Delay)) else ()
