"""The options of a supervisor that is opened elsewhere, and of what it is asked for: for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stageflow_actors import ActorRef, Intensity, Mailbox, Restart, RunIdentity, StageOutput
    from stageflow_actors._limits import Overflow
    from stageflow_actors._scopes import Policy, Scope


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


class RunOptions(TypedDict, total=False):
    """The options of `Supervisor.run`, which says what they mean."""

    continue_on_failure: bool
    timeout: float | None
    intensity: Intensity | None
    targets: Iterable[str] | None
    overrides: Mapping[str, StageOutput | Mapping[str, Any]] | None


class SpawnOptions(TypedDict, total=False):
    """The options of `Supervisor.spawn` beside the name; it says what they mean."""

    restart: Restart | None
    policy: Policy
    mailbox: Mailbox
    depends_on: str | ActorRef | Iterable[str | ActorRef]
    shutdown: float
    pool: int
    max_deliveries: int
    idempotent: bool
