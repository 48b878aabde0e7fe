"""The command `bench`: the seed report's table, measured again here."""

from __future__ import annotations

import gc
import json
import random
import reprlib
import sys
import tracemalloc
from collections.abc import Mapping
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import click
import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from stageflow_actors import Pipeline, StageOutput, StageState, parallel_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stageflow_actors import Runner, RunResult, StageContext

_SEED: Final = 1009
"""What the source hands to every worker."""

_SHOWN: Final = 20
"""How many wrong outputs of a row are printed one by one."""

_MEGABYTE: Final = 1_000_000


@final
@attrs.frozen
class Figures:
    """What one row of the table says."""

    duration: float
    """Seconds."""
    throughput: float
    """Stages per second."""
    success: float
    """The share of the stages that ended OK, from 0 to 1."""
    memory: float
    """Megabytes."""


async def _source(_ctx: StageContext) -> Mapping[str, Any]:
    return {"seed": _SEED}


async def _work(ctx: StageContext, latency: float = 0.0) -> Mapping[str, Any]:
    if latency:
        await trio.sleep(latency)
    return {"value": ctx.inputs.require_from("source", "seed") + ctx.config["key"]}


async def _join(ctx: StageContext) -> Mapping[str, Any]:
    values = [output.data["value"] for output in ctx.inputs.outputs.values()]
    return {"total": sum(values), "count": len(values)}


async def _write(ctx: StageContext) -> StageOutput:
    """Write under a key of its own and under one that all share, and let the others in between all of it."""
    key = ctx.config["key"]
    chance = random.Random(f"{ctx.snapshot.data['round']}/{key}")  # noqa: S311 (a schedule, no secret)
    written: dict[str, Any] = {}
    await _wander(chance)
    written[f"key-{key}"] = ctx.inputs.require_from("source", "seed") + key
    await _wander(chance)
    written["common"] = key
    await _wander(chance)
    output = StageOutput.ok(written)
    for name in written:
        written[name] = "written after the output was made"
    await _wander(chance)
    return output


async def _wander(chance: random.Random) -> None:
    for _ in range(chance.randrange(4)):
        await trio.lowlevel.checkpoint()


async def _gather(ctx: StageContext) -> Mapping[str, Any]:
    datas = [output.data for output in ctx.inputs.outputs.values()]
    unique = {name: value for data in datas for name, value in data.items() if name != "common"}
    return {"unique": unique, "common": [data["common"] for data in datas]}


@final
@attrs.frozen
class Row:
    """One row of the table: a source, workers in parallel, a join."""

    name: str
    workers: int
    report: Figures
    """The seed report's own figures."""
    worker: Runner = attrs.field(default=_work, repr=False)
    adversarial: bool = False
    """Whether the workers write, under keys of their own and under a common one, rather than compute."""

    def build(self) -> Pipeline:
        """Return the row's pipeline, compiled."""
        workers = parallel_stages("worker-{key}", self.worker, range(self.workers), dependencies="source")
        join = _gather if self.adversarial else _join
        pipeline = Pipeline(self.name).with_stage("source", _source)
        pipeline = pipeline.with_stages(workers).with_stage("join", join, dependencies=workers)
        pipeline.validate()
        return pipeline

    def expect(self) -> dict[str, dict[str, Any]]:
        """Return what every stage of the row has to give, and nothing else."""
        keys = range(self.workers)
        if self.adversarial:
            workers: dict[str, dict[str, Any]] = {
                f"worker-{key}": {f"key-{key}": _SEED + key, "common": key} for key in keys
            }
            join: dict[str, Any] = {"unique": {f"key-{key}": _SEED + key for key in keys}, "common": tuple(keys)}
        else:
            workers = {f"worker-{key}": {"value": _SEED + key} for key in keys}
            join = {"total": sum(_SEED + key for key in keys), "count": self.workers}
        return {"source": {"seed": _SEED}, **workers, "join": join}


