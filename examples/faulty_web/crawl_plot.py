"""Concurrency and throughput of a crawl over time: as a PNG, and as two lines in the terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .crawl_log import CrawlLog

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
GREEN, RED, ORANGE, BLUE, GREY = "#2e8b57", "#c0392b", "#e08e0b", "#2c6fbb", "#444444"


def write_plot(log: CrawlLog, path: Path, *, limit: int, rate: float, title: str) -> None:
    """Draw how many requests were under way, and what came of them, and write it as a PNG.

    Args:
        log: The crawl's.
        path: Where to.
        limit: How many requests were allowed at once.
        rate: How many a second.
        title: What stands above.
    """
    figure = Figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title)
    _draw_concurrency(above, log, limit)
    _draw_throughput(below, log, rate)
    below.set_xlabel("time from the start of the run [s]")
    below.set_xlim(0, log.at or 1)
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        # Beside the plot: inside, a legend lies over the data of one seed or another.
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.savefig(path, dpi=120)


def _draw_concurrency(axes: Axes, log: CrawlLog, limit: int) -> None:
    times, in_flight, restarting = zip(*log.levels, strict=True)
    axes.fill_between(times, in_flight, step="post", color=BLUE, alpha=0.35, linewidth=0, label="in flight")
    axes.plot(times, restarting, drawstyle="steps-post", color=ORANGE, linewidth=1, label="waiting to be restarted")
    axes.axhline(limit, color=GREY, linestyle="--", linewidth=1.2, label=f"limit: {limit} in flight")
    axes.set_ylabel("requests")


def _draw_throughput(axes: Axes, log: CrawlLog, rate: float) -> None:
    width, bins = _choose_bins(log.at)
    edges = [number * width for number in range(bins + 1)]
    fetched, crashed, started = (
        [count / width for count in count_in_bins(times, width, bins)] for times in (log.ends, log.crashes, log.starts)
    )
    axes.bar(edges[:-1], fetched, width, align="edge", color=GREEN, alpha=0.75, label="pages fetched")
    axes.bar(edges[:-1], crashed, width, fetched, align="edge", color=RED, alpha=0.75, label="requests failed")
    axes.stairs(started, edges, color=GREY, linewidth=1, label="requests begun")
    axes.axhline(rate, color=GREY, linestyle="--", linewidth=1.2, label=f"rate: {rate:g} requests/s")
    axes.set_ylabel(f"per second, over {width:g} s")


def _choose_bins(seconds: float) -> tuple[float, int]:
    """Return a width in seconds, and how many so wide there are: at most 60."""
    width = next(
        width for width in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0) if seconds <= 60 * width
    )
    return width, int(seconds / width) + 1


def count_in_bins(times: Iterable[float], width: float, bins: int) -> list[int]:
    """Return how many of `times` lie in each of so many stretches of so many seconds."""
    counts = [0] * bins
    for time in times:
        counts[min(int(time / width), bins - 1)] += 1
    return counts


def draw_sparklines(log: CrawlLog, *, limit: int, rate: float, width: int) -> RenderableType:
    """Return the same in two lines of text, as high as the limit and the rate.

    Args:
        log: The crawl's.
        limit: How many requests were allowed at once.
        rate: How many a second.
        width: In characters.
    """
    cells = max(10, width - 46)
    step = max(log.at, 1e-9) / cells
    highest = [0] * cells
    for at, in_flight, _ in log.levels:
        cell = min(int(at / step), cells - 1)
        highest[cell] = max(highest[cell], in_flight)
    begun = [count / step for count in count_in_bins(log.starts, step, cells)]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("in flight", Text(draw_line(highest, limit), "blue"), f"of {limit}, at most {max(highest)}")
    table.add_row(
        "requests/s",
        Text(draw_line(begun, rate), "green"),
        f"of {rate:g}, {log.attempts / (log.at or 1):.0f} on average",
    )
    return Group(Text("\nOver time", "bold"), table)


def draw_line(values: Sequence[float], full: float) -> str:
    """Return one character a value, as high as it is between 0 and `full`."""
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[min(top, round(value / full * top))] for value in values)
