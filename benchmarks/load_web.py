"""The FastAPI example under load: 200 clients at once on loopback, of whom every fourth goes away in the middle.

    python benchmarks/load_web.py                             # a minute, after a warm-up
    python benchmarks/load_web.py --seconds 10 --guest        # trio as a guest of the server's asyncio loop
    python benchmarks/load_web.py --plot load.svg --json load.json

The server is a process of its own; the clients share this one. Half of those that stay wait for JSON, and others read
the stream of events to its end; each answer is compared with what it has to be. Who is told to come back does so. Each
client draws what it does from the seed; how the machine interleaves them is its own affair.

What must hold: no error that a client has not caused, and nothing in the server's log; when all have gone, no more
tasks and threads than after the warm-up, and hardly more memory. Exits with 1 if it does not. Rates and latencies are
printed, and are those of both processes on one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

import attrs
from rich.console import Console
from rich.table import Table
from web_clients import KINDS, Tally, crowd
from web_server import Sample, Server, exceeds, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

GROWTH: Final = 16.0
"""MiB by which the idle server may have grown since its warm-up: the allocator's own, and no leak of each request."""
MOST: Final = 1000
"""Clients; more would be limited by how many files a process may open."""


@attrs.frozen
class Load:
    """What was measured."""

    clients: int
    seconds: float
    tally: Tally
    samples: list[Sample]
    before: Sample
    """Idle, after the warm-up."""
    after: Sample
    """Idle, after the load."""
    complaints: str

    @property
    def growth(self) -> float | None:
        """MiB since the warm-up."""
        if self.after.rss is None or self.before.rss is None:
            return None
        return self.after.rss - self.before.rss

    def list_misses(self) -> list[str]:
        """Return what does not hold."""
        misses = []
        if self.tally.errors:
            misses.append(f"{len(self.tally.errors):,} errors that the clients have not caused")
        misses += [f"no request of the kind {kind!r} was done" for kind in KINDS if not self.tally.done[kind]]
        for name in exceeds(self.after, self.before):
            misses.append(f"{name}: {getattr(self.after, name)} left, {getattr(self.before, name)} before")
        if self.growth is not None and self.growth > GROWTH:
            misses.append(f"the memory has grown by {self.growth:.1f} MiB, more than {GROWTH:g}")
        if self.complaints:
            misses.append("the server has complained")
        return misses