SEED_ROWS: Final = (
    Row("baseline_50", 50, Figures(0.028, 1879, 1.0, 0.22)),
    Row("baseline_100", 100, Figures(0.045, 2268, 1.0, 0.23)),
    Row("stress_250", 250, Figures(0.090, 2786, 1.0, 0.61)),
    Row("stress_500", 500, Figures(0.193, 2597, 1.0, 1.10)),
    Row("stress_500_latency", 500, Figures(0.186, 2706, 1.0, 0.22), partial(_work, latency=0.05)),
    Row("adversarial_race", 500, Figures(0.172, 2924, 1.0, 0.02), _write, adversarial=True),
)
"""The table of the seed report, DAG-005, run of 2026-01-19."""


@final
@attrs.frozen
class Reading:
    """What came of measuring one row."""

    row: Row
    measured: Figures
    problems: tuple[str, ...]
    """Every output that was missing or wrong, in words, each once."""


def find_problems(expected: Mapping[str, Mapping[str, Any]], found: Mapping[str, Any]) -> list[str]:
    """Compare what a run gave with what it has to give; return in words all that is missing or wrong.

    Args:
        expected: The data of every stage.
        found: The run's `RunResult.to_dict()`.
    """
    problems: list[str] = []
    outputs, states, reasons = found["outputs"], found["states"], found["reasons"]
    for stage, data in expected.items():
        state = states.get(stage)
        if state != StageState.OK:
            why = f" ({reasons[stage]})" if stage in reasons else ""
            problems.append(f"{stage}: its state is {state}{why}, not ok")
        if stage in outputs:
            problems.extend(_compare(f"{stage}: data", data, outputs[stage]["data"]))
        else:
            problems.append(f"{stage}: its output is missing")
    problems.extend(f"{stage}: no such stage was asked for" for stage in states if stage not in expected)
    ledger = found["ledger"]
    if not ledger["accepted"] == ledger["replied"] == len(expected) or ledger["failed"] or ledger["cancelled"]:
        problems.append(f"the ledger is {ledger}, not {len(expected)} accepted and as many replied")
    return problems


