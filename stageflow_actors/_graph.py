"""The compiled graph of a pipeline: stages as positions, what waits for what, in which numbers."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from ._stage import RunnerForm, bind_runner, inspect_runner
from ._validation import nearest, refuse, suggest
from .errors import CycleDetectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ._placement import Placement
    from ._spec import StageSpec

# What makes a stage's start more than "its last dependency has ended": bits of `Graph.flags` and, while
# a run goes on, of its copy.
CONDITIONAL: Final = 1
BELOW_SKIPPED: Final = 2
BELOW_BAD: Final = 4

DIRECT_FUNCTION: Final = 1
DIRECT_CLASS: Final = 2


@final
class Graph:
    """Everything about a pipeline that no run changes. Made by `compile_graph`."""

    __slots__ = (
        "actors",
        "dependencies",
        "dependents",
        "direct",
        "flags",
        "forms",
        "is_limited",
        "names",
        "pipeline",
        "positions",
        "specs",
        "targets",
        "unmet",
    )

    def __init__(self, pipeline: str, specs: Sequence[StageSpec], positions: Mapping[str, int]) -> None:
        self.pipeline = pipeline
        self.specs = specs
        self.names = [spec.name for spec in specs]
        self.positions = positions
        self.dependencies: list[tuple[int, ...]] = []
        self.dependents: list[tuple[int, ...]] = []
        self.unmet = array("i")
        self.flags = bytearray(CONDITIONAL if spec.when is not None else 0 for spec in specs)
        self.is_limited = any(spec.limiter is not None for spec in specs)
        """Whether a stage needs a limiter's slot to run."""
        self.forms: list[RunnerForm] = []
        self.direct = bytearray()
        """Whether an attempt is one await and no more (no thread, no timeout, no context manager), and of what."""
        self.targets: list[Callable[..., Any]] = []
        """What is called: the class, or a function of the context."""
        self.actors: list[tuple[str, Any]] = []
        """The stages that are resident actors, and the references to these."""

    def __len__(self) -> int:
        """Return the number of stages."""
        return len(self.names)


def compile_graph(pipeline: str, specs: Sequence[StageSpec]) -> Graph:
    """Return the graph of the stages `specs`. Linear in stages and dependencies; no recursion.

    Raises:
        PipelineValidationError: There is no stage, or a dependency is unknown.
        CycleDetectedError: Stages wait for each other.
    """
    if not specs:
        hint = "add a stage: with_stage('name', runner)"
        refuse("it has no stages", pipeline=pipeline, hint=hint)
    graph = Graph(pipeline, specs, {spec.name: position for position, spec in enumerate(specs)})
    _link(graph)
    _check_acyclic(graph)
    known: dict[tuple[int, int], tuple[RunnerForm, Callable[..., Any]]] = {}
    for spec in specs:
        key = id(spec.runner), id(spec.placement)
        found = known.get(key)
        if found is None:
            form = inspect_runner(spec.runner, pipeline=pipeline, stage=spec.name)
            found = known[key] = adapt_runner(spec.runner, form, spec.placement)
        form = found[0]
        graph.forms.append(form)
        graph.direct.append(find_direct(form, spec.timeout, spec.placement))
        graph.targets.append(found[1])
        actor = spec.runner if form.is_actor else getattr(spec.runner, "worker", None) if form.is_container else None
        if getattr(actor, "_is_actor", False):
            graph.actors.append((spec.name, actor))
    return graph


def adapt_runner(runner: Any, form: RunnerForm, placement: Placement | None) -> tuple[RunnerForm, Callable[..., Any]]:
    """Return how a runner is called where it is placed, and what is called. A fan-out itself runs in the loop."""
    if placement is None or form.is_container:
        return form, bind_runner(runner, form)
    return placement.adapt(runner, form)


def find_direct(form: RunnerForm, timeout: float | None, placement: Placement | None) -> int:
    """Return whether an attempt is one await, and of what: `DIRECT_FUNCTION`, `DIRECT_CLASS`, or 0 where it is more."""
    if not form.is_async or form.is_managed or form.is_container or timeout is not None or placement is not None:
        return 0
    return DIRECT_CLASS if form.is_class else DIRECT_FUNCTION


