"""Hypothesis strategies for graphs, stages and runs. Everything is drawn before trio starts."""

from __future__ import annotations

from enum import Enum

import attrs
from hypothesis import strategies as st

from stageflow_actors import Trigger

from .plans import THREADED, Act, Ask, Form, Reaction, RunPlan, StagePlan, Stop, Way, When

MAX_STAGES = 14
LABELS = ("left", "right")

_GOOD = [Act.OK] * 8 + [Act.MAPPING] * 2 + [Act.NONE] + [Act.ROUTE] * 4 + [Act.OWN_SCOPE]
_SKIPS = [Act.SKIP] * 2 + [Act.SKIP_DATA]
_BAD = [
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
ENDING_RUN = (Act.CANCEL, Act.ABORT)

ACTS = st.sampled_from(_GOOD + _SKIPS + _BAD)
ACTS_THAT_STOP = st.sampled_from([*_GOOD, *_SKIPS, *_BAD, *ENDING_RUN])
TRIGGERS = st.sampled_from(
    [Trigger.ALL_SUCCESS] * 3 + [Trigger.NONE_FAILED] * 2 + [Trigger.ONE_SUCCESS] * 2 + [Trigger.ALL_DONE] * 2
)
REACTIONS = st.sampled_from([Reaction.PASS] * 3 + list(Reaction)[1:])
TASK_FORMS = st.sampled_from([form for form in Form if form not in THREADED])
ALL_FORMS = st.sampled_from(list(Form))
ASKS = st.sampled_from([None] * 6 + [ask for ask in Ask if ask is not Ask.ROUTE] + [Ask.ROUTE] * 3)
SLEEPS = st.sampled_from([0.0, 0.0, 0.5, 1.5, 2.5])
TIMEOUTS = st.sampled_from([None, None, None, 1.0, 2.0])
STOP_TIMES = st.sampled_from([0.25, 0.5, 0.75, 1.25, 2.0, 2.5, 2.75, 4.25])


class Shape(Enum):
    """What a graph looks like."""

    RANDOM = "any"
    CHAIN = "one after the other"
    FAN = "a source, a wide fan-out, a join"
    LAYERS = "layers, each knowing only the one before"
    FOREST = "at most one dependency each, several roots"


# A stage is drawn without regard to the others, its dependencies as numbers: then a failing example
# shrinks by leaving stages out.
_PARENTS = st.lists(st.integers(0, MAX_STAGES - 1), max_size=4)
_PLACES = st.integers(0, 9)


@attrs.frozen
class Draft:
    """A stage before it has a name."""

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


def graphs(*, max_stages: int = MAX_STAGES) -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    """Return a strategy for names with their dependencies; a stage may stand before what it depends on."""
    drafts = st.lists(st.builds(Draft, _PARENTS, _PLACES), min_size=1, max_size=max_stages)
    return st.builds(_lay_out, st.sampled_from(Shape), drafts).map(
        lambda laid_out: {name: dependencies for name, dependencies, _ in laid_out}
    )


def _lay_out(shape: Shape, drafts: list[Draft]) -> list[tuple[str, tuple[str, ...], Draft]]:
    names = [f"s{number}" for number in range(len(drafts))]
    stages = [
        (name, _choose(shape, names, number, draft.parents), draft)
        for number, (name, draft) in enumerate(zip(names, drafts, strict=True))
    ]
    return sorted(stages, key=lambda stage: stage[2].place)


def _choose(shape: Shape, names: list[str], number: int, parents: list[int]) -> tuple[str, ...]:
    """Return the dependencies of one stage, among those before it."""
    before = names[:number]
    if shape is Shape.LAYERS:
        start = number // 3 * 3
        before = names[max(0, start - 3) : start]
    if not before:
        return ()
    if shape is Shape.CHAIN:
        return (before[-1],)
    if shape is Shape.FAN:
        return tuple(before[1:]) if number > 1 and number == len(names) - 1 else (before[0],)
    chosen = tuple(dict.fromkeys(before[parent % len(before)] for parent in parents))
    return chosen[:1] if shape is Shape.FOREST else chosen


def _make_stage(name: str, dependencies: tuple[str, ...], draft: Draft) -> StagePlan:
    act, when = draft.act, None
    if draft.form in THREADED and act in _TASK_ONLY:
        act = Act.RAISE
    if draft.ask is Ask.ROUTE and dependencies:
        when = When(Ask.ROUTE, dependencies[draft.router % len(dependencies)], draft.label)
    elif draft.ask is not None and draft.ask is not Ask.ROUTE:
        when = When(draft.ask)
    plan = StagePlan(
        name,
        dependencies,
        trigger=draft.trigger,
        act=act,
        form=draft.form,
        when=when,
        value=draft.value,
        label=draft.label,
    )
    if draft.form in THREADED:
        return plan
    return attrs.evolve(
        plan,
        checkpoints=draft.checkpoints,
        sleep=draft.sleep,
        nested=draft.nested,
        timeout=draft.timeout,
        reaction=draft.reaction,
    )


def _drafts(acts: st.SearchStrategy[Act], *, threads: bool) -> st.SearchStrategy[Draft]:
    always = {
        "parents": _PARENTS,
        "place": _PLACES,
        "trigger": TRIGGERS,
        "act": acts,
        "form": ALL_FORMS if threads else TASK_FORMS,
        "ask": ASKS,
        "router": st.integers(0, 3),
        "value": st.integers(0, 9),
        "label": st.sampled_from(LABELS),
        "checkpoints": st.integers(0, 3),
    }
    timed = {
        "sleep": SLEEPS,
        "nested": st.sampled_from([False, False, False, True]),
        "timeout": TIMEOUTS,
        "reaction": REACTIONS,
    }
    return st.builds(Draft, **always, **({} if threads else timed))


def plans(
    *,
    acts: st.SearchStrategy[Act] = ACTS,
    threads: bool = False,
    parts: bool = False,
    max_stages: int = MAX_STAGES,
) -> st.SearchStrategy[RunPlan]:
    """Return a strategy for runs that nothing stops early, unless `acts` has something that does.

    Args:
        acts: What stages may do.
        threads: Whether some stages run in worker threads; then nothing is timed, because a virtual
            clock would run on while a thread works.
        parts: Whether the run may have targets and overrides.
        max_stages: How large it may be.
    """
    givens = st.lists(st.tuples(st.integers(0, 13), st.sampled_from(["mapping", "ok", "skip"])), max_size=3)
    targets = st.none() | st.lists(st.integers(0, 13), min_size=1, max_size=3)
    return st.builds(
        _make_plan,
        st.sampled_from(Shape),
        st.lists(_drafts(acts, threads=threads), min_size=1, max_size=max_stages),
        started=st.booleans(),
        seed=st.integers(0, 2**16),
        jitter=st.integers(0, 2),
        targets=targets if parts else st.none(),
        givens=givens if parts else st.just([]),
    )


def _make_plan(
    shape: Shape,
    drafts: list[Draft],
    *,
    started: bool,
    seed: int,
    jitter: int,
    targets: list[int] | None,
    givens: list[tuple[int, str]],
    stop: Stop | None = None,
    continue_on_failure: bool = True,
) -> RunPlan:
    stages = tuple(_make_stage(*stage) for stage in _lay_out(shape, drafts))
    names = [stage.name for stage in stages]
    return RunPlan(
        stages,
        started=started,
        seed=seed,
        jitter=jitter,
        targets=None if targets is None else tuple(names[number % len(names)] for number in targets),
        stop=stop,
        continue_on_failure=continue_on_failure,
        overrides=tuple({names[number % len(names)]: what for number, what in givens}.items()),
    )


_STOPS_AT_ENTRIES = st.none() | st.builds(Stop, st.sampled_from([Way.SCOPE, Way.HANDLE]), entry=st.integers(0, 20))
_STOPS = _STOPS_AT_ENTRIES | st.builds(Stop, st.sampled_from(Way), at=STOP_TIMES)


@st.composite
def stopped_plans(draw: st.DrawFn, *, threads: bool = False) -> RunPlan:
    """Draw a run that may end before its time: by a failure, by a stage's reply, or from outside.

    Args:
        draw: Hypothesis's.
        threads: Whether some stages run in worker threads; then it is not stopped at a time.
    """
    plan = draw(plans(acts=ACTS_THAT_STOP, threads=threads, parts=draw(st.booleans())))
    stop = draw(_STOPS_AT_ENTRIES if threads else _STOPS)
    started = plan.started or (stop is not None and stop.way is Way.HANDLE)
    return attrs.evolve(plan, continue_on_failure=draw(st.booleans()), stop=stop, started=started)


def narrow_plans(
    *,
    acts: list[Act],
    asks: list[Ask | None] | None = None,
    reactions: list[Reaction] | None = None,
    stops: st.SearchStrategy[Stop | None] | None = None,
    fail_fast: bool = True,
) -> st.SearchStrategy[RunPlan]:
    """Return a strategy for runs that were started, of stages that differ in few things: to look at one thing closely.

    Args:
        acts: What stages do.
        asks: What their predicates do; by default there are none.
        reactions: What they do when cancelled; by default they let it through.
        stops: How the run is stopped from outside; by default it is not.
        fail_fast: Whether each fails fast; else some do.
    """
    drafts = st.builds(
        Draft,
        _PARENTS,
        _PLACES,
        trigger=TRIGGERS,
        act=st.sampled_from(acts),
        ask=st.sampled_from(asks or [None]),
        reaction=st.sampled_from(reactions or [Reaction.PASS]),
        sleep=st.sampled_from([0.0, 0.5, 1.5]),
    )
    return st.builds(
        _make_plan,
        st.sampled_from([Shape.RANDOM, Shape.RANDOM, Shape.LAYERS]),
        st.lists(drafts, min_size=1, max_size=MAX_STAGES),
        started=st.just(True),
        seed=st.integers(0, 2**16),
        jitter=st.integers(0, 1),
        targets=st.none(),
        givens=st.just([]),
        stop=st.none() if stops is None else stops,
        continue_on_failure=st.just(False) if fail_fast else st.booleans(),
    )
