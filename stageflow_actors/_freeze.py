"""Deep freezing: what a stage hands on, nobody can change any more.

Mappings become `FrozenDict`, lists become tuples, sets become frozensets, a bytearray becomes bytes,
and a numpy array becomes a read-only copy. Any other object passes by reference. Freezing copies, so
that whoever made the value keeps no way into what was stored.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import singledispatch
from typing import Any, Final, Never, TypeVar, cast, final

from .errors import NotFreezableError

_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")


def _refuse_change(_self: object, *_args: object, **_kwargs: object) -> Never:
    message = "this mapping is frozen, because stages share it; change a copy: dict(mapping)"
    raise TypeError(message)


@final
class FrozenDict(dict[_K, _V]):
    """A dict that refuses to change, and whose values are frozen too.

    Equals a dict of the same items, encodes as JSON, pickles. `dict(frozen)` and `frozen.copy()` give
    a mutable copy of the outermost level.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> FrozenDict[_K, _V]:
        """Freeze what `dict` would be made of; here, as `__init__` could be called again."""
        frozen = freeze(dict(*args, **kwargs))
        assert isinstance(frozen, cls)
        return frozen

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: it is made."""

    __setitem__ = __delitem__ = __ior__ = _refuse_change
    clear = pop = popitem = setdefault = update = _refuse_change

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash the items, where the values can be hashed."""
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[_K, _V]:
        """Return itself: there is nothing to protect."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[_K, _V]:
        """Return itself: there is nothing to protect."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the class and a plain dict."""
        return FrozenDict, (dict(self),)

    def __repr__(self) -> str:
        """Show it as the dict it equals."""
        return dict.__repr__(self)


_ATOMS: frozenset[type] = frozenset(
    {str, int, float, bool, type(None), bytes, complex, FrozenDict, uuid.UUID, decimal.Decimal, fractions.Fraction}
    | {dt.datetime, dt.date, dt.time, dt.timedelta, dt.timezone}
    | {pathlib.PosixPath, pathlib.PurePosixPath, pathlib.WindowsPath, pathlib.PureWindowsPath}
)


_new_dict: Final = dict.__new__
_fill_dict: Final = dict.update


class _UnfreezableError(Exception):
    """Says why a value cannot be frozen; `freeze` adds where it stands."""


def freeze(value: Any, where: str = "value") -> Any:
    """Return `value` made deeply immutable, as the module describes.

    Args:
        value: What to freeze.
        where: What to call the value in an error's path.

    Raises:
        NotFreezableError: A value within a freezable type cannot be frozen; it names the path. Also
            for data that refers to itself or is nested deeper than the interpreter's stack.
    """
    try:
        return _freeze(value)
    except RecursionError:
        problem = f"{where} refers to itself, or is nested too deeply to be frozen"
        hint = "give names or numbers of things instead of the things, or flatten it"
        raise NotFreezableError(problem, path=where, hint=hint) from None
    except _UnfreezableError as error:
        path, reason = _find_culprit(value, where, error)
        raise NotFreezableError(
            f"{path} cannot be frozen: {reason}", path=path, hint="convert it, or teach its type with register_freezer"
        ) from reason.__cause__


def freeze_mapping(value: Any, where: str) -> FrozenDict[str, Any]:
    """Return the mapping `value` frozen; refuse anything that is no mapping."""
    cls = value.__class__
    if cls is FrozenDict:
        return value  # type: ignore[no-any-return]
    if cls is dict:
        # Copied first, and looked at then: the producer may have left a thread that writes into it.
        frozen: Any = _new_dict(FrozenDict)
        _fill_dict(frozen, value)
        for item in frozen.values():
            if item.__class__ not in _ATOMS:
                value = dict(frozen)
                break
        else:
            return frozen  # type: ignore[no-any-return]
    elif not isinstance(value, Mapping):
        message = f"{where} must be a mapping, not {value!r}"
        raise TypeError(message)
    return cast("FrozenDict[str, Any]", freeze(value, where))


def freeze_item(frozen: Mapping[str, Any], item: Any, index: int) -> FrozenDict[str, Any]:
    """Return the frozen data of a run with an item of a fan-out and its position: only the item is looked at.

    Raises:
        NotFreezableError: The item holds a value that cannot be frozen.
    """
    more: Mapping[str, Any] = {"item": item, "index": index}
    if item.__class__ not in _ATOMS:
        more = freeze_mapping(more, "data")
    extended = _new_dict(FrozenDict)
    _fill_dict(extended, frozen)
    _fill_dict(extended, more)
    return cast("FrozenDict[str, Any]", extended)


