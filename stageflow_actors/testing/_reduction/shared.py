"""`shared`: state that is declared, so that each access to it is seen."""

from __future__ import annotations

import operator
from collections import OrderedDict, defaultdict, deque
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, final

import attrs

from stageflow_actors._validation import refuse

from .kinds import KINDS, READERS, Kind, get_kind, read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .tracker import Tracker

T = TypeVar("T")

TRACKERS: Final[list[Tracker]] = []
"""The one of the program that is explored, while it is."""


def shared(thing: T, *, reads: Collection[str] = ()) -> T:
    """Declare state that tasks share, and that partial order reduction cannot follow by itself.

        random = shared(random.Random(7))
        rows = shared(sqlite3.connect(":memory:"), reads=["execute"])

    What is done with the object through what this returns is seen, step by step: the items of a dict, a list or a
    set, each by its key; attributes, each by its name; a call of a method, which counts as a change of all of it. What
    is returned by such a call, and cannot be followed either, is shared too, as a part of it.

    Objects of classes that are written in Python tell of their attributes by themselves, and are returned as they are.
    Where no program is explored, access goes through at the cost of a Python call.

    Args:
        thing: The object. From here on use it only by what this returns.
        reads: The names of methods that change nothing.

    Returns:
        What behaves like the object: `isinstance` and operators too, but not `is`.

    Raises:
        PipelineValidationError: It cannot be shared, for it never changes, or is a class or a function.
    """
    if type(thing) is Shared:
        return thing
    kind = get_kind(thing)
    if kind is Kind.TELLS:
        return thing
    if kind in (Kind.ATOM, Kind.FIXED):
        refuse(f"shared state must be an object that can change, not {thing!r}", hint="share what holds it")
    if kind in (Kind.CLASS, Kind.FUNCTION, Kind.VARIABLE):
        refuse(f"shared state must be an object that can change, not {thing!r}")
    if isinstance(reads, str):
        refuse(f"reads must be names of methods, not {reads!r}", hint=f"write reads=[{reads!r}]")
    return cast("T", Shared(thing, State(frozenset(reads))))


@final
@attrs.frozen(eq=False)
class State:
    """What a shared object and all that came out of it have in common."""

    reads: frozenset[str]


_WHOLE: Final = ("whole",)
"""The part that each access reads and that a change of the structure writes: which keys there are, their order."""

_ITEM_WRITES: Final = {"__setitem__", "setdefault"}
_DICTS: Final = (dict, OrderedDict, defaultdict)
_BY_KEY: Final[dict[type, frozenset[str]]] = {
    **dict.fromkeys(_DICTS, frozenset({"__getitem__", "__contains__", "get", "__setitem__", "setdefault"})),
    list: frozenset({"__getitem__", "__setitem__"}),
    deque: frozenset({"__getitem__", "__setitem__"}),
    set: frozenset({"__contains__"}),
}
"""Operations that touch one item only, unless they change which items there are."""

_READ_ONLY: Final[dict[type, frozenset[str]]] = {
    **dict.fromkeys(_DICTS, frozenset({"keys", "values", "items", "copy", "get"})),
    list: frozenset({"copy", "count", "index"}),
    deque: frozenset({"copy", "count", "index"}),
    set: frozenset({"copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset", "union"}),
    bytearray: frozenset({"count", "decode", "endswith", "find", "hex", "index", "startswith"}),
}


def _note(state: State, part: tuple[Any, ...], *, wrote: bool) -> None:
    if TRACKERS:
        TRACKERS[-1].touch_part(state, part, wrote=wrote)


def _note_all(state: State, thing: Any, *, wrote: bool) -> None:
    """Note that all of an object was read or, if so, changed."""
    if TRACKERS:
        tracker = TRACKERS[-1]
        tracker.touch_part(state, _WHOLE, wrote=wrote)
        if not wrote and type(thing) in _BY_KEY:
            for key in _list_keys(thing):
                tracker.touch_part(state, ("item", key), wrote=False)


def _list_keys(thing: Any) -> Iterable[Any]:
    return range(len(thing)) if isinstance(thing, (list, deque)) else tuple(thing)


def _get_key(thing: Any, key: Any) -> Any:
    """Return the key of an item; of a sequence's, counted from the beginning."""
    return key + len(thing) if isinstance(thing, (list, deque)) and isinstance(key, int) and key < 0 else key


def _has_item(thing: Any, key: Any) -> bool:
    try:
        return -len(thing) <= key < len(thing) if isinstance(thing, (list, deque)) else key in thing
    except TypeError:
        return False


