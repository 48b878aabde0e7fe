"""The errors of stages that said so themselves, and of those that broke trio's rules."""

from __future__ import annotations

from ._bag import safe_str
from ._output import StageOutput, StageStatus
from .errors import StageFailedError, StrayCancelledError


def make_failed(output: StageOutput) -> StageFailedError:
    """Return the error of a stage that returned `fail` or, with no restart left, `retry`."""
    asked = ", and no restart is left" if output.status is StageStatus.RETRY else ""
    error = StageFailedError(f"it returned {output.status.value}: {safe_str(output.error)}{asked}", output=output)
    if isinstance(output.error, Exception):
        error.__cause__ = output.error
    return error


def make_stray(cancelled: BaseException) -> StrayCancelledError:
    """Return the error of a stage that raised a `trio.Cancelled` that nobody had sent it."""
    error = StrayCancelledError(
        "it raised trio.Cancelled, and nothing around it was cancelled",
        hint="a Cancelled must not be kept and raised outside the scope that it belongs to",
    )
    error.__context__ = cancelled
    return error
