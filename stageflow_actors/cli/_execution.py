"""One run from the command line: from its start to what is printed of it."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import click
import outcome
import trio
from rich.console import Console
from trio.lowlevel import enable_ki_protection

from stageflow_actors import Intensity, PipelineFailedError, RunEnding, StageState, Supervisor

from ._display import follow
from ._summary import print_summary
from ._target import Target, format_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stageflow_actors import Run, RunResult

_FAILED: Final = 1
_TIMED_OUT: Final = 124
_INTERRUPTED: Final = 130


@final
@attrs.frozen
class Options:
    """The options of the command `run`."""

    fail_fast: bool
    strict: bool
    timeout: float | None
    max_threads: int | None
    max_running: int | None
    max_restarts: int | None
    json_path: Path | None
    verbose: bool


@final
class Execution:
    """One run of a target."""

    def __init__(self, target: Target, settings: Mapping[str, str], options: Options) -> None:
        self._target = target
        self._settings = settings
        self._options = options
        self._output = Console(markup=False, highlight=False)
        self._messages = Console(stderr=True, markup=False, highlight=False)
        self._run: Run | None = None
        self._interrupted = False

    def execute(self) -> int:
        """Run the pipeline to its end or until Ctrl-C, print what came of it, and return the exit code."""
        code = _INTERRUPTED
        with self._logging():
            try:
                trio.run(self._main)
            except* KeyboardInterrupt:
                self._interrupted = True
            finally:  # a stage may have raised SystemExit, or worse: it goes on, after the summary
                if self._run is not None:
                    code = self._conclude(self._run.partial())
        return code

    @enable_ki_protection  # so that an interrupt arrives where this task waits for the result
    async def _main(self) -> None:
        options = self._options
        intensity = None if options.max_restarts is None else Intensity(options.max_restarts)
        async with Supervisor(max_running_stages=options.max_running, max_threads=options.max_threads) as supervisor:
            self._run = run = supervisor.start(
                self._target.pipeline,
                self._settings,
                continue_on_failure=not options.fail_fast,
                timeout=options.timeout,
                intensity=intensity,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow, run, self._messages)
                ended = await outcome.acapture(run.result)
                nursery.cancel_scope.cancel()
            try:
                ended.unwrap()
            except PipelineFailedError:
                pass  # the summary tells
            except KeyboardInterrupt:
                self._messages.print("interrupted, stopping")
                run.cancel("interrupted")
                raise

    def _conclude(self, result: RunResult) -> int:
        """Print and write what is to be printed and written of a result, and return the exit code."""
        reported = self._print_report(result)
        print_summary(result, self._output, interrupted=self._interrupted)
        if self._options.json_path is not None:
            _write_json(result, self._options.json_path)
        if self._interrupted:
            return _INTERRUPTED
        if result.ended.ending is RunEnding.TIMED_OUT:
            return _TIMED_OUT
        failed = bool(result.failures) if self._options.strict else not self._ended_well(result)
        return _FAILED if failed or not reported else 0

    def _ended_well(self, result: RunResult) -> bool:
        """Return whether every stage that no other depends on ended ok or skipped."""
        stages = self._target.pipeline.stages
        needed = {dependency for stage in stages for dependency in stage.dependencies}
        well = (StageState.OK, StageState.SKIPPED)
        return all(result.states[stage.name] in well for stage in stages if stage.name not in needed)

    def _print_report(self, result: RunResult) -> bool:
        """Print what the module's `report(result)` returns, if it has one; return whether that went well."""
        report = getattr(self._target.module, "report", None)
        # A stage may well be called `report`; its parameter is no `result`.
        if not inspect.isfunction(report) or list(inspect.signature(report).parameters) != ["result"]:
            return True
        try:
            findings = report(result)
            if findings is not None:
                self._output.print(findings, end="\n\n")
        except Exception as error:
            self._messages.print(f"report(result) raised an error\n{format_error(error)}", soft_wrap=True)
            return False
        return True

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Keep the library's log off the terminal, which shows the failures anyway, or put it there if asked to."""
        logger = logging.getLogger("stageflow_actors")
        verbose = self._options.verbose
        handler = _LogHandler(self._messages) if verbose else logging.NullHandler()
        level = logger.level
        logger.addHandler(handler)
        if verbose:
            logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


@final
class _LogHandler(logging.Handler):
    """Writes to a console, which knows how to keep a progress bar out of the way."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), soft_wrap=True)


def _write_json(result: RunResult, path: Path) -> None:
    try:
        text = json.dumps(result.to_dict(), indent=2, default=_encode)
        path.write_text(f"{text}\n", encoding="utf-8")
    except (OSError, TypeError, ValueError) as error:
        message = f"the result cannot be written to {path}: {error}"
        raise click.ClickException(message) from None


def _encode(value: Any) -> Any:
    """Return a set as a list, and as text what else JSON has no form for."""
    return list(value) if isinstance(value, (set, frozenset)) else str(value)
