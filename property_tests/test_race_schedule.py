"""The text of a schedule is its choices, and short; choosers choose what there is, and as their seed says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stageflow_actors.errors import ReplayError
from stageflow_actors.testing._choosers import Given, Priorities, Resampled, Uniform
from stageflow_actors.testing._schedule import decode, encode

from .race_driving import run_schedules
from .race_models import Numbered
from .race_programs import programs, schedules

LINE = 40
"""Characters that a replay string may have."""

choices = st.lists(st.one_of(st.integers(0, 1), st.integers(0, 40), st.just(0)), max_size=60)
sizes = st.lists(st.integers(1, 6), min_size=1, max_size=40)
SAMPLERS = {
    "pct": lambda seed: Priorities(seed, depth=3, steps=20),
    "pos": Resampled,
    "random": Uniform,
}


def strip(listed):
    """Return choices without the defaults at their end."""
    kept = list(listed)
    while kept and kept[-1] == 0:
        kept.pop()
    return kept


@given(choices)
def test_what_is_encoded_is_decoded(listed):
    assert strip(decode(encode(listed))) == strip(listed)
    assert encode(decode(encode(listed))) == encode(listed)
    assert decode("v1:" + encode(listed)) == decode(encode(listed))


@given(choices, choices)
def test_different_schedules_have_different_texts(one, other):
    assert (encode(one) == encode(other)) == (strip(one) == strip(other))


@given(st.lists(st.tuples(st.integers(0, 9_999), st.integers(1, 35)), max_size=5))
def test_five_choices_in_fifty_thousand_fit_into_a_line(marked):
    listed = [choice for defaults, other in marked for choice in (*[0] * defaults, other)]
    assert len(encode(listed)) <= LINE


@given(st.text(alphabet="0123abz()[]v:-_ A", max_size=12))
def test_any_text_is_a_schedule_or_refused(text):
    """Whatever is typed, there are choices or there is an error that quotes it; never anything else."""
    listed, told = [], None
    try:
        listed = decode(text)
    except ReplayError as error:
        told = str(error)
    assert told is None or repr(text) in told
    assert all(choice >= 0 for choice in listed)
    assert strip(decode(encode(listed))) == strip(listed)


@given(sizes, st.text(max_size=5), st.sampled_from(sorted(SAMPLERS)))
def test_samplers_choose_what_there_is_and_repeat_it(widths, seed, name):
    def run(seed):
        chooser = SAMPLERS[name](seed)
        return [chooser.choose([Numbered(number) for number in range(width)]) for width in widths]

    first = run(seed)
    assert all(0 <= choice < width for choice, width in zip(first, widths, strict=True))
    assert run(seed) == first


@given(sizes, schedules)
def test_given_choices_are_followed_then_defaults(widths, listed):
    chooser = Given(listed)
    made = [chooser.choose([Numbered(number) for number in range(width)]) for width in widths]
    wanted = [*listed, *[0] * len(widths)][: len(widths)]
    assert made == [choice if choice < width else 0 for choice, width in zip(wanted, widths, strict=True)]
    assert (chooser.impossible is None) == (made == wanted)
    assert chooser.unused == max(0, len(listed) - len(widths))


@settings(max_examples=40)
@given(programs, schedules)
def test_a_schedule_leads_to_where_its_text_leads(drawn, listed):
    """To follow what an execution chose leads to the same execution, also when it has been text in between."""
    first, second, third = run_schedules(drawn.program, [listed] * 3)
    assert first.value == second.value == third.value
    assert first.choices == second.choices == third.choices
    again, cut = run_schedules(drawn.program, [decode(encode(first.choices)), first.choices[: len(listed)]])
    assert again.choices == cut.choices == first.choices
    assert again.value == cut.value == first.value
    assert again.impossible is None


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@given(st.integers(2, 4), st.integers(0, 10))
@settings(max_examples=10)
def test_samplers_come_to_everything(name, width, seed):
    """In a hundred draws each option is chosen first at least once: there are four at most."""
    firsts = {
        SAMPLERS[name](f"{seed}/{run}").choose([Numbered(number) for number in range(width)]) for run in range(100)
    }
    assert firsts == set(range(width))
