"""Runs a drawn plan, once, on a virtual clock, and gathers everything that can be seen of it."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import attrs
import trio
import trio.testing

from stageflow_actors import Pipeline, PipelineFailedError, RunResult, StageOutput, Supervisor

from .makers import make_intensity
from .plans import CHANCE, GIVEN_SUM, THREADED, RunPlan, Way
from .problems import Abort, leaves
from .recorder import Recorder
from .runners import build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stageflow_actors.events import Event

# Virtual seconds after which a run counts as hung; real ones where there are threads.
_HUNG = 1000.0
_HUNG_WITH_THREADS = 60.0


class Tasks(trio.abc.Instrument):
    """Counts the tasks that are alive."""

    def __init__(self) -> None:
        self.alive = 0

    def task_spawned(self, _task: trio.lowlevel.Task) -> None:
        self.alive += 1

    def task_exited(self, _task: trio.lowlevel.Task) -> None:
        self.alive -= 1


@attrs.define
class Outcome:
    """What came of a run."""

    recorder: Recorder
    result: RunResult | None = None
    """Also that of a run that raised `PipelineFailedError`, or that was started and then cancelled."""
    returned: bool = False
    error: BaseException | None = None
    """What `run` or `result` raised, but for Cancelled."""
    raised_again: list[BaseException] = attrs.field(factory=list)
    """What left the supervisor after a run that was started had raised what is no `Exception`."""
    cancelled: bool = False
    """Whether they raised Cancelled."""
    caught: bool = False
    """Whether the scope around them caught it."""
    events: list[Event] = attrs.field(factory=list)
    """Those of a run that was started, in order."""
    dropped: int = 0
    left: int = 0
    """How many more tasks were alive after the run than before."""


@contextlib.contextmanager
def scheduled(seed: int) -> Iterator[None]:
    """Make trio's scheduler take its choices from a seed."""
    module = trio._core._run
    saved = module._r, module._ALLOW_DETERMINISTIC_SCHEDULING
    module._r, module._ALLOW_DETERMINISTIC_SCHEDULING = random.Random(seed), True
    try:
        yield
    finally:
        module._r, module._ALLOW_DETERMINISTIC_SCHEDULING = saved


def run_plan(plan: RunPlan) -> Outcome:
    """Run a plan in a fresh trio loop."""
    outcome = Outcome(Recorder(plan))
    tasks = Tasks()
    threads = any(stage.form in THREADED for stage in plan.stages)
    clock = None if threads else trio.testing.MockClock(autojump_threshold=0)
    with scheduled(plan.seed):
        trio.run(
            _watch, plan, outcome, tasks, _HUNG_WITH_THREADS if threads else _HUNG, clock=clock, instruments=[tasks]
        )
    return outcome


async def _watch(plan: RunPlan, outcome: Outcome, tasks: Tasks, limit: float) -> None:
    before = tasks.alive
    with trio.fail_after(limit):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await _supervise(plan, outcome, tasks, scope, nursery)
            outcome.caught = scope.cancelled_caught
            nursery.cancel_scope.cancel()
    outcome.left += tasks.alive - before


async def _supervise(
    plan: RunPlan, outcome: Outcome, tasks: Tasks, scope: trio.CancelScope, nursery: trio.Nursery
) -> None:
    recorder = outcome.recorder
    pipeline = build(plan, recorder)
    recorder.began = trio.current_time()
    stop = plan.stop
    if plan.scope_at is not None:
        scope.deadline = recorder.began + plan.scope_at
    if stop is not None and stop.way is Way.SCOPE:
        recorder.stop = scope.cancel
        if stop.at is not None:
            scope.deadline = recorder.began + stop.at
        if stop.entry == 0:
            recorder.stop_now()
    try:
        async with Supervisor(max_running_stages=plan.max_running, random=lambda: CHANCE) as supervisor:
            if plan.started:
                await _start(plan, outcome, supervisor, pipeline, nursery)
            else:
                await _run(plan, outcome, supervisor, pipeline, tasks)
    except* Abort as group:
        outcome.raised_again = leaves(group)


async def _run(plan: RunPlan, outcome: Outcome, supervisor: Supervisor, pipeline: Pipeline, tasks: Tasks) -> None:
    before = tasks.alive
    try:
        outcome.result = await supervisor.run(pipeline, {"from": "caller"}, **options(plan))
        outcome.returned = True
    except PipelineFailedError as error:
        outcome.error, outcome.result = error, error.result
    except trio.Cancelled:
        outcome.cancelled = True
        raise
    except BaseException as error:
        outcome.error = error
    finally:
        outcome.left += tasks.alive - before


async def _start(
    plan: RunPlan, outcome: Outcome, supervisor: Supervisor, pipeline: Pipeline, nursery: trio.Nursery
) -> None:
    run = supervisor.start(pipeline, {"from": "caller"}, **options(plan))
    outcome.recorder.run = run
    stream = run.events()
    stop = plan.stop
    if stop is not None and stop.way is Way.HANDLE:
        outcome.recorder.stop = lambda: run.cancel("from outside")
        if stop.at is not None:
            nursery.start_soon(_stop_later, outcome.recorder, stop.at)
        if stop.entry == 0:
            outcome.recorder.stop_now()
    try:
        outcome.result = await run.result()
        outcome.returned = True
    except PipelineFailedError as error:
        outcome.error, outcome.result = error, error.result
    except trio.Cancelled:
        outcome.cancelled = True
        raise
    except BaseException as error:
        outcome.error = error
    finally:
        with trio.CancelScope(shield=True):  # a cancelled run has still to come to its end
            outcome.events = [event async for event in stream]
            outcome.dropped = stream.dropped
            outcome.result = run.partial()


async def _stop_later(recorder: Recorder, seconds: float) -> None:
    await trio.sleep(seconds)
    recorder.stop_now()


def options(plan: RunPlan) -> dict[str, Any]:
    """Return the arguments with which a drawn run is run or started."""
    given: dict[str, Any] = {
        "mapping": {"sum": GIVEN_SUM},
        "ok": StageOutput.ok(sum=GIVEN_SUM),
        "skip": StageOutput.skip("given", {"sum": GIVEN_SUM}),
    }
    stop = plan.stop
    return {
        "continue_on_failure": plan.continue_on_failure,
        "intensity": make_intensity(plan),
        "targets": plan.targets,
        "overrides": {name: given[what] for name, what in plan.overrides} or None,
        "timeout": stop.at if stop is not None and stop.way is Way.TIMEOUT else None,
    }
