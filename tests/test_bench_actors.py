"""The benchmark of resident actors: every row does its work and looks at what came of it. Never a time."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial

import pytest
import trio
from bench_scripts import make_importable

OURS = {
    "actor_asks",
    "actor_lives",
    "actor_rows",
    "actor_timing",
    "bench_actors",
    "bench_dag005",
    "measuring",
    "peers",
    "rows",
    "running",
    "tables",
}
CLIENTS = ["2 clients", "2 clients, timeout=None", "a task an ask"]
PYKKA = ["pykka, 2 clients", "pykka, futures in one thread"]
ONE = ", on one processor"
LIVES = [
    "spawning",
    "spawning, each depends on the one before",
    "spawning, all in a child supervisor",
    "leaving the supervisor",
    "leaving it, each depends on the one before",
    "leaving it, all in a child supervisor",
    "stop() of each",
    "stop() of each, each depends on the one before",
    "stop() of each, all in a child supervisor",
    "stop() of all at once",
]

ASIDE = [
    "spawning, without the collector",
    "starting by hand, tasks behind channels",
    "leaving it, without the collector",
    "stop() of all at once, without the collector",
    "by hand, tasks behind channels",
]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Import the benchmarks as they are when a script of theirs is run, and forget them afterwards."""
    make_importable(monkeypatch, OURS)


@pytest.fixture
def asks():
    return importlib.import_module("actor_asks")


@pytest.fixture
def rows(asks, monkeypatch):
    """Return the module of all rows, with as many processors as there may be."""
    monkeypatch.setattr(asks, "CAN_STAY", True)
    return importlib.import_module("actor_rows")


@pytest.fixture
def pykka():
    pytest.importorskip("pykka")
    return importlib.import_module("peers.pykka_asks")


@pytest.fixture
def settings():
    return importlib.import_module("rows").Settings({"pykka": None}, rounds=2)


@pytest.fixture
def beside_pykka(pykka):
    return importlib.import_module("rows").Settings({"pykka": pykka}, rounds=2)


def list_names(taken):
    """Return the names of what was measured; every line has a cell for each heading, and the numbers are JSON."""
    assert {len(line) for line in taken.lines} == {len(taken.head)}
    json.dumps(taken.raw)
    return [line[0] for line in taken.lines]


@pytest.mark.parametrize(
    ("row", "arguments", "names"),
    [
        (
            "measure_ask",
            {"count": 3},
            ["ask(timeout=5)", "ask(timeout=None)", "channel, event, fail_after"],
        ),
        ("measure_asks", {"actors": 2, "each": 3}, CLIENTS),
        (
            "measure_restarts",
            {"count": 3, "family": 4},
            [
                "crash after crash",
                "crash after crash, an async context manager",
                "restart() after restart()",
                "4 crash at once",
                "one_for_all, one of 4 crashes",
                "one_for_all, restart() of 4",
            ],
        ),
        (
            "measure_stages",
            {"size": 3, "repeat": 2},
            [
                "wide, the stage class",
                "wide, the actor",
                "wide, the actor, behind a mailbox of 64",
                "chain, the stage class",
                "chain, the actor",
                "chain, the actor, behind a mailbox of 64",
            ],
        ),
        (
            "measure_pool",
            {"pool": 2, "clients": 3, "each": 1},
            [
                "sleeps 1 ms, pool=1",
                "sleeps 1 ms, pool=2",
                "awaits a checkpoint, pool=1",
                "awaits a checkpoint, pool=2",
                "awaits nothing, pool=1",
                "awaits nothing, pool=2",
            ],
        ),
        (
            "measure_pending",
            {"pending": 3, "count": 2},
            [
                "an ask, nothing pending",
                "an ask beside 3 with a timeout",
                "an ask beside 3 without",
                "one of 3 that wait with a timeout, answered",
                "without a timeout, answered",
                "with a timeout, cancelled",
                "without a timeout, cancelled",
            ],
        ),
    ],
)
def test_each_row_measures_what_it_names(rows, settings, row, arguments, names):
    taken = getattr(rows, row)(settings, **arguments)
    assert list_names(taken) == names
    assert taken.figures == []
    for times in taken.raw.values():
        assert {name: len(rounds) for name, rounds in times.items()} == dict.fromkeys(names, 2)


