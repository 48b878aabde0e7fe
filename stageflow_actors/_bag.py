"""What a run has gathered so far: one slot a stage, each written once."""

from __future__ import annotations

from array import array
from math import isnan, nan
from typing import TYPE_CHECKING, final

import attrs

from ._policy import BAD, STATES, StageState
from .errors import StageflowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._output import StageOutput


@final
@attrs.frozen
class Attempt:
    """One time that a stage was run."""

    number: int
    """Counted from 1."""
    started: float
    """In seconds from the start of the run."""
    ended: float
    """In seconds from the start of the run."""
    error: BaseException | None
    """Why it failed; None where it replied, or was cancelled."""


@final
@attrs.frozen
class StageFailure:
    """Why a stage is `FAILED` or `ABANDONED`."""

    stage: str
    error: BaseException
    attempts: tuple[Attempt, ...]

    def __str__(self) -> str:
        """Return the error as a traceback's last line shows it."""
        return describe_error(self.error)


def describe_error(error: BaseException) -> str:
    """Return the error's type and message, in one line; the place is where this is printed."""
    told = error.describe() if isinstance(error, StageflowError) else error
    text = " ".join(safe_str(told).split())
    return f"{type(error).__qualname__}: {text}" if text else type(error).__qualname__


def safe_str(value: object) -> str:
    """Return `str(value)`, also of a user's object whose `__str__` raises."""
    try:
        return str(value)
    except Exception as error:  # whatever it is, it must not take the run's place
        return f"<{type(value).__qualname__} whose __str__ raised {type(error).__qualname__}>"


@final
class OutputBag:
    """Append-only, and the run's own: stages see `StageInputs`, callers see `RunResult`.

    Stages are positions in the compiled graph. Arrays rather than objects: a waiting stage costs 29 bytes.
    """

    __slots__ = (
        "attempts",
        "began",
        "ended",
        "failures",
        "names",
        "outputs",
        "parents",
        "reasons",
        "started",
        "states",
    )

    def __init__(self, names: Sequence[str], began: float) -> None:
        size = len(names)
        self.names = names
        self.states = bytearray(size)
        self.outputs: list[StageOutput | None] = [None] * size
        self.failures: dict[int, StageFailure] = {}
        self.attempts: dict[int, tuple[Attempt, ...]] = {}
        """For a stage that was restarted, the attempts before the present one, whose times are below."""
        self.reasons: dict[int, str] = {}
        self.parents: dict[int, int] = {}
        """For an isolated stage, the dependency that isolated it."""
        self.began = began
        """When the run began, on the run's clock."""
        self.started = array("d", (nan,)) * size
        self.ended = array("d", (nan,)) * size

    def copy(self) -> OutputBag:
        """Return the bag as it is now."""
        twin = OutputBag(self.names, self.began)
        twin.states[:] = self.states
        twin.outputs[:] = self.outputs
        twin.failures.update(self.failures)
        twin.attempts.update(self.attempts)
        twin.reasons.update(self.reasons)
        twin.parents.update(self.parents)
        twin.started[:] = self.started
        twin.ended[:] = self.ended
        return twin

    def state(self, stage: int) -> StageState:
        """Return the state of a stage."""
        return STATES[self.states[stage]]

    def list_attempts(self, stage: int) -> tuple[Attempt, ...]:
        """Return every attempt at a stage, so far."""
        if stage in self.failures:
            return self.failures[stage].attempts
        earlier = self.attempts.get(stage, ())
        if isnan(self.ended[stage]) or isnan(self.started[stage]):  # the latter: it never had a thread
            return earlier
        return (*earlier, self.make_attempt(stage, None))

    def count_attempts(self, stage: int) -> int:
        """Return the number of the present attempt at a stage, counted from 1."""
        return len(self.attempts.get(stage, ())) + 1

    def make_attempt(self, stage: int, error: BaseException | None) -> Attempt:
        """Return the present attempt at a stage, which has ended."""
        return Attempt(
            self.count_attempts(stage), self.started[stage] - self.began, self.ended[stage] - self.began, error
        )

    def close_attempt(self, stage: int, attempt: Attempt) -> None:
        """Put an attempt beside the earlier ones: there will be another."""
        self.attempts[stage] = (*self.attempts.get(stage, ()), attempt)
        self.started[stage] = self.ended[stage] = nan

    def find_parent(self, dependencies: Iterable[int]) -> int:
        """Return the first dependency, in declaration order, that ended badly."""
        states = self.states
        return next(stage for stage in dependencies if states[stage] in BAD)

    def explain(self, stage: int) -> str:
        """Return why a stage has no output, for an error's message."""
        state = self.state(stage)
        if stage in self.failures:
            return f"{state.value} ({self.failures[stage]})"
        if stage in self.parents:
            return f"{state.value} (below {self.names[self.parents[stage]]!r})"
        reason = self.reasons.get(stage)
        return f"{state.value} ({reason})" if reason else state.value
