"""The same choices lead to the same steps, in this process and in others, whatever their hash seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from race_cases import lock_both, lose_an_update
from race_primitives import PROGRAMS

from property_tests.corpus import CORPUS
from property_tests.race_driving import run_all, run_schedules, run_traced
from stageflow_actors.testing import explore, replay

ROOT = Path(__file__).resolve().parent.parent

TRACES = """
import json, sys
sys.path[:0] = ["tests", "."]
from race_primitives import PROGRAMS
from property_tests.corpus import CORPUS
from property_tests.race_driving import run_traced
from stageflow_actors.testing import explore

told = {}
for program in PROGRAMS:
    for schedule in ([], [1] * 40, [0, 2, 1, 0, 3] * 8, [0, 0, 1] * 10):
        execution, steps = run_traced(program, schedule)
        told[f"{program.__name__} {schedule}"] = [execution.choices, execution.widths, *map(str, steps)]
for entry in CORPUS[::3]:
    told[entry.name] = str(explore(entry.bug, seed=3))
print(json.dumps(told))
"""


def test_under_every_hash_seed_traces_and_failures_are_the_same():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRACES],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    outputs = [json.loads(process.communicate()[0]) for process in processes]
    assert len(outputs[0]) > len(PROGRAMS)
    for output in outputs[1:]:
        assert output == outputs[0]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_what_ran_before_in_the_same_run_of_trio_changes_nothing(program):
    """Of two hundred schedules, each leads alone, and with a trace, to where it led among the others."""
    executions, frontier = run_all(program, most=200)
    assert not frontier.diverged
    for execution in executions[:: max(1, len(executions) // 10)]:
        alone, steps = run_traced(program, execution.choices)
        assert (alone.choices, alone.widths, alone.free) == (execution.choices, execution.widths, execution.free)
        assert alone.value == execution.value
        assert alone.steps == execution.steps == len(steps)


@pytest.mark.parametrize("program", PROGRAMS[::4], ids=lambda program: program.__name__)
def test_trios_own_coin_decides_nothing(program):
    """Trio shuffles who goes first, with random numbers of its own."""
    ran = run_schedules(program, [[1, 0, 2]] * 100)
    assert len({execution.value for execution in ran}) == 1
    assert len({tuple(execution.widths) for execution in ran}) == 1


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)
def test_each_bug_of_the_corpus_is_replayed_as_it_was_found(entry):
    failure = explore(entry.bug, max_executions=1_000).failure
    if failure is None:
        pytest.skip("not found with so few executions: property_tests/corpus says which are deep")
    assert failure.reproduced
    again = replay(entry.bug, failure.schedule)
    assert list(map(str, again.trace)) == list(map(str, failure.trace))
    assert (again.kind, again.preemptions, again.jumps) == (failure.kind, failure.preemptions, failure.jumps)


def test_two_explorations_are_the_same():
    for make in (lose_an_update, lock_both):
        assert str(explore(make())) == str(explore(make()))
