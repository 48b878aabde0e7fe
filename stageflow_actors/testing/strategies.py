"""Hypothesis strategies for what surrounds a schedule: pipelines, snapshots, outputs, and what goes wrong.

Whatever is drawn is printed as the code that makes it. This module needs the extra `testing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from stageflow_actors import (
    Backoff,
    ContextSnapshot,
    Pipeline,
    Restart,
    Runner,
    StageOutput,
    StageStatus,
    Trigger,
    route,
)
from stageflow_actors._validation import list_names, refuse, require_count, require_name
from stageflow_actors.errors import InjectedError, MissingExtraError

from ._brief import brief
from ._faults import (
    ANY,
    Cancel,
    ClockJump,
    Crash,
    Delay,
    Doubled,
    Dropped,
    ErrorSource,
    Fault,
    Late,
    MessageFault,
)
from ._scripted import Scripted
from ._shapes import Shape, lay_out

try:
    from hypothesis import strategies as st
    from hypothesis.vendor.pretty import for_type_by_name
except ModuleNotFoundError as error:
    if error.name != "hypothesis":
        raise
    hint = "install it: pip install 'stageflow-actors[testing]'"
    raise MissingExtraError("the strategies need hypothesis", extra="testing", hint=hint) from error

if TYPE_CHECKING:
    from hypothesis.vendor.pretty import RepresentationPrinter

__all__ = ["Scripted", "fault_plans", "outputs", "pipelines", "snapshots"]

_KINDS: Final = (Crash, Delay, Cancel, ClockJump)
_MESSAGE_KINDS: Final = (Late, Doubled, Dropped)
_LABELS: Final = ("left", "right")
_TRIGGERS: Final = (*[Trigger.ALL_SUCCESS] * 3, Trigger.NONE_FAILED, Trigger.ONE_SUCCESS, Trigger.ALL_DONE)

_NONE: st.SearchStrategy[None] = st.none()
_TEXTS = st.text(max_size=5)
_SOME_TEXTS: st.SearchStrategy[str | None] = _NONE | _TEXTS
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)
_OBJECTS: st.SearchStrategy[Mapping[str, Any]] = st.dictionaries(_TEXTS, _JSON, max_size=3)

_SCRIPTS = [
    *[Scripted("ok")] * 6,
    *[Scripted("ok", label=label) for label in _LABELS],
    Scripted("skip"),
    Scripted("fail"),
    Scripted("retry", heals_at=2),
    Scripted("retry"),
    Scripted("raise", heals_at=2),
    Scripted("raise"),
]
_RUNNERS = st.tuples(st.sampled_from(_SCRIPTS), st.integers(0, 3)).map(lambda drawn: _wait_before(*drawn))
# Without jitter, so that a schedule replays.
_RESTARTS = [
    Restart(max_restarts=max_restarts, backoff=Backoff(initial=initial, jitter=0.0))
    for initial in (0.0, 1.0)
    for max_restarts in (1, 2)
]
_NEEDS = [(router, label) for router in range(3) for label in _LABELS]


def snapshots(
    data: st.SearchStrategy[Mapping[str, Any]] = _OBJECTS,
    *,
    metadata: st.SearchStrategy[Mapping[str, Any]] = _OBJECTS,
    input_text: st.SearchStrategy[str | None] = _SOME_TEXTS,
    extensions: st.SearchStrategy[Any] = _NONE,
    topology: st.SearchStrategy[str | None] = _NONE,
    execution_mode: st.SearchStrategy[str | None] = _NONE,
) -> st.SearchStrategy[ContextSnapshot[Any]]:
    """Return a strategy for snapshots, as callers give them: without a run's identity.

    By default `data` and `metadata` hold what JSON can carry back, and `input_text` is a text or None.

    Args:
        data: Draws the data.
        metadata: Draws the metadata.
        input_text: Draws the input text.
        extensions: Draws the application's own value.
        topology: Draws the topology.
        execution_mode: Draws the execution mode.
    """
    fields = {"input_text": input_text, "data": data, "metadata": metadata, "extensions": extensions}
    fields |= {"topology": topology, "execution_mode": execution_mode}
    return _make(ContextSnapshot, st.fixed_dictionaries(fields))


def outputs(
    data: st.SearchStrategy[Mapping[str, Any]] = _OBJECTS,
    *,
    statuses: Iterable[StageStatus | str] = tuple(StageStatus),
    labels: Sequence[str] = (),
) -> st.SearchStrategy[StageOutput]:
    """Return a strategy for what stages reply.

    Args:
        data: Draws the data.
        statuses: Which may be drawn, the simplest first. Overrides of a run, and the `inputs` of `run_stage`, may be
            `("ok", "skip")`.
        labels: Which labels an output that is ok may carry.

    Raises:
        PipelineValidationError: There is no such status, or none is given.
    """
    known = [status.value for status in StageStatus]
    chosen = list(dict.fromkeys(statuses))
    for status in chosen:
        if status not in known:
            refuse(f"status must be one of {', '.join(known)}, not {status!r}")
    if not chosen:
        refuse("statuses names no status", hint="name at least one, or leave it out")
    return st.one_of([_make_outputs(StageStatus(status), data, labels) for status in chosen])


def _make_outputs(
    status: StageStatus, data: st.SearchStrategy[Mapping[str, Any]], labels: Sequence[str]
) -> st.SearchStrategy[StageOutput]:
    more: dict[str, st.SearchStrategy[Any]] = {}
    if status is StageStatus.OK:
        more["label"] = st.sampled_from([None, *labels])
    elif status in (StageStatus.SKIP, StageStatus.CANCEL):
        more["reason"] = _TEXTS
    else:
        more["error"] = _TEXTS
        if status is StageStatus.RETRY:
            more["after"] = st.sampled_from([0.0, 1.0])
    return _make(StageOutput, st.fixed_dictionaries({"status": st.just(status), "data": data, **more}))


@st.composite
def _make(draw: st.DrawFn, cls: Any, fields: st.SearchStrategy[dict[str, Any]]) -> Any:
    """Draw an object; unlike what `builds` makes, Hypothesis prints it as its type is printed."""
    return cls(**draw(fields))


@attrs.frozen
class _Draft:
    """A stage before it has a name."""

    place: int
    """Where it stands in the definition; at 0 it is left out.

    The shrinker, which lowers numbers one by one, would not find out that a stage in the middle of a list, which is
    many choices, can be spared.
    """
    parents: list[int]
    runner: Runner
    trigger: Trigger
    restart: Restart | None
    needs: tuple[int, str] | None
    """Which of its dependencies, as a number, must have chosen which label."""


def pipelines(
    runners: st.SearchStrategy[Runner] | Sequence[Runner] | None = None,
    *,
    min_stages: int = 1,
    max_stages: int = 8,
    triggers: bool = True,
    routes: bool = True,
    restarts: bool = True,
    name: str = "drawn",
) -> st.SearchStrategy[Pipeline]:
    """Return a strategy for valid pipelines, of many shapes; it shrinks towards one stage that is ok.

    Args:
        runners: What stages run: a strategy, or runners to choose from, the simplest first. By default each is a
            `Scripted`: it awaits a few checkpoints and is ok or, sometimes, skips, fails, asks to be run again,
            raises, chooses a label.
        min_stages: How many stages there are at least.
        max_stages: How many there are at most.
        triggers: Whether stages may have another trigger than `ALL_SUCCESS`.
        routes: Whether stages may run only if a dependency chose a label, `left` or `right`.
        restarts: Whether stages may be restarted.
        name: The pipelines' name.

    Raises:
        PipelineValidationError: An argument cannot work.
    """
    require_count("min_stages", min_stages)
    require_count("max_stages", max_stages)
    if min_stages > max_stages:
        refuse(f"min_stages={min_stages} is above max_stages={max_stages}")
    require_name("the name of a pipeline", name)
    drafts = st.tuples(
        st.integers(0, 10),
        st.lists(st.integers(0, max_stages - 1), max_size=4),
        _read_runners(runners),
        st.sampled_from(_TRIGGERS if triggers else _TRIGGERS[:1]),
        st.sampled_from([*[None] * 8, *_RESTARTS] if restarts else [None]),
        st.sampled_from([*[None] * 18, *_NEEDS] if routes else [None]),
    )
    many = st.lists(drafts.map(_make_draft), min_size=min_stages, max_size=max_stages)
    return _draw_pipeline(name, min_stages, st.sampled_from(Shape), many)


def _make_draft(drawn: tuple[Any, ...]) -> _Draft:
    return _Draft(*drawn)


def _wait_before(script: Scripted, checkpoints: int) -> Scripted:
    return attrs.evolve(script, checkpoints=checkpoints)


def _read_runners(runners: object) -> st.SearchStrategy[Any]:
    if runners is None:
        return _RUNNERS
    if isinstance(runners, st.SearchStrategy):
        return runners
    if not isinstance(runners, Sequence) or isinstance(runners, str):
        hint = f"write [{brief(runners)}]" if callable(runners) or hasattr(runners, "execute") else None
        refuse(f"runners must be a strategy or a sequence of runners, not {runners!r}", hint=hint)
    if not runners:
        refuse("runners is empty", hint="give at least one, or leave it out")
    return st.sampled_from(runners)


@st.composite
def _draw_pipeline(
    draw: st.DrawFn, name: str, least: int, shapes: st.SearchStrategy[Shape], many: st.SearchStrategy[list[_Draft]]
) -> Pipeline:
    shape = draw(shapes)
    drafts = draw(many)
    wanted = [draft for draft in drafts if draft.place]
    if len(wanted) < least:
        wanted = drafts[:least]
    pipeline = Pipeline(name)
    for stage, dependencies, draft in lay_out(shape, wanted):
        when = None
        if draft.needs is not None and dependencies:
            router, label = draft.needs
            when = route(dependencies[router % len(dependencies)], label)
        trigger = draft.trigger if dependencies else Trigger.ALL_SUCCESS
        pipeline = pipeline.with_stage(
            stage, draft.runner, dependencies=dependencies, trigger=trigger, when=when, restart=draft.restart
        )
    return pipeline


def fault_plans(
    on: str | Iterable[str] | Pipeline = ANY,
    *,
    max_faults: int = 2,
    kinds: Iterable[type[Fault]] = _KINDS,
    max_at: int = 5,
    max_step: int = 30,
    errors: Sequence[ErrorSource] = (InjectedError,),
) -> st.SearchStrategy[tuple[Fault, ...]]:
    """Return a strategy for what `faults=` takes: plans of faults, each at a point that is drawn.

    It shrinks towards no fault at all, and a fault towards the first of all points.

    Args:
        on: What may crash or be delayed: the name of a task or stage, names, or a pipeline, for its stages. Of faults
            of messages: an actor's full name, or names.
        max_faults: How many faults a plan has at most.
        kinds: Which faults may be drawn, the simplest first. `Late`, `Doubled` and `Dropped` have to be asked for: they
            do nothing where there is no resident actor.
        max_at: The last point of a task at which it may crash or be delayed, and the last message to an actor that may
            be struck, counted from 1.
        max_step: The last step of the execution at which it may be cancelled or its clock jump, counted from 1.
        errors: What crashes raise: one of these.

    Raises:
        PipelineValidationError: An argument cannot work.
    """
    require_count("max_faults", max_faults, least=0)
    require_count("max_at", max_at)
    require_count("max_step", max_step)
    names = [spec.name for spec in on.stages] if isinstance(on, Pipeline) else [on] if isinstance(on, str) else list(on)
    chosen = list(dict.fromkeys(kinds))
    for what, given in (("on", names), ("kinds", chosen), ("errors", errors)):
        if not given:
            refuse(f"{what} is empty, so that there is nothing to draw from", hint=f"leave {what} out for all there is")
    for kind in chosen:
        if kind not in (*_KINDS, *_MESSAGE_KINDS):
            known = list_names(known.__name__ for known in (*_KINDS, *_MESSAGE_KINDS))
            refuse(f"a kind of fault must be one of {known}, not {kind!r}")
        if issubclass(kind, MessageFault) and isinstance(on, Pipeline):
            hint = "give the full names of the actors as on, or '*'"
            refuse(f"a {kind.__name__} strikes messages to an actor, and stages of a pipeline are none", hint=hint)
    where, at, step = st.sampled_from(names), st.integers(1, max_at), st.integers(1, max_step)
    seconds = st.sampled_from([1.0, 0.1, 10.0])
    make: dict[type[Fault], st.SearchStrategy[Fault]] = {
        Crash: st.builds(Crash, where, at, st.sampled_from(errors)),
        Delay: st.builds(Delay, where, at, seconds),
        Cancel: st.builds(Cancel, step),
        ClockJump: st.builds(ClockJump, seconds, step),
        Late: st.builds(Late, where, at, seconds),
        Doubled: st.builds(Doubled, where, at),
        Dropped: st.builds(Dropped, where, at),
    }
    return st.lists(st.one_of([make[kind] for kind in chosen]), max_size=max_faults).map(tuple)


def _print(value: object, printer: RepresentationPrinter, _cycle: object) -> None:
    for number, line in enumerate(brief(value).split("\n")):
        if number:
            printer.break_()
        printer.text(line)


for _cls in (ContextSnapshot, Pipeline, StageOutput):
    for_type_by_name(_cls.__module__, _cls.__name__, _print)
del _cls
