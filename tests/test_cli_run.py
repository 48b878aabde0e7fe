"""The command `stageflow-actors run`: options, output, progress, Ctrl-C and exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pty
import signal
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING

import pytest
import trio
from cli_project import MIXED, environment, make_project, run, run_process, start_process
from click.testing import CliRunner
from rich.console import Console

from stageflow_actors import Pipeline, StageContext, Supervisor
from stageflow_actors.cli._commands import cli
from stageflow_actors.cli._display import follow

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_project(tmp_path, monkeypatch)


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["pipeline"], 0),
        (["pipeline", "--strict"], 0),
        (["loose"], 1),
        (["loose", "--fail-fast"], 1),
        (["middle"], 1),
        (["taken_up"], 0),
        (["taken_up", "--strict"], 1),
        (["taken_up", "--fail-fast"], 1),
        (["stopped"], 1),
        (["endless", "--timeout", "0.01"], 124),
        (["exiting"], 7),
    ],
)
def test_exit_codes(arguments: list[str], code: int) -> None:
    target, *options = arguments
    result = run(f"mixed.py:{target}", *options)
    assert result.exit_code == code
    assert " ran in " in result.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--timeout", "0"], "0.0 is not in the range x>0"),
        (["--max-threads", "0"], "0 is not in the range x>=1"),
        (["--json", "nowhere/x.json"], "there is no folder 'nowhere' to write 'x.json' to"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(option: list[str], message: str) -> None:
    result = run("mixed.py", *option)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


THREADS = """
import threading

import trio
from stageflow_actors import Pipeline, parallel_stages

alone = threading.Lock()


def work(ctx):
    assert alone.acquire(blocking=False), "two at once"
    for _ in range(20):
        trio.from_thread.run(trio.lowlevel.checkpoint)
    alone.release()


pipeline = Pipeline("threads").with_stages(parallel_stages("work-{key}", work, range(8)))
"""


def test_max_threads_bounds_the_plain_functions(folder: Path) -> None:
    (folder / "threads.py").write_text(THREADS, encoding="utf-8")
    assert run("threads.py", "--max-threads", "1").exit_code == 0
    crowded = run("threads.py", "--max-threads", "8")
    assert crowded.exit_code == 1
    assert "AssertionError: two at once" in crowded.stdout


# Output


def test_the_summary_says_what_failed_and_why_and_what_that_cost() -> None:
    lines = run("mixed.py:below").stdout.splitlines()
    assert "  FAILED bad-0: ValueError: no such row" in lines
    position = lines.index("isolated, never ran")
    assert lines[position + 1] == "  7 because of bad-6 failed"
    assert lines[position + 5] == "  3 because of bad-2 failed"
    assert lines[position + 6] == "  3 because of 2 other stages"
    assert lines[position + 7] == "7 failed, 28 isolated"
    assert lines[position + 8].startswith("below completed (7 stages ran in ")


def test_the_summary_shows_twenty_failures_and_counts_the_rest() -> None:
    lines = run("mixed.py:many").stdout.splitlines()
    assert [line for line in lines if line.startswith("  FAILED")] == [
        f"  FAILED bad-{number}: ValueError: no such row" for number in range(20)
    ]
    assert "  and 3 more; --json FILE writes them all" in lines


def test_the_summary_names_a_stage_once() -> None:
    output = run("mixed.py:loose").stdout
    assert "  FAILED refuse: StageFailedError: it returned fail: nothing to do\n" in output


def test_the_summary_shows_the_five_slowest_stages_first() -> None:
    lines = run("mixed.py:many").stdout.splitlines()
    assert lines[0] == "slowest stages"
    shown = [line.split() for line in lines[1:6]]
    durations = [float(seconds) for seconds, *_ in shown]
    assert durations == sorted(durations, reverse=True)
    assert all(rest[0] == "s" and rest[1].startswith("bad-") and rest[2] == "(failed)" for _, *rest in shown)
    assert lines[6] == "failures"


def test_how_a_run_ended_is_the_last_line() -> None:
    assert "one timed out: after 0.01 s (1 stage ran" in run("mixed.py:endless", "--timeout", "0.01").stdout
    assert "one cancelled: stage 'it': nothing new (" in run("mixed.py:stopped").stdout
    assert "one failed: stage 'it': ValueError: no such row (" in run("mixed.py:middle", "--fail-fast").stdout


@pytest.mark.parametrize(
    ("source", "first"),
    [
        ("def report(result):\n    return f'[red]{len(result)} outputs[/red]'\n", "[red]1 outputs[/red]"),
        ("from rich.rule import Rule\ndef report(result):\n    return Rule('done')\n", f"{'─' * 37} done {'─' * 37}"),
        ("def report(result):\n    return None\n", "slowest stages"),
        ("def report(ctx):\n    return 'a stage may be called so'\n", "slowest stages"),
        ("report = pipeline\n", "slowest stages"),
    ],
)
def test_a_function_report_prints_its_findings_before_the_summary(source: str, first: str, folder: Path) -> None:
    (folder / "reporting.py").write_text(f"{MIXED}\n{source}", encoding="utf-8")
    result = run("reporting.py")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == first
    assert "slowest stages\n" in result.stdout


def test_an_error_in_report_costs_no_summary(folder: Path) -> None:
    source = f"{MIXED}\ndef report(result):\n    return result.data('gone')\n"
    (folder / "reporting.py").write_text(source, encoding="utf-8")
    result = run("reporting.py")
    assert result.exit_code == 1
    assert result.stderr.startswith("report(result) raised an error\nTraceback (most recent call last):\n")
    assert "reporting.py" in result.stderr.splitlines()[2]
    assert result.stderr.splitlines()[-1].startswith("stageflow_actors.errors.NoOutputError: ")
    assert "fine completed" in result.stdout


def test_json_holds_the_whole_result_whatever_its_values_are(folder: Path) -> None:
    source = """