def _compare(path: str, expected: Any, found: Any) -> Iterator[str]:
    """Yield what differs, down to the single values of mappings and sequences."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            if key in found:
                yield from _compare(f"{path}[{key!r}]", value, found[key])
            else:
                yield f"{path} has no {key!r}"
        yield from (f"{path} has {key!r}, which nobody should have written" for key in found if key not in expected)
    elif isinstance(expected, tuple) and isinstance(found, tuple) and len(expected) == len(found):
        for position, pair in enumerate(zip(expected, found, strict=True)):
            yield from _compare(f"{path}[{position}]", *pair)
    elif type(expected) is not type(found) or expected != found:
        yield f"{path} is {reprlib.repr(found)}, not {reprlib.repr(expected)}"


async def _measure(rows: Sequence[Row], rounds: int, note: Callable[[str], None]) -> list[Reading]:
    return [await _measure_row(row, rounds, note) for row in rows]


async def _measure_row(row: Row, rounds: int, note: Callable[[str], None]) -> Reading:
    """Run a row some times for its duration, then once more, untimed, for its memory. Check every run."""
    pipeline, expected = row.build(), row.expect()
    durations: list[float] = []
    successes: list[float] = []
    problems: dict[str, None] = {}

    def check(result: RunResult) -> None:
        states = list(result.states.values())
        successes.append(states.count(StageState.OK) / len(states))
        problems.update(dict.fromkeys(find_problems(expected, result.to_dict())))

    for number in range(rounds):
        note(row.name)
        gc.collect()
        began = perf_counter()
        result = await pipeline.run({"round": number}, continue_on_failure=True)
        durations.append(perf_counter() - began)
        check(result)
    note(row.name)
    peak, result = await _trace_peak(pipeline, rounds)
    check(result)
    duration = median(durations)
    measured = Figures(duration, len(pipeline) / duration, min(successes), peak / _MEGABYTE)
    return Reading(row, measured, tuple(problems))


async def _trace_peak(pipeline: Pipeline, number: int) -> tuple[int, RunResult]:
    """Run once; return by how many bytes the allocated memory had grown at its peak."""
    gc.collect()
    traced_already = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = await pipeline.run({"round": number}, continue_on_failure=True)
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        if not traced_already:
            tracemalloc.stop()


def make_dag005(rows: Sequence[Row], clock: trio.abc.Clock | None = None) -> click.Command:
    """Return the command that measures `rows`.

    Args:
        rows: What to measure.
        clock: The clock of the trio run, where it is not the real one.
    """

    @click.command("dag005")
    @click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Timed runs of each row.")
    @click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
    def dag005(*, rounds: int, as_json: bool) -> None:
        """Run the six rows of the seed report: a source, N stages in parallel, a join.

        Every output is checked; the exit code is 1 if one is missing or wrong.
        """
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} runs")
        console = Console(stderr=True)
        # No refreshing thread: it would be measured too.
        progress = Progress(
            *columns, console=console, auto_refresh=False, transient=True, disable=not console.is_terminal
        )
        with progress:
            bar = progress.add_task("", total=len(rows) * (rounds + 1))

            def note(name: str) -> None:
                progress.update(bar, description=name, advance=1, refresh=True)

            readings = trio.run(_measure, rows, rounds, note, clock=clock)
        if as_json:
            click.echo(json.dumps(_to_json(readings, rounds), indent=2))
        else:
            _print_table(readings, rounds)
        if any(reading.problems for reading in readings):
            _print_problems(readings)
            sys.exit(1)

    return dag005


def _to_json(readings: Sequence[Reading], rounds: int) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "rows": [
            {
                "name": reading.row.name,
                "stages": reading.row.workers + 2,
                "measured": attrs.asdict(reading.measured),
                "report": attrs.asdict(reading.row.report),
                "problems": list(reading.problems),
            }
            for reading in readings
        ],
    }


def _print_table(readings: Sequence[Reading], rounds: int) -> None:
    title = "DAG-005: a source, N stages in parallel, a join"
    table = Table(title=title, title_style="bold", box=None, pad_edge=False, collapse_padding=True)
    table.add_column("row", no_wrap=True)
    for heading in ("seconds", "stages/s", "success", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("report", justify="right", no_wrap=True, style="dim")
    for reading in readings:
        here, report = reading.measured, reading.row.report
        table.add_row(
            reading.row.name,
            *(f"{figures.duration:.3f}" for figures in (here, report)),
            *(f"{figures.throughput:,.0f}" for figures in (here, report)),
            *(f"{100 * figures.success:.4g}%" for figures in (here, report)),
            *(f"{figures.memory:.2f}" for figures in (here, report)),
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"\nseconds: median of {rounds} {'run' if rounds == 1 else 'runs'}, building excluded."
        " MB: growth of the allocated memory at its peak (tracemalloc), in a run of its own that is not timed;"
        " the report's is the growth of its process. The report was measured on another machine.",
        style="dim",
    )
    if not any(reading.problems for reading in readings):
        checked = sum(reading.row.workers + 2 for reading in readings) * (rounds + 1)
        console.print(f"All {checked:,} outputs of {len(readings) * (rounds + 1)} runs are right.")


def _print_problems(readings: Sequence[Reading]) -> None:
    for reading in readings:
        for problem in reading.problems[:_SHOWN]:
            click.echo(f"{reading.row.name}: {problem}", err=True)
        if len(reading.problems) > _SHOWN:
            click.echo(f"{reading.row.name}: and {len(reading.problems) - _SHOWN} more", err=True)


bench = click.Group(
    "bench", commands=[make_dag005(SEED_ROWS)], help="Measure the runtime on this machine and check its outputs."
)
