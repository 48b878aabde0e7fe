"""The rows of the race toolkit's benchmark: everybody gets the same programs, and what misses a bar is named."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
from race_bench import FAILURE, REPORT, bench, make_search  # noqa: F401  # fixtures

from property_tests.corpus import find
from stageflow_actors.testing import explore


@pytest.fixture
def finding(bench):  # noqa: F811
    return bench("race_finding")


async def sleep():
    await trio.sleep(3)


def test_the_program_of_twenty_steps_has_twenty(bench):  # noqa: F811
    async def program():
        await bench("race_cost").twenty_steps()
        raise ValueError

    assert explore(program).failure.steps == 20


def test_twins_that_sleep_are_known(bench):  # noqa: F811
    cost = bench("race_cost")
    assert cost.lets_time_pass(sleep)
    assert not cost.lets_time_pass(cost.twenty_steps)


NOT_FOUND = {"kind": None, "executions": 1000, "schedule": "", "minimal": None}


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        ({}, []),
        ({"name": "depth 5"}, []),
        (NOT_FOUND, ["shallow", "all"]),
        ({"name": "depth 5", **NOT_FOUND}, ["all"]),
        ({"seconds": 5.1}, ["shallow", "all"]),
        ({"kind": "deadlock"}, ["kind"]),
        ({"minimal": False}, ["minimal"]),
        ({"extra": 301}, ["minimal"]),
        ({"schedule": "01" * 20}, []),
        ({"schedule": "01" * 20 + "1"}, ["length"]),
    ],
)
def test_what_misses_a_bar_is_named(finding, make_search, given, missed):  # noqa: F811
    titles = ("shallow", "all", "kind", "minimal", "length")
    bars = dict(zip(titles, finding.judge([make_search(**given)]), strict=True))
    assert [title for title, bar in bars.items() if bar.missed] == missed
    assert [title for title, bar in bars.items() if not bar.ok] == missed
    assert {name for bar in bars.values() for name in bar.missed} <= {given.get("name", "lost update")}


def test_one_bug_in_thirty_may_be_missed_if_it_is_named(finding, make_search):  # noqa: F811
    searches = [make_search(name="depth 5", **NOT_FOUND), *[make_search() for _ in range(29)]]
    bar = finding.judge(searches)[1]
    assert (bar.ok, bar.missed, bar.note) == (True, ("depth 5",), "29 of 30")


def test_no_failures_miss_no_bar(bench):  # noqa: F811
    bar = bench("race_bars").percent("of none", 95, [])
    assert (bar.reached, bar.ok, bar.note) == (100, True, "0 of 0")


PEERS = ("hang in 3", "not in 1,000")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, ("exception", "12", "0.100", "12 to 15", "1", "0", "7 more", "4")),
        (
            {"jumps": 2, "kind": "deadlock", "minimal": False, "others": (12, None)},
            ("deadlock, not exception", "12", "0.100", "1 do not find it", "1", "2", "not in 7", "4"),
        ),
        ({"others": (), **NOT_FOUND}, ("", "not in 1,000", "0.100", "", "", "", "", "")),
    ],
)
def test_a_search_is_told_in_a_line(finding, make_search, given, line):  # noqa: F811
    assert finding._tell_search(make_search(**given)) == ("lost update", "2", *line, *PEERS)


def test_all_searches_are_told_in_a_line(finding, make_search):  # noqa: F811
    searches = [make_search(), make_search(schedule="0" * 50), make_search(others=(None,), **NOT_FOUND)]
    assert finding._tell_all(searches) == (
        *("all", "", "", "2 of 3", "0.300", "2 of 3", "", "", "2 of 3", "at most 50", "3 of 3", "0 of 3"),
    )


def test_a_search_survives_being_written(finding, bench, monkeypatch):  # noqa: F811
    settings = bench("race_bars").Settings([], rounds=2, peer_runs=3, peer_seconds=10.0)
    monkeypatch.setattr(finding, "explore", lambda _program, seed=0: attrs.evolve(REPORT, executions=12 + seed))
    told = json.loads(json.dumps(finding.search(settings, find("lock of another"))))
    found = finding.read_search(told)
    assert (found.name, found.kind, found.schedule, found.extra) == (
        "lock of another",
        FAILURE.kind,
        FAILURE.schedule,
        7,
    )
    assert (found.executions, found.others, found.plain.runs) == (12, (13,), 3)
    assert found.is_found


def test_a_search_that_finds_nothing_survives_it_too(finding, bench, monkeypatch):  # noqa: F811
    settings = bench("race_bars").Settings([], rounds=2, peer_runs=3, peer_seconds=10.0)
    monkeypatch.setattr(finding, "explore", lambda _program, **_: attrs.evolve(REPORT, failure=None))
    found = finding.read_search(json.loads(json.dumps(finding.search(settings, find("depth 5")))))
    assert (found.kind, found.others, found.is_found) == (None, (None,), False)
