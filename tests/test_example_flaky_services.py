"""`examples/flaky_services.py`: what heals, what does not, what it shows of it, and Ctrl-C."""

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

from stageflow_actors import Attempt, RunEnding, RunResult, StageState, StageTimeoutError
from stageflow_actors.errors import RestartIntensityError

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import flaky_services
from faulty_web.client import BusyError, StatusError
from faulty_web.faults import Course, Fault, Faults
from faulty_web.timeline import draw_attempts, draw_timeline

EXAMPLES = Path(__file__).parents[1] / "examples"
PATHS = (*flaky_services.SERVICES, "/price/hat")
FOREVER = 600.0
"""A timeout, in seconds, that no test runs into."""


def make_faults(courses: dict[str, Course] | None = None, **options: Any) -> Faults:
    """Return faults that take next to no time."""
    times: dict[str, Any] = {"latency": (0.0, 0.002), "slow": 0.0, "retry_after": (0.001, 0.002)}
    given = {**flaky_services.COURSES, **(courses or {})}
    return Faults(**{"faulty": 0.0, "dead": 0.0, **times, **options}, courses=given)


def draw_courses(seed: int) -> dict[str, Course]:
    """Return what a seed gives, without what costs a timeout."""
    faults = make_faults(seed=seed, faulty=0.8)
    courses = {path: faults.course(path) for path in PATHS}
    return {
        path: Course(tuple(fault for fault in course.faults if fault is not Fault.HANG), course.heals)
        for path, course in courses.items()
    }


def path_of(stage: str) -> str:
    return "/" + stage.replace("price-", "price/")


async def run(faults: Faults, timeout: float = FOREVER) -> tuple[RunResult, str]:
    written = io.StringIO()
    console = Console(file=written, width=100, markup=False, highlight=False)
    result = await flaky_services.assemble(faults, timeout, console)
    flaky_services.report(result, console)
    return result, written.getvalue()


# What heals


async def test_on_a_good_day_each_call_is_made_once() -> None:
    result, _ = await run(make_faults({path: Course() for path in PATHS}))
    assert {name: len(attempts) for name, attempts in result.attempts.items()} == dict.fromkeys(result.states, 1)
    assert list(result.failures) == ["price-hat"]
    assert result.data("render")["lines"][:2] == ("Order of Ada", "Total 99.87, to be paid by card or invoice")


@pytest.mark.parametrize("seed", range(3))
async def test_every_call_is_made_once_more_than_it_failed(seed: int) -> None:
    courses = draw_courses(seed)
    courses["/discount"] = Course((Fault.RESET,))
    result, _ = await run(make_faults(courses))
    calls = [name for name in result.states if path_of(name) in courses and name not in ("recommendations", "reviews")]
    assert len(calls) == 11
    for name in calls:
        failing = list(itertools.takewhile(lambda fault: fault is not Fault.SLOW, courses[path_of(name)].faults))
        attempts = result.attempts[name]
        assert len(attempts) == len(failing) + 1, name
        assert [attempt.error is None for attempt in attempts[:-1]] == [False] * len(failing)
        assert result.states[name] is (StageState.FAILED if name == "price-hat" else StageState.OK)


async def test_what_never_heals_is_isolated_and_the_page_does_without() -> None:
    result, shown = await run(make_faults())
    assert result.ended.ending is RunEnding.COMPLETED
    bad = {name: state for name, state in result.states.items() if state is not StageState.OK}
    assert bad == {
        "recommendations": StageState.FAILED,
        "reviews": StageState.ISOLATED,
        "price-hat": StageState.FAILED,
    }
    assert result.cause_chain("reviews") == ("reviews", "recommendations")
    error = result.failures["recommendations"].error
    assert isinstance(error, RestartIntensityError)
    assert error.max_restarts == 2
    assert len(error.attempts) == 3
    assert result.data("render")["lines"][2:] == (
        "No longer sold: hat",
        "Out of stock: mug",
        "Not on this page: recommendations, reviews",
    )
    assert "recommendations: failed: RestartIntensityError: it failed 3 times" in shown
    assert "reviews: isolated: 'recommendations' did not end well" in shown


async def test_what_does_not_exist_is_not_asked_for_again() -> None:
    result, _ = await run(make_faults())
    failure = result.failures["price-hat"]
    assert isinstance(failure.error, StatusError)
    assert failure.error.status == 404
    assert len(failure.attempts) == 1


async def test_a_policy_for_the_network_takes_an_error_of_the_server_as_final() -> None:
    courses = {"/discount": Course((Fault.RESET, Fault.TRUNCATED, Fault.ERROR))}
    result, _ = await run(make_faults(courses))
    assert len(result.attempts["discount"]) == 3
    assert isinstance(result.failures["discount"].error, StatusError)
    assert result.data("total")["cents"] == 2 * 1250 + 4900 + 4 * 799 + 450


