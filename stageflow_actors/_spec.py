"""The definition of one stage, and of many alike."""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, final

import attrs

from ._freeze import FrozenDict, freeze_mapping
from ._limits import LimiterBase, require_priority
from ._placement import Placement, check_placement
from ._policy import Intensity, Restart, Trigger, check_window
from ._stage import Runner, StageInputs, StageKind, inspect_runner
from ._validation import nearest, refuse, require_name, require_seconds
from .errors import NotFreezableError

NO_CONFIG: FrozenDict[str, Any] = FrozenDict()


@final
@attrs.frozen
class Route:
    """Chosen when a router's output carries one of the labels. Made by `route`."""

    router: str
    labels: tuple[str, ...]

    def __call__(self, inputs: StageInputs) -> bool:
        """Return whether the router chose one of the labels; one that gave no output chose none."""
        output = inputs.outputs.get(self.router)
        return output is not None and output.label in self.labels

    def __str__(self) -> str:
        """Return it as it was written."""
        return f"route({', '.join(map(repr, (self.router, *self.labels)))})"


Condition: TypeAlias = Route | Callable[[StageInputs], bool]


def name_condition(when: Condition) -> str:
    """Return a condition as a reason names it."""
    return getattr(when, "__qualname__", None) or str(when)


def route(router: str, *labels: str) -> Route:
    """Return the condition `when=` that a router, a declared dependency, chose one of `labels`.

    A router that gave no output chose none.
    """
    require_name("router", router)
    if not labels:
        refuse(f"route({router!r}) needs at least one label", hint=f"write route({router!r}, 'label')")
    for label in labels:
        if not isinstance(label, str) or not label:
            hint = f"give labels one by one: route({router!r}, 'x', 'y')"
            refuse(f"label must be a non-empty string, not {label!r}", hint=hint)
    return Route(router, labels)


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
    restart: Restart | None = None
    """When it is run again after a failure."""
    limiter: LimiterBase | None = None
    """What it needs a slot of to run."""
    priority: int = 0
    """How urgent it is among those that wait for the same limiter; a larger one is more urgent."""
    placement: Placement | None = None
    """Where it runs, if that is neither the run's loop nor a thread of the supervisor."""
    local_names: tuple[str, ...] | None = None
    """The names by which the stage knows its dependencies, where a subpipeline renamed them."""
    intensity: tuple[str, Intensity] | None = None
    """The innermost subpipeline around it that counts its restarts itself: its name, and how many it allows."""


Dependencies: TypeAlias = str | StageSpec | Iterable[str | StageSpec]


