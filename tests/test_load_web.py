"""The load test of the FastAPI example: what must hold under load holds, and what does not is told. Never a time."""

from __future__ import annotations

import asyncio
import importlib
import json

import attrs
import pytest
from bench_scripts import make_importable

OURS = {"load_web", "web_clients", "web_server"}


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Import the benchmark as it is when it is run as a script, and forget it afterwards."""
    make_importable(monkeypatch, OURS)


@pytest.fixture
def load_web():
    return importlib.import_module("load_web")


def test_ten_seconds_of_load_leave_nothing(load_web, tmp_path, capsys):
    files = tmp_path / "load.json", tmp_path / "load.svg"
    code = load_web.main(["--seconds", "10", "--json", str(files[0]), "--plot", str(files[1])])
    shown = capsys.readouterr().out
    assert "no line missed" in shown, shown
    assert code == 0
    raw = json.loads(files[0].read_text(encoding="utf-8"))
    assert raw["misses"] == []
    assert set(raw["tally"]["done"]) == set(load_web.KINDS)
    assert raw["samples"]
    assert "<svg" in files[1].read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["--guest"]])
def test_a_minute_of_load_leaves_nothing(load_web, capsys, mode):
    code = load_web.main(["--seconds", "60", *mode])
    assert code == 0, capsys.readouterr().out


# What does not hold is told


@pytest.fixture
def load(load_web):
    sample = load_web.Sample(0.0, 0, 4, 8, 2, 70.0)
    tally = load_web.Tally()
    tally.done.update(dict.fromkeys(load_web.KINDS, 2))
    return load_web.Load(200, 10.0, tally, [sample], sample, sample, "")


def test_a_load_that_holds_misses_nothing(load):
    assert load.list_misses() == []


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ({"trio_tasks": 9}, ["trio_tasks: 9 left, 8 before"]),
        ({"runs": 1, "threads": 3}, ["runs: 1 left, 0 before", "threads: 3 left, 2 before"]),
        ({"rss": 70.0 + 16.5}, ["the memory has grown by 16.5 MiB, more than 16"]),
        ({"rss": None}, []),
        ({"asyncio_tasks": 3}, []),
    ],
)
def test_growth_is_a_miss(load, after, told):
    assert attrs.evolve(load, after=attrs.evolve(load.after, **after)).list_misses() == told


def test_errors_and_complaints_are_misses(load):
    load.tally.errors.append("report: WrongAnswerError: status 500")
    del load.tally.done["stream"]
    assert attrs.evolve(load, complaints="ERROR").list_misses() == [
        "1 errors that the clients have not caused",
        "no request of the kind 'stream' was done",
        "the server has complained",
    ]


def test_a_wrong_answer_is_an_error():
    clients = importlib.import_module("web_clients")
    order = clients.Order("report", ("Oslo", "Atlantis"), 0.0)
    right = {"ended": "completed", "ranking": [{"city": "Oslo"}], "missing": {"Atlantis": "none"}}
    clients.check(order, right)
    for wrong in ({"ended": "timed out"}, {"ranking": []}, {"missing": {}}):
        with pytest.raises(clients.WrongAnswerError):
            clients.check(order, {**right, **wrong})


def test_a_server_that_does_not_start_is_told(monkeypatch):
    server = importlib.import_module("web_server")

    async def main():
        async with server.serve("--no-such-option"):
            pytest.fail("it serves")

    with pytest.raises(RuntimeError, match="the server does not serve"):
        asyncio.run(main())


@pytest.mark.parametrize("arguments", [["--clients", "0"], ["--clients", "1001"], ["--seconds", "0.5"]])
def test_bounds_are_kept(load_web, arguments, capsys):
    with pytest.raises(SystemExit):
        load_web.main(arguments)
    assert "must be from 1 to" in capsys.readouterr().err
