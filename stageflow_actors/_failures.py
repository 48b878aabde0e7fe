"""The errors of stages that said so themselves, and of those that broke trio's rules."""

from __future__ import annotations

from ._bag import safe_str
from ._output import StageOutput, StageStatus
from .errors import OverloadedError, StageFailedError, StrayCancelledError


def make_failed(output: StageOutput, *, may_restart: bool) -> StageFailedError:
    """Return the error of a stage that returned `fail` or `retry`."""
    hint = None
    if output.status is StageStatus.RETRY and not may_restart:
        hint = "to have it run again give it restart=Restart(...)"
    error = StageFailedError(f"it returned {output.status.value}: {safe_str(output.error)}", output=output, hint=hint)
    if isinstance(output.error, Exception):
        error.__cause__ = output.error
    return error


def make_overloaded(error: OverloadedError, pipeline: str, *, dropped: bool = False) -> OverloadedError:
    """Return what a limiter said of a run, in the words of the supervisor whose limit it is."""
    limit, queued = error.limit, error.max_queued
    problem = (
        f"the supervisor is full: {limit} of max_runs={limit} runs go on, {queued} of max_queued={queued} are queued"
    )
    if dropped:
        problem += ", and this one had been for longest"
    hint = "raise max_runs or max_queued, or take overflow='wait'"
    return OverloadedError(problem, limit=limit, max_queued=queued, pipeline=pipeline, hint=hint)


def make_stray(cancelled: BaseException) -> StrayCancelledError:
    """Return the error of a stage that raised a `trio.Cancelled` that nobody had sent it."""
    error = StrayCancelledError(
        "it raised trio.Cancelled, and nothing around it was cancelled",
        hint="a Cancelled must not be kept and raised outside the scope that it belongs to",
    )
    error.__context__ = cancelled
    return error
