"""How frontrun hunts a bug, in a process of its own; and how that is compared with ours. Never a time."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import attrs
import pytest
from race_bench import bench  # noqa: F401  # a fixture

needs_frontrun = pytest.mark.skipif(importlib.util.find_spec("frontrun") is None, reason="frontrun is not installed")


@pytest.fixture
def frontrun(bench):  # noqa: F811
    return bench("race_frontrun")


@pytest.fixture
def beside(bench):  # noqa: F811
    return bench("race_beside")


@needs_frontrun
@pytest.mark.parametrize(("twin", "verdict"), [(False, "found"), (True, "holds")])
@pytest.mark.parametrize("tool", ["ours", "ours, dpor alone", "frontrun DPOR", "frontrun DPOR, best settings"])
def test_a_bug_is_found_and_its_twin_holds(frontrun, tool, twin, verdict):
    sighting = frontrun.hunt_elsewhere(frontrun.Prey(tool, "lost update", twin, rounds=2))
    assert sighting.verdict == verdict
    assert 0 < sighting.executions < 20
    assert sighting.seconds > 0


@needs_frontrun
def test_it_hunts_at_random_too(frontrun):
    sighting = frontrun.hunt_elsewhere(frontrun.Prey("frontrun random", "lost update", rounds=1))
    assert sighting.verdict == "found"
    assert sighting.says.startswith("Invariant violated")


@needs_frontrun
def test_a_bug_that_needs_a_clock_is_given_one_that_is_explored(frontrun):
    prey = frontrun.Prey("frontrun DPOR", "dropped item", executions=7, seconds=3.0)
    assert frontrun.choose_options(prey) == {"total_timeout": 3.0, "max_executions": 7, "clock": "explored"}
    assert frontrun.hunt_elsewhere(prey).verdict in {"found", "holds"}


def test_everybody_has_the_same_budget(frontrun):
    def choose(tool):
        return frontrun.choose_options(frontrun.Prey(tool, "lost update", executions=7, seconds=3.0))

    assert choose(frontrun.DPOR) == {"total_timeout": 3.0, "max_executions": 7}
    assert choose(frontrun.TUNED) == {
        **choose(frontrun.DPOR),
        "clock": "explored",
        "preemption_bound": None,
    }
    assert choose(frontrun.RANDOM) == {"total_timeout": 3.0, "max_attempts": 7, "strategy": "random", "seed": 0}
    assert set(choose(frontrun.HASTY)) - set(choose(frontrun.RANDOM)) == {"deadlock_timeout", "timeout_per_run"}


@pytest.fixture
def instead(frontrun, monkeypatch):
    """Return what replaces the process that hunts by a piece of Python."""
    run = subprocess.run

    def replace(code):
        def run_instead(_command, **options):
            return run([sys.executable, "-c", code], **options)

        monkeypatch.setattr(frontrun.subprocess, "run", run_instead)

    return replace


PREY = {"tool": "frontrun DPOR", "name": "lost update", "seconds": 0.0}


def test_a_process_that_hangs_is_stopped_and_told(frontrun, instead, monkeypatch):
    instead("import time; time.sleep(60)")
    monkeypatch.setattr(frontrun.Prey, "patience", 0.1)
    sighting = frontrun.hunt_elsewhere(frontrun.Prey(**PREY))
    assert (sighting.verdict, sighting.says) == ("ran out of time", "stopped after 0.1 s")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('ill', file=sys.stderr); sys.exit(3)", "ill"),
        ("import os; os._exit(3)", "exit code 3"),
        ("raise ValueError('bad')", "ValueError: bad"),
        ("pass", "exit code 0"),
    ],
)
def test_a_process_that_crashes_is_told(frontrun, instead, code, says):
    instead(code)
    sighting = frontrun.hunt_elsewhere(frontrun.Prey(**PREY))
    assert (sighting.verdict, sighting.says, sighting.executions) == ("crashed", says, None)


def test_only_the_last_line_counts(frontrun, instead):
    told = json.dumps({"verdict": "holds", "executions": 4, "seconds": 0.5, "says": ""})
    instead(f"print('chatter'); print({told!r})")
    assert frontrun.hunt_elsewhere(frontrun.Prey(**PREY)) == frontrun.Sighting("holds", 4, 0.5)


def test_a_short_hunt_is_repeated_for_its_time(frontrun, monkeypatch):
    times = iter([0.3, 0.1, 0.2, 9.0])
    monkeypatch.setattr(frontrun, "hunt_ourselves", lambda _: lambda: frontrun.Sighting("found", 2, next(times)))
    assert frontrun.hunt_here(frontrun.Prey("ours", "lost update", rounds=3)).seconds == 0.2
    assert next(times) == 9.0


def test_a_long_hunt_is_not(frontrun, monkeypatch):
    times = iter([2.0])
    monkeypatch.setattr(frontrun, "hunt_ourselves", lambda _: lambda: frontrun.Sighting("found", 2, next(times)))
    assert frontrun.hunt_here(frontrun.Prey("ours", "lost update", rounds=3)).seconds == 2.0


def test_ours_says_that_a_program_holds_only_when_it_is_complete(frontrun):
    few = frontrun.Prey("ours", "three philosophers", twin=True, executions=2, rounds=1)
    assert frontrun.hunt_here(few).verdict == "no verdict"
    assert frontrun.hunt_here(attrs.evolve(few, executions=500)).verdict == "holds"


def test_nobody_imports_frontrun_but_the_process_of_its_own(bench):  # noqa: F811
    bench("bench_race")
    code = "import sys, bench_race; print('frontrun' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=bench("race_frontrun").__file__.rsplit("/", 1)[0],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


# The comparison


@pytest.fixture
def see(frontrun):
    """Return what makes the sightings of a bug: ours and frontrun's by default, each an outcome."""

    def make(ours, theirs, tuned=None):
        tools = {frontrun.OURS: ours, frontrun.REDUCED: ours, frontrun.DPOR: theirs, frontrun.TUNED: tuned or theirs}
        return {tool: frontrun.Sighting(*outcome) for tool, outcome in tools.items()}

    return make


