"""What came of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

import attrs

from ._bag import describe_error
from ._output import StageOutput, StageStatus
from ._policy import OK, SKIPPED, StageState
from ._validation import count, suggest
from .errors import NoOutputError, PipelineFailedError

if TYPE_CHECKING:
    from ._bag import Attempt, OutputBag, StageFailure
    from ._graph import Graph
    from ._snapshot import RunIdentity


class RunEnding(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    """Every stage was decided; some may have failed, where the run was to continue on failure."""
    FAILED = "failed"
    """A stage's failure ended it."""
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    UNFINISHED = "unfinished"
    """It has not: this is a partial result."""


@final
@attrs.frozen
class RunEnd:
    """How a run ended, and why."""

    ending: RunEnding
    reason: str = ""

    def __str__(self) -> str:
        """Return `ending: reason`."""
        words = self.ending.value.replace("_", " ")
        return f"{words}: {self.reason}" if self.reason else words


@final
@attrs.frozen
class Ledger:
    """The conservation of messages: each that was accepted ended in exactly one way."""

    accepted: int = 0
    """Messages sent to stages. A stage that was decided without being told has none."""
    replied: int = 0
    """The stage returned an output: ok, skip or cancel."""
    failed: int = 0
    """The stage raised, timed out, returned `fail`, broke the contract or was abandoned."""
    cancelled: int = 0
    """Told, but not begun or stopped on the way."""

    @property
    def balanced(self) -> bool:
        """Whether nothing was lost and nothing counted twice."""
        return self.accepted == self.replied + self.failed + self.cancelled


@final
@attrs.frozen
class StageTiming:
    """When a stage ran, in seconds from the start of the run."""

    started: float
    ended: float

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.ended - self.started


