"""A supervisor keeps its promises whatever is done with its runs, and however it is left."""

from __future__ import annotations

import math
from enum import Enum

import attrs
import trio
import trio.testing
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors import Pipeline, PipelineFailedError, RunEnding, Supervisor

from .harness import Tasks, scheduled
from .problems import PlannedError, leaves

GRID = 0.25
"""Everything that is done is done at a multiple of this; no run ends at one."""


class Do(Enum):
    """One thing that the body of a supervisor may do."""

    START = "start a run"
    ELSEWHERE = "have another task run a pipeline"
    SLEEP = "sleep"
    CANCEL = "cancel a run"
    WAIT = "wait for a run's result"
    GLANCE = "wait for a run's result, and be cancelled soon"


class Leave(Enum):
    """How the body ends."""

    NORMALLY = "at its end"
    RAISING = "with an exception"
    CANCELLED = "cancelled from outside"
    LATE = "at its end, and cancelled from outside while it waits for runs"


@attrs.define
class Record:
    """One run, what the model expects of it, and what it came to."""

    ends: float
    """When it ends by itself."""
    fails: bool
    fast: bool
    shielded: bool
    run: object = None
    result: object = None
    """That of a run elsewhere."""
    stopped: float = math.inf
    observed: bool = False

    def find_end(self):
        """Return when it is over."""
        return self.ends if self.shielded else min(self.stopped, self.ends)

    def expect(self):
        """Return how it ends."""
        if self.stopped < self.ends:
            return RunEnding.CANCELLED
        return RunEnding.FAILED if self.fails and self.fast else RunEnding.COMPLETED


def make_pipeline(seconds, fails, shielded):
    async def work(ctx):
        with trio.CancelScope(shield=shielded):
            await trio.sleep(seconds)
        if fails:
            raise PlannedError(ctx.stage_name)

    return Pipeline("p").with_stage("a", work)


async def run_elsewhere(supervisor, record, pipeline):
    try:
        record.result = await supervisor.run(pipeline, continue_on_failure=not record.fast)
    except PipelineFailedError as error:
        record.result = error.result
    record.observed = True


async def wait(record):
    try:
        await record.run.result()
    except PipelineFailedError:
        assert record.expect() is RunEnding.FAILED
    else:
        assert record.expect() is not RunEnding.FAILED
    record.observed = True


async def do(step, supervisor, records, nursery):
    """Do one step at a moment of the grid, and come back at one."""
    kind, number, seconds, fails, fast, shielded = step
    now = trio.current_time()
    record = records[number % len(records)] if records else None
    if kind in {Do.START, Do.ELSEWHERE}:
        seconds += 0.001 * (len(records) + 1)
        record = Record(now + seconds, fails, fast, shielded and not fails)
        pipeline = make_pipeline(seconds, fails, record.shielded)
        if kind is Do.START:
            record.run = supervisor.start(pipeline, continue_on_failure=not fast)
        else:
            nursery.start_soon(run_elsewhere, supervisor, record, pipeline)
            await trio.testing.wait_all_tasks_blocked()
        records.append(record)
    elif kind is Do.SLEEP or record is None or record.run is None:
        await trio.sleep(seconds)
    elif kind is Do.CANCEL:
        await trio.testing.wait_all_tasks_blocked()  # whether its stage has begun is not left open
        record.run.cancel("enough")
        record.stopped = min(record.stopped, now)
    else:
        with trio.move_on_after(GRID if kind is Do.GLANCE else math.inf):
            await wait(record)
    await trio.sleep_until(math.ceil(trio.current_time() / GRID) * GRID)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([Do.START] * 4 + [Do.WAIT] * 2 + list(Do)),
        st.integers(0, 7),
        st.sampled_from([0.0, 0.25, 0.5, 1.5]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


class BodyError(Exception):
    """What the body of a supervisor raises."""


def finish(leave, records, scope):
    """End the body of a supervisor; return whether the scope around it catches its Cancelled."""
    now = trio.current_time()
    if leave is Leave.NORMALLY:
        return False
    stopped = now + GRID / 2 if leave is Leave.LATE else now
    cancelled = leave is Leave.CANCELLED or any(record.find_end() > stopped for record in records)
    for record in records:
        record.stopped = min(record.stopped, stopped)
    if leave is Leave.RAISING:
        raise BodyError
    if leave is Leave.LATE:
        scope.deadline = stopped
    else:
        scope.cancel()
    return cancelled


async def play(steps, leave, records, tasks):
    """Do all steps; return what left the supervisor, and whether it was Cancelled."""
    left, cancelled = None, False
    async with trio.open_nursery() as nursery:
        before = tasks.alive
        with trio.CancelScope() as scope:
            try:
                async with Supervisor() as supervisor:
                    for step in steps:
                        await do(step, supervisor, records, nursery)
                    cancelled = finish(leave, records, scope)
                    if leave is Leave.CANCELLED:
                        await trio.sleep_forever()
            except Exception as error:
                left = error
        assert scope.cancelled_caught == cancelled
        # Nothing is left of a run, but for those tasks elsewhere that have its result in hand.
        assert all(record.run is None or record.run.statistics().ended == 1 for record in records)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.alive == before
    return left, cancelled


@settings(max_examples=4 * settings.default.max_examples)
@given(steps=STEPS, leave=st.sampled_from(Leave), seed=st.integers(0, 2**16))
def test_all_runs_end_and_no_failure_is_lost(steps, leave, seed):
    records = []
    tasks = Tasks()

    async def main():
        with trio.fail_after(1000):
            return await play(steps, leave, records, tasks)

    with scheduled(seed):
        left, cancelled = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[tasks])
    event(leave.value)
    for record in records:
        result = record.result if record.run is None else record.run.partial()
        assert result.ended.ending is record.expect()
        assert result.ledger.balanced
    lost = [record for record in records if record.expect() is RunEnding.FAILED and not record.observed]
    if leave is Leave.RAISING:
        assert type(left) is BodyError
    elif cancelled or not lost:
        assert left is None
    else:
        assert isinstance(left, ExceptionGroup) == (len(lost) > 1)
        assert {id(error.result) for error in leaves(left)} == {id(record.run.partial()) for record in lost}
