"""The same result for every schedule: states, outputs, reasons, cause chains, failures, ledger and times."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import RunEnding

from .harness import run_plan
from .plans import Act, Reaction
from .problems import name_problem
from .strategies import plans

SEEDS = st.lists(st.integers(0, 2**16), min_size=3, max_size=5, unique=True)


def digest(result, *, times=True):
    """Return all that a result says, without what is another in each run."""
    plain = result.to_dict()
    for key in ("run_id", "created_at", *([] if times else ["timings"])):
        del plain[key]
    for attempts in (*(failure["attempts"] for failure in plain["failures"].values()), *plain["restarted"].values()):
        for attempt in attempts:
            if not times:
                del attempt["started"], attempt["ended"]
    return (
        repr(plain),
        {name: result.cause_chain(name) for name in result.states},
        {name: name_problem(failure.error) for name, failure in result.failures.items()},
        {name: output.label for name, output in result.items()},
    )


@given(plan=plans(parts=True, max_stages=10), seeds=SEEDS, jitter=st.integers(1, 5))
def test_every_schedule_gives_the_same_result(plan, seeds, jitter):
    """Trio's own choices from a seed, and checkpoints at random before and after each stage's work."""
    variants = [attrs.evolve(plan, seed=seed, jitter=jitter) for seed in seeds]
    first, *others = [digest(run_plan(variant).result) for variant in [plan, *variants]]
    for other in others:
        assert other == first


@given(plan=plans(threads=True, max_stages=7), seeds=SEEDS)
def test_every_schedule_of_threads_gives_the_same_result(plan, seeds):
    first, *others = [digest(run_plan(attrs.evolve(plan, seed=seed)).result, times=False) for seed in seeds]
    for other in others:
        assert other == first


@given(plan=plans(max_stages=8), seeds=SEEDS, order=st.randoms(use_true_random=False))
def test_the_order_of_definition_does_not_matter(plan, seeds, order):
    """But for the order in which things are listed: what a stage is and gave stays the same."""
    stages = list(plan.stages)
    order.shuffle(stages)
    first = run_plan(plan).result
    other = run_plan(attrs.evolve(plan, stages=tuple(stages), seed=seeds[0])).result
    assert dict(other.states) == dict(first.states)
    assert {name: output.data for name, output in other.items()} == {
        name: output.data for name, output in first.items()
    }
    assert {name: other.cause_chain(name) for name in other.states} == {
        name: first.cause_chain(name) for name in first.states
    }
    assert other.ledger == first.ledger


@given(plan=plans(acts=st.sampled_from([Act.OK, Act.SKIP, Act.ROUTE]), max_stages=10), seeds=SEEDS, data=st.data())
def test_one_failure_in_a_run_that_fails_fast_gives_the_same_result(plan, seeds, data):
    """At a moment at which nothing else happens: then nothing about it is left to the scheduler."""
    victim = data.draw(st.sampled_from([stage.name for stage in plan.stages]))
    calm = [
        attrs.evolve(stage, timeout=None, when=None, reaction=Reaction.PASS)
        if stage.name != victim
        else attrs.evolve(stage, act=Act.RAISE, timeout=None, when=None, sleep=0.0625, reaction=Reaction.PASS)
        for stage in plan.stages
    ]
    plan = attrs.evolve(plan, stages=tuple(calm), continue_on_failure=False)
    results = [run_plan(attrs.evolve(plan, seed=seed, jitter=2)).result for seed in seeds]
    assert len({str(digest(result)) for result in results}) == 1
    assert results[0].ended.ending in {RunEnding.FAILED, RunEnding.COMPLETED}
