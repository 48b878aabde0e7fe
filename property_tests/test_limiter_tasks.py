"""Tasks that hold slots, on a clock that jumps, and are cancelled at any moment: nothing is left behind."""

from __future__ import annotations

from collections import Counter

import attrs
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors.errors import OverloadedError

from .limit_model import options


@attrs.frozen
class Job:
    arrives: float
    holds: float
    priority: int
    cancelled: float
    """After how long it is cancelled, wherever it is then."""


times = st.integers(0, 24).map(lambda number: number / 4)
jobs = st.builds(Job, times, times, st.integers(-2, 2), st.one_of(times, st.just(1e9)))


async def work(options, jobs):
    tasks = trio.lowlevel.current_statistics().tasks_living
    limiter = options.limiter()
    trace = []
    ends = Counter()

    def check():
        statistics = limiter.statistics()
        assert statistics.running <= options.max_concurrency
        if options.rate is None:
            assert not statistics.queued or statistics.running == options.max_concurrency

    async def run(job):
        await trio.sleep(job.arrives)
        with trio.move_on_after(job.cancelled):
            try:
                async with limiter.slot(job.priority):
                    trace.append(trio.current_time())
                    check()
                    await trio.sleep(job.holds)
                ends["done"] += 1
            except OverloadedError:
                ends["refused"] += 1
            except trio.Cancelled:
                ends["cancelled"] += 1
                raise
            finally:
                check()

    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(run, job)
    await trio.testing.wait_all_tasks_blocked()
    statistics = limiter.statistics()
    assert (statistics.running, statistics.queued) == (0, 0)
    assert ends["refused"] == statistics.rejected + statistics.dropped
    assert ends.total() == len(jobs)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    for first, begin in enumerate(trace if options.rate else []):
        for last, end in enumerate(trace[first:], first):
            assert last - first + 1 <= options.rate.burst + (end - begin) * options.rate.count / options.rate.per


@given(options=options, jobs=st.lists(jobs, min_size=5, max_size=40))
def test_tasks_that_come_and_are_cancelled(options, jobs):
    trio.run(work, options, jobs, clock=trio.testing.MockClock(autojump_threshold=0))
