"""What a crawl's events tell: how far it is, what went wrong, and how much was under way when."""

from collections import Counter
from typing import Final

import attrs

from stageflow_actors import StageState
from stageflow_actors.events import (
    Event,
    StageCrashed,
    StageEmitted,
    StageEnded,
    StageRestarting,
    StageStarted,
)

from .client import name_cause

RECENT: Final = 2.0
"""Over how many seconds the pages per second are taken that a progress display shows."""


@attrs.frozen
class Fetched:
    """A page that was fetched, or given up."""

    url: str
    ok: bool
    attempts: int
    seconds: float
    """From the start of the first attempt to the end of the last."""
    cause: str
    """What the last attempt died of; empty where the page was fetched."""


@attrs.define
class _Page:
    """A page that is under way."""

    began: float
    attempts: int = 0
    cause: str = ""
    running: bool = False
    restarting: bool = False


class CrawlLog:
    """Made of the events of a run, one after the other.

    Args:
        stages: The dynamic fan-outs whose items are requests.
        pages: The one of them whose items are the pages.
    """

    def __init__(self, stages: tuple[str, ...], pages: str) -> None:
        self._stages = stages
        self._pages = pages
        self._under_way: dict[tuple[str, int], _Page] = {}
        self.urls: tuple[str, ...] = ()
        """The pages that were found, as the stage that finds them emits them."""
        self.at = 0.0
        """The time of the last event, in seconds from the start of the run."""
        self.in_flight = 0
        self.restarting = 0
        self.ok = 0
        self.failed = 0
        self.attempts = 0
        """Requests, of all stages."""
        self.causes: Counter[str] = Counter()
        """What attempts died of, of all stages."""
        self.fetched: list[Fetched] = []
        self.levels: list[tuple[float, int, int]] = [(0.0, 0, 0)]
        """After every change: when, how many requests were in flight, how many waited to be restarted."""
        self.starts: list[float] = []
        """When requests began."""
        self.crashes: list[float] = []
        """When requests failed."""
        self.ends: list[float] = []
        """When pages were fetched."""

    @property
    def pages_per_second(self) -> float:
        """The pages fetched a second, of late."""
        since = max(0.0, self.at - RECENT)
        recent = 0
        for end in reversed(self.ends):
            if end < since:
                break
            recent += 1
        return recent / (self.at - since) if recent else 0.0

    def add(self, event: Event) -> None:
        """Take note of an event."""
        self.at = event.at
        match event:
            case StageEmitted(event={"urls": urls}):
                self.urls = urls
            case StageStarted() | StageCrashed() | StageRestarting() | StageEnded() if event.item is not None:
                if event.stage in self._stages:
                    self._follow(event, (event.stage, event.item))

    def _follow(self, event: StageStarted | StageCrashed | StageRestarting | StageEnded, key: tuple[str, int]) -> None:
        page = self._under_way.setdefault(key, _Page(event.at))
        match event:
            case StageStarted():
                page.attempts += 1
                self.attempts += 1
                self.starts.append(event.at)
                self._move(page, running=True)
            case StageCrashed():
                page.cause = name_cause(event.error)
                self.causes[page.cause] += 1
                self.crashes.append(event.at)
                self._move(page)
            case StageRestarting():
                self._move(page, restarting=True)
            case StageEnded():
                del self._under_way[key]
                self._move(page)
                if event.stage == self._pages and event.state in (StageState.OK, StageState.FAILED):
                    self._end(event, key[1], page)
        self.levels.append((event.at, self.in_flight, self.restarting))

    def _move(self, page: _Page, *, running: bool = False, restarting: bool = False) -> None:
        self.in_flight += running - page.running
        self.restarting += restarting - page.restarting
        page.running, page.restarting = running, restarting

    def _end(self, event: StageEnded, item: int, page: _Page) -> None:
        ok = event.state is StageState.OK
        if ok:
            self.ok += 1
            self.ends.append(event.at)
        else:
            self.failed += 1
        cause = "" if ok else page.cause
        self.fetched.append(Fetched(self.urls[item], ok, page.attempts, event.at - page.began, cause))
