"""Dynamic fan-outs: where the items come from, what a worker sees, and what comes out."""

from __future__ import annotations

import random
from functools import partial

import pytest
import trio
from fanout_cases import Taken, below, counts_of, echo, fan, follow, forever, held, ledger_of, run, second, upstream
from gauge import Gauge

from stageflow_actors import (
    ContextSnapshot,
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    Supervisor,
    events,
)
from stageflow_actors.errors import NotFreezableError, StageReturnTypeError


def items_of(result):
    return [found["item"] for found in result.data("f")["results"]]


# Where items come from


class Once:
    """An async iterable that is no generator."""

    def __init__(self, count):
        self.left = list(range(count))

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


def generate(inputs):
    yield from inputs.require_from("up", "items")


async def generate_async(inputs):
    for item in inputs.require_from("up", "items"):
        await trio.lowlevel.checkpoint()
        yield item


class Maker:
    def __call__(self, inputs):
        return inputs.require_from("up", "items")


SOURCES = {
    "pair": lambda: ("up", "items"),
    "list": lambda: [0, 1, 2],
    "tuple": lambda: (0, 1, 2),
    "range": lambda: range(3),
    "set": lambda: dict.fromkeys([0, 1, 2]).keys(),
    "iterator": lambda: iter([0, 1, 2]),
    "generator": lambda: (number for number in range(3)),
    "async iterator": lambda: Once(3),
    "async generator": lambda: Taken(3).generate_async(),
    "function of a list": lambda: lambda inputs: list(inputs.require_from("up", "items")),
    "function of an iterator": lambda: lambda inputs: iter(range(3)),
    "function of an async iterator": lambda: lambda inputs: Once(3),
    "generator function": lambda: generate,
    "async generator function": lambda: generate_async,
    "partial": lambda: partial(lambda start, inputs: range(start, 3), 0),
    "callable": Maker,
}


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("source", SOURCES)
async def test_every_kind_of_source(source, collect):
    result = await run(below(echo, SOURCES[source](), collect=collect))
    assert result.ok
    assert counts_of(result) == (3, 3, 0, 0)
    if collect:
        assert items_of(result) == [0, 1, 2]
        assert result.data("f")["failures"] == {}
    else:
        assert set(result.data("f")) == {"count", "ok", "skipped", "failed"}
    assert ledger_of(result) == (5, 5, 0, 0)


async def test_two_things_that_are_not_both_strings_are_items():
    for items in ((1, 2), ("a", 2), (None, "b")):
        assert items_of(await run(fan(echo, items))) == list(items)
    assert FanOutLimiterStage(echo, items=(1, 2), limiter=Limiter(1)).source is None
    assert FanOutLimiterStage(echo, items=["up", "items"], limiter=Limiter(1)).source is None
    assert FanOutLimiterStage(echo, items=("up", "items"), limiter=Limiter(1)).source == "up"


async def test_a_memory_channel(autojump_clock):
    send, receive = trio.open_memory_channel(0)

    async def feed():
        async with send:
            for number in range(10):
                await trio.sleep(1)
                await send.send(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        result = await run(fan(echo, receive))
    assert items_of(result) == list(range(10))
    assert result.duration == 10.0


async def test_an_iterator_serves_one_run():
    pipeline = fan(echo, iter([1, 2]))
    assert items_of(await run(pipeline)) == [1, 2]
    again = await run(pipeline)
    assert isinstance(again.failures["f"].error, StageReturnTypeError)
    assert str(again.failures["f"].error) == (
        "pipeline 'p', stage 'f': its items were an iterator, which is used up; "
        "give a function that makes one: items=lambda inputs: ..."
    )
    assert ledger_of(again) == (1, 0, 1, 0)


async def test_anything_else_serves_any_number_of_runs():
    for items in ([1, 2], Taken(3).generate, Taken(3).generate_async):
        pipeline = fan(echo, items)
        assert items_of(await run(pipeline)) == items_of(await run(pipeline))


@pytest.mark.parametrize("source", ["generate", "generate_async"])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 10_000])
async def test_any_number_of_items(count, source):
    limiter = Limiter(3)
    result = await run(fan(echo, getattr(Taken(count), source), limiter=limiter))
    assert counts_of(result) == (count, count, 0, 0)
    assert items_of(result) == list(range(count))
    assert limiter.statistics().admitted == count
    assert held(limiter) == (0, 0)
    assert ledger_of(result) == (count + 1, count + 1, 0, 0)


