"""What a stage sees: its inputs, its context, and every message about them."""

from __future__ import annotations

import pytest

from stageflow_actors import (
    Attempt,
    ContextSnapshot,
    RunIdentity,
    Stage,
    StageContext,
    StageFailure,
    StageInputs,
    StageKind,
    StageOutput,
    StageState,
)
from stageflow_actors._bag import OutputBag
from stageflow_actors._policy import CANCELLED, FAILED, ISOLATED, OK, RUNNING, SKIPPED
from stageflow_actors.errors import MissingKeyError, NoOutputError, UndeclaredDependencyError

NAMES = ("fetch", "other", "told", "bad", "below", "cancelled", "undeclared")
BOOM = StageFailure("bad", ValueError("boom"), (Attempt(1, 0.0, 1.0, None),))


@pytest.fixture
def bag():
    """A run that has ended every way a dependency can end."""
    made = OutputBag(list(NAMES), 0.0)
    made.states[:] = bytes([OK, OK, SKIPPED, FAILED, ISOLATED, CANCELLED, OK])
    made.outputs[0] = StageOutput.ok(rows=[1, 2], first="fetch")
    made.outputs[1] = StageOutput.ok(total=2, first="other")
    made.outputs[2] = StageOutput.skip("none today", {"why": "holiday"})
    made.outputs[6] = StageOutput.ok(secret=1)
    made.failures[3] = BOOM
    made.parents[4] = 3
    made.reasons[5] = "the run ended while it ran"
    return made


def look(bag, *names):
    return StageInputs(bag, "join", names, tuple(NAMES.index(name) for name in names))


@pytest.fixture
def inputs(bag):
    return look(bag, "other", "fetch", "told", "bad", "below", "cancelled")


WIDE = ("other", "fetch", "told", "bad", "below", "cancelled", "other2", "fetch2", "bad2")


@pytest.fixture(params=["few", "many"])
def either(request, bag):
    """Inputs of a few dependencies and of many, which are looked up in another way."""
    names = WIDE[:6] if request.param == "few" else WIDE
    return StageInputs(bag, "join", names, tuple(NAMES.index(name.rstrip("2")) for name in names))


# Reading


def test_output_gives_the_whole_output(either, bag):
    assert either.output("fetch") is bag.outputs[0]
    assert either.output("told").reason == "none today"


def test_get_from(either):
    assert either.get_from("fetch", "rows") == (1, 2)
    assert either.get_from("fetch", "missing") is None
    assert either.get_from("fetch", "missing", 7) == 7
    assert either.get_from("told", "why") == "holiday"
    assert either.get_from("bad", "rows", 7) == 7
    assert either.get_from("below", "rows") is None


def test_require_from(either):
    assert either.require_from("fetch", "rows") == (1, 2)
    assert either.require_from("told", "why") == "holiday"


def test_get_looks_in_declaration_order(bag):
    assert look(bag, "fetch", "other").get("first") == "fetch"
    assert look(bag, "other", "fetch").get("first") == "other"
    assert look(bag, "bad", "below", "fetch").get("first") == "fetch"
    assert look(bag, "fetch", "other").get("total") == 2
    assert look(bag, "fetch").get("total") is None
    assert look(bag, "fetch").get("secret", "not mine") == "not mine"
    assert look(bag).get("first", 0) == 0


def test_a_value_that_is_none_is_found():
    bag = OutputBag(["a", "b"], 0.0)
    bag.outputs[:] = [StageOutput.ok(x=None), StageOutput.ok(x=1)]
    inputs = StageInputs(bag, "join", ("a", "b"), (0, 1))
    assert inputs.get("x", "default") is None
    assert inputs.get_from("a", "x", "default") is None
    assert inputs.require_from("a", "x") is None


def test_outputs_are_in_declaration_order_and_read_only(inputs):
    assert list(inputs.outputs) == ["other", "fetch", "told"]
    assert inputs.outputs["fetch"].data["rows"] == (1, 2)
    assert inputs.outputs is inputs.outputs
    for change in ("__setitem__", "clear", "pop", "update"):
        assert not hasattr(inputs.outputs, change)


def test_state_and_failure(either):
    states = {name: either.state(name) for name in WIDE[:6]}
    assert states == {
        "other": StageState.OK,
        "fetch": StageState.OK,
        "told": StageState.SKIPPED,
        "bad": StageState.FAILED,
        "below": StageState.ISOLATED,
        "cancelled": StageState.CANCELLED,
    }
    assert either.failure("bad") is BOOM
    assert either.failure("fetch") is None
    assert either.failure("below") is None


def test_it_is_a_collection_of_names(inputs):
    assert list(inputs) == ["other", "fetch", "told", "bad", "below", "cancelled"]
    assert len(inputs) == 6
    assert "fetch" in inputs
    assert "undeclared" not in inputs
    assert 5 not in inputs
    assert repr(inputs) == "<StageInputs of 'join': 6 dependencies>"


def test_renamed_dependencies_answer_to_their_local_names(bag):
    inputs = StageInputs(bag, "sub/join", ("mine",), (0,))
    assert inputs.require_from("mine", "first") == "fetch"
    with pytest.raises(UndeclaredDependencyError):
        inputs.output("fetch")


# Messages


def told(call):
    with pytest.raises((LookupError, RuntimeError)) as caught:
        call()
    return str(caught.value)


READERS = ["output", "state", "failure", "get_from", "require_from"]


