"""The command `stageflow-actors run`: limits for a run, restarts in the summary, and what is shown meanwhile."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
import trio
from cli_project import make_project, run, run_process
from click.testing import CliRunner
from rich.console import Console

from stageflow_actors import Backoff, Pipeline, Restart, StageContext, Supervisor
from stageflow_actors.cli._commands import cli
from stageflow_actors.cli._display import follow

if TYPE_CHECKING:
    from pathlib import Path

FLAKY = """
import trio
from stageflow_actors import Backoff, FanOutLimiterStage, Limiter, Pipeline, Restart, StageOutput, parallel_stages

AT_ONCE = Restart(max_restarts=5, backoff=Backoff(initial=0.0))
running = most = 0


async def flaky(ctx):
    if ctx.attempt <= ctx.config["key"]:
        raise ConnectionError(f"down, attempt {ctx.attempt}\\nof {ctx.stage_name}")
    return {"attempt": ctx.attempt}


async def count(ctx):
    global running, most
    running += 1
    most = max(most, running)
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    running -= 1
    return {"most": most}


async def busy(ctx):
    return StageOutput.retry("busy")


def heal(*times):
    specs = parallel_stages("call-{key}", flaky, times, restart=AT_ONCE)
    return Pipeline("healing").with_stages(specs)


pipeline = heal(0, 2)
wide = heal(0, 1, 2, 3, 4, 5, 6)
gone = heal(9)
sound = heal(0)
retried = Pipeline("retried").with_stage("busy", busy, restart=Restart(max_restarts=1, backoff=Backoff(initial=0.0)))
crowd = Pipeline("crowd").with_stages(parallel_stages("s-{key}", count, range(20)))
items = Pipeline("items").with_stage("f", FanOutLimiterStage(count, items=range(20), limiter=Limiter(10)))


def report(result):
    found = {data["most"] for output in result.values() for data in [output.data, *output.data.get("results", ())]
             if "most" in data}
    return f"most: {max(found)}" if found else None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_project(tmp_path, monkeypatch)
    (made / "flaky.py").write_text(FLAKY, encoding="utf-8")
    return made


def section(output: str) -> list[str]:
    """Return the lines below `most restarted`."""
    lines = output.splitlines()
    if "most restarted" not in lines:
        return []
    start = lines.index("most restarted") + 1
    length = next(n for n, line in enumerate(lines[start:]) if not line.startswith("  "))
    return lines[start : start + length]


# How many at once


@pytest.mark.parametrize("target", ["crowd", "items"])
@pytest.mark.parametrize("limit", [1, 3])
def test_max_running_bounds_stages_and_items(target: str, limit: int) -> None:
    result = run(f"flaky.py:{target}", "--max-running", str(limit))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"most: {limit}"


def test_without_it_nothing_bounds_them_but_the_pipeline() -> None:
    assert run("flaky.py:crowd").stdout.splitlines()[0] == "most: 20"
    assert run("flaky.py:items").stdout.splitlines()[0] == "most: 10"


# How many restarts


def test_max_restarts_bounds_the_whole_run(folder: Path) -> None:
    result = run("flaky.py:gone", "--max-restarts", "2", "--json", "out.json")
    assert result.exit_code == 1
    assert (
        "  FAILED call-9: RestartIntensityError: the run has had 2 restarts; "
        "the last failure is ConnectionError: down, attempt 3"
    ) in result.stdout
    written = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert len(written["failures"]["call-9"]["attempts"]) == 3


def test_no_restarts_at_all() -> None:
    result = run("flaky.py", "--max-restarts", "0")
    assert result.exit_code == 1
    assert section(result.stdout) == []
    assert "the run has had 0 restarts" in result.stdout
    assert "1 ok, 1 failed" in result.stdout


