"""Drafts of stages, drawn without regard to each other, and the runs that are made of them.

So an example of Hypothesis shrinks by leaving stages out; and a plain random generator can draw the same.
"""

from __future__ import annotations

import attrs

from stageflow_actors import Trigger
from stageflow_actors.testing._shapes import Shape, lay_out

from .plans import THREADED, Act, Ask, Form, LimiterPlan, On, Reaction, RestartPlan, RunPlan, StagePlan, Stop, When

MAX_STAGES = 14
LABELS = ("left", "right")

GOOD = [Act.OK] * 8 + [Act.MAPPING] * 2 + [Act.NONE] + [Act.ROUTE] * 4 + [Act.OWN_SCOPE]
SKIPS = [Act.SKIP] * 2 + [Act.SKIP_DATA]
BAD = [
    Act.FAIL,
    Act.FAIL_ERROR,
    Act.RETRY,
    Act.WRONG_TYPE,
    Act.UNFREEZABLE,
    Act.UNDECLARED,
    Act.RAISE,
    Act.RAISE_UNPRINTABLE,
    Act.RAISE_GROUP,
    Act.KEPT_CANCELLED,
    Act.MIXED_GROUP,
    Act.CHILD_FAILS,
    Act.NURSERY_LEFT_OPEN,
    Act.NURSERY_LEFT_OPEN_FAILING,
]
# What needs a task of its own, and so cannot be done in a worker thread.
_TASK_ONLY = frozenset(
    {
        Act.OWN_SCOPE,
        Act.KEPT_CANCELLED,
        Act.MIXED_GROUP,
        Act.CHILD_FAILS,
        Act.NURSERY_LEFT_OPEN,
        Act.NURSERY_LEFT_OPEN_FAILING,
    }
)
TASK_FORMS = [form for form in Form if form not in THREADED]
TRIGGERS = [Trigger.ALL_SUCCESS] * 3 + [Trigger.NONE_FAILED] * 2 + [Trigger.ONE_SUCCESS] * 2 + [Trigger.ALL_DONE] * 2
REACTIONS = [Reaction.PASS] * 3 + list(Reaction)[1:]
ASKS = [None] * 6 + [ask for ask in Ask if ask is not Ask.ROUTE] + [Ask.ROUTE] * 3
SLEEPS = [0.0, 0.0, 0.5, 1.5, 2.5]
TIMEOUTS = [None, None, None, 1.0, 2.0]
STOPS_AT = [0.25, 0.5, 0.75, 1.25, 2.0, 2.5, 2.75, 4.25]
HEALS_AT = [None, 2, 2, 3, 4]
AFTERS = [0.0, 0.0, 1.0, 8.0]
ONS = [On.ANY] * 5 + list(On)[1:]
SLACKS = [None, None, 0.0, 0.5, 4.0]


@attrs.frozen
class Draft:
    """A stage before it has a name, its dependencies as numbers."""

    parents: list[int]
    place: int
    """Where it stands in the definition, beside the others."""
    trigger: Trigger = Trigger.ALL_SUCCESS
    act: Act = Act.OK
    form: Form = Form.FUNCTION
    ask: Ask | None = None
    router: int = 0
    value: int = 0
    label: str = "left"
    checkpoints: int = 0
    sleep: float = 0.0
    nested: bool = False
    timeout: float | None = None
    reaction: Reaction = Reaction.PASS
    restart: RestartPlan | None = None
    slack: float | None = None
    """Seconds by which the window of its restarts is longer than it must be; None for no window."""
    heals_at: int | None = None
    after: float = 0.0
    limiter: int | None = None
    """Which one, as a number."""
    priority: int = 0


def make_stage(name: str, dependencies: tuple[str, ...], draft: Draft, limiters: list[str]) -> StagePlan:
    """Return the plan of a drafted stage."""
    act, when = draft.act, None
    if draft.form in THREADED and act in _TASK_ONLY:
        act = Act.RAISE
    if draft.ask is Ask.ROUTE and dependencies:
        when = When(Ask.ROUTE, dependencies[draft.router % len(dependencies)], draft.label)
    elif draft.ask is not None and draft.ask is not Ask.ROUTE:
        when = When(draft.ask)
    threaded = draft.form in THREADED
    timeout = None if threaded else draft.timeout
    restart = None if draft.restart is None else fit(draft.restart, draft.slack, timeout, threaded=threaded)
    heals_at = draft.heals_at
    if restart is not None and restart.within is not None and heals_at is None:
        heals_at = 5  # in a window it might be restarted for ever
    plan = StagePlan(
        name,
        dependencies,
        trigger=draft.trigger,
        act=act,
        form=draft.form,
        when=when,
        value=draft.value,
        label=draft.label,
        restart=restart,
        heals_at=heals_at if restart is not None else None,
        limiter=None if draft.limiter is None or not limiters else limiters[draft.limiter % len(limiters)],
        priority=draft.priority,
    )
    if threaded:
        return plan
    return attrs.evolve(
        plan,
        checkpoints=draft.checkpoints,
        sleep=draft.sleep,
        nested=draft.nested,
        timeout=timeout,
        reaction=draft.reaction,
        after=draft.after,
    )


def fit(restart: RestartPlan, slack: float | None, timeout: float | None, *, threaded: bool) -> RestartPlan:
    """Return restarts whose window their delays can fill; in threads, where time is real, without any delay."""
    if threaded:
        return attrs.evolve(restart, initial=0.0)
    if slack is None:
        return restart
    delays = [restart.initial * restart.factor**number for number in range(restart.max_restarts)]
    shortest = sum(min(restart.maximum, delay * (1 - restart.jitter)) for delay in delays)
    return attrs.evolve(restart, within=shortest + restart.max_restarts * (timeout or 0.0) + slack or 1.0)


def make_run(
    shape: Shape,
    drafts: list[Draft],
    *,
    started: bool,
    seed: int,
    jitter: int,
    targets: list[int] | None = None,
    givens: list[tuple[int, str]] | None = None,
    stop: Stop | None = None,
    continue_on_failure: bool = True,
    limiters: list[LimiterPlan] | None = None,
    max_running: int | None = None,
    intensity: tuple[int, float | None] | None = None,
) -> RunPlan:
    """Return the plan of a run of drafted stages."""
    limits = {f"l{number}": limiter for number, limiter in enumerate(limiters or [])}
    stages = tuple(make_stage(*stage, list(limits)) for stage in lay_out(shape, drafts))
    names = [stage.name for stage in stages]
    return RunPlan(
        stages,
        started=started,
        seed=seed,
        jitter=jitter,
        targets=None if targets is None else tuple(names[number % len(names)] for number in targets),
        stop=stop,
        continue_on_failure=continue_on_failure,
        overrides=tuple({names[number % len(names)]: what for number, what in givens or []}.items()),
        limiters=tuple(limits.items()),
        max_running=max_running,
        intensity=intensity,
    )