def register_freezer(cls: type[_T], function: Callable[[_T], Any]) -> None:
    """Teach `freeze` a type, and its subclasses, for the whole process.

    Args:
        cls: The type. Exact `dict`, `list`, `tuple`, `set` and `frozenset` keep their own meaning.
        function: Called with a value on the trio thread; returns something that nobody can change.
            What it raises becomes the cause of a `NotFreezableError`.
    """
    if not callable(function):
        message = f"the freezer of {cls!r} must be a function, not {function!r}"
        raise TypeError(message)

    def call(value: Any) -> Any:
        try:
            return function(value)
        except Exception as error:
            message = f"the freezer of {cls.__qualname__} raised {error!r}"
            raise _UnfreezableError(message) from error

    _freeze_other.register(cls, call)


def _freeze(value: Any) -> Any:
    cls = value.__class__
    if cls in _ATOMS:
        return value
    if cls is dict:
        frozen = _new_dict(FrozenDict)
        _fill_dict(frozen, _freeze_items(value))
        return frozen
    if cls is list:
        return tuple([item if item.__class__ in _ATOMS else _freeze(item) for item in value])
    if cls is tuple:
        items = tuple([item if item.__class__ in _ATOMS else _freeze(item) for item in value])
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return _freeze_other(value)


def _freeze_items(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: item if item.__class__ in _ATOMS else _freeze(item) for key, item in mapping.items()}


@singledispatch
def _freeze_other(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _freeze_array(numpy, value)
    if numpy is not None and isinstance(value, numpy.void):
        return _freeze_array(numpy, numpy.array(value))[()]
    return value


@_freeze_other.register(Mapping)
def _freeze_mapping(value: Mapping[Any, Any]) -> Any:
    return _freeze(dict(value))


@_freeze_other.register(list)
def _freeze_list(value: list[Any]) -> Any:
    return _freeze(list(value))


@_freeze_other.register(AbstractSet)
def _freeze_set(value: AbstractSet[Any]) -> Any:
    items = [_freeze(item) for item in value]
    try:
        return frozenset(items)
    except TypeError as error:
        message = f"frozen, one of its items cannot be in a set ({error})"
        raise _UnfreezableError(message) from error


@_freeze_other.register(bytearray)
def _freeze_bytearray(value: bytearray) -> Any:
    return bytes(value)


@_freeze_other.register(enum.Enum)
@_freeze_other.register(str)
@_freeze_other.register(int)
def _freeze_atom(value: Any) -> Any:
    return value


@_freeze_other.register(tuple)
def _freeze_tuple_subclass(value: tuple[Any, ...]) -> Any:
    """A named tuple keeps its type; another subclass does where nothing in it has to change."""
    items = [_freeze(item) for item in value]
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    make = getattr(type(value), "_make", None)
    if make is None:
        message = f"it is a {type(value).__qualname__}, a tuple that holds mutable values and has no _make"
        raise _UnfreezableError(message)
    return make(items)


def _freeze_array(numpy: Any, array: Any) -> Any:
    """Copy an array into bytes, which no `setflags` makes writeable again."""
    if type(array) is not numpy.ndarray:
        message = f"it is a {type(array).__qualname__}, a subclass of numpy.ndarray"
        raise _UnfreezableError(message)
    if array.dtype.hasobject:
        message = f"it is an array of objects (dtype {array.dtype})"
        raise _UnfreezableError(message)
    if type(array.base) is bytes and not array.flags.writeable:
        return array
    # The names of a structured type's fields can be changed in place: the copy gets a type of its own.
    dtype = array.dtype if array.dtype.names is None else copy.deepcopy(array.dtype)
    return numpy.ndarray(array.shape, dtype, array.tobytes())


def _children(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{where}[{key!r}]", item
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield f"{where}[{position}]", item
    elif isinstance(value, AbstractSet):
        for item in value:
            yield f"{where}{{{item!r}}}", item


def _find_culprit(value: Any, where: str, error: _UnfreezableError) -> tuple[str, _UnfreezableError]:
    """Walk down to the innermost value that refuses; only errors pay for paths."""
    for path, child in _children(value, where):
        try:
            _freeze(child)
        except _UnfreezableError as inner:
            return _find_culprit(child, path, inner)
    return where, error
