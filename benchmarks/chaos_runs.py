"""The chaos run: random pipelines with random faults, restarts, limits, cancellations and timeouts, one set a seed.

    python benchmarks/chaos_runs.py                   1,000 seeds, a minute or two
    python benchmarks/chaos_runs.py --seeds 50 -v     a line for each seed
    python benchmarks/chaos_runs.py --only 132 -v     this seed, with its plan and all that happened

Several runs at once share one supervisor and its limiters, on a virtual clock, with trio's scheduler, the
jitter of restarts and all else drawn from the seed. Two things are the machine's affair: what the threads of
some seeds do meanwhile, and in which order trio cancels many tasks at once, for it keeps them in sets.
After each seed nothing may be left, no limit may have been passed, every ledger must balance, and every stage
must have ended as a reference model says that knows the contract and not the code. Exits with 1 if a seed
violates that, and with 130 after Ctrl-C, which prints the summary so far.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import attrs
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the model is in property_tests, not installed

from chaos_checks import check
from chaos_plans import ChaosPlan, draw
from chaos_play import Call, Log, play
from measuring import quiet

from stageflow_actors.errors import RestartIntensityError, StageTimeoutError
from stageflow_actors.events import StageCrashed, StageEnded, StageRejected, StageRestarting, StageStarted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stageflow_actors import StageState


@attrs.define
class Tally:
    """What has happened so far, over all seeds."""

    seeds: int = 0
    threaded: int = 0
    violations: list[int] = attrs.field(factory=list)
    endings: Counter[str] = attrs.field(factory=Counter)
    """Of runs."""
    states: Counter[StageState] = attrs.field(factory=Counter)
    """Of stages."""
    events: Counter[str] = attrs.field(factory=Counter)
    left: Counter[str] = attrs.field(factory=Counter)
    """How supervisors were left."""
    seconds: float = 0.0

    def add(self, log: Log) -> None:
        self.threaded += log.plan.threads
        self.left[log.plan.leave.value] += 1
        for call in log.calls:
            self.endings[name_ending(call)] += 1
            result = call.result
            if result is None:
                continue
            self.states.update(result.states.values())
            for failure in result.failures.values():
                self.events["stages out of restarts"] += isinstance(failure.error, RestartIntensityError)
            for event in call.events:
                if isinstance(event, StageStarted):
                    self.events["attempts"] += 1
                elif isinstance(event, StageRestarting):
                    self.events["restarts"] += 1
                elif isinstance(event, StageRejected):
                    self.events["rejections by limiters"] += 1
                elif isinstance(event, StageEnded):
                    self.events["items of fan-outs"] += event.item is not None
                elif isinstance(event, StageCrashed):
                    self.events["failed attempts"] += 1
                    self.events["timeouts of attempts"] += isinstance(event.error, StageTimeoutError)


def name_ending(call: Call) -> str:
    if call.at is None:
        return "never asked for"
    if call.engine is None:
        return "refused"
    if call.engine.turned_away is not None:
        return "dropped from the queue"
    return "no result" if call.result is None else call.result.ended.ending.value.replace("_", " ")


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="start with this one")
    parser.add_argument("--only", type=int, metavar="SEED", help="nothing but this one")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each seed; with --only everything")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1:
        parser.error("--seeds must be at least 1")
    return chosen


def examine(seed: int, tally: Tally) -> tuple[Log | None, list[str]]:
    """Play a seed; return what was taken down, where it came to its end, and what is wrong with it."""
    log, found = None, []
    try:
        log = play(draw(seed))
        found = check(log)
        tally.add(log)
    except Exception as error:
        found = [f"it raised {type(error).__name__}: {error}"]
    tally.seeds += 1
    return log, found


def list_plan(plan: ChaosPlan) -> Iterator[str]:
    whole = attrs.evolve(plan, calls=(), limiters=())
    yield f"plan: {whole!r}"
    for name, limiter in plan.limiters:
        yield f"  {name}: {limiter!r}"
    for number, call in enumerate(plan.calls):
        run = attrs.evolve(call.run, stages=(), limiters=())
        yield f"  run {number}, at {call.at:g}: {run!r}"
        for stage in call.run.stages:
            yield f"    {stage!r}"


def list_events(log: Log) -> Iterator[str]:
    for number, call in enumerate(log.calls):
        yield f"run {number}, asked for at {call.at}: {name_ending(call)}"
        for event in call.events:
            fields = attrs.asdict(event, filter=lambda field, _: field.name not in {"run_id", "at"}, recurse=False)
            told = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
            yield f"  {event.at:8.3f}  {type(event).__name__}: {told}"


def report(console: Console, seed: int, found: list[str]) -> None:
    console.print(f"[bold red]seed {seed} violates what must hold[/]")
    for problem in found:
        console.print(f"  {escape(problem)}", soft_wrap=True)
    for line in list_plan(draw(seed)):
        console.print(f"  {escape(line)}", soft_wrap=True)
    console.print(f"  again: python benchmarks/chaos_runs.py --only {seed} -v\n")


def print_summary(console: Console, tally: Tally) -> None:
    table = Table(title="Chaos", title_justify="left", box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows: list[tuple[str, int]] = [("seeds", tally.seeds), ("  with threads", tally.threaded)]
    rows += [(f"  left {how}", number) for how, number in tally.left.most_common()]
    rows.append(("runs", tally.endings.total()))
    rows += [(f"  {ending}", number) for ending, number in tally.endings.most_common()]
    rows.append(("stages", tally.states.total()))
    rows += [(f"  {state.value}", number) for state, number in tally.states.most_common()]
    rows += tally.events.most_common()
    for name, number in rows:
        table.add_row(name, f"{number:,}")
    console.print(table)
    console.print(f"\n{tally.seeds:,} seeds in {tally.seconds:.1f} s, {len(tally.violations)} with violations")
    if tally.violations:
        console.print(f"seeds with violations: {', '.join(map(str, tally.violations))}")


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    seeds = range(chosen.first, chosen.first + chosen.seeds) if chosen.only is None else [chosen.only]
    tally = Tally()
    columns = (TextColumn("seeds"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    interrupted = False
    began = perf_counter()
    with quiet(), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("seeds", total=len(seeds))
        try:
            for seed in seeds:
                log, found = examine(seed, tally)
                if found:
                    tally.violations.append(seed)
                    report(console, seed, found)
                elif chosen.verbose:
                    console.print(f"seed {seed}: well")
                if chosen.verbose and chosen.only is not None and log is not None:
                    for line in (*([] if found else list_plan(log.plan)), *list_events(log)):
                        console.print(escape(line), soft_wrap=True)
                progress.advance(task)
        except KeyboardInterrupt:
            interrupted = True
            console.print("interrupted")
    tally.seconds = perf_counter() - began
    print_summary(console, tally)
    if interrupted:
        return 130
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
