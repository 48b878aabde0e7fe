"""Command line settings, `KEY=VALUE`, as the arguments of a function."""

from __future__ import annotations

import inspect
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

from stageflow_actors._bag import describe_error
from stageflow_actors._validation import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BOOLEANS: Final = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def _read_bool(value: str) -> bool:
    return _BOOLEANS[value.lower()]


def _read_path(value: str) -> Path:
    return Path(value).expanduser()


_READERS: Final[Mapping[Any, tuple[str, Callable[[str], Any]]]] = {
    str: ("a string", str),
    int: ("a whole number", int),
    float: ("a number", float),
    bool: ("true or false", _read_bool),
    Path: ("a path", _read_path),
}


def bind_settings(function: Callable[..., Any], name: str, settings: Mapping[str, str]) -> inspect.BoundArguments:
    """Return the arguments for a function that `settings` give, converted to the types of its annotations.

    Raises:
        ValueError: A setting is unknown, missing, or cannot be converted; the message says what to do.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # annotations are anybody's code
        problem = f"the annotations of {name}() cannot be read: {describe_error(error)}"
        raise ValueError(f"{problem}; import what they name outside `if TYPE_CHECKING`") from None
    parameters = {
        key: parameter
        for key, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    arguments = signature.bind_partial()
    for key, value in settings.items():
        if key not in parameters:
            takes = f"it takes {', '.join(parameters)}" if parameters else "it takes none"
            raise ValueError(
                f"--set {key}={value}: {name}() has no parameter {key!r}; {nearest(key, parameters) or takes}"
            )
        arguments.arguments[key] = _convert(parameters[key], name, value)
    for key, parameter in parameters.items():
        if key not in arguments.arguments and parameter.default is parameter.empty:
            what, _ = _find_reader(parameter, name)
            raise ValueError(f"{name}() needs {key!r}, {what}; give it: --set {key}=VALUE")
    return arguments


def _convert(parameter: inspect.Parameter, name: str, value: str) -> Any:
    what, read = _find_reader(parameter, name)
    try:
        return read(value)
    except (ValueError, KeyError):
        message = (
            f"--set {parameter.name}={value}: parameter {parameter.name!r} of {name}() must be {what}, not {value!r}"
        )
        raise ValueError(message) from None


def _find_reader(parameter: inspect.Parameter, name: str) -> tuple[str, Callable[[str], Any]]:
    """Return what a parameter wants, in words, and how to read it."""
    wanted = parameter.annotation
    if wanted is parameter.empty:
        wanted = type(parameter.default) if type(parameter.default) in _READERS else str
    if get_origin(wanted) in (Union, types.UnionType):
        options = [option for option in get_args(wanted) if option is not type(None)]
        wanted = options[0] if len(options) == 1 else wanted
    if wanted not in _READERS:
        shown = getattr(wanted, "__qualname__", str(wanted))
        known = ", ".join(known.__name__ for known in _READERS)
        message = f"--set cannot make the {shown} that parameter {parameter.name!r} of {name}() wants; it makes {known}"
        raise ValueError(message)
    return _READERS[wanted]
