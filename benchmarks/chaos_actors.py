"""The chaos of resident actors: sixteen under four supervisors, hundreds of asks each, while everything fails.

    python benchmarks/chaos_actors.py                   20 seeds, and 3 on the real clock for the figures of speed
    python benchmarks/chaos_actors.py --seeds 1000      the full run; --jobs 4 spreads it over processes
    python benchmarks/chaos_actors.py --seed 132        this seed again, with its plan and all that happened

A seed has three phases, as Ray's chaos tests have: a warm one, a clean one, and a faulty one. Several clients of every
actor send it 300 numbered asks in each, one after the other, and tells in between. In the faulty phase actors raise
where they handle, are entered, are left, and in the background; they are restarted, stopped and spawned again,
flooded, wounded, asked with little patience; a supervisor below gives up and is restarted, and that at the top is
now and then left before its time. All of it is drawn from the seed, on a virtual clock, with trio's scheduler and the
jitter of restarts. Two things are the machine's affair: what the threads of a few seeds do, whose time is real, and in
which order trio cancels many tasks at once, for it keeps them in sets.

What must hold: every ask ended in one of its ways, within its timeout; nothing was lost or, unless it may be, handled
twice; replies are those of their message; the messages of a client are handled in their order; ledgers and dead
letters are what clients and handlers have counted themselves; whoever is restarted comes up again, with those that the
scope says; in the end all are up, answer, and leave nothing behind. Exits with 1 if a seed violates that, and with
130 after Ctrl-C, which prints the summary so far.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import platform
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import attrs
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # what it shares with property_tests is not installed

from actor_figures import Pace, SeedFigures, Tally, examine, list_rows, list_timed_seeds, make_raw
from actor_plans import ACTORS, ActorsPlan, draw
from measuring import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actor_world import World

_ENOUGH = 20
"""So many problems of a seed are printed."""


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="start with this one")
    parser.add_argument("--seed", type=int, metavar="SEED", help="play nothing but this one, with all that happens")
    parser.add_argument(
        "--asks", type=int, default=300, metavar="N", help="of every actor, in each phase (default: %(default)s)"
    )
    parser.add_argument("--real", action="store_true", help="play every seed on the real clock: some seconds each")
    parser.add_argument(
        "--timed", type=int, metavar="N", help="seeds to play on the real clock for the figures of speed (default: 3)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each seed")
    chosen = parser.parse_args(arguments)
    for name in ("seeds", "asks", "jobs"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if chosen.timed is None:
        chosen.timed = 3 if chosen.seed is None else 0
    return chosen


def list_plan(plan: ActorsPlan) -> Iterator[str]:
    whole = attrs.evolve(plan, supervisors=(), actors=(), strikes=())
    yield f"plan: {whole!r}"
    for part in (*plan.supervisors, *plan.actors, *plan.strikes):
        yield f"  {part!r}"


def list_happenings(world: World) -> Iterator[str]:
    """Yield every event, every dead letter, and what became of the messages that were not just answered."""
    began = min((mail.sent_at for actor in world.actors.values() for mail in actor.mails.values()), default=0.0)
    lines = [(event.at, repr(event)) for event in world.events]
    lines += [
        (letter.at, f"DeadLetter({letter.actor}, {letter.reason}, {dict(letter.snapshot.data)})")
        for letter in world.letters
    ]
    yield from (f"  {at:9.4f}  {line}" for at, line in sorted(lines, key=lambda line: line[0]))
    yield f"messages that were not just answered, in seconds since {began:g}:"
    for actor in world.actors.values():
        for mail in actor.mails.values():
            if (
                len(mail.deliveries) != 1
                or mail.letters
                or mail.ending is None
                or mail.ending.name not in ("REPLIED", "TOLD")
            ):
                yield f"  {mail}"


def report(console: Console, figures: SeedFigures, chosen: argparse.Namespace, *, real: bool) -> None:
    """Print what is wrong with a seed, and how to see that again."""
    console.print(f"[bold red]seed {figures.seed} violates what must hold[/]")
    for problem in figures.found[:_ENOUGH]:
        console.print(f"  {escape(problem)}", soft_wrap=True)
    if len(figures.found) > _ENOUGH:
        console.print(f"  and {len(figures.found) - _ENOUGH} more")
    options = f"--seed {figures.seed}"
    options += f" --asks {chosen.asks}" if chosen.asks != 300 else ""
    options += " --real" if real else ""
    console.print(f"  again: python benchmarks/chaos_actors.py {options}\n", soft_wrap=True)


def print_summary(console: Console, tally: Tally, pace: Pace) -> None:
    table = Table(title="Chaos of actors", title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in list_rows(tally, pace):
        table.add_row(*row)
    console.print(table)
    console.print(
        f"\n{tally.totals['seeds']:,} seeds in {tally.seconds:.1f} s, {len(tally.violations)} with violations"
    )
    if tally.violations:
        console.print(f"seeds with violations: {', '.join(map(str, tally.violations))}")


def write_json(path: Path, chosen: argparse.Namespace, tally: Tally, pace: Pace) -> None:
    machine = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "trio": version("trio"),
    }
    written = {"machine": machine, "actors": ACTORS, "asks_a_phase": chosen.asks, **make_raw(tally, pace)}
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _leave_interrupts_to_the_first() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("stageflow_actors").setLevel(logging.CRITICAL + 1)


def _count(asks: int, real: bool, seed: int) -> SeedFigures:  # noqa: FBT001 (a process calls it)
    return examine(seed, asks=asks, real=real)[0]


def examine_all(seeds: Sequence[int], chosen: argparse.Namespace) -> Iterator[SeedFigures]:
    """Play seeds, in as many processes as wanted; yield their figures in order."""
    count = partial(_count, chosen.asks, chosen.real)
    if chosen.jobs == 1:
        yield from map(count, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.jobs, context, _leave_interrupts_to_the_first) as pool:
        try:
            yield from pool.map(count, seeds)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def run(console: Console, progress: Progress, chosen: argparse.Namespace, tally: Tally, pace: Pace) -> None:
    """Play all seeds, then those that are timed."""
    seeds = range(chosen.first, chosen.first + chosen.seeds)
    task = progress.add_task("seeds", total=len(seeds))
    for figures in examine_all(seeds, chosen):
        tally.add(figures)
        if chosen.real and not figures.found:
            pace.add(figures)
        if figures.found:
            report(console, figures, chosen, real=chosen.real)
        elif chosen.verbose:
            console.print(f"seed {figures.seed}: well")
        progress.advance(task)
    if chosen.real:
        return
    timed = list_timed_seeds(chosen.first, chosen.timed)
    task = progress.add_task("real clock", total=len(timed))
    for seed in timed:
        figures = _count(chosen.asks, True, seed)
        pace.add(figures)
        if figures.found:
            tally.violations.append(seed)
            report(console, figures, chosen, real=True)
        progress.advance(task)


def replay(console: Console, chosen: argparse.Namespace, tally: Tally, pace: Pace) -> None:
    """Play one seed, and print all that happens."""
    for line in list_plan(draw(chosen.seed, asks=chosen.asks, real=chosen.real)):
        console.print(escape(line), soft_wrap=True)
    figures, world = examine(chosen.seed, asks=chosen.asks, real=chosen.real)
    tally.add(figures)
    if figures.real:
        pace.add(figures)
    for line in list_happenings(world) if world is not None else ():
        console.print(escape(line), soft_wrap=True)
    if figures.found:
        report(console, figures, chosen, real=chosen.real)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    tally, pace = Tally(), Pace()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    interrupted = False
    began = perf_counter()
    with quiet():
        try:
            if chosen.seed is not None:
                replay(console, chosen, tally, pace)
            else:
                with Progress(*columns, console=console, transient=True) as progress:
                    run(console, progress, chosen, tally, pace)
        except KeyboardInterrupt:
            interrupted = True
            console.print("interrupted")
    tally.seconds = perf_counter() - began
    print_summary(console, tally, pace)
    if chosen.json is not None:
        write_json(chosen.json, chosen, tally, pace)
    if interrupted:
        return 130
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
