"""The immutable definition of a pipeline, built by appending."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

import attrs

from ._freeze import FrozenDict
from ._graph import Graph, compile_graph
from ._output import StageOutput, StageReturn
from ._policy import Intensity, StageState, Trigger
from ._spec import Condition, Dependencies, StageSpec, make_spec
from ._validation import count, refuse, require_name
from .errors import PipelineValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._limits import LimiterBase
    from ._placement import Placement
    from ._policy import Restart
    from ._stage import Runner, StageContext, StageKind


class _Table:
    """The stages of a pipeline and of all its prefixes: a list that only grows, and where each name stands."""

    __slots__ = ("last", "lock", "positions", "specs")

    def __init__(self, specs: Iterable[StageSpec] = ()) -> None:
        self.specs = list(specs)
        self.positions = {spec.name: position for position, spec in enumerate(self.specs)}
        self.lock = Lock()
        self.last: tuple[object, object] = (self, None)  # which is no runner
        """The runner that was added last, and its placement."""


class PipelineDefinition:
    """Stages and what they depend on. Immutable: every method that adds returns a new definition.

    A definition is a length and a table that it shares with those it was built from, so that adding a
    stage copies nothing; only adding to one that was already added to copies the table, once. Adding
    from several threads is safe.
    """

    __slots__ = ("__weakref__", "_graph", "_length", "_name", "_table")

    def __init__(self, name: str) -> None:
        self._name = require_name("the name of a pipeline", name)
        self._table = _Table()
        self._length = 0
        self._graph: Graph | None = None

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._name

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """The stages, in the order in which they were added."""
        return tuple(islice(self._table.specs, self._length))

    def with_stage(
        self,
        name: str,
        runner: Runner,
        kind: StageKind | None = None,
        dependencies: Dependencies = (),
        *,
        config: Mapping[str, Any] | None = None,
        when: Condition | None = None,
        trigger: Trigger = Trigger.ALL_SUCCESS,
        restart: Restart | None = None,
        timeout: float | None = None,
        limiter: LimiterBase | None = None,
        priority: int = 0,
        placement: Placement | None = None,
    ) -> Self:
        """Return the pipeline with one stage more.

        Args:
            name: The stage's name, unique in the pipeline.
            runner: A stage class or a `partial` of one, an instance, or a function of the stage's context.
            kind: What it is for; the runner's own `kind` unless given, else `WORK`.
            dependencies: The name of a stage, or names: it starts when all of these have ended.
            config: The stage's configuration, frozen; it finds it under `ctx.config`.
            when: `route(router, label)` or a predicate of the stage's inputs; not chosen means `SKIPPED`.
            trigger: What the states of its dependencies must be for it to run.
            restart: Consent to run it again after a failure, and how often; without it a failure is final.
            timeout: Seconds that an attempt may take, from the start of `execute`: waiting for a limiter and
                backing off do not count.
            limiter: What it needs a slot of to run; share one between all that it limits together.
            priority: How urgent it is among those that wait; a larger one is more urgent.
            placement: Where it runs, from `stageflow_actors.placement`: `threads(4)` for a pool of threads of its own,
                `processes()` for all cores. By default an async stage runs in the run's loop, a plain `def` in a
                thread of the supervisor. Of a fan-out it is where its items run.

        Raises:
            PipelineValidationError: A duplicate name, a dependency on itself, or an option that cannot be.
        """
        last = self._table.last
        inspected = runner is last[0] and placement is last[1]
        spec = make_spec(
            name,
            runner,
            kind,
            dependencies,
            config=config,
            when=when,
            trigger=trigger,
            restart=restart,
            timeout=timeout,
            limiter=limiter,
            priority=priority,
            placement=placement,
            pipeline=self._name,
            inspected=inspected,
        )
        grown = self._append((spec,))
        grown._table.last = (runner, placement)  # noqa: SLF001 (its own class)
        return grown

    def with_stages(self, specs: Iterable[StageSpec]) -> Self:
        """Return the pipeline with these stages more, such as those of `parallel_stages`.

        Raises:
            PipelineValidationError: A duplicate name, or something that is no `StageSpec`.
        """
        read = tuple(specs) if isinstance(specs, Iterable) else (specs,)
        for spec in read:
            if not isinstance(spec, StageSpec):
                hint = "use parallel_stages(...), or with_stage for a single one"
                refuse(f"with_stages takes stage specs, not {spec!r}", pipeline=self._name, hint=hint)
        return self._append(read)

    def compose(self, other: PipelineDefinition) -> Self:
        """Return the pipeline with the stages of `other` beside its own.

        Stages of one may name stages of the other as dependencies.

        Raises:
            PipelineValidationError: Both have a stage of the same name.
        """
        _require_pipeline(other, self._name)
        return self._append(other.stages)

    def subpipeline(
        self,
        name: str,
        pipeline: PipelineDefinition,
        dependencies: Dependencies = (),
        *,
        intensity: Intensity | None = None,
    ) -> Self:
        """Return the pipeline with a whole pipeline as one stage.

        Its stages become stages of this one, named `name/inner`; they know each other by their own names.
        Those without dependencies take `dependencies` for theirs, and see them in their inputs. The stage
        `name` itself follows: its data maps each sink that ended OK, a stage on which no other depends, to
        that stage's data. It is isolated where a sink did not end well, and skipped where all were.

        Args:
            name: Its name, unique in this pipeline.
            pipeline: The inner pipeline.
            dependencies: What must have ended for it to begin.
            intensity: How often its stages may be restarted together. They are counted on their own then, not by the
                run or the subpipeline around it. Past it, it gives up: nothing in it is restarted any more, and the
                stage that failed has a `RestartIntensityError`. As with every failure, the run ends or isolates.

        Raises:
            PipelineValidationError: A duplicate name, the inner pipeline is invalid by itself, or an option that
                cannot be.
        """
        require_name("stage name", name, pipeline=self._name)
        _require_pipeline(pipeline, self._name)
        if intensity is not None and not isinstance(intensity, Intensity):
            hint = "write intensity=Intensity(5, within=60)"
            refuse(f"intensity must be an Intensity, not {intensity!r}", pipeline=self._name, stage=name, hint=hint)
        try:
            pipeline.validate()
        except PipelineValidationError as error:
            error.problem += f" (it is the subpipeline {name!r} of {self._name!r})"
            raise
        outer = make_spec(
            name,
            _collect_sinks,
            None,
            dependencies,
            trigger=Trigger.NONE_FAILED,
            pipeline=self._name,
        )
        needed = {dependency for spec in pipeline.stages for dependency in spec.dependencies}
        sinks = tuple(spec.name for spec in pipeline.stages if spec.name not in needed)
        inner = [_move_into(name, spec, outer.dependencies, intensity) for spec in pipeline.stages]
        collected = attrs.evolve(
            outer,
            dependencies=(*(f"{name}/{sink}" for sink in sinks), *outer.dependencies),
            local_names=(*sinks, *(f"../{dependency}" for dependency in outer.dependencies)),
            config=FrozenDict(sinks=sinks),
        )
        return self._append((*inner, collected))

    def validate(self) -> None:
        """Check the pipeline as a whole. The first run does it too.

        Raises:
            PipelineValidationError: It has no stage, or a dependency is unknown.
            CycleDetectedError: Stages wait for each other.
        """
        self._compile()

    def _compile(self) -> Graph:
        """Return the compiled graph, made at the first call."""
        if self._graph is None:
            self._graph = compile_graph(self._name, list(islice(self._table.specs, self._length)))
        return self._graph

    def _append(self, specs: Sequence[StageSpec]) -> Self:
        table = self._table
        with table.lock:
            if self._length != len(table.specs):
                table = _Table(islice(table.specs, self._length))
            positions = table.positions
            taken: set[str] = set()
            for spec in specs:
                if spec.name in positions or spec.name in taken:
                    hint = "rename one of the two"
                    refuse(
                        "the pipeline has a stage of this name already", pipeline=self._name, stage=spec.name, hint=hint
                    )
                taken.add(spec.name)
            start = len(table.specs)
            table.specs.extend(specs)
            positions.update((spec.name, start + offset) for offset, spec in enumerate(specs))
        return self._make(self._name, table, start + len(specs))

    @classmethod
    def _make(cls, name: str, table: _Table, length: int) -> Self:
        made = cls.__new__(cls)
        made._name = name  # noqa: SLF001
        made._table = table  # noqa: SLF001
        made._length = length  # noqa: SLF001
        made._graph = None  # noqa: SLF001
        return made

    def __len__(self) -> int:
        """Return the number of stages."""
        return self._length

    def __eq__(self, other: object) -> bool:
        """Return whether the other has the same name and the same stages in the same order."""
        if not isinstance(other, PipelineDefinition):
            return NotImplemented
        return self is other or (self._name == other._name and self.stages == other.stages)

    def __hash__(self) -> int:
        """Hash the name and the number of stages."""
        return hash((self._name, self._length))

    def __repr__(self) -> str:
        """Name it and count its stages."""
        return f"<{type(self).__name__} {self._name!r}: {count(self._length, 'stage')}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the name and a flat tuple of stages."""
        return _unpickle, (type(self), self._name, self.stages)


