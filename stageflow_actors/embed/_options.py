"""The options of a supervisor that is opened elsewhere, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from stageflow_actors import Intensity, RunIdentity
    from stageflow_actors._limits import Overflow
    from stageflow_actors._scopes import Scope


class SupervisorOptions(TypedDict, total=False):
    """The options of `Supervisor`, which says what they mean."""

    scope: Scope
    intensity: Intensity
    max_running_stages: int | None
    max_runs: int | None
    max_queued: int | None
    overflow: Overflow
    max_threads: int | None
    shutdown: float
    identify: Callable[[], RunIdentity]
    random: Callable[[], float]
