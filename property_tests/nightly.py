"""The runtime explored at nightly size: runs, limits, resident actors and their supervisors, a million schedules.

    python property_tests/nightly.py                                 a short look: 20,000 schedules
    python property_tests/nightly.py --schedules 1000000 --jobs 2    the nightly run: half an hour or so
    python property_tests/nightly.py --only trees --schedules 50000  one area, or the programs with these words
    python property_tests/nightly.py --list                          what there is
    python property_tests/nightly.py --only "trees: a pool below comes back whole" --replay "0110"

Every explored test in `property_tests` is a program, and those of `explored_nightly` beside it. Each asserts what
must hold in every schedule: ledgers balance, what ends does so once, nothing is left running, order and limits are
kept. Programs are explored in three rounds: a short one for all; the systematic search for those that were not complete
after it; then every other strategy. What a complete program does not need is given to the others. Areas share the
schedules by their number of programs, none with less than a twentieth; within an area a program with short
executions gets more of them.

Failures are printed and written to a file as they come, with the line that replays them. Exits with 1 if there are
any, and with 130 after Ctrl-C, which prints the summary so far.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import traceback
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # started as a script, it is in no package

from property_tests.nightly_plan import Found, Piece, Plan, Tally, explore_piece, tell_bound
from property_tests.nightly_programs import find_programs
from stageflow_actors._validation import count

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

HEAD = ("area", "programs", "schedules", "distinct", "complete", "bound", "a second", "failures")


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--schedules", type=int, default=20_000, metavar="N", help="how many in all (default: %(default)s)"
    )
    parser.add_argument("--only", action="append", metavar="WORDS", help="programs with these words in their name")
    parser.add_argument("--seed", type=int, default=0, help="of the searches; the same seed explores the same")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--replay", metavar="SCHEDULE", help="run the one program that is chosen once, and print it")
    parser.add_argument(
        "--failures",
        type=Path,
        default=Path("nightly-failures.txt"),
        metavar="FILE",
        help="append failures there (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, program by program")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, for a page of the docs")
    parser.add_argument("--list", action="store_true", help="list the programs, and explore nothing")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each exploration")
    chosen = parser.parse_args(arguments)
    for name in ("schedules", "jobs"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    everything = find_programs()
    chosen.programs = [
        name for name in everything if not chosen.only or any(words.lower() in name for words in chosen.only)
    ]
    if not chosen.programs:
        parser.error(f"no program has {' or '.join(map(repr, chosen.only))} in its name; --list lists them")
    if chosen.replay is not None:
        if not chosen.only:
            parser.error("--replay is for one program; --only chooses it")
        chosen.programs = [name for name in chosen.programs if name in chosen.only] or chosen.programs
        if len(chosen.programs) > 1:
            parser.error(f"--replay is for one program, and --only chooses {len(chosen.programs)}")
    return chosen


def explore_all(pieces: Sequence[Piece], jobs: int) -> Generator[Found]:
    """Explore pieces, in as many processes as wanted; yield what was found as it comes."""
    if jobs == 1:
        yield from map(explore_piece, pieces)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(explore_piece, pieces)


def run(console: Console, progress: Progress, chosen: argparse.Namespace, tally: Tally) -> None:
    """Explore everything, round by round."""
    plan = Plan(tally, chosen.schedules, chosen.seed)
    bar = progress.add_task("", total=chosen.schedules)
    for name, pieces in plan.iterate_rounds():
        progress.update(bar, description=name)
        with closing(explore_all(pieces, chosen.jobs)) as found_ones:
            for found in found_ones:
                tally.add(found)
                progress.update(bar, completed=tally.executions)
                if found.failure is not None:
                    report(console, found, chosen.failures)
                if chosen.verbose:
                    console.print(escape(f"{tally.executions:>9,}  {found}"), soft_wrap=True)


def report(console: Console, found: Found, path: Path) -> None:
    """Print a failure, and write it down."""
    again = f'again: python property_tests/nightly.py --only "{found.piece.program}" --replay "{found.schedule}"'
    told = f"{found.piece.program} fails ({found.piece})\n{found.failure}\n{again}\n"
    console.print("[bold red]failure[/]")
    console.print(escape(told), soft_wrap=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(told + "\n")


def replay(console: Console, chosen: argparse.Namespace) -> int:
    """Run one program under one schedule, and print what happens."""
    name = chosen.programs[0]
    failure = find_programs()[name].replay(chosen.replay)
    if failure is None:
        console.print(f"{name}: does not fail under this schedule", markup=False)
        return 0
    console.print(str(failure), soft_wrap=True, markup=False)
    if failure.error is not None:
        console.print("".join(traceback.format_exception(failure.error)), soft_wrap=True, markup=False)
    return 1


def make_rows(tally: Tally) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table, the sum last."""
    areas = tally.sum_up()
    for area in [*areas, tally.sum_up_all()]:
        yield (
            area.name,
            f"{area.programs:,}",
            f"{area.executions:,}",
            f"{area.distinct:,}",
            f"{area.complete:,}",
            tell_bound(area),
            f"{area.executions / area.seconds:,.0f}" if area.seconds else "",
            f"{area.failures:,}",
        )


def print_table(console: Console, tally: Tally) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in HEAD:
        table.add_column(heading, justify="left" if heading == "area" else "right")
    for row in make_rows(tally):
        table.add_row(*row)
    console.print(table)
    for failed in tally.failed:
        console.print(f"failed: {failed}", markup=False)


def make_markdown(chosen: argparse.Namespace, tally: Tally) -> str:
    """Return the table for a page of the docs, without the speed, which is the machine's affair."""
    speed = HEAD.index("a second")
    head, *rows, last = [(*row[:speed], *row[speed + 1 :]) for row in (HEAD, *make_rows(tally))]
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows, tuple(f"**{cell}**" for cell in last)]
    versions = f"Python {platform.python_version()} and trio {version('trio')}"
    told = f"`nightly.py --schedules {chosen.schedules} --seed {chosen.seed}`, with {versions}:"
    return told + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write_json(path: Path, chosen: argparse.Namespace, tally: Tally) -> None:
    machine = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "trio": version("trio"),
    }
    written = {"machine": machine, "schedules": chosen.schedules, "seed": chosen.seed, "programs": tally.make_raw()}
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    if chosen.list:
        console.print("\n".join(chosen.programs), markup=False)
        return 0
    if chosen.replay is not None:
        return replay(console, chosen)
    everything = find_programs()
    tally = Tally({name: everything[name].area for name in chosen.programs})
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    interrupted = False
    began = perf_counter()
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            run(console, progress, chosen, tally)
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted")
    seconds = perf_counter() - began
    print_table(console, tally)
    console.print(
        f"{count(tally.executions, 'schedule')} of {count(len(chosen.programs), 'program')} in {seconds:,.0f} s"
    )
    if chosen.json is not None:
        write_json(chosen.json, chosen, tally)
    if chosen.markdown is not None:
        chosen.markdown.write_text(make_markdown(chosen, tally), encoding="utf-8")
    if interrupted:
        return 130
    return 1 if tally.failed else 0


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell does to what it starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
