"""The page of the docs with the figures of the race-testing toolkit, its misses included."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Final

from race_bars import EXECUTIONS, SECONDS, Bar
from race_beside import count_verdicts, find_median, read_sightings
from race_cost import REPEAT
from race_finding import read_search, tell_hunt
from race_frontrun import CRASHED, DPOR, FOUND, HASTY, HOLDS, OPEN, OURS, OVERDUE, RANDOM, REDUCED, TOOLS, TUNED
from race_plot import draw_plot
from tables import make_table

from property_tests.corpus import CORPUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from race_beside import Sightings
    from race_finding import Search
    from race_frontrun import Sighting
    from rows import Taken

COMMAND: Final = "python benchmarks/bench_race.py --markdown docs/reference/race-corpus.md"

PLAIN: Final = "plain trio"
SEEDED: Final = "seeded trio"


FURTHER: Final = {
    "certificates": ("Certificates", 'Each twin by `strategy="dpor"` alone, until it is known that no schedule fails.'),
    "false-alarms": (
        "Correct twins, on trio",
        'Each with default settings; of 10,000 executions, `strategy="random"` draws what these leave over.',
    ),
    "cost": ("What an execution costs", "Beside `trio.run` of the same program, in microseconds of processor time."),
    "shared": ("Executions a second", "Of a program of 20 steps, where many executions share a run of trio."),
    "replays": ("Replays in fresh processes", "Of the failures found, under four hash seeds."),
}
"""The title of a row that is shown as it is, and what is said about it."""


def list_bars(rows: Mapping[str, Taken]) -> list[Any]:
    """Return the figures of all rows, in the order in which they are to be reached."""
    return sorted((bar for taken in rows.values() for bar in taken.figures), key=lambda bar: bar.number)


def tell_bar(bar: Bar) -> tuple[str, str]:
    """Return a bar and what was reached, as text."""
    sign = "<=" if bar.at_most else ">="
    return f"{sign} {bar.bar:,g} {bar.unit}", f"{bar.reached:,.0f}" if bar.reached >= 100 else f"{bar.reached:.3g}"


def name_misses(bars: Sequence[Bar]) -> Iterator[str]:
    """Yield a line for each figure of which something, by name, is on the wrong side of the bar."""
    for bar in bars:
        if bar.missed:
            yield f"{bar.what}: all but {', '.join(bar.missed)}"


def make_page(rows: Mapping[str, Taken], versions: Mapping[str, Any], plot: str) -> tuple[str, str]:
    """Return the page as Markdown, and its plot as SVG, which is empty where bugs were not looked for.

    Args:
        rows: What was measured; what was not is left out.
        versions: Of what was used.
        plot: The name of the plot's file.
    """
    searches = [read_search(told) for told in rows["finding"].raw["searches"]] if "finding" in rows else []
    beside = rows["frontrun"].raw if "frontrun" in rows else {}
    bugs, twins = read_sightings(beside.get("bugs", {})), read_sightings(beside.get("twins", {}))
    parts = [*_begin(), *_tell_figures(list_bars(rows))]
    drawn = draw_plot(list_curves(searches, bugs)) if searches else ""
    if searches:
        parts += [*_tell_tools(searches, bugs, plot), *_tell_bugs(searches, bugs)]
    if twins:
        parts += _tell_twins(twins)
    for name, (title, said) in FURTHER.items():
        if name in rows:
            parts += [f"## {title}", said, make_table(rows[name].head, rows[name].lines)]
    return "\n\n".join([*parts, *_tell_method(versions)]) + "\n", drawn


def _begin() -> Iterator[str]:
    yield f"<!-- Made by `{COMMAND}`: what is changed here by hand is lost. -->"
    yield "# The race corpus"
    yield (
        f"This page is made by a script: `{COMMAND}`.\n"
        f"It shows how the toolkit does on the {len(CORPUS)} concurrency bugs of [the\n"
        "corpus](../../property_tests/corpus/README.md) and their correct twins, beside trio itself and beside\n"
        "[frontrun](https://github.com/lucaswiman/frontrun), which explores asyncio. What the words mean: [race\n"
        "testing](../explanation/race-testing.md)."
    )


def _tell_figures(bars: Sequence[Bar]) -> Iterator[str]:
    yield "## Figures to reach"
    lines = [
        (str(bar.number), bar.what, *tell_bar(bar), "yes" if bar.ok else "**missed**", bar.note.replace("; ", "<br>"))
        for bar in bars
    ]
    yield make_table(("", "figure", "bar", "reached", "", "of which"), lines)
    misses = [f"- {line[0].upper()}{line[1:]}." for line in name_misses(bars)]
    yield "\n".join(["What is on the wrong side of a bar, by name:\n", *misses]) if misses else "Nothing is missed."


def list_curves(searches: Sequence[Search], bugs: Sightings) -> dict[str, tuple[list[int], int]]:
    """Return for each tool after how many executions it found what it found, and how many bugs it was given.

    Without the hasty one, which finds the same in correct programs.
    """
    total = len(searches)
    hunts = {PLAIN: [found.plain for found in searches], SEEDED: [found.seeded for found in searches]}
    curves = {OURS: ([found.executions for found in searches if found.kind is not None], total)}
    if bugs:
        for tool in (REDUCED, DPOR, TUNED, RANDOM):
            found = [sightings[tool] for sightings in bugs.values() if sightings[tool].verdict == FOUND]
            curves[tool] = [one.executions or 0 for one in found], len(bugs)
    for name, made in hunts.items():
        curves[name] = [hunt.runs for hunt in made if hunt.kind is not None], total
    return curves


def _tell_tools(searches: Sequence[Search], bugs: Sightings, plot: str) -> Iterator[str]:
    yield "## How soon a bug is found"
    yield f"![The share of the bugs that each tool has found after so many executions]({plot})"
    if bugs:
        yield (
            f"On the {len(bugs)} bugs that make sense on asyncio, every hunt in a fresh process, of which neither the\n"
            "start nor the first exploration counts. The seconds are wall time, for the whole call: ours proves the\n"
            "failure minimal and replays it once more, frontrun replays it ten times."
        )
        lines = []
        for tool in TOOLS:
            spent = sum(found[tool].seconds or 0 for found in bugs.values())
            lines.append((tool, *count_verdicts(bugs, tool), find_median(bugs, tool), f"{spent:.1f}"))
        head = ("tool", FOUND, f"says that it {HOLDS}", OPEN, CRASHED, OVERDUE, "executions, median", "seconds, sum")
        yield make_table(head, lines)
    yield from _name_missed(searches, bugs)


def _name_missed(searches: Sequence[Search], bugs: Sightings) -> Iterator[str]:
    yield "### Bugs that were not found"
    lines = [_name(OURS, [found.name for found in searches if found.kind is None])]
    for tool in TOOLS[1:] if bugs else ():
        wrong = [name for name, found in bugs.items() if found[tool].verdict == HOLDS]
        lost = [name for name, found in bugs.items() if found[tool].verdict not in {FOUND, HOLDS}]
        lines += [_name(tool, wrong, ", which says that they hold")] if wrong else []
        lines += [_name(tool, lost, ", without a verdict")] if lost or not wrong else []
    lines.append(_name(PLAIN, [found.name for found in searches if found.plain.kind is None]))
    lines.append(_name(SEEDED, [found.name for found in searches if found.seeded.kind is None]))
    yield "\n".join(lines)
    if bugs:
        yield (
            "That each of these programs for asyncio has its bug is tested: it fails in an order of steps made by\n"
            "hand (`tests/test_corpus_on_asyncio.py`)."
        )


def _name(tool: str, names: Sequence[str], how: str = "") -> str:
    return f"- **{tool}**{how}: {', '.join(names)}." if names else f"- **{tool}**: none."


def _tell_bugs(searches: Sequence[Search], bugs: Sightings) -> Iterator[str]:
    yield "## Each bug"
    yield (
        "Executions and seconds until it is found. Ours with default settings, in processor time; with trio itself,\n"
        "how it failed and in which run; frontrun as above, a dash where there is no program for asyncio."
    )
    rivals = TOOLS[1:] if bugs else ()
    lines = [
        (
            found.name,
            str(found.entry.depth),
            tell_ours(found),
            tell_hunt(found.plain),
            tell_hunt(found.seeded),
            *(tell_rival(bugs, found.name, tool) for tool in rivals),
        )
        for found in searches
    ]
    yield make_table(("bug", "depth", OURS, PLAIN, SEEDED, *rivals), lines)


def tell_ours(found: Search) -> str:
    """Return after how many executions and seconds we found a bug."""
    return f"{'' if found.kind else 'not in '}{found.executions:,}; {found.seconds:.3f} s"


def tell_rival(bugs: Sightings, name: str, tool: str) -> str:
    """Return the same of frontrun."""
    if name not in bugs:
        return "-"
    sighting: Sighting = bugs[name][tool]
    if sighting.executions is None or sighting.seconds is None:
        return sighting.verdict
    told = f"{sighting.executions:,}; {sighting.seconds:.3f} s"
    return told if sighting.verdict == FOUND else f"{sighting.verdict}: {told}"


def _tell_twins(twins: Sightings) -> Iterator[str]:
    yield "## Correct twins, on asyncio"
    yield f"The same for the {len(twins)} correct twins, in which there is nothing to find: `{FOUND}` is a false alarm."
    head = ("tool", "false alarms", f"says that it {HOLDS}", OPEN, CRASHED, OVERDUE)
    yield make_table(head, [(tool, *count_verdicts(twins, tool)) for tool in TOOLS])
    alarms = {tool: [name for name, found in twins.items() if found[tool].verdict == FOUND] for tool in TOOLS}
    if named := [f"- False alarms of **{tool}**: {', '.join(names)}." for tool, names in alarms.items() if names]:
        yield "\n".join(named)
    if alarms[HASTY]:
        yield f"So what *{HASTY}* finds in the bugs need not be the bug either: it is left out of the plot."


def _tell_method(versions: Mapping[str, Any]) -> Iterator[str]:
    frontrun = f"frontrun {versions['frontrun']}" if versions["frontrun"] else "without frontrun"
    yield "## How it was measured"
    yield "\n".join(
        [
            f"- Python {versions['python']}, trio {versions['trio']}, Hypothesis {versions['hypothesis']}, {frontrun},",
            f"  on {platform.system()}, {platform.machine()}, one core.",
            f"- *{OURS}*: `explore` with its default settings, {EXECUTIONS:,} executions. A bug counts as found",
            f"  if that takes {SECONDS:g} seconds at most.",
            f'- *{REDUCED}*: `strategy="dpor"`.',
            f"- *{PLAIN}*: `trio.run` up to 10,000 times, or for {SECONDS:g} seconds. *{SEEDED}*: the same, with",
            "  trio's order seeded by Hypothesis. Both with a mock clock that jumps when nothing else happens.",
            f"- *{DPOR}*: `frontrun.explore` with its defaults, given the bug's state, tasks and invariant.",
            f'- *{TUNED}*: with `preemption_bound=None` and `clock="explored"`, for which it sees at once',
            "  that nobody can go on.",
            f'- *{RANDOM}*: `strategy="random"`, seed 0. *{HASTY}*: with `deadlock_timeout=0.1` and',
            "  `timeout_per_run=0.2`, for with its defaults the first task that hangs takes the five seconds.",
            f"- All of frontrun's have {EXECUTIONS:,} executions and {SECONDS:g} seconds. Bugs that need a clock are",
            '  given `clock="explored"`, as its documentation says.',
            "- The programs for asyncio are those for trio with `asyncio.sleep(0)` in place of checkpoints; ours is",
            "  measured on trio, frontrun on asyncio, so steps do not correspond one to one.",
            f"- Cost: {REPEAT} executions beside as many of `trio.run`, in turn; medians of the rounds' ratios.",
        ]
    )
    yield "## How to repeat it"
    yield f"```text\npip install -e '.[bench]'\n{COMMAND} --resume kept.jsonl\n```"
    yield (
        "It takes about half an hour, and goes on where it was stopped. `--quick` is a smoke check of a minute;\n"
        "`--only` and `--entry` choose rows and bugs; `--json` writes the raw numbers."
    )