# Lazily


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("name", ["generate", "generate_async"])
async def test_no_more_than_one_item_is_taken_ahead(name, limit, autojump_clock):
    source = Taken(20)
    rng = random.Random(limit)
    running = most = done = 0

    async def work(ctx):
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        assert source.taken <= done + limit + 1
        await trio.sleep(rng.choice([0.5, 1, 2]))
        assert source.taken <= done + limit + 1
        running -= 1
        done += 1

    assert (await run(fan(work, getattr(source, name), limiter=Limiter(limit)))).ok
    assert most == limit
    assert (source.taken, source.closed, done) == (20, 1, 20)


async def test_while_items_wait_for_a_slot_one_is_taken(autojump_clock):
    source = Taken(100)
    limiter = Limiter(4)
    async with Supervisor() as supervisor, limiter.slot(), limiter.slot():
        started = supervisor.start(fan(forever, source.generate, limiter=limiter))
        await trio.sleep(1)
        assert source.taken == 3
        assert held(limiter) == (4, 1)
        started.cancel("enough")
    assert (source.taken, source.closed) == (3, 1)
    assert held(limiter) == (0, 0)


async def test_a_slow_source_holds_up_nothing(autojump_clock):
    async def slowly(inputs):
        for number in range(3):
            await trio.sleep(10)
            yield number

    result, seen = await follow(fan(second, slowly))
    assert [event.at for event in seen if isinstance(event, events.StageEnded)] == [11.0, 21.0, 31.0, 31.0]
    assert result.duration == 31.0


async def test_an_async_generator_is_closed_at_its_end_and_when_the_stage_ends_early(autojump_clock):
    async def fail_at_second(ctx):
        if ctx.snapshot.data["item"] == 1:
            raise ValueError("boom")

    whole, broken, timed_out = Taken(3), Taken(1000), Taken(1000)
    assert (await run(fan(second, whole.generate_async))).ok
    assert not (await run(fan(fail_at_second, broken.generate_async))).ok
    assert not (await run(fan(second, timed_out.generate_async), timeout=1.5)).ok
    assert (whole.taken, whole.closed) == (3, 1)
    assert broken.taken < 6
    assert broken.closed == 1
    assert timed_out.taken == 7
    assert timed_out.closed == 1


async def test_an_async_iterator_of_someone_elses_is_left_open(autojump_clock):
    send, receive = trio.open_memory_channel(10)
    for number in range(10):
        send.send_nowait(number)

    async def fail(ctx):
        raise ValueError("boom")

    assert not (await run(fan(fail, receive, limiter=Limiter(1)))).ok
    assert receive.receive_nowait() == 2
    send.close()
    receive.close()


# What a worker sees


async def test_what_a_worker_sees(autojump_clock):
    seen = []

    async def look(ctx):
        data = ctx.snapshot.data
        up = ctx.inputs.require_from("up", "number")
        seen.append((ctx.stage_name, data["item"], data["index"], data["mine"], ctx.attempt, up, ctx.config["k"]))
        seen.append((ctx.idempotency_key, ctx.snapshot.run_id, ctx.snapshot.input_text, ctx.snapshot.metadata["m"]))
        ctx.emit({"saw": data["item"]})
        ctx.emit("again")
        kept.append(ctx)

    kept = []
    runner = FanOutLimiterStage(look, items=["x", "y"], limiter=Limiter(1))
    pipeline = Pipeline("p").with_stage("up", upstream).with_stage("f", runner, "work", "up", config={"k": 9})
    snapshot = ContextSnapshot(data={"mine": 1}, input_text="said", metadata={"m": 2})
    async with Supervisor() as supervisor:
        started = supervisor.start(pipeline, snapshot)
        stream = started.events()
        result = await started.result()
    kept[0].emit("too late")
    told = [event async for event in stream]
    name = result.run_id
    assert seen == [
        ("f[0]", "x", 0, 1, 1, 5, 9),
        (f"{name}/f[0]/1", name, "said", 2),
        ("f[1]", "y", 1, 1, 1, 5, 9),
        (f"{name}/f[1]/1", name, "said", 2),
    ]
    assert [(e.stage, e.attempt, e.event, e.item) for e in told if isinstance(e, events.StageEmitted)] == [
        ("f", 1, {"saw": "x"}, 0),
        ("f", 1, "again", 0),
        ("f", 1, {"saw": "y"}, 1),
        ("f", 1, "again", 1),
    ]


