"""The script of the race toolkit's benchmark: what it refuses, prints, writes, and goes on with. Never a time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from bench_scripts import BENCHMARKS
from race_bench import bench  # noqa: F401  # a fixture

from property_tests.corpus import CORPUS


@pytest.fixture
def script(bench):  # noqa: F811
    return bench("bench_race")


@pytest.fixture
def rows(bench, script):  # noqa: F811
    return bench("race_rows")


def test_the_settings_are_those_of_the_figures(rows, bench):  # noqa: F811
    settings = bench("race_bars").Settings(CORPUS)
    assert (settings.peer_runs, settings.peer_seconds, settings.twin_executions) == (10_000, 5.0, 10_000)
    assert (settings.rivals, settings.rival_executions, settings.rival_seconds) == (None, 1000, 5.0)
    assert settings.replays * len(rows.HASH_SEEDS) == 100


def test_a_quick_run_prints_and_writes_all_tables(script, bench, tmp_path, capsys, monkeypatch):  # noqa: F811
    names = ["lost update", "lock order", "missed wake-up", "three philosophers", "leaked slot"]
    monkeypatch.setattr(bench("race_beside"), "find_version", lambda: None)  # hangs take seconds: see its own tests
    monkeypatch.setattr(bench("race_certificates"), "find_version", lambda: None)
    numbers, page = tmp_path / "figures.json", tmp_path / "figures.md"
    chosen = [argument for name in names for argument in ("--entry", name)]
    code = script.main(["--quick", "--rounds", "1", *chosen, "--json", str(numbers), "--markdown", str(page)])
    printed = capsys.readouterr().out
    written = json.loads(numbers.read_text())
    bars = {figure["what"]: figure["ok"] for figure in written["figures"]}
    assert code == (0 if all(bars.values()) else 1)
    assert f"{sum(bars.values())} of {len(bars)} figures are reached." in printed
    assert bars["bugs of depth below 5 found within 1,000 executions and 5 s"]
    assert bars["twins without a false alarm in 100 executions"]
    assert bars["replays with the same failure and the same trace"]
    assert bars["ordered three philosophers certified complete"]
    assert list(written["rows"]) == list(script.ROWS)
    assert [search["name"] for search in written["rows"]["finding"]["searches"]] == names
    told = page.read_text()
    for name in written["rows"]:
        assert f"{name} (" in printed
    assert "| lock order | 2 |" in told
    assert page.with_suffix(".svg").read_text().startswith("<svg ")


@pytest.fixture
def one_row(script, bench, monkeypatch):  # noqa: F811
    """Return the script's `main`, the rows replaced by one that reaches a given share."""
    bars, kinds = bench("race_bars"), bench("rows")

    def run(reached, *arguments):
        def measure(settings):
            settings.tell("it")
            counted = settings.kept.take("counted", lambda: reached)
            verdicts = [(str(number), number < counted) for number in range(4)]
            figures = [bars.percent("quarters", 75, verdicts, number=2)]
            return kinds.Taken(("a|b", "c"), [("x|y", "1")], figures, {"number": counted})

        monkeypatch.setattr(script, "ROWS", {"cost": measure})
        return script.main(["--only", "cost", *arguments])

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


def test_what_is_kept_is_not_measured_again(one_row, tmp_path):
    kept, numbers = tmp_path / "kept.jsonl", tmp_path / "figures.json"
    assert one_row(4, "--resume", str(kept)) == 0
    assert one_row(1, "--resume", str(kept), "--json", str(numbers)) == 0
    assert json.loads(numbers.read_text())["rows"] == {"cost": {"number": 4}}


def test_what_is_kept_with_other_settings_is_refused(one_row, tmp_path, capsys):
    kept = tmp_path / "kept.jsonl"
    one_row(4, "--resume", str(kept))
    with pytest.raises(SystemExit) as caught:
        one_row(4, "--resume", str(kept), "--rounds", "2")
    assert caught.value.code == 2
    assert f"--resume: {kept} is of a run with other settings or versions" in capsys.readouterr().err


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
    assert script.read_arguments(arguments).settings.rounds == rounds


def test_quick_means_a_third_of_the_bugs_unless_some_are_named(script):
    assert len(script.read_arguments([]).entries) == len(CORPUS)
    quick = script.read_arguments(["--quick"]).entries
    assert len(quick) == -(-len(CORPUS) // 3)
    assert "three philosophers" in {entry.name for entry in quick}
    named = script.read_arguments(["--quick", "--entry", "aba", "--entry", "lost update"]).entries
    assert [entry.name for entry in named] == ["aba", "lost update"]


INTERRUPTED = """
import runpy, sys
benchmarks, error = sys.argv[1:]
sys.path.insert(0, benchmarks)
import race_rows

def measure(settings):
    settings.tell("it")
    raise eval(error)

race_rows.ROWS["cost"] = measure
sys.argv = ["bench_race.py", "--only", "cost"]
runpy.run_path(f"{benchmarks}/bench_race.py", run_name="__main__")
"""


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "BaseExceptionGroup('trio', [KeyboardInterrupt()])"])
def test_an_interrupt_ends_the_script_with_one_line(error):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(BENCHMARKS), error], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "stopped; a run with --resume FILE can be gone on with\n")
