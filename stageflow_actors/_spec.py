"""The definition of one stage, and of many alike."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, final

import attrs

from ._freeze import FrozenDict, freeze_mapping
from ._policy import Trigger
from ._stage import Runner, StageInputs, StageKind, inspect_runner
from ._validation import refuse, require_name, require_seconds
from .errors import NotFreezableError

if TYPE_CHECKING:
    from functools import partial

NO_CONFIG: FrozenDict[str, Any] = FrozenDict()


@final
@attrs.frozen
class Route:
    """Chosen when a router's output carries one of the labels. Made by `route`."""

    router: str
    labels: tuple[str, ...]

    def __call__(self, inputs: StageInputs) -> bool:
        """Return whether the router chose one of the labels."""
        return inputs.output(self.router).label in self.labels

    def __str__(self) -> str:
        """Return it as it was written."""
        return f"route({', '.join(map(repr, (self.router, *self.labels)))})"


Condition: TypeAlias = Route | Callable[[StageInputs], bool]


def route(router: str, *labels: str) -> Route:
    """Return the condition `when=` that a router, a declared dependency, chose one of `labels`.

    A router that gave no output, with `ALL_DONE` for a trigger, makes the stage fail.
    """
    require_name("router", router)
    if not labels:
        refuse(f"route({router!r}) needs at least one label", hint=f"write route({router!r}, 'label')")
    return Route(router, tuple(require_name("label", label) for label in labels))


@final
@attrs.frozen
class StageSpec:
    """One stage of a pipeline, checked. Made by `Pipeline.with_stage` and `parallel_stages`."""

    name: str
    runner: Runner = attrs.field(repr=False)
    kind: StageKind
    dependencies: tuple[str, ...] = ()
    config: Mapping[str, Any] = attrs.field(default=NO_CONFIG, repr=False)
    when: Condition | None = None
    trigger: Trigger = Trigger.ALL_SUCCESS
    timeout: float | None = None
    """Seconds an attempt may take, from the start of `execute`."""
    local_names: tuple[str, ...] | None = None
    """The names by which the stage knows its dependencies, where a subpipeline renamed them."""


Dependencies: TypeAlias = str | StageSpec | Iterable[str | StageSpec]


def make_spec(
    name: str,
    runner: Runner,
    kind: StageKind | None,
    dependencies: Dependencies,
    *,
    config: Mapping[str, Any] | None,
    when: Condition | None,
    trigger: Trigger,
    timeout: float | None,
    pipeline: str | None = None,
    inspected: bool = False,
) -> StageSpec:
    """Return the checked definition of a stage.

    Args:
        name: The stage's name.
        runner: What runs it.
        kind: What it is for; the runner's own unless given, else `WORK`.
        dependencies: What must have ended for it to start.
        config: Its configuration.
        when: Its condition.
        trigger: What the states of its dependencies must be.
        timeout: Seconds that an attempt may take.
        pipeline: The pipeline's name, for errors.
        inspected: Whether the runner is known to be one.

    Raises:
        PipelineValidationError: Something cannot work; the message says what.
    """
    require_name("stage name", name, pipeline=pipeline)
    if not inspected:
        inspect_runner(runner, pipeline=pipeline, stage=name)
    names = _name_dependencies(name, dependencies, pipeline)
    if kind is None:
        kind = getattr(_innermost(runner), "kind", None) or StageKind.WORK
    if kind.__class__ is not StageKind:
        kind = _read_enum(StageKind, "kind", kind, pipeline, name)
    if trigger.__class__ is not Trigger:
        trigger = _read_enum(Trigger, "trigger", trigger, pipeline, name)
    if timeout is not None:
        require_seconds("timeout", timeout, pipeline=pipeline, stage=name)
    if when is not None:
        _check_condition(name, when, names, pipeline)
    frozen = NO_CONFIG
    if config is not None:
        try:
            frozen = freeze_mapping(config, "config")
        except NotFreezableError as error:
            refuse(error.problem, pipeline=pipeline, stage=name, hint=error.hint)
        except TypeError as error:
            refuse(str(error), pipeline=pipeline, stage=name)
    return StageSpec(name, runner, kind, names, frozen, when, trigger, timeout)


def _innermost(runner: Runner | partial[Any]) -> Any:
    while hasattr(runner, "func"):
        runner = runner.func
    return runner


