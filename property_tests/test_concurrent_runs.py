"""Runs under one supervisor do not notice each other, however each of them ends."""

from __future__ import annotations

import attrs
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import PipelineFailedError, RunEnding, Supervisor

from .attempt_model import FAILED
from .harness import Tasks, scheduled
from .model import predict
from .plans import CHANCE
from .recorder import Recorder
from .runners import build
from .strategies import plans
from .test_outcomes import check_failures, check_outputs


async def run_together(drawn, fast, outcomes):
    """Start every run at once, and some that fail fast or are cancelled among them."""
    async with Supervisor(random=lambda: CHANCE) as supervisor:
        runs = []
        for number, plan in enumerate(drawn):
            recorder = Recorder(plan)
            recorder.began = trio.current_time()
            runs.append(supervisor.start(build(plan, recorder), continue_on_failure=number not in fast))
        for run in runs:
            try:
                outcomes.append(await run.result())
            except PipelineFailedError as error:
                outcomes.append(error.result)


@given(
    drawn=st.lists(plans(max_stages=7), min_size=2, max_size=5),
    fast=st.sets(st.integers(0, 4), max_size=2),
    seed=st.integers(0, 2**16),
)
def test_each_run_ends_as_it_would_alone(drawn, fast, seed):
    outcomes = []
    tasks = Tasks()

    async def main():
        before = tasks.alive
        with trio.fail_after(1000):
            await run_together(drawn, fast, outcomes)
        assert tasks.alive == before

    with scheduled(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[tasks])
    assert len({result.run_id for result in outcomes}) == len(drawn)
    for number, (plan, result) in enumerate(zip(drawn, outcomes, strict=True)):
        expected = predict(plan)
        assert result.ledger.balanced
        if number in fast and any(stage.state is FAILED for stage in expected.values()):
            assert result.ended.ending is RunEnding.FAILED
            continue
        assert result.ended.ending is RunEnding.COMPLETED
        assert result.states == {name: stage.state for name, stage in expected.items()}
        check_outputs(result, expected)
        check_failures(result, expected)
        timings = {name: attrs.astuple(timing) for name, timing in result.timings.items()}
        assert timings == {name: (stage.started, stage.ended) for name, stage in expected.items() if stage.ran}


@given(plan=plans(max_stages=8), other=plans(max_stages=8), at=st.sampled_from([0.0, 0.25, 0.75, 1.25]))
def test_cancelling_one_run_leaves_the_other_alone(plan, other, at):
    async def main():
        async with Supervisor(random=lambda: CHANCE) as supervisor:
            victim = supervisor.start(build(other, Recorder(other)), continue_on_failure=True)
            run = supervisor.start(build(plan, Recorder(plan)), continue_on_failure=True)
            await trio.sleep(at)
            victim.cancel("enough")
            return await run.result(), await victim.result()

    result, cancelled = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    expected = predict(plan)
    assert result.states == {name: stage.state for name, stage in expected.items()}
    check_outputs(result, expected)
    assert cancelled.ended.ending in {RunEnding.CANCELLED, RunEnding.COMPLETED}
    assert cancelled.ledger.balanced