@pytest.mark.parametrize(
    ("ours", "theirs", "fewer", "quicker"),
    [
        (("found", 3, 0.1), ("found", 3, 0.5), True, True),
        (("found", 4, 0.1), ("found", 3, 0.4), False, False),
        (("found", 900, 4.0), ("holds", 2, 0.1), True, False),
        (("found", 900, 4.0), ("ran out of time",), True, True),
        (("no verdict", 1000, 0.1), ("holds", 2, 5.0), False, True),
        (("ran out of time",), ("ran out of time",), False, False),
    ],
)
def test_a_bug_is_judged_by_executions_and_time(beside, see, ours, theirs, fewer, quicker):
    bars = beside.judge({"a": see(ours, theirs)})
    assert [bar.missed == () for bar in bars[:2]] == [fewer, quicker]


def test_the_sum_of_the_times_is_of_what_both_find(beside, see):
    bugs = {
        "a": see(("found", 3, 0.1), ("found", 3, 1.0), ("found", 1, 1.0)),
        "b": see(("found", 9, 0.3), ("found", 3, 1.0)),
        "c": see(("found", 3, 9.6), ("holds", 3, 98.0)),
    }
    fewer, quicker, in_sum = beside.judge(bugs)
    assert (fewer.missed, fewer.note) == (("b",), "2 of 3; beside its best settings 1; by our dpor alone 2")
    assert (quicker.missed, quicker.note) == (("b",), "2 of 3; of those that both find 1 of 2")
    assert in_sum.what == "our wall time for the 2 that both find, against its"
    assert (in_sum.reached, in_sum.ok, in_sum.note) == (pytest.approx(0.2), True, "for all 3 bugs 0.100x")


def test_without_frontrun_there_is_no_comparison(beside, bench, monkeypatch):  # noqa: F811
    monkeypatch.setattr(beside, "find_version", lambda: None)
    taken = beside.measure_rivals(bench("race_bars").Settings([]))
    assert (taken.lines, taken.figures, taken.head[1]) == ([], [], "frontrun is not installed")


def test_each_tool_hunts_bug_and_twin(beside, bench, monkeypatch):  # noqa: F811
    hunted = []

    def hunt(prey):
        hunted.append((prey.tool, prey.name, prey.twin))
        return beside.Sighting("holds" if prey.twin else "found", 3, 0.5)

    corpus = importlib.import_module("property_tests.corpus")
    monkeypatch.setattr(beside, "find_version", lambda: "0.7.0")
    monkeypatch.setattr(beside, "hunt_elsewhere", hunt)
    entries = [corpus.find(name) for name in ("cancelled cleanup", "lost update", "aba")]
    taken = beside.measure_rivals(bench("race_bars").Settings(entries))
    assert hunted == [
        (tool, name, twin) for twin in (False, True) for name in ("lost update", "aba") for tool in beside.TOOLS
    ]
    assert taken.lines[0] == ("lost update", *["found in 3, 0.500 s"] * len(beside.TOOLS))
    assert beside.read_sightings(json.loads(json.dumps(taken.raw))["twins"])["aba"]["ours"].verdict == "holds"
    hunted.clear()
    beside.measure_rivals(bench("race_bars").Settings(entries, rivals=1))
    assert {name for _, name, _ in hunted} == {"lost update"}
