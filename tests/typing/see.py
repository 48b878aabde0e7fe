"""What a user's type checker sees: the types of what the library hands out.

Checked by mypy, never run: `tests/test_typing.py` does it.
"""

from collections.abc import AsyncIterator, ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from functools import partial
from typing import Any, assert_type

import trio

from stageflow_actors import (
    Attempt,
    Backoff,
    ContextSnapshot,
    Directive,
    EventStream,
    FanOutLimiterStage,
    Intensity,
    Ledger,
    Limiter,
    ParallelPipelineFactory,
    Pipeline,
    PipelineFailedError,
    Rate,
    Restart,
    Run,
    RunEnd,
    RunEnding,
    RunIdentity,
    RunResult,
    Stage,
    StageContext,
    StageFailure,
    StageInputs,
    StageKind,
    StageOutput,
    StageReturn,
    StageSpec,
    StageState,
    StageStatus,
    StageTiming,
    Supervisor,
    Trigger,
    parallel_stages,
    register_freezer,
    route,
)
from stageflow_actors.errors import CycleDetectedError, NotFreezableError, StageFailedError, StageTimeoutError
from stageflow_actors.events import Event, StageEnded, StageStarted
from stageflow_actors.statistics import LimiterStatistics, RunStatistics

# A stage's side


class Score:
    kind = StageKind.WORK

    async def execute(self, ctx: StageContext) -> StageOutput:
        assert_type(ctx.inputs, StageInputs)
        assert_type(ctx.inputs.output("fetch"), StageOutput)
        assert_type(ctx.inputs.outputs, Mapping[str, StageOutput])
        assert_type(ctx.inputs.outputs["fetch"].data, Mapping[str, Any])
        assert_type(ctx.inputs.state("fetch"), StageState)
        assert_type(ctx.inputs.failure("fetch"), StageFailure | None)
        assert_type(ctx.inputs.get_from("fetch", "rows", ()), Any)
        assert_type(ctx.inputs.require_from("fetch", "rows"), Any)
        assert_type(ctx.inputs.get("rows"), Any)
        assert_type(list(ctx.inputs), list[str])
        assert_type("fetch" in ctx.inputs, bool)
        assert_type(ctx.config, Mapping[str, Any])
        assert_type(ctx.snapshot, ContextSnapshot[Any])
        assert_type(ctx.snapshot.data, Mapping[str, Any])
        assert_type(ctx.snapshot.run_id, str | None)
        assert_type(ctx.snapshot.created_at, datetime | None)
        assert_type(ctx.stage_name, str)
        assert_type(ctx.attempt, int)
        assert_type(ctx.idempotency_key, str)
        ctx.emit({"progress": 0.5})
        return StageOutput.ok(score=1)


class Plain:
    """Returns what may be returned, and runs in a thread."""

    def __init__(self, factor: int = 1) -> None:
        self.factor = factor

    def execute(self, ctx: StageContext) -> StageReturn:
        return {"factor": self.factor}


class Typed:
    async def execute(self, ctx: StageContext) -> Mapping[str, int] | None:
        return None


async def fetch(ctx: StageContext) -> dict[str, int]:
    return {"rows": 1}


def blocking(ctx: StageContext) -> None:
    """A plain function, for a thread."""


async def optioned(ctx: StageContext, *, depth: int = 1) -> StageReturn:
    return StageOutput.skip("not today") if depth else {"depth": depth}


def make_stage() -> Stage:
    return Score()


def look_at_an_output(output: StageOutput) -> None:
    assert_type(output.status, StageStatus)
    assert_type(output.data, Mapping[str, Any])
    assert_type(output.error, str | Exception | None)
    assert_type(output.reason, str)
    assert_type(output.label, str | None)
    for made in (
        StageOutput.ok({"a": 1}, b=2),
        StageOutput.skip("reason"),
        StageOutput.cancel("reason", {"a": 1}),
        StageOutput.fail(ValueError("boom")),
        StageOutput.retry("later", after=1.5),
        StageOutput.route("left", {"a": 1}, b=2),
    ):
        assert_type(made, StageOutput)


# Building


