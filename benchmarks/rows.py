"""The rows of the benchmark: what is run, by whom, how often, and which figure it has to reach."""

from __future__ import annotations

import gc
from functools import partial
from statistics import median, quantiles
from time import process_time
from typing import TYPE_CHECKING, Any

import attrs
from measuring import interleave, ratio, time_run, time_stall, time_together, weigh_peak, weigh_waiting
from peers.shapes import Chain, Wide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType


@attrs.frozen
class Figure:
    """A figure to reach, and what was reached."""

    what: str
    bar: float
    reached: float
    unit: str
    at_most: bool = True
    """Whether the bar is above: otherwise the figure has to be at least as large."""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the bar is reached."""
        return self.reached <= self.bar if self.at_most else self.reached >= self.bar

    @property
    def by(self) -> float:
        """By how much it is better than the bar: 2 is twice as good, 0.5 half as good."""
        better, worse = (self.bar, self.reached) if self.at_most else (self.reached, self.bar)
        return better / worse


@attrs.frozen
class Taken:
    """What a row measured: a table to print, the figures, and the raw numbers."""

    head: tuple[str, ...]
    lines: list[tuple[str, ...]]
    figures: list[Figure]
    raw: Mapping[str, Any]


@attrs.frozen
class Settings:
    """What all rows share."""

    peers: Mapping[str, ModuleType | None]
    """By name; None where a peer is not installed."""
    rounds: int = 9
    quick: bool = False

    def find(self, *names: str) -> dict[str, ModuleType]:
        """Return those of the peers that are wanted and installed."""
        return {name: peer for name in names if (peer := self.peers.get(name)) is not None}

    def limit(self, rounds: int) -> int:
        """Return how many rounds a long row gets."""
        return 1 if self.quick else min(rounds, self.rounds)


def measure_wide(settings: Settings, size: int, bars: Mapping[str, float]) -> Taken:
    """Throughput of a source, `size` workers and a join, beside all peers.

    Args:
        settings: What all rows share.
        size: How many workers.
        bars: By how much the throughput has to be above that of a peer.
    """
    shape = Wide(size)
    large = size >= 5000
    peers = settings.find(*settings.peers)
    if large and settings.quick:
        peers.pop("stageflow", None)
    repeat = min(40, max(1, 2000 // size))
    measures = {name: partial(time_run, peer, shape, repeat) for name, peer in peers.items()}
    if not large:
        interleave(1, measures)
    rounds = settings.limit(5) if large else settings.rounds
    taken = interleave(rounds, measures)
    figures = [
        Figure(
            f"{size:,} wide, against {peers[name].TITLE}", bar, ratio(taken[name], taken["ours"]), "x", at_most=False
        )
        for name, bar in bars.items()
        if name in taken
    ]
    lines = [_throughput_line(settings, name, taken, len(shape)) for name in settings.peers]
    return Taken(("peer", "stages/s", "us/stage", "ours against it"), lines, figures, {"seconds": taken})


def _throughput_line(settings: Settings, name: str, taken: Mapping[str, list[float]], stages: int) -> tuple[str, ...]:
    peer = settings.peers[name]
    if peer is None:
        return name, "not installed", "", ""
    if name not in taken:
        return peer.TITLE, "left out", "", ""
    seconds = median(taken[name])
    against = f"{ratio(taken[name], taken['ours']):.2f}x" if "ours" in taken else ""
    return peer.TITLE, f"{stages / seconds:,.0f}", f"{1e6 * seconds / stages:.1f}", against


def measure_latency(settings: Settings, size: int, latency: float) -> Taken:
    """Wall time where every worker sleeps: it has to be paid once, not once a stage."""
    shape = Wide(size, latency)
    peers = settings.find(*settings.peers)
    taken = interleave(settings.rounds, {name: partial(time_run, peer, shape) for name, peer in peers.items()})
    figures = []
    if "trio" in taken and "ours" in taken:
        figures.append(
            Figure(f"{size:,} wide + {1e3 * latency:g} ms", 1.15, ratio(taken["ours"], taken["trio"]), "x wall time")
        )
    lines = [(peers[name].TITLE, f"{1e3 * median(times):.1f}") for name, times in taken.items()]
    return Taken(("peer", "ms"), lines, figures, {"seconds": taken})


def measure_growth(
    settings: Settings, make: Callable[[int], Wide | Chain], what: str, large: int, small: int, rounds: int
) -> Taken:
    """Cost per stage of a large shape against that of a small one, ours and by hand."""
    measures: dict[str, Callable[[], float]] = {}
    for name, peer in settings.find("ours", "trio").items():
        measures[f"{name} {large:,}"] = partial(_time_stage, peer, make(large), 1)
        measures[f"{name} {small:,}"] = partial(_time_stage, peer, make(small), 20)
    taken = interleave(settings.limit(rounds), measures)
    lines = []
    figures = []
    for name, peer in settings.find("ours", "trio").items():
        of, to = taken[f"{name} {large:,}"], taken[f"{name} {small:,}"]
        grown = ratio(of, to)
        lines.append((peer.TITLE, f"{1e6 * median(of):.1f}", f"{1e6 * median(to):.1f}", f"{grown:.2f}x"))
        if name == "ours":
            figures.append(Figure(f"{what}: us/stage at {large:,} against {small:,}", 1.3, grown, "x"))
        else:
            figures = [attrs.evolve(figure, note=f"by hand {grown:.2f}x") for figure in figures]
    head = ("peer", f"us/stage at {large:,}", f"at {small:,}", "grown by")
    return Taken(head, lines, figures, {"seconds per stage": taken})


def _time_stage(peer: ModuleType, shape: Wide | Chain, repeat: int) -> float:
    return time_run(peer, shape, repeat) / len(shape)


def measure_memory(settings: Settings, waiting: int, size: int) -> Taken:
    """Bytes of a stage that waits, and bytes a stage at the peak of a run, ours and by hand."""
    peers = settings.find("ours", "trio")
    waits = {name: weigh_waiting(peer, Wide(waiting, stuck=True)) for name, peer in peers.items()}
    for peer in peers.values():
        weigh_peak(peer, Wide(size))
    peaks = interleave(min(3, settings.rounds), {n: partial(weigh_peak, peer, Wide(size)) for n, peer in peers.items()})
    figures = []
    if "ours" in peers:
        figures.append(Figure("memory of a waiting stage", 200, waits["ours"], "bytes"))
    if len(peers) == 2:
        figures.append(
            Figure(
                f"memory per stage at the peak, {size:,} wide, against by hand",
                1.0,
                ratio(peaks["ours"], peaks["trio"]),
                "x",
                note=f"{median(peaks['ours']):,.0f} bytes; by hand {median(peaks['trio']):,.0f}",
            )
        )
    lines = [(peer.TITLE, f"{waits[n]:,.0f}", f"{median(peaks[n]):,.0f}") for n, peer in peers.items()]
    head = ("peer", f"bytes a waiting stage, of {waiting:,}", f"bytes a stage at the peak, of {size:,}")
    return Taken(head, lines, figures, {"waiting": waits, "peak": peaks})


def measure_stall(settings: Settings, size: int) -> Taken:
    """The longest time for which a run keeps the loop to itself while `size` stages become ready at once."""
    peers = settings.find("ours", "trio")
    taken = interleave(settings.limit(3), {n: partial(time_stall, peer, Wide(size)) for n, peer in peers.items()})
    figures = []
    if "ours" in taken:
        note = f"worst {max(taken['ours']):.2f} s"
        if "trio" in taken:
            note += f"; by hand {median(taken['trio']):.2f} s"
        figures.append(
            Figure(f"longest stall while {size:,} stages become ready", 0.5, median(taken["ours"]), "s", note=note)
        )
    lines = [(peers[n].TITLE, f"{1e3 * median(gaps):,.0f}", f"{1e3 * max(gaps):,.0f}") for n, gaps in taken.items()]
    return Taken(("peer", "longest stall, ms", "worst round"), lines, figures, {"seconds": taken})


def measure_runs(settings: Settings, count: int, size: int) -> Taken:
    """Many small runs at once: how long they take together, and whether some wait much longer than others."""
    peers = settings.find("ours", "trio")
    spreads: dict[str, list[float]] = {name: [] for name in peers}

    def measure(name: str) -> float:
        seconds, latencies = time_together(peers[name], Wide(size - 2), count)
        spreads[name].append(quantiles(latencies, n=20)[-1] / median(latencies))
        return seconds

    taken = interleave(settings.rounds, {name: partial(measure, name) for name in peers})
    figures = []
    if len(peers) == 2:
        figures.append(
            Figure(f"{count:,} runs x {size} at once, total", 1.3, ratio(taken["ours"], taken["trio"]), "x by hand")
        )
    if "ours" in peers:
        figures.append(Figure(f"{count:,} runs x {size}, p95 latency", 2.0, median(spreads["ours"]), "x the median"))
    lines = [(peer.TITLE, f"{1e3 * median(taken[n]):,.0f}", f"{median(spreads[n]):.2f}x") for n, peer in peers.items()]
    return Taken(("peer", "ms in all", "p95 / median"), lines, figures, {"seconds": taken, "p95 / median": spreads})


def measure_build(settings: Settings, small: int, large: int) -> Taken:
    """Microseconds of processor time a `with_stage`, at two sizes: they have to be the same.

    The bar is no ratio, so that others at work on the machine must not count.
    """
    peers = settings.find("ours", "stageflow")
    measures: dict[str, Callable[[], float]] = {}
    for name, peer in peers.items():
        for size in (small, large):
            measures[f"{name} {size:,}"] = partial(_time_building, peer, size)
    taken = interleave(settings.limit(5), measures)
    lines = []
    figures = []
    for name, peer in peers.items():
        of, to = taken[f"{name} {large:,}"], taken[f"{name} {small:,}"]
        lines.append((peer.TITLE, f"{1e6 * median(to):.1f}", f"{1e6 * median(of):.1f}", f"{ratio(of, to):.2f}x"))
        if name == "ours":
            figures.append(Figure(f"with_stage at {large:,}", 10, 1e6 * median(of), "us/stage"))
            figures.append(Figure(f"with_stage at {large:,} against {small:,}", 1.3, ratio(of, to), "x"))
    head = ("peer", f"us/with_stage, {small:,} stages", f"{large:,} stages", "grown by")
    return Taken(head, lines, figures, {"seconds per stage": taken})


def _time_building(peer: ModuleType, size: int) -> float:
    names = ["source", *Wide(size - 1).workers]
    gc.collect()
    began = process_time()
    pipeline = peer.add_workers(names)
    seconds = process_time() - began
    assert len(pipeline.stages) == size
    return seconds / size


ROWS: dict[str, Callable[[Settings], Taken]] = {
    "wide-50": partial(measure_wide, size=50, bars={}),
    "wide-100": partial(measure_wide, size=100, bars={}),
    "wide-250": partial(measure_wide, size=250, bars={}),
    "wide-500": partial(measure_wide, size=500, bars={"trio": 1.2, "stageflow": 8.0}),
    "wide-10000": partial(measure_wide, size=10_000, bars={"stageflow": 40.0}),
    "latency-500": partial(measure_latency, size=500, latency=0.05),
    "per-stage-100000": partial(measure_growth, make=Wide, what="wide", large=100_000, small=500, rounds=5),
    "memory": partial(measure_memory, waiting=10_000, size=500),
    "stall-100000": partial(measure_stall, size=100_000),
    "chain-10000": partial(measure_growth, make=Chain, what="chain", large=10_000, small=500, rounds=9),
    "runs-1000x5": partial(measure_runs, count=1000, size=5),
    "build-10000": partial(measure_build, small=1000, large=10_000),
}
