"""Freezing: what becomes of which type, and that no road leads back into a frozen value."""

from __future__ import annotations

import array
import copy
import enum
import json
import pickle
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from types import MappingProxyType
from typing import NamedTuple

import pytest

from stageflow_actors import ContextSnapshot, Pipeline, StageOutput
from stageflow_actors._freeze import FrozenDict, freeze, freeze_mapping
from stageflow_actors.errors import ContractError, NotFreezableError

FROZEN = "this mapping is frozen, because stages share it; change a copy: dict(mapping)"
HINT = "convert it, or teach its type with register_freezer"


class Point(NamedTuple):
    name: str
    tags: list


class Plain(tuple):
    """A subclass of tuple that cannot be made anew."""

    __slots__ = ()


class Colour(enum.Enum):
    RED = "red"


class HashableDict(dict):
    __hash__ = object.__hash__


class HashableList(list):
    __hash__ = object.__hash__


def nest(depth, wrap):
    value = "bottom"
    for _ in range(depth):
        value = wrap(value)
    return value


# What becomes of which type


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, {"b": {2}}]}, {"a": (1, {"b": frozenset({2})})}),
        ([[], [[]]], ((), ((),))),
        (({}, []), ({}, ())),
        ({1, (2, 3)}, frozenset({1, (2, 3)})),
        (frozenset({1}), frozenset({1})),
        (bytearray(b"ab"), b"ab"),
        (OrderedDict(b=[1], a=[2]), {"b": (1,), "a": (2,)}),
        (defaultdict(list, a=[1]), {"a": (1,)}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (UserDict(a=[1]), {"a": (1,)}),
        (ChainMap({"a": [1]}, {"a": [2], "b": [3]}), {"a": (1,), "b": (3,)}),
        (MappingProxyType({"a": [1]}), {"a": (1,)}),
        ({"a": 1}.keys(), frozenset({"a"})),
        ({"a": [1]}.items(), frozenset({("a", (1,))})),
        (
            {1: [1], None: [2], (1, 2): [3], 1.5: [4], b"x": [5]},
            {1: (1,), None: (2,), (1, 2): (3,), 1.5: (4,), b"x": (5,)},
        ),
        ({HashableList([1])}, frozenset({(1,)})),
        ({HashableDict(a=[1])}, frozenset({FrozenDict(a=(1,))})),
        ({"a": {"b": []}}.items(), frozenset({("a", FrozenDict(b=()))})),
        (Point("p", [1, [2]]), Point("p", (1, (2,)))),
        (namedtuple("Late", "x")([1]), ((1,),)),  # noqa: PYI024 (the old spelling, as users have it)
    ],
)
def test_freezable_types(value, expected):
    frozen = freeze(value)
    assert frozen == expected
    assert isinstance(frozen, (FrozenDict, tuple, frozenset, bytes))


def test_every_mapping_becomes_a_frozen_dict_and_keeps_its_order():
    for kind in (dict, OrderedDict, UserDict, lambda **items: MappingProxyType(items)):
        frozen = freeze({"outer": kind(b=1, a=2)})
        assert type(frozen) is FrozenDict
        assert type(frozen["outer"]) is FrozenDict
        assert list(frozen["outer"]) == ["b", "a"]


def test_a_named_tuple_keeps_its_type():
    frozen = freeze(Point("p", [1]))
    assert type(frozen) is Point
    assert frozen.tags == (1,)


@pytest.mark.parametrize(
    "value",
    [
        1,
        "text",
        None,
        b"x",
        1.5,
        Colour.RED,
        Point("p", ()),
        Plain([1, 2]),
        (1, (2, "x")),
        range(3),
        len,
        Colour,
        10**100,
    ],
)
def test_what_cannot_change_stays_the_same_object(value):
    assert freeze(value) is value


@pytest.mark.parametrize(
    "value", [deque([1]), UserList([1]), array.array("i", [1]), memoryview(bytearray(b"x")), object(), iter([1])]
)
def test_other_objects_pass_by_reference(value):
    assert freeze({"value": [value]})["value"][0] is value


def test_freezing_twice_copies_once():
    frozen = freeze({"a": [{"b": [1]}]})
    assert freeze(frozen) is frozen
    assert freeze(frozen["a"]) is frozen["a"]
    assert freeze({"again": frozen})["again"] is frozen
    assert freeze_mapping(frozen, "data") is frozen


def test_shared_values_may_stand_in_several_places():
    shared = [1]
    assert freeze({"a": shared, "b": {"c": shared}}) == {"a": (1,), "b": {"c": (1,)}}


