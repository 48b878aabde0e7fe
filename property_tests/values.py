"""Nested data of the freezable types, what it is once frozen, and every way to try to change it."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st


class Pair(NamedTuple):
    """A named tuple: keeps its type when frozen."""

    first: Any
    second: Any


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.just(decimal.Decimal("1.50")),
    st.just(uuid.UUID(int=7)),
    st.just(dt.date(2024, 2, 29)),
)
KEYS = st.text("abc", min_size=1, max_size=3)
HASHABLE = st.one_of(st.integers(0, 9), KEYS, st.tuples(st.integers(0, 3), KEYS), st.frozensets(KEYS, max_size=2))


def _arrays() -> st.SearchStrategy[Any]:
    shapes = st.sampled_from([(), (0,), (3,), (2, 2), (1, 3)])
    kinds = st.sampled_from(["i4", "f8", "?", "U3", "M8[s]"])

    def make(shape: tuple[int, ...], kind: str, order: str, view: object) -> Any:
        count = int(np.prod(shape))
        array = np.arange(count).reshape(shape).astype(kind, order=order)  # type: ignore[call-overload]
        if view:
            array = array[...]
            array.flags.writeable = False  # which keeps nobody from changing what it is a view of
        return array

    return st.builds(make, shapes, kinds, st.sampled_from(["C", "F"]), st.booleans())


def values(*, arrays: bool = True) -> st.SearchStrategy[Any]:
    """Return a strategy for nested data that can be frozen, most of it mutable."""
    leaves = [ATOMS, st.sets(HASHABLE, max_size=3), st.binary(max_size=3).map(bytearray)]
    if arrays:
        leaves.append(_arrays())
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(KEYS, inner, max_size=3),
            st.dictionaries(KEYS, inner, max_size=2).map(OrderedDict),
            st.dictionaries(KEYS, inner, max_size=2).map(lambda items: defaultdict(list, items)),
            st.tuples(inner, inner),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=8,
    )


def mappings(*, arrays: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for what a stage may return, or a run be given."""
    return st.dictionaries(KEYS, values(arrays=arrays), max_size=4)


def picture(value: Any) -> Any:
    """Return a plain value that is equal exactly for equal frozen values, and shares nothing with them."""
    if isinstance(value, Mapping):
        return ("mapping", {key: picture(item) for key, item in value.items()})
    if isinstance(value, np.ndarray):
        return ("array", value.shape, str(value.dtype), value.tolist())
    if isinstance(value, Pair):
        return ("pair", picture(value.first), picture(value.second))
    if isinstance(value, (list, tuple)):
        return ("sequence", [picture(item) for item in value])
    if isinstance(value, AbstractSet):
        return ("set", frozenset(value))
    if isinstance(value, (bytes, bytearray)):
        return ("bytes", bytes(value))
    return (type(value).__name__, value)


def is_frozen(value: Any) -> bool:
    """Return whether a value is made of immutable types all the way down."""
    if isinstance(value, np.ndarray):
        return not value.flags.writeable and isinstance(value.base, bytes)
    if isinstance(value, Mapping):
        return type(value).__name__ == "FrozenDict" and all(is_frozen(item) for item in value.values())
    if isinstance(value, (tuple, frozenset)):
        return all(is_frozen(item) for item in value)
    return not isinstance(value, (list, set, bytearray))


def spoil(value: Any) -> None:
    """Change everything in a mutable value that can be changed, from the inside out."""
    if isinstance(value, dict):
        for item in list(value.values()):
            spoil(item)
        value.clear()
        value["spoilt"] = True
    elif isinstance(value, (list, tuple)):
        for item in value:
            spoil(item)
        if isinstance(value, list):
            value[:] = ["spoilt"]
    elif isinstance(value, set):
        value.clear()
        value.add("spoilt")
    elif isinstance(value, bytearray):
        value[:] = b"spoilt"
    elif isinstance(value, np.ndarray):
        (value if value.flags.writeable else value.base).fill(0)


def _set_item(mapping: Any) -> None:
    mapping["new"] = 1


def _delete_item(mapping: Any) -> None:
    del mapping[next(iter(mapping), "none")]


def _update_in_place(mapping: Any) -> None:
    mapping |= {"new": 1}


def _set_first(sequence: Any) -> None:
    sequence[0] = 1


def _set_element(array: Any) -> None:
    array[...] = 0


_MAPPING_CHANGES: tuple[Callable[[Any], Any], ...] = (
    _set_item,
    _delete_item,
    _update_in_place,
    lambda mapping: mapping.clear(),
    lambda mapping: mapping.pop("new", None),
    lambda mapping: mapping.popitem(),
    lambda mapping: mapping.setdefault("new", 1),
    lambda mapping: mapping.update(new=1),
)
_ARRAY_CHANGES: tuple[Callable[[Any], Any], ...] = (
    _set_element,
    lambda array: array.fill(1),
    lambda array: array.setflags(write=True),
    lambda array: array.sort() if array.ndim else _set_element(array),
)


def changes(value: Any) -> Iterator[tuple[Callable[[Any], Any], Any, type[Exception]]]:
    """Walk through a frozen value; yield each way to change a part of it, the part, and the error it must raise."""
    if isinstance(value, Mapping):
        yield from ((change, value, TypeError) for change in _MAPPING_CHANGES)
        for item in value.values():
            yield from changes(item)
    elif isinstance(value, tuple):
        yield _set_first, value, TypeError
        for item in value:
            yield from changes(item)
    elif isinstance(value, np.ndarray):
        yield from ((change, value, ValueError) for change in _ARRAY_CHANGES)
    elif isinstance(value, bytes):
        yield _set_first, value, TypeError


def refuse_all_changes(value: Any) -> int:
    """Try everything on a frozen value; return how many attempts were refused, each with the error it should."""
    refused = 0
    for change, part, error in changes(value):
        # A clear error says something, and that of a mapping says why.
        with pytest.raises(error, match="frozen" if isinstance(part, Mapping) else "."):
            change(part)
        refused += 1
    return refused
