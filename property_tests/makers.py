"""Drawn limiters, rates and policies as real ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from stageflow_actors import Backoff, Directive, Intensity, Limiter, Rate, Restart, StageTimeoutError

from .meters import ALL, Meter
from .plans import Decides, LimiterPlan, On, RestartPlan, RunPlan
from .problems import PlannedError, PredicateError

if TYPE_CHECKING:
    from collections.abc import Mapping


def make_meters(limiters: Mapping[str, LimiterPlan], max_running: int | None) -> dict[str, Meter]:
    """Return a meter for each limiter, and one for all stages."""
    meters = {name: Meter(limiter.max_concurrency, limiter.rate) for name, limiter in limiters.items()}
    return {**meters, ALL: Meter(max_running)}


def make_limiters(plans: Mapping[str, LimiterPlan]) -> dict[str, Limiter]:
    """Return drawn limiters."""
    return {
        name: Limiter(
            plan.max_concurrency,
            max_queued=plan.max_queued,
            overflow=plan.overflow,  # type: ignore[arg-type]
            rate=None if plan.rate is None else Rate(*plan.rate),
            aging=plan.aging,
        )
        for name, plan in plans.items()
    }


def make_intensity(plan: RunPlan) -> Intensity | None:
    """Return the intensity of a drawn run."""
    return None if plan.intensity is None else Intensity(*plan.intensity)


def make_restart(plan: RestartPlan | None) -> Restart | None:
    """Return the policy of a drawn stage or item."""
    if plan is None:
        return None
    backoff = Backoff(initial=plan.initial, factor=plan.factor, maximum=plan.maximum, jitter=plan.jitter)
    decide = None if plan.decides is None else partial(_decide, plan.decides)
    return Restart(max_restarts=plan.max_restarts, within=plan.within, backoff=backoff, on=_ON[plan.on], decide=decide)


def _raise(_error: Exception) -> bool:
    raise PredicateError


def _decide(decides: Decides, _error: Exception) -> Directive:
    if decides is Decides.RAISES:
        raise PredicateError
    return "perhaps" if decides is Decides.WRONG else Directive(decides.value)  # type: ignore[return-value]


_ON: dict[On, Any] = {
    On.ANY: Exception,
    On.PLANNED: PlannedError,
    On.TIMEOUT: StageTimeoutError,
    On.EITHER: (StageTimeoutError, PlannedError),
    On.OTHER: ZeroDivisionError,
    On.ASKED: lambda error: isinstance(error, PlannedError),
    On.RAISES: _raise,
}
