"""The pytest plugin of the race toolkit: options, replay, errors without the toolkit's frames, a summary.

Pytest loads it in every run, of any project, where the library is installed. It stands outside the package so that
this imports neither the package nor trio, which takes a quarter of a second; a test module that has race tests does.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import pytest
from _pytest._code.code import ReprFileLocation, Traceback, TracebackEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from _pytest.fixtures import SubRequest

    from stageflow_actors.testing._race_test import Orders

_T = TypeVar("_T")

_SAFE: Final = re.compile(r"[^\"$`\\!]*")
"""What every shell leaves as it is between double quotes."""

_EXECUTIONS: Final = "race_executions"
_COMPLETE: Final = "race_complete"
_COVERAGE: Final = "race_coverage"
_REPLAY: Final = "race_replay"
_PROPERTIES: Final = frozenset({_EXECUTIONS, _COMPLETE, _COVERAGE, _REPLAY})
"""Properties of a test's report: they come to the terminal from the workers of pytest-xdist too, and to JUnit's XML."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("race tests")
    group.addoption(
        "--race-executions",
        metavar="N",
        type=_count(1),
        help="explore at most N executions a race test, whatever it says itself",
    )
    group.addoption("--race-seed", metavar="N", type=_count(0), help="the seed of what race tests sample")
    group.addoption(
        "--race-strategy",
        metavar="NAME",
        type=_parse_strategy,
        help="how race tests search: auto, dpor, dfs, pct, pos or random",
    )
    group.addoption(
        "--race-replay",
        metavar="SCHEDULE",
        type=_parse_schedule,
        help="run the one selected race test once, under the schedule that its failure has printed",
    )
    group.addoption("--race-report", action="store_true", help="list what was covered, race test by race test")


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            message = f"must be a whole number of at least {least}, not {text!r}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return parse


def _parse_strategy(text: str) -> str:
    from stageflow_actors._validation import nearest
    from stageflow_actors.testing._search import STRATEGIES

    if text not in STRATEGIES:
        hint = nearest(text, STRATEGIES)
        message = f"must be one of {', '.join(STRATEGIES)}, not {text!r}" + (f"; {hint}" if hint else "")
        raise argparse.ArgumentTypeError(message)
    return text


def _parse_schedule(text: str) -> str:
    from stageflow_actors.errors import ReplayError
    from stageflow_actors.testing._schedule import decode

    try:
        decode(text)
    except ReplayError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    if config.getoption("race_replay") is not None and config.getoption("dist", "no") != "no":
        message = "--race-replay replays one test in this process; leave out the options of pytest-xdist, or add -n 0"
        raise pytest.UsageError(message)
    config.pluginmanager.register(_Races(config), "stageflow_actors race tests")


_ORDERS: Final = pytest.StashKey["Orders"]()


def is_race_test(item: pytest.Item) -> bool:
    """Return whether a test is one that `race_test` made, maybe below `@given`."""
    function = getattr(item, "obj", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return getattr(inner, "is_race_test", False) is True


@final
class _Races:
    """The race tests of one run of pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._schedule: str | None = config.getoption("race_replay")
        self._reported: dict[str, dict[str, Any]] = {}
        """The properties of each race test that has ended, by its node id."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse to replay a schedule in any but one test."""
        if self._schedule is None or session.testsfailed:
            return
        found = [item.nodeid for item in session.items if is_race_test(item)]
        if len(found) != 1:
            told = f"{len(found)} are selected, {found[0]} and {found[1]} among them" if found else "none is selected"
            message = f"--race-replay replays one race test, and {told}; select it: pytest path::test --race-replay ..."
            raise pytest.UsageError(message)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: SubRequest) -> None:
        """Refuse async fixtures, before another plugin says something that helps less."""
        make = fixturedef.func
        is_async = inspect.iscoroutinefunction(make) or inspect.isasyncgenfunction(make)
        if not is_async and not hasattr(make, "_force_trio_fixture"):
            return
        if not is_race_test(request._pyfuncitem):  # noqa: SLF001  # its `node` is a module where the scope is that
            return
        message = (
            f"a race test cannot have the async fixture {fixturedef.argname!r}: a fixture is made once, and every"
            " execution of the test is a run of its own; make it inside the test, or let a plain fixture return the"
            " function that makes it"
        )
        error = pytest.fail.Exception(message, pytrace=False)
        fixturedef.cached_result = (None, fixturedef.cache_key(request), (error, None))
        raise error

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, _T, _T]:
        """Let the race test know what the command line says, and keep what it explored."""
        __tracebackhide__ = True
        if not is_race_test(item):
            return (yield)
        from stageflow_actors.testing._race_test import ORDERS, Orders

        config = self._config
        orders = Orders(
            command=f"pytest {_quote(_locate(item))}",
            max_executions=config.getoption("race_executions"),
            strategy=config.getoption("race_strategy"),
            seed=config.getoption("race_seed"),
            schedule=self._schedule,
        )
        token = ORDERS.set(orders)
        try:
            return (yield)
        finally:
            ORDERS.reset(token)
            item.stash[_ORDERS] = orders
            others = [kept for kept in item.user_properties if kept[0] not in _PROPERTIES]
            item.user_properties[:] = [*others, *_sum_up(orders).items()]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show a race without the toolkit's frames, and what was covered beside the output of the test."""
        orders = item.stash.get(_ORDERS, None)
        if orders is None or call.when != "call":
            return (yield)
        if call.excinfo is not None and not self._config.getoption("fulltrace"):
            call.excinfo.traceback = _without_machinery(call.excinfo)
        report = yield
        if call.excinfo is not None:
            _tidy(report.longrepr, call.excinfo.value, item)
        elif coverage := _sum_up(orders).get(_COVERAGE):
            report.sections.append(("Race test", coverage))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]) -> None:
        """Let a debugger open where the test failed, and not where the toolkit says so."""
        if call.excinfo is None or not isinstance(node, pytest.Item) or not is_race_test(node):
            return
        from stageflow_actors.errors import RaceError

        error = call.excinfo.value
        cause = error.__cause__ if isinstance(error, RaceError) else None
        if cause is not None and cause.__traceback__ is not None:
            call.excinfo = pytest.ExceptionInfo.from_exception(cause)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a race test that has ended."""
        properties = {name: value for name, value in report.user_properties if name in _PROPERTIES}
        if report.when == "call" and properties:
            self._reported[report.nodeid] = properties

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was explored."""
        if not self._reported:
            return
        if self._config.getoption("race_report"):
            terminalreporter.section("race tests")
            for nodeid, properties in self._reported.items():
                if _COVERAGE in properties:
                    terminalreporter.write_line(f"{nodeid}: {properties[_COVERAGE]}")
        for nodeid, properties in self._reported.items():
            if _REPLAY in properties:
                terminalreporter.write_line(f"race test replayed: {nodeid}: {properties[_REPLAY]}")
        explored = [properties for properties in self._reported.values() if _EXECUTIONS in properties]
        if explored:
            executions = sum(properties[_EXECUTIONS] for properties in explored)
            complete = sum(properties[_COMPLETE] for properties in explored)
            from stageflow_actors._validation import count

            told = f"{count(len(explored), 'test')}, {count(executions, 'schedule')} explored, {complete:,} complete"
            terminalreporter.write_line(f"race tests: {told}")


