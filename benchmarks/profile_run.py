"""What dominates a run: own time per function, as microseconds a stage.

    python benchmarks/profile_run.py [--size 500] [--runs 200] [--top 30]

The profiler charges every call, so that small functions look dearer than they are: read the shares and
the calls, not the sums. The first two lines are measured without it: a run, and its floor, which is trio
spawning, stepping and ending as many tasks that do nothing.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio
from peers import ours
from peers.shapes import Wide
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


async def spawn_nothing(count: int) -> None:
    async def nothing() -> None:
        pass

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(nothing)


async def repeat(function: Callable[[], Awaitable[Any]], runs: int) -> float:
    """Return the seconds that one of `runs` calls takes."""
    gc.collect()
    began = perf_counter()
    for _ in range(runs):
        await function()
    return (perf_counter() - began) / runs


async def measure(size: int, runs: int) -> tuple[float, float, list[Any]]:
    """Return the seconds of a run, those of its floor, and the profiler's entries over `runs` runs."""
    pipeline = ours.build(Wide(size))
    await repeat(pipeline.run, 5)
    seconds = await repeat(pipeline.run, max(1, runs // 4))
    floor = await repeat(lambda: spawn_nothing(size + 2), max(1, runs // 4))
    profiler = cProfile.Profile()
    profiler.enable()
    await repeat(pipeline.run, runs)
    profiler.disable()
    return seconds, floor, profiler.getstats()


def describe(code: Any) -> tuple[str, str]:
    """Return whose a function is, and its name with its place."""
    if isinstance(code, str):
        return "builtins", code.strip("<>")
    if "attrs generated" in code.co_filename:
        return "attrs", f"{code.co_filename.rstrip('>').rpartition('.')[2]}.{code.co_name}"
    path = Path(code.co_filename)
    owner = next((part for part in ("stageflow_actors", "trio", "outcome", "peers") if part in path.parts), None)
    return owner or "standard library", f"{code.co_qualname} ({path.name}:{code.co_firstlineno})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=500, help="workers (default: 500)")
    parser.add_argument("--runs", type=int, default=200, help="runs under the profiler (default: 200)")
    parser.add_argument("--top", type=int, default=30, help="functions to show (default: 30)")
    chosen = parser.parse_args(arguments)
    stages = chosen.size + 2
    seconds, floor, entries = trio.run(measure, chosen.size, chosen.runs)
    console = Console(highlight=False, width=130)
    console.print(f"a run of {stages} stages: {1e6 * seconds / stages:.1f} us a stage, without the profiler")
    console.print(f"the floor, empty tasks: {1e6 * floor / stages:.1f} us a task, without the profiler\n")
    total = sum(entry.inlinetime for entry in entries)
    each = 1e6 / (stages * chosen.runs)
    table = Table(box=None, pad_edge=False)
    for heading in ("own us/stage", "share", "calls/stage", "whose", "function"):
        left = heading in {"whose", "function"}
        width = None if heading == "function" else max(len(heading), 16 if left else 0)
        table.add_column(heading, justify="left" if left else "right", no_wrap=True, min_width=width)
    by_owner: Counter[str] = Counter()
    for position, entry in enumerate(sorted(entries, key=lambda entry: -entry.inlinetime)):
        owner, name = describe(entry.code)
        by_owner[owner] += entry.inlinetime
        if position < chosen.top:
            share = f"{100 * entry.inlinetime / total:.1f}%"
            calls = f"{entry.callcount / stages / chosen.runs:.2f}"
            table.add_row(f"{each * entry.inlinetime:.2f}", share, calls, owner, name)
    console.print(table)
    console.print("\nby owner, own time under the profiler:")
    for owner, spent in by_owner.most_common():
        console.print(f"  {each * spent:6.2f} us/stage  {100 * spent / total:4.1f}%  {owner}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