def _link(graph: Graph) -> None:
    positions = graph.positions
    known: dict[tuple[str, ...], tuple[int, ...]] = {(): ()}
    dependents: list[list[int]] = [[] for _ in graph.names]
    for position, spec in enumerate(graph.specs):
        numbers = known.get(spec.dependencies)
        if numbers is None:
            try:
                numbers = tuple([positions[name] for name in spec.dependencies])
            except KeyError:
                name = next(name for name in spec.dependencies if name not in positions)
                refuse(
                    f"unknown dependency {name!r}",
                    pipeline=graph.pipeline,
                    stage=spec.name,
                    hint=nearest(name, positions) or "add a stage of this name, or remove the dependency",
                )
            known[spec.dependencies] = numbers
        graph.dependencies.append(numbers)
        graph.unmet.append(len(numbers))
        for number in numbers:
            dependents[number].append(position)
    graph.dependents = [tuple(numbers) for numbers in dependents]


def _check_acyclic(graph: Graph) -> None:
    """Count down as a run would (Kahn 1962); whatever is never reached stands on or below a cycle."""
    unmet = graph.unmet[:]
    ready = deque(position for position, count in enumerate(unmet) if not count)
    reached = 0
    while ready:
        reached += 1
        for dependent in graph.dependents[ready.popleft()]:
            unmet[dependent] -= 1
            if not unmet[dependent]:
                ready.append(dependent)
    if reached == len(graph):
        return
    # An unreached stage has an unreached dependency, so walking up must come round.
    position = next(position for position, count in enumerate(unmet) if count)
    path: dict[int, int] = {}
    while position not in path:
        path[position] = len(path)
        position = next(number for number in graph.dependencies[position] if unmet[number])
    around = [graph.names[number] for number in list(path)[path[position] :]]
    around.reverse()
    start = around.index(min(around, key=graph.positions.__getitem__))
    cycle = (*around[start:], *around[:start], around[start])
    shown = cycle if len(cycle) <= 20 else (*cycle[:10], f"... {len(cycle) - 20:,} more ...", *cycle[-10:])
    problem = f"its stages wait for each other: {' -> '.join(shown)}, where each needs the one before it"
    hint = "remove one of these dependencies"
    raise CycleDetectedError(problem, cycle=cycle, pipeline=graph.pipeline, hint=hint)


def _read_targets(pipeline: str, targets: object) -> list[str]:
    if isinstance(targets, str):
        return [targets]
    if not isinstance(targets, Iterable):
        refuse(f"targets must be names of stages, not {targets!r}", pipeline=pipeline)
    return list(targets)


def narrow(graph: Graph, targets: Iterable[str] | None, overridden: Collection[str]) -> Graph:
    """Return the graph of a run of some stages: the targets and what they need.

    Args:
        graph: The whole graph.
        targets: The stages that are wanted, or None for all.
        overridden: Stages whose outputs are given: they stand without dependencies.

    Raises:
        PipelineValidationError: A name is unknown, or `targets` names no stage.
    """
    names = list(graph.names) if targets is None else _read_targets(graph.pipeline, targets)
    if not names:
        refuse("targets names no stage", pipeline=graph.pipeline, hint="name at least one, or leave it out")
    for what, given in (("target", names), ("override", overridden)):
        for name in given:
            if not isinstance(name, str) or name not in graph.positions:
                hint = suggest(name, graph.positions, "its stages are")
                refuse(f"unknown {what} {name!r}", pipeline=graph.pipeline, hint=hint)
    if targets is None and not overridden:
        return graph
    wanted: set[str] = set()
    work = names
    while work:
        name = work.pop()
        if name not in wanted:
            wanted.add(name)
            if name not in overridden:
                work.extend(graph.specs[graph.positions[name]].dependencies)
    specs = [
        attrs.evolve(spec, dependencies=(), local_names=None, when=None) if spec.name in overridden else spec
        for spec in graph.specs
        if spec.name in wanted
    ]
    return compile_graph(graph.pipeline, specs)
