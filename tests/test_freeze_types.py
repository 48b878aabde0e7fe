"""Freezing of types that others bring: registered ones, and numpy's arrays."""

from __future__ import annotations

import copy
import pickle

import pytest

from stageflow_actors import StageOutput, register_freezer
from stageflow_actors._freeze import FrozenDict, freeze
from stageflow_actors.errors import NotFreezableError

HINT = "convert it, or teach its type with register_freezer"


class Rows:
    def __init__(self, rows):
        self.rows = rows


# Registered types


def test_a_registered_freezer_is_used_wherever_its_type_stands():
    class Table(Rows):
        pass

    table = Table([1])
    assert freeze({"t": table})["t"] is table
    register_freezer(Table, lambda table: tuple(table.rows))
    assert freeze([{"t": table}]) == ({"t": (1,)},)
    assert StageOutput.ok(t=table).data == {"t": (1,)}


def test_a_registered_freezer_serves_subclasses_and_the_nearest_wins():
    class Base(Rows):
        pass

    class Derived(Base):
        pass

    register_freezer(Base, lambda _: "base")
    assert freeze(Derived([])) == "base"
    register_freezer(Derived, lambda _: "derived")
    assert freeze(Derived([])) == "derived"
    assert freeze(Base([])) == "base"


def test_a_registered_subclass_of_a_builtin_takes_precedence_over_the_builtin():
    class Columns(dict):
        pass

    class Vector(list):
        pass

    register_freezer(Columns, lambda columns: tuple(sorted(columns)))
    register_freezer(Vector, frozenset)
    assert freeze({"c": Columns(b=1, a=2), "v": Vector([1, 1])}) == {"c": ("a", "b"), "v": frozenset({1})}


@pytest.mark.parametrize("cls", [dict, list, tuple, set, frozenset])
def test_exact_builtins_keep_their_meaning_in_a_process_that_registers_others(cls):
    assert freeze([cls([]) if cls is not dict else {}])[0] in ((), {}, frozenset())


def test_a_freezer_that_raises_becomes_the_cause():
    class Stubborn(Rows):
        pass

    trouble = OSError("disk")

    def refuse(_):
        raise trouble

    register_freezer(Stubborn, refuse)
    with pytest.raises(NotFreezableError) as caught:
        freeze({"a": [Stubborn([])]}, "data")
    name = Stubborn.__qualname__
    assert str(caught.value) == f"data['a'][0] cannot be frozen: the freezer of {name} raised OSError('disk'); {HINT}"
    assert caught.value.__cause__ is trouble


def test_only_types_can_be_registered():
    with pytest.raises(TypeError, match="not a class"):
        register_freezer("Rows", tuple)
    with pytest.raises(TypeError, match="not a class"):
        register_freezer(list[int], tuple)


def test_a_freezer_must_be_a_function():
    with pytest.raises(TypeError) as caught:
        register_freezer(Rows, "tuple")
    assert str(caught.value) == f"the freezer of {Rows!r} must be a function, not 'tuple'"
    rows = Rows([])
    assert freeze([rows])[0] is rows


# Numpy


@pytest.fixture
def numpy():
    return pytest.importorskip("numpy")


def test_an_array_is_copied_at_any_depth(numpy):
    mine = numpy.arange(6).reshape(2, 3)
    frozen = freeze({"x": [{"y": (mine,)}]})["x"][0]["y"][0]
    mine[0, 0] = 99
    assert frozen.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert frozen.dtype == mine.dtype


def test_an_array_cannot_be_made_writable_again(numpy):
    frozen = freeze(numpy.arange(3.0))
    with pytest.raises(ValueError, match="read-only"):
        frozen[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        frozen.setflags(write=True)
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        frozen.flags.writeable = True
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        frozen.view().setflags(write=True)
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        frozen[1:].setflags(write=True)
    assert type(frozen.base) is bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda numpy, frozen: numpy.add(frozen, 1, out=frozen),
        lambda numpy, frozen: numpy.put(frozen, [0], [9]),
        lambda numpy, frozen: numpy.copyto(frozen, 9),
        lambda _numpy, frozen: frozen.sort(),
        lambda _numpy, frozen: frozen.fill(9),
        lambda _numpy, frozen: frozen.byteswap(inplace=True),
        lambda _numpy, frozen: frozen.resize((1,), refcheck=False),
        lambda _numpy, frozen: frozen.flat.__setitem__(0, 9),
        lambda _numpy, frozen: frozen.__iadd__(1),
    ],
)
def test_every_way_to_write_into_an_array_is_refused(numpy, change):
    frozen = freeze(numpy.array([3, 1, 2]))
    with pytest.raises(ValueError, match=r"read-only|does not own its data"):
        change(numpy, frozen)
    assert frozen.tolist() == [3, 1, 2]


