"""Every exception that a caller may catch.

One base class, `StageflowError`. A message says what is wrong, with the value; where (pipeline and
stage); and, where there is a fix, what to do: `pipeline 'report', stage 'join': unknown dependency
'wroker-7'; did you mean 'worker-7'?` The same facts are attributes, for programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._bag import Attempt, StageFailure
    from ._output import StageOutput
    from ._result import RunResult


class StageflowError(Exception):
    """The base of every error that the library raises on its own account.

    Attributes:
        problem: What is wrong, with the value, without the place.
        pipeline: The pipeline's name, or None where none is involved.
        stage: The stage's name, or None.
        attempt: The stage's attempt, counted from 1, or None.
        actor: The resident actor's name, or None.
        hint: What to do about it, or None.
    """

    def __init__(
        self,
        problem: str,
        *,
        pipeline: str | None = None,
        stage: str | None = None,
        attempt: int | None = None,
        actor: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.pipeline = pipeline
        self.stage = stage
        self.attempt = attempt
        self.actor = actor
        self.hint = hint

    def locate(
        self,
        *,
        pipeline: str | None = None,
        stage: str | None = None,
        attempt: int | None = None,
        actor: str | None = None,
    ) -> None:
        """Fill in the place where it is not known yet: an error made deep inside learns it on its way up."""
        self.pipeline = self.pipeline or pipeline
        self.stage = self.stage or stage
        self.attempt = self.attempt or attempt
        self.actor = self.actor or actor

    def describe(self) -> str:
        """Return `problem; hint`, without the place."""
        return f"{self.problem}; {self.hint}" if self.hint else self.problem

    def __str__(self) -> str:
        """Return `place: problem; hint`."""
        place = []
        if self.pipeline is not None:
            place.append(f"pipeline {self.pipeline!r}")
        if self.stage is not None:
            place.append(f"stage {self.stage!r}")
        if self.actor is not None:
            place.append(f"actor {self.actor!r}")
        return f"{', '.join(place)}: {self.describe()}" if place else self.describe()


class PipelineValidationError(StageflowError, ValueError):
    """A pipeline, or a request to run one, that cannot work. Nothing has started."""


class CycleDetectedError(PipelineValidationError):
    """Stages that wait for each other.

    Attributes:
        cycle: The stages' names on the way round; the first is repeated at the end.
    """

    def __init__(self, problem: str, *, cycle: tuple[str, ...] = (), **place: Any) -> None:
        super().__init__(problem, **place)
        self.cycle = cycle


class ContractError(StageflowError):
    """A stage broke the library's contract. Never restarted: the next attempt would break it too."""


class StageReturnTypeError(ContractError, TypeError):
    """A stage returned something that is no `StageOutput`, mapping or None."""


class NotFreezableError(ContractError, TypeError):
    """A value inside a snapshot, a configuration or an output that cannot be made immutable.

    Attributes:
        path: Where the value stands, such as `data['rows'][3]`.
    """

    def __init__(self, problem: str, *, path: str = "", **place: Any) -> None:
        super().__init__(problem, **place)
        self.path = path


class NotJSONError(StageflowError, TypeError):
    """A snapshot holds a value that JSON cannot carry back.

    Attributes:
        path: Where it stands, such as `data['rows'][3]`.
    """

    def __init__(self, problem: str, *, path: str = "", **place: Any) -> None:
        super().__init__(problem, **place)
        self.path = path


class UndeclaredDependencyError(ContractError, LookupError):
    """A stage asked for the output of a stage that it does not depend on."""


class NurseryLeftOpenError(ContractError, RuntimeError):
    """A stage returned with a nursery still open. Its children were cancelled; theirs is the `__cause__`."""


class StrayCancelledError(ContractError):
    """A `trio.Cancelled` came out of a stage that nobody had cancelled; for callers in asyncio, a `CancelledError`."""


class NoOutputError(StageflowError, KeyError):
    """The output of a stage that has none was asked for; the message says its state and why."""

    __str__ = StageflowError.__str__


class MissingKeyError(StageflowError, KeyError):
    """A stage has an output, without the key that was required."""

    __str__ = StageflowError.__str__


class StageFailedError(StageflowError):
    """A stage returned `StageOutput.fail(...)`, or `retry(...)` with no restart left.

    Attributes:
        output: What the stage returned.
    """

    def __init__(self, problem: str, *, output: StageOutput | None = None, **place: Any) -> None:
        super().__init__(problem, **place)
        self.output = output


class StageTimeoutError(StageflowError, TimeoutError):
    """A stage's attempt ran into its timeout.

    Attributes:
        seconds: The timeout, in seconds.
    """

    def __init__(self, problem: str, *, seconds: float = 0.0, **place: Any) -> None:
        super().__init__(problem, **place)
        self.seconds = seconds


class RestartIntensityError(StageflowError):
    """A stage, or a run, failed more often than its restarts allow. Its `__cause__` is the last failure.

    Attributes:
        attempts: Every attempt at the stage, the last included.
        max_restarts: How many restarts were allowed.
        within: In how many seconds; None for the whole life of the stage or the run.
    """

    def __init__(
        self,
        problem: str,
        *,
        attempts: tuple[Attempt, ...] = (),
        max_restarts: int = 0,
        within: float | None = None,
        **place: Any,
    ) -> None:
        super().__init__(problem, **place)
        self.attempts = attempts
        self.max_restarts = max_restarts
        self.within = within


class OverloadedError(StageflowError):
    """A limit is reached and its queue is full: the stage, the item or the run was not accepted, or was dropped.

    Attributes:
        limit: How many may be under way at once.
        max_queued: How many may wait.
    """

    def __init__(self, problem: str, *, limit: int = 0, max_queued: int = 0, **place: Any) -> None:
        super().__init__(problem, **place)
        self.limit = limit
        self.max_queued = max_queued


