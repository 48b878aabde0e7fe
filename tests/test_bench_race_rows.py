"""The rows of twins, replays and certificates of the race toolkit's benchmark."""

from __future__ import annotations

import attrs
import pytest
from race_bench import REPORT, bench  # noqa: F401  # a fixture

from property_tests.corpus import find
from stageflow_actors.testing import explore


@pytest.fixture
def rows(bench):  # noqa: F811
    return bench("race_rows")


@pytest.fixture
def make_settings(bench):  # noqa: F811
    def make(*entries, **options):
        return bench("race_bars").Settings(entries, **options)

    return make


@pytest.fixture
def replaying(bench):  # noqa: F811
    return bench("race_replaying")


def test_a_twin_that_fails_is_a_false_alarm(rows, make_settings):
    good, bad = find("lost update"), find("half built")
    taken = rows.measure_twins(make_settings(good, attrs.evolve(bad, twin=bad.bug), twin_executions=50))
    (bar,) = taken.figures
    assert (bar.reached, bar.ok, bar.missed, bar.number) == (50, False, ("half built",), 2)
    assert [bool(line[4]) for line in taken.lines] == [False, True]


def test_a_twin_gets_all_its_executions(rows, make_settings):
    taken = rows.measure_twins(make_settings(find("lost update"), twin_executions=50))
    (told,) = taken.raw["twins"]
    assert told["executions"] + told["drawn"] == 50
    assert told["complete"]
    assert taken.lines[0][2] == f"all, by {told['complete']}"


def test_a_false_alarm_of_what_is_drawn_counts(rows, make_settings, monkeypatch):
    def pretend(_program, max_executions, strategy="auto"):
        if strategy == "auto":
            return attrs.evolve(REPORT, failure=None, executions=5)
        return attrs.evolve(REPORT, executions=max_executions)

    monkeypatch.setattr(rows, "explore", pretend)
    taken = rows.measure_twins(make_settings(find("lost update"), twin_executions=50))
    assert taken.figures[0].missed == ("lost update",)
    assert taken.lines[0][:5] == ("lost update", "5", "up to 0", "45", "exception: 0101")


def test_a_failure_is_the_same_in_another_process(replaying):
    failures = {name: explore(find(name).bug).failure for name in ("lost update", "lock order")}
    schedules = [(name, failure.schedule) for name, failure in failures.items()]
    assert replaying.replay_elsewhere(schedules, 7) == [replaying.describe(failure) for failure in failures.values()]


def test_a_schedule_that_no_longer_fails_is_told(replaying):
    assert replaying.replay_one("lost update", "0") is None
    assert "which is no choice" in replaying.replay_one("lost update", "nonsense!")["refused"]


def test_a_replay_that_differs_is_named(rows, make_settings, monkeypatch):
    elsewhere = rows.replay_elsewhere
    parts = []

    def replay_worse(schedules, hash_seed):
        if hash_seed != 42:
            return [rows.describe(explore(find(name).bug).failure) for name, _ in schedules]
        parts.append(len(schedules))
        return [
            {**told, "steps": 0} if told["kind"] == "deadlock" else told for told in elsewhere(schedules, hash_seed)
        ]

    monkeypatch.setattr(rows, "replay_elsewhere", replay_worse)
    taken = rows.measure_replays(make_settings(find("lost update"), find("lock order"), replays=3, together=3))
    (bar,) = taken.figures
    assert (bar.ok, bar.missed, bar.note) == (False, ("lock order",), "14 of 16")
    assert [line[1:] for line in taken.lines] == [("2", "4", "4"), ("2", "4", "4"), ("2", "4", "2"), ("2", "4", "4")]
    assert parts == [3, 1]


@pytest.fixture
def certificates(bench):  # noqa: F811
    return bench("race_certificates")


def test_the_ordered_philosophers_are_certified(certificates, make_settings, monkeypatch):
    monkeypatch.setattr(certificates, "find_version", lambda: None)
    taken = certificates.measure_certificates(make_settings(find("three philosophers"), twin_executions=200))
    (bar,) = taken.figures
    assert (bar.ok, bar.number, bar.note) == (True, 6, "frontrun is not installed")
    assert taken.lines[0][2] == "by dpor"
    assert taken.lines[-1][:3] == ("three philosophers, frontrun", "", "not installed")


@pytest.mark.parametrize(
    ("told", "ok", "reached"),
    [
        ({"method": "dpor", "executions": 50}, True, 50),
        ({"method": "dfs", "executions": 50}, True, 50),
        ({"method": "dpor", "executions": 51}, False, 51),
        ({"method": None, "executions": 50}, False, float("inf")),
    ],
)
def test_philosophers_that_are_not_certified_in_time_miss_the_bar(certificates, told, ok, reached):
    bar = certificates.judge(told, {"verdict": "holds", "executions": 121, "seconds": 1.0})
    assert (bar.ok, bar.reached, bar.note) == (ok, reached, "frontrun, unbounded: 121")
    assert bool(bar.missed) != ok


def test_a_program_that_is_not_complete_is_told(certificates, make_settings):
    taken = certificates.measure_certificates(make_settings(find("lost update"), twin_executions=1))
    assert taken.figures == []
    assert taken.lines[0][:3] == ("lost update", "1", "not complete")
    assert taken.lines[-1][:3] == ("all", "1", "0 of 1, 0 of them by dpor")
