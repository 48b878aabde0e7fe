"""The application: plain synchronous code that asks actors and waits for futures."""

import logging
import sys
import sysconfig
from pathlib import Path

import click
import pykka
from rich.console import Console

from stageflow_actors import RunResult
from stageflow_actors.embed.pykka import PykkaResident, SupervisorActor, SupervisorProxy, pykka_stage
from stageflow_actors.errors import ActorStartError

from .catalogue import Catalogue
from .display import Display
from .scan import find_files, make_pipeline

DEFAULT_FOLDER = Path(sysconfig.get_paths()["stdlib"], "email")
INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended."""


@click.command(context_settings={"max_content_width": 120})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=DEFAULT_FOLDER)
@click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("catalogue.db"),
    show_default=True,
    help="The SQLite file to keep.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Read so many files a second at most.")
def main(folder: Path, database: Path, rate: float | None) -> None:
    """Read the Python files of FOLDER, and keep a catalogue of what is in them.

    Without FOLDER it reads a package of the standard library. Files that have not changed since the last time are not
    read again. Ctrl-C ends it, and what had been read is kept. The exit code is 1 where files could not be read.
    """
    logging.getLogger("stageflow_actors").addHandler(logging.NullHandler())  # failures are in the result
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    proxy = SupervisorActor.start(shutdown=2).proxy()
    try:
        code = work(proxy, console, folder.resolve(), database, rate)
    except ActorStartError as error:
        raise click.ClickException(f"{database}: {error.__cause__}") from error
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        pykka.ActorRegistry.stop_all()
    console.print("all actors have stopped")
    sys.exit(code)


def work(
    proxy: SupervisorProxy[SupervisorActor], console: Console, folder: Path, database: Path, rate: float | None
) -> int:
    """Scan a folder; return the exit code."""
    catalogue = proxy.spawn(pykka_stage(Catalogue, database), name="catalogue").get()
    files = find_files(folder, catalogue.ask().get().data["changed"])
    console.print(f"{len(files):,} new or changed files in {folder}")
    code = 0
    if files:
        display = Display.start(console, len(files))
        pipeline = make_pipeline(files, catalogue.ref, rate)
        run = proxy.start_run(pipeline, continue_on_failure=True, events_to=display).get()
        try:
            result = run.result().get()
        except KeyboardInterrupt:
            run.cancel("interrupted")
            result = run.result().get()
            code = INTERRUPTED
        display.stop()  # behind the events that it has still to show
        report_failures(console, result)
        code = code or bool(result.failures)
        if "catalogue" not in result:
            keep_the_rest(console, catalogue, result)
    count, lines, functions, classes = catalogue.ask().get().data["totals"]
    console.print(f"{count:,} files in {database}: {lines:,} lines, {functions:,} functions, {classes:,} classes")
    return code


def report_failures(console: Console, result: RunResult) -> None:
    """Print what could not be read, and why."""
    for failure in result.failures.values():
        console.print(f"  FAILED {failure.error}")


def keep_the_rest(console: Console, catalogue: PykkaResident, result: RunResult) -> None:
    """Store what a scan had read that did not get as far as that itself."""
    read = [result.data(name) for name in result]
    stored = catalogue.ask({"files": read}).get().data["stored"]
    console.print(f"kept the {stored:,} files that had been read")
