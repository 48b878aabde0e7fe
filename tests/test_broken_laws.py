"""`check_pipeline` with pipelines that break a law: it says which, of which stage, under which schedule."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio
from law_cases import diamond, fail

from stageflow_actors import ContextSnapshot, Pipeline, PipelineFailedError, StageOutput, Supervisor, parallel_stages
from stageflow_actors.errors import RaceError
from stageflow_actors.testing import check_pipeline
from stageflow_actors.testing._checked_run import Check


def broken(pipeline, *arguments, law, **options):
    """Check a pipeline that breaks a law, and return what is told."""
    with pytest.raises(RaceError) as caught:
        check_pipeline(pipeline, *arguments, **options)
    failure = caught.value.failure
    assert failure.reproduced
    assert f"BrokenLawError: {law}: " in str(caught.value)
    assert f"replay: check_pipeline(..., replay={failure.schedule!r})" in str(caught.value)
    with pytest.raises(RaceError) as again:
        check_pipeline(pipeline, *arguments, **options, replay=failure.schedule)
    assert str(again.value.failure.error) == str(failure.error)
    return str(failure.error)


@attrs.define
class Basket:
    """Passes by reference, and says what makes two of it equal."""

    rows: list[int] = attrs.field(factory=list)


async def put_out(_ctx):
    return {"basket": Basket([1, 2])}


async def put_in(ctx):
    ctx.inputs.require_from("a", "basket").rows.append(3)


def test_immutability_of_outputs():
    pipeline = Pipeline("p").with_stage("a", put_out).with_stage("b", put_in, dependencies="a")
    told = broken(pipeline, law="immutability")
    assert "data['basket'] is Basket(rows=[1, 2, 3]) and was Basket(rows=[1, 2])" in told
    assert "stage 'a'" in told


def test_immutability_of_the_snapshot():
    async def spoil(ctx):
        ctx.snapshot.data["basket"].rows.clear()

    snapshot = ContextSnapshot(data={"basket": Basket([1])})
    with pytest.raises(RaceError, match=r"immutability: snapshot.data\['basket'\] is Basket\(rows=\[\]\)"):
        check_pipeline(Pipeline("p").with_stage("a", spoil), snapshot)


def test_immutability_of_what_is_given():
    pipeline = Pipeline("p").with_stage("a", put_out).with_stage("b", put_in, dependencies="a")
    with pytest.raises(RaceError, match=r"immutability: overrides\['a'\]"):
        check_pipeline(pipeline, overrides={"a": {"basket": Basket()}})


def test_what_passes_by_reference_and_does_not_say_what_makes_it_equal_is_its_owners_affair():
    class Counter:
        count = 0

    async def make(_ctx):
        return {"counter": Counter()}

    async def count(ctx):
        ctx.inputs.require_from("a", "counter").count += 1

    check_pipeline(Pipeline("p").with_stage("a", make).with_stage("b", count, dependencies="a"))


def lose_an_update():
    box = {"total": 0}

    async def add(_ctx):
        total = box["total"]
        await trio.lowlevel.checkpoint()
        box["total"] = total + 1

    async def read(_ctx):
        return {"total": box["total"]}

    return (
        Pipeline("shared")
        .with_stages(parallel_stages("add{key}", add, range(2)))
        .with_stage("read", read, dependencies=("add0", "add1"))
    )


def test_a_result_that_depends_on_the_schedule():
    told = broken(lose_an_update, law="same result")
    assert told == "same result: stage 'read' differs: data['total'] is 1 and was 2 in the first run"


def test_a_result_that_depends_on_the_schedule_may_be_allowed():
    check_pipeline(lose_an_update, same_result=False)


def test_a_state_that_depends_on_the_schedule():
    def make():
        came = []

        async def come(ctx):
            await trio.lowlevel.checkpoint()
            came.append(ctx.stage_name)
            if came == ["b0", "b1"]:
                raise ConnectionError("b1 came second")

        return diamond(come)

    told = broken(make, law="same result")
    assert told == "same result: stage 'b1' is ok, and was failed in the first run"
    told = broken(make, law="same result", continue_on_failure=False)
    assert told.startswith("same result: the run ended completed, and failed: stage 'b1'")


def test_a_label_that_depends_on_the_schedule():
    def make():
        came = []

        async def choose(ctx):
            await trio.lowlevel.checkpoint()
            came.append(ctx.stage_name)
            return StageOutput.route("first" if len(came) == 1 else "second")

        return diamond(choose)

    assert "chose 'second', and 'first' in the first run" in broken(make, law="same result")


def test_a_result_that_is_another_under_the_same_schedule_is_told_apart():
    count = iter(range(1000))

    async def number(_ctx):
        return {"number": next(count)}

    with pytest.raises(RaceError) as caught:
        check_pipeline(Pipeline("p").with_stage("a", number))
    assert "in the first run, with the same schedule: it depends on what outlives a run" in str(caught.value)
    assert "give a function that makes the pipeline, or same_result=False" in str(caught.value)
    check_pipeline(Pipeline("p").with_stage("a", number), same_result=False)


async def leave_a_task(_ctx):
    trio.lowlevel.spawn_system_task(trio.sleep_forever, name="left behind")


def test_a_task_that_is_left():
    told = broken(Pipeline("p").with_stage("a", leave_a_task), law="no task left")
    assert told == "no task left: the task 'left behind' still runs"


def test_a_task_that_ends_by_itself_is_not_left():
    async def wait_a_little():
        await trio.lowlevel.checkpoint()

    async def spawn(_ctx):
        trio.lowlevel.spawn_system_task(wait_a_little)

    check_pipeline(Pipeline("p").with_stage("a", spawn))


def test_a_stage_that_never_ends():
    async def wait(_ctx):
        await trio.Event().wait()

    with pytest.raises(RaceError) as caught:
        check_pipeline(Pipeline("p").with_stage("a", wait))
    assert caught.value.failure.kind == "lost wake-up"
    assert "a waits for Event.wait" in str(caught.value)


def test_stages_that_wait_for_each_other():
    def make():
        locks = [trio.Lock(), trio.Lock()]

        async def take(_ctx, first, second):
            async with locks[first]:
                await trio.lowlevel.checkpoint()
                async with locks[second]:
                    pass

        return (
            Pipeline("p")
            .with_stage("a", partial(take, first=0, second=1))
            .with_stage("b", partial(take, first=1, second=0))
        )

    with pytest.raises(RaceError) as caught:
        check_pipeline(make)
    assert caught.value.failure.kind == "deadlock"
    assert caught.value.failure.preemptions == 1


@pytest.mark.parametrize(
    ("fails_fast", "raises", "told"),
    [
        (True, False, "and raised nothing"),
        (False, True, "and raised PipelineFailedError"),
        (True, True, None),
        (False, False, None),
    ],
)
def test_what_a_failed_run_raises(fails_fast, raises, told):
    async def run():
        async with Supervisor() as supervisor:
            with pytest.raises(PipelineFailedError) as caught:
                await supervisor.run(Pipeline("p").with_stage("a", fail))
        return caught.value

    error = trio.run(run)
    options = {"continue_on_failure": not fails_fast, "overrides": None}
    check = Check(Pipeline("p"), None, options=options, supervision={}, same_result=False)
    problems = [str(problem) for problem in check._check_error(error.result, error if raises else None)]
    start = "conservation: the run ended failed: stage 'a': ConnectionError: no, "
    assert problems == ([] if told is None else [start + told])
