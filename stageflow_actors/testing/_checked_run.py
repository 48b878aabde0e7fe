"""One run of a pipeline under the eyes of a witness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from stageflow_actors import ContextSnapshot, PipelineFailedError, RunEnding, RunIdentity, Supervisor
from stageflow_actors._definition import PipelineDefinition
from stageflow_actors._validation import refuse
from stageflow_actors.errors import LedgerError

from ._imprint import find_change, make_imprint
from ._laws import LAWS, BrokenLawError, Evidence
from ._witness import Problem, Witness

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from stageflow_actors import Run, RunResult
    from stageflow_actors.events import Event

Source: TypeAlias = PipelineDefinition | Callable[[], PipelineDefinition]
"""A pipeline, or a function that makes one for each execution."""

_EVENTS: Final = 10**9
"""More than there can be: none may be lost."""

_HINT: Final = (
    ", with the same schedule: it depends on what outlives a run, on random numbers or the wall clock;"
    " give a function that makes the pipeline, or same_result=False"
)
_TOLD: Final = 5
"""How many problems of one run are told."""


def make_pipeline(source: Source) -> PipelineDefinition:
    """Return the pipeline of one execution."""
    made: object = source if isinstance(source, PipelineDefinition) or not callable(source) else source()
    if not isinstance(made, PipelineDefinition):
        refuse(f"pipeline must be a Pipeline, or a function that makes one, not {made!r}")
    return made


@final
@attrs.frozen
class _First:
    """What the first run gave, to compare the others with."""

    result: RunResult
    imprints: Mapping[str, object]
    """Of the data, by stage."""


@final
class Check:
    """Runs a pipeline, and compares what comes of it with the laws.

    Args:
        source: Where the pipeline comes from.
        snapshot: The message for every stage.
        options: Those of `Supervisor.start`.
        supervision: Those of `Supervisor`.
        same_result: Whether every run must give the result of the first.
    """

    def __init__(
        self,
        source: Source,
        snapshot: ContextSnapshot[Any] | None,
        *,
        options: Mapping[str, Any],
        supervision: Mapping[str, Any],
        same_result: bool,
    ) -> None:
        self._source = source
        self._snapshot = snapshot
        self._options = options
        self._supervision = supervision
        self._same_result = same_result
        self._witness: Witness | None = None
        self._first: _First | None = None
        self.repeats = False
        """Whether the next run has the schedule of the first."""

    async def run(self) -> None:
        """Make one run.

        Raises:
            BrokenLawError: A law was broken.
        """
        __tracebackhide__ = True
        witness = self._find_witness()
        notes = witness.begin()
        before = set(_iterate_tasks())
        given = {where: make_imprint(value) for where, value in self._list_given()}
        run, error, events = await self._supervise(witness.pipeline)
        result = run.partial()
        evidence = Evidence(witness, frozenset(self._options["overrides"] or ()), result, events)
        problems = [*notes.problems, *(problem for law in LAWS for problem in law(evidence))]
        changes = (find_change(given[where], value, where) for where, value in self._list_given())
        problems += [Problem("immutability", "", change) for change in changes if change is not None]
        problems += [Problem("no task left", "", f"the task {name!r} still runs") for name in await _find_left(before)]
        if not isinstance(error, trio.Cancelled):
            problems += self._check_error(result, error)
            problems += self._compare(result)
        if problems:
            raise BrokenLawError("; ".join(map(str, problems[:_TOLD])))
        if isinstance(error, trio.Cancelled):
            raise error

    def _find_witness(self) -> Witness:
        """Return who hears this run: the same for all, where the pipeline is."""
        witness = self._witness
        if witness is None:
            limits = self._supervision["max_running_stages"], self._supervision["max_threads"]
            witness = Witness(make_pipeline(self._source), *limits)
            if isinstance(self._source, PipelineDefinition):
                self._witness = witness
        return witness

    async def _supervise(self, pipeline: PipelineDefinition) -> tuple[Run, BaseException | None, list[Event]]:
        """Run the pipeline; return what it raised, and all its events."""
        run: Run | None = None
        error: BaseException | None = None
        try:
            async with Supervisor(**self._supervision, identify=_identify, random=_leave_out_jitter) as supervisor:
                run = supervisor.start(pipeline, self._snapshot, **self._options)
                stream = run.events(max_queued=_EVENTS)
                try:
                    await run.result()
                except (PipelineFailedError, LedgerError) as raised:
                    error = raised
        except trio.Cancelled as raised:  # by a fault
            error = raised
        assert run is not None  # nothing is awaited before it is started
        return run, error, [event async for event in stream]

    def _list_given(self) -> Iterator[tuple[str, object]]:
        """Yield what the caller gave to every run, with its name."""
        snapshot = self._snapshot or ContextSnapshot()
        for where in ("data", "metadata", "extensions"):
            yield f"snapshot.{where}", getattr(snapshot, where)
        for name, output in (self._options["overrides"] or {}).items():
            yield f"overrides[{name!r}]", output

    def _check_error(self, result: RunResult, error: BaseException | None) -> Iterator[Problem]:
        """A run raises where a stage failed and it was to fail fast, and only there."""
        is_failed = result.ended.ending is RunEnding.FAILED and not self._options["continue_on_failure"]
        if is_failed is not isinstance(error, PipelineFailedError):
            raised = "raised nothing" if error is None else f"raised {type(error).__qualname__}"
            yield Problem("conservation", "", f"the run ended {result.ended}, and {raised}")

    def _compare(self, result: RunResult) -> Iterator[Problem]:
        if not self._same_result:
            return
        if self._first is None:
            self._first = _First(result, {name: make_imprint(output.data) for name, output in result.items()})
            return
        found = next(self._find_differences(self._first, result), None)
        if found is not None:
            yield found

    def _find_differences(self, first: _First, result: RunResult) -> Iterator[Problem]:
        """Yield in what a result differs from the first, if both runs came to their end."""
        law, where = "same result", "in the first run"
        if self.repeats:
            where += _HINT
        completed = (first.result.ended.ending is RunEnding.COMPLETED, result.ended.ending is RunEnding.COMPLETED)
        if not all(completed):
            if any(completed):
                yield Problem(law, "", f"the run ended {result.ended}, and {first.result.ended} {where}")
            return
        for name, state in result.states.items():
            if state is not first.result.states[name]:
                yield Problem(law, name, f"is {state.value}, and was {first.result.states[name].value} {where}")
        for name, output in result.items():
            if output.label != first.result[name].label:
                yield Problem(law, name, f"chose {output.label!r}, and {first.result[name].label!r} {where}")
            change = find_change(first.imprints[name], output.data, "data")
            if change is not None:
                yield Problem(law, name, f"differs: {change} {where}")


def _identify() -> RunIdentity:
    return RunIdentity("checked", datetime(2000, 1, 1, tzinfo=UTC))


def _leave_out_jitter() -> float:
    return 1.0


def _iterate_tasks() -> Iterator[Task]:
    """Yield all tasks there are."""
    root = trio.lowlevel.current_root_task()
    work = [] if root is None else [root]
    while work:
        task = work.pop()
        yield task
        work += (child for nursery in task.child_nurseries for child in nursery.child_tasks)


async def _find_left(before: set[Task]) -> list[str]:
    """Return the names of the tasks that were not there before the run, once nothing more can happen."""
    if before.issuperset(_iterate_tasks()):
        return []
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()
    return sorted(task.name for task in _iterate_tasks() if task not in before)
