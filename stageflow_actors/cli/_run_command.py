"""The command `run`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Final

import click

from ._execution import Execution, Options
from ._target import load_target

_EXIT_CODES: Final = """\b
Exit codes:
  0    every stage that no other depends on ended ok or skipped: what failed
       before it was taken up by a stage with an ALL_DONE or ONE_SUCCESS trigger
  1    a failure that nothing took up (with --strict: any), or a cancelled run
  2    nothing to run: a wrong target, an invalid pipeline, a wrong option
  124  the run ran into --timeout
  130  Ctrl-C; the summary is of what had completed
"""


def _read_settings(_ctx: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for setting in given:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"must be KEY=VALUE, not {setting!r}")
        settings[key] = value
    return settings


def _check_folder(_ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that cannot be written before the run, not after it."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    return path


@click.command(epilog=_EXIT_CODES)
@click.argument("target")
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, callback=_read_settings, help="A setting; may be repeated."
)
@click.option("--fail-fast", is_flag=True, help="End at the first failure; by default, what does not need it goes on.")
@click.option("--strict", is_flag=True, help="Exit with 1 if any stage failed, whatever took it up.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="End the run after so long, with what had completed.",
)
@click.option(
    "--max-threads", metavar="N", type=click.IntRange(min=1), help="How many plain `def` stages may run at once."
)
@click.option(
    "--max-running",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many stages may run at once, whatever limiters the pipeline has of its own.",
)
@click.option(
    "--max-restarts",
    metavar="N",
    type=click.IntRange(min=0),
    help="How many restarts the run may have altogether, within the policies of its stages.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_check_folder,
    help="Write the whole result to a file.",
)
@click.option("--verbose", is_flag=True, help="Log to stderr: each failure when it happens, with its traceback.")
def run(
    target: str,
    settings: dict[str, str],
    *,
    fail_fast: bool,
    strict: bool,
    timeout: float | None,
    max_threads: int | None,
    max_running: int | None,
    max_restarts: int | None,
    json_path: Path | None,
    verbose: bool,
) -> None:
    """Run a pipeline, and print what came of it.

    TARGET is a file or a module, and the name in it of a Pipeline, or of a function that returns one:
    path/to/file.py, path/to/file.py:name, package.module:name. The name is `pipeline` unless given.

    The settings are arguments of that function, converted to the types of its annotations: str, int,
    float, bool, pathlib.Path. As they were written, stages find them in `ctx.snapshot.data`.

    A function `report(result)` beside the pipeline prints its findings: what it returns, a string or a
    rich renderable, comes before the summary.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal's encoding is no reason to lose the summary
    try:
        found = load_target(target, settings)
        options = Options(fail_fast, strict, timeout, max_threads, max_running, max_restarts, json_path, verbose)
        sys.exit(Execution(found, settings, options).execute())
    except KeyboardInterrupt:  # outside the run
        sys.exit(130)
