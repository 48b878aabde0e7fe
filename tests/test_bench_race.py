"""The benchmark of the race toolkit: everybody gets the same programs, and what misses a bar is named. Never a time."""

from __future__ import annotations

import importlib
import json

import attrs
import pytest
import trio
from bench_scripts import make_importable

from property_tests.corpus import CORPUS, find
from stageflow_actors.testing import RaceFailure, Report, explore

OURS = {
    "peers",
    "measuring",
    "rows",
    "bench_dag005",
    "race_peers",
    "race_rows",
    "race_replaying",
    "bench_race",
    "tables",
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Import the benchmarks as they are when a script of theirs is run, and forget them afterwards."""
    make_importable(monkeypatch, OURS)


@pytest.fixture
def peers():
    return importlib.import_module("race_peers")


@pytest.fixture
def rows():
    return importlib.import_module("race_rows")


@pytest.fixture
def replaying():
    return importlib.import_module("race_replaying")


@pytest.fixture
def script():
    return importlib.import_module("bench_race")


async def sleep():
    await trio.sleep(3)


def test_the_program_of_twenty_steps_has_twenty(rows):
    async def program():
        await rows.twenty_steps()
        raise ValueError

    assert explore(program).failure.steps == 20


def test_twins_that_sleep_are_known(rows):
    assert rows.lets_time_pass(sleep)
    assert not rows.lets_time_pass(rows.twenty_steps)


FAILURE = RaceFailure(
    program="bug",
    kind="exception",
    error=ValueError(),
    schedule="0101",
    preemptions=1,
    jumps=0,
    faults=0,
    minimal=True,
    reproduced=True,
    steps=9,
    trace=(),
)
REPORT = Report(program="bug", failure=FAILURE, executions=12, complete=False, bound=0, sampled=0, simplified_in=7)


@pytest.fixture
def make_search(rows, peers):
    """Return what makes the outcome of a search: a good one, but for what is given."""

    def make(name="lost update", *, seconds=0.1, report=REPORT, others=(12, 15), **failure):
        if failure:
            report = attrs.evolve(report, failure=attrs.evolve(FAILURE, **failure))
        plain = peers.Hunt(100, 5.0, runs=3, kind="hang")
        return rows.Search(find(name), report, seconds, others, plain, peers.Hunt(100, 5.0, runs=1000))

    return make


NOT_FOUND = attrs.evolve(REPORT, failure=None, executions=1000)


@pytest.mark.parametrize(
    ("name", "given", "missed"),
    [
        ("lost update", {}, []),
        ("depth 5", {}, []),
        ("lost update", {"report": NOT_FOUND}, ["shallow", "all"]),
        ("depth 5", {"report": NOT_FOUND}, ["all"]),
        ("lost update", {"seconds": 5.1}, ["shallow", "all"]),
        ("lost update", {"kind": "deadlock"}, ["kind"]),
        ("lost update", {"minimal": False}, ["minimal"]),
        ("lost update", {"report": attrs.evolve(REPORT, simplified_in=301)}, ["minimal"]),
        ("lost update", {"schedule": "01" * 20}, []),
        ("lost update", {"schedule": "01" * 20 + "1"}, ["length"]),
    ],
)
def test_what_misses_a_bar_is_named(rows, make_search, name, given, missed):
    bars = dict(
        zip(("shallow", "all", "kind", "minimal", "length"), rows.judge([make_search(name, **given)]), strict=True)
    )
    assert [title for title, bar in bars.items() if bar.missed] == missed
    assert [title for title, bar in bars.items() if not bar.ok] == missed
    assert {missed_by for bar in bars.values() for missed_by in bar.missed} <= {name}


def test_one_bug_in_thirty_may_be_missed_if_it_is_named(rows, make_search):
    searches = [make_search("depth 5", report=NOT_FOUND), *[make_search() for _ in range(29)]]
    bar = rows.judge(searches)[1]
    assert (bar.ok, bar.missed, bar.note) == (True, ("depth 5",), "29 of 30")


def test_no_failures_miss_no_bar(rows):
    bar = rows.percent("of none", 95, [])
    assert (bar.reached, bar.ok, bar.note) == (100, True, "0 of 0")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {},
            (
                "lost update",
                "2",
                "exception",
                "12",
                "0.100",
                "12 to 15",
                "1",
                "0",
                "7 more",
                "4",
                "hang in 3",
                "not in 1,000",
            ),
        ),
        (
            {"jumps": 2, "kind": "deadlock", "minimal": False, "others": (12, None)},
            (
                "lost update",
                "2",
                "deadlock, not exception",
                "12",
                "0.100",
                "1 do not find it",
                "1",
                "2",
                "not in 7",
                "4",
                "hang in 3",
                "not in 1,000",
            ),
        ),
        (
            {"report": NOT_FOUND, "others": ()},
            ("lost update", "2", "", "not in 1,000", "0.100", "", "", "", "", "", "hang in 3", "not in 1,000"),
        ),
    ],
)
def test_a_search_is_told_in_a_line(rows, make_search, given, line):
    assert rows._tell_search(make_search(**given)) == line


def test_all_searches_are_told_in_a_line(rows, make_search):
    searches = [make_search(), make_search(schedule="0" * 50), make_search(report=NOT_FOUND, others=(None,))]
    assert rows._tell_all(searches) == (
        "all",
        "",
        "",
        "2 of 3",
        "0.300",
        "2 of 3",
        "",
        "",
        "2 of 3",
        "at most 50",
        "3 of 3",
        "0 of 3",
    )


def test_a_twin_that_fails_is_a_false_alarm(rows):
    good, bad = find("lost update"), find("half built")
    taken = rows.measure_twins(rows.Settings([good, attrs.evolve(bad, twin=bad.bug)], twin_executions=50))
    (bar,) = taken.figures
    assert (bar.reached, bar.ok, bar.missed) == (50, False, ("half built",))
    assert [line[2] for line in taken.lines] == ["all", "up to 0"]
    assert [bool(line[3]) for line in taken.lines] == [False, True]


def test_a_failure_is_the_same_in_another_process(replaying):
    failures = {name: explore(find(name).bug).failure for name in ("lost update", "lock order")}
    schedules = [(name, failure.schedule) for name, failure in failures.items()]
    assert replaying.replay_elsewhere(schedules, 7) == [replaying.describe(failure) for failure in failures.values()]


def test_a_schedule_that_no_longer_fails_is_told(replaying):
    assert replaying.replay_one("lost update", "0") is None
    assert "which is no choice" in replaying.replay_one("lost update", "nonsense!")["refused"]


def test_a_replay_that_differs_is_named(rows, monkeypatch):
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
    entries = [find("lost update"), find("lock order")]
    taken = rows.measure_replays(rows.Settings(entries, replays=3, together=3))
    (bar,) = taken.figures
    assert (bar.ok, bar.missed, bar.note) == (False, ("lock order",), "14 of 16")
    assert [line[1:] for line in taken.lines] == [("2", "4", "4"), ("2", "4", "4"), ("2", "4", "2"), ("2", "4", "4")]
    assert parts == [3, 1]


def test_the_settings_are_those_of_the_figures(rows):
    settings = rows.Settings(CORPUS)
    assert (settings.peer_runs, settings.peer_seconds, settings.twin_executions) == (10_000, 5.0, 10_000)
    assert settings.replays * len(rows.HASH_SEEDS) == 100


def test_a_quick_run_prints_and_writes_all_tables(script, tmp_path, capsys):
    names = ["lost update", "lock order", "missed wake-up", "depth 3", "leaked slot"]
    numbers, page = tmp_path / "figures.json", tmp_path / "figures.md"
    chosen = [argument for name in names for argument in ("--entry", name)]
    code = script.main(["--quick", "--rounds", "1", *chosen, "--json", str(numbers), "--markdown", str(page)])
    printed = capsys.readouterr().out
    written = json.loads(numbers.read_text())
    bars = {figure["what"]: figure["ok"] for figure in written["figures"]}
    assert code == (0 if all(bars.values()) else 1)
    assert f"{sum(bars.values())} of {len(bars)} figures are reached." in printed
    assert bars["bugs of depth below 5 found within 1,000 executions and 5 s"]
    assert bars["twins without a false alarm in 300 executions, or in all there are"]
    assert bars["replays with the same failure and the same trace"]
    assert list(written["rows"]) == ["finding", "false-alarms", "cost", "shared", "replays"]
    assert [search["name"] for search in written["rows"]["finding"]["searches"]] == names
    told = page.read_text()
    for name in written["rows"]:
        assert f"\n### {name}\n" in told
        assert f"{name} (" in printed
    assert "| lock order | 2 | deadlock |" in told


@pytest.fixture
def one_row(script, rows, monkeypatch):
    """Return the script's `main`, the rows replaced by one that reaches a given share."""

    def run(reached, *arguments):
        def measure(settings):
            """Look at quarters."""
            settings.tell("it")
            verdicts = [(str(number), number < reached) for number in range(4)]
            return rows.Taken(("a|b", "c"), [("x|y", "1")], [rows.percent("quarters", 75, verdicts)], {})

        monkeypatch.setattr(script, "ROWS", {"finding": measure})
        return script.main(["--only", "finding", *arguments])

    return run


@pytest.mark.parametrize(
    ("reached", "code", "verdict", "line"),
    [(4, 0, "ok", ""), (3, 0, "ok", "quarters: all but 3"), (2, 1, "MISSED", "quarters: all but 2, 3")],
)
def test_a_missed_bar_fails_the_script(one_row, capsys, reached, code, verdict, line):
    assert one_row(reached) == code
    printed = capsys.readouterr().out
    assert verdict in printed
    assert line in printed
    assert ("all but" in printed) == bool(line)


def test_the_tables_are_written_with_their_misses(one_row, tmp_path):
    page = tmp_path / "figures.md"
    one_row(2, "--markdown", str(page))
    assert page.read_text().split("\n\n", 1)[1] == (
        "| figure | bar | reached |  |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| quarters | >= 75 % | 50 | **missed** |\n\n"
        "Quarters: all but 2, 3.\n\n"
        "### finding\n\n"
        "Look at quarters.\n\n"
        "| a\\|b | c |\n"
        "| --- | ---: |\n"
        "| x\\|y | 1 |\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--entry", "lost updat"], "--entry must be one of the corpus, not 'lost updat'; there are: lost update, "),
    ],
)
def test_the_script_refuses_what_cannot_be_measured(script, capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        script.main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "rounds"),
    [
        ([], 5),
        (["--rounds", "9"], 9),
        (["--quick"], 2),
        (["--quick", "--rounds", "1"], 1),
        (["--quick", "--rounds", "9"], 2),
    ],
)
def test_quick_means_few_rounds(script, arguments, rounds):
    assert script.make_settings(script.read_arguments(arguments)).rounds == rounds
