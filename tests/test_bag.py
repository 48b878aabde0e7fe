"""What a run gathers: one slot a stage, and errors in one line."""

from __future__ import annotations

import math

import pytest

from stageflow_actors import StageOutput, StageState
from stageflow_actors._bag import OutputBag, StageFailure, describe_error, safe_str
from stageflow_actors._policy import CANCELLED, FAILED, ISOLATED, OK, SKIPPED, TOLD
from stageflow_actors.errors import StageTimeoutError


@pytest.fixture
def bag():
    made = OutputBag(["a", "b", "c", "d", "e", "f"], 10.0)
    made.states[:] = bytes([OK, FAILED, ISOLATED, SKIPPED, CANCELLED, TOLD])
    made.outputs[0] = StageOutput.ok(n=1)
    made.failures[1] = StageFailure("b", ValueError("boom"), ())
    made.parents[2] = 1
    made.reasons[3] = "none today"
    return made


def test_a_new_bag_is_all_pending():
    bag = OutputBag(["a", "b"], 0.0)
    assert [bag.state(stage) for stage in range(2)] == [StageState.PENDING] * 2
    assert bag.outputs == [None, None]
    assert all(map(math.isnan, (*bag.started, *bag.ended)))


def test_states_by_position(bag):
    assert [bag.state(stage).value for stage in range(6)] == [
        "ok",
        "failed",
        "isolated",
        "skipped",
        "cancelled",
        "pending",
    ]


def test_it_explains_why_a_stage_has_no_output(bag):
    assert [bag.explain(stage) for stage in range(1, 6)] == [
        "failed (ValueError: boom)",
        "isolated (below 'b')",
        "skipped (none today)",
        "cancelled",
        "pending",
    ]


@pytest.mark.parametrize(
    ("dependencies", "parent"), [([0, 1], 1), ([1, 2], 1), ([2, 1], 2), ([3, 4, 1], 4), ([5, 0, 2], 2)]
)
def test_the_parent_is_the_first_that_ended_badly(bag, dependencies, parent):
    assert bag.find_parent(dependencies) == parent


def test_a_copy_is_of_that_moment(bag):
    twin = bag.copy()
    bag.states[5] = OK
    bag.outputs[5] = StageOutput.ok()
    bag.failures.clear()
    bag.parents.clear()
    bag.reasons.clear()
    bag.started[0] = bag.ended[0] = 11.0
    assert twin.state(5) is StageState.PENDING
    assert twin.outputs == [StageOutput.ok(n=1), None, None, None, None, None]
    assert [twin.explain(stage) for stage in (1, 2, 3)] == [
        "failed (ValueError: boom)",
        "isolated (below 'b')",
        "skipped (none today)",
    ]
    assert twin.began == 10.0
    assert twin.started[0] != 11.0
    assert twin.ended[0] != 11.0


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError("two\n\tlines "), "ValueError: two lines"),
        (StageTimeoutError("late", pipeline="p", stage="s", hint="hurry"), "StageTimeoutError: late; hurry"),
        (ExceptionGroup("g", [ValueError("x")]), "ExceptionGroup: g (1 sub-exception)"),
        (MuteError(), "MuteError: <MuteError whose __str__ raised RuntimeError>"),
    ],
)
def test_errors_as_one_line(error, text):
    assert describe_error(error) == text
    assert str(StageFailure("s", error, ())) == text


def test_objects_as_text_whatever_they_do():
    assert safe_str("text") == "text"
    assert safe_str(5) == "5"
    assert safe_str(MuteError()) == "<MuteError whose __str__ raised RuntimeError>"