def test_a_read_only_view_of_a_writable_array_is_copied(numpy):
    mine = numpy.zeros(3)
    view = mine.view()
    view.setflags(write=False)
    frozen = freeze(view)
    mine[0] = 9
    assert frozen.tolist() == [0, 0, 0]


def test_an_array_over_a_writable_buffer_is_copied_and_one_over_bytes_is_kept(numpy):
    buffer = bytearray(2)
    frozen = freeze(numpy.frombuffer(buffer, dtype="u1"))
    buffer[0] = 9
    assert frozen.tolist() == [0, 0]
    safe = numpy.frombuffer(b"ab", dtype="u1")
    assert freeze(safe) is safe


def test_a_frozen_array_is_not_copied_again(numpy):
    frozen = freeze(numpy.arange(3))
    assert freeze({"x": frozen})["x"] is frozen


@pytest.mark.parametrize(
    "make",
    [
        lambda numpy: numpy.array(3),
        lambda numpy: numpy.asfortranarray(numpy.arange(6).reshape(2, 3)),
        lambda numpy: numpy.arange(6)[::-2],
        lambda numpy: numpy.broadcast_to(numpy.array([1, 2]), (3, 2)),
        lambda numpy: numpy.zeros((0, 3)),
        lambda numpy: numpy.zeros((3, 0, 2)),
        lambda numpy: numpy.arange(3, dtype=">i4"),
        lambda numpy: numpy.array(["2020-01-01", "NaT"], dtype="M8[D]"),
        lambda numpy: numpy.array(["a", "bcd"]),
        lambda numpy: numpy.array([1j, 2], dtype="c8"),
        lambda numpy: numpy.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8", (1,))]),
    ],
)
def test_every_layout_keeps_its_shape_type_and_values(numpy, make):
    array = make(numpy)
    frozen = freeze([array])[0]
    assert frozen.shape == array.shape
    assert frozen.dtype == array.dtype
    assert frozen.tobytes() == array.tobytes()
    assert not frozen.flags.writeable
    assert type(frozen) is numpy.ndarray


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda numpy: numpy.array([[], {}], dtype=object), "it is an array of objects (dtype object)"),
        (
            lambda numpy: numpy.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
            "it is an array of objects (dtype [('a', '<i4'), ('b', 'O')])",
        ),
        (
            lambda numpy: numpy.ma.array([1, 2], mask=[0, 1]),
            "it is a MaskedArray, a subclass of numpy.ndarray",
        ),
        (
            lambda numpy: numpy.zeros(2, dtype=[("a", "i4")]).view(numpy.recarray),
            "it is a recarray, a subclass of numpy.ndarray",
        ),
    ],
)
def test_arrays_that_cannot_be_frozen_are_refused_with_the_path(numpy, make, reason):
    with pytest.raises(NotFreezableError) as caught:
        freeze({"q": [0, make(numpy)]}, "data")
    assert str(caught.value) == f"data['q'][1] cannot be frozen: {reason}; {HINT}"
    assert caught.value.path == "data['q'][1]"


def test_arrays_come_out_of_a_pickle_and_a_deep_copy_read_only(numpy):
    frozen = FrozenDict(a=numpy.arange(3), b=[numpy.arange(2)])
    for twin in (pickle.loads(pickle.dumps(frozen)), copy.deepcopy([frozen])[0]):
        assert twin["a"].tolist() == [0, 1, 2]
        assert not twin["a"].flags.writeable
        assert not twin["b"][0].flags.writeable
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            twin["a"].setflags(write=True)


def test_scalars_stay_themselves(numpy):
    scalar = numpy.float64(1.5)
    assert freeze({"x": scalar})["x"] is scalar


def test_an_element_of_a_structured_array_is_cut_off_from_its_array(numpy):
    rows = numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    frozen = freeze({"row": rows[0]})["row"]
    rows[0]["a"] = 77
    assert frozen["a"] == 1
    with pytest.raises(ValueError, match="read-only"):
        frozen["a"] = 5


def test_renaming_the_fields_of_ones_own_array_leaves_the_frozen_copy_alone(numpy):
    mine = numpy.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    frozen = freeze(mine)
    mine.dtype.names = ("q", "r")
    assert frozen.dtype.names == ("a", "b")