async def test_an_item_is_frozen_when_it_is_handed_out():
    given = [[1, [2]], {"a": [3]}]

    async def look(ctx):
        with pytest.raises(TypeError):
            ctx.snapshot.data["item"] = 1
        return {"item": ctx.snapshot.data["item"]}

    result = await run(fan(look, given))
    given[0][1].append(4)
    assert items_of(result) == [(1, (2,)), {"a": (3,)}]


async def test_an_item_that_cannot_be_frozen_fails_and_its_worker_is_not_called():
    loop = []
    loop.append(loop)
    result = await run(fan(echo, [1, loop, 2], on_item_failure="collect"))
    assert counts_of(result) == (3, 2, 0, 1)
    failure = result.data("f")["failures"][1]
    assert isinstance(failure.error, NotFreezableError)
    assert (failure.error.stage, failure.stage, len(failure.attempts)) == ("f[1]", "f[1]", 1)


# What comes out


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_results_are_in_the_order_of_the_items_whatever_ends_first(limit, autojump_clock):
    rng = random.Random(limit)
    times = [rng.choice([0, 0.5, 1, 3]) for _ in range(50)]

    async def work(ctx):
        await trio.sleep(times[ctx.snapshot.data["index"]])
        return {"item": ctx.snapshot.data["item"]}

    assert items_of(await run(fan(work, range(100, 150), limiter=Limiter(limit)))) == list(range(100, 150))


async def test_what_depends_on_it_sees_one_output(autojump_clock):
    async def total(ctx):
        return {"total": sum(one["item"] for one in ctx.inputs.require_from("f", "results"))}

    result = await run(fan(echo, range(5)).with_stage("total", total, dependencies="f"))
    assert result.data("total") == {"total": 10}
    assert isinstance(result.data("f")["results"], tuple)
    with pytest.raises(TypeError):
        result.data("f")["results"] = ()


async def test_as_many_at_once_as_the_limiter_admits(autojump_clock):
    gauge = Gauge()
    result = await run(fan(gauge, range(20), limiter=Limiter(4)))
    assert gauge.most == 4
    for start in range(0, 20, 4):  # those that start together do so in any order
        assert set(gauge.order[start : start + 4]) == {f"f[{number}]" for number in range(start, start + 4)}
    assert result.duration == 5.0


async def test_events_of_items(autojump_clock):
    _, seen = await follow(fan(second, range(3), limiter=Limiter(2)))
    told = [(type(e).__name__, e.item, e.at) for e in seen if not isinstance(e, events.RunEnded)]
    assert sorted(told[:3], key=str) == [("StageStarted", 0, 0.0), ("StageStarted", 1, 0.0), ("StageStarted", None, 0)]
    assert told[0] == ("StageStarted", None, 0)
    assert sorted(told[3:6], key=str) == [("StageEnded", 0, 1.0), ("StageEnded", 1, 1.0), ("StageStarted", 2, 1.0)]
    assert told[6:] == [("StageEnded", 2, 2.0), ("StageEnded", None, 2.0)]
    assert {event.stage for event in seen if hasattr(event, "stage")} == {"f"}


def test_its_repr_names_worker_and_limiter():
    stage = FanOutLimiterStage(Gauge, items=[1], limiter=Limiter(7))
    assert repr(stage) == f"<FanOutLimiterStage of {Gauge!r} behind <Limiter of 7: unused>>"
    assert stage.worker is Gauge
