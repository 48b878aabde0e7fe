"""Freezing: equal to what was frozen, immutable to the last leaf, without a way back in, and frozen once."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import timedelta, timezone
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import ContextSnapshot, RunIdentity, StageOutput
from stageflow_actors._freeze import FrozenDict, freeze
from stageflow_actors.errors import NotFreezableError, NotJSONError

from .values import Pair, is_frozen, mappings, picture, refuse_all_changes, spoil, values


@given(value=values())
def test_frozen_is_immutable_all_the_way_down(value):
    frozen = freeze(value)
    assert is_frozen(frozen)
    before = picture(frozen)
    refuse_all_changes(frozen)
    assert picture(frozen) == before


@given(value=values())
def test_frozen_is_what_it_was(value):
    before = picture(value)
    assert picture(freeze(value)) == before
    assert picture(value) == before


@given(value=values())
def test_nobody_keeps_a_way_in(value):
    frozen = freeze(value)
    before = picture(frozen)
    spoil(value)
    assert picture(frozen) == before


@given(value=values())
def test_freezing_again_changes_nothing(value):
    frozen = freeze(value)
    again = freeze(frozen)
    assert picture(again) == picture(frozen)
    if isinstance(frozen, FrozenDict):
        assert again is frozen
    assert is_frozen(again)


@given(value=values(arrays=False))
def test_frozen_pickles_and_copies(value):
    frozen = freeze(value)
    for other in (pickle.loads(pickle.dumps(frozen)), copy.copy(frozen), copy.deepcopy(frozen)):
        assert other == frozen
        assert type(other) is type(frozen)
        assert is_frozen(other)


@given(value=values())
def test_frozen_with_arrays_pickles(value):
    """Numpy forgets that an array was read-only; within a frozen dict it is frozen anew."""
    frozen = FrozenDict(value=value)
    other = pickle.loads(pickle.dumps(frozen))
    assert picture(other) == picture(frozen)
    assert is_frozen(other)


@given(mapping=mappings(arrays=False))
def test_a_frozen_dict_is_a_dict_to_its_readers(mapping):
    frozen = freeze(mapping)
    plain = {key: freeze(item) for key, item in mapping.items()}
    assert frozen == plain
    assert plain == frozen
    assert list(frozen) == list(mapping)
    assert repr(frozen) == repr(plain)
    for thaw in (dict(frozen), frozen.copy(), {**frozen}, frozen | {}):
        assert type(thaw) is dict
        thaw["new"] = 1
        assert "new" not in frozen
    assert freeze(MappingProxyType(mapping)) == frozen
    assert FrozenDict(mapping) == frozen == FrozenDict(**mapping) == FrozenDict(list(mapping.items()))


@given(mapping=mappings(arrays=False))
def test_equal_frozen_dicts_have_equal_hashes(mapping):
    assert hash(freeze(mapping)) == hash(freeze(dict(reversed(mapping.items()))))


@given(mapping=mappings())
def test_a_frozen_dict_cannot_be_filled_by_its_constructor(mapping):
    frozen = freeze(mapping)
    before = picture(frozen)
    frozen.__init__({"new": 1})
    frozen.__init__(new=1)
    assert picture(frozen) == before


@given(value=values(), path=st.lists(st.sampled_from(["dict", "list", "tuple", "pair"]), max_size=4))
def test_what_cannot_be_frozen_is_named_by_its_path(value, path):
    class Odd(tuple):
        __slots__ = ()

    culprit = Odd(([],))
    where = "value"
    for step in path:
        where = {"dict": f"['k']{where[5:]}", "list": f"[1]{where[5:]}"}.get(step, f"[0]{where[5:]}")
        where = f"value{where}"
        culprit = {
            "dict": lambda inner: {"j": value, "k": inner},
            "list": lambda inner: [value, inner],
            "tuple": lambda inner: (inner, value),
            "pair": lambda inner: Pair(inner, value),
        }[step](culprit)
    with pytest.raises(NotFreezableError) as caught:
        freeze(culprit)
    assert caught.value.path == where
    assert where in str(caught.value)


@given(depth=st.integers(1, 3), mapping=mappings())
def test_what_refers_to_itself_is_refused(depth, mapping):
    circle = dict(mapping)
    inner = circle
    for _ in range(depth):
        inner["deeper"] = [{}]
        inner = inner["deeper"][0]
    inner["back"] = circle
    with pytest.raises(NotFreezableError, match="refers to itself"):
        StageOutput.ok(circle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=3)
TEXTS = st.none() | st.text(max_size=5)
# Fixed offsets: Python says of two equal moments in zones with clock changes that they differ.
ZONES = st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
IDENTITIES = st.none() | st.builds(RunIdentity, st.text(min_size=1, max_size=5), st.datetimes(timezones=ZONES))
SNAPSHOTS = st.builds(
    ContextSnapshot,
    input_text=TEXTS,
    data=OBJECTS,
    metadata=OBJECTS,
    extensions=JSON,
    topology=TEXTS,
    execution_mode=TEXTS,
    identity=IDENTITIES,
)


@given(snapshot=SNAPSHOTS)
def test_a_snapshot_comes_back_from_json(snapshot):
    text = json.dumps(snapshot.to_dict(), allow_nan=False)
    other = ContextSnapshot.from_dict(json.loads(text))
    assert other == snapshot
    assert other.run_id == snapshot.run_id
    assert other.created_at == snapshot.created_at
    assert json.dumps(other.to_dict()) == text


@given(snapshot=SNAPSHOTS)
def test_a_snapshot_pickles(snapshot):
    other = pickle.loads(pickle.dumps(snapshot))
    assert other == snapshot
    assert other.to_dict() == snapshot.to_dict()


@given(
    path=st.lists(st.sampled_from(["dict", "list"]), max_size=4),
    culprit=st.sampled_from([b"bytes", {1, 2}, float("inf"), {1: "key"}, object(), 1j, Pair(1, 2)]),
)
def test_what_json_cannot_carry_is_named_by_its_path(path, culprit):
    where = ""
    for step in path:
        where = f"['k']{where}" if step == "dict" else f"[1]{where}"
        culprit = {"j": 1, "k": culprit} if step == "dict" else [1, culprit]
    with pytest.raises(NotJSONError) as caught:
        ContextSnapshot(data={"top": culprit}).to_dict()
    assert caught.value.path == f"data['top']{where}"


@given(data=mappings(), fields=mappings())
def test_an_output_is_frozen_when_it_is_made(data, fields):
    output = StageOutput.ok(data, **fields)
    made = (
        output,
        StageOutput.skip("why", data),
        StageOutput.route("label", data),
        StageOutput.fail("why", data),
        StageOutput.retry("why", data),
        StageOutput.cancel("why", data),
    )
    before = [picture(one.data) for one in made]
    assert before[0] == picture({**data, **fields})
    assert before[1:] == [picture(data)] * 5
    for one in made:
        assert is_frozen(one.data)
        refuse_all_changes(one.data)
    spoil(data)
    spoil(fields)
    assert [picture(one.data) for one in made] == before
