"""Values as the shortest expression that makes them, for failing examples that a person reads."""

from __future__ import annotations

import inspect
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from stageflow_actors import Backoff, ContextSnapshot, Pipeline, Restart, StageKind, StageOutput, StageSpec, StageStatus
from stageflow_actors._spec import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTRS: Final = (Backoff, ContextSnapshot, Restart)


class Brief:
    """An attrs class's base: its repr leaves out what is left to its default."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _write_attrs(self)

    def _repr_pretty_(self, printer: Any, _cycle: object) -> None:
        """Keep Hypothesis from printing every field."""
        printer.text(repr(self))


def brief(value: object) -> str:
    """Return the expression; that of a pipeline has a line for each of several stages."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    if isinstance(value, Route):
        return str(value)
    if type(value) is tuple:
        return f"({', '.join(map(brief, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, partial):
        return _call("partial", value.func, *value.args, **value.keywords)
    if isinstance(value, Pipeline):
        return _write_pipeline(value)
    if isinstance(value, StageOutput):
        return _write_output(value)
    return _write_attrs(value) if isinstance(value, _ATTRS) else repr(value)


def _call(function: str, *arguments: object, **options: object) -> str:
    written = [*map(brief, arguments), *(f"{name}={brief(value)}" for name, value in options.items())]
    return f"{function}({', '.join(written)})"


def _write_attrs(value: Any) -> str:
    needed = []
    chosen = {}
    for field in attrs.fields(type(value)):
        held = getattr(value, field.name)
        if field.default is attrs.NOTHING and not field.kw_only:
            needed.append(held)
        elif held != _make_default(field):
            chosen[field.name] = held
    return _call(type(value).__name__, *needed, **chosen)


def _make_default(field: attrs.Attribute[Any]) -> object:
    default: Any = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]  # it is a class


def _write_output(output: StageOutput) -> str:
    method: str = output.status.value
    arguments: list[object] = []
    if output.label is not None:
        method = "route"
        arguments.append(output.label)
    elif output.status in (StageStatus.FAIL, StageStatus.RETRY):
        arguments.append(output.error)
    elif output.reason or (output.data and output.status is not StageStatus.OK):
        arguments.append(output.reason)
    if output.data:
        arguments.append(output.data)
    return _call(f"StageOutput.{method}", *arguments, **({"after": output.after} if output.after else {}))


def _write_pipeline(pipeline: Pipeline) -> str:
    calls = [f".with_stage({', '.join(_list_arguments(spec))})" for spec in pipeline.stages]
    separator = "\n    " if len(calls) > 1 else ""
    return separator.join([f"Pipeline({pipeline.name!r})", *calls])


def _list_arguments(spec: StageSpec) -> Iterator[str]:
    yield repr(spec.name)
    yield brief(spec.runner)
    needed: object = spec.dependencies[0] if len(spec.dependencies) == 1 else spec.dependencies
    options: dict[str, tuple[object, object]] = {
        "kind": (spec.kind, getattr(spec.runner, "kind", StageKind.WORK)),
        "dependencies": (needed, ()),
        "config": (spec.config, {}),
        **{name: (getattr(spec, name), _DEFAULTS[name]) for name in _OPTIONS},
    }
    yield from (f"{name}={brief(value)}" for name, (value, default) in options.items() if value != default)


_OPTIONS: Final = ("when", "trigger", "restart", "timeout", "limiter", "priority")
_DEFAULTS: Final = {field.name: field.default for field in attrs.fields(StageSpec)}