def _require_pipeline(value: object, pipeline: str) -> None:
    if not isinstance(value, PipelineDefinition):
        refuse(f"it can only take in another pipeline, not {value!r}", pipeline=pipeline)


def _unpickle(cls: type[PipelineDefinition], name: str, specs: tuple[StageSpec, ...]) -> PipelineDefinition:
    return cls(name).with_stages(specs)


def _move_into(container: str, spec: StageSpec, outer: tuple[str, ...], intensity: Intensity | None) -> StageSpec:
    """Return an inner stage as a stage of the outer pipeline."""
    name = f"{container}/{spec.name}"
    counted = None if intensity is None else (container, intensity)
    if spec.intensity is not None:  # a subpipeline further in counts it
        counted = f"{container}/{spec.intensity[0]}", spec.intensity[1]
    moved = attrs.evolve(spec, name=name, intensity=counted)
    if not spec.dependencies:
        return attrs.evolve(moved, dependencies=outer, local_names=None, trigger=Trigger.ALL_SUCCESS)
    renamed = tuple(f"{container}/{dependency}" for dependency in spec.dependencies)
    return attrs.evolve(moved, dependencies=renamed, local_names=spec.local_names or spec.dependencies)


async def _collect_sinks(ctx: StageContext) -> StageReturn:
    outputs = ctx.inputs.outputs
    ended_ok = [sink for sink in ctx.config["sinks"] if ctx.inputs.state(sink) is StageState.OK]
    found = {sink: outputs[sink].data for sink in ended_ok}
    return StageOutput.ok(found) if found else StageOutput.skip("every sink was skipped")
