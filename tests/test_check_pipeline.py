"""`check_pipeline`: sound pipelines keep the laws in every schedule, with every option and whatever goes wrong."""

from __future__ import annotations

import attrs
import pytest
import trio
from law_cases import AT_ONCE, LATER, Managed, Threaded, diamond, fail, heal, skip, work

from stageflow_actors import (
    FanOutLimiterStage,
    Intensity,
    Limiter,
    Pipeline,
    PipelineValidationError,
    Rate,
    StageOutput,
    Trigger,
    route,
)
from stageflow_actors.errors import ReplayError
from stageflow_actors.placement import Placement
from stageflow_actors.testing import Cancel, ClockJump, Crash, Delay, check_pipeline

# Sound pipelines


def test_a_small_pipeline_is_explored_whole():
    report = check_pipeline(diamond(), {"from": "caller"})
    assert report.complete
    assert report.failure is None
    assert (
        str(report)
        == f"check_pipeline('diamond'): no failure in any schedule: complete, {report.executions} executions"
    )


async def page(ctx):
    await trio.lowlevel.checkpoint()
    return {"page": ctx.snapshot.data["index"]}


async def choose_left(_ctx):
    await trio.lowlevel.checkpoint()
    return StageOutput.route("left")


def fan(worker=page, **options):
    stage = FanOutLimiterStage(worker, items=range(3), limiter=Limiter(2), **options)
    return Pipeline("fan").with_stage("f", stage, restart=AT_ONCE).with_stage("end", work, dependencies="f")


ROUTES = (
    Pipeline("routes")
    .with_stage("r", choose_left)
    .with_stage("left", work, dependencies="r", when=route("r", "left"))
    .with_stage("right", work, dependencies="r", when=route("r", "right"))
    .with_stage("join", work, dependencies=("left", "right"), trigger=Trigger.ONE_SUCCESS)
)
SOUND = {
    "restarts": diamond(heal, restart=AT_ONCE),
    "restarts after a time": diamond(heal, restart=LATER),
    "restarts that are used up": diamond(heal, restart=attrs.evolve(AT_ONCE, max_restarts=1)),
    "failures": diamond(fail),
    "skips": diamond(skip),
    "predicates": diamond(when=lambda inputs: inputs.get("saw") is None),
    "a limiter": diamond(limiter=Limiter(1)),
    "a limiter and restarts": diamond(heal, limiter=Limiter(1), restart=AT_ONCE),
    "a limiter that drops": diamond(limiter=Limiter(1, overflow="drop_oldest")),
    "a limiter with a rate": diamond(limiter=Limiter(2, rate=Rate(1, per=1.0))),
    "context managers": diamond(Managed),
    "instances": diamond(Managed()),
    "timeouts": diamond(timeout=1.0),
    "timeouts of context managers": diamond(Managed, timeout=1.0, restart=AT_ONCE),
    "a fan-out": fan(),
    "a fan-out that restarts": fan(heal, restart=LATER),
    "a fan-out that fails": fan(fail),
    "a fan-out that collects": fan(fail, on_item_failure="collect"),
    "routes": ROUTES,
    "a subpipeline": Pipeline("outer").with_stage("before", work).subpipeline("inner", ROUTES, "before"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_pipeline_keeps_the_laws(name):
    assert check_pipeline(SOUND[name], max_executions=60).failure is None


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_pipeline_keeps_the_laws_whatever_goes_wrong(name):
    plan = (Crash("*"), Delay("*", seconds=5.0), Cancel(), ClockJump(2.0))
    assert check_pipeline(SOUND[name], max_executions=60, faults=plan).failure is None


@pytest.mark.parametrize("name", ["failures", "restarts that are used up", "a fan-out that fails", "timeouts"])
def test_a_run_that_fails_fast_keeps_the_laws(name):
    check_pipeline(SOUND[name], continue_on_failure=False, max_executions=60)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 1.0},
        {"intensity": Intensity(1)},
        {"targets": ["b1"]},
        {"targets": "a"},
        {"overrides": {"a": {"saw": "nothing"}, "b0": StageOutput.skip("given")}},
        {"max_running_stages": 1},
        {"shutdown": 0.5},
        {"strategy": "pct", "seed": 3},
        {"clock": "auto"},
    ],
    ids=", ".join,
)
def test_the_options_of_a_run_are_obeyed(options):
    check_pipeline(diamond(heal, restart=LATER), max_executions=100, **options)


