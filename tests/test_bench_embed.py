"""The benchmark of embedding: every row does its work and looks at what came of it. Never a time."""

from __future__ import annotations

import importlib
import json

import pytest
from bench_scripts import make_importable

OURS = {"batch_stages", "peers", "measuring", "rows", "running", "bench_dag005", "embed_rows", "bench_embed"}
EXAMPLES = {"cpu_batch", "source_index"}


@pytest.fixture
def embed_rows(monkeypatch):
    """Import the rows as they are when the script is run, with less to do, and forget them afterwards."""
    make_importable(monkeypatch, OURS | EXAMPLES)
    rows = importlib.import_module("embed_rows")
    monkeypatch.setattr(rows, "CALLS", 4)
    return rows


@pytest.fixture
def settings(embed_rows):
    return embed_rows.Settings({}, rounds=2)


def test_synchronous_calls(embed_rows, settings):
    taken = embed_rows.measure_pykka(settings)
    assert [line[0] for line in taken.lines] == ["by hand", "ours"]
    assert [figure.what for figure in taken.figures] == ["a synchronous call, against the bare bridge"]


@pytest.mark.parametrize(
    ("together", "what"), [(1, "a call from asyncio"), (4, "a call from asyncio, 4 tasks at once")]
)
def test_calls_from_asyncio(embed_rows, settings, together, what):
    taken = embed_rows.measure_portal(settings, together)
    assert [line[0] for line in taken.lines] == ["by hand", "ours", "ours, guest mode"]
    assert [figure.what for figure in taken.figures] == [f"{what}, against the bare bridge"]
    assert all(len(times) == 2 for times in taken.raw["seconds"].values())


def test_processes(embed_rows, settings):
    taken = embed_rows.measure_processes(settings, size=12)
    assert [line[0] for line in taken.lines] == ["pool, spawn", "pool, fork", "ours"]
    assert [figure.bar for figure in taken.figures] == [0.85, 0.85]


def test_a_file_that_is_missing_is_noticed(embed_rows):
    batch = embed_rows.Batch({str(number): {} for number in range(100)}, 1)
    batch.look(99)
    with pytest.raises(importlib.import_module("measuring").WrongOutputError, match="90 of 100 files were indexed"):
        batch.look(90)


def test_a_run_writes_what_it_measured(embed_rows, tmp_path, capsys):
    script = importlib.import_module("bench_embed")
    numbers = tmp_path / "figures.json"
    assert script.main(["--quick", "--rounds", "1", "--only", "portal", "--json", str(numbers)]) == 0
    assert "a call from asyncio, against the bare bridge" in capsys.readouterr().out
    assert list(json.loads(numbers.read_text())["rows"]) == ["portal"]