def make_spec(  # noqa: C901 (one check after the other)
    name: str,
    runner: Runner,
    kind: StageKind | None,
    dependencies: Dependencies,
    *,
    config: Mapping[str, Any] | None = None,
    when: Condition | None = None,
    trigger: Trigger = Trigger.ALL_SUCCESS,
    restart: Restart | None = None,
    timeout: float | None = None,
    limiter: LimiterBase | None = None,
    priority: int = 0,
    placement: Placement | None = None,
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
        restart: When it is run again.
        timeout: Seconds that an attempt may take.
        limiter: What it needs a slot of.
        priority: How urgent it is there.
        placement: Where it runs.
        pipeline: The pipeline's name, for errors.
        inspected: Whether the runner is known to be one, and to fit its placement.

    Raises:
        PipelineValidationError: Something cannot work; the message says what.
    """
    require_name("stage name", name, pipeline=pipeline)
    if not inspected:
        inspect_runner(runner, pipeline=pipeline, stage=name)
    names = _name_dependencies(name, dependencies, pipeline)
    own_kind = kind is None
    if kind is None:
        kind = getattr(innermost(runner), "kind", None) or StageKind.WORK
    if kind.__class__ is not StageKind:
        mistaken = isinstance(kind, str) and not own_kind
        hint = f"if this one needs a stage {kind!r}, write dependencies={kind!r}" if mistaken else None
        kind = _read_enum(StageKind, "kind", kind, pipeline, name, hint)
    if trigger.__class__ is not Trigger:
        trigger = _read_enum(Trigger, "trigger", trigger, pipeline, name)
    if timeout is not None:
        require_seconds("timeout", timeout, pipeline=pipeline, stage=name)
    if restart is not None or limiter is not None or priority:
        _check_policies(restart, timeout, limiter, priority, runner, pipeline, name)
    if placement is not None and not inspected:
        check_placement(placement, runner, pipeline, name)
    if when is not None:
        _check_condition(name, when, names, pipeline)
    source = getattr(runner, "source", None)
    if source is not None and getattr(runner, "_is_container", False) and source not in names:
        hint = f"add {source!r} to its dependencies"
        refuse(f"its items come from {source!r}, which is no dependency", pipeline=pipeline, stage=name, hint=hint)
    frozen = NO_CONFIG
    if config is not None:
        try:
            frozen = freeze_mapping(config, "config")
        except NotFreezableError as error:
            refuse(error.problem, pipeline=pipeline, stage=name, hint=error.hint)
        except TypeError as error:
            refuse(str(error), pipeline=pipeline, stage=name)
    return StageSpec(name, runner, kind, names, frozen, when, trigger, timeout, restart, limiter, priority, placement)


def check_restart(
    restart: object, timeout: float | None, pipeline: str | None = None, stage: str | None = None
) -> None:
    """Refuse what is no `Restart`, and a window that attempts which run into their timeout can never trip."""
    if not isinstance(restart, Restart):
        hint = "write restart=Restart(max_restarts=3)"
        refuse(f"restart must be a Restart, not {restart!r}", pipeline=pipeline, stage=stage, hint=hint)
    check_window(restart, timeout or 0.0, pipeline=pipeline, stage=stage)


def _check_policies(
    restart: object,
    timeout: float | None,
    limiter: object,
    priority: object,
    runner: object,
    pipeline: str | None,
    stage: str,
) -> None:
    require_priority(priority, pipeline=pipeline, stage=stage)
    if restart is not None:
        check_restart(restart, timeout, pipeline, stage)
        if getattr(runner, "_is_actor", False):
            hint = "its supervisor restarts the actor; give the policy to spawn, with max_deliveries for the message"
            refuse(
                "a stage that is a resident actor has no restart of its own", pipeline=pipeline, stage=stage, hint=hint
            )
    if limiter is None:
        return
    if not isinstance(limiter, LimiterBase):
        hint = "write limiter=Limiter(64), and share it between the stages that it limits together"
        refuse(f"limiter must be a Limiter, not {limiter!r}", pipeline=pipeline, stage=stage, hint=hint)
    if getattr(runner, "limiter", None) is limiter:
        hint = "leave it out here: the items are limited, and the stage around them holds no slot"
        refuse("its items wait for the very limiter that it would hold", pipeline=pipeline, stage=stage, hint=hint)


def innermost(runner: Any) -> Any:
    """Return what a runner that may be a `partial` is one of."""
    while isinstance(runner, partial):
        runner = runner.func
    return runner


def _read_enum(
    enum: type[Any], what: str, value: object, pipeline: str | None, stage: str, otherwise: str | None = None
) -> Any:
    try:
        return enum(value)
    except ValueError:
        choices = [member.value for member in enum]
        hint = nearest(str(value).lower(), choices)
        hint = hint or otherwise
        refuse(f"{what} must be one of {', '.join(choices)}, not {value!r}", pipeline=pipeline, stage=stage, hint=hint)


def _name_dependencies(stage: str | None, dependencies: Dependencies, pipeline: str | None) -> tuple[str, ...]:
    hint = "give a stage's name, or an iterable of names"
    if dependencies.__class__ is str:
        dependencies = (dependencies,)
    elif isinstance(dependencies, StageSpec):
        dependencies = (dependencies.name,)
    elif not isinstance(dependencies, Iterable) or isinstance(dependencies, bytes):
        refuse(f"dependencies must be names, not {dependencies!r}", pipeline=pipeline, stage=stage, hint=hint)
    names = tuple([item.name if isinstance(item, StageSpec) else item for item in dependencies])
    for name in names:
        if not isinstance(name, str) or not name:
            refuse(f"dependencies must be names of stages, not {name!r}", pipeline=pipeline, stage=stage, hint=hint)
    if stage in names:
        refuse(f"{stage!r} depends on itself", pipeline=pipeline, stage=stage, hint="remove it from its dependencies")
    if len(names) > 1 and len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        refuse(f"dependency {twice!r} is named twice", pipeline=pipeline, stage=stage, hint="remove one of the two")
    return names


def _check_condition(stage: str, when: object, names: tuple[str, ...], pipeline: str | None) -> None:
    if isinstance(when, Route) and when.router not in names:
        hint = f"add {when.router!r} to its dependencies"
        refuse(f"when={when} names a router that is no dependency", pipeline=pipeline, stage=stage, hint=hint)
    if inspect.iscoroutinefunction(when):
        hint = "a condition is a plain function of the stage's inputs; what has to wait is a stage"
        refuse(f"when is the async function {when!r}", pipeline=pipeline, stage=stage, hint=hint)
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
    restart: Restart | None = None,
    timeout: float | None = None,
    limiter: LimiterBase | None = None,
    priority: int = 0,
    placement: Placement | None = None,
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
        restart: When each is run again.
        timeout: Seconds that an attempt of each may take.
        limiter: What each needs a slot of: `Limiter(64)` lets 64 of them run at once.
        priority: How urgent each is there.
        placement: Where each runs: `processes()` puts them on all cores.

    Raises:
        PipelineValidationError: Two keys give the same name, or something that `with_stage` refuses.
    """
    _check_template(template)
    inspect_runner(runner)
    if placement is not None:
        check_placement(placement, runner, None, template)
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        hint = "for numbered stages give range(n), for a single one use with_stage"
        refuse(f"keys must be an iterable of keys or a mapping of key to configuration, not {keys!r}", hint=hint)
    if config is not None and not isinstance(config, Mapping):
        refuse(f"config must be a mapping, not {config!r}")
    own: Mapping[Any, Any] = keys if isinstance(keys, Mapping) else {}
    names = _name_dependencies(None, dependencies, None)
    specs: dict[str, StageSpec] = {}
    for key in keys:
        name = _fill_template(template, key)
        if name in specs:
            first = specs[name].config["key"]
            refuse(f"the keys {first!r} and {key!r} give two stages the name {name!r}", hint="make the keys distinct")
        merged = _merge_config(name, key, config, own.get(key))
        specs[name] = make_spec(
            name,
            runner,
            kind,
            names,
            config=merged,
            when=when,
            trigger=trigger,
            restart=restart,
            timeout=timeout,
            limiter=limiter,
            priority=priority,
            placement=placement,
            inspected=True,
        )
    return tuple(specs.values())


def _check_template(template: object) -> None:
    hint = "write it as 'score-{key}'"
    if not isinstance(template, str):
        refuse(f"the template of the names must be a string, not {template!r}", hint=hint)
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        refuse(f"the template {template!r} cannot be used for names: {error}", hint=hint)
    if not fields or any(re.split(r"[.\[]", field)[0] != "key" for field in fields):
        refuse(
            f"the template of the names must have {{key}} in it and nothing else in braces, not {template!r}", hint=hint
        )


def _fill_template(template: str, key: object) -> str:
    try:
        return template.format(key=key)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        refuse(f"the template {template!r} does not fit the key {key!r}: {error}")


def _merge_config(name: str, key: object, shared: Mapping[str, Any] | None, own: object) -> dict[str, Any]:
    if own is None:
        own = NO_CONFIG
    if not isinstance(own, Mapping):
        refuse(f"the configuration of key {key!r} must be a mapping, not {own!r}", stage=name)
    if "key" in own or (shared is not None and "key" in shared):
        hint = "there a stage finds its own key, so rename yours"
        refuse(f"the configuration of key {key!r} has an entry 'key'", stage=name, hint=hint)
    return {"key": key, **(shared or {}), **own}