def _locate(item: pytest.Item) -> str:
    """Return a test's node id, from the directory in which pytest was called."""
    start = item.config.invocation_params.dir
    if start == item.config.rootpath:
        return item.nodeid
    path = PurePath(os.path.relpath(item.path, start)).as_posix()
    return f"{path}::{item.nodeid.partition('::')[2]}"


def _quote(nodeid: str) -> str:
    return f'"{nodeid}"' if _SAFE.fullmatch(nodeid) else shlex.quote(nodeid)


def _sum_up(orders: Orders) -> dict[str, Any]:
    """Return the properties of a test's report; none if nothing was explored."""
    if orders.replays:
        times = len(orders.replays)
        failed = times - orders.replays.count(None)
        if times > 1:
            told = f"fails with {failed or 'none'} of {times} examples"
        else:
            told = "fails" if failed else "no longer fails"
        return {_REPLAY: f'the schedule "{orders.schedule}" {told}'}
    reports = orders.reports
    if not reports:
        return {}
    from stageflow_actors._validation import count

    executions = sum(report.executions for report in reports)
    complete = sum(report.complete for report in reports)
    if len(reports) > 1:
        coverage = f"{len(reports):,} examples in {executions:,} executions, {complete:,} complete"
    elif reports[0].failure is None:
        coverage = str(reports[0]).removeprefix(f"{reports[0].program}: ")
    else:
        coverage = f"fails, found in {count(executions, 'execution')}"
    return {_EXECUTIONS: executions, _COMPLETE: complete == len(reports), _COVERAGE: coverage}


def _without_machinery(excinfo: pytest.ExceptionInfo[BaseException]) -> Traceback:
    """Return a traceback without the toolkit's frames that do not hide themselves.

    Where Hypothesis wraps a race test, its frame has the place of that, which is the toolkit's.
    """
    from stageflow_actors import testing

    toolkit = os.path.dirname(testing.__file__)  # noqa: PTH120  # what it is compared with is text

    def is_shown(entry: TracebackEntry) -> bool:
        return entry.ishidden(excinfo) or not str(entry.path).startswith(toolkit)

    return excinfo.traceback.filter(is_shown)


def _tidy(longrepr: Any, error: BaseException, item: pytest.Item) -> None:
    """Show an error whose frames are all the toolkit's as its text, and where the test failed."""
    from stageflow_actors.errors import StageflowError

    chain = getattr(longrepr, "chain", None)
    if not chain or not isinstance(error, StageflowError):
        return
    traceback, _, description = chain[-1]
    if any(getattr(entry, "reprfileloc", True) is not None for entry in traceback.reprentries):
        return
    cause = chain[-2][1] if len(chain) > 1 else None
    path, line = (str(item.path), (item.location[1] or 0) + 1) if cause is None else (cause.path, cause.lineno)
    program = getattr(getattr(error, "failure", None), "program", "")
    first = str(error).partition("\n")[0].removeprefix(f"{program}: ")
    crash = ReprFileLocation(path, line, f"{type(error).__name__}: {first}")
    traceback.extraline = None
    for entry in traceback.reprentries:
        entry.lines = [entry.lines[0], *(f"E{line[1:]}" for line in entry.lines[1:])]
    chain[-1] = (traceback, crash, description)
    longrepr.reprcrash = crash