from pathlib import Path
from stageflow_actors import Pipeline

async def odd(ctx):
    return {"path": Path("a/b"), "set": {1}, "tuple": (1, 2)}

async def bad(ctx):
    raise ValueError("no")

pipeline = Pipeline("odd").with_stage("odd", odd).with_stage("bad", bad)
"""
    (folder / "odd.py").write_text(source, encoding="utf-8")
    assert run("odd.py", "--json", "out.json").exit_code == 1
    written = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert written["outputs"]["odd"]["data"] == {"path": "a/b", "set": [1], "tuple": [1, 2]}
    assert written["states"] == {"odd": "ok", "bad": "failed"}
    assert written["failures"]["bad"]["error"] == "ValueError: no"


def test_json_that_cannot_be_written_is_one_line_after_the_summary(folder: Path) -> None:
    source = "from stageflow_actors import Pipeline\nasync def odd(ctx):\n    return {(1, 2): 3}\n"
    (folder / "odd.py").write_text(f"{source}pipeline = Pipeline('odd').with_stage('odd', odd)\n", encoding="utf-8")
    result = run("odd.py", "--json", "out.json")
    assert result.exit_code == 1
    assert "odd completed" in result.stdout
    assert result.stderr.startswith("Error: the result cannot be written to out.json: keys must be str")


def test_failures_are_logged_only_when_verbose() -> None:
    quiet = run_process("mixed.py:loose")
    assert (quiet.returncode, quiet.stderr) == (1, b"")
    verbose = run_process("mixed.py:loose", "--verbose")
    assert verbose.stdout.splitlines()[-2] == quiet.stdout.splitlines()[-2]
    assert b"ERROR pipeline 'loose', stage 'bad' failed: ValueError: no such row\nTraceback" in verbose.stderr


def test_a_name_that_the_terminal_cannot_show_costs_no_summary(folder: Path) -> None:
    source = MIXED.replace('"good"', '"gut \u2713 \\udce9"')
    (folder / "names.py").write_text(source, encoding="utf-8")
    process = run_process("names.py", PYTHONIOENCODING="ascii")
    assert process.returncode == 0
    assert b"gut \\u2713 \\udce9" in process.stdout


# Progress


async def nap(ctx: StageContext) -> None:
    await trio.sleep(ctx.config["key"])


async def test_where_there_is_no_terminal_a_line_every_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    pipeline = Pipeline("naps")
    for seconds in (1, 7, 12):
        pipeline = pipeline.with_stage(f"nap-{seconds}", nap, config={"key": seconds})
    console = Console(file=StringIO(), width=200)
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(pipeline)
        nursery.start_soon(follow, run, console)
        await run.result()
        nursery.cancel_scope.cancel()
    assert console.file.getvalue().splitlines() == [
        "naps: 1/3 stages ended, 2 running, 1 ok",
        "naps: 2/3 stages ended, 1 running, 2 ok",
    ]


INTERRUPTIBLE = """
import sys

