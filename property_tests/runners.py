"""Drawn stages as real ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from stageflow_actors import Limiter, Pipeline, StageContext, StageInputs, route

from .behaviour import behave, behave_in_thread
from .fans import make_fan
from .makers import make_limiters, make_restart
from .plans import CLEANUP, THREADED, Ask, Form, RunPlan, StagePlan, When
from .problems import PlannedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .recorder import Recorder


def build(plan: RunPlan, recorder: Recorder, limiters: Mapping[str, Limiter] | None = None) -> Pipeline:
    """Return the pipeline of a drawn run, with limiters of its own where none are given."""
    known = make_limiters(dict(plan.limiters)) if limiters is None else limiters
    pipeline = Pipeline("drawn")
    for stage in plan.stages:
        make = make_runner if stage.fan is None else partial(make_fan, limiters=known)
        pipeline = pipeline.with_stage(
            stage.name,
            make(stage, recorder),
            dependencies=stage.dependencies,
            trigger=stage.trigger,
            timeout=stage.timeout,
            when=_make_condition(stage, stage.when, recorder),
            restart=make_restart(stage.restart),
            limiter=None if stage.limiter is None else known[stage.limiter],
            priority=stage.priority,
        )
    return pipeline


def _make_condition(stage: StagePlan, when: When | None, recorder: Recorder) -> Any:
    if when is None:
        return None
    if when.ask is Ask.ROUTE:
        return route(when.router, when.label)

    def ask(inputs: StageInputs) -> bool:
        recorder.note("ask", stage.name)
        if when.ask is Ask.RAISE:
            raise PlannedError(stage.name)
        if when.ask is Ask.EVEN:
            return sum(inputs.get_from(name, "sum", 0) for name in inputs) % 2 == 0
        return when.ask is Ask.TRUE

    return ask


def make_runner(plan: StagePlan, recorder: Recorder) -> Any:
    """Return the runner of a drawn stage."""
    if plan.form in THREADED:
        return _make_threaded(plan, recorder)

    async def run(ctx: StageContext) -> Any:
        return await behave(plan, recorder, ctx)

    class Plain:
        def __init__(self, *_args: object) -> None:
            recorder.instances.append((plan.name, self))

        async def execute(self, ctx: StageContext) -> Any:
            return await run(ctx)

    class Called:
        async def __call__(self, ctx: StageContext) -> Any:
            return await run(ctx)

    class Managed(Plain):
        async def __aenter__(self) -> Any:
            recorder.note("enter", plan.name)
            return self

        async def __aexit__(self, *_args: object) -> None:
            await trio.sleep(CLEANUP)
            recorder.note("exit", plan.name)

    makers: dict[Form, Callable[[], Any]] = {
        Form.FUNCTION: lambda: run,
        Form.PARTIAL: lambda: partial(behave, plan, recorder),
        Form.CALLABLE: Called,
        Form.INSTANCE: Plain,
        Form.CLASS: lambda: Plain,
        Form.CLASS_PARTIAL: lambda: partial(Plain, "an argument"),
        Form.MANAGED: lambda: Managed,
    }
    return makers[plan.form]()


def _make_threaded(plan: StagePlan, recorder: Recorder) -> Any:
    def run(ctx: StageContext) -> Any:
        return behave_in_thread(plan, recorder, ctx)

    class Plain:
        def __init__(self) -> None:
            recorder.instances.append((plan.name, self))

        def execute(self, ctx: StageContext) -> Any:
            return run(ctx)

    class Managed(Plain):
        async def __aenter__(self) -> Any:
            recorder.note("enter", plan.name)
            return self

        async def __aexit__(self, *_args: object) -> None:
            await trio.lowlevel.checkpoint()
            recorder.note("exit", plan.name)

    makers: dict[Form, Callable[[], Any]] = {
        Form.THREAD: lambda: run,
        Form.THREAD_INSTANCE: Plain,
        Form.THREAD_CLASS: lambda: Plain,
        Form.THREAD_MANAGED: lambda: Managed,
    }
    return makers[plan.form]()
