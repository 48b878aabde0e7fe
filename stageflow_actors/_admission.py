"""What is asked of a supervisor, checked and made into a run, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ._definition import PipelineDefinition
from ._engine import Engine, Means
from ._graph import Graph, narrow
from ._output import StageOutput, StageStatus
from ._policy import Intensity
from ._snapshot import read_snapshot
from ._validation import refuse, require_seconds

if TYPE_CHECKING:
    from ._snapshot import ContextSnapshot, RunIdentity

_NO_OVERRIDES: Final[Mapping[str, StageOutput]] = {}


def make_engine(
    pipeline: PipelineDefinition,
    snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None,
    *,
    continue_on_failure: bool,
    timeout: float | None,
    intensity: Intensity | None,
    targets: Iterable[str] | None,
    overrides: Mapping[str, StageOutput | Mapping[str, Any]] | None,
    means: Means,
    identify: Callable[[], RunIdentity],
    check_actor: Callable[[Any, str, str], None],
) -> Engine:
    """Return the run that is asked for; see `Supervisor.run`.

    Args:
        pipeline: What to run.
        snapshot: The message for every stage.
        continue_on_failure: Whether a failure isolates, rather than ends the run.
        timeout: Seconds for the whole run.
        intensity: How often its stages may be restarted together.
        targets: The stages that are wanted.
        overrides: Outputs that are given.
        means: What the supervisor's runs share.
        identify: Gives the run its identity.
        check_actor: Called with each stage that is a resident actor: the reference, the pipeline, the stage.

    Raises:
        PipelineValidationError: The pipeline or an argument cannot work.
    """
    if not isinstance(pipeline, PipelineDefinition):
        refuse(f"pipeline must be a Pipeline, not {pipeline!r}", hint="build one: Pipeline('name').with_stage(...)")
    graph = pipeline._compile()  # noqa: SLF001 (the compiled graph is the runtime's affair, not users')
    given = _NO_OVERRIDES
    if overrides is not None and not isinstance(overrides, Mapping):
        refuse(f"overrides must be a mapping of stage to output, not {overrides!r}", pipeline=pipeline.name)
    if overrides is not None:
        given = {name: _read_override(pipeline.name, name, value) for name, value in overrides.items()}
    if targets is not None or given:
        graph = narrow(graph, targets, given)
        given = {name: output for name, output in given.items() if name in graph.positions}
    if timeout is not None:
        require_seconds("timeout", timeout, pipeline=pipeline.name)
    read = read_snapshot(snapshot)
    _check_item_keys(graph, read)
    if intensity is not None and not isinstance(intensity, Intensity):
        hint = "write intensity=Intensity(20, within=60)"
        refuse(f"intensity must be an Intensity, not {intensity!r}", pipeline=pipeline.name, hint=hint)
    for stage, ref in graph.actors:
        if stage not in given:
            check_actor(ref, pipeline.name, stage)
    return Engine(
        graph,
        read,
        identify(),
        fail_fast=not continue_on_failure,
        timeout=timeout,
        overrides=given,
        means=means,
        intensity=intensity,
    )


def _check_item_keys(graph: Graph, snapshot: ContextSnapshot[Any]) -> None:
    """Refuse data that the items of a fan-out would hide."""
    taken = next((key for key in ("item", "index") if key in snapshot.data), None)
    if taken is not None and any(form.is_container for form in graph.forms):
        stage = next(spec.name for spec, form in zip(graph.specs, graph.forms, strict=True) if form.is_container)
        problem = f"the snapshot's data has an entry {taken!r}, where its workers find their own"
        refuse(problem, pipeline=graph.pipeline, stage=stage, hint="rename the entry")


def _read_override(pipeline: str, name: str, value: object) -> StageOutput:
    if isinstance(value, StageOutput):
        if value.status not in (StageStatus.OK, StageStatus.SKIP):
            problem = f"an override must be an output of status ok or skip, not {value.status.value}"
            refuse(problem, pipeline=pipeline, stage=name)
        return value
    if isinstance(value, Mapping):
        return StageOutput.ok(value)
    refuse(f"an override must be a StageOutput or a mapping, not {value!r}", pipeline=pipeline, stage=name)
