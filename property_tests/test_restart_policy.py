"""Restarts against models that keep everything: none too many or too few, and no delay out of bounds."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from stageflow_actors import Backoff, Intensity, PipelineValidationError, Restart
from stageflow_actors._policy import Window, check_window, count_failure, plan_restart

GRID = 1024
"""All times drawn are whole parts of a second of this size, so that floats add them up exactly, as fractions do."""


def times(most, *, least=0):
    """Draw seconds on the grid, whole eighths mostly, so that sums meet."""
    eighths = st.integers(math.ceil(least * 8), int(most * 8)).map(lambda number: number / 8)
    return eighths | st.integers(math.ceil(least * GRID), int(most * GRID)).map(lambda number: number / GRID)


@st.composite
def backoffs(draw):
    """Draw delays that floats hold exactly for the first ten restarts or so."""
    initial = draw(times(4))
    return Backoff(
        initial=initial,
        factor=draw(st.sampled_from([1, 1.0, 1.5, 2.0, 3.0, 8])),
        maximum=initial + draw(times(40)),
        jitter=draw(st.sampled_from([0, 0.25, 0.5, 0.75, 1])),
    )


WITHIN = st.none() | times(20, least=1 / GRID)
CHANCES = st.integers(0, 2**53).map(lambda number: number / 2**53)  # as random() draws them, and 1


# Delays


@st.composite
def any_backoffs(draw):
    initial = draw(st.just(0.0) | st.floats(1e-9, 1e6))
    return Backoff(
        initial=initial,
        factor=draw(st.floats(1, 4) | st.floats(1, 1e14) | st.integers(1, 5)),
        maximum=draw(st.floats(initial, max(1e-6, 2 * initial)) | st.floats(initial, 1e9)),
        jitter=draw(st.floats(0, 1) | st.sampled_from([0, 1])),
    )


def grow(backoff, restart):
    return Fraction(backoff.initial) * Fraction(backoff.factor) ** (restart - 1)


def shorten(backoff, restart):
    """Return the shortest delay that the contract allows."""
    return min(Fraction(backoff.maximum), grow(backoff, restart) * (1 - Fraction(backoff.jitter)))


@given(backoff=any_backoffs(), restart=st.integers(1, 40), chance=CHANCES)
@example(Backoff(initial=1.0, factor=1e14, maximum=5.0, jitter=1), 3, 2**-53)
def test_a_delay_is_what_the_formula_says(backoff, restart, chance):
    """Floats round the share that jitter leaves, and the power."""
    delay = backoff.delay(restart, chance)
    grown, share = grow(backoff, restart), 1 - Fraction(backoff.jitter) * (1 - Fraction(chance))
    low, high = (
        min(Fraction(backoff.maximum), grown * max(0, share + off)) for off in (Fraction(-1, 2**50), Fraction(1, 2**50))
    )
    assert float(low) * (1 - 1e-9) <= delay <= float(high) * (1 + 1e-9)


@given(backoff=any_backoffs(), restart=st.integers(1, 40), chance=CHANCES)
def test_a_delay_keeps_its_bounds(backoff, restart, chance):
    shortest, longest = backoff.delay(restart, 0.0), backoff.delay(restart, 1.0)
    assert shortest == pytest.approx(float(shorten(backoff, restart)), rel=1e-9)
    assert longest == pytest.approx(float(min(Fraction(backoff.maximum), grow(backoff, restart))), rel=1e-9)
    assert 0 <= shortest <= backoff.delay(restart, chance) <= longest <= backoff.maximum


@given(backoff=any_backoffs(), restart=st.integers(1, 10**6), chance=CHANCES)
@example(Backoff(factor=1e14), 10**6, 0.0)
@example(Backoff(initial=0, factor=1e14), 10**6, 1.0)
@example(Backoff(initial=1e-9, factor=1.0000001, maximum=1e9, jitter=0.5), 10**6, 0.0)
def test_no_restart_is_too_late_for_a_delay(backoff, restart, chance):
    """By logarithms, which do not overflow either."""
    delay = backoff.delay(restart, chance)
    assert 0 <= delay <= backoff.maximum
    share = 1 - backoff.jitter * (1 - chance)
    if not backoff.initial or not share:
        assert delay == 0
        return
    grown = math.log(backoff.initial) + (restart - 1) * math.log(backoff.factor) + math.log(share)
    if grown > math.log(backoff.maximum) + 1e-6:
        event("at the maximum")
        assert delay == backoff.maximum
    else:
        assert math.log(delay) == pytest.approx(min(grown, math.log(backoff.maximum)), abs=1e-5)


@given(backoff=any_backoffs(), restart=st.integers(1, 10**6), chance=CHANCES)
def test_delays_never_shrink(backoff, restart, chance):
    assert backoff.delay(restart, chance) <= backoff.delay(restart + 1, chance)


@given(backoff=any_backoffs(), restart=st.integers(1, 100), chance=CHANCES, least=st.floats(0, 1e10))
def test_a_stage_that_asks_for_time_gets_it_but_for_the_maximum(backoff, restart, chance, least):
    delay = backoff.delay(restart, chance, at_least=least)
    assert delay == sorted([backoff.delay(restart, chance), least, backoff.maximum])[1]


# Windows


def make_restart(max_restarts, within):
    """Make a policy whose delays refuse no window."""
    return Restart(max_restarts=max_restarts, within=within, backoff=Backoff(initial=0))


def count_naively(moments, within):
    """Return how many of all failures so far count at the last."""
    now = Fraction(moments[-1])
    return len([moment for moment in moments if within is None or now - Fraction(moment) <= Fraction(within)])


@st.composite
def histories(draw):
    """Draw when failures are: on a clock that stands anywhere, with pauses that meet the window's edge."""
    within = draw(WITHIN)
    edges = [0.0] if within is None else [0.0, within, within / 2, within + 1 / GRID, within / 4]
    gaps = draw(st.lists(st.sampled_from(edges) | times(6), max_size=30))
    moments = [float(draw(st.sampled_from([0, 1000, 2**31])))]
    for gap in gaps:
        moments.append(moments[-1] + gap)
    return within, moments


