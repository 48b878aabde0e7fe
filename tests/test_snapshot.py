"""The snapshot: frozen, stamped by runs, and through JSON and back."""

from __future__ import annotations

import enum
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import NamedTuple

import attrs
import pytest

from stageflow_actors import ContextSnapshot, RunIdentity
from stageflow_actors._freeze import FrozenDict
from stageflow_actors.errors import NotFreezableError, NotJSONError, StageflowError

IDENTITY = RunIdentity("run-1", datetime(2026, 3, 4, 5, 6, 7, 89, UTC))


class Level(enum.StrEnum):
    HIGH = "high"


class Pair(NamedTuple):
    one: int
    two: int


def test_an_empty_snapshot():
    snapshot = ContextSnapshot()
    assert snapshot.input_text is None
    assert snapshot.data == {}
    assert snapshot.metadata == {}
    assert snapshot.extensions is None
    assert snapshot.topology is None
    assert snapshot.execution_mode is None
    assert snapshot.identity is None
    assert snapshot.run_id is None
    assert snapshot.created_at is None


def test_everything_mapped_is_frozen():
    rows, tags, mine = [1, [2]], {"a"}, {"x": [1]}
    snapshot = ContextSnapshot(data={"rows": rows}, metadata={"tags": tags}, extensions=mine)
    rows[1].append(3)
    tags.add("b")
    mine["x"].append(2)
    assert snapshot.data == {"rows": (1, (2,))}
    assert snapshot.metadata == {"tags": frozenset({"a"})}
    assert snapshot.extensions == {"x": (1,)}
    for mapping in (snapshot.data, snapshot.metadata, snapshot.extensions):
        assert type(mapping) is FrozenDict
        with pytest.raises(TypeError, match="this mapping is frozen"):
            mapping["new"] = 1


def test_an_extension_of_an_unknown_type_passes_by_reference():
    class Tenant:
        pass

    tenant = Tenant()
    assert ContextSnapshot(extensions=tenant).extensions is tenant


@pytest.mark.parametrize("name", ["data", "metadata", "input_text", "identity", "run_id", "new"])
def test_attributes_cannot_be_set(name):
    snapshot = ContextSnapshot()
    with pytest.raises(AttributeError):
        setattr(snapshot, name, {})


@pytest.mark.parametrize("field", ["data", "metadata"])
@pytest.mark.parametrize("value", [[("a", 1)], "text", 5, None])
def test_what_is_no_mapping_is_refused(field, value):
    with pytest.raises(TypeError) as caught:
        ContextSnapshot(**{field: value})
    assert str(caught.value) == f"{field} must be a mapping, not {value!r}"


def test_fields_are_keyword_only_and_known():
    with pytest.raises(TypeError, match="positional argument"):
        ContextSnapshot("text")
    with pytest.raises(TypeError, match="unexpected keyword argument 'inptu_text'"):
        ContextSnapshot(inptu_text="x")
    with pytest.raises(NotFreezableError, match="extensions refers to itself"):
        ring = []
        ring.append(ring)
        ContextSnapshot(extensions=ring)


def test_stamping_gives_a_copy_with_the_run_on_it():
    snapshot = ContextSnapshot(input_text="hello", data={"a": [1]})
    stamped = snapshot.stamped(IDENTITY)
    assert (stamped.run_id, stamped.created_at) == ("run-1", IDENTITY.created_at)
    assert stamped.data is snapshot.data
    assert snapshot.run_id is None
    assert attrs.evolve(stamped, identity=None) == snapshot


def test_a_fresh_identity_is_unique_and_has_a_time_zone():
    one, two = RunIdentity.new(), RunIdentity.new()
    assert one.run_id != two.run_id
    assert one.created_at.tzinfo is UTC


def test_snapshots_are_equal_by_value_hash_and_pickle():
    one = ContextSnapshot(input_text="x", data={"a": [1]}, extensions=("e",))
    two = ContextSnapshot(input_text="x", data={"a": [1]}, extensions=("e",))
    assert one == two
    assert hash(one) == hash(two)
    assert one != one.stamped(IDENTITY)
    assert pickle.loads(pickle.dumps(one.stamped(IDENTITY))) == one.stamped(IDENTITY)


# JSON


