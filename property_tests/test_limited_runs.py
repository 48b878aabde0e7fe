"""Runs behind limiters: at every moment as many as may, never more, and nothing held in the end.

The limits are counted inside the stages, the tokens by a bucket in plain Python; only how many hold a slot
and how many wait is asked of the limiters.
"""

from __future__ import annotations

import contextlib
import math
from enum import Enum
from fractions import Fraction

import attrs
import trio
import trio.testing
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors import (
    Backoff,
    Limiter,
    OverloadedError,
    Pipeline,
    PipelineFailedError,
    Rate,
    Restart,
    StageOutput,
    StageState,
    Supervisor,
    Trigger,
)
from stageflow_actors.events import StageRejected

from .harness import Tasks, scheduled

NAMES = "xyz"
"""Of the limiters that stages may share."""


class Act(Enum):
    """How an attempt ends, once it has slept."""

    OK = "ok"
    SKIP = "skip"
    RAISE = "raise"
    FAIL = "fail"
    CANCEL = "cancel"


@attrs.frozen
class Limit:
    most: int
    max_queued: int | None = None
    overflow: str = "wait"
    rate: tuple[int, int, int] | None = None
    """A count, in so many seconds, and a burst."""
    aging: float = 10.0

    def make(self):
        rate = None if self.rate is None else Rate(self.rate[0], per=float(self.rate[1]), burst=self.rate[2])
        return Limiter(self.most, max_queued=self.max_queued, overflow=self.overflow, rate=rate, aging=self.aging)


@attrs.frozen
class Stage:
    dependencies: frozenset[int]
    trigger: Trigger
    limiter: int | None
    priority: int
    took: float
    act: Act
    heals_at: int
    """From this attempt on it succeeds."""
    timeout: float | None
    max_restarts: int | None
    """None for no restart."""
    initial: float
    """The first backoff."""


@attrs.frozen
class RunPlan:
    begins: float
    stages: tuple[Stage, ...]
    cancelled: float | None
    timeout: float | None
    fail_fast: bool


@attrs.frozen
class Plan:
    limits: tuple[Limit, ...]
    running: int | None
    """The supervisor's `max_running_stages`."""
    runs: tuple[RunPlan, ...]
    max_runs: int | None
    slots: tuple[tuple[float, int, float], ...]
    """Tasks outside of stages that hold a slot: from when on, of which limiter, for how long."""
    seed: int


GRID = st.integers(0, 16).map(lambda number: number / 4)
RATES = st.none() | st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 2), st.integers(1, 3))  # exact as floats
BOUNDED = st.builds(
    Limit,
    st.integers(1, 3),
    st.sampled_from([None, 0, 1, 2, 3]),
    st.sampled_from(["reject", "drop_oldest", "drop_newest", "wait"]),
    RATES,
)
LIMITS = st.builds(Limit, st.integers(1, 4), rate=RATES, aging=st.sampled_from([0.5, 10.0])) | BOUNDED
STAGES = st.builds(
    Stage,
    st.frozensets(st.integers(0, 5), max_size=2),
    st.sampled_from([Trigger.ALL_SUCCESS, Trigger.ALL_SUCCESS, Trigger.ALL_DONE]),
    st.sampled_from([0, 0, 1, 2, None]),
    st.integers(-1, 2),
    st.sampled_from([0.0, 0.0, 0.25, 1.0, 1.5]),
    st.sampled_from([Act.OK] * 6 + [Act.RAISE] * 4 + [Act.SKIP, Act.FAIL, Act.CANCEL]),
    st.integers(2, 4),
    st.sampled_from([None, None, None, 0.5]),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from([0.0, 0.25, 1.0]),
)
RUNS = st.builds(
    RunPlan,
    st.sampled_from([0.0, 0.0, 0.25, 1.0]),
    st.lists(STAGES, min_size=1, max_size=8).map(tuple),
    st.none() | st.none() | GRID,
    st.none() | st.none() | GRID.filter(bool),
    st.sampled_from([False, False, True]),
)
PLANS = st.builds(
    Plan,
    st.lists(LIMITS, min_size=1, max_size=3).map(tuple),
    st.none() | st.integers(1, 4),
    st.lists(RUNS, min_size=1, max_size=3).map(tuple),
    st.none() | st.none() | st.integers(1, 2),
    st.lists(st.tuples(GRID, st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0])), max_size=3).map(tuple),
    st.integers(0, 2**16),
)


