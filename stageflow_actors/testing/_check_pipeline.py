"""`check_pipeline`: the laws of the runtime, checked over the schedules of one pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from stageflow_actors import ContextSnapshot, FanOutLimiterStage, PipelineValidationError

from . import _explore
from ._checked_run import Check, make_pipeline
from ._frames import get_name
from ._laws import BrokenLawError
from ._report import Report, raise_failure
from ._simplify import MAX_STEPS

if TYPE_CHECKING:
    from stageflow_actors import Intensity, StageOutput, StageSpec

    from ._checked_run import Source
    from ._explore import ClockMode
    from ._faults import Fault
    from ._report import RaceFailure
    from ._search import Strategy

MAX_EXECUTIONS: Final = 500
_DEFAULT: Final = "0"
"""The default schedule."""


def check_pipeline(
    pipeline: Source,
    snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
    *,
    continue_on_failure: bool = True,
    timeout: float | None = None,
    intensity: Intensity | None = None,
    targets: Iterable[str] | None = None,
    overrides: Mapping[str, StageOutput | Mapping[str, Any]] | None = None,
    max_running_stages: int | None = None,
    max_threads: int | None = None,
    shutdown: float = 5.0,
    same_result: bool | None = None,
    max_executions: int = MAX_EXECUTIONS,
    strategy: Strategy = "auto",
    seed: int = 0,
    faults: Iterable[Fault] = (),
    clock: ClockMode = "explore",
    max_steps: int = MAX_STEPS,
    replay: str | None = None,
) -> Report:
    """Run a pipeline under many schedules, and check that every run keeps the laws of the runtime.

    The laws, by the names under which a broken one is told:

    - *order*: a stage begins after all its dependencies have ended, once an attempt, and never beside itself;
    - *conservation*: the ledger balances; every stage has one final state, which is what its runner made of it;
    - *isolation*: whether a stage ran follows from its trigger and the states of its dependencies;
    - *immutability*: the snapshot and every output are in the end what they were when they were first seen, also
      objects in them that pass by reference, where their type says what makes two of them equal;
    - *limits*: there are never more behind a limit than it admits, and in the end nobody is;
    - *no task left*: nor a thread, but those that are counted as abandoned;
    - *same result*: the states and the data are those of the first run, which follows the default schedule.

    Each execution has a supervisor and limiters of its own. Stages are shared by all executions: give a function
    that makes the pipeline where they keep state, or take their items from an iterator. Plain functions that have a
    placement run in threads of the supervisor. Backoff has no jitter, and the run's identity is always the same.

    Args:
        pipeline: The pipeline, or a function that makes one, called for each execution.
        snapshot: As in `Supervisor.run`; so are the following.
        continue_on_failure: Whether failures are left to what depends on them. Otherwise the first ends the run,
            and its `PipelineFailedError` is as it should be.
        timeout: Seconds for the whole run.
        intensity: How often its stages may be restarted together.
        targets: The stages that are wanted.
        overrides: Outputs that are given instead of run.
        max_running_stages: As in `Supervisor`; so are the following two.
        max_threads: How many plain functions may be in threads at once.
        shutdown: The budget of a run that stops, in seconds.
        same_result: Whether every schedule must give the same result. By default it must, unless faults may strike,
            a limiter drops or has a rate, or there are timeouts, an `intensity` or restarts within a time.
        max_executions: As in `explore`; so are the following. To know the same result takes two more, of the first run.
        strategy: Which schedules.
        seed: Of the samplers.
        faults: What may go wrong. The laws hold all the same, but the last.
        clock: Whether the jump of the clock is a choice.
        max_steps: An execution with more steps does not end.
        replay: The schedule of an earlier failure: only that is run, with everything else as it was then.

    Returns:
        What was covered; there was no failure.

    Raises:
        RaceError: A law was broken, or the run raised what it should not, or did not end. It says under which
            schedule, with its trace, and how to replay it.
        PipelineValidationError: The pipeline or an argument cannot work.
        ReplayError: The schedule does not fit.
        ControlError: This release of trio cannot be controlled.
        RuntimeError: It was called inside trio.
    """
    __tracebackhide__ = True
    plan = tuple(faults)
    first = make_pipeline(pipeline)
    first.validate()
    if same_result is None:
        is_timed = timeout is not None or intensity is not None
        same_result = not plan and not is_timed and not any(map(_may_differ, first.stages))
    check = Check(
        pipeline,
        ContextSnapshot(data=snapshot) if isinstance(snapshot, Mapping) else snapshot,
        options={
            "continue_on_failure": continue_on_failure,
            "timeout": timeout,
            "intensity": intensity,
            "targets": targets if targets is None or isinstance(targets, str) else list(targets),
            "overrides": overrides,
        },
        supervision={"max_running_stages": max_running_stages, "max_threads": max_threads, "shutdown": shutdown},
        same_result=same_result,
    )

    async def program() -> None:
        __tracebackhide__ = True
        await check.run()

    program.__qualname__ = f"check_pipeline({first.name!r})"
    world: dict[str, Any] = {"faults": plan, "clock": clock, "max_steps": max_steps}
    if same_result:
        for check.repeats in (False, True):
            _judge(_explore.replay(program, _DEFAULT, **world))
        check.repeats = False
    if replay is None:
        report = _explore.explore(program, max_executions=max_executions, strategy=strategy, seed=seed, **world)
    else:
        failure = _explore.replay(program, replay, **world)
        name = get_name(program)
        report = Report(name, failure, executions=1, certificate=None, bound=None, sampled=0, seed=seed)
    _judge(report.failure, report)
    return report


def _judge(failure: RaceFailure | None, report: Report | None = None) -> None:
    """Raise what there is to raise."""
    __tracebackhide__ = True
    if failure is None:
        return
    if isinstance(failure.error, PipelineValidationError):
        raise failure.error
    if isinstance(failure.error, BrokenLawError):
        failure.error.__traceback__ = None  # its frames are all ours; what it says stands in the report
    failure = attrs.evolve(failure, call=f"check_pipeline(..., replay={failure.schedule!r})")
    raise_failure(failure, None if report is None else attrs.evolve(report, failure=failure))


def _may_differ(spec: StageSpec) -> bool:
    """Return whether a stage's state may depend on the time, or on who came first."""
    runner = spec.runner
    limiters, restarts, timeouts = [spec.limiter], [spec.restart], [spec.timeout]
    if isinstance(runner, FanOutLimiterStage):
        limiters.append(runner.limiter)
        restarts.append(runner._options.restart)  # noqa: SLF001 (what its constructor was given)
        timeouts.append(runner._options.timeout)  # noqa: SLF001 (likewise)
    options = [limiter._options for limiter in limiters if limiter is not None]  # noqa: SLF001 (likewise)
    drops = any(each.overflow != "wait" or each.rate is not None for each in options)
    has_window = any(restart is not None and restart.within is not None for restart in restarts)
    return drops or has_window or any(seconds is not None for seconds in timeouts)
