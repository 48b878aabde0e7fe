"""Drawn stages as real ones, which write down what happens to them."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from stageflow_actors import Pipeline, Run, RunResult, RunStatistics, StageContext, StageInputs, StageOutput, route

from .plans import CLEANUP, THREADED, Act, Ask, Form, Reaction, RunPlan, StagePlan, When

if TYPE_CHECKING:
    from collections.abc import Callable


class PlannedError(Exception):
    """What a stage raises on purpose; its only argument is the stage's name."""


class UnprintableError(PlannedError):
    """One whose message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("there is no telling")

    __repr__ = __str__


class CleanupError(PlannedError):
    """What a stage raises when it is cancelled."""


class Odd:
    """No output. Reprs of plain objects show addresses, which differ from run to run."""

    def __repr__(self) -> str:
        return "<odd>"


class Abort(BaseException):
    """What is no `Exception`."""


@attrs.frozen
class Entry:
    """One line of a trace."""

    kind: str
    """`ask`, `enter`, `begin`, `end`, `exit`."""
    stage: str
    time: float | None
    """Virtual, from the start of the run; None in a worker thread."""


class Recorder:
    """Takes down what the stages of one run do, in order."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.entries: list[Entry] = []
        self.instances: list[tuple[str, object]] = []
        self.began = 0.0
        self.stop: Callable[[], None] | None = None
        """Stops the run from outside."""
        self.stopped_after: int | None = None
        """How many entries there were when it was called."""
        self.run: Run | None = None
        """The handle of a run that was started."""
        self.views: list[tuple[RunResult, RunStatistics]] = []
        """With a handle: what it said at every entry."""
        self._random = random.Random(plan.seed)

    def note(self, kind: str, stage: str) -> None:
        """Write one line, and stop the run if this is where it is to be."""
        self.entries.append(Entry(kind, stage, trio.current_time() - self.began))
        if self.run is not None:
            self.views.append((self.run.partial(), self.run.statistics()))
        stop = self.plan.stop
        if stop is None or stop.entry is None or self.stopped_after is not None:
            return
        number = sum(stop.kind in {None, entry.kind} for entry in self.entries)
        if number >= stop.entry and stop.kind in {None, kind}:  # threads write too: a number may be passed over
            self.stop_now()

    def note_in_thread(self, kind: str, stage: str) -> None:
        """Write one line from a worker thread, where there is no time."""
        self.entries.append(Entry(kind, stage, None))

    def stop_now(self) -> None:
        """Stop the run from outside."""
        assert self.stop is not None
        self.stopped_after = len(self.entries)
        self.stop()

    def jitter(self) -> range:
        """Return how many extra checkpoints to make."""
        return range(self._random.randint(0, self.plan.jitter))

    def count(self, kind: str) -> dict[str, int]:
        """Return how often each stage has an entry of a kind."""
        counts: dict[str, int] = {}
        for entry in self.entries:
            if entry.kind == kind:
                counts[entry.stage] = counts.get(entry.stage, 0) + 1
        return counts


