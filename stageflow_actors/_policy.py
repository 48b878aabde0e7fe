"""States, and the decisions about them: pure functions of what has happened."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final


class StageState(StrEnum):
    """What a run made of a stage."""

    PENDING = "pending"
    """Waits for its dependencies, for its task to begin or, a plain function, for its thread."""
    RUNNING = "running"
    OK = "ok"
    SKIPPED = "skipped"
    """Was not chosen, or said so itself, or stands below a stage that was skipped."""
    FAILED = "failed"
    ISOLATED = "isolated"
    """Never ran, because a stage that it depends on did not end well."""
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """Its worker thread was still running when its shutdown budget was spent."""


# A run keeps one byte a stage: the position of its state here. TOLD is a pending stage whose message is
# under way; from outside the two are the same.
PENDING, TOLD, RUNNING, OK, SKIPPED, FAILED, ISOLATED, CANCELLED, ABANDONED = range(9)
STATES: Final = (
    StageState.PENDING,
    StageState.PENDING,
    StageState.RUNNING,
    StageState.OK,
    StageState.SKIPPED,
    StageState.FAILED,
    StageState.ISOLATED,
    StageState.CANCELLED,
    StageState.ABANDONED,
)

BAD: Final = frozenset({FAILED, ISOLATED, CANCELLED, ABANDONED})
"""The codes of the states that isolate a dependent."""


class Trigger(StrEnum):
    """When a stage whose dependencies have all ended runs. Names and meanings are Airflow's."""

    ALL_SUCCESS = "all_success"
    """Every dependency ended OK. Below a skipped one the stage is skipped, below a bad one isolated."""
    NONE_FAILED = "none_failed"
    """No dependency ended badly; skipped ones do not matter."""
    ONE_SUCCESS = "one_success"
    """At least one dependency ended OK, decided when all have ended, so that no schedule shows through."""
    ALL_DONE = "all_done"
    """All dependencies ended, however they did."""


class Decision(Enum):
    """What becomes of a stage whose dependencies have all ended."""

    RUN = "run"
    SKIP = "skip"
    ISOLATE = "isolate"


def decide(trigger: Trigger, *, bad: bool, skipped: bool, ok: bool) -> Decision:
    """Return what a stage's trigger says, all its dependencies having ended.

    Args:
        trigger: The stage's.
        bad: Whether a dependency ended badly.
        skipped: Whether a dependency was skipped.
        ok: Whether a dependency ended OK.
    """
    if trigger is Trigger.ALL_DONE or not (bad or skipped):
        return Decision.RUN
    if trigger is Trigger.ONE_SUCCESS and ok:
        return Decision.RUN
    if bad:
        return Decision.ISOLATE
    return Decision.RUN if trigger is Trigger.NONE_FAILED else Decision.SKIP


def isolates_at_stop(trigger: Trigger, *, bad: bool, all_ended: bool, ok: bool) -> bool:
    """Return whether a stage that a stopping run never started is isolated, rather than cancelled.

    Args:
        trigger: The stage's.
        bad: Whether one of its dependencies has ended badly.
        all_ended: Whether all of them have ended.
        ok: Whether one of them has ended OK.
    """
    if not bad or trigger is Trigger.ALL_DONE:
        return False
    return trigger is not Trigger.ONE_SUCCESS or (all_ended and not ok)
