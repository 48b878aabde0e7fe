"""`threads(n)`: a pool of threads of a stage's own."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest
import trio

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineValidationError,
    StageState,
    Supervisor,
    parallel_stages,
)
from stageflow_actors.errors import ThreadAbandonedError
from stageflow_actors.placement import threads

user = ContextVar("user", default="nobody")


class Gauge:
    """Counts how many threads are inside at once; each leaves when so many have met, or the gate is open."""

    def __init__(self, meet):
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.barrier = threading.Barrier(meet)

    def __call__(self, ctx):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.barrier.wait(timeout=60)
        with self.lock:
            self.inside -= 1
        return {"thread": threading.current_thread().name}


async def test_so_many_are_at_work_at_once_and_no_more():
    gauge = Gauge(meet=3)
    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", gauge, range(9), placement=threads(3)))
    assert (await pipeline.run()).ok
    assert gauge.most == 3


async def test_they_take_no_thread_of_the_supervisor_and_lose_none_to_it():
    met = threading.Barrier(2)

    def meet(ctx):
        met.wait(timeout=60)

    pipeline = Pipeline("p").with_stage("own", meet, placement=threads(1)).with_stage("supervisor's", meet)
    async with Supervisor(max_threads=1) as supervisor:
        assert (await supervisor.run(pipeline)).ok


async def test_one_pool_serves_all_runs_of_a_supervisor():
    gauge = Gauge(meet=2)
    pool = threads(2)
    pipelines = [Pipeline(f"p{number}").with_stage("a", gauge, placement=pool) for number in range(6)]
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        for pipeline in pipelines:
            nursery.start_soon(supervisor.run, pipeline)
    assert gauge.most == 2


async def test_the_items_of_a_fan_out_run_in_it():
    gauge = Gauge(meet=2)
    fan = FanOutLimiterStage(gauge, items=range(6), limiter=Limiter(5))
    result = await Pipeline("p").with_stage("fan", fan, placement=threads(2)).run()
    assert gauge.most == 2
    assert [data["thread"] for data in result.data("fan")["results"]] == [f"stage fan[{n}]" for n in range(6)]


async def test_context_variables_come_along():
    user.set("ada")
    pipeline = Pipeline("p").with_stage("who", lambda ctx: {"user": user.get()}, placement=threads(1))
    assert (await pipeline.run()).data("who") == {"user": "ada"}


async def test_a_managed_class_is_entered_in_the_loop_and_runs_in_a_thread():
    class Managed:
        async def __aenter__(self):
            self.entered = threading.get_ident()

        async def __aexit__(self, *_):
            assert threading.get_ident() == self.entered

        def execute(self, ctx):
            return {"same": threading.get_ident() == self.entered}

    assert (await Pipeline("p").with_stage("m", Managed, placement=threads(1)).run()).data("m") == {"same": False}


async def test_a_thread_that_does_not_end_is_abandoned_and_keeps_its_place(autojump_clock):
    release, ended = threading.Event(), []

    def block(ctx):
        release.wait(timeout=60)
        ended.append(True)

    pool = threads(1)
    stuck = Pipeline("stuck").with_stage("block", block, placement=pool, timeout=1)
    following = Pipeline("following").with_stage("next", lambda ctx: {"ended": list(ended)}, placement=pool)
    async with Supervisor(shutdown=2) as supervisor:
        result = await supervisor.run(stuck, continue_on_failure=True)
        assert result.states["block"] is StageState.ABANDONED
        assert isinstance(result.failures["block"].error, ThreadAbandonedError)
        run = supervisor.start(following)
        await trio.testing.wait_all_tasks_blocked()
        assert run.statistics().ok == 0
        release.set()
        assert (await run.result()).data("next") == {"ended": (True,)}


def test_an_async_stage_is_refused():
    async def awaits(ctx):
        """Return nothing."""

    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", awaits, placement=threads(2))
    problem = "placement threads(2) is not for a stage that awaits, as it is async: a thread runs plain functions"
    assert str(caught.value) == f"pipeline 'p', stage 'a': {problem}"


@pytest.mark.parametrize("count", [0, -1, 1.5, "4", True, None])
def test_what_is_no_number_of_threads_is_refused(count):
    with pytest.raises(PipelineValidationError) as caught:
        threads(count)
    assert str(caught.value).startswith("max_threads must be ")
