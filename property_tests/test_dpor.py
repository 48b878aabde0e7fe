"""The reduction is sound: where it says that it is complete, no schedule leads to anything that it has not seen.

Programs do things to shared state of every kind, and say what they saw; what can come of them is compared with what
comes of every schedule. State that cannot be followed is no excuse for a wrong certificate: it has to be named.
"""

from __future__ import annotations

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from .dpor_kinds import KINDS
from .dpor_kinds.objects import methods
from .dpor_kinds.world import UNSEEN
from .dpor_programs import PAUSE, Drawn, count_acts, draw, list_pairs
from .dpor_sources import draw_text
from .outcomes_of import by_dfs, by_dpor, compare

REDUCED = 300
"""Executions after which the reduction is given up."""
EVERY = 1_000
"""Executions: of a program that has more, what the first of them came to must be known to the reduction."""


def check(program, *, clock="explore", reduced=REDUCED, every=EVERY):
    """Compare a program's outcomes; return whether the reduction has certified it."""
    by_reduction = by_dpor(program, most=reduced, clock=clock)
    if not by_reduction.complete:
        return False
    compare(by_reduction, by_dfs(program, most=every, clock=clock))
    return True


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_two_tasks_that_do_one_thing_each(kind):
    for drawn in list_pairs(kind):
        check(drawn.program)


@pytest.mark.parametrize("seed", range(8))
def test_random_acts(seed):
    for number in range(seed * 10, seed * 10 + 10):
        check(draw(KINDS, number).program, clock="auto" if number % 3 == 0 else "explore")


@pytest.mark.parametrize("seed", range(8))
def test_random_statements(seed):
    for number in range(seed * 10, seed * 10 + 10):
        check(draw_text(number).load(), clock="auto" if number % 3 == 0 else "explore")


acts = st.one_of(st.just(PAUSE), st.tuples(st.integers(0, 1), st.integers(0, 5)))
scripts = st.lists(st.lists(acts, min_size=1, max_size=3).map(tuple), min_size=2, max_size=3).map(tuple)


def make_drawn(kinds, scripts, *, scoped):
    """Return a program whose acts are brought into the range of what there is."""
    widths = [count_acts(kind) for kind in kinds]
    fitted = []
    for script in scripts:
        pairs = [act if act is PAUSE else (act[0] % len(kinds), act[1]) for act in script]
        fitted.append(tuple(act if act is PAUSE else (act[0], act[1] % widths[act[0]]) for act in pairs))
    return Drawn(kinds, tuple(fitted), scoped)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=2).map(tuple),
    scripts,
    st.booleans(),
    st.sampled_from(["explore", "auto"]),
)
def test_drawn_acts(kinds, scripts, scoped, clock):
    drawn = make_drawn(kinds, scripts, scoped=scoped)
    certified = check(drawn.program, clock=clock, reduced=100, every=300)
    event("certified" if certified else "not certified")


@settings(max_examples=60)
@given(st.integers(10_000, 10**9), st.sampled_from(["explore", "auto"]))
def test_drawn_statements(seed, clock):
    certified = check(draw_text(seed).load(), clock=clock, reduced=100, every=300)
    event("certified" if certified else "not certified")


def test_what_may_have_done_anything_does_not_sleep():
    """Some writes around a class are seen as such, and not what they write: a step with one depends on all others."""
    cache, patch, bump = (0, 2), (0, 3), (0, 4)
    check(Drawn((methods,), ((cache, patch), (bump,))).program)
    check(Drawn((methods,), ((cache, PAUSE, patch), (bump, PAUSE, (0, 0)))).program)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_many_random_programs(seed):
    for number in range(seed * 100, seed * 100 + 100):
        for clock in ("explore", "auto"):
            check(draw(KINDS, f"slow {number}").program, clock=clock, reduced=1_000, every=3_000)
            check(draw_text(f"slow {number}").load(), clock=clock, reduced=1_000, every=3_000)


@pytest.mark.parametrize("kind", UNSEEN, ids=lambda kind: kind.__name__)
def test_state_of_the_world_is_named(kind):
    """Where two tasks do the same with it; what reads alone, or only takes part of it, may be certified."""
    named = set()
    for act in range(count_acts(kind)):
        drawn = Drawn((kind,), (((0, act),), ((0, act),)))
        named.update(by_dpor(drawn.program, most=REDUCED).untracked)
    assert named
