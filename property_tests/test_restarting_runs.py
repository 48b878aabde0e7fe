"""Runs whose stages are restarted: as often and as late as their policies say, and whatever else happens."""

from __future__ import annotations

import math
from enum import Enum

import attrs
import trio
import trio.testing
from hypothesis import event, given
from hypothesis import strategies as st

from stageflow_actors import (
    Backoff,
    Directive,
    Intensity,
    Pipeline,
    PipelineFailedError,
    Restart,
    StageOutput,
    StageState,
    Supervisor,
    Trigger,
)
from stageflow_actors.errors import RestartIntensityError
from stageflow_actors.events import StageCrashed, StageEnded, StageRestarting, StageStarted

from .harness import Tasks, scheduled

OFF_GRID = 0.0625
"""Everything that stages do happens at multiples of 0.125 s, and what stops a run exactly may come off that grid."""


class Act(Enum):
    """How an attempt ends, once it has slept."""

    OK = "ok"
    SKIP = "skip"
    LISTED = "an error to restart on"
    UNLISTED = "another error"
    RETRY = "retry"
    LATER = "retry, after two seconds"
    FAIL = "fail"
    WRONG = "no output"


class OddError(Exception):
    """What no policy restarts on, but for those that restart on everything."""


@attrs.frozen
class Policy:
    max_restarts: int
    within: float | None
    initial: float
    narrow: bool
    """Whether it restarts on `ConnectionError` alone."""
    escalates: bool

    def make(self):
        backoff = Backoff(initial=self.initial, factor=2.0, maximum=4.0, jitter=0.0)
        listed = ConnectionError if self.narrow else Exception
        return Restart(
            max_restarts=self.max_restarts,
            within=self.within,
            backoff=backoff,
            on=listed,
            decide=self.escalate if self.escalates else None,
        )

    def escalate(self, error):
        return Directive.RESTART if isinstance(error, ConnectionError) else Directive.ESCALATE


@attrs.frozen
class Stage:
    name: str
    dependencies: tuple[str, ...]
    trigger: Trigger
    attempts: tuple[tuple[float, Act], ...]
    """How long each takes, and how it ends; the last one for ever, or where that could be for ever, it heals."""
    timeout: float | None
    policy: Policy | None

    def find_attempt(self, number):
        if number > len(self.attempts) and self.policy is not None and self.policy.within is not None:
            return 0.0, Act.OK
        return self.attempts[min(number, len(self.attempts)) - 1]


@st.composite
def stages(draw, *, escalating=False):
    names = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    drawn = []
    for number, name in enumerate(names):
        parents = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else ()
        policy = st.builds(
            Policy,
            st.integers(0, 4),
            st.none(),
            st.sampled_from([0.0, 0.5, 1.0]),
            st.booleans(),
            st.sampled_from([False, False, escalating]),
        )
        windowed = st.sampled_from([(1, 2.0), (1, 3.0), (2, 4.0)]).flatmap(
            lambda window: st.builds(Policy, *map(st.just, window), st.just(0.5), st.booleans(), st.just(False))
        )
        acts = st.sampled_from([Act.OK, Act.LISTED, Act.LISTED, Act.RETRY, *Act])
        drawn.append(
            Stage(
                name,
                tuple(names[parent] for parent in sorted(parents)),
                draw(st.sampled_from([Trigger.ALL_SUCCESS, Trigger.ALL_SUCCESS, Trigger.ALL_DONE])),
                tuple(draw(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.5]), acts), min_size=1, max_size=5))),
                draw(st.sampled_from([None, None, None, 1.125])),
                draw(st.none() | policy | policy | windowed),
            )
        )
    return drawn


# The real thing


def make_runner(stage):
    async def run(ctx):
        took, act = stage.find_attempt(ctx.attempt)
        await trio.sleep(took)
        match act:
            case Act.OK:
                return {"attempt": ctx.attempt}
            case Act.SKIP:
                return StageOutput.skip("idle")
            case Act.LISTED:
                raise ConnectionError(ctx.attempt)
            case Act.UNLISTED:
                raise OddError(ctx.attempt)
            case Act.RETRY:
                return StageOutput.retry("not yet")
            case Act.LATER:
                return StageOutput.retry("not yet", after=2.0)
            case Act.FAIL:
                return StageOutput.fail("no")
            case Act.WRONG:
                return 3

    return run


@attrs.frozen
class Stop:
    way: str
    at: float


