"""Nothing that a stage or the caller does to what it handed out or was given changes what another sees."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stageflow_actors import ContextSnapshot, Pipeline, StageOutput, Supervisor, Trigger

from .values import is_frozen, mappings, picture, refuse_all_changes, spoil

REPLIES = st.sampled_from(["mapping", "ok", "fields", "skip", "route"])


def reply(how, data):
    """Return data as a stage would."""
    return {
        "mapping": lambda: data,
        "ok": lambda: StageOutput.ok(data),
        "fields": lambda: StageOutput.ok(**data),
        "skip": lambda: StageOutput.skip("why", data),
        "route": lambda: StageOutput.route("label", data),
    }[how]()


def look(ctx):
    """Return a picture of everything that a stage is given."""
    return (
        picture(ctx.snapshot.data),
        picture(ctx.snapshot.metadata),
        picture(ctx.snapshot.extensions),
        picture(ctx.config),
        [(name, picture(output.data), output.label, output.status) for name, output in ctx.inputs.outputs.items()],
    )


def attack(ctx):
    """Try to change everything that a stage is given; return how often it was refused."""
    refused = sum(
        refuse_all_changes(part)
        for part in (ctx.snapshot.data, ctx.snapshot.metadata, ctx.snapshot.extensions, ctx.config)
    )
    for output in ctx.inputs.outputs.values():
        refused += refuse_all_changes(output.data)
        with pytest.raises(AttributeError):
            output.data = {}
        with pytest.raises(AttributeError):
            output.status = None
    with pytest.raises(TypeError):
        ctx.inputs.outputs["made"] = StageOutput.ok()
    for name in ("data", "metadata", "extensions", "input_text", "identity"):
        with pytest.raises(AttributeError):
            setattr(ctx.snapshot, name, {})
    for name in ("snapshot", "inputs", "config", "stage_name", "attempt", "idempotency_key"):
        with pytest.raises(AttributeError):
            setattr(ctx, name, {})
    return refused


@given(
    produced=st.lists(st.tuples(REPLIES, mappings()), min_size=1, max_size=3),
    snapshot=mappings(),
    config=mappings(),
    given_data=mappings(),
    threaded=st.booleans(),
)
def test_no_stage_changes_what_another_sees(produced, snapshot, config, given_data, threaded):
    """Producers keep what they returned and spoil it later; vandals try everything; witnesses look before and after."""
    extensions = [snapshot]
    kept = [data for _, data in produced] + [snapshot, config, given_data, extensions]
    expected = [picture(data) for _, data in produced] + [picture(given_data)]
    seen = []
    pictures = []

    async def produce(number, ctx):
        return reply(*produced[number])

    async def witness(ctx):
        seen.append(look(ctx))
        pictures.append([picture(output.data) for output in ctx.inputs.outputs.values()])

    async def vandal(ctx):
        for value in kept:
            spoil(value)
        attack(ctx)

    def vandal_in_thread(ctx):
        for value in kept:
            spoil(value)
        attack(ctx)

    pipeline = Pipeline("p")
    names = [f"p{number}" for number in range(len(produced))]
    for number, name in enumerate(names):
        pipeline = pipeline.with_stage(name, partial(produce, number))
    names.append("given")
    pipeline = pipeline.with_stage("given", partial(produce, 0))
    for name, runner, before in (
        ("before", witness, ()),
        ("vandal", vandal_in_thread if threaded else vandal, ("before",)),
        ("after", witness, ("vandal",)),
    ):
        pipeline = pipeline.with_stage(
            name, runner, dependencies=[*names, *before], trigger=Trigger.ALL_DONE, config=config
        )
    message = ContextSnapshot(data=snapshot, metadata=snapshot, extensions=extensions)

    async def main():
        async with Supervisor() as supervisor:
            return await supervisor.run(pipeline, message, overrides={"given": given_data})

    result = trio.run(main)
    before, after = seen
    assert before[:4] == after[:4]
    assert before[4] == after[4][: len(names)]
    assert pictures[0] == expected
    assert [picture(result.data(name)) for name in names] == expected
    refuse_results(result, names)


def refuse_results(result, names):
    """What the caller gets is as frozen as what stages see."""
    for name in names:
        assert is_frozen(result.data(name))
        refuse_all_changes(result.data(name))
    for mapping in (result, result.states, result.failures, result.timings):
        with pytest.raises(TypeError):
            mapping["made"] = None
    with pytest.raises(AttributeError):
        result.ended.reason = "made"
    with pytest.raises(AttributeError):
        result.ledger.accepted = 7


@given(data=mappings(), message=mappings())
def test_what_a_caller_changes_after_the_start_is_too_late(data, message):
    expected = picture(data), picture(message)
    seen = []

    async def look_later(ctx):
        await trio.lowlevel.checkpoint()
        seen.append((picture(ctx.config["data"]), picture(ctx.snapshot.data)))

    pipeline = Pipeline("p").with_stage("a", look_later, config={"data": data})
    pipeline = pipeline.with_stage("b", look_later, dependencies="a", config={"data": data})

    async def main():
        async with Supervisor() as supervisor:
            run = supervisor.start(pipeline, message)
            spoil(message)
            spoil(data)
            await run.result()

    trio.run(main)
    assert seen == [expected] * 2


@given(data=mappings())
def test_what_a_stage_emits_is_frozen_at_that_moment(data):
    expected = picture(data)

    async def emit(ctx):
        ctx.emit(data)
        spoil(data)

    async def main():
        async with Supervisor() as supervisor:
            run = supervisor.start(Pipeline("p").with_stage("a", emit))
            async with run.events() as events:
                return [event.event async for event in events if hasattr(event, "event")]

    (event,) = trio.run(main)
    assert picture(event) == expected
    assert is_frozen(event)


@given(data=mappings())
def test_inputs_close_when_the_stage_ends(data):
    """Kept in a closure, a context keeps no way into the run."""
    kept = []

    async def give(ctx):
        return data

    async def keep(ctx):
        kept.append(ctx)

    result = trio.run(Pipeline("p").with_stage("a", give).with_stage("b", keep, dependencies="a").run)
    (ctx,) = kept
    for use in (
        lambda: ctx.inputs.output("a"),
        lambda: ctx.inputs.get("x"),
        lambda: ctx.inputs.state("a"),
        lambda: ctx.inputs.outputs,
    ):
        with pytest.raises(RuntimeError, match="ended"):
            use()
    ctx.emit("nobody hears it")
    assert picture(result.data("a")) == picture(data)
