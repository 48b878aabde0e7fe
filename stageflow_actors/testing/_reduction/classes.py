"""Classes whose instances tell of each attribute that is read or written, while a program is explored."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ClassMethodDescriptorType, FunctionType, MethodDescriptorType, WrapperDescriptorType
from typing import TYPE_CHECKING, Any, Final, final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

_OF_C: Final = (WrapperDescriptorType, MethodDescriptorType, ClassMethodDescriptorType)
"""How methods of classes look that are written in C."""
_HEAP_TYPE: Final = 1 << 9
_HOOKED: Final = ("__getattribute__", "__setattr__", "__delattr__")

_RUN_PARTS: Final[dict[str, frozenset[str]]] = {
    # The rest of these belongs to the scheduler, which is the toolkit's own affair.
    "CancelStatus": frozenset({"effectively_cancelled"}),
    "Nursery": frozenset({"child_tasks", "_closed", "_pending_excs", "_nested_child_running"}),
}


def get_attributes_told(kind: type) -> frozenset[str] | None:
    """Return which attributes of a class are told of; None for all."""
    return _RUN_PARTS.get(kind.__name__) if kind.__module__.partition(".")[0] == "trio" else None


def is_from_python(kind: type) -> bool:
    """Return whether a class was made by Python code, as far as can be seen."""
    if not kind.__flags__ & _HEAP_TYPE:
        return False
    if any(type(one) in _OF_C and one.__objclass__ is kind for one in vars(kind).values()):
        return False
    module = sys.modules.get(kind.__module__)
    if kind.__module__ in sys.builtin_module_names and kind.__module__ != "builtins":
        return False
    file = getattr(module, "__file__", None)  # none in a shell, and a script's may end as it likes
    return file is None or not file.endswith(tuple(EXTENSION_SUFFIXES))


def can_tell(kind: type) -> bool:
    """Return whether a class can be made to tell: nothing of its instances may be kept outside their attributes."""
    from_python = all(base is object or is_from_python(base) for base in kind.__mro__)
    return from_python and not issubclass(kind, type)


@final
class Telling:
    """The classes that tell, all at once or none.

    Args:
        tell: Is told the object, the attribute's name, its value, and whether it was written.
    """

    def __init__(self, tell: Callable[[Any, str, Any, bool], None]) -> None:
        self._tell = tell
        self._hooks: dict[type, dict[str, Any]] = {}
        self._before: dict[type, dict[str, Any]] = {}
        self.is_on = False

    def __contains__(self, kind: type) -> bool:
        return kind in self._hooks

    def add(self, kind: type) -> None:
        """Have a class tell from now on, whenever telling is on."""
        if kind not in self._hooks:
            self._hooks[kind] = _make_hooks(kind, self._tell)
            if self.is_on:
                self._hook(kind)

    def turn(self, *, on: bool) -> None:
        """Have all of them tell, or none."""
        if on is not self.is_on:
            self.is_on = on
            for kind in self._hooks:
                if on:
                    self._hook(kind)
                else:
                    self._unhook(kind)

    def _hook(self, kind: type) -> None:
        self._before[kind] = {name: kind.__dict__[name] for name in _HOOKED if name in kind.__dict__}
        for name, function in self._hooks[kind].items():
            setattr(kind, name, function)

    def _unhook(self, kind: type) -> None:
        before = self._before.pop(kind)
        for name in self._hooks[kind]:
            if name in before:
                setattr(kind, name, before[name])
            else:
                delattr(kind, name)


_MINE: Final = "_tells_of_attributes"


def _find(kind: type, name: str) -> Any:
    """Return what a class does for an attribute, without hooks."""
    for base in kind.__mro__:
        found = base.__dict__.get(name)
        if found is not None and not hasattr(found, _MINE):
            return found
    raise AttributeError(name)


_METHODS: Final[WeakKeyDictionary[type, frozenset[str]]] = WeakKeyDictionary()


def _list_methods(kind: type) -> frozenset[str]:
    """Return the names of a class under which a function is found, unless an object has something of its own there."""
    found = _METHODS.get(kind)
    if found is None:
        tables = [vars(base) for base in kind.__mro__]
        names = dict.fromkeys(name for table in tables for name in table)
        first = {name: next(table[name] for table in tables if name in table) for name in names}
        found = _METHODS[kind] = frozenset(name for name, value in first.items() if type(value) is FunctionType)
    return found


def _make_hooks(  # noqa: C901 (three small functions)
    kind: type, tell: Callable[[Any, str, Any, bool], None]
) -> dict[str, Any]:
    get, put, drop = (_find(kind, name) for name in _HOOKED)
    told = get_attributes_told(kind)
    methods = _list_methods(kind)

    def getattribute(self: Any, name: str) -> Any:
        __tracebackhide__ = True
        try:
            value = get(self, name)
        except AttributeError:
            if told is None or name in told:
                tell(self, name, None, False)
            raise
        if name not in methods and (told is None or name in told):
            tell(self, name, value, False)
        return value

    def setattr_(self: Any, name: str, value: Any) -> None:
        __tracebackhide__ = True
        put(self, name, value)
        if name in methods:
            tell(self, "__dict__", None, False)  # nobody tells when a method is looked up
        elif told is None or name in told:
            tell(self, name, value, True)

    def delattr_(self: Any, name: str) -> None:
        __tracebackhide__ = True
        drop(self, name)
        if name in methods:
            tell(self, "__dict__", None, False)
        elif told is None or name in told:
            tell(self, name, None, True)

    hooks: dict[str, Any] = dict(zip(_HOOKED, (getattribute, setattr_, delattr_), strict=True))
    for function in hooks.values():
        setattr(function, _MINE, True)
    return hooks