@final
class Shared:
    """Stands for an object and notes each access to it."""

    __slots__ = ("_shared_state", "_shared_thing")

    def __init__(self, thing: Any, state: State) -> None:
        object.__setattr__(self, "_shared_thing", thing)
        object.__setattr__(self, "_shared_state", state)
        _note(state, _WHOLE, wrote=True)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The class of the object, for `isinstance`."""
        return type(_get(self))

    def __getattr__(self, name: str) -> Any:
        thing, state = _get(self), _get_state(self)
        value = getattr(thing, name)
        if callable(value) and not isinstance(value, type):
            return _Call(value, name, thing, state)
        _note(state, _WHOLE, wrote=False)
        _note(state, ("attribute", name), wrote=False)
        return _pass_on(value, state)

    def __setattr__(self, name: str, value: Any) -> None:
        thing, state = _get(self), _get_state(self)
        is_new = not hasattr(thing, name)
        setattr(thing, name, value)
        _note(state, _WHOLE, wrote=is_new)
        _note(state, ("attribute", name), wrote=True)

    def __delattr__(self, name: str) -> None:
        delattr(_get(self), name)
        _note(_get_state(self), _WHOLE, wrote=True)

    def __repr__(self) -> str:
        _note_all(_get_state(self), _get(self), wrote=False)
        return f"shared({_get(self)!r})"


def _get(proxy: Shared) -> Any:
    return object.__getattribute__(proxy, "_shared_thing")


def _get_state(proxy: Shared) -> State:
    state: State = object.__getattribute__(proxy, "_shared_state")
    return state


KINDS[Shared] = Kind.FIXED


def list_held(proxy: Shared) -> Iterable[Any]:
    """Return what is in a shared container: what of it can change is followed by itself."""
    thing = _get(proxy)
    return read(thing) if type(thing) in READERS else ()


def _pass_on(value: Any, state: State) -> Any:
    """Return what came out of a shared object: what cannot be followed is a part of it."""
    if type(value) is not Shared and get_kind(value) is Kind.OPAQUE:
        return Shared(value, state)
    if TRACKERS:
        TRACKERS[-1].hold(value)
    return value


@final
@attrs.frozen
class _Call:
    """A method of a shared object."""

    method: Callable[..., Any]
    name: str
    thing: Any
    state: State

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it, and note what it touches."""
        return _apply(self.method, self.name, self.thing, self.state, args, kwargs)


@final
@attrs.define(eq=False)
class _Iteration:
    """An iteration over a shared object, of which each step reads it."""

    iterator: Any
    thing: Any
    state: State

    def __iter__(self) -> _Iteration:
        return self

    def __next__(self) -> Any:
        _note_all(self.state, self.thing, wrote=False)
        return _pass_on(next(self.iterator), self.state)


def _apply(
    method: Callable[..., Any],
    name: str,
    thing: Any,
    state: State,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> Any:
    kind = type(thing)
    args = tuple(_get(one) if type(one) is Shared else one for one in args)
    by_key = name in _BY_KEY.get(kind, ()) and bool(args) and not isinstance(args[0], slice)
    had = by_key and _has_item(thing, args[0])
    try:
        value = method(*args, **(kwargs or {}))
    finally:
        if by_key:
            wrote = name in _ITEM_WRITES
            _note(state, _WHOLE, wrote=had is not _has_item(thing, args[0]))
            _note(state, ("item", _get_key(thing, args[0])), wrote=wrote and not (name == "setdefault" and had))
        else:
            read_only = name in state.reads or name in _READ_ONLY.get(kind, ())
            _note_all(state, thing, wrote=not read_only and name not in _READING)
    return _Iteration(value, thing, state) if name in ("__iter__", "__reversed__") else _pass_on(value, state)


_READING: Final = frozenset(
    f"__{name}__"
    for name in (
        "abs",
        "add",
        "and",
        "bool",
        "bytes",
        "ceil",
        "complex",
        "contains",
        "divmod",
        "eq",
        "float",
        "floor",
        "floordiv",
        "format",
        "ge",
        "getitem",
        "gt",
        "hash",
        "index",
        "int",
        "invert",
        "iter",
        "le",
        "len",
        "length_hint",
        "lshift",
        "lt",
        "matmul",
        "mod",
        "mul",
        "ne",
        "neg",
        "or",
        "pos",
        "pow",
        "radd",
        "rand",
        "reversed",
        "rmul",
        "ror",
        "round",
        "rshift",
        "rsub",
        "rxor",
        "str",
        "sub",
        "truediv",
        "trunc",
        "xor",
    )
)
_CHANGING: Final = frozenset(
    f"__{name}__"
    for name in (
        "aenter",
        "aexit",
        "aiter",
        "anext",
        "await",
        "call",
        "delitem",
        "enter",
        "exit",
        "next",
        "setitem",
    )
)
_IN_PLACE: Final = frozenset(
    f"__i{name}__"
    for name in (
        "add",
        "and",
        "concat",
        "floordiv",
        "lshift",
        "matmul",
        "mod",
        "mul",
        "or",
        "pow",
        "rshift",
        "sub",
        "truediv",
        "xor",
    )
)


def _make_forward(name: str) -> Callable[..., Any]:
    def forward(self: Shared, *args: Any, **kwargs: Any) -> Any:
        thing = _get(self)
        method = getattr(type(thing), name, None)
        if method is None:
            if name == "__bool__":
                return len(thing) > 0 if hasattr(type(thing), "__len__") else True
            if name == "__contains__":
                return any(one is args[0] or one == args[0] for one in thing)
            problem = f"{type(thing).__name__!r} object has no {name}"
            raise TypeError(problem)
        if isinstance(thing, ModuleType):
            return getattr(thing, name)(*args, **kwargs)
        return _apply(method.__get__(thing), name, thing, _get_state(self), args, kwargs)

    forward.__name__ = name
    return forward


def _make_in_place(name: str) -> Callable[..., Any]:
    operate = getattr(operator, name)

    def in_place(self: Shared, other: Any) -> Any:
        state = _get_state(self)
        thing = operate(_get(self), _get(other) if type(other) is Shared else other)
        object.__setattr__(self, "_shared_thing", thing)
        _note_all(state, thing, wrote=True)
        return self

    in_place.__name__ = name
    return in_place


for _name in _READING | _CHANGING:
    setattr(Shared, _name, _make_forward(_name))
for _name in _IN_PLACE:
    setattr(Shared, _name, _make_in_place(_name))
