"""`examples/crawl.py`: every page is accounted for, the limits hold as the server sees them, and Ctrl-C."""

from __future__ import annotations

import io
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from stageflow_actors import Backoff, RunResult, StageState, StageTimeoutError
from stageflow_actors.events import StageCrashed, StageEmitted, StageEnded, StageRestarting, StageStarted

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import crawl
from faulty_web.client import BusyError, StatusError
from faulty_web.crawl_log import CrawlLog, Fetched
from faulty_web.crawl_plot import count_in_bins, draw_line, write_plot
from faulty_web.faults import Course, Fault, Faults
from faulty_web.server import ServerStatistics
from faulty_web.site import Site

EXAMPLES = Path(__file__).parents[1] / "examples"
FOREVER = 600.0
"""A timeout, in seconds, that no test runs into."""
MANY = 10**6
QUICK = Backoff(initial=0.001, factor=2.0, maximum=2.0)
PNG = b"\x89PNG\r\n\x1a\n"

Crawled = tuple[RunResult, ServerStatistics, CrawlLog, str]


def list_paths(pages: int) -> list[str]:
    indexes = [f"/index/{number}" for number in range(-(-pages // 100))]
    return ["/map", *indexes, *(f"/page/{number}" for number in range(pages))]


def make_faults(pages: int, courses: dict[str, Course] | None = None, **options: Any) -> Faults:
    """Return faults that take next to no time: none hangs, and but for pages all is well unless `courses` say so."""
    times: dict[str, Any] = {"latency": (0.001, 0.003), "slow": 0.01, "retry_after": (0.001, 0.002)}
    faults = Faults(**{"faulty": 0.2, "dead": 0.02, **times, **options})
    drawn = {path: faults.course(path) if path.startswith("/page/") else Course() for path in list_paths(pages)}
    for path, course in drawn.items():
        quick = tuple(Fault.RESET if fault is Fault.HANG else fault for fault in course.faults)
        drawn[path] = Course(quick, course.heals)
    return Faults(**{**times, **options}, courses={**drawn, **(courses or {})})


async def run(faults: Faults, *, terminal: bool = False, **options: Any) -> Crawled:
    given = {"limit": 16, "rate": MANY, "budget": MANY, "timeout": FOREVER, "backoff": QUICK, **options}
    made = crawl.Options(**given, faults=faults)
    written = io.StringIO()
    console = Console(file=written, width=100, markup=False, highlight=False, force_terminal=terminal)
    log = crawl.make_log()
    result, statistics = await crawl.crawl(made, log, console)
    crawl.report(result, statistics, log, made, console)
    return result, statistics, log, written.getvalue()


def count_requests(course: Course, max_restarts: int = 4) -> int:
    """Return how often a path is asked for, until it answers well or is given up."""
    for asked in range(1, max_restarts + 1):
        if course.fault(asked) in (None, Fault.SLOW):
            return asked
    return max_restarts + 1


# Every page is accounted for


async def test_every_path_is_asked_for_until_it_heals_or_is_given_up() -> None:
    faults = make_faults(150, seed=1, dead=0.05)
    result, statistics, log, shown = await run(faults, pages=150)
    assert statistics.asked == {path: count_requests(faults.course(path)) for path in list_paths(150)}
    dead = {path for path in list_paths(150) if not faults.course(path).heals}
    assert len(dead) > 2
    assert {page.url for page in log.fetched if not page.ok} == dead
    assert {page.url for page in log.fetched} == set(list_paths(150)[3:])
    assert (log.ok, log.failed) == (150 - len(dead), len(dead))
    assert log.attempts == statistics.requests - 1  # the map is no item
    assert log.causes.total() == log.attempts - log.ok - 2
    data = result.data("pages")
    assert (data["count"], data["ok"], data["failed"]) == (150, log.ok, log.failed)
    assert f"{log.ok} fetched, {log.failed} failed, of 150 found" in shown


async def test_pages_by_their_position_are_the_pages_of_the_site() -> None:
    result, _, _, _ = await run(make_faults(120, seed=2, dead=0.0), pages=120)
    site = Site(120, 2)
    results = result.data("pages")["results"]
    assert [page["title"] for page in results] == [f"Page {number}" for number in range(120)]
    for number, page in enumerate(results):
        stored = site.find(f"/page/{number}")
        assert stored is not None
        assert page["bytes"] == len(stored.body)
        assert all(f'href="{link}"'.encode() in stored.body for link in page["links"])
    assert result.data("report")["bytes"] == sum(page["bytes"] for page in results)


async def test_what_goes_wrong_does_not_depend_on_the_schedule() -> None:
    faults = make_faults(60, seed=3)
    _, one, _, _ = await run(faults, pages=60, limit=3)
    _, other, _, _ = await run(faults, pages=60, limit=50)
    assert one.asked == other.asked
    assert one.faults == other.faults


async def test_an_index_that_never_heals_takes_its_pages_with_it() -> None:
    lost = {"/index/1": Course((Fault.ERROR,), heals=False)}
    _, statistics, log, shown = await run(make_faults(250, lost, dead=0.0, faulty=0.0), pages=250)
    assert statistics.asked["/index/1"] == 5
    assert log.ok == 150
    assert "150 fetched, 0 failed, of 150 found" in shown
    assert "indexes that could not be fetched: 1; what only they link to was not found" in shown


async def test_without_the_map_there_is_nothing_to_crawl() -> None:
    lost = {"/map": Course((Fault.RESET,), heals=False)}
    result, statistics, _, shown = await run(make_faults(10, lost), pages=10)
    assert statistics.asked == {"/map": 5}
    assert list(result.failures) == ["map"]
    assert result.states["report"] is StageState.ISOLATED
    assert "0 fetched, 0 failed, of 0 found" in shown


async def test_a_page_that_hangs_is_asked_for_again() -> None:
    hanging = {"/page/3": Course((Fault.HANG,))}
    _, statistics, log, _ = await run(make_faults(10, hanging, dead=0.0, faulty=0.0), pages=10, timeout=0.5)
    assert statistics.faults == {Fault.HANG: 1}
    assert log.causes["timeout"] >= 1
    assert log.ok == 10


# The limits, from the server's side


async def test_as_many_requests_as_are_allowed_are_under_way_and_no_more() -> None:
    # All hang at first, so that those that are allowed do so together.
    courses = {f"/page/{number}": Course((Fault.HANG,)) for number in range(30)}
    _, statistics, log, shown = await run(make_faults(30, courses), pages=30, limit=20, timeout=0.8)
    assert statistics.max_current == 20
    assert statistics.current == 0
    assert max(in_flight for _, in_flight, _ in log.levels) == 20
    assert log.levels[-1][1:] == (0, 0)
    assert "at most 20 at once" in shown


@pytest.mark.parametrize("limit", [1, 5])
async def test_crashes_and_restarts_leave_the_limit_as_it_was(limit: int) -> None:
    _, statistics, log, _ = await run(make_faults(40, seed=4, faulty=0.7), pages=40, limit=limit)
    assert statistics.max_current <= limit
    assert max(in_flight for _, in_flight, _ in log.levels) == limit
    assert log.ok + log.failed == 40


async def test_the_rate_keeps_within_the_budget_of_the_server() -> None:
    # In any second at most 20 + 200 begin; 50 more are room for what a busy machine delays.
    faults = make_faults(200, faulty=0.0, dead=0.0)
    _, statistics, log, _ = await run(faults, pages=200, limit=100, rate=200, budget=270)
    assert statistics.refused == 0
    assert log.ok == 200


async def test_who_is_over_the_budget_comes_back_when_there_is_a_new_one() -> None:
    faults = make_faults(60, faulty=0.0, dead=0.0)
    _, statistics, log, shown = await run(faults, pages=60, limit=60, budget=40)
    assert log.ok == 60
    assert statistics.refused == log.causes["429"] >= 1
    assert statistics.asked == dict.fromkeys(list_paths(60), 1)
    assert f"{statistics.refused} over its budget" in shown


# What it shows


async def test_progress_on_a_terminal() -> None:
    _, _, _, shown = await run(make_faults(60), pages=60, rate=200, terminal=True)
    assert " of 16 in flight, " in shown
    assert " of 60 pages" in shown


def feed(*events: Any) -> CrawlLog:
    log = CrawlLog(("indexes", "pages"), "pages")
    log.add(StageEmitted("run", 0.0, "discover", 1, {"urls": ("/a", "/b")}))
    for event in events:
        log.add(event)
    return log


def test_the_log_follows_each_page_through_its_attempts() -> None:
    log = feed(
        StageStarted("run", 1.0, "pages", 1, 0),
        StageStarted("run", 1.0, "pages", 1, 1),
        StageCrashed("run", 2.0, "pages", 1, StatusError("/a", 500), 0),
        StageRestarting("run", 2.0, "pages", 2, 0.5, 0),
    )
    assert (log.in_flight, log.restarting, log.ok, log.failed) == (1, 1, 0, 0)
    log.add(StageStarted("run", 2.5, "pages", 2, 0))
    assert (log.in_flight, log.restarting) == (2, 0)
    log.add(StageEnded("run", 3.0, "pages", StageState.OK, "", 0))
    log.add(StageCrashed("run", 3.5, "pages", 1, StageTimeoutError("late"), 1))
    log.add(StageEnded("run", 3.5, "pages", StageState.FAILED, "late", 1))
    assert (log.in_flight, log.restarting, log.ok, log.failed, log.attempts) == (0, 0, 1, 1, 3)
    assert log.fetched == [Fetched("/a", True, 2, 2.0, ""), Fetched("/b", False, 1, 2.5, "timeout")]
    assert log.causes == {"500": 1, "timeout": 1}
    assert [in_flight for _, in_flight, _ in log.levels] == [0, 1, 2, 1, 1, 2, 1, 0, 0]
    assert (log.starts, log.crashes, log.ends) == ([1.0, 1.0, 2.5], [2.0, 3.5], [3.0])


def test_the_log_takes_a_page_that_is_cancelled_for_neither_fetched_nor_failed() -> None:
    log = feed(
        StageStarted("run", 1.0, "pages", 1, 0),
        StageCrashed("run", 2.0, "pages", 1, BusyError("/a", 1.0), 0),
        StageRestarting("run", 2.0, "pages", 2, 1.0, 0),
        StageStarted("run", 2.0, "pages", 1, 1),
        StageEnded("run", 2.5, "pages", StageState.CANCELLED, "", 0),
        StageEnded("run", 2.5, "pages", StageState.CANCELLED, "", 1),
    )
    assert (log.in_flight, log.restarting, log.ok, log.failed) == (0, 0, 0, 0)
    assert log.fetched == []


def test_the_log_counts_requests_of_other_stages_but_no_pages_of_them() -> None:
    log = feed(
        StageStarted("run", 1.0, "discover", 1),
        StageStarted("run", 1.0, "indexes", 1, 0),
        StageEnded("run", 2.0, "indexes", StageState.OK, "", 0),
    )
    assert (log.attempts, log.ok, log.in_flight) == (1, 0, 0)


def test_pages_per_second_are_those_of_the_last_two_seconds() -> None:
    events = []
    for second in range(1, 11):
        events.append(StageStarted("run", second - 0.5, "pages", 1, second % 2))
        events.append(StageEnded("run", float(second), "pages", StageState.OK, "", second % 2))
    assert feed(*events).pages_per_second == 1.5  # those at 8, 9 and 10
    assert feed().pages_per_second == 0.0


def test_times_are_counted_in_bins_and_the_last_takes_its_end_too() -> None:
    assert count_in_bins([0.0, 0.4, 0.5, 0.9, 1.5, 2.0], 0.5, 4) == [2, 2, 0, 2]


def test_a_line_is_as_high_as_its_values() -> None:
    assert draw_line([0, 8, 32, 64, 90], 64) == " ▁▄██"


def test_the_plot_of_a_crawl_that_never_began(tmp_path: Path) -> None:
    log = CrawlLog(("pages",), "pages")
    write_plot(log, tmp_path / "empty.png", limit=4, rate=10, title="nothing")
    assert (tmp_path / "empty.png").read_bytes().startswith(PNG)


# As a script


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / "crawl.py"), "--plot", str(tmp_path / "crawl.png"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "COLUMNS": "100", "PYTHONWARNINGS": "error"}
    environment["PYTHONIOENCODING"] = "ascii"  # which has no bars
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def find_seed(paths: list[str], unwanted: Any) -> int:
    """Return the first seed that gives none of the paths an unwanted course."""
    seeds = ({path: Faults(seed=seed).course(path) for path in paths} for seed in itertools.count())
    return next(seed for seed, courses in enumerate(seeds) if not any(map(unwanted, courses.values())))


def test_the_script_crawls_a_small_site(tmp_path: Path) -> None:
    seed = find_seed(list_paths(20), lambda course: not course.heals or Fault.HANG in course.faults)
    process = start(tmp_path, "--seed", str(seed), "--pages", "20", "--rate", "100", "--timeout", str(FOREVER))
    out, err = process.communicate()
    assert err == ""
    assert process.returncode == 0
    given = f"--seed {seed} --pages 20 --limit 64 --rate 100 --budget 230 --timeout 600"
    assert out.startswith(f"seed {seed}; the same again: {given}\n")
    assert "20 fetched, 0 failed, of 20 found" in out
    assert "pipeline 'crawl': completed\n" in out
    assert out.endswith(f"plot: {tmp_path / 'crawl.png'}\n")
    assert (tmp_path / "crawl.png").read_bytes().startswith(PNG)


def test_the_script_explains_itself() -> None:
    shown = CliRunner().invoke(crawl.main, ["--help"])
    assert shown.exit_code == 0
    assert "--seed INTEGER" in shown.output


def test_a_plot_that_has_no_place_is_refused_before_the_crawl(tmp_path: Path) -> None:
    shown = CliRunner().invoke(crawl.main, ["--plot", str(tmp_path / "nowhere" / "crawl.png")])
    assert shown.exit_code == 2
    assert "there is no folder" in shown.output
    assert "seed" not in shown.output


def test_an_interrupt_leaves_what_was_fetched(tmp_path: Path) -> None:
    """At this rate the crawl would take minutes: nothing else can end it."""
    seed = find_seed(["/map", "/index/0"], lambda course: course.faults)
    process = start(tmp_path, "--seed", str(seed), "--pages", "100", "--rate", "20", "--limit", "4")
    assert process.stdout is not None
    for line in process.stdout:
        if " of 100 pages: " in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert err == ""
    assert process.returncode == 130
    assert re.search(r"pages +[1-9][0-9]* fetched, [0-9]+ failed, of 100 found", out)
    assert "pipeline 'crawl': cancelled: interrupted\n" in out
    assert (tmp_path / "crawl.png").read_bytes().startswith(PNG)