def build(plan: RunPlan, recorder: Recorder) -> Pipeline:
    """Return the pipeline of a drawn run."""
    pipeline = Pipeline("drawn")
    for stage in plan.stages:
        pipeline = pipeline.with_stage(
            stage.name,
            make_runner(stage, recorder),
            dependencies=stage.dependencies,
            trigger=stage.trigger,
            timeout=stage.timeout,
            when=_make_condition(stage, stage.when, recorder),
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


async def behave(plan: StagePlan, recorder: Recorder, ctx: StageContext) -> Any:
    """Do what the plan says, in a task."""
    recorder.note("begin", plan.name)
    try:
        with trio.CancelScope(shield=plan.reaction is Reaction.SHIELDED):
            for _ in recorder.jitter():
                await trio.lowlevel.checkpoint()
            for _ in range(plan.checkpoints):
                await trio.lowlevel.checkpoint()
            if plan.sleep:
                await (_sleep_in_a_run if plan.nested else trio.sleep)(plan.sleep)
    except trio.Cancelled as cancelled:
        if plan.reaction is Reaction.SWALLOW:
            return {"swallowed": plan.name}
        if plan.reaction is Reaction.MESSY:
            raise CleanupError(plan.name) from None
        if plan.reaction is Reaction.MIXED:
            raise BaseExceptionGroup("mixed", [cancelled, CleanupError(plan.name)]) from None
        raise
    else:
        return await _act_in_task(plan, ctx)
    finally:
        for _ in recorder.jitter():
            await trio.lowlevel.cancel_shielded_checkpoint()
        recorder.note("end", plan.name)


async def _sleep_in_a_run(seconds: float) -> None:
    async def sleep(_ctx: StageContext) -> None:
        await trio.sleep(seconds)

    await Pipeline("nested").with_stage("sleep", sleep).run()


def behave_in_thread(plan: StagePlan, recorder: Recorder, ctx: StageContext) -> Any:
    """Do what the plan says, in a worker thread."""
    recorder.note_in_thread("begin", plan.name)
    try:
        return _act(plan, ctx)
    finally:
        recorder.note_in_thread("end", plan.name)


def look_around(plan: StagePlan, ctx: StageContext) -> dict[str, Any]:
    """Return data that depends on all that a stage can see of its dependencies."""
    inputs = ctx.inputs
    return {
        "sum": plan.value + sum(inputs.get_from(name, "sum", 0) for name in inputs),
        "saw": {name: inputs.state(name).value for name in inputs},
        "outputs": list(inputs.outputs),
        "failed": [name for name in inputs if inputs.failure(name) is not None],
        "first": inputs.get("sum", -1),
    }


def _act(plan: StagePlan, ctx: StageContext) -> Any:
    """Do what needs no task."""
    data = look_around(plan, ctx)
    name = plan.name
    match plan.act:
        case Act.OK:
            return StageOutput.ok(data)
        case Act.MAPPING:
            return data
        case Act.NONE:
            return None
        case Act.ROUTE:
            return StageOutput.route(plan.label, data)
        case Act.SKIP:
            return StageOutput.skip("nothing to do")
        case Act.SKIP_DATA:
            return StageOutput.skip("nothing to do", data)
        case Act.FAIL:
            return StageOutput.fail("no luck")
        case Act.FAIL_ERROR:
            return StageOutput.fail(UnprintableError(name) if plan.value % 2 else PlannedError(name))
        case Act.RETRY:
            return StageOutput.retry("not yet")
        case Act.CANCEL:
            return StageOutput.cancel("enough")
        case Act.WRONG_TYPE:
            return _never_awaited() if plan.value == 9 else ([3], 3, "text", Odd())[plan.value % 4]
        case Act.UNFREEZABLE:
            circle: list[Any] = []
            circle.append(circle)
            return {"circle": circle}
        case Act.UNDECLARED:
            return ctx.inputs.output("no such dependency")
        case Act.RAISE:
            raise PlannedError(name)
        case Act.RAISE_UNPRINTABLE:
            raise UnprintableError(name)
        case Act.RAISE_GROUP:
            raise ExceptionGroup("two", [PlannedError(name), ExceptionGroup("one", [PlannedError(name)])])
        case Act.ABORT:
            raise Abort(name)
    raise AssertionError(plan.act)


async def _never_awaited() -> None:
    pass


async def _act_in_task(plan: StagePlan, ctx: StageContext) -> Any:
    """Do what the plan says, that which needs a task included."""
    name = plan.name
    match plan.act:
        case Act.OWN_SCOPE:
            with trio.CancelScope() as scope:
                scope.cancel()
                await trio.sleep_forever()
            return look_around(plan, ctx)
        case Act.KEPT_CANCELLED:
            raise await _keep_cancelled()
        case Act.MIXED_GROUP:
            raise BaseExceptionGroup("mixed", [await _keep_cancelled(), PlannedError(name)])
        case Act.CHILD_FAILS:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                nursery.start_soon(_fail, PlannedError(name))
        case Act.NURSERY_LEFT_OPEN | Act.NURSERY_LEFT_OPEN_FAILING:
            nursery = await trio.open_nursery().__aenter__()
            failing = plan.act is Act.NURSERY_LEFT_OPEN_FAILING
            nursery.start_soon(_fail_when_cancelled if failing else trio.sleep_forever, *([name] if failing else []))
            return look_around(plan, ctx)
        case _:
            return _act(plan, ctx)


async def _keep_cancelled() -> trio.Cancelled:
    kept: trio.Cancelled | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            kept = cancelled
    assert kept is not None
    return kept


async def _fail(error: Exception) -> None:
    raise error


async def _fail_when_cancelled(name: str) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise CleanupError(name)
