"""Plays the plan of a chaos run, on a virtual clock where it can, and takes down all that can be seen of it."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import trio
import trio.testing
from chaos_plans import CallPlan, ChaosPlan, Leave

from property_tests.harness import Tasks, options, scheduled
from property_tests.makers import make_limiters, make_meters
from property_tests.meters import ALL, Meter
from property_tests.plans import Way
from property_tests.problems import leaves
from property_tests.recorder import Recorder
from property_tests.restart_model import NEAR
from property_tests.runners import build
from stageflow_actors import OverloadedError, Run, RunIdentity, RunResult, StageState, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from stageflow_actors import Limiter, Pipeline
    from stageflow_actors._engine import Engine
    from stageflow_actors.events import Event
    from stageflow_actors.statistics import LimiterStatistics

# Virtual seconds after which a chaos run counts as hung; real ones where there are threads.
_HUNG = 10_000.0
_HUNG_WITH_THREADS = 60.0
_ENOUGH = 3
"""What is out of order once is so at every moment that follows."""


class LeftError(Exception):
    """What the body of a supervisor raises."""


@attrs.define(eq=False)
class Call:
    """One run: what was planned, and what came of it."""

    plan: CallPlan
    recorder: Recorder
    events: list[Event] = attrs.field(factory=list)
    engine: Engine | None = None
    """None where it was not admitted, or never asked for."""
    at: float | None = None
    """When it was asked for, on trio's clock."""
    returned: RunResult | None = None
    error: BaseException | None = None
    cancelled: bool = False
    """Whether its caller was."""
    runs: LimiterStatistics | None = None
    """Of the supervisor's runs, at the moment at which this one was refused."""

    @property
    def result(self) -> RunResult | None:
        """What the runtime made of it."""
        return None if self.engine is None else self.engine.result

    @property
    def began(self) -> float:
        """When its first stages were told, or, where none were, when it was admitted, on trio's clock."""
        assert self.engine is not None
        return self.engine._bag.began


@attrs.define(eq=False)
class Log:
    """One chaos run."""

    plan: ChaosPlan
    calls: list[Call]
    limiters: dict[str, Limiter]
    meters: dict[str, Meter]
    problems: list[str] = attrs.field(factory=list)
    """What was seen to be wrong while it went on."""
    left: BaseException | None = None
    """What came out of the supervisor."""
    left_at: float | None = None
    """When its body was left before its time, on trio's clock."""
    tasks_left: int = 0
    runs_left: int = 0
    slots_left: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    """Of each limiter: how many are still admitted, and still wait."""


class Watchful(Supervisor):
    """A supervisor that lets every run be listened to, also one that has no handle, and counts from a seed."""

    def __init__(self, plan: ChaosPlan) -> None:
        rng = random.Random(plan.seed)
        self.now_asking: Call | None = None
        super().__init__(
            max_running_stages=plan.max_running,
            max_runs=plan.max_runs,
            max_queued=plan.max_queued,
            overflow=plan.overflow,  # type: ignore[arg-type]
            random=rng.random,
            identify=lambda: RunIdentity(f"{rng.getrandbits(64):x}", datetime(2026, 1, 1, tzinfo=UTC)),
        )

    def _admit(self, *arguments: Any, **options: Any) -> Engine:
        call = self.now_asking
        assert call is not None
        try:
            engine = super()._admit(*arguments, **options)
        except OverloadedError:
            assert self._runs is not None
            call.runs = self._runs.statistics()
            raise
        call.engine = engine
        engine.announcer.listen(call.events.append)
        return engine