def read(inputs, reader, stage):
    method = getattr(inputs, reader)
    return method(stage, "rows") if reader.endswith("from") else method(stage)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        ("fetsch", "did you mean 'fetch'?"),
        ("undeclared", "declare it: dependencies=[..., 'undeclared']"),
        ("", "declare it: dependencies=[..., '']"),
        (5, "declare it: dependencies=[..., 5]"),
    ],
)
def test_an_undeclared_dependency(either, reader, stage, hint):
    with pytest.raises(UndeclaredDependencyError) as caught:
        read(either, reader, stage)
    assert str(caught.value) == f"stage 'join': {stage!r} is not a dependency; {hint}"
    assert caught.value.stage == "join"
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("reader", ["output", "require_from"])
@pytest.mark.parametrize(
    ("stage", "state"),
    [
        ("bad", "failed (ValueError: boom)"),
        ("below", "isolated (below 'bad')"),
        ("cancelled", "cancelled (the run ended while it ran)"),
    ],
)
def test_a_dependency_without_an_output(either, reader, stage, state):
    with pytest.raises(NoOutputError) as caught:
        read(either, reader, stage)
    hint = "get_from(..., default) does without it, state(...) tells"
    assert str(caught.value) == f"stage 'join': dependency {stage!r} has no output: {state}; {hint}"
    assert isinstance(caught.value, KeyError)


def test_a_dependency_that_was_skipped_without_a_word(bag):
    bag.outputs[2] = None
    assert "dependency 'told' has no output: skipped;" in told(lambda: look(bag, "told").output("told"))


@pytest.mark.parametrize(
    ("stage", "key", "message"),
    [
        ("fetch", "row", "the output of 'fetch' has no key 'row', only 'rows', 'first'; did you mean 'rows'?"),
        ("fetch", "zzz", "the output of 'fetch' has no key 'zzz', only 'rows', 'first'"),
        ("told", "rows", "the output of 'told' has no key 'rows', only 'why'"),
    ],
)
def test_a_missing_key(either, stage, key, message):
    with pytest.raises(MissingKeyError) as caught:
        either.require_from(stage, key)
    assert str(caught.value) == f"stage 'join': {message}"
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    ("data", "rest"),
    [
        ({}, ", it has no data"),
        ({1: 2}, ", only 1"),
        ({1: 2, "a": 3, None: 4}, ", only 1, 'a', None"),
        (dict.fromkeys(range(500), 0), ", only 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 490 more"),
    ],
)
def test_a_missing_key_in_data_of_any_kind(bag, data, rest):
    bag.outputs[0] = StageOutput.ok(data)
    message = told(lambda: look(bag, "fetch").require_from("fetch", "zzzz"))
    assert message == f"stage 'join': the output of 'fetch' has no key 'zzzz'{rest}"


CLOSED = "stage 'join' has ended, and with it its inputs; read what you need while it runs"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("stage", ["fetch", "undeclared"])
def test_inputs_close_with_the_stage(either, reader, stage):
    either._close()
    assert told(lambda: read(either, reader, stage)) == CLOSED


def test_closed_inputs_keep_what_was_read(inputs):
    outputs = inputs.outputs
    inputs._close()
    assert outputs["fetch"].data["rows"] == (1, 2)
    assert told(lambda: inputs.get("first")) == CLOSED
    assert len(inputs) == 6


def test_closed_inputs_give_no_outputs_that_nobody_had_read(inputs):
    inputs._close()
    assert told(lambda: inputs.outputs) == CLOSED


@pytest.mark.parametrize("name", ["outputs", "new", "stage"])
def test_inputs_cannot_be_extended(inputs, name):
    with pytest.raises(AttributeError):
        setattr(inputs, name, {})


# The context


def make_context(bag, emit=None, config=None):
    snapshot = ContextSnapshot(data={"a": 1}).stamped(RunIdentity("run-1", None))
    return StageContext("join", snapshot, look(bag, "fetch"), config or {}, 2, emit)


def test_what_a_context_holds(bag):
    ctx = make_context(bag, config={"x": 1})
    assert ctx.snapshot.data == {"a": 1}
    assert ctx.snapshot.run_id == "run-1"
    assert ctx.inputs.get("first") == "fetch"
    assert ctx.config == {"x": 1}
    assert ctx.stage_name == "join"
    assert ctx.attempt == 2
    assert repr(ctx) == "<StageContext of 'join', attempt 2, run run-1>"


def test_the_idempotency_key_is_the_same_for_every_attempt(bag):
    ctx = make_context(bag)
    again = StageContext("join", ctx.snapshot, ctx.inputs, {}, 3, None)
    other = StageContext("other", ctx.snapshot, ctx.inputs, {}, 2, None)
    assert ctx.idempotency_key == again.idempotency_key == "run-1/join/1"
    assert other.idempotency_key != ctx.idempotency_key


def test_emitting(bag):
    heard = []
    make_context(bag, lambda *event: heard.append(event)).emit({"done": 1})
    assert heard == [("join", 2, {"done": 1})]


@pytest.mark.parametrize("name", ["snapshot", "inputs", "config", "stage_name", "attempt", "idempotency_key", "new"])
def test_a_context_cannot_be_changed(bag, name):
    with pytest.raises(AttributeError):
        setattr(make_context(bag), name, "evil")


# Kinds and the protocol


def test_kinds():
    assert [kind.value for kind in StageKind] == ["transform", "enrich", "route", "guard", "work", "agent"]
    assert StageKind("work") is StageKind.WORK


def test_the_protocol_can_be_checked_at_run_time():
    class Yes:
        async def execute(self, ctx):
            """Do nothing."""

    assert isinstance(Yes(), Stage)
    assert issubclass(Yes, Stage)
    assert not isinstance(object(), Stage)


def test_running_states_are_not_what_a_dependency_can_have(bag):
    """A view is made when all dependencies have ended; should one not have, it says so all the same."""
    bag.states[3] = RUNNING
    bag.failures.clear()
    assert "dependency 'bad' has no output: running;" in told(lambda: look(bag, "bad").output("bad"))
