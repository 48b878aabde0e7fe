"""Random plans for the chaos run: everything that is to happen under one supervisor, drawn from one seed."""

from __future__ import annotations

import random
from enum import Enum

import attrs

from property_tests import drafts
from property_tests.drafts import Draft, Shape, make_run
from property_tests.plans import (
    Act,
    Brief,
    Decides,
    FanPlan,
    Form,
    LimiterPlan,
    On,
    RestartPlan,
    RunPlan,
    Source,
    StagePlan,
    Stop,
    Way,
)

_DECIDES = [None] * 24 + list(Decides)
_ONS = [On.ANY] * 10 + list(On)
_THREAD_FORMS = [form for form in Form if form is not Form.MANAGED]  # its cleanup takes time, which is real there
_OVERFLOWS = ["wait"] * 3 + ["reject", "drop_oldest", "drop_newest"]


class Leave(Enum):
    """How the supervisor is left."""

    NORMALLY = "when all runs are over"
    RAISING = "with an exception"
    CANCELLED = "cancelled from outside"


@attrs.frozen(repr=False)
class CallPlan(Brief):
    """One run, and when it is asked for."""

    run: RunPlan
    at: float = 0.0


@attrs.frozen(repr=False)
class ChaosPlan(Brief):
    """What happens under one supervisor."""

    seed: int
    calls: tuple[CallPlan, ...]
    limiters: tuple[tuple[str, LimiterPlan], ...] = ()
    """Shared by all runs."""
    max_running: int | None = None
    max_runs: int | None = None
    max_queued: int | None = None
    overflow: str = "wait"
    leave: Leave = Leave.NORMALLY
    leave_at: float | None = None
    threads: bool = False
    """Whether some stages run in threads. Then time is real, and nothing is timed."""


def draw(seed: int) -> ChaosPlan:
    """Return the plan of a seed."""
    return _Drawer(random.Random(seed), seed).draw()