class Meter:
    """One limiter, what it promises, and what is seen of it."""

    def __init__(self, limit, limiter):
        self.limit = limit
        self.limiter = limiter
        self.inside = 0
        """How many have begun that hold a slot."""
        self.level = None if limit.rate is None else Fraction(limit.rate[2])
        self.at = Fraction(0)
        self.problems = []
        """What went wrong inside stages, where an assertion would be their failure."""

    def enter(self):
        self.inside += 1
        if self.inside > self.limit.most:
            self.problems.append(f"{self.inside} of {self.limit.most} at once")
        if self.level is not None:
            self.level = self.count_tokens() - 1
            self.at = Fraction(trio.current_time())
            if self.level < 0:
                self.problems.append(f"a start without a token at {trio.current_time():g}")

    def leave(self):
        self.inside -= 1

    def count_tokens(self):
        """Return how many tokens there are, those reserved included."""
        count, per, burst = self.limit.rate
        return min(Fraction(burst), self.level + (Fraction(trio.current_time()) - self.at) * Fraction(count, per))

    def check(self):
        """At a moment at which nothing more can happen: nobody waits who could go on."""
        assert self.problems == []
        now = self.limiter.statistics()
        assert self.inside <= now.running <= self.limit.most
        if not now.queued:
            return
        reserved = now.running - self.inside
        assert now.running == self.limit.most or self.count_tokens() - reserved < 1