@pytest.mark.parametrize(
    "snapshot",
    [
        ContextSnapshot(),
        ContextSnapshot(input_text="é ☃ \ud800 \x00", topology="t", execution_mode="m"),
        ContextSnapshot(data={"a": [1, 2.5, None, True, "x", {"b": [[], {}]}], "": 10**30}, metadata={"m": -0.0}),
        ContextSnapshot(extensions={"tenant": ["a", {"b": 1}]}),
        ContextSnapshot(data={"level": Level.HIGH, "proxy": MappingProxyType({"a": 1})}),
        ContextSnapshot(data={"a": 1}).stamped(IDENTITY),
        ContextSnapshot().stamped(RunIdentity("r", datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3))))),
    ],
)
def test_a_snapshot_comes_back_from_json(snapshot):
    text = json.dumps(snapshot.to_dict(), allow_nan=False)
    assert ContextSnapshot.from_dict(json.loads(text)) == snapshot


def test_the_dict_form_is_plain():
    snapshot = ContextSnapshot(input_text="x", data={"a": [1, {"b": 2}]}).stamped(IDENTITY)
    plain = snapshot.to_dict()
    assert plain == {
        "input_text": "x",
        "data": {"a": [1, {"b": 2}]},
        "metadata": {},
        "extensions": None,
        "topology": None,
        "execution_mode": None,
        "run_id": "run-1",
        "created_at": "2026-03-04T05:06:07.000089+00:00",
    }
    assert type(plain["data"]) is dict
    assert type(plain["data"]["a"]) is list
    plain["data"]["a"].append("mine")
    assert snapshot.data == {"a": (1, {"b": 2})}


@pytest.mark.parametrize(
    ("snapshot", "path", "message"),
    [
        (
            ContextSnapshot(data={"a": [0, {"took": timedelta(1)}]}),
            "data['a'][1]['took']",
            "data['a'][1]['took'] is datetime.timedelta(days=1), of type timedelta, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(data={"s": {1}}),
            "data['s']",
            "data['s'] is frozenset({1}), of type frozenset, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(metadata={"raw": b"x"}),
            "metadata['raw']",
            "metadata['raw'] is b'x', of type bytes, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(data={"ratio": float("nan")}),
            "data['ratio']",
            "data['ratio'] is nan, of type float, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(data={"ratio": [float("-inf")]}),
            "data['ratio'][0]",
            "data['ratio'][0] is -inf, of type float, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(data={"p": Pair(1, 2)}),
            "data['p']",
            "data['p'] is Pair(one=1, two=2), of type Pair, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(extensions=1j),
            "extensions",
            "extensions is 1j, of type complex, which JSON cannot carry back",
        ),
        (
            ContextSnapshot(data={"by_number": {1: "x"}}),
            "data['by_number']",
            "data['by_number'] has the key 1; JSON has strings for keys",
        ),
        (
            ContextSnapshot(data={("a", "b"): 1}),
            "data",
            "data has the key ('a', 'b'); JSON has strings for keys",
        ),
    ],
)
def test_what_json_cannot_carry_back_is_named_by_its_path(snapshot, path, message):
    with pytest.raises(NotJSONError) as caught:
        snapshot.to_dict()
    assert str(caught.value) == message
    assert caught.value.path == path
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, StageflowError)


def test_from_dict_refuses_unknown_keys_and_takes_missing_ones():
    assert ContextSnapshot.from_dict({"data": {"a": 1}}) == ContextSnapshot(data={"a": 1})
    with pytest.raises(TypeError, match="unexpected keyword argument 'dta'"):
        ContextSnapshot.from_dict({"dta": {}})


@pytest.mark.parametrize("bad", [None, [("data", {})], "{}", 5])
def test_from_dict_takes_a_mapping(bad):
    with pytest.raises(TypeError) as caught:
        ContextSnapshot.from_dict(bad)
    assert str(caught.value) == f"a snapshot is made of a mapping, not {bad!r}"


def test_from_dict_leaves_its_argument_alone():
    plain = ContextSnapshot(data={"a": 1}).stamped(IDENTITY).to_dict()
    before = dict(plain)
    ContextSnapshot.from_dict(plain)
    ContextSnapshot.from_dict(MappingProxyType(plain))
    assert plain == before
