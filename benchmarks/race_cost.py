"""The rows of cost: what an execution takes beside trio by itself, alone and where many share a run of trio."""

from __future__ import annotations

import gc
from functools import partial
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing
from measuring import interleave, ratio
from race_bars import Bar, time_call
from race_peers import scheduling
from rows import Taken

from stageflow_actors.testing import explore

if TYPE_CHECKING:
    from collections.abc import Callable

    from race_bars import Settings
    from race_peers import Program

REPEAT: Final = 20
"""Executions of a program in one round, each beside one of trio's."""

KINDS: Final = ("trio.run", "one of many", "alone")

STRATEGIES: Final = ("auto", "dpor", "dfs", "pct", "pos", "random")


async def twenty_steps() -> None:
    """Three workers take turns at a lock and put what they have into a channel: 20 steps as it comes."""
    lock = trio.Lock()
    sends, receives = trio.open_memory_channel[int](3)

    async def work(number: int) -> None:
        await trio.lowlevel.checkpoint()
        async with lock:
            await trio.lowlevel.checkpoint()
        await sends.send(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(work, number)
    assert sorted([await receives.receive() for _ in range(3)]) == [0, 1, 2]


async def nothing() -> None:
    """End at once."""


def lets_time_pass(program: Program) -> bool:
    """Return whether a program sleeps: without control, it would do so in real time."""
    for _ in range(REPEAT):
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(program, clock=clock)
        if clock.current_time() > 0:
            return True
    return False


@scheduling(seeded=False)
def measure_cost(settings: Settings) -> Taken:
    """Compare an execution with `trio.run` of the same program: one of many, as `explore` makes them, and one alone."""
    taken = settings.kept.take("cost", partial(_take_costs, settings))
    many, alone, uncontrolled = taken["one of many"], taken["alone"], taken["trio.run"]
    ratios = {name: ratio(times, uncontrolled[name]) for name, times in many.items()}
    ratios_alone = {name: ratio(times, uncontrolled[name]) for name, times in alone.items()}
    ranked = sorted((name for name in ratios if name != "nothing"), key=ratios.__getitem__)
    shown = {"an empty one": "nothing", "the least": ranked[0], "the median": ranked[len(ranked) // 2]}
    shown["the most"] = ranked[-1]
    lines: list[tuple[str, ...]] = []
    for title, name in shown.items():
        times = (f"{1e6 * median(taken[kind][name]):,.0f}" for kind in KINDS)
        lines.append((title, name, *times, f"{ratios[name]:.2f}x", f"{ratios_alone[name]:.2f}x"))
    left = len(settings.entries) - (len(ranked) - 1)
    beside = median(ratios_alone[name] for name in ranked)
    note = f"one alone, in a run of its own: {beside:.2f}x; {left} that sleep are left out"
    what = f"an execution, of {REPEAT}, against uncontrolled trio, median of {len(ranked)} programs"
    figure = Bar(what, 1.5, median(ratios[name] for name in ranked), "x", note=note, number=4)
    head = ("cost", "program", "trio.run, us", "one of many, us", "alone, us", "many", "alone")
    return Taken(head, lines, [figure], taken)


def _take_costs(settings: Settings) -> dict[str, dict[str, list[float]]]:
    awake = {entry.name: entry.twin for entry in settings.entries if not lets_time_pass(entry.twin)}
    programs: dict[str, Program] = {"nothing": nothing, "20 steps": twenty_steps, **awake}
    taken: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in programs} for kind in KINDS}
    for number in range(settings.rounds):
        for name, program in programs.items():
            settings.tell(f"cost of an execution: round {number + 1}, {name}")
            many = partial(explore, program, max_executions=REPEAT, strategy="random")
            uncontrolled = partial(_run_often, program)
            alone = partial(_explore_often, program)
            for kind, seconds in zip(KINDS, time_in_turn(uncontrolled, many, alone), strict=True):
                taken[kind][name].append(seconds / REPEAT)
    return taken


def _run_often(program: Program) -> None:
    for _ in range(REPEAT):
        trio.run(program)


def _explore_often(program: Program) -> None:
    for _ in range(REPEAT):
        explore(program, max_executions=1)


def time_in_turn(*functions: Callable[[], Any]) -> list[float]:
    """Call each once, in turn; return the processor time of each."""
    gc.collect()
    return [time_call(function)[1] for function in functions]


@scheduling(seeded=False)
def measure_shared(settings: Settings) -> Taken:
    """Explore a program of 20 steps, many executions sharing a run of trio, beside as many runs of trio."""
    settings.tell("executions that share a run")
    taken = settings.kept.take("shared", partial(_take_rates, settings))
    lines: list[tuple[str, ...]] = [
        (name, f"{median(1 / one for one in times):,.0f}", f"{ratio(times, taken['trio.run']):.2f}x")
        for name, times in taken.items()
    ]
    rates = {name: median(1 / one for one in times) for name, times in taken.items()}
    note = ", ".join(f"{name} {rates[name]:,.0f}" for name in STRATEGIES if name != "dfs")
    what = "executions a second that share a run, of 20 steps, one schedule after another"
    figure = Bar(what, 2000, rates["dfs"], "/s", at_most=False, note=note, number=4)
    return Taken(("strategy", "executions/s", "time against trio.run"), lines, [figure], {"seconds": taken})


def _take_rates(settings: Settings) -> dict[str, list[float]]:
    measures: dict[str, Callable[[], float]] = {"trio.run": partial(_time_runs, settings)}
    for strategy in STRATEGIES:
        measures[strategy] = partial(_time_exploration, settings, strategy)
    return interleave(settings.rounds, measures)


def _time_runs(settings: Settings) -> float:
    gc.collect()
    began = process_time()
    for _ in range(settings.shared_executions):
        trio.run(twenty_steps)
    return (process_time() - began) / settings.shared_executions


def _time_exploration(settings: Settings, strategy: Any) -> float:
    """Explore until enough executions are made: partial order reduction is complete after a few, and begins anew."""
    gc.collect()
    made = 0
    began = process_time()
    while made < settings.shared_executions:
        left = settings.shared_executions - made
        report = explore(twenty_steps, strategy=strategy, max_executions=left, seed=made)
        report.raise_for_failure()
        made += report.executions
    return (process_time() - began) / made
