"""The benchmarks: every peer does the same work and gives the right outputs. Never a time."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import the benchmarks as they are when a script of theirs is run, and forget them afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in list(sys.modules):
        if name.split(".")[0] in {"peers", "measuring", "rows", "bench_dag005", "profile_run"}:
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def rows() -> ModuleType:
    return importlib.import_module("rows")


@pytest.fixture
def measuring() -> ModuleType:
    return importlib.import_module("measuring")


@pytest.fixture
def shapes() -> ModuleType:
    return importlib.import_module("peers.shapes")


@pytest.fixture
def settings(rows: ModuleType) -> Any:
    return rows.Settings(load_peers(), rounds=1)


def load_peers(*names: str) -> dict[str, ModuleType | None]:
    peers = importlib.import_module("peers")
    loaded: dict[str, ModuleType | None] = peers.load(names or peers.MODULES)
    return loaded


def load_peer(name: str) -> ModuleType:
    peer = load_peers(name)[name]
    if peer is None:
        pytest.skip("stageflow-core is not installed")
    return peer


PEERS = ("ours", "trio", "trio-await", "asyncio", "stageflow")


def run(peer: ModuleType, shape: Any) -> dict[str, Any]:
    async def run_once() -> Any:
        async with peer.host() as host:
            return await peer.prepare(shape)(host)

    return {name: dict(data) for name, data in peer.read(peer.drive(run_once)).items()}


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_runs_source_workers_and_join(name: str, shapes: ModuleType) -> None:
    assert run(load_peer(name), shapes.Wide(3)) == {
        "source": {"seed": 1009},
        "worker-0": {"value": 1009},
        "worker-1": {"value": 1010},
        "worker-2": {"value": 1011},
        "join": {"total": 3030},
    }


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_runs_a_chain(name: str, shapes: ModuleType) -> None:
    assert run(load_peer(name), shapes.Chain(3)) == {
        "link-0": {"value": 1009},
        "link-1": {"value": 1010},
        "link-2": {"value": 1011},
    }


@pytest.mark.parametrize("name", ["ours", "trio", "trio-await"])
async def test_latency_is_slept_by_every_worker_at_once(
    name: str, shapes: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    peer = load_peer(name)
    shape = shapes.Wide(3, latency=0.05)
    async with peer.host() as host:
        result = await peer.prepare(shape)(host)
    assert peer.read(result) == shape.expect()
    assert autojump_clock.current_time() == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["ours", "trio", "trio-await"])
async def test_a_stuck_source_keeps_everything_waiting(
    name: str, shapes: ModuleType, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    peer = load_peer(name)
    ended = False
    async with peer.host() as host:
        with trio.move_on_after(1000):
            await peer.prepare(shapes.Wide(3, stuck=True))(host)
            ended = True
    assert not ended
    assert autojump_clock.current_time() == pytest.approx(1000)


@pytest.mark.parametrize(
    ("measure", "figures"),
    [
        (lambda rows, settings: rows.measure_wide(settings, 3, {"trio": 1.2}), ["3 wide, against trio by hand"]),
        (lambda rows, settings: rows.measure_latency(settings, 3, 0.0), ["3 wide + 0 ms"]),
        (
            lambda rows, settings: rows.measure_growth(settings, rows.Wide, "wide", 5, 2, 1),
            ["wide: us/stage at 5 against 2"],
        ),
        (
            lambda rows, settings: rows.measure_growth(settings, rows.Chain, "chain", 5, 2, 1),
            ["chain: us/stage at 5 against 2"],
        ),
        (
            lambda rows, settings: rows.measure_memory(settings, 10, 3),
            ["memory of a waiting stage", "memory per stage at the peak, 3 wide, against by hand"],
        ),
        (lambda rows, settings: rows.measure_stall(settings, 5), ["longest stall while 5 stages become ready"]),
        (
            lambda rows, settings: rows.measure_runs(settings, 4, 5),
            ["4 runs x 5 at once, total", "4 runs x 5, p95 latency"],
        ),
        (lambda rows, settings: rows.measure_build(settings, 3, 6), ["with_stage at 6", "with_stage at 6 against 3"]),
    ],
)
def test_each_row_runs_every_peer_and_checks_it(
    rows: ModuleType, settings: Any, measure: Callable[[ModuleType, Any], Any], figures: list[str]
) -> None:
    taken = measure(rows, settings)
    assert [figure.what for figure in taken.figures] == figures
    assert {len(line) for line in taken.lines} == {len(taken.head)}


def test_rows_are_the_ones_of_the_design(rows: ModuleType) -> None:
    assert list(rows.ROWS) == [
        "wide-50",
        "wide-100",
        "wide-250",
        "wide-500",
        "wide-10000",
        "latency-500",
        "per-stage-100000",
        "memory",
        "stall-100000",
        "chain-10000",
        "runs-1000x5",
        "build-10000",
    ]


def test_rounds_are_interleaved(measuring: ModuleType) -> None:
    taken = []

    def measure(name: str) -> float:
        taken.append(name)
        return float(len(taken))

    measures = {name: partial(measure, name) for name in "abc"}
    assert measuring.interleave(2, measures) == {"a": [1.0, 4.0], "b": [2.0, 5.0], "c": [3.0, 6.0]}
    assert taken == list("abcabc")


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds(measuring: ModuleType) -> None:
    assert measuring.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0


@pytest.mark.parametrize(
    ("bar", "reached", "at_most", "ok", "by"),
    [
        (1.2, 1.5, False, True, 1.25),
        (1.2, 0.6, False, False, 0.5),
        (2.0, 1.0, True, True, 2.0),
        (2.0, 4.0, True, False, 0.5),
    ],
)
def test_a_figure_says_whether_and_by_how_much(
    rows: ModuleType, *, bar: float, reached: float, at_most: bool, ok: bool, by: float
) -> None:
    figure = rows.Figure("it", bar, reached, "x", at_most=at_most)
    assert figure.ok is ok
    assert figure.by == pytest.approx(by)


def make_liar() -> Any:
    """Return a peer of which one worker's value is wrong."""
    honest = load_peer("trio")

    def read(result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "worker-1": {"value": 0}}

    return SimpleNamespace(
        TITLE="liar",
        REUSABLE=False,
        drive=honest.drive,
        host=contextlib.nullcontext,
        prepare=honest.prepare,
        read=read,
    )


