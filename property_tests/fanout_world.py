"""Drawn fan-outs, the world that they run in, and what is counted there."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from enum import Enum

import attrs
import trio
import trio.testing
from hypothesis import strategies as st

from stageflow_actors import (
    Backoff,
    Directive,
    FanOutLimiterStage,
    Intensity,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Rate,
    Restart,
    StageOutput,
    Supervisor,
)

from .harness import Tasks, scheduled
from .meters import Meter


class Act(Enum):
    """How an attempt at an item ends, once it has slept."""

    OK = "ok"
    NONE = "none"
    SKIP = "skip"
    FAIL = "fail"
    RETRY = "retry"
    RAISE = "raise"
    WRONG = "wrong"
    GROUP = "group"
    CANCEL = "cancel"


ENDS_WELL = {Act.OK: "ok", Act.NONE: "ok", Act.SKIP: "skipped"}
RESTARTED = {Act.RETRY, Act.RAISE, Act.GROUP}


class Reaction(Enum):
    """What a worker does when it is cancelled while it sleeps."""

    LET_THROUGH = "let through"
    SHIELD = "shield"
    RAISE = "raise"


class Source(Enum):
    LIST = "list"
    GENERATOR = "generator"
    ASYNC = "async"
    SLOW = "slow"


@attrs.frozen
class Item:
    act: Act
    took: float
    heals_at: int
    """At this attempt it is OK, at once."""
    reaction: Reaction = Reaction.LET_THROUGH


@attrs.frozen
class Limit:
    most: int
    max_queued: int | None
    overflow: str
    rate: tuple[int, float, int] | None

    def make(self):
        rate = None if self.rate is None else Rate(*self.rate)
        return Limiter(self.most, max_queued=self.max_queued, overflow=self.overflow, rate=rate)

    @property
    def is_patient(self):
        return self.overflow == "wait"


@attrs.frozen
class Fan:
    items: tuple[Item, ...]
    source: Source
    limit: int
    ends_at_failure: bool
    collects: bool
    restart: tuple[int, float] | None
    """How many restarts, after how many seconds."""
    escalates: bool
    timeout: float | None
    priority: int
    stage_timeout: float | None
    stage_restart: int | None


@attrs.frozen
class Plan:
    limits: tuple[Limit, Limit]
    running: int | None
    fans: tuple[Fan, ...]
    stop: tuple[str, float] | None
    """How, and when."""
    fail_fast: bool
    intensity: int | None
    seed: int


TIMES = [0.0, 0.0, 0.25, 0.5, 1.0, 2.0]
CALM_ACTS = [act for act in Act if act is not Act.CANCEL]


def make_items(acts, reactions):
    item = st.builds(
        Item,
        st.sampled_from(acts),
        st.sampled_from(TIMES),
        st.sampled_from([1, 2, 3, 99, 99]),
        st.sampled_from(reactions),
    )
    return st.lists(item, max_size=9).map(tuple)


LIMITS = st.builds(
    Limit,
    st.integers(1, 4),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from(["wait", "wait", "wait", "reject", "drop_oldest", "drop_newest"]),
    st.sampled_from([None, None, (2, 1.0, 2), (4, 1.0, 1)]),
)
PATIENT = st.builds(Limit, st.integers(1, 4), st.none(), st.just("wait"), st.sampled_from([None, None, (2, 1.0, 2)]))
RESTARTS = st.none() | st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.5, 1.0]))
FANS = st.builds(
    Fan,
    items=make_items([*CALM_ACTS, *CALM_ACTS, Act.CANCEL], list(Reaction)),
    source=st.sampled_from(Source),
    limit=st.integers(0, 1),
    ends_at_failure=st.booleans(),
    collects=st.booleans(),
    restart=RESTARTS,
    escalates=st.sampled_from([False, False, False, False, True]),
    timeout=st.sampled_from([None, None, 0.75]),
    priority=st.integers(-1, 1),
    stage_timeout=st.sampled_from([None, None, None, 1.25, 3.0]),
    stage_restart=st.sampled_from([None, None, 1]),
)
CALM_FANS = st.builds(
    Fan,
    items=make_items(CALM_ACTS, [Reaction.LET_THROUGH]),
    source=st.sampled_from(Source),
    limit=st.integers(0, 1),
    ends_at_failure=st.just(value=False),
    collects=st.just(value=True),
    restart=RESTARTS,
    escalates=st.just(value=False),
    timeout=st.sampled_from([None, 0.75]),
    priority=st.integers(-1, 1),
    stage_timeout=st.none(),
    stage_restart=st.none(),
)
STOPS = st.none() | st.tuples(
    st.sampled_from(["cancel", "timeout"]), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.6, 2.5])
)


def plans(fans, limits, stops, intensities):
    return st.builds(
        Plan,
        st.tuples(limits, limits),
        st.none() | st.integers(1, 3),
        st.lists(fans, min_size=1, max_size=3).map(tuple),
        stops,
        st.booleans(),
        intensities,
        st.integers(0, 2**16),
    )


class World:
    """A plan while it runs, and what is counted in it."""

    def __init__(self, plan):
        self.plan = plan
        self.limiters = [limit.make() for limit in plan.limits]
        self.meters = [Meter(limit.most, limit.rate) for limit in plan.limits]
        self.all = Meter(plan.running)
        self.begun = Counter()
        """First attempts, by fan-out."""
        self.taken = Counter()
        self.open = Counter()
        """Of sources that want to be closed."""
        self.story = []
        self.result = None
        self.supervisor = None

    def take(self, number, fan):
        """Count one that is taken: no more than one that waits, beside those that hold a slot and have not begun."""
        self.taken[number] += 1
        if self.plan.limits[fan.limit].is_patient and len(self.plan.fans) == 1:
            waiting = self.taken[number] - self.begun[number]
            assert waiting <= 1 + self.plan.limits[fan.limit].most - self.meters[fan.limit].inside

    def make_source(self, number, fan):
        def generate(_inputs):
            self.open[number] += 1
            try:
                for position in range(len(fan.items)):
                    self.take(number, fan)
                    yield position
            finally:
                self.open[number] -= 1

        async def generate_async(_inputs):
            self.open[number] += 1
            try:
                for position in range(len(fan.items)):
                    if fan.source is Source.SLOW:
                        await trio.sleep(0.25)
                    self.take(number, fan)
                    yield position
            finally:
                self.open[number] -= 1

        match fan.source:
            case Source.LIST:
                return list(range(len(fan.items)))
            case Source.GENERATOR:
                return generate
            case _:
                return generate_async

    def make_worker(self, number, fan):
        async def work(ctx):
            data = ctx.snapshot.data
            item = fan.items[data["index"]]
            assert data["item"] == data["index"]
            self.begun[number] += ctx.attempt == 1
            meters = (self.meters[fan.limit], self.all)
            for meter in meters:
                meter.enter(ctx.stage_name, trio.current_time())
            try:
                if ctx.attempt >= item.heals_at:
                    return {"index": data["index"], "attempt": ctx.attempt}
                await self.sleep(item)
            finally:
                for meter in meters:
                    meter.leave()
            return end(item.act, data["index"], ctx.attempt)

        return work

    async def sleep(self, item):
        try:
            with trio.CancelScope(shield=item.reaction is Reaction.SHIELD):
                await trio.sleep(item.took)
        except trio.Cancelled:
            if item.reaction is Reaction.RAISE:
                raise OSError("late") from None
            raise

    def build(self):
        pipeline = Pipeline("p")
        for number, fan in enumerate(self.plan.fans):
            runner = FanOutLimiterStage(
                self.make_worker(number, fan),
                items=self.make_source(number, fan),
                limiter=self.limiters[fan.limit],
                on_item_failure="fail" if fan.ends_at_failure else "collect",
                collect=fan.collects,
                timeout=fan.timeout,
                restart=make_restart(fan),
            )
            pipeline = pipeline.with_stage(
                f"f{number}",
                runner,
                priority=fan.priority,
                timeout=fan.stage_timeout,
                restart=None if fan.stage_restart is None else Restart(max_restarts=fan.stage_restart),
            )
        return pipeline

    async def play(self):
        plan = self.plan
        how, at = plan.stop or ("", math.inf)
        async with Supervisor(max_running_stages=plan.running, random=lambda: 1.0) as self.supervisor:
            run = self.supervisor.start(
                self.build(),
                continue_on_failure=not plan.fail_fast,
                timeout=max(at, 0.125) if how == "timeout" else None,
                intensity=None if plan.intensity is None else Intensity(plan.intensity),
            )
            stream = run.events()
            with trio.move_on_after(at if how == "cancel" else math.inf):
                await watch(run)
            run.cancel("enough")
            await watch(run)
            self.result = run.partial()
            self.story = [one async for one in stream]

    def check_idle(self):
        """Nothing is held any more, and nothing was ever exceeded."""
        limiters = [*self.limiters, *([self.supervisor._running] if self.plan.running is not None else [])]
        for limiter in limiters:
            assert (limiter.statistics().running, limiter.statistics().queued) == (0, 0)
        for meter in (*self.meters, self.all):
            assert meter.problems == []
            assert meter.inside == 0
        assert not +self.open


async def watch(run):
    with contextlib.suppress(PipelineFailedError):
        await run.result()


def make_restart(fan):
    if fan.restart is None:
        return None
    times, delay = fan.restart
    backoff = Backoff(initial=delay, factor=1.0, jitter=0.0)
    return Restart(max_restarts=times, backoff=backoff, decide=decide if fan.escalates else None)


def decide(error):
    return Directive.ESCALATE if type(error) is LookupError else Directive.RESTART


def end(act, index, attempt):
    match act:
        case Act.OK:
            return StageOutput.ok(index=index, attempt=attempt)
        case Act.NONE:
            return None
        case Act.SKIP:
            return StageOutput.skip("blank")
        case Act.FAIL:
            return StageOutput.fail("no")
        case Act.RETRY:
            return StageOutput.retry("again")
        case Act.CANCEL:
            return StageOutput.cancel("enough")
        case Act.WRONG:
            return 5
        case Act.GROUP:
            raise ExceptionGroup("two", [ValueError("one"), OSError("other")])
        case Act.RAISE:
            raise LookupError(attempt)


def play(plan):
    world = World(plan)
    tasks = Tasks()

    async def main():
        before = tasks.alive
        with trio.fail_after(1000):
            await world.play()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.alive == before

    with scheduled(plan.seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[tasks])
    world.check_idle()
    return world
