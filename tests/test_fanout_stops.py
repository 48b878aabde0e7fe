"""Dynamic fan-outs that end early: whatever they are at, nothing is left, and everything is accounted for."""

from __future__ import annotations

import contextvars
import signal

import pytest
import trio
from fanout_cases import Taken, counts_of, ends, fan, follow, forever, held, ledger_of, nothing, run, second

from stageflow_actors import (
    Backoff,
    Limiter,
    Pipeline,
    PipelineFailedError,
    Restart,
    RunEnding,
    StageState,
    StageTimeoutError,
    Supervisor,
    Trigger,
    events,
)
from stageflow_actors.errors import ItemFailedError

LONG = Restart(backoff=Backoff(initial=100.0, maximum=100.0, jitter=0.0))
SHORT = Restart(backoff=Backoff(initial=1.0, factor=1.0, jitter=0.0), max_restarts=1000)


async def fail(ctx):
    raise ConnectionError("down")


async def never(inputs):
    yield 0
    await trio.sleep_forever()


async def wait_in_cleanup(ctx):
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)


# What a fan-out may be at: its worker, its items, the limiter, how many slots of it others hold, and options.
PHASES = {
    "all items run": (forever, range(3), 3, 0, {}),
    "more are to come": (forever, range(100), 3, 0, {}),
    "one waits for a slot": (forever, range(3), 2, 1, {}),
    "none has one": (forever, range(3), 2, 2, {}),
    "all back off": (fail, range(2), 3, 0, {"restart": LONG}),
    "no room for more": (fail, range(100), 3, 0, {"restart": LONG}),
    "restarted again and again": (fail, range(100), 3, 0, {"restart": SHORT}),
    "its source waits": (second, never, 3, 0, {}),
    "with a timeout for each": (forever, range(100), 3, 0, {"timeout": 50}),
    "cleaning up takes time": (wait_in_cleanup, range(100), 3, 0, {}),
}


def begin(phase, **stage):
    worker, items, limit, taken, options = PHASES[phase]
    limiter = Limiter(limit)
    return fan(worker, items, limiter=limiter, stage=stage, **options), limiter, taken


class Hold:
    """Holds so many slots of a limiter."""

    def __init__(self, limiter, count):
        self.slots = [limiter.slot() for _ in range(count)]

    async def __aenter__(self):
        for slot in self.slots:
            await slot.__aenter__()

    async def __aexit__(self, *exc):
        for slot in self.slots:
            await slot.__aexit__(*exc)


async def check_empty(limiter, taken):
    """Everything is given back but what others hold, and a newcomer is admitted at once."""
    assert held(limiter) == (taken, 0)
    if taken < limiter.max_concurrency:
        with trio.fail_after(0.1):
            async with limiter.slot():
                pass


def check_stopped(result, seen, state=StageState.CANCELLED):
    """What was told of items ends once each, and is in the ledger."""
    assert result.states == {"f": state}
    items = ends(seen)
    assert len([e for e in seen if isinstance(e, events.StageEnded) and e.item is not None]) == len(items)
    assert sorted(items) == list(range(len(items)))
    kinds = [kind for kind, _ in items.values()]
    stopped = state is StageState.CANCELLED
    assert kinds.count("ok") + kinds.count("cancelled") == len(kinds)
    assert ledger_of(result) == (
        len(items) + 1,
        kinds.count("ok"),
        0 if stopped else 1,
        kinds.count("cancelled") + (1 if stopped else 0),
    )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("way", ["handle", "run timeout", "scope", "stage timeout"])
async def test_stopped_at_whatever_it_is_at(phase, way, autojump_clock):
    stage = {"timeout": 5.5} if way == "stage timeout" else {}
    pipeline, limiter, taken = begin(phase, **stage)
    async with Supervisor() as supervisor, Hold(limiter, taken):
        started = supervisor.start(pipeline, continue_on_failure=True, timeout=5.5 if way == "run timeout" else None)
        stream = started.events()
        with trio.move_on_after(5.5 if way == "scope" else 1000):
            if way == "handle":
                await trio.sleep(5.5)
                started.cancel("enough")
            result = await started.result()
        if way == "scope":
            started.cancel("enough")
            result = await started.result()
        seen = [event async for event in stream]
        await check_empty(limiter, taken)
    check_stopped(result, seen, StageState.FAILED if way == "stage timeout" else StageState.CANCELLED)
    assert result.duration == (7.5 if phase.startswith("cleaning") else 5.5)
    if way == "stage timeout":
        assert isinstance(result.failures["f"].error, StageTimeoutError)
        assert str(result.failures["f"].error) == "pipeline 'p', stage 'f': it ran into its timeout of 5.5 s"
    else:
        assert result.ended.ending is (RunEnding.TIMED_OUT if way == "run timeout" else RunEnding.CANCELLED)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_sibling_that_fails_fast_cancels_it(phase, autojump_clock):
    async def fail_later(ctx):
        await trio.sleep(5.5)
        raise ValueError("boom")

    pipeline, limiter, taken = begin(phase)
    pipeline = pipeline.with_stage("sibling", fail_later).with_stage("after", nothing, dependencies="f")
    async with Hold(limiter, taken):
        result, _ = await follow(pipeline, continue_on_failure=False)
        await check_empty(limiter, taken)
    assert result.states == {
        "f": StageState.CANCELLED,
        "sibling": StageState.FAILED,
        "after": StageState.CANCELLED,
    }
    ledger_of(result)