class MailboxFullError(OverloadedError):
    """A resident actor's mailbox is full: the message was refused, or was dropped from it."""


class ActorError(StageflowError):
    """A resident actor could not be started, or a message to one was not answered."""


class ActorStartError(ActorError):
    """A resident actor did not come up. Its `__cause__` is what its start raised."""


class AskTimeoutError(ActorError, TimeoutError):
    """A resident actor did not answer in time. A message that it had not begun with was withdrawn.

    Attributes:
        seconds: The timeout, in seconds.
    """

    def __init__(self, problem: str, *, seconds: float = 0.0, **place: Any) -> None:
        super().__init__(problem, **place)
        self.seconds = seconds


class ActorDeadError(ActorError):
    """A resident actor is not there any more. It has not begun with the message."""


class ActorUnavailableError(ActorError):
    """A resident actor was stopped with the message in hand: it may have done what it was asked, or a part."""


class UnknownActorError(ActorError, LookupError):
    """A supervisor has no resident actor of that name."""


class ItemFailedError(StageflowError):
    """An item of a dynamic fan-out failed, and that was to fail the stage. Its `__cause__` is the item's error.

    Attributes:
        index: The item's position.
        escalates: Whether the item's restart policy said to end the run, too.
    """

    def __init__(self, problem: str, *, index: int = 0, escalates: bool = False, **place: Any) -> None:
        super().__init__(problem, **place)
        self.index = index
        self.escalates = escalates


class ThreadAbandonedError(StageflowError):
    """A stage's thread, or its task in an asyncio loop, was still running when its shutdown budget was spent.

    Attributes:
        seconds: The shutdown budget, in seconds.
    """

    def __init__(self, problem: str, *, seconds: float = 0.0, **place: Any) -> None:
        super().__init__(problem, **place)
        self.seconds = seconds


class PipelineFailedError(StageflowError):
    """A stage failed, and the run was to end at the first failure.

    Its `__cause__` is an `ExceptionGroup` of the stages' errors.

    Attributes:
        result: What the run had completed, with every stage's state.
    """

    def __init__(self, problem: str, *, result: RunResult, **place: Any) -> None:
        super().__init__(problem, **place)
        self.result = result

    @property
    def failures(self) -> Mapping[str, StageFailure]:
        """The stages that failed, by name."""
        return self.result.failures

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the result, which the constructor needs."""
        names = ("pipeline", "stage", "attempt", "actor", "hint")
        place = {name: getattr(self, name) for name in names}
        return _make_pipeline_failed, (self.problem, self.result, place)


def _make_pipeline_failed(problem: str, result: RunResult, place: dict[str, Any]) -> PipelineFailedError:
    return PipelineFailedError(problem, result=result, **place)


class SupervisorClosedError(StageflowError, RuntimeError):
    """A call from outside of trio to a supervisor that is not open: not yet, or not any more."""


class WorkerDiedError(StageflowError):
    """The process that a stage ran in ended before the stage did. An ordinary failure, after which it may be restarted.

    Attributes:
        exitcode: The exit code of the process; `-9` where signal 9 has killed it.
    """

    def __init__(self, problem: str, *, exitcode: int | None = None, **place: Any) -> None:
        super().__init__(problem, **place)
        self.exitcode = exitcode


class RemoteError(StageflowError):
    """Stands for an error of another process that could not be sent from there; its message is that one's.

    Attributes:
        kind: The name of its class.
        traceback: Its traceback, cause and context, as they are printed.
    """

    def __init__(self, problem: str, *, kind: str = "", traceback: str = "", **place: Any) -> None:
        super().__init__(problem, **place)
        self.kind = kind
        self.traceback = traceback


class NotPicklableError(ContractError, TypeError):
    """A value that has to go to another process, or come back from one, and cannot be pickled."""


class LedgerError(StageflowError):
    """A run's ledger does not balance: a bug of this library, which you are asked to report.

    Attributes:
        result: The run's result.
    """

    def __init__(self, problem: str, *, result: RunResult | None = None, **place: Any) -> None:
        super().__init__(problem, **place)
        self.result = result


class MissingExtraError(StageflowError, ImportError):
    """A part of the library was used whose optional dependencies are not installed.

    Attributes:
        extra: What to install: `pip install stageflow-actors[extra]`.
    """

    def __init__(self, problem: str, *, extra: str = "", **place: Any) -> None:
        super().__init__(problem, **place)
        self.extra = extra


class RaceError(StageflowError, AssertionError):
    """An exploration found a schedule under which a program fails; `__cause__` is what it failed with.

    Attributes:
        failure: The failing schedule and its trace: a `stageflow_actors.testing.RaceFailure`.
        report: What was explored, a `stageflow_actors.testing.Report`; None where a schedule was replayed.
    """

    def __init__(self, problem: str, *, failure: Any = None, report: Any = None, **place: Any) -> None:
        super().__init__(problem, **place)
        self.failure = failure
        self.report = report


class LinearizabilityError(StageflowError, AssertionError):
    """A history is not linearizable, or it was not decided whether it is.

    Attributes:
        violation: The operations that fit into no order: a `stageflow_actors.testing.Violation`; None where it was not
            decided.
    """

    def __init__(self, problem: str, *, violation: Any = None, **place: Any) -> None:
        super().__init__(problem, **place)
        self.violation = violation


class ReplayError(StageflowError):
    """A schedule cannot be replayed: it is no schedule, or the program has changed or does not repeat itself."""


class ControlError(StageflowError, RuntimeError):
    """This release of trio does not let the race toolkit control its tasks."""


class InjectedError(StageflowError):
    """What a stage or task is made to raise by a fault of the race toolkit, unless the fault says otherwise."""