async def measure(clients: int, seconds: float, seed: int, options: Sequence[str]) -> Load:
    """Load a server: first to warm it up, then in earnest."""
    # So few places that now and then somebody is told to come back.
    async with serve("--max-runs", str(max(1, clients // 4)), "--max-queued", str(clients // 8), *options) as server:
        warm_up = min(10.0, max(2.0, seconds / 5))
        warm = await crowd(server.address, clients, warm_up, f"{seed} warm-up")
        before = await settle(server)
        samples: list[Sample] = []
        watching = asyncio.create_task(server.watch(min(1.0, seconds / 20), samples))
        tally = await crowd(server.address, clients, seconds, str(seed))
        watching.cancel()
        await asyncio.wait({watching})
        if not watching.cancelled():
            watching.result()  # it could not look any more
        after = await server.wait_idle(before)
        tally.errors += warm.errors
    return Load(clients, seconds, tally, samples, before, after, server.complaints)


async def settle(server: Server) -> Sample:
    """Return what an idle server has.

    Of tasks the least, for what has ended a moment ago may still be counted; of threads the most, for that of a guest
    comes and goes.
    """
    await server.wait_idle()
    looks = [await server.look() for _ in range(20)]
    least = {name: min(getattr(look, name) for look in looks) for name in ("runs", "asyncio_tasks", "trio_tasks")}
    return attrs.evolve(looks[-1], **least, threads=max(look.threads for look in looks))


def draw_report(load: Load) -> Table:
    """Draw what became of the requests."""
    table = Table("requests", title=f"{load.clients} clients for {load.seconds:g} s")
    for head in ("done", "per s", "503", "p50", "p95", "p99"):
        table.add_column(head, justify="right")
    for kind, seconds in load.tally.seconds.items():
        cuts = quantiles(seconds, n=100) if len(seconds) > 1 else None
        shown = [f"{1e3 * cuts[at]:,.0f} ms" for at in (49, 94, 98)] if cuts else [""] * 3
        done = load.tally.done[kind]
        table.add_row(kind, f"{done:,}", f"{done / load.seconds:,.1f}", f"{load.tally.refused[kind]:,}", *shown)
    done, refused = load.tally.done.total(), load.tally.refused.total()
    table.add_row("all", f"{done:,}", f"{done / load.seconds:,.1f}", f"{refused:,}", end_section=True)
    return table


def draw_server(load: Load) -> Table:
    """Draw what the server had over time."""
    table = Table("server", title="over time")
    for head in ("runs", "asyncio tasks", "trio tasks", "threads", "MiB"):
        table.add_column(head, justify="right")
    step = max(1, len(load.samples) // 8)
    rows = [("idle before", load.before)]
    rows += [(f"{sample.at - load.before.at:.0f} s", sample) for sample in load.samples[::step]]
    rows.append(("idle after", load.after))
    for name, sample in rows:
        counts = (sample.runs, sample.asyncio_tasks, sample.trio_tasks, sample.threads)
        table.add_row(name, *(f"{count:,}" for count in counts), "" if sample.rss is None else f"{sample.rss:.1f}")
    return table


def plot(load: Load, path: Path) -> None:
    """Plot what the server had over time."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (takes a second, and is seldom wanted)

    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at = [sample.at - load.before.at for sample in load.samples]
    for name in ("runs", "asyncio_tasks", "trio_tasks", "threads"):
        above.plot(at, [getattr(sample, name) for sample in load.samples], label=name.replace("_", " "))
    above.legend()
    above.set_ylabel("how many")
    below.plot(at, [sample.rss or 0.0 for sample in load.samples])
    below.set_ylabel("MiB in memory")
    below.set_ylim(bottom=0)
    below.set_xlabel("seconds")
    figure.suptitle(f"{load.clients} clients, of whom every fourth goes away")
    figure.savefig(path)


def make_raw(load: Load) -> dict[str, Any]:
    """Return what was measured, for a file."""
    raw = attrs.asdict(load)
    raw["misses"] = load.list_misses()
    return raw


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, after a warm-up (default: %(default)g)")
    parser.add_argument("--clients", type=int, default=200, metavar="N", help="at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="what clients do follows from it (default: %(default)s)")
    parser.add_argument("--guest", action="store_true", help="trio as a guest of the server's asyncio loop")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw tasks, threads and memory over time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args(arguments)
    if not 1 <= chosen.clients <= MOST:
        parser.error(f"--clients must be from 1 to {MOST:,}")
    if not 1 <= chosen.seconds <= 3600:
        parser.error("--seconds must be from 1 to 3,600")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    options = ["--guest"] if chosen.guest else []
    load = asyncio.run(measure(chosen.clients, chosen.seconds, chosen.seed, options))
    console.print(draw_report(load), draw_server(load))
    for error in load.tally.errors[:20]:
        console.print(f"error: {error}", soft_wrap=True, markup=False)
    if load.complaints:
        console.print(load.complaints, soft_wrap=True, markup=False)
    if load.growth is not None:
        each = 2**20 * load.growth / max(1, load.tally.total)
        console.print(f"memory: {load.growth:+.1f} MiB since the warm-up, {each:,.0f} bytes a request")
    misses = load.list_misses()
    for miss in misses:
        console.print(f"missed: {miss}", markup=False)
    console.print("no line missed" if not misses else f"{len(misses)} lines missed")
    if chosen.json:
        chosen.json.write_text(json.dumps(make_raw(load), indent=2), encoding="utf-8")
    if chosen.plot:
        plot(load, chosen.plot)
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