def test_stages_in_threads_keep_the_laws():
    report = check_pipeline(diamond(Threaded), max_threads=1, max_executions=3)
    assert not report.complete
    assert any("thread" in told for told in report.uncontrolled)


def test_stages_that_break_the_contract_keep_the_laws():
    async def return_nonsense(_ctx):
        return 3

    async def return_what_cannot_be_frozen(_ctx):
        return {"rows": Unfreezable((1, []))}

    def fail_in_a_thread(_ctx):
        raise ConnectionError("no")

    for runner in (return_nonsense, return_what_cannot_be_frozen):
        check_pipeline(diamond(runner), max_executions=20)
    check_pipeline(diamond(fail_in_a_thread), max_executions=2)


class Unfreezable(tuple):
    """It holds a list, and cannot be made anew with a frozen one."""

    __slots__ = ()


def test_a_stage_that_cancels_the_run_keeps_the_laws():
    async def cancel(_ctx):
        await trio.lowlevel.checkpoint()
        return StageOutput.cancel("enough")

    check_pipeline(diamond().with_stage("d", cancel), max_executions=60)


def test_a_function_makes_the_pipeline_for_each_execution():
    made = []

    def make():
        seen = []
        made.append(seen)

        async def note(_ctx):
            seen.append(len(seen))
            return {"seen": len(seen)}

        return diamond().with_stage("note", note)

    report = check_pipeline(make, max_executions=10)
    assert len(made) == 3 + report.executions  # to check it, twice the first run, and the others
    assert all(len(seen) <= 1 for seen in made)


def test_limiters_are_made_anew_so_that_no_execution_finds_what_another_has_left():
    limiter = Limiter(1, rate=Rate(1, per=100.0))
    check_pipeline(diamond(limiter=limiter), max_executions=20)
    assert limiter.statistics().admitted == 0


# Wrong use


def test_a_pipeline_that_cannot_work_is_refused():
    with pytest.raises(PipelineValidationError, match="unknown dependency 'x'"):
        check_pipeline(Pipeline("p").with_stage("a", work, dependencies="x"))
    with pytest.raises(
        PipelineValidationError, match="pipeline must be a Pipeline, or a function that makes one, not 3"
    ):
        check_pipeline(3)
    with pytest.raises(PipelineValidationError, match="pipeline must be a Pipeline, or a function that makes one"):
        check_pipeline(lambda: "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": -1}, "timeout must be"),
        ({"targets": ["x"]}, "unknown target 'x'"),
        ({"overrides": {"x": {}}}, "unknown override 'x'"),
        ({"max_running_stages": 0}, "max_running_stages must be"),
        ({"max_executions": 0}, "max_executions must be"),
        ({"strategy": "best"}, "strategy must be one of"),
        ({"clock": "wall"}, "clock must be one of"),
        ({"faults": [3]}, "3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(PipelineValidationError, match=message):
        check_pipeline(diamond(), **options)


def test_a_schedule_that_does_not_fit_is_refused():
    with pytest.raises(ReplayError, match="does not fit"):
        check_pipeline(diamond(), replay="9")
    with pytest.raises(ReplayError, match="is no choice"):
        check_pipeline(diamond(), replay="!")


def test_a_schedule_that_no_longer_fails_says_so():
    assert check_pipeline(diamond(), replay="0").failure is None


def test_what_is_no_exception_comes_out():
    async def interrupt(_ctx):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_pipeline(Pipeline("p").with_stage("a", interrupt))


def test_placed_functions_run_in_threads_of_the_supervisor():
    class Nowhere(Placement):
        def check(self, runner, form):
            return None

        def open(self):
            raise AssertionError("it is not needed")

        def __repr__(self):
            return "Nowhere()"

    check_pipeline(Pipeline("p").with_stage("a", lambda ctx: {"n": 1}, placement=Nowhere()), max_executions=5)
    with pytest.raises(PipelineValidationError) as caught:
        check_pipeline(Pipeline("p").with_stage("a", work, placement=Nowhere()))
    problem = "placement Nowhere() cannot be controlled, and what awaits there cannot run elsewhere"
    assert str(caught.value) == f"pipeline 'p', stage 'a': {problem}; check it with another runner"
