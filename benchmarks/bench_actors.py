"""Resident actors: what an ask costs beside pykka, and what starting, restarting, keeping and stopping actors costs.

    python benchmarks/bench_actors.py                        all rows, some minutes
    python benchmarks/bench_actors.py --quick                a smoke check: fewer rounds, large rows once
    python benchmarks/bench_actors.py --only ask --only asks-100 --json figures.json
    python benchmarks/bench_actors.py --markdown figures.md  the tables as Markdown

Everything is measured in one process in interleaved rounds. A ratio is the median of the ratios of the
rounds; a time the median of the times. What is held against a bar is processor time, for others at work on
the machine must not count; the ratio of the wall times stands beside it. Every reply is checked.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actor_rows import ROWS
from bench_dag005 import describe_machine, measure
from rows import Settings
from running import make_console, make_parser, read
from tables import make_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from rows import Figure, Taken


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__, ROWS, "at most 3 rounds, large rows once")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, for a page of the docs")
    return read(parser, arguments)


def load_pykka() -> ModuleType | None:
    """Return how one asks in pykka, or None where it is not installed."""
    try:
        return importlib.import_module("peers.pykka_asks")
    except ModuleNotFoundError as error:
        if error.name != "pykka":
            raise
        return None


def tell_figure(figure: Figure) -> tuple[str, str, str, str, str]:
    """Return a figure as cells: what it is, the bar, what was reached, whether that is enough, and the note."""
    sign = "<=" if figure.at_most else ">="
    verdict = "yes" if figure.ok else "**falls short**"
    return figure.what, f"{sign} {figure.bar:g} {figure.unit}", f"{figure.reached:.3g}", verdict, figure.note


def describe(name: str) -> str:
    """Return what a row says of itself."""
    return inspect.cleandoc(ROWS[name].func.__doc__ or "").replace("\n", " ").replace("  ", "\n\n")


def make_markdown(rows: Mapping[str, Taken], machine: Mapping[str, Any]) -> str:
    """Return the tables for a page of the docs."""
    versions = f"Python {machine['python']} and trio {machine['trio']}"
    parts = [f"Measured by `benchmarks/bench_actors.py` with {versions} on {machine['platform']}."]
    figures = [figure for taken in rows.values() for figure in taken.figures]
    if figures:
        parts.append(make_table(("figure", "bar", "reached", "", ""), list(map(tell_figure, figures))))
    for name, taken in rows.items():
        parts += [f"### {name}", describe(name), make_table(taken.head, taken.lines)]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = make_console(160)
    pykka = load_pykka()
    if pykka is None:
        console.print(
            "pykka: not installed (pip install 'stageflow-actors\\[bench]'); what is said of it is left out\n"
        )
    rounds = min(3, chosen.rounds) if chosen.quick else chosen.rounds
    settings = Settings({"pykka": pykka}, rounds, chosen.quick)
    rows = measure(console, ROWS, settings, chosen)
    if rows is None:
        return 1
    if chosen.markdown is not None:
        chosen.markdown.write_text(make_markdown(rows, describe_machine()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