def _read_enum(enum: type[Any], what: str, value: object, pipeline: str | None, stage: str) -> Any:
    try:
        return enum(value)
    except ValueError:
        choices = ", ".join(f"{enum.__name__}.{member.name}" for member in enum)
        refuse(f"{what} must be one of {choices}, not {value!r}", pipeline=pipeline, stage=stage)


def _name_dependencies(stage: str, dependencies: Dependencies, pipeline: str | None) -> tuple[str, ...]:
    if dependencies.__class__ is str:
        dependencies = (dependencies,)
    elif isinstance(dependencies, StageSpec):
        dependencies = (dependencies.name,)
    elif not isinstance(dependencies, Iterable):
        hint = "give a stage's name, or an iterable of names"
        refuse(f"dependencies must be names, not {dependencies!r}", pipeline=pipeline, stage=stage, hint=hint)
    names = tuple([item.name if isinstance(item, StageSpec) else item for item in dependencies])
    for name in names:
        if not isinstance(name, str) or not name:
            refuse(f"dependencies must be names of stages, not {name!r}", pipeline=pipeline, stage=stage)
    if stage in names:
        refuse(f"{stage!r} depends on itself", pipeline=pipeline, stage=stage, hint="remove it from its dependencies")
    if len(names) > 1 and len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        refuse(f"dependency {twice!r} is named twice", pipeline=pipeline, stage=stage)
    return names


def _check_condition(stage: str, when: object, names: tuple[str, ...], pipeline: str | None) -> None:
    if isinstance(when, Route) and when.router not in names:
        hint = f"add {when.router!r} to its dependencies"
        refuse(f"when={when} names a router that is no dependency", pipeline=pipeline, stage=stage, hint=hint)
    if not callable(when):
        hint = "use route('router', 'label') or a function of the stage's inputs"
        refuse(f"when must be a route or a predicate, not {when!r}", pipeline=pipeline, stage=stage, hint=hint)


def parallel_stages(
    template: str,
    runner: Runner,
    keys: Iterable[object] | Mapping[Any, Mapping[str, Any]],
    *,
    kind: StageKind | None = None,
    dependencies: Dependencies = (),
    config: Mapping[str, Any] | None = None,
    when: Condition | None = None,
    trigger: Trigger = Trigger.ALL_SUCCESS,
    timeout: float | None = None,
) -> tuple[StageSpec, ...]:
    """Return one stage a key, all alike; give them to `Pipeline.with_stages`.

    Args:
        template: The stages' names, with `{key}` in it: `"score-{key}"`.
        runner: Runs each of them.
        keys: An iterable of keys, or a mapping of key to configuration of that stage's own. A stage finds
            its key under `ctx.config["key"]`.
        kind: As in `Pipeline.with_stage`, the same for all; so are the following.
        dependencies: What must have ended for them to start.
        config: Configuration that all share; a stage's own takes precedence.
        when: The condition of each.
        trigger: What the states of the dependencies must be.
        timeout: Seconds that an attempt of each may take.

    Raises:
        PipelineValidationError: Two keys give the same name, or something that `with_stage` refuses.
    """
    fields = [field for _, field, _, _ in string.Formatter().parse(str(template)) if field is not None]
    if not isinstance(template, str) or not fields or any(re.split(r"[.\[]", field)[0] != "key" for field in fields):
        refuse(f"the template of the names must be a string with {{key}} in it, not {template!r}")
    inspect_runner(runner)
    own: Mapping[Any, Any] = keys if isinstance(keys, Mapping) else {}
    names = _name_dependencies("", dependencies, None)
    specs: dict[str, StageSpec] = {}
    for key in keys:
        name = template.format(key=key)
        if name in specs:
            first = specs[name].config["key"]
            refuse(f"the keys {first!r} and {key!r} give two stages the name {name!r}", hint="make the keys distinct")
        extra = own.get(key) or {}
        if not isinstance(extra, Mapping):
            refuse(f"the configuration of key {key!r} must be a mapping, not {extra!r}", stage=name)
        merged = {"key": key, **(config or {}), **extra}
        specs[name] = make_spec(
            name, runner, kind, names, config=merged, when=when, trigger=trigger, timeout=timeout, inspected=True
        )
    return tuple(specs.values())
