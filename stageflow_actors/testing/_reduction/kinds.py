"""What kind of thing an object is: whether its state can be seen, and how."""

from __future__ import annotations

import array
import datetime as dt
import decimal
import enum
import fractions
import functools
import gc
import itertools
import logging
import operator
import random
import re
import threading
import types
import uuid
import weakref
from abc import ABC, get_cache_token
from collections import ChainMap, Counter, OrderedDict, UserDict, UserList, UserString, defaultdict, deque, namedtuple
from contextvars import Context, ContextVar, Token
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import outcome
import trio

from .classes import can_tell, is_from_python
from .modules import get_root, is_pure, is_standard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@final
@attrs.frozen
class Unseen:
    """Stands for what may have state that nobody sees."""

    name: str
    is_alone: bool = False
    """Whether that is so also where a single task has to do with it."""


@final
@attrs.define(eq=False)
class Slot:
    """A global of a module: a holder of one object.

    Args:
        table: The module's globals.
        name: Its name in them.
    """

    table: dict[str, Any]
    name: str


@final
@attrs.frozen
class Kept:
    """What the state of something was that holds no others."""

    value: object


class Kind(enum.Enum):
    """How an object's state is seen."""

    ATOM = enum.auto()
    """It has none that could change."""
    FIXED = enum.auto()
    """It holds the same others for ever."""
    HOLDER = enum.auto()
    """It holds others, which may change: it is compared after each step."""
    TELLS = enum.auto()
    """Its class can be made to tell of each access."""
    FUNCTION = enum.auto()
    CLASS = enum.auto()
    MODULE = enum.auto()
    VARIABLE = enum.auto()
    """A context variable."""
    OPAQUE = enum.auto()
    """It may have state that nobody sees."""


_OWN: Final = __name__.partition(".")[0]
_TOOLKIT: Final = tuple(
    f"{_OWN}.testing.{part}" for part in ("_reduction", "_cell", "_clock", "_control", "_injection")
)

_ATOMS: Final[tuple[type, ...]] = (
    bool,
    bytes,
    complex,
    float,
    int,
    range,
    str,
    type(None),
    type(Ellipsis),
    type(NotImplemented),
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    dt.timezone,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    re.Pattern,
    re.Match,
    types.CodeType,
    types.FrameType,
    types.TracebackType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    type(namedtuple("_Pair", "one").one),  # type: ignore[attr-defined]  # noqa: PYI024 (what shows its fields)
    types.GenericAlias,
    types.UnionType,
    Token,
    object,
    operator.attrgetter,
    operator.itemgetter,
    operator.methodcaller,
    slice,
)
"""Also what is the scheduler's, or only shows what happened."""

_FIXED: Final[tuple[type, ...]] = (
    tuple,
    frozenset,
    types.MethodType,
    types.MethodWrapperType,
    functools.partial,
    functools.partialmethod,
    classmethod,
    staticmethod,
    property,
    types.MappingProxyType,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)

READERS: Final[dict[type, Callable[[Any], Sequence[Any]]]] = {}
"""How what a holder holds is read."""


def _reads(*kinds: type) -> Callable[[Callable[[Any], Sequence[Any]]], Callable[[Any], Sequence[Any]]]:
    def add(reader: Callable[[Any], Sequence[Any]]) -> Callable[[Any], Sequence[Any]]:
        for kind in kinds:
            READERS[kind] = reader
        return reader

    return add


@_reads(Slot)
def _read_slot(holder: Any) -> Sequence[Any]:
    if holder.name not in holder.table:
        return ()
    value = holder.table[holder.name]
    # What of a module is used is seen where it is named.
    return (Kept(id(value)),) if isinstance(value, types.ModuleType) else (value,)


@_reads(list, deque, set)
def _read_elements(holder: Any) -> Sequence[Any]:
    return tuple(holder)


@_reads(OrderedDict)
def _read_ordered(holder: Any) -> Sequence[Any]:
    return tuple(one for item in OrderedDict.items(holder) for one in item)


