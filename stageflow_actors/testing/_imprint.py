"""What a value was at one moment, to find out later whether it has changed since."""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping
from typing import Any, Final, final

import attrs

from stageflow_actors._validation import count

_ATOMS: Final = (str, int, float, complex, bool, bytes, type(None), enum.Enum)


@final
@attrs.frozen
class _Leaf:
    """Something that is neither a mapping nor a sequence."""

    cls: type
    twin: Any = None
    """A copy that equals it."""
    is_comparable: bool = False
    """Whether there is one: else only its type is compared."""


def make_imprint(value: object) -> object:
    """Return what `find_change` compares with.

    Containers are copied. Other objects are where their type says what makes two of them equal; of any other
    object, such as a connection, what it holds inside is its own affair.
    """
    if isinstance(value, Mapping):
        return {key: make_imprint(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [make_imprint(item) for item in value]  # type: ignore[attr-defined]  # one of the two
    if isinstance(value, _ATOMS):
        return _Leaf(type(value), value, is_comparable=bool(value == value))  # noqa: PLR0124  # not so for nan
    if type(value).__eq__ is object.__eq__:
        return _Leaf(type(value))
    try:
        twin = copy.deepcopy(value)
        return _Leaf(type(value), twin, is_comparable=bool(twin == value))
    except Exception:  # users' own methods may raise what they like
        return _Leaf(type(value))


def find_change(imprint: object, value: object, path: str) -> str | None:
    """Return what is another than it was, such as `data['rows'][2] is 3 and was 2`; None where nothing is."""
    if isinstance(imprint, dict):
        if not isinstance(value, Mapping):
            return f"{path} is {value!r} and was a mapping"
        if value.keys() != imprint.keys():
            return f"{path} has the keys {list(value)!r} and had {list(imprint)!r}"
        pairs = [(before, value[key], f"{path}[{key!r}]") for key, before in imprint.items()]
    elif isinstance(imprint, list):
        if not isinstance(value, (list, tuple)) or len(value) != len(imprint):
            return f"{path} is {value!r} and had {count(len(imprint), 'item')}"
        pairs = [
            (before, now, f"{path}[{position}]")
            for position, (before, now) in enumerate(zip(imprint, value, strict=True))
        ]
    else:
        assert isinstance(imprint, _Leaf)
        return _find_change_of_leaf(imprint, value, path)
    return next((found for before, now, place in pairs if (found := find_change(before, now, place))), None)


def _find_change_of_leaf(leaf: _Leaf, value: object, path: str) -> str | None:
    if leaf.is_comparable:
        return None if leaf.twin == value else f"{path} is {value!r} and was {leaf.twin!r}"
    if type(value) is not leaf.cls:
        return f"{path} is {value!r} and was of type {leaf.cls.__qualname__}"
    return None
