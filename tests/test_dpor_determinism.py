"""The reduction makes the same executions in the same order in every process, whatever its hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from property_tests.corpus import CORPUS, find
from property_tests.outcomes_of import by_dpor
from stageflow_actors.testing import explore, replay

ROOT = Path(__file__).resolve().parent.parent

EXECUTIONS = """
import json, sys
sys.path[:0] = ["tests", "."]
from property_tests.corpus import CORPUS
from property_tests.dpor_kinds import KINDS
from property_tests.dpor_programs import draw
from property_tests.dpor_sources import draw_text
from property_tests.outcomes_of import run_reduced, tell
from stageflow_actors.testing import explore

told = {}
drawn = [draw(KINDS, seed) for seed in range(15)] + [draw_text(seed) for seed in range(6)]
programs = {str(one): one.program if hasattr(one, "program") else one.load() for one in drawn}
programs |= {entry.name: entry.twin for entry in CORPUS[::14]}
for name, program in programs.items():
    executions, search = run_reduced(program, most=40)
    told[name] = [
        [(one.choices, one.steps, repr(tell(one))) for one in executions], sorted(search.untracked), search.is_complete
    ]
for entry in CORPUS[::14]:
    told[f"report of {entry.name}"] = [str(explore(entry.bug, strategy="dpor")), str(explore(entry.bug))]
print(json.dumps(told))
"""


def test_under_every_hash_seed_the_executions_are_the_same():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", EXECUTIONS],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 1)
    ]
    outputs = [json.loads(process.communicate()[0]) for process in processes]
    assert len(outputs[0]) > 25
    for output in outputs[1:]:
        different = [name for name, told in outputs[0].items() if output[name] != told]
        assert not different, different[0]


@pytest.mark.parametrize("entry", CORPUS[::6], ids=lambda entry: entry.name)
def test_what_was_explored_before_changes_nothing(entry):
    """Classes are made to tell of their attributes while a program is explored, and are left as they were."""
    before = by_dpor(entry.twin, most=200)
    explore(find("lost update").bug, strategy="dpor")
    explore(entry.bug, strategy="dpor", max_executions=50)
    assert by_dpor(entry.twin, most=200) == before


@pytest.mark.parametrize("entry", CORPUS[::6], ids=lambda entry: entry.name)
def test_what_it_finds_is_replayed_without_it(entry):
    failure = explore(entry.bug, strategy="dpor", max_executions=2_000).failure
    if failure is None:
        pytest.skip("not found with so few executions")
    assert failure.reproduced
    again = replay(entry.bug, failure.schedule)
    assert list(map(str, again.trace)) == list(map(str, failure.trace))