@pytest.mark.parametrize("phase", PHASES)
async def test_the_callers_cancellation_passes_through(phase, autojump_clock):
    pipeline, limiter, taken = begin(phase)
    async with Hold(limiter, taken):
        with trio.move_on_after(5.5) as scope:
            await run(pipeline)
        assert scope.cancelled_caught
        await check_empty(limiter, taken)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_stage_timeout_is_restarted_by_the_stages_policy(phase, autojump_clock):
    restart = Restart(max_restarts=1, backoff=Backoff(initial=1.0, jitter=0.0))
    pipeline, limiter, taken = begin(phase, timeout=5.5, restart=restart)
    async with Hold(limiter, taken):
        result = await run(pipeline)
        await check_empty(limiter, taken)
    first, last = result.failures["f"].attempts
    assert isinstance(first.error, StageTimeoutError)
    assert (first.number, last.number, last.started - first.ended) == (1, 2, 1.0)
    ledger_of(result)


async def test_one_cancelled_before_its_first_step_runs_nothing(autojump_clock):
    source = Taken(10)
    async with Supervisor() as supervisor:
        started = supervisor.start(fan(forever, source.generate))
        started.cancel("at once")
        result = await started.result()
    assert source.taken == 0
    assert result.states == {"f": StageState.CANCELLED}
    ledger_of(result)


async def test_items_that_all_ended_although_cancelled_are_an_output(autojump_clock):
    async def stubborn(ctx):
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        return {"done": True}

    result, seen = await follow(fan(stubborn, range(3)), timeout=5)
    assert result.states == {"f": StageState.OK}
    assert counts_of(result) == (3, 3, 0, 0)
    assert result.ended.ending is RunEnding.TIMED_OUT
    assert sorted(e.item for e in seen if isinstance(e, events.StageOverran) and e.item is not None) == [0, 1, 2]


async def test_one_that_was_cancelled_among_others_that_ended_is_no_output(autojump_clock):
    async def work(ctx):
        with trio.CancelScope(shield=ctx.snapshot.data["index"] > 0):
            await trio.sleep(10)

    result, seen = await follow(fan(work, range(3)), timeout=5)
    assert result.states == {"f": StageState.CANCELLED}
    assert {position: kind for position, (kind, _) in ends(seen).items()} == {0: "cancelled", 1: "ok", 2: "ok"}
    assert ledger_of(result) == (4, 2, 0, 2)


async def test_what_failed_by_itself_comes_before_the_cancellation(autojump_clock):
    async def work(ctx):
        if ctx.snapshot.data["index"] == 0:
            await trio.sleep(4)
            raise ValueError("boom")
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    result, _ = await follow(fan(work, range(2)), timeout=5)
    error = result.failures["f"].error
    assert isinstance(error, ItemFailedError)
    assert (error.index, str(error.__cause__)) == (0, "boom")
    assert ledger_of(result) == (3, 1, 2, 0)


async def test_what_depends_on_it_is_isolated_or_runs(autojump_clock):
    pipeline = fan(fail, range(3)).with_stage("after", nothing, dependencies="f")
    pipeline = pipeline.with_stage("report", nothing, dependencies="f", trigger=Trigger.ALL_DONE)
    result = await run(pipeline)
    assert result.states == {"f": StageState.FAILED, "after": StageState.ISOLATED, "report": StageState.OK}
    assert list(result.cause_chain("after")) == ["after", "f"]


async def test_an_error_in_the_cleanup_of_an_async_generator_fails_the_stage(autojump_clock):
    async def source(inputs):
        try:
            for number in range(100):
                yield number
        finally:
            raise OSError("cannot close")

    result = await run(fan(second, source), timeout=2.5)
    assert type(result.failures["f"].error) is OSError
    ledger_of(result)


async def test_the_source_and_the_items_start_from_the_runs_context(autojump_clock):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    async def other(ctx):
        variable.set("of another stage")

    async def work(ctx):
        seen.append(variable.get())
        variable.set(ctx.stage_name)

    def source(inputs):
        for number in range(5):
            seen.append(variable.get())
            yield number

    variable.set("of the caller")
    await run(fan(work, source).with_stage("other", other))
    assert seen == ["of the caller"] * 10


def test_an_interrupt_in_an_item_ends_the_run():
    limiter = Limiter(2)

    async def work(ctx):
        if ctx.snapshot.data["index"] == 1:
            signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    handle = None

    async def main():
        nonlocal handle
        async with Supervisor() as supervisor:
            handle = supervisor.start(fan(work, range(10), limiter=limiter))

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    ledger_of(handle.partial())
    assert held(limiter) == (0, 0)


async def test_fail_fast_keeps_what_other_stages_gave(autojump_clock):
    pipeline = Pipeline("p").with_stage("a", second)
    runner = fan(fail, range(3)).stages[0].runner
    with pytest.raises(PipelineFailedError) as caught:
        await pipeline.with_stage("f", runner, dependencies="a").run()
    assert caught.value.result.states == {"a": StageState.OK, "f": StageState.FAILED}
    assert ledger_of(caught.value.result)[0] == 5


async def test_items_that_were_sent_off_and_have_not_begun_do_not_run():
    began = []

    async def work(ctx):
        began.append(ctx.stage_name)
        handle.cancel("enough")

    async with Supervisor() as supervisor:
        handle = supervisor.start(fan(work, range(10), limiter=Limiter(10)))
        result = await handle.result()
    assert len(began) == 1
    assert ledger_of(result)[0] == 11
    assert result.ledger.cancelled == 10
