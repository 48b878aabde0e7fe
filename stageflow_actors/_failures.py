"""The errors of stages that said so themselves, and of those that broke trio's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._bag import describe_error, safe_str
from ._output import StageOutput, StageStatus
from .errors import OverloadedError, RestartIntensityError, StageFailedError, StageflowError, StrayCancelledError

if TYPE_CHECKING:
    from ._bag import Attempt
    from ._policy import Intensity, Restart, Window


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


_AWAITS_ASYNCIO: Final = (
    "the stage awaits asyncio, and runs on trio: "
    "give it placement=asyncio_loop(...), from stageflow_actors.embed.asyncio"
)


def advise(error: BaseException) -> None:
    """Add a note to an error that says less than is known of it: asyncio's, of a stage that awaits it on trio."""
    if type(error) is not RuntimeError or error.args != ("no running event loop",):
        return
    if _AWAITS_ASYNCIO not in getattr(error, "__notes__", ()):
        error.add_note(_AWAITS_ASYNCIO)


def name_window(limit: Restart | Intensity) -> str:
    """Return ` within 5 s`, or nothing where there is no window."""
    return "" if limit.within is None else f" within {limit.within:g} s"


def tell_failures(window: Window, restart: Restart) -> str:
    """Return what is to be said of restarts that are used up."""
    times = f"{window.count} times{name_window(restart)}"
    return f"it failed {times}, more than its max_restarts={restart.max_restarts} allows"


def quote(error: BaseException) -> str:
    """Return an error as the message of another names it, which has a place and a hint of its own."""
    return (
        f"{type(error).__qualname__}: {error.problem}" if isinstance(error, StageflowError) else describe_error(error)
    )


def make_spent(
    problem: str,
    limit: Restart | Intensity,
    error: Exception,
    attempts: tuple[Attempt, ...] = (),
    actor: str | None = None,
) -> RestartIntensityError:
    """Return the error of somebody who may not be restarted any more.

    Args:
        problem: What was allowed, and was exceeded.
        limit: What allowed it.
        error: The last failure.
        attempts: All of them, where somebody has kept them.
        actor: Whose, of a resident actor.
    """
    made = RestartIntensityError(
        f"{problem}; the last failure is {quote(error)}",
        attempts=attempts,
        max_restarts=limit.max_restarts,
        within=limit.within,
        actor=actor,
    )
    made.__cause__ = error
    return made
