"""What a user's type checker refuses: each line below is an error, and one that is none fails the check.

mypy warns about an ignore that ignores nothing (`warn_unused_ignores`), so every mistake here must be found.
"""

from collections.abc import Iterator

from stageflow_actors import (
    ContextSnapshot,
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    Restart,
    Run,
    RunResult,
    StageContext,
    StageInputs,
    StageKind,
    StageOutput,
    StageSpec,
    Supervisor,
    Trigger,
    parallel_stages,
    route,
)

pipeline = Pipeline("report")


async def fetch(ctx: StageContext) -> StageOutput:
    return StageOutput.ok()


# Runners


class NoExecute:
    async def run(self, ctx: StageContext) -> StageOutput:
        return StageOutput.ok()


class ReturnsInt:
    async def execute(self, ctx: StageContext) -> int:
        return 1


class BlockingReturnsInt:
    def execute(self, ctx: StageContext) -> int:
        return 1


class NoContext:
    async def execute(self) -> StageOutput:
        return StageOutput.ok()


class WrongContext:
    async def execute(self, ctx: str) -> StageOutput:
        return StageOutput.ok()


class Needy:
    def __init__(self, url: str) -> None:
        self.url = url

    async def execute(self, ctx: StageContext) -> StageOutput:
        return StageOutput.ok()


class Generates:
    def execute(self, ctx: StageContext) -> Iterator[StageOutput]:
        yield StageOutput.ok()


async def returns_int(ctx: StageContext) -> int:
    return 1


async def returns_list(ctx: StageContext) -> list[int]:
    return [1]


def blocking_returns_str(ctx: StageContext) -> str:
    return "done"


async def takes_nothing() -> None:
    pass


async def takes_more(ctx: StageContext, more: int) -> None:
    pass


pipeline.with_stage("a", NoExecute)  # type: ignore[arg-type]
pipeline.with_stage("a", NoExecute())  # type: ignore[arg-type]
pipeline.with_stage("a", ReturnsInt)  # type: ignore[arg-type]
pipeline.with_stage("a", ReturnsInt())  # type: ignore[arg-type]
pipeline.with_stage("a", BlockingReturnsInt)  # type: ignore[arg-type]
pipeline.with_stage("a", NoContext)  # type: ignore[arg-type]
pipeline.with_stage("a", WrongContext)  # type: ignore[arg-type]
pipeline.with_stage("a", Needy)  # type: ignore[arg-type]
pipeline.with_stage("a", Generates)  # type: ignore[arg-type]
pipeline.with_stage("a", returns_int)  # type: ignore[arg-type]
pipeline.with_stage("a", returns_list)  # type: ignore[arg-type]
pipeline.with_stage("a", blocking_returns_str)  # type: ignore[arg-type]
pipeline.with_stage("a", takes_nothing)  # type: ignore[arg-type]
pipeline.with_stage("a", takes_more)  # type: ignore[arg-type]
pipeline.with_stage("a", lambda ctx: 1)  # type: ignore[arg-type]
pipeline.with_stage("a", None)  # type: ignore[arg-type]
pipeline.with_stage("a", "fetch")  # type: ignore[arg-type]
pipeline.with_stage("a", object())  # type: ignore[arg-type]
parallel_stages("w{key}", NoExecute, range(3))  # type: ignore[arg-type]

# Options

pipeline.with_stage("a", fetch, StageKind.WORK, 5)  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, dependencies=[1, 2])  # type: ignore[list-item]
pipeline.with_stage("a", fetch, dependencies=None)  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, dependencies=fetch)  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, StageKind.WORK, (), {"depth": 1})  # type: ignore[call-arg]
pipeline.with_stage("a", fetch, "work")  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, trigger="all_done")  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, timeout="3")  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, config=[1])  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, when="left")  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, max_retries=3)  # type: ignore[call-arg]
pipeline.with_stages([fetch])  # type: ignore[list-item]
pipeline.compose("other")  # type: ignore[arg-type]
pipeline.subpipeline("sub", fetch)  # type: ignore[arg-type]
parallel_stages("w{key}", fetch, 500)  # type: ignore[arg-type]
parallel_stages("w{key}", fetch, range(3), StageKind.WORK)  # type: ignore[call-arg]
route("router", ["left", "right"])  # type: ignore[arg-type]


async def wait(inputs: StageInputs) -> bool:
    return True


pipeline.with_stage("a", fetch, when=wait)  # type: ignore[arg-type]

# Values


async def use(supervisor: Supervisor, run: Run, result: RunResult, ctx: StageContext, spec: StageSpec) -> None:
    await supervisor.run(pipeline, ContextSnapshot(), True)  # type: ignore[call-arg]
    await supervisor.run("report")  # type: ignore[arg-type]
    await supervisor.run(pipeline, overrides={"a": 5})  # type: ignore[dict-item]
    await supervisor.run(pipeline, targets=5)  # type: ignore[arg-type]
    await supervisor.start(pipeline)  # type: ignore[misc]
    Supervisor(4)  # type: ignore[call-arg,arg-type]
    run.events(10)  # type: ignore[call-arg]
    result["a"] = StageOutput.ok()  # type: ignore[index]
    result.states["a"] = 1  # type: ignore[index]
    result[5]  # type: ignore[index]
    result.ok = True  # type: ignore[misc]
    ctx.inputs.outputs["a"] = StageOutput.ok()  # type: ignore[index]
    ctx.inputs["a"]  # type: ignore[index]
    ctx.config["a"] = 1  # type: ignore[index]
    ctx.snapshot.data["a"] = 1  # type: ignore[index]
    ctx.snapshot.topology = "t"  # type: ignore[misc]
    StageOutput.ok().data["a"] = 1  # type: ignore[index]
    StageOutput.ok().label = "left"  # type: ignore[misc]
    StageOutput.ok([1])  # type: ignore[arg-type]
    StageOutput.skip(5)  # type: ignore[arg-type]
    StageOutput.fail()  # type: ignore[call-arg]
    spec.name = "other"  # type: ignore[misc]
    ContextSnapshot("text")  # type: ignore[call-arg]
    print(Trigger.NEVER)  # type: ignore[attr-defined]


class Subclass(Pipeline):  # type: ignore[misc]
    pass


def implement(output: StageOutput) -> None:
    class Special(StageOutput):  # type: ignore[misc]
        pass


# Restarts and limits

pipeline.with_stage("a", fetch, restart=3)  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, limiter=64)  # type: ignore[arg-type]
pipeline.with_stage("a", fetch, priority="high")  # type: ignore[arg-type]
Restart(3)  # type: ignore[call-arg]
Restart(on="OSError")  # type: ignore[arg-type]
Restart(on=KeyboardInterrupt)  # type: ignore[arg-type]
Restart(decide=lambda error: True)  # type: ignore[arg-type, return-value]
Limiter(64, overflow="drop")  # type: ignore[arg-type]
Limiter(64, rate=100)  # type: ignore[arg-type]
FanOutLimiterStage(fetch, items=5, limiter=Limiter(1))  # type: ignore[arg-type]
FanOutLimiterStage(fetch, items=[1])  # type: ignore[call-arg]
FanOutLimiterStage(fetch, items=[1], limiter=Limiter(1), on_item_failure="ignore")  # type: ignore[arg-type]
Supervisor(max_runs=1, overflow="drop")  # type: ignore[arg-type]
