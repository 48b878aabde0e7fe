"""Crawl a few thousand pages of a site that is having a bad day, within its limits.

    python examples/crawl.py
    python examples/crawl.py --pages 5000 --limit 100 --rate 400 --seed 7

At most 64 requests are under way at once, 220 begin in a second (22 more after a pause), and what fails
is tried again where that makes sense: no sooner than a `429` asks for. Pages that never heal are listed
at the end, beside what requests died of, and a plot of concurrency and throughput is written. The site
is real, on a server that this script starts itself. Ctrl-C ends the crawl and shows what it had fetched.
"""

import sys
from collections import Counter
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any, Final, final

import attrs
import click
import httpx
import trio
from faulty_web.client import BusyError, StatusError, fetch, open_client
from faulty_web.crawl_display import show_progress, summarize
from faulty_web.crawl_log import CrawlLog
from faulty_web.crawl_plot import draw_sparklines, write_plot
from faulty_web.faults import Faults
from faulty_web.running import INTERRUPTED, cancel_at_interrupt, open_console
from faulty_web.server import Budget, FaultyServer, ServerStatistics
from faulty_web.site import Site
from rich.console import Console
from rich.text import Text

from stageflow_actors import (
    Backoff,
    EventStream,
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    Rate,
    Restart,
    RunEnding,
    RunResult,
    StageContext,
    StageOutput,
    StageTimeoutError,
    Supervisor,
)

BACKOFF: Final = Backoff(initial=0.1, factor=2.0, maximum=2.0)

HEALING: Final = (httpx.TransportError, StatusError, StageTimeoutError)
"""What it makes sense to try again after."""


@final
@attrs.frozen(kw_only=True)
class Options:
    """How a crawl is done."""

    pages: int = 3000
    limit: int = 64
    """Requests under way at once."""
    rate: int = 220
    """Requests that begin in a second."""
    timeout: float = 1.5
    """Seconds for one attempt at one request."""
    backoff: Backoff = BACKOFF
    budget: int = 230
    """Requests that the server takes in a second."""
    faults: Faults = attrs.field(factory=Faults)