def test_enough_restarts_change_nothing() -> None:
    result = run("flaky.py", "--max-restarts", "2")
    assert result.exit_code == 0
    assert "2 ok" in result.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--max-running", "0"], "0 is not in the range x>=1"),
        (["--max-running", "many"], "'many' is not a valid integer"),
        (["--max-restarts", "-1"], "-1 is not in the range x>=0"),
    ],
)
def test_wrong_limits_are_refused_before_anything_runs(option: list[str], message: str) -> None:
    result = run("flaky.py", *option)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_help_says_what_they_limit() -> None:
    told = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
    assert "How many stages may run at once, whatever limiters the pipeline has of its own." in told
    assert "How many restarts the run may have altogether, within the policies of its stages." in told


# The summary


def test_the_summary_says_what_was_restarted_and_why() -> None:
    result = run("flaky.py")
    assert result.exit_code == 0
    assert section(result.stdout) == [
        "  2 restarts  call-2 ok after ConnectionError: down, attempt 2 of call-2",
    ]


def test_the_most_restarted_come_first_and_the_rest_is_counted() -> None:
    lines = section(run("flaky.py:wide").stdout)
    told = [line.split() for line in lines[:5]]
    assert [(times, stage, state) for times, _, stage, state, *_ in told] == [
        ("5", "call-5", "ok"),
        ("5", "call-6", "failed"),
        ("4", "call-4", "ok"),
        ("3", "call-3", "ok"),
        ("2", "call-2", "ok"),
    ]
    assert lines[5:] == ["  20 restarts of 6 stages altogether"]


def test_one_restart_is_one_restart() -> None:
    result = run("flaky.py:retried")
    assert result.exit_code == 1
    assert section(result.stdout) == ["  1 restart  busy failed after StageFailedError: it returned retry: busy"]
    failure = next(line for line in result.stdout.splitlines() if line.startswith("  FAILED"))
    assert failure == (
        "  FAILED busy: RestartIntensityError: it failed 2 times, more than its max_restarts=1 allows; "
        "the last failure is StageFailedError: it returned retry: busy"
    )


def test_where_nothing_was_restarted_there_is_no_such_section() -> None:
    assert "most restarted" not in run("flaky.py:sound").stdout


def test_json_holds_the_attempts_of_what_was_restarted(folder: Path) -> None:
    run("flaky.py", "--json", "out.json")
    written = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    (name,) = written["restarted"]
    assert name == "call-2"
    assert [attempt["number"] for attempt in written["restarted"][name]] == [1, 2, 3]


def test_verbose_logs_every_restart() -> None:
    process = run_process("flaky.py", "--verbose")
    assert process.returncode == 0
    told = process.stderr.decode()
    assert told.count("WARNING pipeline 'healing', stage 'call-2': attempt ") == 2
    assert "attempt 1 failed, the next is in 0 s: ConnectionError: down, attempt 1" in told
    assert run_process("flaky.py").stderr == b""


# Progress


async def fail_twice(ctx: StageContext) -> None:
    await trio.sleep(0.5)
    if ctx.attempt <= 2:
        raise ConnectionError("down")


async def nap(_ctx: StageContext) -> None:
    await trio.sleep(30)


async def test_the_line_of_progress_counts_those_that_back_off(autojump_clock: trio.testing.MockClock) -> None:
    restart = Restart(backoff=Backoff(initial=6.0, factor=1.0, jitter=0.0))
    pipeline = Pipeline("calls").with_stage("call", fail_twice, restart=restart).with_stage("nap", nap)
    console = Console(file=StringIO(), width=200)
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(pipeline)
        nursery.start_soon(follow, run, console)
        await trio.sleep(18)
        run.cancel("enough")
        nursery.cancel_scope.cancel()
    assert console.file.getvalue().splitlines() == [
        "calls: 0/2 stages ended, 1 running, 1 restarting",
        "calls: 0/2 stages ended, 1 running, 1 restarting",
        "calls: 1/2 stages ended, 1 running, 1 ok",
    ]