def test_subclasses_of_the_frozen_dict_do_not_slip_through():
    class Thawed(FrozenDict):
        __setitem__ = dict.__setitem__

    thawed = dict.__new__(Thawed)
    dict.update(thawed, a=[1])
    frozen = freeze({"value": thawed})["value"]
    assert type(frozen) is FrozenDict
    thawed["a"].append(2)
    assert frozen == {"a": (1,)}


# No way back in, from the side of the reader


@pytest.mark.parametrize(
    "change",
    [
        lambda frozen: frozen.__setitem__("a", 1),
        lambda frozen: frozen.__delitem__("a"),
        lambda frozen: frozen.update(a=1),
        lambda frozen: frozen.update({"a": 1}),
        lambda frozen: frozen.update(),
        lambda frozen: frozen.setdefault("a", 1),
        lambda frozen: frozen.setdefault("new", 1),
        lambda frozen: frozen.pop("a"),
        lambda frozen: frozen.pop("missing", None),
        lambda frozen: frozen.popitem(),
        lambda frozen: frozen.clear(),
        lambda frozen: frozen.__ior__({"a": 1}),
        lambda _frozen: FrozenDict.fromkeys(["a"], []),
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_every_changing_method_is_refused(change, inner):
    outer = freeze({"a": {"a": 0}})
    with pytest.raises(TypeError) as caught:
        change(outer["a"] if inner else outer)
    assert str(caught.value) == FROZEN
    assert outer == {"a": {"a": 0}}


def test_statements_that_change_are_refused():
    frozen = freeze({"a": {"b": [1]}})
    with pytest.raises(TypeError, match="this mapping is frozen"):
        frozen["a"]["b"] = 2
    with pytest.raises(TypeError, match="this mapping is frozen"):
        del frozen["a"]
    with pytest.raises(TypeError, match="this mapping is frozen"):
        frozen |= {"c": 3}
    with pytest.raises(TypeError, match="does not support item assignment"):
        frozen["a"]["b"][0] = 2
    with pytest.raises(AttributeError):
        frozen.note = "no attributes either"
    assert frozen == {"a": {"b": (1,)}}


def test_calling_init_again_changes_nothing():
    frozen = freeze({"a": {"b": 1}})
    frozen.__init__({"evil": 1})
    frozen["a"].__init__(evil=1)
    assert frozen == {"a": {"b": 1}}


@pytest.mark.parametrize("merge", [lambda one, two: one | two, lambda one, two: two | one])
def test_merging_gives_a_plain_dict_and_changes_neither(merge):
    frozen = freeze({"a": 1})
    merged = merge(frozen, {"b": 2})
    merged["c"] = 3
    assert type(merged) is dict
    assert frozen == {"a": 1}


@pytest.mark.parametrize("thaw", [dict, lambda frozen: frozen.copy(), lambda frozen: {**frozen}])
def test_a_mutable_copy_leaves_the_original_alone(thaw):
    frozen = freeze({"a": {"b": 1}})
    mutable = thaw(frozen)
    mutable["c"] = 3
    assert type(mutable) is dict
    assert frozen == {"a": {"b": 1}}
    with pytest.raises(TypeError, match="this mapping is frozen"):
        mutable["a"]["b"] = 2


def test_copies_are_the_same_object():
    frozen = freeze({"a": {"b": [1]}})
    assert copy.copy(frozen) is frozen
    assert copy.deepcopy(frozen) is frozen
    assert copy.deepcopy([frozen])[0] is frozen


# No way back in, from the side of the producer


def test_the_producer_keeps_no_way_in():
    inner, items, tags, raw, proxied = {"n": 1}, [1, [2]], {1}, bytearray(b"ab"), {"p": [1]}
    point = Point("p", [1])
    mine = {
        "inner": inner,
        "items": items,
        "tags": tags,
        "raw": raw,
        "proxy": MappingProxyType(proxied),
        "point": point,
    }
    output = StageOutput.ok(mine)
    before = pickle.dumps(output)
    inner["n"] = items[1][0] = raw[0] = 9
    items.append(9)
    tags.add(9)
    proxied["p"].append(9)
    point.tags.append(9)
    mine["new"] = 9
    assert pickle.dumps(output) == before
    assert output.data["inner"] == {"n": 1}


def test_the_constructor_freezes_what_it_is_given():
    items = [1]
    frozen = FrozenDict({"a": items}, b=items)
    items.append(2)
    assert frozen == {"a": (1,), "b": (1,)}
    assert type(FrozenDict([("a", [1])])["a"]) is tuple
    assert FrozenDict() == {}
    with pytest.raises(NotFreezableError, match=r"value\['a'\] cannot be frozen"):
        FrozenDict(a=Plain([[1]]))


# As a value


def test_a_frozen_dict_is_a_dict_to_everybody_else():
    frozen = freeze({"a": [1, {"b": None}], "c": {"d": 1.5}})
    assert isinstance(frozen, dict)
    assert json.loads(json.dumps(frozen)) == {"a": [1, {"b": None}], "c": {"d": 1.5}}
    assert repr(frozen) == "{'a': (1, {'b': None}), 'c': {'d': 1.5}}"
    assert frozen == {"a": (1, {"b": None}), "c": {"d": 1.5}}
    assert {"z": 1, **frozen}["z"] == 1


def test_a_frozen_dict_hashes_like_its_equals():
    one, two = freeze({"a": [1], "b": {"c": {2}}}), freeze({"b": {"c": {2}}, "a": [1]})
    assert one == two
    assert hash(one) == hash(two)
    assert {one: "found"}[two] == "found"
    with pytest.raises(TypeError, match=r"unhashable type: 'collections\.deque'"):
        hash(freeze({"a": deque()}))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_it_frozen(protocol):
    frozen = freeze({"a": [{"b": {1}}], "p": Point("x", [1])})
    back = pickle.loads(pickle.dumps(frozen, protocol))
    assert back == frozen
    assert type(back) is FrozenDict
    with pytest.raises(TypeError, match="this mapping is frozen"):
        back["a"][0]["b"] = 1


def test_data_of_some_depth_works_all_the_way():
    deep = freeze(nest(100, lambda value: {"next": [value]}))
    assert pickle.loads(pickle.dumps(deep)) == deep
    assert repr(deep).count("next") == 100


# What cannot be frozen


def test_data_that_refers_to_itself_is_refused():
    ring = {}
    ring["me"] = [ring]
    with pytest.raises(NotFreezableError) as caught:
        freeze(ring, "data")
    problem = "data refers to itself, or is nested too deeply to be frozen"
    assert str(caught.value) == f"{problem}; give names or numbers of things instead of the things, or flatten it"
    assert caught.value.path == "data"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("wrap", [lambda value: {"next": value}, lambda value: [value], lambda value: (value,)])
def test_data_nested_too_deeply_is_refused(wrap):
    with pytest.raises(NotFreezableError, match="data refers to itself, or is nested too deeply to be frozen"):
        freeze(nest(100_000, wrap), "data")


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (
            {"rows": [0, Plain([[1]])]},
            "data['rows'][1]",
            "it is a Plain, a tuple that holds mutable values and has no _make",
        ),
        (
            {"a": {"b": (1, Point("p", [Plain([{}])]))}},
            "data['a']['b'][1][1][0]",
            "it is a Plain, a tuple that holds mutable values and has no _make",
        ),
        (
            {1: MappingProxyType({"x": Plain([[]])})},
            "data[1]['x']",
            "it is a Plain, a tuple that holds mutable values and has no _make",
        ),
        (
            {"v": [{HashableDict(a=deque())}]},
            "data['v'][0]",
            "frozen, one of its items cannot be in a set (unhashable type: 'collections.deque')",
        ),
        (
            {"v": {"a": deque()}.items()},
            "data['v']",
            "frozen, one of its items cannot be in a set (unhashable type: 'collections.deque')",
        ),
    ],
)
def test_the_error_names_the_path(value, path, reason):
    with pytest.raises(NotFreezableError) as caught:
        freeze(value, "data")
    assert str(caught.value) == f"{path} cannot be frozen: {reason}; {HINT}"
    assert caught.value.path == path
    assert caught.value.hint == HINT
    assert isinstance(caught.value, (ContractError, TypeError))


@pytest.mark.parametrize("value", [[("a", 1)], None, "text", 5, {"a"}, [1]])
def test_data_that_is_no_mapping_is_refused(value):
    with pytest.raises(TypeError) as caught:
        freeze_mapping(value, "data")
    assert str(caught.value) == f"data must be a mapping, not {value!r}"


def test_every_door_freezes_and_names_itself():
    bad = {"x": Plain([[]])}
    for make, where in [
        (lambda: StageOutput.ok(bad), "data"),
        (lambda: StageOutput.fail("no", bad), "data"),
        (lambda: ContextSnapshot(data=bad), "data"),
        (lambda: ContextSnapshot(metadata=bad), "metadata"),
        (lambda: ContextSnapshot(extensions=bad), "extensions"),
    ]:
        with pytest.raises(NotFreezableError) as caught:
            make()
        assert caught.value.path == f"{where}['x']"


def test_configuration_is_frozen_when_the_stage_is_added():
    rows = [1]
    config = {"rows": rows}
    pipeline = Pipeline("p").with_stage("a", len, config=config)
    rows.append(2)
    config["new"] = 1
    assert pipeline.stages[0].config == {"rows": (1,)}
