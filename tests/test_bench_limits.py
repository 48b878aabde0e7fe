"""The benchmark of limits: every row does its work and looks at what came of it. Never a time."""

from __future__ import annotations

import importlib
import json
from functools import partial

import pytest
import trio
from bench_scripts import make_importable

OURS = {"peers", "measuring", "rows", "running", "bench_dag005", "limit_rows", "bench_limits"}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Import the benchmarks as they are when a script of theirs is run, and forget them afterwards."""
    make_importable(monkeypatch, OURS)


@pytest.fixture
def limit_rows():
    return importlib.import_module("limit_rows")


@pytest.fixture
def settings():
    return importlib.import_module("rows").Settings({}, rounds=2)


@pytest.mark.parametrize(
    ("row", "arguments", "names", "figures"),
    [
        (
            "measure_policies",
            {"size": 200, "bar": 1.15},
            ["none", "Limiter(64)", "max_running_stages=64", "both", "with a rate", "restart, never used"],
            ["200 wide, Limiter(64) against none", "200 wide, max_running_stages=64 against none"],
        ),
        (
            "measure_policies",
            {"size": 3, "bar": None},
            ["none", "Limiter(64)", "max_running_stages=64", "both", "with a rate", "restart, never used"],
            [],
        ),
        (
            "measure_fan_out",
            {"size": 200, "rounds": 9},
            [
                "declared",
                "declared, limited",
                "list, collected",
                "list, counted",
                "generator, collected",
                "generator, counted",
            ],
            [
                "200 items from a list, collected: throughput against declared stages",
                "200 items from a list, counted: throughput against declared stages",
                "200 items from a generator, collected: throughput against declared stages",
                "200 items from a generator, counted: throughput against declared stages",
            ],
        ),
        (
            "measure_fan_memory",
            {"small": 100, "large": 200},
            ["counted", "counted", "collected", "collected"],
            ["memory at the peak, 200 counted items against 100"],
        ),
        ("measure_tickets", {"sizes": (70, 200)}, ["one limiter", "with a rate", "two limiters"], []),
    ],
)
def test_each_row_measures_what_it_names(limit_rows, settings, row, arguments, names, figures):
    taken = getattr(limit_rows, row)(settings, **arguments)
    assert [line[0] for line in taken.lines] == names
    assert [figure.what for figure in taken.figures] == figures
    assert {len(line) for line in taken.lines} == {len(taken.head)}
    json.dumps(taken.raw)


def test_every_candidate_is_measured_once_a_round(limit_rows, settings):
    raw = limit_rows.measure_fan_out(settings, 5, rounds=9).raw
    for times in (raw["processor seconds"], raw["wall seconds"]):
        assert {name: len(rounds) for name, rounds in times.items()} == dict.fromkeys(times, 2)
        assert len(times) == 6


def test_a_counted_fan_out_does_not_grow_and_a_collected_one_does(limit_rows, settings):
    raw = limit_rows.measure_fan_memory(settings, 1000, 4000).raw
    (small, _), (large, _) = raw["counted"].values()
    assert large < 1.5 * small
    (small, _), (large, _) = raw["collected"].values()
    assert large > 2 * small


def test_rows_are_the_ones_of_the_figures(limit_rows):
    assert list(limit_rows.ROWS) == [
        "fan-out-100000",
        "fan-out-memory",
        "policies-500",
        "policies-5000",
        "tickets",
    ]


@pytest.fixture
def lying(limit_rows, monkeypatch):
    """Return a row whose workers give something else than they have to."""

    async def work(_ctx):
        return {"value": 0}

    monkeypatch.setattr(limit_rows, "work", work)
    return partial(limit_rows.measure_fan_out, size=3, rounds=1)


def test_a_wrong_output_is_named_and_stops_the_measuring(lying, settings):
    wrong = importlib.import_module("measuring").WrongOutputError
    with pytest.raises(wrong) as caught:
        lying(settings)
    assert str(caught.value) == "fan: it gave (3, 3, 0), not (3, 3, 3030)"


def test_a_ticket_that_does_not_pass_is_noticed(limit_rows):
    wrong = importlib.import_module("measuring").WrongOutputError
    tickets = limit_rows.Tickets(5, (limit_rows.Limiter(2),), 3)
    tickets.look(trio.run(tickets.run))
    with pytest.raises(wrong, match=r"^14 of 15 tickets passed$"):
        tickets.look(14)


@pytest.fixture
def small(limit_rows, monkeypatch):
    """Return the script's `main`, one of its rows made small and sure to fall short."""
    row = partial(limit_rows.measure_policies, size=3, bar=1e-9)
    monkeypatch.setitem(limit_rows.ROWS, "policies-500", row)
    return importlib.import_module("bench_limits").main


def test_the_script_prints_a_table_and_writes_the_numbers(small, tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert small(["--only", "policies-500", "--only", "tickets", "--rounds", "2", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "3 wide, Limiter(64) against none" in printed
    assert "0 of 2 figures are reached." in printed
    written = json.loads(file.read_text())
    assert (written["rounds"], [figure["ok"] for figure in written["figures"]]) == (2, [False, False])
    assert len(written["rows"]["policies-500"]["wall seconds"]["none"]) == 2
    assert list(written["rows"]) == ["policies-500", "tickets"]


def test_the_script_fails_where_an_output_is_wrong(small, lying, limit_rows, monkeypatch, capsys):
    monkeypatch.setitem(limit_rows.ROWS, "fan-out-100000", lying)
    assert small(["--only", "fan-out-100000", "--quick"]) == 1
    assert "wrong output in fan-out-100000: fan: it gave (3, 3, 0), not (3, 3, 3030)" in capsys.readouterr().out


def test_the_script_refuses_no_rounds(small, capsys):
    with pytest.raises(SystemExit) as caught:
        small(["--rounds", "0"])
    assert caught.value.code == 2
    assert "--rounds must be at least 1" in capsys.readouterr().err