def test_starting_and_stopping_are_compared_at_two_sizes(rows, settings):
    taken = rows.measure_lives(settings, small=1, large=3)
    names = list_names(taken)
    assert [name for name in names if name in LIVES] == LIVES
    assert [name for name in names if name not in LIVES] == ASIDE
    assert [figure.what for figure in taken.figures] == [f"{name}: 3 against 1" for name in LIVES]
    assert {(figure.bar, figure.at_most) for figure in taken.figures} == {(15, True)}


def test_asks_are_measured_beside_pykkas(rows, beside_pykka):
    taken = rows.measure_ask(beside_pykka, count=3)
    ours, theirs = "ask(timeout=5)", "pykka, ask(timeout=5)"
    alone = [ours, "ask(timeout=None)", "channel, event, fail_after", theirs, "pykka, ask()"]
    assert list_names(taken) == [*alone, ours + ONE, theirs + ONE]
    what = "ask with a timeout, one after the other, against pykka"
    assert [figure.what for figure in taken.figures] == [what, what + ONE]
    assert {(figure.bar, figure.at_most) for figure in taken.figures} == {(1.5, False)}


def test_many_asks_are_measured_beside_both_ways_of_pykka(rows, beside_pykka):
    taken = rows.measure_asks(beside_pykka, actors=2, each=3)
    assert list_names(taken) == [*CLIENTS, *PYKKA, *(name + ONE for name in (CLIENTS[0], *PYKKA))]
    what = "2 actors with 2 asks in flight, from clients, against pykka"
    assert [figure.what for figure in taken.figures] == [what, what + ONE]


def test_where_a_process_cannot_stay_on_one_processor_there_is_no_such_row(rows, asks, beside_pykka, monkeypatch):
    monkeypatch.setattr(asks, "CAN_STAY", False)
    taken = rows.measure_asks(beside_pykka, actors=2, each=3)
    assert list_names(taken) == [*CLIENTS, *PYKKA]
    assert len(taken.figures) == 1


def test_what_is_idle_or_waits_is_weighed(rows, settings):
    taken = rows.measure_memory(settings, small=5, large=20)
    names = list_names(taken)
    weights = {name: each[20] for name, each in taken.raw["bytes"].items()}
    assert list(weights) == names
    assert all(weight > 0 for weight in weights.values())
    assert weights["idle actor, a function"] > weights["worker of a pool"] > weights["queued message"]


def test_rows_are_the_ones_of_the_figures(rows):
    assert list(rows.ROWS) == [
        "ask",
        "asks-100",
        "lives-10000",
        "restarts",
        "stages",
        "pool",
        "pending-10000",
        "memory",
    ]


@pytest.fixture
def lying(rows, asks, monkeypatch):
    """Return a row whose actor gives something else than it has to."""

    async def execute(_self, _ctx):
        return {"n": 0}

    monkeypatch.setattr(asks.Counter, "execute", execute)
    return partial(rows.measure_ask, count=3)


def test_a_wrong_reply_is_named_and_stops_the_measuring(lying, settings):
    wrong = importlib.import_module("measuring").WrongOutputError
    with pytest.raises(wrong, match=r"^ask\(timeout=5\): it gave 0, not 6$"):
        lying(settings)


def test_a_restart_that_does_not_come_is_noticed(rows):
    wrong = importlib.import_module("measuring").WrongOutputError
    lives, timing = importlib.import_module("actor_lives"), importlib.import_module("actor_timing")

    async def restart_none(_watch, _count):
        return 0

    with pytest.raises(wrong, match=r"^restarts: it gave 0, not 3$"):
        lives.Restarting(3, restart_none)(timing.Stopwatch())


