"""Every way in which an attempt can end, against every policy, in both modes."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing
from restart_cases import CANCELLED, ENDINGS, NO_DELAY, OK, POLICIES, Abort, nothing

from stageflow_actors import (
    Directive,
    Ledger,
    Pipeline,
    PipelineFailedError,
    Restart,
    RunEnding,
    StageState,
    Supervisor,
    Trigger,
)
from stageflow_actors.errors import RestartIntensityError

FAILED, ISOLATED = StageState.FAILED, StageState.ISOLATED


# What is to come of it


@attrs.frozen
class Outcome:
    state: StageState
    error: type[BaseException] | None
    cause: type[BaseException] | None
    """Of a `RestartIntensityError`."""
    attempts: int
    ending: RunEnding
    raised: type[BaseException] | None
    below: StageState
    """The state of a stage that needs the one in question."""
    after: StageState
    """The state of one that runs when it has ended, however that was."""
    ledger: Ledger


def direct(ending, policy):
    """Return what is to be done about a failed attempt, the budget left aside: a directive, or an error instead."""
    if policy.options is None or ending.final or ending.raises_late:
        return Directive.FAIL
    if not ending.asks:
        return Directive.RESTART
    if policy.raises is not None:
        return policy.raises
    if policy.says is not None:
        return policy.says
    leaves = (policy.looks_inside and ending.leaves) or (ending.error,)
    listed = policy.listed is None or all(issubclass(leaf, policy.listed) for leaf in leaves)
    return Directive.RESTART if listed else Directive.FAIL


def expect(ending, policy, *, fail_fast):
    """Return what is to come of a stage all of whose attempts end alike."""
    if ending.error is None:
        return expect_no_failure(ending)
    said = direct(ending, policy)
    if policy.cancels and said is Directive.RESTART and ending.asks:
        return expect_failure(ending.error, RunEnding.CANCELLED)  # its function stopped the run first
    if said is Directive.RESTART and policy.budget and ending.stop_at is not None:
        return expect_cancelled(Ledger(1, cancelled=1))
    error, cause, attempts = ending.error, None, 1
    if said is Directive.RESTART:
        error, cause, attempts = RestartIntensityError, ending.error, 1 + policy.budget
    elif not isinstance(said, Directive):
        error = said
    if ending.raises_late:
        return expect_failure(error, RunEnding.CANCELLED)
    stops = fail_fast or said is Directive.ESCALATE or not issubclass(error, Exception)
    expected = expect_failure(error, RunEnding.FAILED if stops else RunEnding.COMPLETED, cause, attempts)
    if not issubclass(error, Exception):
        return attrs.evolve(expected, raised=Abort)
    return attrs.evolve(expected, raised=PipelineFailedError) if fail_fast else expected


def expect_no_failure(ending):
    if ending.state is CANCELLED:
        return expect_cancelled(Ledger(1, replied=1) if ending.stop_at is None else Ledger(1, cancelled=1))
    ledger = Ledger(3, replied=3) if ending.state is OK else Ledger(2, replied=2)
    return Outcome(ending.state, None, None, 1, RunEnding.COMPLETED, None, ending.state, OK, ledger)


def expect_cancelled(ledger):
    return Outcome(CANCELLED, None, None, 1, RunEnding.CANCELLED, None, CANCELLED, CANCELLED, ledger)


def expect_failure(error, ending, cause=None, attempts=1):
    if ending is RunEnding.COMPLETED:
        return Outcome(FAILED, error, cause, attempts, ending, None, ISOLATED, OK, Ledger(2, replied=1, failed=1))
    # Who is isolated is decided when the run stops: a failure after that isolates nobody.
    below = CANCELLED if ending is RunEnding.CANCELLED else ISOLATED
    return Outcome(FAILED, error, cause, attempts, ending, None, below, CANCELLED, Ledger(1, failed=1))


# What comes of it


def make_restart(ending, policy, call_off):
    if policy.options is None:
        return None
    options = dict(policy.options)
    if policy.cancels:
        options["decide"] = call_off
    backoff = NO_DELAY if ending.threaded else ending.backoff
    return Restart(**options) if backoff is None else Restart(**options, backoff=backoff)


async def play(ending, policy, *, fail_fast):
    """Run the stage with one that needs it and one that runs after it, and return what came of it."""

    def call_off(error):
        run.cancel("called off")
        return Directive.RESTART

    restart = make_restart(ending, policy, call_off)
    pipeline = (
        Pipeline("p")
        .with_stage("a", ending.runner, restart=restart, timeout=ending.timeout)
        .with_stage("below", nothing, dependencies="a")
        .with_stage("after", nothing, dependencies="a", trigger=Trigger.ALL_DONE)
    )
    raised = None
    try:
        async with Supervisor(random=lambda: 1.0) as supervisor:
            run = supervisor.start(pipeline, continue_on_failure=not fail_fast, intensity=policy.intensity)
            if ending.stop_at is not None:
                await trio.sleep(ending.stop_at)
                run.cancel("enough")
            try:
                await run.result()
            except PipelineFailedError as error:
                raised = error
    except Abort as error:
        raised = error
    return run.partial(), raised


def observe(result, raised):
    failure = result.failures.get("a")
    error = None if failure is None else failure.error
    exhausted = isinstance(error, RestartIntensityError)
    return Outcome(
        result.states["a"],
        None if error is None else type(error),
        type(error.__cause__) if exhausted else None,
        len(result.attempts["a"]),
        result.ended.ending,
        None if raised is None else type(raised),
        result.states["below"],
        result.states["after"],
        result.ledger,
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_against_every_policy(ending, policy):
    ending, policy = ENDINGS[ending], POLICIES[policy]
    for fail_fast in (True, False):
        # An autojump clock spins while it waits for threads, and starves them; theirs stands still.
        clock = trio.testing.MockClock() if ending.threaded else trio.testing.MockClock(autojump_threshold=0)
        result, raised = trio.run(lambda fast=fail_fast: play(ending, policy, fail_fast=fast), clock=clock)
        expected = expect(ending, policy, fail_fast=fail_fast)
        assert observe(result, raised) == expected, f"fail_fast={fail_fast}"
        failure = result.failures.get("a")
        if expected.cause is not None:
            assert policy.who in str(failure.error)
            assert failure.error.max_restarts == policy.budget
            assert failure.error.attempts == failure.attempts == result.attempts["a"]
            assert failure.error.__cause__ is failure.attempts[-1].error
