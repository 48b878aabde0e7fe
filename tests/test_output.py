"""What a stage replies: one class method a status, frozen data."""

from __future__ import annotations

import pickle

import pytest

from stageflow_actors import StageOutput, StageStatus
from stageflow_actors._freeze import FrozenDict
from stageflow_actors.errors import NotFreezableError

ERROR = ValueError("boom")


@pytest.mark.parametrize(
    ("output", "status", "data", "error", "reason", "label"),
    [
        (StageOutput.ok(), StageStatus.OK, {}, None, "", None),
        (StageOutput.ok({"a": [1]}), StageStatus.OK, {"a": (1,)}, None, "", None),
        (StageOutput.ok(a=[1]), StageStatus.OK, {"a": (1,)}, None, "", None),
        (StageOutput.ok({"a": 1, "b": 1}, b=2, c=3), StageStatus.OK, {"a": 1, "b": 2, "c": 3}, None, "", None),
        (StageOutput.ok(None, b=2), StageStatus.OK, {"b": 2}, None, "", None),
        (StageOutput.ok({}, b=2), StageStatus.OK, {"b": 2}, None, "", None),
        (StageOutput.ok(data=1, status=2, cls=3), StageStatus.OK, {"data": 1, "status": 2, "cls": 3}, None, "", None),
        (StageOutput.skip(), StageStatus.SKIP, {}, None, "", None),
        (StageOutput.skip("none today", {"n": 0}), StageStatus.SKIP, {"n": 0}, None, "none today", None),
        (StageOutput.cancel("found it", {"n": 1}), StageStatus.CANCEL, {"n": 1}, None, "found it", None),
        (StageOutput.fail("no luck", {"n": 2}), StageStatus.FAIL, {"n": 2}, "no luck", "", None),
        (StageOutput.fail(ERROR), StageStatus.FAIL, {}, ERROR, "", None),
        (StageOutput.retry("later"), StageStatus.RETRY, {}, "later", "", None),
        (StageOutput.route("left"), StageStatus.OK, {}, None, "", "left"),
        (StageOutput.route("left", {"a": 1}, b=[2]), StageStatus.OK, {"a": 1, "b": (2,)}, None, "", "left"),
        (StageOutput("skip", reason="by name"), StageStatus.SKIP, {}, None, "by name", None),
    ],
)
def test_the_class_methods(output, status, data, error, reason, label):
    assert output.status is status
    assert output.data == data
    assert type(output.data) is FrozenDict
    assert output.error is error
    assert output.reason == reason
    assert output.label == label


def test_merging_leaves_what_was_given_alone():
    mine = {"a": 1}
    StageOutput.ok(mine, b=2)
    assert mine == {"a": 1}


@pytest.mark.parametrize("bad", ["done", None, 1, "OK"])
def test_a_status_is_one_of_five(bad):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole message follows)
        StageOutput(bad)
    assert str(caught.value) == (
        f"status must be one of ok, skip, cancel, fail, retry, not {bad!r}; use StageOutput.ok(...) and its kin"
    )


@pytest.mark.parametrize("make", [StageOutput.ok, lambda data: StageOutput.skip("", data)])
@pytest.mark.parametrize("bad", [[("a", 1)], "text", 5])
def test_data_must_be_a_mapping(make, bad):
    with pytest.raises(TypeError) as caught:
        make(bad)
    assert str(caught.value) == f"data must be a mapping, not {bad!r}"


@pytest.mark.parametrize("bad", [[("a", 1)], [], 0])
def test_data_must_be_a_mapping_beside_fields_too(bad):
    with pytest.raises(TypeError) as caught:
        StageOutput.ok(bad, b=2)
    assert str(caught.value) == f"data must be a mapping, not {bad!r}"


@pytest.mark.parametrize("bad", ["", None, 5, ["left"]])
def test_a_label_is_a_name(bad):
    with pytest.raises(TypeError) as caught:
        StageOutput.route(bad)
    assert str(caught.value) == f"label must be a non-empty string, not {bad!r}"


def test_reasons_are_text_whatever_was_given():
    assert StageOutput.skip(404).reason == "404"
    assert StageOutput.cancel(None).reason == "None"


@pytest.mark.parametrize("name", ["status", "data", "error", "reason", "label", "new"])
def test_attributes_cannot_be_set(name):
    output = StageOutput.ok(a=1)
    with pytest.raises(AttributeError):
        setattr(output, name, "evil")
    with pytest.raises(AttributeError):
        delattr(output, name)
    assert output == StageOutput.ok(a=1)


def test_outputs_are_equal_by_value_hash_and_pickle():
    one, two = StageOutput.route("left", {"a": [1]}), StageOutput.route("left", {"a": [1]})
    assert one == two
    assert hash(one) == hash(two)
    assert one != StageOutput.route("right", {"a": [1]})
    back = pickle.loads(pickle.dumps(one))
    assert back == one
    assert type(back.data) is FrozenDict


def test_what_cannot_be_frozen_is_refused_when_the_output_is_made():
    ring = {}
    ring["ring"] = ring
    for make in (StageOutput.ok, StageOutput.skip, StageOutput.fail, StageOutput.cancel, StageOutput.retry):
        args = (ring,) if make == StageOutput.ok else ("", ring)
        with pytest.raises(NotFreezableError, match="data refers to itself"):
            make(*args)
    with pytest.raises(NotFreezableError, match="data refers to itself"):
        StageOutput.route("left", ring)


def test_the_statuses():
    assert [status.value for status in StageStatus] == ["ok", "skip", "cancel", "fail", "retry"]
