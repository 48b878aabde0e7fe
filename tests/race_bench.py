"""What the tests of the race toolkit's benchmark share: its modules, imported as a script does."""

from __future__ import annotations

import importlib

import attrs
import pytest
from bench_scripts import BENCHMARKS, make_importable

from stageflow_actors.testing import RaceFailure, Report

NAMES = {"peers", "measuring", "rows", "tables", "bench_dag005", "bench_race"} | {
    path.stem for path in BENCHMARKS.glob("race_*.py")
}

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
REPORT = Report(program="bug", failure=FAILURE, executions=12, certificate=None, bound=0, sampled=0, simplified_in=7)


@pytest.fixture
def bench(monkeypatch):
    """Return what imports a module of the benchmark; all are forgotten after the test."""
    make_importable(monkeypatch, NAMES)
    return importlib.import_module


@pytest.fixture
def make_search(bench):
    """Return what makes the outcome of a search: a good one, but for what is given."""
    finding, peers = bench("race_finding"), bench("race_peers")
    good = finding.Search(
        "lost update",
        executions=12,
        seconds=0.1,
        others=(12, 15),
        plain=peers.Hunt(100, 5.0, runs=3, kind="hang"),
        seeded=peers.Hunt(100, 5.0, runs=1000),
        kind="exception",
        schedule="0101",
        preemptions=1,
        minimal=True,
        extra=7,
    )

    def make(**given):
        return attrs.evolve(good, **given)

    return make
