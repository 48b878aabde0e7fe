"""A folder with a module of many pipelines, and the command run in it: what the tests of the command line share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from stageflow_actors.cli._commands import cli

if TYPE_CHECKING:
    import pytest

COMMAND = [sys.executable, "-m", "stageflow_actors.cli"]

MIXED = """
from pathlib import Path

import trio
from stageflow_actors import Pipeline, StageOutput, Trigger, parallel_stages


async def good(ctx):
    return {"settings": dict(ctx.snapshot.data)}


async def bad(ctx):
    raise ValueError("no such row")


async def refuse(ctx):
    return StageOutput.fail("nothing to do")


async def stop(ctx):
    return StageOutput.cancel("nothing new")


async def exits(ctx):
    raise SystemExit(7)


async def forever(ctx):
    await trio.sleep_forever()


def one(runner):
    return Pipeline("one").with_stage("good", good).with_stage("it", runner).with_stage("next", good, dependencies="it")


pipeline = Pipeline("fine").with_stage("good", good)
loose = Pipeline("loose").with_stage("good", good).with_stage("bad", bad).with_stage("refuse", refuse)
taken_up = loose.with_stage("join", good, dependencies=["good", "bad", "refuse"], trigger=Trigger.ALL_DONE)
middle, stopped, exiting, endless = one(bad), one(stop), one(exits), one(forever)
many = Pipeline("many").with_stages(parallel_stages("bad-{key}", bad, range(23)))
below = Pipeline("below").with_stages(parallel_stages("bad-{key}", bad, range(7)))
for cause in range(7):
    below = below.with_stages(parallel_stages(f"{cause}-{{key}}", good, range(cause + 1), dependencies=f"bad-{cause}"))
cyclic = Pipeline("cyclic").with_stage("a", good, dependencies="b").with_stage("b", good, dependencies="a")
empty = Pipeline("empty")
number = 42


def typed(
    count: int, label: str = "x", ratio: float = 0.5, loud: bool = False, root: Path = Path(), limit: int | None = None
) -> Pipeline:
    async def tell(ctx):
        return {"given": repr((count, label, ratio, loud, root, limit)), **ctx.snapshot.data}

    return Pipeline("typed").with_stage("tell", tell)


def untyped(start=1, word="w", anything=None):
    async def tell(ctx):
        return {"given": repr((start, word, anything))}

    return Pipeline("untyped").with_stage("tell", tell)


def strange(when: complex = 1j):
    return pipeline


def unreadable(when: "Nowhere" = None):
    return pipeline


def raising():
    return 1 / 0


def wrong():
    return 3


async def late():
    return pipeline


class Thing:
    pass
"""


def make_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with the module in it; what a command imports there is forgotten after the test."""
    (folder / "mixed.py").write_text(MIXED, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command of its own process, which finds the project from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables}


def run(*arguments: str) -> Result:
    """Run the command `run` in this process."""
    result = CliRunner().invoke(cli, ["run", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def run_process(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command `run` as a user does, with these environment variables."""
    command = [*COMMAND, "run", *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=environment(**variables), timeout=120)


def start_process(*arguments: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start the command `run` as a user does."""
    command = [*COMMAND, "run", *arguments]
    variables = environment(TERM="xterm", COLUMNS="120")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=variables)