@given(history=histories(), max_restarts=st.integers(0, 6))
@example((3.0, [0.0, 1.0, 3.0, 6.0]), 2)
def test_it_gives_up_exactly_where_the_model_does(history, max_restarts):
    within, moments = history
    restart = make_restart(max_restarts, within)
    window = Window()
    for number, now in enumerate(moments, 1):
        counted = count_naively(moments[:number], within)
        before, (window, delay) = window, plan_restart(restart, window, now, 0.5)
        assert plan_restart(restart, before, now, 0.5) == (window, delay)
        assert window.count == counted
        assert len(window.times) <= max_restarts + 1
        assert (delay is None) is (counted > max_restarts)
        if delay is None:
            event("gave up")
            return


@given(history=histories(), max_restarts=st.integers(0, 6))
def test_no_window_holds_a_restart_too_many(history, max_restarts):
    within, moments = history
    restart = make_restart(max_restarts, within)
    window, restarted = Window(), []
    for now in moments:
        window, delay = plan_restart(restart, window, now, 0.5)
        if delay is None:
            break
        restarted.append(Fraction(now))
    if within is None:
        assert len(restarted) == min(max_restarts, len(moments))
    for begins in restarted:
        assert sum(within is None or 0 <= moment - begins <= Fraction(within) for moment in restarted) <= max_restarts


@given(history=histories(), max_restarts=st.integers(0, 6))
def test_the_failures_of_a_run_count_alike(history, max_restarts):
    """A run goes on failing after its intensity is spent; what counts then is still what the model says."""
    within, moments = history
    intensity = Intensity(max_restarts, within)
    window = Window()
    for number, now in enumerate(moments, 1):
        window = count_failure(window, intensity.within, now)
        assert window.count == count_naively(moments[:number], within)


@given(backoff=backoffs(), history=histories(), chances=st.lists(CHANCES, min_size=31, max_size=31))
def test_restarts_are_counted_anew_when_failures_have_left(backoff, history, chances):
    within, moments = history
    assume(within is None or count_shortest(backoff, 5) <= Fraction(within))
    restart = Restart(max_restarts=5, within=within, backoff=backoff)
    window = Window()
    for number, (now, chance) in enumerate(zip(moments, chances, strict=False), 1):
        window, delay = plan_restart(restart, window, now, chance)
        if delay is None:
            return
        assert delay == backoff.delay(count_naively(moments[:number], within), chance)


# Windows that are too short


def count_shortest(backoff, restarts):
    """Return how long the shortest delays before so many restarts take."""
    return sum((shorten(backoff, restart) for restart in range(1, restarts + 1)), Fraction(0))


def gives_up(backoff, max_restarts, within, timeout):
    """Let a stage fail as fast as it can; return whether it gives up ever.

    The ages of the failures in the window are all that matters, and there are only so many of them: where
    they come again, it goes round for ever.
    """
    now, moments, seen = Fraction(0), [], set()
    while True:
        moments.append(now)
        ages = tuple(now - moment for moment in moments if now - moment <= Fraction(within))
        if len(ages) > max_restarts:
            return True
        if ages in seen:
            return False
        seen.add(ages)
        now += shorten(backoff, len(ages)) + Fraction(timeout)