import trio
from stageflow_actors import Pipeline


async def quick(ctx):
    return {"done": True}


async def waits(ctx):
    print("waiting", flush=True)
    await trio.sleep_forever()


def works(ctx):
    print("waiting", flush=True)
    while True:
        trio.from_thread.check_cancelled()


async def hangs(ctx):
    print("waiting", flush=True)
    while True:
        pass


def make(how):
    pipeline = Pipeline("interruptible").with_stage("quick", quick).with_stage("slow", globals()[how], None, "quick")
    return pipeline.with_stage("after", quick, dependencies="slow")


def report(result):
    return f"reported: {', '.join(result)}"
"""


@pytest.mark.parametrize("how", ["waits", "works", "hangs"])
def test_ctrl_c_prints_what_had_completed(how: str, folder: Path) -> None:
    (folder / "interruptible.py").write_text(INTERRUPTIBLE, encoding="utf-8")
    with start_process("interruptible.py:make", "--set", f"how={how}", "--json", "out.json") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout.startswith("reported: quick\n")
    assert "interruptible interrupted (" in stdout.splitlines()[-1]
    assert "1 ok, " in stdout.splitlines()[-2]
    assert "Traceback" not in stderr
    states = json.loads((folder / "out.json").read_text(encoding="utf-8"))["states"]
    assert states["quick"] == "ok"
    assert states["slow"] in {"cancelled", "failed"}  # failed, where the signal found the stage itself at work
    assert states["after"] in {"cancelled", "isolated"}


def test_on_a_terminal_a_bar_shows_how_far_the_run_has_come(folder: Path) -> None:
    (folder / "interruptible.py").write_text(INTERRUPTIBLE, encoding="utf-8")
    terminal, stderr = pty.openpty()
    with start_process("interruptible.py:make", "--set", "how=waits", stderr=stderr) as process:
        os.close(stderr)
        seen = b""
        while b"1 running, 1 ok" not in seen:
            seen += os.read(terminal, 4096)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)
    os.close(terminal)
    text = seen.decode()
    assert "interruptible" in text
    assert "━" in text
    assert "1/3" in text
    assert "0:00:0" in text
    assert "interruptible interrupted (" in stdout


# The command line as a whole


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from stageflow_actors.cli import main; main()"
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr == f"the command line needs {missing}; install it: pip install 'stageflow-actors[cli]'\n"


def test_version_and_help() -> None:
    version = CliRunner().invoke(cli, ["--version"])
    assert version.output == f"stageflow-actors {importlib.metadata.version('stageflow-actors')}\n"
    help_ = CliRunner().invoke(cli, ["run", "--help"]).output
    assert "A function `report(result)` beside the pipeline prints its findings" in help_
    assert "\n    130  Ctrl-C; the summary is of what had completed\n" in help_
    assert [command.name for command in cli.commands.values()] == ["run", "bench"]