async def play(drawn, stop, seen, *, fail_fast, intensity):
    """Run the stages; return the result, and put the events into `seen`."""
    pipeline = Pipeline("drawn")
    for stage in drawn:
        pipeline = pipeline.with_stage(
            stage.name,
            make_runner(stage),
            dependencies=stage.dependencies,
            trigger=stage.trigger,
            timeout=stage.timeout,
            restart=None if stage.policy is None else stage.policy.make(),
        )
    timeout = stop.at if stop is not None and stop.way == "timeout" else None
    scope_at = stop.at if stop is not None and stop.way == "scope" else math.inf
    with trio.CancelScope(deadline=scope_at):
        async with Supervisor() as supervisor:
            run = supervisor.start(pipeline, continue_on_failure=not fail_fast, timeout=timeout, intensity=intensity)
            stream = run.events()
            if stop is not None and stop.way == "handle":
                await trio.sleep(stop.at)
                run.cancel("enough")
            try:
                await run.result()
            except PipelineFailedError:
                assert fail_fast
    async with stream:
        seen.extend([event async for event in stream])
    return run.partial()


def run_drawn(drawn, stop=None, seed=0, *, fail_fast=False, intensity=None):
    seen = []
    tasks = Tasks()

    async def main():
        before = tasks.alive
        result = await play(drawn, stop, seen, fail_fast=fail_fast, intensity=intensity)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.alive == before
        return result

    with scheduled(seed):
        result = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[tasks])
    return result, seen


# What is to come of it, without limits on the run and without fail-fast


@attrs.frozen
class Expected:
    state: StageState
    attempts: tuple[tuple[float, float, bool], ...] = ()
    """When each began and ended, and whether it failed."""
    exhausted: bool = False


OK, SKIPPED, FAILED = StageState.OK, StageState.SKIPPED, StageState.FAILED
ISOLATED, CANCELLED = StageState.ISOLATED, StageState.CANCELLED


def may_restart(policy, act):
    if policy is None or act in {Act.FAIL, Act.WRONG}:
        return False
    return act in {Act.RETRY, Act.LATER, Act.LISTED} or not (policy.narrow or policy.escalates)


def live(stage, at):
    """Return what comes of a stage that begins at a time, when nothing stops it."""
    attempts, failures = [], []
    while True:
        took, act = stage.find_attempt(len(attempts) + 1)
        late = stage.timeout is not None and took >= stage.timeout
        end = at + (stage.timeout if late else took)
        act = Act.UNLISTED if late else act
        if act in {Act.OK, Act.SKIP}:
            return Expected(OK if act is Act.OK else SKIPPED, (*attempts, (at, end, False)))
        attempts.append((at, end, True))
        if not may_restart(stage.policy, act):
            return Expected(FAILED, tuple(attempts))
        within = math.inf if stage.policy.within is None else stage.policy.within
        failures = [*(time for time in failures if end - time <= within), end]
        if len(failures) > stage.policy.max_restarts:
            return Expected(FAILED, tuple(attempts), exhausted=True)
        delay = min(4.0, stage.policy.initial * 2.0 ** (len(failures) - 1))
        at = end + (max(2.0, delay) if act is Act.LATER else delay)


def predict(drawn, stop=math.inf):
    """Return what comes of every stage of a run that is stopped at a time at which nothing else happens."""
    expected, ends = {}, {}
    for stage in drawn:
        states = [expected[name].state for name in stage.dependencies]
        at = max((ends[name] for name in stage.dependencies), default=0.0)
        ended_badly = any(expected[name].state in {FAILED, ISOLATED} for name in stage.dependencies)
        isolates = ended_badly and stage.trigger is Trigger.ALL_SUCCESS
        ends[stage.name] = at
        if at > stop:
            ends[stage.name] = math.inf
            expected[stage.name] = Expected(ISOLATED if isolates else CANCELLED)
        elif isolates:
            expected[stage.name] = Expected(ISOLATED)
        elif stage.trigger is Trigger.ALL_SUCCESS and SKIPPED in states:
            expected[stage.name] = Expected(SKIPPED)
        else:
            whole = live(stage, at)
            ends[stage.name] = whole.attempts[-1][1]
            if ends[stage.name] > stop:
                begun = [attempt for attempt in whole.attempts if attempt[0] < stop]
                cut = tuple((start, end, True) if end < stop else (start, stop, False) for start, end, _ in begun)
                # One that is cut off by the stop isolates nobody; it ends after everything is decided.
                whole, ends[stage.name] = Expected(CANCELLED, cut), math.inf
            expected[stage.name] = whole
    return expected


def observe(result, name):
    attempts = tuple(
        (attempt.started, attempt.ended, attempt.error is not None) for attempt in result.attempts.get(name, ())
    )
    failure = result.failures.get(name)
    exhausted = failure is not None and isinstance(failure.error, RestartIntensityError)
    return Expected(result.states[name], attempts, exhausted=exhausted)


@given(drawn=stages(), seed=st.integers(0, 2**16))
def test_every_attempt_comes_when_its_policy_says(drawn, seed):
    result, _ = run_drawn(drawn, seed=seed)
    expected = predict(drawn)
    assert {name: observe(result, name) for name in result.states} == expected
    told = [one for one in expected.values() if one.attempts]
    assert result.ledger.accepted == len(told)
    assert result.ledger.failed == sum(one.state is FAILED for one in told)
    assert result.ledger.balanced
    event(f"restarts: {min(6, sum(len(one.attempts) for one in told) - len(told))}")


