"""The checks of arguments, and their one wording each."""

from __future__ import annotations

import math
import sys
from decimal import Decimal
from fractions import Fraction

import pytest

from stageflow_actors import PipelineValidationError, Supervisor
from stageflow_actors._validation import (
    count,
    list_names,
    nearest,
    refuse,
    require_count,
    require_name,
    require_seconds,
    suggest,
)


def test_refuse_places_the_problem():
    with pytest.raises(PipelineValidationError) as caught:
        refuse("it is odd", pipeline="p", stage="s", hint="make it even")
    assert str(caught.value) == "pipeline 'p', stage 's': it is odd; make it even"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["a", " ", "with space", "naïve", "a/b", "0"])
def test_a_name_is_any_string_that_is_not_empty(name):
    assert require_name("stage name", name) is name


@pytest.mark.parametrize("bad", ["", None, 5, b"x", ["a"], object])
def test_what_is_no_name(bad):
    with pytest.raises(PipelineValidationError) as caught:
        require_name("stage name", bad, pipeline="p")
    assert str(caught.value) == f"pipeline 'p': stage name must be a non-empty string, not {bad!r}"
    assert caught.value.pipeline == "p"


@pytest.mark.parametrize("seconds", [1, 0.001, 1e9, math.ulp(0.0), 10**14])
def test_seconds(seconds):
    assert require_seconds("timeout", seconds) is seconds


@pytest.mark.parametrize(
    "bad", [0, -1, -0.0, math.nan, -math.inf, True, False, "3", None, Decimal(3), Fraction(1, 2), 1j, [1]]
)
def test_what_is_no_number_of_seconds(bad):
    with pytest.raises(PipelineValidationError) as caught:
        require_seconds("timeout", bad, pipeline="p", stage="s")
    assert str(caught.value) == f"pipeline 'p', stage 's': timeout must be a positive number of seconds, not {bad!r}"


@pytest.mark.parametrize("bad", [1e15, 10**400, sys.maxsize, math.inf])
def test_no_limit_is_said_by_leaving_it_out(bad):
    with pytest.raises(PipelineValidationError) as caught:
        require_seconds("timeout", bad)
    assert str(caught.value) == f"timeout must be a positive number of seconds, not {bad!r}; leave it out for no limit"


@pytest.mark.parametrize("number", [1, 2, 10**30])
def test_counts(number):
    assert require_count("max_threads", number) is number


@pytest.mark.parametrize("bad", [0, -1, 1.0, True, "1", None, math.inf])
def test_what_is_no_count(bad):
    with pytest.raises(PipelineValidationError) as caught:
        require_count("max_threads", bad)
    assert str(caught.value) == f"max_threads must be a whole number of at least 1, not {bad!r}"


def test_the_supervisors_options_use_the_same_words():
    with pytest.raises(PipelineValidationError, match=r"^max_threads must be a whole number of at least 1, not 0$"):
        Supervisor(max_threads=0)
    with pytest.raises(PipelineValidationError, match=r"^shutdown must be a positive number of seconds, not -1$"):
        Supervisor(shutdown=-1)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("wroker-7", ["worker-1", "worker-7", "join"], "did you mean 'worker-7'?"),
        ("fetch", ["fetch_all", "Fetch"], "did you mean 'Fetch'?"),
        ("zzz", ["worker"], None),
        ("", ["worker"], None),
        ("a", [], None),
        (7, ["7a", "b"], "did you mean '7a'?"),
        ("1", [1, None, ("x",)], "did you mean '1'?"),
        (None, ["Nona"], "did you mean 'Nona'?"),
    ],
)
def test_nearest(name, known, hint):
    assert nearest(name, known) == hint
    assert nearest(name, iter(known)) == hint


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "'a'"),
        (range(10), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (range(3000), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2,990 more"),
    ],
)
def test_lists_of_names_are_cut(names, text):
    assert list_names(names) == text


def test_suggest_gives_the_nearest_or_what_there_is():
    assert suggest("wroker", ["worker", "join"], "its stages are") == "did you mean 'worker'?"
    assert suggest("zzz", ["worker", "join"], "its stages are") == "its stages are 'worker', 'join'"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 stages"), (1, "1 stage"), (2, "2 stages"), (12345, "12,345 stages")]
)
def test_count(number, text):
    assert count(number, "stage") == text