def build() -> Pipeline:
    workers = parallel_stages("score-{key}", Score, range(3), dependencies="fetch", timeout=1)
    assert_type(workers, tuple[StageSpec, ...])
    pipeline = (
        Pipeline("report")
        .with_stage("fetch", fetch)
        .with_stage("score", Score, StageKind.WORK, ["fetch"])
        .with_stage("kind", Score, StageKind.GUARD, dependencies=("fetch", workers[0]), config={"a": 1})
        .with_stage("partial", partial(Plain, 2), dependencies=workers)
        .with_stage("options", partial(optioned, depth=2))
        .with_stage("instance", Plain(3))
        .with_stage("method", Score().execute)
        .with_stage("thread", blocking, trigger=Trigger.ALL_DONE, timeout=2.5)
        .with_stage("typed", Typed, dependencies="fetch", when=route("fetch", "left", "right"))
        .with_stage("predicate", Typed, dependencies="fetch", when=lambda inputs: bool(inputs.get("rows")))
        .with_stage("lambda", lambda ctx: {"name": ctx.stage_name})
        .with_stage("made", make_stage)
        .with_stages(workers)
        .with_stages(parallel_stages("w{key}", fetch, {"a": {"depth": 1}}))
        .compose(Pipeline("other"))
        .subpipeline("sub", Pipeline("inner"), "fetch")
    )
    assert_type(pipeline, Pipeline)
    assert_type(pipeline.stages, tuple[StageSpec, ...])
    assert_type(pipeline.stages[0].dependencies, tuple[str, ...])
    assert_type(pipeline.name, str)
    assert_type(len(pipeline), int)
    assert_type(ParallelPipelineFactory({"score": Score}).build({"name": "p"}), Pipeline)
    assert_type(ParallelPipelineFactory().read("report.toml"), Pipeline)
    return pipeline


def heal_and_limit(pipeline: Pipeline) -> Pipeline:
    limiter = Limiter(64, max_queued=100, overflow="reject", rate=Rate(100, per=1.0, burst=10), aging=5)
    assert_type(limiter.statistics(), LimiterStatistics)
    assert_type(limiter.max_concurrency, int)
    for restart in (
        Restart(),
        Restart(max_restarts=5, within=60, backoff=Backoff(initial=1, jitter=0), on=(OSError, TimeoutError)),
        Restart(on=lambda error: "again" in str(error)),
        Restart(decide=lambda error: Directive.FAIL if isinstance(error, KeyError) else Directive.RESTART),
    ):
        pipeline = pipeline.with_stage("fetch", fetch, restart=restart, limiter=limiter, priority=3)
    workers = parallel_stages("w{key}", fetch, range(3), restart=Restart(), limiter=limiter, priority=-1)
    pipeline = pipeline.with_stages(workers)
    for fan_out in (
        FanOutLimiterStage(Score, items=("fetch", "rows"), limiter=limiter),
        FanOutLimiterStage(fetch, items=[1, 2], limiter=limiter, on_item_failure="collect", collect=False),
        FanOutLimiterStage(blocking, items=count_up(), limiter=limiter, restart=Restart(), timeout=1.5),
        FanOutLimiterStage(Plain(3), items=lambda inputs: range(len(inputs)), limiter=limiter),
    ):
        pipeline = pipeline.with_stage("pages", fan_out, dependencies="fetch")
    return pipeline


async def count_up() -> AsyncIterator[int]:
    yield 1


async def share(limiter: Limiter) -> None:
    async with limiter.slot(priority=2):
        pass


class Table:
    rows: list[int]


register_freezer(Table, lambda table: tuple(table.rows))

# Running


