"""Hypothesis strategies for graphs, stages and runs. Everything is drawn before trio starts."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st

from stageflow_actors.testing._shapes import Shape, lay_out

from .drafts import (
    AFTERS,
    ASKS,
    BAD,
    GOOD,
    HEALS_AT,
    LABELS,
    MAX_STAGES,
    ONS,
    REACTIONS,
    SKIPS,
    SLACKS,
    SLEEPS,
    STOPS_AT,
    TASK_FORMS,
    TIMEOUTS,
    TRIGGERS,
    Draft,
    make_run,
)
from .plans import Act, Ask, Decides, Form, LimiterPlan, Reaction, RestartPlan, RunPlan, Stop, Way

ENDING_RUN = (Act.CANCEL, Act.ABORT)
ACTS = st.sampled_from(GOOD + SKIPS + BAD)
ACTS_THAT_STOP = st.sampled_from([*GOOD, *SKIPS, *BAD, *ENDING_RUN])

STOP_TIMES = st.sampled_from(STOPS_AT)

_PARENTS = st.lists(st.integers(0, MAX_STAGES - 1), max_size=4)
_PLACES = st.integers(0, 9)


def _restarts(decides: list[Decides]) -> st.SearchStrategy[RestartPlan | None]:
    restarts = st.builds(
        RestartPlan,
        max_restarts=st.integers(0, 3),
        initial=st.sampled_from([0.0, 0.25, 1.0]),
        factor=st.sampled_from([1.0, 2.0]),
        maximum=st.sampled_from([1.0, 4.0]),
        jitter=st.sampled_from([0.0, 0.5, 1.0]),
        on=st.sampled_from(ONS),
        decides=st.sampled_from([None] * 8 + decides),
    )
    return st.none() | st.none() | restarts


_NO_ESCALATION = [one for one in Decides if one is not Decides.ESCALATE]
_LIMITERS = st.lists(
    st.builds(
        LimiterPlan,
        st.integers(1, 4),
        max_queued=st.sampled_from([None, None, 0, 3]),
        rate=st.sampled_from([None, None, None, (2, 1.0, 2), (1, 0.5, 3)]),
        aging=st.sampled_from([1.0, 10.0]),
    ),
    min_size=1,
    max_size=2,
)


def graphs(*, max_stages: int = MAX_STAGES) -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    """Return a strategy for names with their dependencies; a stage may stand before what it depends on."""
    drafts = st.lists(st.builds(Draft, _PARENTS, _PLACES), min_size=1, max_size=max_stages)
    return st.builds(lay_out, st.sampled_from(Shape), drafts).map(
        lambda laid_out: {name: dependencies for name, dependencies, _ in laid_out}
    )


def _drafts(
    acts: st.SearchStrategy[Act], *, threads: bool, limits: bool, decides: list[Decides]
) -> st.SearchStrategy[Draft]:
    always = {
        "parents": _PARENTS,
        "place": _PLACES,
        "trigger": st.sampled_from(TRIGGERS),
        "act": acts,
        "form": st.sampled_from(list(Form) if threads else TASK_FORMS),
        "ask": st.sampled_from(ASKS),
        "router": st.integers(0, 3),
        "value": st.integers(0, 9),
        "label": st.sampled_from(LABELS),
        "checkpoints": st.integers(0, 3),
        "restart": _restarts(decides),
        "heals_at": st.sampled_from(HEALS_AT),
    }
    timed = {
        "sleep": st.sampled_from(SLEEPS),
        "nested": st.sampled_from([False, False, False, True]),
        "timeout": st.sampled_from(TIMEOUTS),
        "reaction": st.sampled_from(REACTIONS),
        "slack": st.sampled_from(SLACKS),
        "after": st.sampled_from(AFTERS),
    }
    limited = {
        "limiter": st.sampled_from([None, 0, 1]),
        "priority": st.integers(-1, 1),
    }
    return st.builds(Draft, **always, **({} if threads else timed), **(limited if limits else {}))


def plans(
    *,
    acts: st.SearchStrategy[Act] = ACTS,
    threads: bool = False,
    parts: bool = False,
    limits: bool = False,
    max_stages: int = MAX_STAGES,
) -> st.SearchStrategy[RunPlan]:
    """Return a strategy for runs that nothing stops early, unless `acts` has something that does.

    Args:
        acts: What stages may do.
        threads: Whether some stages run in worker threads; then nothing is timed, because a virtual
            clock would run on while a thread works.
        parts: Whether the run may have targets and overrides.
        limits: Whether stages wait for limiters, the supervisor limits them all, and the run limits restarts.
        max_stages: How large it may be.
    """
    return _plans(_NO_ESCALATION, acts, threads=threads, parts=parts, limits=limits, max_stages=max_stages)


def _plans(
    decides: list[Decides],
    acts: st.SearchStrategy[Act],
    *,
    threads: bool,
    parts: bool,
    limits: bool,
    max_stages: int = MAX_STAGES,
) -> st.SearchStrategy[RunPlan]:
    givens = st.lists(st.tuples(st.integers(0, 13), st.sampled_from(["mapping", "ok", "skip"])), max_size=3)
    targets = st.none() | st.lists(st.integers(0, 13), min_size=1, max_size=3)
    limited = {
        "limiters": _LIMITERS,
        "max_running": st.none() | st.integers(1, 4),
        "intensity": st.none() | st.tuples(st.integers(0, 6), st.sampled_from([None, 1.0, 3.0])),
    }
    return st.builds(
        make_run,
        st.sampled_from(Shape),
        st.lists(_drafts(acts, threads=threads, limits=limits, decides=decides), min_size=1, max_size=max_stages),
        started=st.booleans(),
        seed=st.integers(0, 2**16),
        jitter=st.integers(0, 2),
        targets=targets if parts else st.none(),
        givens=givens if parts else st.just([]),
        **(limited if limits else {}),
    )


_STOPS_AT_ENTRIES = st.none() | st.builds(Stop, st.sampled_from([Way.SCOPE, Way.HANDLE]), entry=st.integers(0, 20))
_STOPS = _STOPS_AT_ENTRIES | st.builds(Stop, st.sampled_from(Way), at=STOP_TIMES)


@st.composite
def stopped_plans(draw: st.DrawFn, *, threads: bool = False, limits: bool = False) -> RunPlan:
    """Draw a run that may end before its time: by a failure, by a stage's reply, or from outside.

    Args:
        draw: Hypothesis's.
        threads: Whether some stages run in worker threads; then it is not stopped at a time.
        limits: Whether there are limits, as in `plans`.
    """
    parts = draw(st.booleans())
    plan = draw(_plans(list(Decides), ACTS_THAT_STOP, threads=threads, parts=parts, limits=limits))
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
        trigger=st.sampled_from(TRIGGERS),
        act=st.sampled_from(acts),
        ask=st.sampled_from(asks or [None]),
        reaction=st.sampled_from(reactions or [Reaction.PASS]),
        sleep=st.sampled_from([0.0, 0.5, 1.5]),
    )
    return st.builds(
        make_run,
        st.sampled_from([Shape.RANDOM, Shape.RANDOM, Shape.LAYERS]),
        st.lists(drafts, min_size=1, max_size=MAX_STAGES),
        started=st.just(True),
        seed=st.integers(0, 2**16),
        jitter=st.integers(0, 1),
        stop=st.none() if stops is None else stops,
        continue_on_failure=st.just(False) if fail_fast else st.booleans(),
    )
