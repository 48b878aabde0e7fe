"""What comes along of the context of a run into a worker process."""

from __future__ import annotations

import contextvars
import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from stageflow_actors._validation import refuse
from stageflow_actors.errors import NotPicklableError, StageflowError

from ._errors import tell
from ._parcel import Carrier, require_picklable

if TYPE_CHECKING:
    from collections.abc import Callable

_MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""The names of the module that is the program: a worker has it without what it does only as the program."""


def make_carrier(carried: object) -> Carrier:
    """Return how something is carried along that is named in `carry`.

    Raises:
        PipelineValidationError: It is neither a Carrier nor a context variable that a worker finds.
    """
    if isinstance(carried, Carrier):
        require_picklable("the restore of a Carrier", carried.restore)
        return Carrier(partial(_call, "capture", carried.capture), partial(_call, "restore", carried.restore))
    if not isinstance(carried, contextvars.ContextVar):
        refuse(f"carry takes context variables and Carriers, not {carried!r}")
    module = _find_module(carried)
    return Carrier(partial(_capture, carried), partial(_restore, *module))


def _call(what: str, function: Callable[..., Any], *args: object) -> Any:
    try:
        return function(*args)
    except Exception as error:  # it is the user's
        name = getattr(function, "__qualname__", None) or repr(function)
        raise StageflowError(f"{what} of its Carrier, {name}, raised {tell(error)}") from error


def _find_module(variable: contextvars.ContextVar[Any]) -> tuple[str, str]:
    """Return the module that a context variable is a global of, and its name there: so it is found in a worker."""
    modules = sorted(sys.modules.items(), key=lambda item: item[0] in _MAIN)
    for module, loaded in modules:
        for name, value in list(getattr(loaded, "__dict__", {}).items()):
            if value is variable:
                return module, name
    hint = "make it one, or carry what is needed of it with a Carrier"
    refuse(f"the context variable {variable.name!r} is no global of a module", hint=hint)


def _capture(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """Return the value in a tuple, which is empty where there is none."""
    try:
        return (variable.get(),)
    except LookupError:
        return ()


def _restore(module: str, name: str, captured: tuple[Any, ...]) -> None:
    if not captured:
        return
    try:
        variable: contextvars.ContextVar[Any] = getattr(importlib.import_module(module), name)
    except Exception as error:  # what is imported may raise anything
        problem = f"its worker process does not find the context variable {name!r} of {module}: {tell(error)}"
        raise NotPicklableError(problem, hint="make it a global of a module that is imported everywhere") from error
    variable.set(*captured)
