"""How one stage alone fails: with what it raised itself, and before anything starts where it cannot work."""

from __future__ import annotations

import traceback
from functools import partial

import pytest
import trio

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineValidationError,
    StageFailedError,
    StageOutput,
    StageTimeoutError,
)
from stageflow_actors.errors import (
    ItemFailedError,
    NurseryLeftOpenError,
    StageReturnTypeError,
    UndeclaredDependencyError,
)
from stageflow_actors.testing._run_stage import run_stage


async def work(ctx):
    """Return at once."""


class OddError(Exception):
    pass


async def fail_below(_ctx):
    await dig()


async def dig():
    await trio.lowlevel.checkpoint()
    raise OddError


def fail_in_thread(_ctx):
    raise OddError


class FailingManager:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *args):
        await trio.lowlevel.checkpoint()

    async def execute(self, ctx):
        await dig()


@pytest.mark.parametrize("runner", [fail_below, fail_in_thread, FailingManager, partial(FailingManager)])
async def test_what_it_raises_comes_out_itself(runner):
    with pytest.raises(OddError) as caught:
        await run_stage(runner)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    names = [frame.name for frame in traceback.extract_tb(caught.tb)]
    runtime = names.index("_conclude")
    assert names[runtime + 1 :] in (["fail_below", "dig"], ["fail_in_thread"], ["execute", "dig"])


async def test_it_is_the_very_object_that_was_raised():
    raised = OddError()

    async def fail(_ctx):
        raise raised

    with pytest.raises(OddError) as caught:
        await run_stage(fail)
    assert caught.value is raised


async def test_a_group_comes_out_itself():
    async def fail(_ctx):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dig)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(ExceptionGroup) as caught:
        await run_stage(fail)
    assert [type(error) for error in caught.value.exceptions] == [OddError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_comes_out_itself(error):
    async def leave(_ctx):
        raise error

    with pytest.raises(error):
        await run_stage(leave)


async def test_a_failure_that_it_raises_is_not_taken_for_one_that_it_returns():
    inner = StageOutput.fail("inner")

    async def fail(_ctx):
        return inner

    async def run_another(_ctx):
        result = await Pipeline("inner").with_stage("one", fail).run(continue_on_failure=True)
        raise result.failures["one"].error

    with pytest.raises(StageFailedError) as caught:
        await run_stage(run_another)
    assert caught.value.output is inner


async def test_cleanup_that_raises_comes_before_what_was_returned():
    class Stage:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *args):
            raise OddError

        async def execute(self, ctx):
            return StageOutput.fail("bad")

    with pytest.raises(OddError):
        await run_stage(Stage)


async def test_a_wrong_return_is_an_error_that_names_the_stage():
    async def reply(_ctx):
        return 3

    with pytest.raises(StageReturnTypeError, match=r"^pipeline 'run_stage', stage 'score': it returned 3, of type int"):
        await run_stage(reply, name="score")


async def test_a_plain_function_that_returns_a_coroutine_is_refused_as_in_a_run():
    def reply(ctx):
        return work(ctx)

    with pytest.raises(StageReturnTypeError, match="returned the coroutine 'work'"):
        await run_stage(reply)


async def test_an_undeclared_dependency_is_an_error_as_in_a_run():
    async def ask(ctx):
        return ctx.inputs.output("fetch")

    with pytest.raises(UndeclaredDependencyError, match="'fetch' is not a dependency"):
        await run_stage(ask, inputs={"other": {}})


async def test_a_nursery_left_open_is_an_error_as_in_a_run():
    async def leave(_ctx):
        nursery = await trio.open_nursery().__aenter__()
        nursery.start_soon(trio.sleep_forever)
        return StageOutput.cancel("enough")

    with pytest.raises(NurseryLeftOpenError):
        await run_stage(leave)


async def test_a_timeout_is_raised(autojump_clock):
    async def sleep(_ctx):
        await trio.sleep(10)

    with pytest.raises(StageTimeoutError, match="it ran into its timeout of 2 s") as caught:
        await run_stage(sleep, timeout=2)
    assert caught.value.seconds == 2
    assert trio.current_time() == 2


async def test_a_fan_out_raises_what_it_raises_in_a_run():
    async def refuse(_ctx):
        return StageOutput.fail("bad")

    for worker, cause in ((fail_below, OddError), (refuse, StageFailedError)):
        with pytest.raises(ItemFailedError, match="item 0") as caught:
            await run_stage(FanOutLimiterStage(worker, items=[1], limiter=Limiter(1)))
        assert isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": 3}, r"inputs must be a mapping of stage to output, not 3; write inputs={'fetch': {...}}"),
        (
            {"inputs": {"a": 3}},
            "pipeline 'run_stage', stage 'a': an override must be a StageOutput or a mapping, not 3",
        ),
        (
            {"inputs": {"a": StageOutput.fail("x")}},
            "pipeline 'run_stage', stage 'a': an override must be an output of status ok or skip, not fail",
        ),
        (
            {"inputs": {"stage": {}}},
            "pipeline 'run_stage', stage 'stage': 'stage' depends on itself; remove it from its dependencies",
        ),
        ({"inputs": {3: {}}}, "pipeline 'run_stage': stage name must be a non-empty string, not 3"),
        ({"name": ""}, "pipeline 'run_stage': stage name must be a non-empty string, not ''"),
        (
            {"timeout": -1},
            "pipeline 'run_stage', stage 'stage': timeout must be a positive number of seconds, not -1",
        ),
        ({"kind": "gaurd"}, "pipeline 'run_stage', stage 'stage': kind must be one of .*; did you mean 'guard'?"),
        ({"config": 3}, "pipeline 'run_stage', stage 'stage': config must be a mapping, not 3"),
        ({"snapshot": 3}, "snapshot must be a ContextSnapshot or a mapping, not 3"),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_starts(options, message):
    started = []

    async def begin(_ctx):
        started.append(1)

    with pytest.raises(PipelineValidationError) as caught:
        await run_stage(begin, **options)
    assert not started
    pattern, text = message.partition(".*"), str(caught.value)
    assert text.startswith(pattern[0])
    assert text.endswith(pattern[2])


class Odd:
    kind = "odd"

    async def execute(self, ctx):
        """Return at once."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: 3, "pipeline 'run_stage', stage 'stage': runner 3 cannot run a stage; pass a stage class"),
        (lambda: work(None), "pipeline 'run_stage', stage 'stage': runner is a coroutine of 'work', already called"),
        (lambda: Odd, "pipeline 'run_stage', stage 'stage': kind must be one of transform"),
    ],
)
async def test_what_is_no_runner_is_refused_as_by_a_pipeline(make, message):
    with pytest.raises(PipelineValidationError) as caught:
        await run_stage(make())
    assert str(caught.value).startswith(message)