class World:
    """The limiters of a plan, and the runs behind them."""

    def __init__(self, plan):
        self.plan = plan
        self.meters = [Meter(limit, limit.make()) for limit in plan.limits]
        self.runs = []
        self.streams = []
        self.attempts = 0
        self.seen_full = False

    def meters_of(self, number):
        return [] if number is None else [self.meters[number % len(self.meters)]]

    def make_runner(self, stage, everything):
        meters = [*self.meters_of(stage.limiter), *everything]

        async def run(ctx):
            self.attempts += 1
            for meter in meters:
                meter.enter()
            try:
                await trio.sleep(stage.took)
            finally:
                for meter in meters:
                    meter.leave()
            match Act.OK if ctx.attempt >= stage.heals_at else stage.act:
                case Act.SKIP:
                    return StageOutput.skip("idle")
                case Act.FAIL:
                    return StageOutput.fail("no")
                case Act.CANCEL:
                    return StageOutput.cancel("enough")
                case Act.RAISE:
                    raise ConnectionError(ctx.attempt)

        return run

    def build(self, number, plan, everything):
        pipeline = Pipeline(f"p{number}")
        for position, stage in enumerate(plan.stages):
            pipeline = pipeline.with_stage(
                f"s{position}",
                self.make_runner(stage, everything),
                dependencies=[f"s{other}" for other in sorted(stage.dependencies) if other < position],
                trigger=stage.trigger,
                limiter=None if stage.limiter is None else self.meters_of(stage.limiter)[0].limiter,
                priority=stage.priority,
                timeout=stage.timeout,
                restart=None
                if stage.max_restarts is None
                else Restart(max_restarts=stage.max_restarts, backoff=Backoff(initial=stage.initial)),
            )
        return pipeline

    async def run_one(self, supervisor, number, plan, everything):
        await trio.sleep(plan.begins)
        pipeline = self.build(number, plan, everything)
        run = supervisor.start(pipeline, continue_on_failure=not plan.fail_fast, timeout=plan.timeout)
        self.runs.append(run)
        self.streams.append(run.events())
        with (
            trio.move_on_after(math.inf if plan.cancelled is None else plan.cancelled),
            contextlib.suppress(PipelineFailedError),
        ):
            await run.result()
        run.cancel("enough")
        with contextlib.suppress(PipelineFailedError):
            await run.result()

    async def hold(self, at, number, took):
        (meter,) = self.meters_of(number)
        await trio.sleep(at)
        with contextlib.suppress(OverloadedError):
            async with meter.limiter.slot():
                meter.enter()
                await trio.sleep(took)
                meter.leave()

    async def watch(self, supervisor, everything):
        """Look at everything whenever nothing more can happen for the time being."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            for meter in (*self.meters, *everything):
                meter.check()
                statistics = meter.limiter.statistics()
                self.seen_full = self.seen_full or (statistics.queued > 0)
            if supervisor._runs is not None:
                now = supervisor._runs.statistics()
                going = sum(run.statistics().running > 0 for run in self.runs)
                assert going <= now.running <= self.plan.max_runs
                assert not now.queued or now.running == self.plan.max_runs
            await trio.sleep(0.125)

    async def play(self):
        plan = self.plan
        async with Supervisor(max_running_stages=plan.running, max_runs=plan.max_runs) as supervisor:
            everything = [] if plan.running is None else [Meter(Limit(plan.running), supervisor._running)]
            async with trio.open_nursery() as outer:
                outer.start_soon(self.watch, supervisor, everything)
                async with trio.open_nursery() as nursery:
                    for number, run in enumerate(plan.runs):
                        nursery.start_soon(self.run_one, supervisor, number, run, everything)
                    for slot in plan.slots:
                        nursery.start_soon(self.hold, *slot)
                await trio.testing.wait_all_tasks_blocked()
                outer.cancel_scope.cancel()
        limiters = [meter.limiter for meter in (*self.meters, *everything)]
        for limiter in [*limiters, *([supervisor._runs] if supervisor._runs is not None else [])]:
            assert (limiter.statistics().running, limiter.statistics().queued) == (0, 0)


def check_run(plan, run, events):
    result = run.partial()
    assert result.ledger.balanced
    unfinished = {StageState.PENDING, StageState.RUNNING, StageState.RESTARTING}
    assert not unfinished.intersection(result.states.values())
    rejected = [one.stage for one in events if isinstance(one, StageRejected)]
    assert len(rejected) == len(set(rejected))
    for position, stage in enumerate(plan.stages):
        name = f"s{position}"
        attempts = result.attempts.get(name, ())
        assert len(attempts) <= 1 + (stage.max_restarts or 0)
        failure = result.failures.get(name)
        turned_away = failure is not None and isinstance(failure.error, OverloadedError)
        assert turned_away == (name in rejected)
        assert not turned_away or all(attempt.error is not None for attempt in attempts)
    return rejected


@given(plan=PLANS)
def test_as_many_as_may_and_never_more_and_nothing_held_in_the_end(plan):
    tasks = Tasks()
    world = World(plan)
    stories = []

    async def main():
        before = tasks.alive
        with trio.fail_after(1000):
            await world.play()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.alive == before
        stories.extend([[one async for one in stream] for stream in world.streams])

    with scheduled(plan.seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[tasks])
    ordered = sorted(world.runs, key=lambda run: run.pipeline)
    by_run = {id(run): story for run, story in zip(world.runs, stories, strict=True)}
    rejected = [check_run(one, run, by_run[id(run)]) for one, run in zip(plan.runs, ordered, strict=True)]
    told = sum(meter.limiter.statistics().rejected + meter.limiter.statistics().dropped for meter in world.meters)
    # Who was dropped and cancelled before it learned of it is cancelled; slots of tasks are turned away too.
    assert sum(map(len, rejected)) <= told
    event(f"somebody waited: {world.seen_full}, was turned away: {told > 0}")


CALM = STAGES.map(lambda stage: attrs.evolve(stage, act=Act.RAISE if stage.act is Act.RAISE else Act.OK, timeout=None))


@given(
    limits=st.lists(
        st.builds(
            Limit, st.integers(1, 3), st.integers(0, 2), st.sampled_from(["reject", "drop_oldest", "drop_newest"])
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    stages=st.lists(CALM, min_size=1, max_size=8).map(tuple),
    running=st.none() | st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_in_a_run_that_nothing_stops_everybody_is_served_or_turned_away(limits, stages, running, seed):
    """And who was turned away is counted exactly."""
    plan = Plan(limits, running, (RunPlan(0.0, stages, None, None, fail_fast=False),), None, (), seed)
    world = World(plan)
    story = []

    async def main():
        await world.play()
        story.extend([one async for one in world.streams[0]])

    with scheduled(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    (run,) = world.runs
    rejected = check_run(plan.runs[0], run, story)
    result = run.partial()
    statistics = [meter.limiter.statistics() for meter in world.meters]
    assert len(rejected) == sum(one.rejected + one.dropped for one in statistics)
    limited = {f"s{number}" for number, stage in enumerate(stages) if stage.limiter is not None}
    assert sum(one.admitted for one in statistics) == sum(len(result.attempts.get(name, ())) for name in limited)
    assert world.attempts == sum(map(len, result.attempts.values()))
    assert result.ledger.cancelled == 0
    assert result.ledger.accepted == len(set(result.attempts) | set(rejected))
    event(f"turned away: {len(rejected)}")