@st.composite
def windows(draw):
    """Draw a policy's options, with a window that is often just long enough, or just too short."""
    backoff, max_restarts = draw(backoffs()), draw(st.integers(0, 8))
    timeout = draw(st.just(0.0) | times(4))
    just = float(count_shortest(backoff, max_restarts) + max_restarts * Fraction(timeout))
    off = st.sampled_from([0.0, 1 / GRID, -1 / GRID, 0.125, -0.125])
    within = draw(off.map(lambda off: just + off) | times(60))
    assume(within > 0)
    return {"max_restarts": max_restarts, "within": within, "backoff": backoff}, timeout


@given(window=windows())
@example(({"max_restarts": 3, "within": 7.0, "backoff": Backoff(initial=1, jitter=0)}, 0.0))
@example(({"max_restarts": 3, "within": 7 - 1 / GRID, "backoff": Backoff(initial=1, jitter=0)}, 0.0))
def test_a_window_is_refused_exactly_where_it_is_never_exceeded(window):
    options, timeout = window
    for more in (0.0, timeout):  # the delays alone are checked when it is made
        can_give_up = gives_up(options["backoff"], options["max_restarts"], options["within"], more)
        event(f"can give up: {can_give_up}")
        try:
            restart = Restart(**options)
            if more:
                check_window(restart, more)
        except PipelineValidationError:
            assert not can_give_up
        else:
            assert can_give_up


@given(window=windows())
def test_an_accepted_policy_gives_up_in_the_end_and_a_refused_one_does_not(window):
    """The policy itself, of a stage whose every attempt times out, and whose delays are the shortest."""
    options, timeout = window
    try:
        restart = Restart(**options)
    except PipelineValidationError:
        return
    accepted = True
    try:
        check_window(restart, timeout)
    except PipelineValidationError:
        accepted = False
    now, failures, state = 0.0, 0, Window()
    while failures < 100:
        failures += 1
        state, delay = plan_restart(restart, state, now, 0.0)
        if delay is None:
            break
        now += delay + timeout
    event(f"accepted: {accepted}")
    assert failures == (restart.max_restarts + 1 if accepted else 100)


SHOWN = re.compile(
    r"max_restarts=(\d+) within (\S+) s can never be exceeded(?: by attempts that time out)?: "
    r"the shortest delays between (\d+) failures, (.+) s(?:, and (\d+) \* (\S+) s until they time out,)? take (\S+) s; "
    r"give within more than (\S+) s, or leave it out to count over the stage's life"
)


def read_number(text):
    return pytest.approx(float(text), rel=1e-5)


def read_terms(text):
    """Return the delays that a message shows, one by one, None for those left out."""
    terms = []
    for term in text.split(" + "):
        times, _, delay = term.rpartition(" * ")
        terms += [None if term == "..." else float(delay)] * int(times or 1)
    return terms


@given(
    backoff=backoffs(), max_restarts=st.integers(1, 12), timeout=st.just(0.0) | times(4), share=st.floats(0.01, 0.99)
)
@example(Backoff(initial=1, maximum=4096, jitter=0), 12, 0.5, 0.5)
@example(Backoff(initial=1, maximum=32, jitter=0), 12, 0.0, 0.5)
def test_the_arithmetic_shown_is_right(backoff, max_restarts, timeout, share):
    delays, attempts = float(count_shortest(backoff, max_restarts)), max_restarts * timeout
    took = delays + attempts
    within = delays + attempts * share if timeout else delays * share
    assume(within > 0)
    with pytest.raises(PipelineValidationError) as caught:
        check_window(Restart(max_restarts=max_restarts, within=within, backoff=backoff), timeout)
    found = SHOWN.fullmatch(str(caught.value))
    assert found
    assert [int(found[1]), int(found[3])] == [max_restarts, max_restarts + 1]
    assert within == read_number(found[2])
    assert took == read_number(found[7])
    assert found[7] == found[8]
    assert (found[5] is None) is (timeout == 0)
    if timeout:
        assert int(found[5]) == max_restarts
        assert timeout == read_number(found[6])
    shortest = [float(shorten(backoff, number)) for number in range(1, max_restarts + 1)]
    terms = read_terms(found[4])
    if None in terms:
        event("some delays are left out")
        left_out = terms.index(None)
        assert left_out == 3
        terms[left_out : left_out + 1] = shortest[left_out : max_restarts - (len(terms) - left_out - 1)]
    assert terms == [read_number(delay) for delay in shortest]
    assert sum(terms) + max_restarts * timeout == pytest.approx(took, rel=1e-4)


@given(window=windows())
def test_what_a_refusal_proposes_is_taken(window):
    options, timeout = window
    for _ in range(2):  # once for the delays alone, once with the attempts
        try:
            check_window(Restart(**options), timeout)
        except PipelineValidationError as error:
            proposed = float(re.search(r"give within more than (\S+) s", str(error))[1])
            options["within"] = proposed * 1.00001
    check_window(Restart(**options), timeout)
