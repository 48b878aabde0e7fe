"""How far a crawl is, while it runs, and what came of it."""

from collections import Counter

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .crawl_log import CrawlLog, Fetched
from .server import ServerStatistics

REFRESH = 0.1
"""Seconds between two pictures."""

BAR = 40
"""The width of the widest bar, in characters."""

SHOWN = 8
"""How many of a list are shown."""


async def show_progress(log: CrawlLog, limit: int, console: Console) -> None:
    """Show how far a crawl is, until cancelled: a live picture on a terminal, a line for every tenth elsewhere."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(_draw_progress(log, limit), refresh=True)
                await trio.sleep(REFRESH)
    told = 0
    while True:
        done = log.ok + log.failed
        tenth = done * 10 // len(log.urls) if log.urls else 0
        if tenth > told:
            told = tenth
            console.print(f"{done:,} of {len(log.urls):,} pages: {_describe(log, limit)}", soft_wrap=True)
        await trio.sleep(REFRESH)


def _draw_progress(log: CrawlLog, limit: int) -> RenderableType:
    done, total = log.ok + log.failed, len(log.urls)
    table = Table(box=None, show_header=False, pad_edge=False)
    bar = ProgressBar(total=total or None, completed=done, width=BAR, pulse=not total)
    table.add_row(bar, f"{done:,} of {total:,} pages" if total else "looking for pages")
    return Group(table, Text(_describe(log, limit)))


def _describe(log: CrawlLog, limit: int) -> str:
    return (
        f"{log.ok:,} fetched, {log.failed:,} failed, {log.restarting} restarting, "
        f"{log.in_flight} of {limit} in flight, {log.pages_per_second:.0f} pages/s"
    )


def summarize(log: CrawlLog, statistics: ServerStatistics) -> RenderableType:
    """Return what came of a crawl: counts, what went wrong, and what took longest.

    Args:
        log: The crawl's.
        statistics: The server's view of it.
    """
    seconds = log.at or 1.0
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_row("pages", f"{log.ok:,} fetched, {log.failed:,} failed, of {len(log.urls):,} found")
    facts.add_row("requests", f"{log.attempts:,}, of which {log.causes.total():,} failed")
    facts.add_row("time", f"{log.at:.1f} s, {log.ok / seconds:.0f} pages/s, {log.attempts / seconds:.0f} requests/s")
    facts.add_row(
        "the server says",
        f"{statistics.requests:,} requests, at most {statistics.max_current} at once, "
        f"{statistics.refused:,} over its budget",
    )
    lost = [page for page in log.fetched if not page.ok]
    slowest = sorted((page for page in log.fetched if page.ok), key=lambda page: -page.seconds)[:SHOWN]
    return Group(
        facts,
        _draw_counts("What requests died of", log.causes),
        _draw_attempts(log),
        _list_pages("Pages that failed", lost),
        _list_pages("Slowest pages, backoff and all", slowest),
    )


def _draw_attempts(log: CrawlLog) -> RenderableType:
    tries = Counter(page.attempts for page in log.fetched if page.ok)
    return _draw_counts(
        "Pages by attempts needed", Counter({str(number): tries[number] for number in sorted(tries)}), by_count=False
    )


def _draw_counts(title: str, counts: Counter[str], *, by_count: bool = True) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    most = max(counts.values(), default=1)
    for name, count in counts.most_common() if by_count else counts.items():
        bar = Text("━" * round(BAR * count / most), "cyan")
        table.add_row(name, Text(f"{count:,}", justify="right"), bar)
    return Group(Text(f"\n{title}{'' if counts else ': none'}", "bold"), *([table] if counts else []))


def _list_pages(title: str, pages: list[Fetched]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False)
    for page in pages[:SHOWN]:
        tries = f"{page.attempts} attempts" if page.attempts > 1 else "1 attempt"
        table.add_row(page.url, Text(f"{page.seconds:.2f} s", justify="right"), tries, page.cause)
    more = [Text(f"and {len(pages) - SHOWN:,} more")] if len(pages) > SHOWN else []
    return Group(Text(f"\n{title}{'' if pages else ': none'}", "bold"), *([table] if pages else []), *more)
