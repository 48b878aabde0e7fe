"""What a step has read and written of all that no class tells of: cells, globals, containers.

A step is taken to have read whatever it could reach; what it has written is seen by comparing that with what it held
before. That is enough, whatever the step did in between: a step that has changed nothing and one that has changed
nothing that the first could reach have the same effect in either order.
"""

from __future__ import annotations

import builtins
import gc
import random
import types
import weakref
from operator import is_
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from .code import map_code
from .kinds import KINDS, READERS, STRICT_ITERATORS, Kept, Kind, Slot, Unseen, get_kind, read
from .modules import HARMLESS, UNSEEN_BUILTINS, is_pure, is_standard
from .shared import Shared, list_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextvars import Context

    from .code import Names
    from .events import Key, Name

_MOST: Final = 20_000
"""Objects that a step may reach before they are called too many to be followed."""

_SAME_IF_EQUAL: Final = frozenset({int, str, bytes, Kept})
ATOM: Final = Kind.ATOM
HOLDER: Final = Kind.HOLDER


@final
@attrs.define(eq=False)
class _Known:
    """A holder, with what it held when it was last looked at."""

    holder: Any
    key: Key
    held: Sequence[Any]
    is_watched: bool = False
    """Whether somebody iterates over it."""


@final
class Found:
    """What a step could reach."""

    def __init__(self) -> None:
        self.holders: dict[Key, bool] = {}
        """Whether each has changed."""
        self.fresh = set[int]()
        """Those of them that the step has made."""
        self.unseen: dict[str, None] = {}
        """Names of what may have state that nobody sees."""
        self.mourned: dict[str, None] = {}
        """Those of them that show when something is gone: what is tracked is kept."""
        self.tellers: list[Any] = []
        """Objects whose class tells."""
        self.untold: dict[type, None] = {}
        """Classes that could tell, and do not yet."""
        self.open: list[Any] = []
        """What is still to be looked at."""


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    kind = type(one)
    return kind is type(other) and kind in _SAME_IF_EQUAL and bool(one == other)