@_reads(dict, Counter)
def _read_items(holder: Any) -> Sequence[Any]:
    return (*dict.keys(holder), *dict.values(holder))


@_reads(defaultdict)
def _read_default(holder: Any) -> Sequence[Any]:
    return (holder.default_factory, *dict.keys(holder), *dict.values(holder))


@_reads(bytearray)
def _read_bytes(holder: Any) -> Sequence[Any]:
    return (bytes(holder),)


@_reads(types.CellType)
def _read_cell(holder: Any) -> Sequence[Any]:
    try:
        return (holder.cell_contents,)
    except ValueError:
        return ()


_LOCK: Final = type(threading.Lock())
_REENTRANT_LOCK: Final = type(threading.RLock())


@_reads(_LOCK)
def _read_lock(holder: Any) -> Sequence[Any]:
    return (holder.locked(),)


@_reads(_REENTRANT_LOCK)
def _read_reentrant_lock(holder: Any) -> Sequence[Any]:
    return (repr(holder).partition(" at ")[0],)  # it says whether it is locked, by whom and how often


@_reads(array.array)
def _read_array(holder: Any) -> Sequence[Any]:
    return (Kept(holder.tobytes()),)


@_reads(random.Random)
def _read_random(holder: Any) -> Sequence[Any]:
    return (Kept(holder.getstate()),)


@_reads(type(functools.lru_cache(len)))
def _read_cache(holder: Any) -> Sequence[Any]:
    return (Kept(tuple(holder.cache_info())), *gc.get_referents(holder))


@_reads(itertools.count, decimal.Context)
def _read_text(holder: Any) -> Sequence[Any]:
    return (repr(holder),)


@_reads(Context)
def _read_context(holder: Any) -> Sequence[Any]:
    return tuple(one for item in holder.items() for one in item)


@_reads(types.SimpleNamespace)
def _read_namespace(holder: Any) -> Sequence[Any]:
    return tuple(one for item in vars(holder).items() for one in item)


@_reads(type(ABC.__dict__.get("_abc_impl")))
def _read_registry(_holder: Any) -> Sequence[Any]:
    return (get_cache_token(),)  # another whenever a class is registered with any


_ITERATORS: Final[tuple[type, ...]] = (
    type(iter([])),
    type(reversed([])),
    type(iter(())),
    type(iter({})),
    type(iter({}.values())),
    type(iter({}.items())),
    type(iter(set())),
    type(iter(deque())),
    type(iter("")),
    type(iter(range(0))),
)


STRICT_ITERATORS: Final[frozenset[type]] = frozenset(
    {
        type(iter({})),
        type(iter({}.values())),
        type(iter({}.items())),
        type(iter(set())),
        type(iter(deque())),
        type(iter(OrderedDict())),
    }
)
"""Those that raise if what they go through was changed."""


@_reads(*_ITERATORS)
def _read_iterator(holder: Any) -> Sequence[Any]:
    return (holder.__length_hint__(), *gc.get_referents(holder))


def _read_logger(logger: Any) -> Sequence[Any]:
    """Read what decides where a record goes. What Python's own handlers, or pytest's, do with it is nobody's state."""
    handlers = [one for one in logger.handlers if get_root(type(one).__module__) not in ("logging", "_pytest", "rich")]
    unseen = [Unseen(f"the handler {type(one).__qualname__}") for one in handlers]
    return logger.level, logger.disabled, logger.propagate, *handlers, *unseen, *logger.filters, logger.parent


@_reads(type(iter(OrderedDict())))
def _read_ordered_iterator(holder: Any) -> Sequence[Any]:
    return (len(holder.__reduce__()[1][0]), *gc.get_referents(holder))


def read(holder: Any) -> Sequence[Any]:
    """Return what a holder holds, in an order that its elements alone decide."""
    reader = READERS.get(type(holder))
    return _read_generic(holder) if reader is None else reader(holder)