@given(
    drawn=stages(),
    way=st.sampled_from(["handle", "scope", "timeout"]),
    at=st.integers(0, 40).map(lambda number: number * 0.125 + OFF_GRID),
    seed=st.integers(0, 2**16),
)
def test_a_run_that_is_stopped_ends_at_once_whatever_backs_off(drawn, way, at, seed):
    result, seen = run_drawn(drawn, Stop(way, at), seed=seed)
    expected = predict(drawn, at)
    assert {name: observe(result, name) for name in result.states} == expected
    told = [one for one in expected.values() if one.attempts]
    assert result.ledger.accepted == len(told)
    assert result.ledger.cancelled == sum(one.state is CANCELLED for one in told)
    assert result.ledger.balanced
    assert seen[-1].at <= at
    event(f"stopped with {sum(one.state is CANCELLED for one in told)} on their way")


# Whatever happens


def check_story(stage, result, story):
    """A stage's events: its attempts in order, each but the last crashed and followed by a restart, and its end."""
    attempts = result.attempts.get(stage.name, ())
    kinds = [type(one) for one in story if isinstance(one, (StageStarted, StageCrashed, StageRestarting, StageEnded))]
    assert kinds.count(StageEnded) == 1
    assert kinds.pop() is StageEnded
    restarted = [StageStarted, StageCrashed, StageRestarting]
    count = kinds.count(StageRestarting)
    assert kinds[: 3 * count] == restarted * count
    assert kinds[3 * count :] in ([], [StageStarted], [StageStarted, StageCrashed])
    assert [one.attempt for one in story if isinstance(one, StageStarted)] == [one.number for one in attempts]
    crashed = [one for one in story if isinstance(one, StageCrashed)]
    for attempt, one in zip(attempts, crashed, strict=False):
        assert (one.at, one.error, one.attempt) == (attempt.ended, attempt.error, attempt.number)
    coming = [one for one in story if isinstance(one, StageRestarting)]
    for one, attempt in zip(coming, attempts[1:], strict=False):
        assert (one.attempt, one.at + one.delay) == (attempt.number, attempt.started)


def check_policy(stage, restarts):
    """Never more restarts than the policy allows, over the life or in any window; `restarts` are their times."""
    if stage.policy is None:
        assert restarts == []
    elif stage.policy.within is None:
        assert len(restarts) <= stage.policy.max_restarts
    else:
        most = stage.policy.max_restarts
        assert all(
            later - sooner > stage.policy.within for sooner, later in zip(restarts, restarts[most:], strict=False)
        )


STOPS = st.none() | st.builds(
    Stop, st.sampled_from(["handle", "scope", "timeout"]), st.integers(1, 40).map(lambda number: number * 0.125)
)
INTENSITIES = st.none() | st.builds(Intensity, st.integers(0, 6), st.sampled_from([None, 0.5, 1.0, 3.0]))


@given(drawn=stages(), stop=STOPS, seed=st.integers(0, 2**16), fail_fast=st.booleans(), intensity=INTENSITIES)
def test_no_policy_is_exceeded_and_nothing_is_lost(drawn, stop, seed, fail_fast, intensity):
    result, seen = run_drawn(drawn, stop, seed, fail_fast=fail_fast, intensity=intensity)
    assert result.ledger.balanced
    unfinished = {StageState.PENDING, StageState.RUNNING, StageState.RESTARTING}
    assert not unfinished.intersection(result.states.values())
    restarts = [one for one in seen if isinstance(one, StageRestarting)]
    for stage in drawn:
        story = [one for one in seen if getattr(one, "stage", None) == stage.name]
        check_story(stage, result, story)
        check_policy(stage, [one.at for one in restarts if one.stage == stage.name])
        if result.states[stage.name] is CANCELLED:
            assert stage.name not in result.failures
    if intensity is not None:
        check_intensity(intensity, result, restarts)
    event(f"{result.ended.ending}, {'some' if restarts else 'no'} restarts")


def check_intensity(intensity, result, restarts):
    times = [one.at for one in restarts]
    most, within = intensity.max_restarts, intensity.within
    if within is None:
        assert len(times) <= most
    else:
        assert all(later - sooner > within for sooner, later in zip(times, times[most:], strict=False))
    spent = [
        failure.attempts[-1].ended
        for failure in result.failures.values()
        if isinstance(failure.error, RestartIntensityError) and "the run has had" in str(failure.error)
    ]
    if spent:
        # Not one less, and past it nothing is restarted any more.
        assert within is not None or len(times) == most
        assert all(time <= min(spent) for time in times)