def pipeline(options: Options) -> Pipeline:
    """Return the pipeline of a crawl: from the map to the indexes, to the pages, to a report."""
    # One limiter for all: the site has one server.
    limiter = Limiter(options.limit, rate=Rate(options.rate, per=1.0, burst=max(1, options.rate // 10)))
    restart = Restart(max_restarts=4, backoff=options.backoff, on=HEALING)
    crowd = partial(
        FanOutLimiterStage, limiter=limiter, on_item_failure="collect", restart=restart, timeout=options.timeout
    )
    return (
        Pipeline("crawl")
        .with_stage("map", read_map, restart=restart, timeout=options.timeout, limiter=limiter)
        .with_stage("indexes", crowd(read_page, items=("map", "links")), dependencies="map")
        .with_stage("discover", discover, dependencies="indexes")
        .with_stage("pages", crowd(read_page, items=("discover", "urls")), dependencies="discover")
        .with_stage("report", report_links, dependencies="pages")
    )


def make_log() -> CrawlLog:
    """Return a log of what that pipeline does."""
    return CrawlLog(("indexes", "pages"), "pages")


async def read_map(ctx: StageContext) -> StageOutput:
    """Fetch the page that everything can be reached from."""
    return await read(ctx, "/map")


async def read_page(ctx: StageContext) -> StageOutput:
    """Fetch the page that this item is."""
    return await read(ctx, ctx.snapshot.data["item"])


async def read(ctx: StageContext, path: str) -> StageOutput:
    """Fetch a page, once; what goes wrong is the policy's affair."""
    try:
        answer = await fetch(ctx.snapshot.data["client"], path)
    except BusyError as error:
        return StageOutput.retry(error, after=error.after)
    parser = PageParser()
    parser.feed(answer.text)
    return StageOutput.ok(title=parser.title, links=parser.links, bytes=len(answer.content))


class PageParser(HTMLParser):
    """Gathers the title and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a link, or the beginning of the title."""
        self._in_title = tag == "title"
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_endtag(self, tag: str) -> None:
        """Note the end of the title."""
        self._in_title = False

    def handle_data(self, data: str) -> None:
        """Note the title."""
        if self._in_title:
            self.title += data


async def discover(ctx: StageContext) -> dict[str, Any]:
    """Put together what the indexes link to; one that could not be fetched takes its pages with it."""
    indexes = ctx.inputs.require_from("indexes", "results")
    urls = list(dict.fromkeys(url for index in indexes if index is not None for url in index["links"]))
    ctx.emit({"urls": urls})
    return {"urls": urls}


async def report_links(ctx: StageContext) -> dict[str, Any]:
    """Add up what was fetched, and find the pages that most others link to."""
    pages = [page for page in ctx.inputs.require_from("pages", "results") if page is not None]
    linked = Counter(link for page in pages for link in page["links"])
    return {"bytes": sum(page["bytes"] for page in pages), "linked": linked.most_common(5)}


async def crawl(options: Options, log: CrawlLog, console: Console) -> tuple[RunResult, ServerStatistics]:
    """Start the site and crawl it; return what came of it, and what the server says."""
    site = Site(options.pages, options.faults.seed)
    server = FaultyServer(site.find, options.faults, Budget(options.budget, window=1.0))
    async with trio.open_nursery() as nursery:
        address = await nursery.start(server.serve)
        async with open_client(address) as client, Supervisor(random=Random(options.faults.seed).random) as supervisor:
            run = supervisor.start(pipeline(options), {"client": client}, continue_on_failure=True)
            await nursery.start(cancel_at_interrupt, run)
            nursery.start_soon(show_progress, log, options.limit, console)
            async with trio.open_nursery() as reading:
                # An item has at most 16 events: three an attempt, and its end. So none is dropped.
                reading.start_soon(keep, run.events(max_queued=1000 + 20 * options.pages), log)
                result = await run.result()
        nursery.cancel_scope.cancel()
    return result, server.statistics()


async def keep(stream: EventStream, log: CrawlLog) -> None:
    """Put the events of a run into the log."""
    async with stream as events:
        async for event in events:
            log.add(event)


def report(result: RunResult, statistics: ServerStatistics, log: CrawlLog, options: Options, console: Console) -> None:
    """Print what came of a crawl."""
    console.print()
    console.print(summarize(log, statistics))
    if "indexes" in result and (lost := result.data("indexes")["failed"]):
        console.print(f"\nindexes that could not be fetched: {lost}; what only they link to was not found")
    if "report" in result:
        found = result.data("report")
        linked = ", ".join(f"{url} ({count})" for url, count in found["linked"])
        console.print(f"\n{found['bytes'] / 1e6:.1f} MB; most linked to: {linked}", soft_wrap=True)
    console.print(draw_sparklines(log, limit=options.limit, rate=options.rate, width=console.width))
    console.print()
    console.print(Text(str(result)), soft_wrap=True)


def plot(result: RunResult, log: CrawlLog, options: Options, path: Path) -> None:
    """Write the plot of a crawl."""
    ended = "interrupted" if result.ended.ending is RunEnding.CANCELLED else f"{log.at:.1f} s"
    title = f"{log.ok:,} of {len(log.urls):,} pages, {log.attempts:,} requests, seed {options.faults.seed} ({ended})"
    write_plot(log, path, limit=options.limit, rate=options.rate, title=title)


def check_folder(_ctx: click.Context, _parameter: click.Parameter, path: Path) -> Path:
    """Refuse a plot that cannot be written before the crawl, not after it."""
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    return path


@click.command()
@click.option("--pages", type=click.IntRange(min=1), default=3000, show_default=True, help="How many the site has.")
@click.option("--limit", type=click.IntRange(min=1), default=64, show_default=True, help="Requests under way at once.")
@click.option("--rate", type=click.IntRange(min=1), default=220, show_default=True, help="Requests begun in a second.")
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=230,
    show_default=True,
    help="Requests that the server takes in a second; the next get a 429.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=1.5,
    show_default=True,
    help="Seconds that an attempt at a page may take.",
)
@click.option("--seed", type=int, default=14, show_default=True, help="The site, and what goes wrong, follow from it.")
@click.option(
    "--plot",
    "path",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default=Path("crawl.png"),
    callback=check_folder,
    show_default=True,
    help="Where to write the plot.",
)
def main(*, pages: int, limit: int, rate: int, budget: int, timeout: float, seed: int, path: Path) -> None:
    """Crawl a site of a few thousand pages that is having a bad day, within its limits."""
    console = open_console()
    given = f"--seed {seed} --pages {pages} --limit {limit} --rate {rate} --budget {budget} --timeout {timeout:g}"
    console.print(f"seed {seed}; the same again: {given}", soft_wrap=True)
    faults = Faults(seed=seed, latency=(0.02, 0.15), slow=0.6)
    options = Options(pages=pages, limit=limit, rate=rate, timeout=timeout, budget=budget, faults=faults)
    log = make_log()
    code = INTERRUPTED
    try:
        result, statistics = trio.run(crawl, options, log, console)
        report(result, statistics, log, options, console)
        plot(result, log, options, path)
        console.print(f"plot: {path}", soft_wrap=True)
        code = INTERRUPTED if result.ended.ending is RunEnding.CANCELLED else 0
    except* KeyboardInterrupt:
        console.print("interrupted")
    sys.exit(code)


if __name__ == "__main__":
    main()
