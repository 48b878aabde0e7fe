"""The race-testing toolkit on the corpus of bugs in `property_tests/corpus`, beside trio as it is, and frontrun.

    python benchmarks/bench_race.py                            all rows, about half an hour
    python benchmarks/bench_race.py --quick                    a smoke check: a third of the bugs, smaller budgets
    python benchmarks/bench_race.py --only finding --entry "lost update" --json figures.json
    python benchmarks/bench_race.py --resume kept.jsonl        goes on where a run with this file was stopped
    python benchmarks/bench_race.py --markdown docs/reference/race-corpus.md       makes that page and its plot

Rows: `finding`: every bug with default settings, then with other seeds; beside it plain trio and trio seeded by
Hypothesis, 10,000 runs or 5 seconds each. `false-alarms`: every correct twin at 10,000 executions. `frontrun`: bugs
and twins on asyncio, with frontrun and with us, each hunt in a fresh process. `cost`: an execution against the same
program in `trio.run`, in turn. `shared`: executions a second where many share a run of trio. `replays`: failures
replayed in fresh processes under four hash seeds. `certificates`: executions until a twin is known not to fail.

Everything but `frontrun` is measured in processor time; a ratio is the median of the ratios of the rounds.
Exits with 1 if a bar is missed, with 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
from bench_dag005 import describe_machine, print_row
from race_bars import QUICK, Settings
from race_frontrun import find_version
from race_kept import OtherRunError, open_kept
from race_page import list_bars, make_page, name_misses, tell_bar
from race_rows import ROWS
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from property_tests.corpus import CORPUS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from race_bars import Bar
    from rows import Taken


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="rounds of each time, and seeds of each search (default: 5)")
    parser.add_argument("--only", action="append", choices=ROWS, help="measure this row; may be given again")
    parser.add_argument(
        "--entry", action="append", metavar="NAME", help="take this one of the corpus; may be given again"
    )
    parser.add_argument("--quick", action="store_true", help="a third of the bugs, at most 2 rounds, small budgets")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep there what is measured, and do not repeat it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write a page of the docs there, a plot beside it"
    )
    chosen = parser.parse_args(arguments)
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    known = {entry.name: entry for entry in CORPUS}
    if unknown := [name for name in chosen.entry or () if name not in known]:
        parser.error(f"--entry must be one of the corpus, not {unknown[0]!r}; there are: {', '.join(known)}")
    chosen.entries = [known[name] for name in chosen.entry or list(known)[:: 3 if chosen.quick else 1]]
    chosen.settings = make_settings(chosen)
    if chosen.resume is not None:
        try:
            kept = open_kept(chosen.resume, describe_run(chosen))
        except OtherRunError as error:
            parser.error(f"--resume: {error}")
        chosen.settings = attrs.evolve(chosen.settings, kept=kept)
    return chosen


def make_settings(chosen: argparse.Namespace) -> Settings:
    """Return what the rows share."""
    settings = Settings(chosen.entries, **(QUICK if chosen.quick else {}))
    if chosen.rounds is None:
        return settings
    return attrs.evolve(settings, rounds=min(settings.rounds, chosen.rounds) if chosen.quick else chosen.rounds)


def describe_run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return what figures must have in common to be told together."""
    told = {**describe_versions(), "rounds": chosen.settings.rounds, "quick": chosen.quick}
    return told | {"entries": [entry.name for entry in chosen.entries]}


def describe_versions() -> dict[str, Any]:
    return {**describe_machine(), "frontrun": find_version(), "hypothesis": version("hypothesis")}


def print_bars(console: Console, bars: Sequence[Bar]) -> None:
    """Print the figures to reach, and what missed them by name."""
    table = Table(title="Figures to reach", title_justify="left", box=None, pad_edge=False)
    for heading, justify in (("figure", "left"), ("bar", "right"), ("reached", "right"), ("", "left"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for bar in bars:
        table.add_row(bar.what, *tell_bar(bar), "ok" if bar.ok else "[bold red]MISSED[/]", bar.note)
    console.print(table)
    console.print()
    for line in name_misses(bars):
        console.print(escape(line))
    console.print(f"{sum(bar.ok for bar in bars)} of {len(bars)} figures are reached.")


def write_json(path: Path, settings: Settings, rows: Mapping[str, Taken]) -> None:
    """Write the raw numbers."""
    figures = [{**attrs.asdict(bar), "ok": bar.ok} for bar in list_bars(rows)]
    measured = {name: taken.raw for name, taken in rows.items()}
    written = {"machine": describe_versions(), "rounds": settings.rounds, "figures": figures, "rows": measured}
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def write_page(path: Path, rows: Mapping[str, Taken]) -> None:
    """Write the page, and its plot beside it if there is anything to plot."""
    plot = path.with_suffix(".svg")
    page, drawn = make_page(rows, describe_versions(), plot.name)
    path.write_text(page, encoding="utf-8")
    if drawn:
        plot.write_text(drawn, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    settings = chosen.settings
    rows: dict[str, Taken] = {}
    with console.status("") as status:
        settings = attrs.evolve(settings, tell=status.update)
        for name in chosen.only or ROWS:
            began = perf_counter()
            rows[name] = ROWS[name](settings)
            print_row(console, name, rows[name], perf_counter() - began)
    bars = list_bars(rows)
    print_bars(console, bars)
    if chosen.json is not None:
        write_json(chosen.json, settings, rows)
    if chosen.markdown is not None:
        write_page(chosen.markdown, rows)
    return 0 if all(bar.ok for bar in bars) else 1


def run() -> int:
    """Do as `main`, and end cleanly after Ctrl-C, which is in a group where it struck inside a run of trio."""
    code = 130
    try:
        code = main()
    except* KeyboardInterrupt:
        print("stopped; a run with --resume FILE can be gone on with", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(run())
