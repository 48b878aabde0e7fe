"""DAG-005 side by side: this runtime, stageflow-core, and two schedulers by hand.

    python benchmarks/bench_dag005.py            all rows, some minutes
    python benchmarks/bench_dag005.py --quick    a smoke check: fewer rounds, large rows once
    python benchmarks/bench_dag005.py --only wide-500 --only memory --json figures.json

Everything is measured in one process in interleaved rounds. A ratio is the median of the ratios of the
rounds; a time the median of the times. Building is excluded. Every output of every run is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
from measuring import WrongOutputError
from peers import MODULES, USUAL, load
from rich.console import Console
from rich.table import Table
from rows import ROWS, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rows import Figure, Taken


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each row; long rows have fewer (default: 9)")
    parser.add_argument("--only", action="append", choices=ROWS, help="measure this row; may be given again")
    parser.add_argument(
        "--peers", default=",".join(USUAL), help="which to measure (default: %(default)s); also trio-await"
    )
    parser.add_argument("--quick", action="store_true", help="at most 3 rounds, long rows once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args(arguments)
    chosen.peers = chosen.peers.split(",")
    if unknown := [name for name in chosen.peers if name not in MODULES]:
        parser.error(f"unknown peer {unknown[0]!r}; there are {', '.join(MODULES)}")
    if "ours" not in chosen.peers:
        parser.error("'ours' must be among the peers")
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


def print_row(console: Console, name: str, taken: Taken, seconds: float) -> None:
    table = Table(title=f"{name} ({seconds:.0f} s)", title_justify="left", box=None, pad_edge=False)
    for position, heading in enumerate(taken.head):
        table.add_column(heading, justify="right" if position else "left")
    for line in taken.lines:
        table.add_row(*line)
    console.print(table)
    console.print()


def print_figures(console: Console, figures: Sequence[Figure]) -> None:
    table = Table(title="Figures to reach", title_justify="left", box=None, pad_edge=False)
    for heading, justify in (("figure", "left"), ("bar", "right"), ("reached", "right"), ("", "left"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for figure in figures:
        sign = "<=" if figure.at_most else ">="
        verdict = f"ok, by {figure.by:.2f}x" if figure.ok else f"[bold red]FALLS SHORT[/], by {1 / figure.by:.2f}x"
        table.add_row(
            figure.what, f"{sign} {figure.bar:g} {figure.unit}", f"{figure.reached:.3g}", verdict, figure.note
        )
    console.print(table)
    short = sum(not figure.ok for figure in figures)
    console.print(f"\n{len(figures) - short} of {len(figures)} figures are reached.")


def describe_machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "trio": version("trio"),
    }


def write_json(path: Path, settings: Settings, rows: Mapping[str, Taken]) -> None:
    figures = [
        {**attrs.asdict(figure), "ok": figure.ok, "by": figure.by} for row in rows.values() for figure in row.figures
    ]
    measured = {name: row.raw for name, row in rows.items()}
    written = {"machine": describe_machine(), "rounds": settings.rounds, "figures": figures, "rows": measured}
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def measure(
    console: Console, known: Mapping[str, Callable[[Settings], Taken]], settings: Settings, chosen: argparse.Namespace
) -> dict[str, Taken] | None:
    """Measure, print and return the chosen rows of those known, and their figures; None where an output is wrong."""
    rows: dict[str, Taken] = {}
    for name in chosen.only or known:
        began = perf_counter()
        try:
            rows[name] = known[name](settings)
        except WrongOutputError as error:
            console.print(f"[bold red]wrong output[/] in {name}: {error}")
            return None
        print_row(console, name, rows[name], perf_counter() - began)
    print_figures(console, [figure for row in rows.values() for figure in row.figures])
    if chosen.json is not None:
        write_json(chosen.json, settings, rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    rounds = min(3, chosen.rounds) if chosen.quick else chosen.rounds
    settings = Settings(load(chosen.peers), rounds, chosen.quick)
    for name, peer in settings.peers.items():
        if peer is None:
            console.print(f"{name}: not installed (pip install 'stageflow-actors\\[bench]'); its column stays empty\n")
    return int(measure(console, ROWS, settings, chosen) is None)


if __name__ == "__main__":
    sys.exit(main())