def make_clock(look_round: Callable[[float], None]) -> trio.testing.MockClock:
    """Return a virtual clock that looks round whenever nothing is left to do but to wait."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    jump = clock.jump

    def look_and_jump(seconds: float) -> None:
        look_round(clock.current_time())
        jump(seconds)

    clock.jump = look_and_jump  # type: ignore[method-assign]
    return clock


def play(plan: ChaosPlan) -> Log:
    """Play a plan in a fresh trio loop."""
    limiters, meters = dict(plan.limiters), make_meters(dict(plan.limiters), plan.max_running)
    calls = [Call(call, Recorder(call.run, meters)) for call in plan.calls]
    log = Log(plan, calls, make_limiters(limiters), meters)
    tasks = Tasks()
    supervisor = Watchful(plan)
    clock = None if plan.threads else make_clock(lambda now: _look_round(log, supervisor, now))
    with scheduled(plan.seed):
        trio.run(_main, log, supervisor, tasks, clock=clock, instruments=[tasks])
    raised = [log.left, *(call.error for call in calls)]
    if any(isinstance(leaf, KeyboardInterrupt) for error in raised if error for leaf in leaves(error)):
        raise KeyboardInterrupt
    return log


async def _main(log: Log, supervisor: Watchful, tasks: Tasks) -> None:
    before = tasks.alive
    with trio.fail_after(_HUNG_WITH_THREADS if log.plan.threads else _HUNG):
        await _supervise(log, supervisor)
        if not log.plan.threads:
            await trio.testing.wait_all_tasks_blocked()
    log.tasks_left = tasks.alive - before
    log.runs_left = len(supervisor._engines)
    named = {**log.limiters, "max_running_stages": supervisor._running, "max_runs": supervisor._runs}
    for name, limiter in named.items():
        if limiter is not None:
            statistics = limiter.statistics()
            log.slots_left[name] = statistics.running, statistics.queued


async def _supervise(log: Log, supervisor: Watchful) -> None:
    plan = log.plan
    scope = trio.CancelScope()
    start = trio.current_time()
    if plan.leave is Leave.CANCELLED:
        assert plan.leave_at is not None
        scope.deadline = log.left_at = start + plan.leave_at
    try:
        with scope:
            async with supervisor, trio.open_nursery() as callers:
                for call in log.calls:
                    callers.start_soon(_ask, supervisor, call, log.limiters)
                if plan.leave is Leave.RAISING:
                    callers.start_soon(_leave, log, callers)
    except trio.Cancelled:
        raise
    except BaseException as error:
        log.left = error
    if plan.leave is Leave.CANCELLED and not scope.cancel_called:
        log.left_at = None  # all was over before


async def _leave(log: Log, callers: trio.Nursery) -> None:
    assert log.plan.leave_at is not None
    await trio.sleep(log.plan.leave_at)
    if len(callers.child_tasks) > 1:
        log.left_at = trio.current_time()
        raise LeftError


async def _ask(supervisor: Watchful, call: Call, limiters: dict[str, Limiter]) -> None:
    """Ask for one run, and stop it as planned."""
    plan, recorder = call.plan.run, call.recorder
    pipeline = build(plan, recorder, limiters)
    if call.plan.at:
        await trio.sleep(call.plan.at)
    call.at = recorder.began = trio.current_time()
    stop = plan.stop
    with trio.CancelScope() as scope:
        if stop is not None and stop.way is Way.SCOPE:
            recorder.stop = scope.cancel
            if stop.at is not None:
                scope.deadline = call.at + stop.at
            if stop.entry == 0:
                recorder.stop_now()
        async with trio.open_nursery() as nursery:
            await _run(supervisor, call, pipeline, nursery)
            nursery.cancel_scope.cancel()


async def _run(supervisor: Watchful, call: Call, pipeline: Pipeline, nursery: trio.Nursery) -> None:
    plan = call.plan.run
    supervisor.now_asking = call
    try:
        if plan.started:
            run = supervisor.start(pipeline, {"from": "caller"}, **options(plan))
            call.recorder.run = run
            _stop_by_handle(call, run, nursery)
            call.returned = await run.result()
        else:
            call.returned = await supervisor.run(pipeline, {"from": "caller"}, **options(plan))
    except trio.Cancelled:
        call.cancelled = True
        raise
    except BaseException as error:
        call.error = error


def _stop_by_handle(call: Call, run: Run, nursery: trio.Nursery) -> None:
    stop = call.plan.run.stop
    if stop is None or stop.way is not Way.HANDLE:
        return
    call.recorder.stop = lambda: run.cancel("from outside")
    if stop.at is not None:
        nursery.start_soon(_stop_later, call.recorder, stop.at)
    if stop.entry == 0:
        call.recorder.stop_now()


async def _stop_later(recorder: Recorder, seconds: float) -> None:
    await trio.sleep(seconds)
    recorder.stop_now()


def _look_round(log: Log, supervisor: Watchful, now: float) -> None:
    """Compare what limiters and runs say of themselves with what was counted inside of stages; nothing is on its way.

    It runs inside of trio's loop, where nothing may be raised.
    """
    if len(log.problems) >= _ENOUGH:
        return
    waiting_inside = 0
    plans = dict(log.plan.limiters)
    for name, limiter in log.limiters.items():
        meter, statistics = log.meters[name], limiter.statistics()
        held = statistics.running - meter.inside
        waiting_inside += held
        if plans[name].overflow != "wait" and statistics.queued > (plans[name].max_queued or 0):
            log.problems.append(f"at {now:g}: {name} keeps more waiting than it may: {statistics}")
        if held < 0:
            log.problems.append(f"at {now:g}: {meter.inside} are inside of {name}, which has {statistics}")
        if statistics.queued and statistics.running < statistics.max_concurrency:
            level = None if meter.rate is None else meter.find_level(now) - held
            if level is None or level >= 1 + NEAR:
                log.problems.append(f"at {now:g}: {name} admits nobody, with {level} tokens: {statistics}")
    running = supervisor._running
    inside = log.meters[ALL].inside
    queued = 0
    if running is not None:
        shared = running.statistics()
        queued = shared.queued
        if shared.running != inside:
            log.problems.append(f"at {now:g}: {inside} stages run, and the supervisor's limiter has {shared}")
        if queued and shared.running < shared.max_concurrency:
            log.problems.append(f"at {now:g}: the supervisor's limiter admits nobody: {shared}")
    if waiting_inside > queued:
        log.problems.append(f"at {now:g}: {waiting_inside} hold a slot and do not run, {queued} wait for another")
    runs = None if supervisor._runs is None else supervisor._runs.statistics()
    if runs is not None and log.plan.overflow != "wait" and runs.queued > (log.plan.max_queued or 0):
        log.problems.append(f"at {now:g}: more runs are queued than may be: {runs}")
    if runs is not None and runs.queued and runs.running < runs.max_concurrency:
        log.problems.append(f"at {now:g}: no run is admitted: {runs}")
    for number, call in enumerate(log.calls):
        if call.engine is not None and call.result is None:
            states = call.engine.view().states
            fans = {stage.name for stage in call.plan.run.stages if stage.fan is not None}
            count = sum(state is StageState.RUNNING for name, state in states.items() if name not in fans)
            if count != call.recorder.meter.inside:
                log.problems.append(
                    f"at {now:g}: run {number} says that {count} stages run, and {call.recorder.meter.inside} do"
                )