@pytest.mark.parametrize(
    ("measure", "more"), [("time_run", ()), ("time_stall", ()), ("weigh_peak", ()), ("time_together", (2,))]
)
def test_a_wrong_output_is_named_and_stops_the_measuring(
    measuring: ModuleType, shapes: ModuleType, measure: str, more: tuple[int, ...]
) -> None:
    with pytest.raises(measuring.WrongOutputError) as caught:
        getattr(measuring, measure)(make_liar(), shapes.Wide(3), *more)
    assert str(caught.value) == "liar: 'worker-1' gave {'value': 0}, not {'value': 1010}"


@pytest.fixture
def small(rows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return the script's `main`, its first row made small."""
    monkeypatch.setitem(rows.ROWS, "wide-50", partial(rows.measure_wide, size=3, bars={"trio": 1e-9, "stageflow": 1e9}))
    main: Callable[..., int] = importlib.import_module("bench_dag005").main
    return main


def test_the_script_prints_a_table_and_writes_the_numbers(
    small: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_peer("stageflow")
    file = tmp_path / "figures.json"
    assert small(["--only", "wide-50", "--rounds", "2", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "3 wide, against trio by hand" in printed
    assert "FALLS SHORT" in printed
    assert "1 of 2 figures are reached." in printed
    written = json.loads(file.read_text())
    assert {name: len(times) for name, times in written["rows"]["wide-50"]["seconds"].items()} == {
        "ours": 2,
        "trio": 2,
        "asyncio": 2,
        "stageflow": 2,
    }
    assert [figure["ok"] for figure in written["figures"]] == [True, False]


def test_the_script_does_without_stageflow_core(
    small: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "stageflow":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "stageflow", None)
    assert small(["--only", "wide-50", "--rounds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "stageflow: not installed (pip install 'stageflow-actors[bench]')" in printed
    assert "1 of 1 figures are reached." in printed


def test_the_script_fails_where_a_peer_is_wrong(
    small: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    liar = make_liar()
    monkeypatch.setattr(importlib.import_module("bench_dag005"), "load", lambda names: dict.fromkeys(names, liar))
    assert small(["--only", "wide-50", "--rounds", "1"]) == 1
    assert "wrong output in wide-50: liar: 'worker-1' gave {'value': 0}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--peers", "ours,dask"], "unknown peer 'dask'; there are ours, trio, asyncio, stageflow, trio-await"),
        (["--peers", "trio"], "'ours' must be among the peers"),
        (["--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_the_script_refuses_what_cannot_be_measured(
    small: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        small(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_the_profile_names_the_functions_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("profile_run").main
    assert main(["--size", "5", "--runs", "2", "--top", "200"]) == 0
    printed = capsys.readouterr().out
    assert "Runner.spawn_impl" in printed
    assert "Engine._run_stage" in printed
    assert "a run of 7 stages" in printed
