"""The objects of an execution that tell of their attributes, and what they are called in others."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, final

import attrs

from .heap import are_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import trio

    from .events import Key, Name


@final
@attrs.define(eq=False)
class Met:
    """An object that was met."""

    get: Callable[[], Any]
    """Returns it, or None where it is gone."""
    name: Name
    keys: dict[Any, Key] = attrs.field(factory=dict)
    """By attribute or part."""
    held: Sequence[Any] | None = None
    """What it held when it was last looked at."""


def _return(thing: Any) -> Any:
    return thing


@final
class Objects:
    """The objects that tell, by their identity.

    An object that a step has made is called by that step: it is made by the same step in every execution that has it.

    Args:
        make_name: Names what is met first in the step that is being made.
    """

    def __init__(self, make_name: Callable[[], Name]) -> None:
        self._make_name = make_name
        self._old: dict[int, Met] = {}
        """Those that outlive an execution."""
        self._before: dict[int, Met] = {}
        """Those of the execution before."""
        self._met: dict[int, Met] = {}
        self.has_news = False
        """Whether one was met that is from before the execution, and was not known as such."""

    def adopt(self, things: Iterable[Any]) -> None:
        """Note objects that were there before the first execution."""
        for thing in things:
            if id(thing) not in self._old:
                self._old[id(thing)] = Met(partial(_return, thing), ("old", len(self._old)))

    def begin(self, nursery: trio.Nursery) -> None:
        """Begin an execution in a nursery: what is around it is another in each run of trio, and called the same."""
        self._before = self._met
        self._met = {number: Met(met.get, met.name) for number, met in self._old.items()}
        self.has_news = False
        status: Any = nursery._cancel_status  # noqa: SLF001 (no public way leads from a nursery to it)
        around = [nursery, nursery.cancel_scope]
        while status is not None:
            around.append(status)
            status = status.parent
        for number, thing in enumerate(around):
            self._met[id(thing)] = Met(weakref.ref(thing), ("around", number))

    def let_go(self) -> None:
        """Hold nothing any more of the execution that was the last."""
        self._met = {}
        self._before = {}

    def find(self, thing: Any) -> Met | None:
        """Return what is known of an object; None if it was not met."""
        met = self._met.get(id(thing))
        return met if met is not None and met.get() is thing else None

    def meet(self, thing: Any) -> Met:
        """Return what is known of an object, and name it if it was not met."""
        number = id(thing)
        met = self._met.get(number)
        if met is not None and met.get() is thing:
            return met
        try:
            get: Callable[[], Any] = weakref.ref(thing)
        except TypeError:
            get = partial(_return, thing)
        before = self._before.get(number)
        if before is not None and before.get() is thing:
            met = self._old[number] = Met(get, ("old", len(self._old)))
            self.has_news = True
        else:
            met = Met(get, self._make_name())
        self._met[number] = met
        return met

    def has_changed(self, thing: Any) -> bool:
        """Return whether an object holds something else than when it was last looked at."""
        met = self.meet(thing)
        held = gc.get_referents(thing)
        before, met.held = met.held, held
        return before is not None and not are_same(before, held)