@final
class RunResult(Mapping[str, StageOutput]):
    """A mapping of stage name to output for the stages that ended OK or returned a skip.

    Asking it for another stage raises a `KeyError` that says its state and why. Immutable.
    """

    __slots__ = ("_attempts", "_bag", "_ended", "_failures", "_graph", "_identity", "_ledger", "_states", "_timings")

    def __init__(self, graph: Graph, bag: OutputBag, identity: RunIdentity, ended: RunEnd, ledger: Ledger) -> None:
        self._graph = graph
        self._bag = bag
        self._identity = identity
        self._ended = ended
        self._ledger = ledger
        self._states: Mapping[str, StageState] | None = None
        self._failures: Mapping[str, StageFailure] | None = None
        self._timings: Mapping[str, StageTiming] | None = None
        self._attempts: Mapping[str, tuple[Attempt, ...]] | None = None

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self._graph.pipeline

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._identity.run_id

    @property
    def ended(self) -> RunEnd:
        """How the run ended."""
        return self._ended

    @property
    def ledger(self) -> Ledger:
        """The counts of messages and their outcomes."""
        return self._ledger

    @property
    def ok(self) -> bool:
        """Whether every stage ended `OK` or `SKIPPED`."""
        states = self._bag.states
        return states.count(OK) + states.count(SKIPPED) == len(states)

    @property
    def states(self) -> Mapping[str, StageState]:
        """The state of every stage of the run, in the order of the pipeline."""
        if self._states is None:
            state = self._bag.state
            self._states = MappingProxyType({name: state(position) for position, name in enumerate(self._graph.names)})
        return self._states

    @property
    def failures(self) -> Mapping[str, StageFailure]:
        """The stages that are `FAILED` or `ABANDONED`, in the order of the pipeline."""
        if self._failures is None:
            names = self._graph.names
            self._failures = MappingProxyType(
                {names[position]: failure for position, failure in sorted(self._bag.failures.items())}
            )
        return self._failures

    @property
    def timings(self) -> Mapping[str, StageTiming]:
        """When each stage ran that did run: from the start of its first attempt to the end of its last."""
        if self._timings is None:
            bag = self._bag
            found = {
                name: StageTiming(start - bag.began, end - bag.began)
                for name, start, end in zip(self._graph.names, bag.started, bag.ended, strict=True)
                if end >= start  # both are nan for a stage that never ran
            }
            if bag.attempts:
                attempts = {self._graph.names[stage]: bag.list_attempts(stage) for stage in bag.attempts}
                found |= {name: StageTiming(each[0].started, each[-1].ended) for name, each in attempts.items()}
                found = {name: found[name] for name in self._graph.names if name in found}
            self._timings = MappingProxyType(found)
        return self._timings

    @property
    def attempts(self) -> Mapping[str, tuple[Attempt, ...]]:
        """Every attempt at each stage that ran, in the order of the pipeline; one each, but for restarts."""
        if self._attempts is None:
            lists = ((name, self._bag.list_attempts(stage)) for stage, name in enumerate(self._graph.names))
            self._attempts = MappingProxyType({name: attempts for name, attempts in lists if attempts})
        return self._attempts

    @property
    def duration(self) -> float:
        """Seconds from the start of the run to the end of its last stage; 0 where none ran."""
        return max((timing.ended for timing in self.timings.values()), default=0.0)

    def reason(self, stage: str) -> str:
        """Return why a stage is in its state, in words; empty where there is nothing to say.

        Raises:
            KeyError: The run has no such stage.
        """
        position = self._position(stage)
        bag = self._bag
        if position in bag.failures:
            return str(bag.failures[position])
        if position in bag.parents:
            return f"{self._graph.names[bag.parents[position]]!r} did not end well"
        return bag.reasons.get(position, "")

    def cause_chain(self, stage: str) -> tuple[str, ...]:
        """Return the way from an isolated stage to the stage behind it that ended badly by itself.

        The chain starts with `stage`; each next is the first dependency, in declaration order, that
        had ended badly; the last is not `ISOLATED`. Empty for a stage that is not isolated.

        Raises:
            KeyError: The run has no such stage.
        """
        position = self._position(stage)
        parents = self._bag.parents
        if position not in parents:
            return ()
        chain = [position]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
        return tuple(self._graph.names[number] for number in chain)

    def data(self, stage: str) -> Mapping[str, Any]:
        """Return the data of a stage's output.

        Raises:
            KeyError: It has no output; the message says its state and why.
        """
        return self[stage].data

    def require_ok(self, stage: str) -> StageOutput:
        """Return the output of a stage that ended `OK`.

        Raises:
            KeyError: It ended otherwise; the message says how and why.
        """
        output = self[stage]
        if output.status is not StageStatus.OK:
            raise self._no_output(stage)
        return output

    def raise_for_failures(self) -> None:
        """Raise what a run that fails fast would have raised, if a stage failed.

        Raises:
            PipelineFailedError: With the errors of all failed stages.
        """
        if self.failures:
            raise self._make_error()

    def _make_error(self) -> PipelineFailedError:
        """Return the error of a run in which stages failed, its cause being the group of their errors."""
        failures = list(self.failures.values())
        first = failures[0]
        more = f"; and {len(failures) - 1} more failed" if len(failures) > 1 else ""
        error = PipelineFailedError(f"{first}{more}", result=self, pipeline=self.pipeline, stage=first.stage)
        errors = [failure.error for failure in failures if isinstance(failure.error, Exception)]
        if errors:
            error.__cause__ = ExceptionGroup(f"failed stages of {self.pipeline!r}", errors)
        return error

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain dicts, lists and strings; outputs keep their data as it is."""
        return {
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "created_at": self._identity.created_at.isoformat(),
            "ended": {"ending": self._ended.ending.value, "reason": self._ended.reason},
            "ok": self.ok,
            "states": {name: state.value for name, state in self.states.items()},
            "reasons": {name: reason for name in self.states if (reason := self.reason(name))},
            "outputs": {name: _output_to_dict(output) for name, output in self.items()},
            "failures": {name: _failure_to_dict(failure) for name, failure in self.failures.items()},
            "restarted": {
                name: [_attempt_to_dict(attempt) for attempt in attempts]
                for name, attempts in self.attempts.items()
                if len(attempts) > 1
            },
            "timings": {name: attrs.asdict(timing) for name, timing in self.timings.items()},
            "ledger": attrs.asdict(self._ledger),
        }

    def __getitem__(self, stage: str) -> StageOutput:
        """Return a stage's output, or raise a `KeyError` that says its state and why."""
        position = self._position(stage)
        output = self._bag.outputs[position]
        if output is None:
            raise self._no_output(stage)
        return output

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the stages that have an output."""
        outputs = self._bag.outputs
        return (name for name, output in zip(self._graph.names, outputs, strict=True) if output is not None)

    def __len__(self) -> int:
        """Return how many stages have an output."""
        return len(self._bag.outputs) - self._bag.outputs.count(None)

    def __contains__(self, stage: object) -> bool:
        """Return whether a stage has an output."""
        position = self._graph.positions.get(stage) if isinstance(stage, str) else None
        return position is not None and self._bag.outputs[position] is not None

    def __repr__(self) -> str:
        """Name the pipeline, the run and how it ended."""
        return f"<RunResult of {self.pipeline!r}, run {self.run_id}: {self._ended}>"

    def __str__(self) -> str:
        """Return a summary for a person."""
        counts = Counter(self.states.values())
        ran = len(self.timings)
        lines = [f"pipeline {self.pipeline!r}: {self._ended}"]
        lines.append("  " + ", ".join(f"{counts[state]} {state.value}" for state in StageState if counts[state]))
        if ran and self.duration > 0:
            lines.append(f"  {count(ran, 'stage')} ran in {self.duration:.3f} s, {ran / self.duration:,.0f} stages/s")
        restarts = [len(self._bag.list_attempts(stage)) - 1 for stage in self._bag.attempts]
        if sum(restarts):
            stages = sum(1 for times in restarts if times)
            lines.append(f"  {count(sum(restarts), 'restart')} of {count(stages, 'stage')}")
        shown = 10
        lines.extend(
            f"  {self.states[failure.stage].value} {failure.stage!r}: {failure}"
            for failure in list(self.failures.values())[:shown]
        )
        if len(self.failures) > shown:
            lines.append(f"  and {len(self.failures) - shown:,} more in .failures")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of."""
        return RunResult, (self._graph, self._bag, self._identity, self._ended, self._ledger)

    def _position(self, stage: str) -> int:
        position = self._graph.positions.get(stage)
        if position is None:
            hint = suggest(stage, self._graph.positions, "its stages are")
            raise NoOutputError(f"there is no stage {stage!r} in this run", pipeline=self.pipeline, hint=hint)
        return position

    def _no_output(self, stage: str) -> NoOutputError:
        state = self.states[stage]
        why = self._bag.explain(self._position(stage))
        problem = f"it is not ok but {why}" if stage in self else f"it has no output: {why}"
        chain = " -> ".join(self.cause_chain(stage)[1:]) if state is StageState.ISOLATED else ""
        hint = f"the cause is {chain}" if chain.count("->") else None
        return NoOutputError(problem, pipeline=self.pipeline, stage=stage, hint=hint)


def _output_to_dict(output: StageOutput) -> dict[str, Any]:
    plain = {"status": output.status.value, "data": output.data}
    return plain if output.label is None else {**plain, "label": output.label}


def _failure_to_dict(failure: StageFailure) -> dict[str, Any]:
    return {"error": str(failure), "attempts": [_attempt_to_dict(attempt) for attempt in failure.attempts]}


def _attempt_to_dict(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "started": attempt.started,
        "ended": attempt.ended,
        "error": None if attempt.error is None else describe_error(attempt.error),
    }
