"""The race-testing toolkit on the corpus of bugs in `property_tests/corpus`, beside trio as it is, and seeded.

    python benchmarks/bench_race.py                            all rows, some minutes
    python benchmarks/bench_race.py --quick                    a smoke check: smaller budgets for everybody
    python benchmarks/bench_race.py --only finding --entry "lost update" --json figures.json
    python benchmarks/bench_race.py --markdown figures.md      the tables as Markdown, misses included

Rows: `finding`: every bug with default settings, then with other seeds; beside it plain trio and trio seeded by
Hypothesis, 10,000 runs or 5 seconds each. `false-alarms`: every correct twin at 10,000 executions. `cost`: an
execution against the same program in `trio.run`, in turn. `shared`: executions a second where many share a run
of trio. `replays`: failures replayed in fresh processes under four hash seeds.

Everything is measured in one process, in processor time; a ratio is the median of the ratios of the rounds.
Exits with 1 if a bar is missed, with 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
from bench_dag005 import describe_machine, print_row
from race_rows import QUICK, ROWS, Settings
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tables import make_table

from property_tests.corpus import CORPUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from race_rows import Bar
    from rows import Taken


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="rounds of each time, and seeds of each search (default: 5)")
    parser.add_argument("--only", action="append", choices=ROWS, help="measure this row; may be given again")
    parser.add_argument(
        "--entry", action="append", metavar="NAME", help="take this one of the corpus; may be given again"
    )
    parser.add_argument("--quick", action="store_true", help="at most 2 rounds, and smaller budgets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, for a page of the docs")
    chosen = parser.parse_args(arguments)
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    known = {entry.name: entry for entry in CORPUS}
    if unknown := [name for name in chosen.entry or () if name not in known]:
        parser.error(f"--entry must be one of the corpus, not {unknown[0]!r}; there are: {', '.join(known)}")
    chosen.entries = [known[name] for name in chosen.entry or known]
    return chosen


def make_settings(chosen: argparse.Namespace) -> Settings:
    """Return what the rows share."""
    settings = Settings(chosen.entries, **(QUICK if chosen.quick else {}))
    if chosen.rounds is None:
        return settings
    return attrs.evolve(settings, rounds=min(settings.rounds, chosen.rounds) if chosen.quick else chosen.rounds)


def print_bars(console: Console, bars: Sequence[Bar]) -> None:
    """Print the figures to reach, and what missed them by name."""
    table = Table(title="Figures to reach", title_justify="left", box=None, pad_edge=False)
    for heading, justify in (("figure", "left"), ("bar", "right"), ("reached", "right"), ("", "left"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for bar in bars:
        table.add_row(bar.what, *tell(bar), "ok" if bar.ok else "[bold red]MISSED[/]", bar.note)
    console.print(table)
    console.print()
    for line in name_misses(bars):
        console.print(escape(line))
    console.print(f"{sum(bar.ok for bar in bars)} of {len(bars)} figures are reached.")


def list_bars(rows: Mapping[str, Taken]) -> list[Any]:
    """Return the figures of all rows."""
    return [bar for taken in rows.values() for bar in taken.figures]


def tell(bar: Bar) -> tuple[str, str]:
    """Return a bar and what was reached, as text."""
    sign = "<=" if bar.at_most else ">="
    return f"{sign} {bar.bar:,g} {bar.unit}", f"{bar.reached:,.0f}" if bar.reached >= 100 else f"{bar.reached:.3g}"


def name_misses(bars: Sequence[Bar]) -> Iterator[str]:
    """Yield a line for each figure of which something, by name, is on the wrong side of the bar."""
    for bar in bars:
        if bar.missed:
            yield f"{bar.what}: all but {', '.join(bar.missed)}"


def make_markdown(rows: Mapping[str, Taken], machine: Mapping[str, Any]) -> str:
    """Return the tables for a page of the docs."""
    bars = list_bars(rows)
    versions = f"Python {machine['python']} and trio {machine['trio']}"
    parts = [
        f"Measured by `benchmarks/bench_race.py` with {versions} on {machine['platform']}; processor time.",
        make_table(
            ("figure", "bar", "reached", ""),
            [(bar.what, *tell(bar), "yes" if bar.ok else "**missed**") for bar in bars],
        ),
        *(line[0].upper() + line[1:] + "." for line in name_misses(bars)),
    ]
    for name, taken in rows.items():
        parts += [f"### {name}", str(ROWS[name].__doc__), make_table(taken.head, taken.lines)]
    return "\n\n".join(parts) + "\n"


def write_json(path: Path, settings: Settings, rows: Mapping[str, Taken]) -> None:
    """Write the raw numbers."""
    figures = [{**attrs.asdict(bar), "ok": bar.ok} for bar in list_bars(rows)]
    measured = {name: taken.raw for name, taken in rows.items()}
    written = {"machine": describe_machine(), "rounds": settings.rounds, "figures": figures, "rows": measured}
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    settings = make_settings(chosen)
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
        chosen.markdown.write_text(make_markdown(rows, describe_machine()), encoding="utf-8")
    return 0 if all(bar.ok for bar in bars) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
