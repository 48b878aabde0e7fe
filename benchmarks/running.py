"""How a benchmark of rows is run from a shell: its arguments, the console, and the rows one after the other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench_dag005 import measure
from rich.console import Console
from rows import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rows import Taken

    Rows = Mapping[str, Callable[[Settings], Taken]]


def make_parser(description: str | None, rows: Rows, quick: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all of them have.

    Args:
        description: What is measured.
        rows: By name.
        quick: What `--quick` does.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each row (default: 9)")
    parser.add_argument("--only", action="append", choices=rows, help="measure this row; may be given again")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    return parser


def read(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; ends the program where they cannot be."""
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


def make_console(width: int) -> Console:
    """Return a console, so many columns wide where it is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = width
    return console


def run_rows(description: str | None, rows: Rows, arguments: Sequence[str] | None, *, rounds: int, quick: str) -> int:
    """Measure the rows that were asked for; return the exit status.

    Args:
        description: What is measured.
        rows: By name.
        arguments: Those of the command line.
        rounds: How many a quick run has at most.
        quick: What `--quick` does.
    """
    chosen = read(make_parser(description, rows, quick), arguments)
    settings = Settings({}, min(rounds, chosen.rounds) if chosen.quick else chosen.rounds, chosen.quick)
    return int(measure(make_console(140), rows, settings, chosen) is None)