async def run(pipeline: Pipeline) -> RunResult:
    assert_type(await pipeline.run(), RunResult)
    assert_type(await pipeline.run({"a": 1}, continue_on_failure=True), RunResult)
    assert_type(await pipeline.run(input_text="hello", topology="t"), RunResult)
    async with Supervisor(max_running_stages=8, max_runs=2, max_queued=5, overflow="drop_oldest", random=lambda: 0.5):
        pass
    async with Supervisor(max_threads=4, shutdown=1.0, identify=RunIdentity.new) as supervisor:
        assert_type(supervisor, Supervisor)
        result = await supervisor.run(
            pipeline,
            ContextSnapshot(data={"a": 1}),
            continue_on_failure=True,
            timeout=30,
            intensity=Intensity(20, within=60),
            targets=["fetch"],
            overrides={"fetch": {"rows": 1}, "score": StageOutput.ok()},
        )
        assert_type(result, RunResult)
        run = supervisor.start(pipeline, {"a": 1}, targets="fetch")
        assert_type(run, Run)
        assert_type(run.run_id, str)
        assert_type(run.statistics(), RunStatistics)
        assert_type(run.statistics().ended, int)
        assert_type(run.statistics().restarting, int)
        assert_type(run.partial(), RunResult)
        assert_type(run.cancel("operator"), None)
        async with run.events(max_queued=10) as events:
            assert_type(events, EventStream)
            assert_type(events.dropped, int)
            async for event in events:
                assert_type(event, Event)
                if isinstance(event, StageEnded):
                    assert_type(event.state, StageState)
                if isinstance(event, StageStarted):
                    assert_type(event.attempt, int)
        assert_type(await run.result(), RunResult)
    return result


def script(pipeline: Pipeline) -> None:
    assert_type(trio.run(pipeline.run), RunResult)
    assert_type(trio.run(partial(pipeline.run, continue_on_failure=True, input_text="hello")), RunResult)


# What came of it


def look_at_a_result(result: RunResult) -> None:
    assert_type(result["fetch"], StageOutput)
    assert_type(result.get("fetch"), StageOutput | None)
    assert_type(iter(result), Iterator[str])
    assert_type(result.keys(), KeysView[str])
    assert_type(result.values(), ValuesView[StageOutput])
    assert_type(result.items(), ItemsView[str, StageOutput])
    for name, output in result.items():
        assert_type(name, str)
        assert_type(output, StageOutput)
    assert_type(result.states, Mapping[str, StageState])
    assert_type(result.failures, Mapping[str, StageFailure])
    assert_type(result.failures["fetch"].error, BaseException)
    assert_type(result.failures["fetch"].attempts, tuple[Attempt, ...])
    assert_type(result.attempts, Mapping[str, tuple[Attempt, ...]])
    assert_type(result.failures["fetch"].attempts[0].error, BaseException | None)
    assert_type(result.timings, Mapping[str, StageTiming])
    assert_type(result.timings["fetch"].duration, float)
    assert_type(result.cause_chain("fetch"), tuple[str, ...])
    assert_type(result.reason("fetch"), str)
    assert_type(result.data("fetch"), Mapping[str, Any])
    assert_type(result.require_ok("fetch"), StageOutput)
    assert_type(result.ended, RunEnd)
    assert_type(result.ended.ending, RunEnding)
    assert_type(result.ok, bool)
    assert_type(result.ledger, Ledger)
    assert_type(result.ledger.balanced, bool)
    assert_type(result.duration, float)
    assert_type(result.to_dict(), dict[str, Any])
    assert_type(result.raise_for_failures(), None)


class Tenant:
    name: str


def look_at_a_snapshot(given: ContextSnapshot) -> None:
    assert_type(given, ContextSnapshot[Any])
    bare = ContextSnapshot(data={"a": 1})
    assert_type(bare, ContextSnapshot[Any])
    snapshot = ContextSnapshot(extensions=Tenant())
    assert_type(snapshot.extensions, Tenant | None)
    assert_type(snapshot, ContextSnapshot[Tenant])
    assert_type(snapshot.to_dict(), dict[str, Any])
    assert_type(ContextSnapshot[Tenant].from_dict({}), ContextSnapshot[Tenant])


async def look_at_errors(pipeline: Pipeline) -> None:
    try:
        await run(pipeline)
    except PipelineFailedError as error:
        assert_type(error.result, RunResult)
        assert_type(error.failures, Mapping[str, StageFailure])
        assert_type(error.stage, str | None)
    except CycleDetectedError as error:
        assert_type(error.cycle, tuple[str, ...])
        assert_type(error.hint, str | None)
    except StageTimeoutError as error:
        assert_type(error.seconds, float)
    except StageFailedError as error:
        assert_type(error.output, StageOutput | None)
    except NotFreezableError as error:
        assert_type(error.path, str)