class _Drawer:
    def __init__(self, rng: random.Random, seed: int) -> None:
        self._rng = rng
        self._seed = seed
        self._threads = rng.random() < 0.12
        self._ends = rng.choice([0.0, 0.0, 0.01, 0.04])
        """How likely a stage is to end its run by itself."""
        self._badness = rng.choice([0.15, 0.35, 0.6])
        self._healing = rng.choice([0.4, 0.8, 0.95])
        self._fanning = rng.choice([0.0, 0.0, 0.1, 0.3])
        self._limiting = rng.choice([0.0, 0.5, 0.9])

    def draw(self) -> ChaosPlan:
        rng = self._rng
        limiters = [self._draw_limiter() for _ in range(rng.randint(1, 3))]
        calls = tuple(self._draw_call(limiters) for _ in range(rng.choice([1, 2, 2, 3, 4, 6])))
        max_runs = rng.choice([None, None, 1, 2])
        leave = rng.choice([Leave.NORMALLY] * 8 + list(Leave)[1:]) if not self._threads else Leave.NORMALLY
        return ChaosPlan(
            self._seed,
            calls,
            limiters=tuple((f"l{number}", limiter) for number, limiter in enumerate(limiters)),
            max_running=rng.choice([None, None, 1, 2, 3, 5]),
            max_runs=max_runs,
            max_queued=None if max_runs is None else rng.choice([None, 0, 1, 2]),
            overflow="wait" if max_runs is None else rng.choice(_OVERFLOWS),
            leave=leave,
            leave_at=None if leave is Leave.NORMALLY else rng.choice(drafts.STOPS_AT),
            threads=self._threads,
        )

    def _draw_limiter(self) -> LimiterPlan:
        rng = self._rng
        rate = None
        if not self._threads and rng.random() < 0.35:
            rate = (rng.randint(1, 6), rng.choice([0.5, 1.0, 3.0]), rng.randint(1, 4))
        overflow = rng.choice(_OVERFLOWS)
        return LimiterPlan(
            rng.randint(1, 4),
            max_queued=rng.choice([None, 0, 1, 2, 4]),
            overflow=overflow,
            rate=rate,
            aging=rng.choice([0.25, 1.0, 10.0]),
        )

    def _draw_call(self, limiters: list[LimiterPlan]) -> CallPlan:
        rng = self._rng
        stop = self._draw_stop()
        run = make_run(
            rng.choice(list(Shape)),
            [self._draw_stage() for _ in range(rng.choice([1, 3, 6, 10, 14, 20, 40]))],
            started=rng.random() < 0.6 or (stop is not None and stop.way is Way.HANDLE),
            seed=rng.randrange(2**16),
            jitter=rng.randint(0, 2),
            stop=stop,
            continue_on_failure=rng.random() < 0.75,
            limiters=limiters,
            intensity=rng.choice(
                [None, None, None, (0, None), (3, None), (2, rng.uniform(0.5, 2)), (8, rng.uniform(2, 9))]
            ),
        )
        run = attrs.evolve(run, stages=tuple(self._perhaps_fan(stage, len(limiters)) for stage in run.stages))
        at = 0.0 if self._threads else rng.choice([0.0, 0.0, 0.5, 1.25, round(rng.uniform(0, 3), 3)])
        return CallPlan(run, at)

    def _draw_stop(self) -> Stop | None:
        rng = self._rng
        if rng.random() < 0.6:
            return None
        if self._threads or rng.random() < 0.3:
            return Stop(rng.choice([Way.SCOPE, Way.HANDLE]), entry=rng.randint(0, 30))
        return Stop(rng.choice(list(Way)), at=rng.choice([*drafts.STOPS_AT, round(rng.uniform(0, 8), 3)]))

    def _draw_stage(self) -> Draft:
        rng = self._rng
        act = rng.choice(drafts.GOOD)
        if rng.random() < 0.06:
            act = rng.choice(drafts.SKIPS)
        elif rng.random() < self._badness:
            act = rng.choice([*drafts.BAD, *[Act.RAISE, Act.RETRY] * 8])
        if rng.random() < self._ends:
            act = rng.choice([Act.CANCEL, Act.CANCEL, Act.CANCEL, Act.ABORT])
        restart = self._draw_restart() if rng.random() < self._healing else None
        draft = Draft(
            [rng.randrange(drafts.MAX_STAGES) for _ in range(rng.randint(0, 4))],
            rng.randrange(10),
            trigger=rng.choice(drafts.TRIGGERS),
            act=act,
            form=rng.choice(_THREAD_FORMS if self._threads else drafts.TASK_FORMS),
            ask=rng.choice([None] * 10 + drafts.ASKS),
            router=rng.randint(0, 3),
            value=rng.randint(0, 9),
            label=rng.choice(drafts.LABELS),
            checkpoints=rng.randint(0, 3),
            restart=restart,
            heals_at=rng.choice(drafts.HEALS_AT),
            limiter=rng.randint(0, 2) if rng.random() < self._limiting else None,
            priority=rng.choice([0, 0, 0, -2, 1, 5]),
        )
        if self._threads:
            return draft
        return attrs.evolve(
            draft,
            sleep=rng.choice([*drafts.SLEEPS, round(rng.uniform(0, 2), 3)]),
            nested=rng.random() < 0.1,
            timeout=rng.choice(drafts.TIMEOUTS),
            reaction=rng.choice(drafts.REACTIONS),
            slack=self._draw_slack(),
            after=rng.choice(drafts.AFTERS),
        )

    def _perhaps_fan(self, stage: StagePlan, limiters: int) -> StagePlan:
        """Return a stage as it is, or a fan-out in its place."""
        rng = self._rng
        if rng.random() >= self._fanning:
            return stage
        restart = self._draw_restart() if rng.random() < self._healing else None
        timeout = None if self._threads else rng.choice([*drafts.TIMEOUTS, None])
        if restart is not None:
            slack = None if self._threads else self._draw_slack()
            restart = drafts.fit(restart, slack, timeout, threaded=self._threads)
        form = rng.choice([Form.FUNCTION, Form.CLASS, *([Form.THREAD] if self._threads else [])])
        giver = rng.choice(stage.dependencies) if stage.dependencies else ""
        fan = FanPlan(
            f"l{rng.randrange(limiters)}",
            tuple(self._draw_worker(restart, form) for _ in range(rng.randint(1, 4))),
            source=rng.choice([*Source, Source.PAIR]) if giver else rng.choice([Source.LIST, Source.ASYNC]),
            giver=giver,
            count=rng.choice([0, 1, 2, 5, 9, 9, 20]),
            ends_at_failure=rng.random() < 0.4,
            collects=rng.random() < 0.7,
            form=form,
            restart=restart,
            timeout=timeout,
        )
        return StagePlan(
            stage.name,
            stage.dependencies,
            trigger=stage.trigger,
            when=stage.when,
            priority=stage.priority,
            timeout=None if self._threads else rng.choice([None, None, None, 3.0, 6.0]),
            fan=fan,
        )

    def _draw_worker(self, restart: RestartPlan | None, form: Form) -> StagePlan:
        rng = self._rng
        draft = attrs.evolve(self._draw_stage(), form=form)
        worker = drafts.make_stage("", (), draft, [])
        heals_at = 5 if restart is not None and restart.within is not None else rng.choice(drafts.HEALS_AT)
        heals_at = heals_at if restart is not None else None
        return attrs.evolve(worker, when=None, nested=False, restart=None, timeout=None, heals_at=heals_at)

    def _draw_slack(self) -> float | None:
        """Return by how much a window is longer than it must be; off every grid: sums of floats decide no tie."""
        return self._rng.choice([None, None, self._rng.uniform(0.01, 3.0)])

    def _draw_restart(self) -> RestartPlan:
        rng = self._rng
        return RestartPlan(
            max_restarts=rng.choice([0, 1, 2, 3, 3, 5]),
            initial=0.0 if self._threads else rng.choice([0.0, 0.125, 0.25, 1.0]),
            factor=rng.choice([1.0, 2.0, 3.0]),
            maximum=rng.choice([1.0, 4.0]),
            jitter=rng.choice([0.0, 0.5, 1.0]),
            on=rng.choice(_ONS),
            decides=rng.choice(_DECIDES),
        )