def are_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether two holders hold the same, or what was one holds the same as before."""
    return len(one) == len(other) and (all(map(is_, one, other)) or all(map(_is_same, one, other)))


@final
class Heap:
    """All holders that were met in an execution.

    Args:
        make_key: Gives a new key for something with a name.
        make_name: Names what is met first in the step that is being made.
        tells: Whether instances of a class tell of accesses.
    """

    def __init__(
        self, make_key: Callable[[Name], Key], make_name: Callable[[], Name], tells: Callable[[type], bool]
    ) -> None:
        self._make_key = make_key
        self._make_name = make_name
        self._tells = tells
        self._known: dict[int, _Known] = {}
        self._slots: dict[tuple[int, str], Slot] = {}
        self._old: dict[int, Any] = {}
        """Holders that outlive an execution."""
        self._before: dict[int, _Known] = {}
        """Those of the execution before."""
        self.has_news = False
        """Whether one was met that is from before the execution, and was not known as such."""

    def begin(self) -> None:
        """Begin an execution."""
        self._before = self._known
        self._known = {}
        for number, holder in enumerate(self._old.values()):
            key = self._make_key(_name_lasting(holder) or ("old", number))
            self._known[id(holder)] = _Known(holder, key, _read(holder))
        self.has_news = False

    def explore(self, program: Any) -> tuple[list[Any], list[type]]:
        """Find what is there before the first execution: all that is reached from the program.

        Returns:
            The objects of classes that tell or could tell, and the classes that the program names.
        """
        tellers: dict[int, Any] = {}
        untold: dict[type, None] = {}
        roots: list[Any] = [program]
        while roots and len(tellers) < _MOST:
            found = self.scan(roots, None)
            untold |= found.untold
            fresh = [thing for thing in found.tellers if id(thing) not in tellers]
            tellers.update((id(thing), thing) for thing in fresh)
            roots = [held for thing in fresh for held in gc.get_referents(thing)]
        self._old = {number: known.holder for number, known in self._known.items()}
        tellers |= {number: thing for number, thing in self._old.items() if get_kind(thing) is Kind.TELLS}
        return list(tellers.values()), [*(thing for thing in self._old.values() if isinstance(thing, type)), *untold]

    def let_go(self) -> None:
        """Hold nothing any more of the execution that was the last."""
        self._known = {}
        self._before = {}

    def get_slot(self, table: dict[str, Any], name: str) -> Slot:
        """Return the global of this name."""
        slot = self._slots.get((id(table), name))
        if slot is None:
            slot = self._slots[id(table), name] = Slot(table, name)
        return slot

    def iterate_globals(self, names: Names, table: dict[str, Any], function: str) -> Iterable[Any]:
        """Yield what code with these names reaches through the globals of its module.

        Args:
            names: What it refers to.
            table: The globals.
            function: The name of the function that it is of.
        """
        if not names.attributes.isdisjoint(_AROUND) and function not in _AROUND_FOR_ITSELF:
            yield Unseen(f"what {function} reads or writes around a class")
        if not names.attributes.isdisjoint(_OF_LOOP) or not names.globals.isdisjoint(_OF_LOOP):
            yield Unseen(f"what {function} has to do with trio's loop, or with all subclasses")
        for name in names.globals:
            if name in table or name not in BUILTINS:
                yield self.get_slot(table, name)
                if name not in table:
                    yield self.get_slot(vars(builtins), name)
                value = table.get(name)
                if isinstance(value, types.ModuleType):
                    yield from self._iterate_module(value, names)
            elif name in UNSEEN_BUILTINS:
                yield getattr(builtins, name)
        yield from (Unseen(f"the module {name}") for name in names.imports if not is_pure(name))

    def _iterate_module(self, module: types.ModuleType, names: Names) -> Iterable[Any]:
        """Yield what is reached through a module by the attributes that are named beside it."""
        name = module.__name__
        if module is random:
            yield random.random.__self__  # type: ignore[attr-defined]  # whose methods the module's functions are
        if module is builtins:
            yield from (self.get_slot(vars(module), one) for one in names.attributes if one not in BUILTINS)
        if is_pure(name):
            return
        if name in HARMLESS and names.attributes & vars(module).keys() <= HARMLESS[name]:
            return
        if is_standard(name) or not getattr(module, "__file__", "x.py").endswith((".py", ".pyc")):
            yield Unseen(f"the module {name}", is_alone=name == "weakref")
            return
        if not names.globals.isdisjoint(_BY_TEXT) or "__dict__" in names.attributes:
            yield Unseen(f"the module {name}")  # which of its attributes, nobody can say
        for attribute in names.attributes:
            if attribute in vars(module):
                yield self.get_slot(vars(module), attribute)
                value = vars(module)[attribute]
                if isinstance(value, types.ModuleType):
                    yield from self._iterate_module(value, names)

    def scan(self, roots: Iterable[Any], context: Context | None) -> Found:
        """Look at all that is reached from some objects, and remember it.

        Args:
            roots: Where to begin.
            context: That of the task, in which context variables have their values.
        """
        found = Found()
        open_ones = found.open
        open_ones += roots
        seen = set[int]()
        kept: list[Any] = []  # so that no identity is given twice while this looks around
        kinds, known = KINDS, self._known
        while open_ones:
            thing = open_ones.pop()
            sort = type(thing)
            kind = kinds.get(sort) or get_kind(thing)
            if kind is ATOM:
                continue
            number = id(thing)
            if number in seen:
                continue
            seen.add(number)
            kept.append(thing)
            if kind is not HOLDER:
                self._open(thing, kind, context, found)
            elif (met := known.get(number)) is None:
                self._meet(thing, found)
            else:
                held = READERS.get(sort, read)(thing)
                self._compare(met, held, found)
                if sort in STRICT_ITERATORS:
                    self._watch(thing, found)
            if len(seen) > _MOST:
                found.unseen["more objects than can be followed"] = None
                break
        return found

    def _watch(self, iterator: Any, found: Found) -> None:
        """Take whoever can reach what is iterated over to change it: even if it is the same again, that is an error."""
        for holder in gc.get_referents(iterator):
            known = self._known.get(id(holder))
            if known is not None:
                known.is_watched = True
                found.holders[known.key] = found.holders.get(known.key, False)

    def _open(self, thing: Any, kind: Kind, context: Context | None, found: Found) -> None:  # noqa: C901, PLR0912 (a case a kind)
        sort = type(thing)
        if kind is Kind.TELLS:
            if self._tells(sort):
                found.tellers.append(thing)
            else:
                found.untold[sort] = None
                self._look(thing, found)
            found.open.append(sort)
        elif kind is Kind.FIXED:
            found.open += _iterate_fixed(thing)
        elif kind is Kind.FUNCTION:
            found.open += self._open_function(thing)
            if sort is types.FunctionType and not is_pure(thing.__module__):
                self._look(thing, found)
        elif kind is Kind.CLASS:
            if not is_pure(thing.__module__):
                self._look(thing, found)
                found.open += (*thing.__bases__, sort)
        elif kind is Kind.VARIABLE:
            if context is not None and thing in context:
                found.open.append(context[thing])
        elif sort is Unseen:
            found.unseen[thing.name] = None
            if thing.is_alone:
                found.mourned[thing.name] = None
        elif kind is not Kind.MODULE:
            name = f"{sort.__module__}.{sort.__qualname__}".removeprefix("builtins.")
            found.unseen[name] = None
            if issubclass(sort, weakref.ReferenceType) or hasattr(sort, "__del__"):
                found.mourned[name] = None
        elif not is_pure(thing.__name__):
            found.unseen[f"the module {thing.__name__}"] = None

    def _look(self, holder: Any, found: Found) -> None:
        known = self._known.get(id(holder))
        if known is None:
            self._meet(holder, found)
        else:
            self._compare(known, _read(holder), found)

    def _compare(self, known: _Known, held: Sequence[Any], found: Found) -> None:
        same = are_same(known.held, held)
        found.holders[known.key] = not same or known.is_watched
        if not same:
            found.open += known.held
            known.held = held
        found.open += held

    def _meet(self, holder: Any, found: Found) -> None:
        name = _name_lasting(holder)
        before = self._before.get(id(holder))
        is_old = name is not None or (before is not None and before.holder is holder)
        if is_old:
            self.has_news = self.has_news or name is None
            name = name or ("old", len(self._old))
            self._old[id(holder)] = holder
        key = self._make_key(name or self._make_name())
        held = _read(holder)
        self._known[id(holder)] = _Known(holder, key, held)
        found.holders[key] = True  # what it held before is not known
        if not is_old:
            found.fresh.add(key)
        found.open += held

    def _open_function(self, function: Any) -> Iterable[Any]:
        """Return what a function could reach when it is called."""
        if isinstance(function, types.BuiltinFunctionType):
            owner = function.__self__
            if owner is None or isinstance(owner, types.ModuleType):
                return () if _is_known_builtin(function) else (Unseen(_tell_builtin(function)),)
            return (owner,)
        reached: list[Any] = [
            *(function.__closure__ or ()),
            *(function.__defaults__ or ()),
            *(function.__kwdefaults__ or {}).values(),
        ]
        module = function.__module__
        if is_pure(module):
            return reached
        if is_standard(module):
            return [*reached, Unseen(f"the module {module}")]
        names = map_code(function.__code__).whole
        return [*reached, *self.iterate_globals(names, function.__globals__, function.__name__)]


def _name_lasting(holder: Any) -> Name | None:
    """Return the name of what is from before the program, as a rule."""
    if type(holder) is Slot:
        return "global", holder.table.get("__name__"), holder.name
    if isinstance(holder, type) and "<locals>" not in holder.__qualname__:
        return "class", holder.__module__, holder.__qualname__
    if type(holder) is types.FunctionType and "<locals>" not in holder.__qualname__:
        return "function", holder.__module__, holder.__qualname__
    return None


def _read(holder: Any) -> Sequence[Any]:
    if type(holder) is types.FunctionType:
        attributes = (one for item in holder.__dict__.items() for one in item)
        return holder.__defaults__, holder.__kwdefaults__, holder.__code__, *attributes
    if isinstance(holder, type):
        own = [one for name, one in vars(holder).items() if name in _SPECIAL or not name.startswith("__")]
        return [holder.__bases__, *own]
    return read(holder)


_AROUND: Final = frozenset(
    {
        "__setattr__",
        "__getattribute__",
        "__delattr__",
        "__get__",
        "__set__",
        "__delete__",
        "__setstate__",
        "__reduce_ex__",
    }
)
"""What reads and writes attributes without a word of their class."""
_AROUND_FOR_ITSELF: Final = _AROUND | {"__init__", "__post_init__", "__getattr__", "__set_name__"}
"""Functions that may: they are part of the class, or make an object that nobody knows yet."""
_BY_TEXT: Final = frozenset({"delattr", "dir", "getattr", "hasattr", "setattr", "vars"})
"""What reads and writes attributes whose names stand nowhere."""
_OF_LOOP: Final = frozenset(
    {
        "__subclasses__",
        "child_nurseries",
        "current_root_task",
        "current_statistics",
        "current_task",
        "eventual_parent_nursery",
        "run_sync_soon",
    }
)
"""What tells how it stands with other tasks, and the like."""

BUILTINS: Final = frozenset(vars(builtins))

_SPECIAL: Final = frozenset(
    {f"__{name}__" for name in ("init", "new", "call", "enter", "exit", "aenter", "aexit", "await", "iter", "next")}
    | {f"__{name}__" for name in ("aiter", "anext", "len", "bool", "contains", "getitem", "setitem", "delitem")}
    | {f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "hash", "repr", "str", "format", "del")}
    | {f"__{name}__" for name in ("add", "sub", "mul", "iadd", "isub", "or", "and", "ior", "iand", "getattr")}
    | {f"__{name}__" for name in ("get", "set", "set_name", "delete", "index", "int", "float", "neg", "post_init")}
)
"""Methods that are called without being named. Those that telling has put there are not among them."""


def _iterate_fixed(thing: Any) -> Iterable[Any]:
    if type(thing) is types.MethodType:
        return thing.__self__, thing.__func__
    if type(thing) is Shared:
        return list_held(thing)
    if isinstance(thing, (tuple, frozenset)):
        return thing
    return gc.get_referents(thing)


def _is_known_builtin(function: Any) -> bool:
    module = function.__module__
    if module == "builtins":
        return function.__name__ not in UNSEEN_BUILTINS
    return module is None or is_pure(module) or function.__name__ == "get_ident"


def _tell_builtin(function: Any) -> str:
    return f"{function.__name__}()" if function.__module__ == "builtins" else f"the module {function.__module__}"