async def test_an_actor_that_lives_is_no_stopped_one(rows, nursery):
    lives = importlib.import_module("actor_lives")
    async with lives.Supervisor() as supervisor:
        ref = await supervisor.spawn(lives.idle, name="idle")
        assert not lives.has_ended(ref)
        await ref.stop()
        assert lives.has_ended(ref)


def test_the_watch_takes_time_inside_its_block_only():
    timing = importlib.import_module("actor_timing")
    watch = timing.Stopwatch()
    with watch:
        sum(range(1000))
    taken = watch.processor, watch.wall
    sum(range(1000))
    assert (watch.processor, watch.wall) == taken
    assert min(taken) >= 0


@pytest.fixture
def small(rows, monkeypatch):
    """Return the script's `main`, with rows made small."""
    for name, arguments in (
        ("ask", {"count": 2}),
        ("asks-100", {"actors": 2, "each": 2}),
        ("lives-10000", {"small": 1, "large": 2}),
        ("restarts", {"count": 2, "family": 2}),
        ("stages", {"size": 2, "repeat": 1}),
        ("pool", {"pool": 2, "clients": 2, "each": 1}),
        ("pending-10000", {"pending": 2, "count": 2}),
        ("memory", {"small": 2, "large": 3}),
    ):
        monkeypatch.setitem(rows.ROWS, name, partial(rows.ROWS[name].func, **arguments))
    return importlib.import_module("bench_actors").main


def test_the_script_prints_every_row_and_writes_the_numbers(small, rows, pykka, tmp_path, capsys):
    numbers, page = tmp_path / "figures.json", tmp_path / "figures.md"
    assert small(["--rounds", "1", "--json", str(numbers), "--markdown", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "Figures to reach" in printed
    written = json.loads(numbers.read_text())
    assert list(written["rows"]) == list(rows.ROWS)
    assert written["rounds"] == 1
    assert [figure["unit"] for figure in written["figures"]] == ["x"] * 4 + ["x in all"] * 10
    text = page.read_text()
    assert [line[4:] for line in text.splitlines() if line.startswith("### ")] == list(rows.ROWS)
    assert "| ask with a timeout, one after the other, against pykka | >= 1.5 x |" in text
    assert "A client asks an actor of its own" in text


def test_without_pykka_the_script_says_so(small, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pykka", None)
    assert small(["--only", "ask", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "pykka: not installed (pip install 'stageflow-actors[bench]')" in printed
    assert "0 of 0 figures are reached." in printed


def test_the_script_fails_where_a_reply_is_wrong(small, lying, rows, monkeypatch, capsys):
    monkeypatch.setitem(rows.ROWS, "ask", lying)
    assert small(["--only", "ask", "--quick"]) == 1
    assert "wrong output in ask: ask(timeout=5): it gave 0, not 6" in capsys.readouterr().out


def test_the_script_refuses_no_rounds(small, capsys):
    with pytest.raises(SystemExit) as caught:
        small(["--rounds", "0"])
    assert caught.value.code == 2
    assert "--rounds must be at least 1" in capsys.readouterr().err


def test_pykkas_asks_are_answered(pykka):
    watch = importlib.import_module("actor_timing").Stopwatch()
    assert pykka.ask_in_turn(watch, 3, 5.0) == 6
    assert pykka.ask_from_clients(watch, 2, 3, 5.0) == 12
    assert pykka.ask_by_futures(watch, 2, 3, 5.0) == 12


def test_ours_are_answered(asks):
    watch = importlib.import_module("actor_timing").Stopwatch()
    assert trio.run(asks.ask_in_turn, watch, 3, None) == 6
    assert trio.run(asks.ask_by_hand, watch, 3, 5.0) == 6
    assert trio.run(asks.ask_by_tasks, watch, 2, 3, 5.0) == 12