def _read_generic(holder: Any) -> Sequence[Any]:
    """Read an object of a class of Python's whose instances do not tell, or a generator."""
    kind = type(holder)
    held = [one for one in gc.get_referents(holder) if one is not kind]
    if kind in SUSPENDED:
        frame = getattr(holder, SUSPENDED[kind][0])
        held = [one for one in held if type(one) is not types.FrameType]
        held.append(None if frame is None else frame.f_lasti)
    return held


SUSPENDED: Final[dict[type, tuple[str, str]]] = {
    types.CoroutineType: ("cr_frame", "cr_await"),
    types.GeneratorType: ("gi_frame", "gi_yieldfrom"),
    types.AsyncGeneratorType: ("ag_frame", "ag_await"),
}
"""What can be suspended: by which attributes it says where, and what it waits for."""

_NOT_TOLD: Final[tuple[type, ...]] = (BaseException, enum.Enum, outcome.Outcome)
"""Whose instances are held and read, and hardly ever written: they are compared instead."""

KINDS: Final[dict[type, Kind]] = (
    dict.fromkeys(_ATOMS, Kind.ATOM)
    | dict.fromkeys(_FIXED, Kind.FIXED)
    | dict.fromkeys((*READERS, *SUSPENDED), Kind.HOLDER)
    | {
        types.FunctionType: Kind.FUNCTION,
        types.BuiltinFunctionType: Kind.FUNCTION,
        types.ModuleType: Kind.MODULE,
        Slot: Kind.HOLDER,
        Unseen: Kind.OPAQUE,
        Kept: Kind.ATOM,
        ContextVar: Kind.VARIABLE,
        trio.lowlevel.Task: Kind.ATOM,
        trio.lowlevel.TrioToken: Kind.ATOM,
    }
)

_TRIO_INNARDS: Final = frozenset(
    {"Runner", "Deadlines", "EntryQueue", "GuestState", "NurseryManager", "TaskStatus", "_TaskStatus", "SystemClock"}
)
_SEEN_BASES: Final = (dict, list, set, tuple, frozenset, deque, str, bytes, int, float, BaseException)


def get_kind(thing: Any) -> Kind:
    """Return what kind of thing an object is."""
    return get_kind_of(type(thing))


def get_kind_of(kind: type) -> Kind:
    """Return what kind of things the instances of a class are."""
    found = KINDS.get(kind)
    if found is None:
        found = KINDS[kind] = _classify(kind)
    return found


def _classify(kind: type) -> Kind:  # noqa: C901, PLR0912 (a table of cases)
    if issubclass(kind, type):
        return Kind.CLASS
    if issubclass(kind, weakref.ReferenceType):
        return Kind.OPAQUE
    if get_root(kind.__module__) != "trio" and hasattr(kind, "__del__"):
        return Kind.OPAQUE  # when it is gone is not known
    if issubclass(kind, _ITERATORS):
        return Kind.HOLDER
    module = kind.__module__
    if get_root(module) == "trio" and kind.__name__ in _TRIO_INNARDS:
        return Kind.ATOM
    if module in ("trio._core._traps", "trio._core._asyncgens", "trio._core._concat_tb"):
        return Kind.ATOM
    if get_root(module) == "trio" and (kind.__name__ == "RunVar" or "_threads" in module):
        return Kind.OPAQUE
    if module.startswith(_TOOLKIT):
        return Kind.ATOM
    if (issubclass(kind, PurePath) and not issubclass(kind, Path)) or get_root(module) == "typing":
        return Kind.ATOM
    if issubclass(kind, logging.Logger):
        READERS[kind] = _read_logger
        return Kind.HOLDER
    if issubclass(kind, (ChainMap, UserDict, UserList, UserString)):
        return Kind.HOLDER
    if issubclass(kind, _NOT_TOLD):
        return Kind.HOLDER
    if can_tell(kind):
        if not is_standard(module):
            return Kind.TELLS
        return Kind.HOLDER if is_pure(module) else Kind.OPAQUE
    if all(base is object or is_from_python(base) or base in _SEEN_BASES or base in READERS for base in kind.__mro__):
        return Kind.HOLDER
    return Kind.OPAQUE