async def test_an_attempt_that_hangs_is_ended_and_made_again() -> None:
    result, shown = await run(make_faults({"/stock": Course((Fault.HANG,))}), timeout=0.5)
    assert isinstance(result.attempts["stock"][0].error, StageTimeoutError)
    assert result.states["stock"] is StageState.OK
    assert "stock: attempt 1 died of timeout, attempt 2 comes in" in shown


async def test_a_busy_service_is_left_alone_for_as_long_as_it_asks() -> None:
    faults = make_faults(retry_after=(0.12, 0.13))  # more than the backoff before the second and third attempt
    result, shown = await run(faults)
    first, second, third = result.attempts["payment"]
    for attempt, asked in ((first, 1), (second, 2)):
        assert attempt.error is not None
        cause = attempt.error.__cause__
        assert isinstance(cause, BusyError)
        assert cause.after == pytest.approx(faults.wish("/payment", asked), abs=0.001)
        told = f"payment: attempt {asked} died of 429, attempt {asked + 1} comes in {cause.after:.2f} s"
        assert told in shown
    assert third.error is None


async def test_on_too_bad_a_day_nothing_is_restarted_any_more() -> None:
    result, shown = await run(make_faults({path: Course((Fault.ERROR,) * 4) for path in PATHS if path != "/discount"}))
    assert sum(len(attempts) - 1 for attempts in result.attempts.values()) == 30
    assert "the run has had 30 restarts" in shown


async def test_without_a_login_there_is_still_a_page() -> None:
    result, shown = await run(make_faults({"/login": Course((Fault.ERROR,), heals=False)}))
    states = {name for name, state in result.states.items() if state is StageState.ISOLATED}
    assert len(states) == 12
    assert result.states["render"] is StageState.OK
    assert "Order of an unknown user\nTotal 0.00, to be paid by ?\n" in shown


# What it shows


async def test_every_stage_has_a_row_and_every_failed_attempt_one_more() -> None:
    result, shown = await run(make_faults(draw_courses(2)))
    _, timeline, attempts, _ = re.split(r"\n(?:Attempts over time|Failed attempts|The page)\n", shown)
    rows = [line.split()[0] for line in timeline.splitlines()[1:-1] if line]
    assert rows == list(result.states)
    failed = sum(attempt.error is not None for each in result.attempts.values() for attempt in each)
    assert len([line for line in attempts.splitlines() if line.strip()]) == failed + 1


async def test_the_timeline_fits_its_width() -> None:
    result, _ = await run(make_faults(draw_courses(1)))
    for width in (60, 100, 200):
        console = Console(file=io.StringIO(), width=width)
        lines = console.render_lines(draw_timeline(result, width), pad=False)
        assert len(lines) == len(result.states) + 2  # no row is broken in two


BUSY, LATE, RESET = BusyError("/a", 1.0), StageTimeoutError("late"), StatusError("/a", 500)


@pytest.mark.parametrize(
    ("attempts", "state", "bars"),
    [
        ([(0, 1, RESET), (2, 3, None)], StageState.OK, "▓▓▓▓····████"),
        ([(1, 2, LATE), (2.5, 3, BUSY), (3, 4, None)], StageState.OK, "    ▒▒▒▒··▞▞████"),
        ([(0, 0.1, RESET), (0.12, 0.2, RESET), (0.21, 0.3, None)], StageState.OK, "▓▓█"),
        ([(0, 1, RESET), (2, 2.5, None)], StageState.CANCELLED, "▓▓▓▓····░░"),
    ],
)
def test_attempts_are_drawn_to_scale_and_none_is_too_short_to_see(
    attempts: list[tuple[float, float, Exception | None]], state: StageState, bars: str
) -> None:
    made = tuple(Attempt(number, *attempt) for number, attempt in enumerate(attempts, 1))
    assert draw_attempts(made, state, 4.0).plain == bars


# As a script


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", str(EXAMPLES / "flaky_services.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "COLUMNS": "100"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


def test_the_script_runs_with_its_defaults() -> None:
    process = start()
    out, err = process.communicate()
    assert process.returncode == 0
    assert err == ""
    assert out.startswith("seed 5; the same again: --seed 5 --faulty 0.6 --timeout 0.4\n")
    assert "pipeline 'order-page': completed\n" in out


def test_the_script_explains_itself() -> None:
    shown = CliRunner().invoke(flaky_services.main, ["--help"])
    assert shown.exit_code == 0
    assert "--seed INTEGER" in shown.output


def test_an_interrupt_leaves_what_had_completed() -> None:
    """One call hangs, and the timeout is far away: nothing else can end the run."""

    def hangs(seed: int) -> bool:
        faults = Faults(seed=seed, faulty=0.6, dead=0, courses=flaky_services.COURSES)
        hanging = [path for path in PATHS if Fault.HANG in faults.course(path).faults]
        return hanging == ["/stock"]

    seed = next(filter(hangs, itertools.count()))
    process = start("--seed", str(seed), "--timeout", str(FOREVER))
    assert process.stdout is not None
    for line in process.stdout:
        if "recommendations: failed" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert err == ""
    assert "pipeline 'order-page': cancelled: interrupted\n" in out
    assert "There is none: " in out
