"""An attempt as bytes, what becomes of it, and that back: without a process between them."""

from __future__ import annotations

import os
import threading
import traceback
from collections import defaultdict
from types import MappingProxyType

import attrs
import pytest

from stageflow_actors import ContextSnapshot, Directive, Restart, StageOutput
from stageflow_actors._actor import to_output
from stageflow_actors._bag import Attempt, OutputBag, StageFailure
from stageflow_actors._policy import STATES, StageState, direct
from stageflow_actors._stage import StageContext, StageInputs
from stageflow_actors.errors import (
    ContractError,
    NotPicklableError,
    RemoteError,
    RestartIntensityError,
    StageReturnTypeError,
)
from stageflow_actors.placement._parcel import fulfil, pack, pack_order, unpack_reply


def make_context(emitted=None, failures=(), outputs=()):
    """Return the context of a stage whose dependencies have failed with something, or have put something out."""
    names = tuple(f"d{number}" for number in range(len(failures) + len(outputs)))
    bag = OutputBag(names, 0.0)
    for number, failure in enumerate(failures):
        bag.failures[number] = failure
        bag.states[number] = STATES.index(StageState.FAILED)
    for number, output in enumerate(outputs, len(failures)):
        bag.outputs[number] = output
        bag.states[number] = STATES.index(StageState.OK)
    inputs = StageInputs(bag, "a", names, tuple(range(len(names))))
    emit = None if emitted is None else lambda _name, _attempt, event: emitted.append(event)
    return StageContext("a", ContextSnapshot(data={"n": 1}), inputs, {}, 1, emit)


def run(stage, ctx=None):
    """Run a stage as a worker does, and return what it returned, or raise what it raised."""
    ctx = ctx or make_context()
    return unpack_reply(fulfil(pack_order(stage, ctx, ())), ctx)


def fail(stage, ctx=None):
    """Return what a stage raised."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 (which, is what is asked)
        run(stage, ctx)
    return caught.value


# What a stage returns


def return_an_output(ctx):
    return StageOutput.route("left", n=ctx.snapshot.data["n"])


def return_a_default(ctx):
    return defaultdict(lambda: None, n=1)


def return_a_view(ctx):
    return MappingProxyType({"n": 1})


def return_nothing(ctx):
    """Return None."""


@pytest.mark.parametrize("stage", [return_an_output, return_a_default, return_a_view, return_nothing])
def test_what_a_stage_returns_is_what_it_is_in_the_loop(stage):
    assert to_output(run(stage)) == to_output(stage(make_context()))


def return_a_coroutine(ctx):
    async def helper():
        """Do nothing."""

    return helper()


def return_a_lambda(ctx):
    return lambda: None


def return_a_lock(ctx):
    return threading.Lock()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            return_a_coroutine,
            " the coroutine 'return_a_coroutine.<locals>.helper'; await it, or define the stage with `async def`",
        ),
        (return_a_lambda, ", of type function; return StageOutput.ok(...), a mapping or None"),
        (return_a_lock, ", of type lock; return StageOutput.ok(...), a mapping or None"),
    ],
)
def test_a_wrong_type_is_named_also_where_it_cannot_be_pickled(stage, message):
    error = fail(stage)
    assert type(error) is StageReturnTypeError
    assert str(error).startswith("it returned ")
    assert str(error).endswith(message)


class HTTPError(Exception):
    """Builds its message when it is made."""

    def __init__(self, status):
        self.status = status
        super().__init__(f"HTTP {status}")


def return_a_failure(ctx):
    return StageOutput.fail(HTTPError(500))


def test_the_error_of_an_output_is_made_as_it_was():
    error = run(return_a_failure).error
    assert (type(error), str(error), error.status) == (HTTPError, "HTTP 500", 500)


# What a stage raises


def fail_with_status(ctx):
    raise HTTPError(500)


def test_an_error_that_builds_its_message_has_it_once():
    error = fail(fail_with_status)
    assert (str(error), error.args, error.status) == ("HTTP 500", ("HTTP 500",), 500)


def dig(depth):
    if not depth:
        raise ValueError("deep")
    dig(depth - 1)


def fail_in_depth(ctx):
    dig(800)


def test_an_error_from_the_depth_is_restarted_as_one_from_the_surface():
    error = fail(fail_in_depth)
    assert direct(Restart(max_restarts=1, on=ValueError), error) is Directive.RESTART


def test_an_error_shows_no_frames_of_the_worker():
    error = fail(fail_with_status)
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names == ["fail", "run", "unpack_reply", "_raise", "fail_with_status"]


class StubbornError(Exception):
    """Lets nothing of it be set."""

    def __setattr__(self, name, value):
        raise SystemExit(9)


def fail_stubbornly(ctx):
    raise StubbornError("no")


def test_an_error_that_lets_nothing_of_it_be_set_comes_back():
    error = fail(fail_stubbornly)
    assert (type(error), error.args) == (StubbornError, ("no",))


def exit_politely(ctx):
    raise SystemExit(3)


def test_what_a_stage_exits_with_comes_back():
    error = fail(exit_politely)
    assert (type(error), error.code) == (SystemExit, 3)


# Values whose own code raises


class Trap:
    """Raises when it is pickled, or when it is read."""

    def __init__(self, raises, when):
        self.raises, self.when = raises, when

    def __reduce__(self):
        if self.when == "written":
            raise self.raises
        return spring, (self.raises,)


def spring(raises):
    raise raises


traps = {"raises": SystemExit(9), "when": "written"}


def return_a_trap(ctx):
    return {"trap": Trap(**traps)}


def emit_a_trap(ctx):
    ctx.emit("before")
    ctx.emit(Trap(**traps))
    ctx.emit("after")
    return {"fine": True}


def emit_a_trap_and_fail(ctx):
    emit_a_trap(ctx)
    raise ValueError("the reason")


HINT = "what goes to another process is data, and functions and classes of modules"


@pytest.mark.parametrize("raises", [SystemExit(9), KeyboardInterrupt(), RuntimeError("9")])
@pytest.mark.parametrize("stage", [return_a_trap, emit_a_trap])
def test_what_a_value_raises_when_it_is_pickled_is_not_what_the_stage_raises(monkeypatch, stage, raises):
    monkeypatch.setitem(traps, "raises", raises)
    error = fail(stage)
    what = "what it returned" if stage is return_a_trap else "the event that it emits"
    assert type(error) is NotPicklableError
    assert str(error) == f"{what} cannot be pickled: {str(raises) or 'KeyboardInterrupt'}; {HINT}"


@pytest.mark.parametrize("raises", [SystemExit(9), KeyboardInterrupt(), RuntimeError("9")])
@pytest.mark.parametrize("stage", [return_a_trap, emit_a_trap])
def test_what_a_value_raises_when_it_is_read_is_not_what_the_stage_raises(monkeypatch, stage, raises):
    monkeypatch.setitem(traps, "raises", raises)
    monkeypatch.setitem(traps, "when", "read")
    emitted = []
    error = fail(stage, make_context(emitted))
    what = "what it returned" if stage is return_a_trap else "an event that it emitted"
    told = f"{type(raises).__name__}{': 9' if str(raises) else ''}"
    assert type(error) is NotPicklableError
    assert str(error) == f"{what} could not be read where it came back to: {told}; {HINT}"
    assert emitted == ([] if stage is return_a_trap else ["before", "after"])


def test_an_event_that_cannot_be_read_does_not_hide_why_the_stage_failed(monkeypatch):
    monkeypatch.setitem(traps, "when", "read")
    emitted = []
    error = fail(emit_a_trap_and_fail, make_context(emitted))
    assert (type(error), str(error), emitted) == (ValueError, "the reason", ["before", "after"])


@pytest.mark.parametrize("when", ["written", "read"])
def test_an_input_whose_own_code_raises_ends_nothing(monkeypatch, when):
    ctx = make_context(outputs=[StageOutput.ok(trap=Trap(SystemExit(9), when))])
    error = fail(return_nothing, ctx)
    assert type(error) is NotPicklableError
    problems = {
        "written": f"an output of its dependencies cannot be pickled: 9; {HINT}",
        "read": "its worker process could not read it: SystemExit: 9; it imports the modules anew: "
        "let them be importable, without effects outside of functions",
    }
    assert str(error) == problems[when]


# Failures of dependencies


class LockedError(Exception):
    """Holds what cannot be pickled."""

    def __init__(self):
        super().__init__("locked")
        self.handler = lambda: None


class OddError(Exception):
    """Takes what its arguments do not hold, as many do: it can be pickled, and then not be read."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


def look_at_failure(ctx):
    failure = ctx.inputs.failure("d0")
    seen.append(failure)
    return {"failure": str(failure), "attempts": len(failure.attempts)}


seen = []


def see(failure):
    """Return a failure as the stage below it sees it."""
    run(look_at_failure, make_context(failures=[failure]))
    return seen.pop()


def raise_from(error, cause):
    raise error from cause


def make_failure(error, cause=None):
    with pytest.raises(type(error)):
        raise_from(error, cause)
    return StageFailure("d0", error, (Attempt(1, 0.5, 1.5, error),))


def test_the_failure_of_a_dependency_comes_along_with_cause_and_traceback():
    failure = make_failure(OddError(7, reason="odd"), HTTPError(500))
    there = see(failure)
    error = there.error
    assert (there.stage, type(error), str(error), error.code) == ("d0", OddError, "7: odd", 7)
    assert (type(error.__cause__), str(error.__cause__)) == (HTTPError, "HTTP 500")
    assert traceback.extract_tb(error.__traceback__)[-1].name == "raise_from"
    assert there.attempts == (Attempt(1, 0.5, 1.5, error),)


def test_the_failure_of_one_that_was_restarted_comes_along_with_its_attempts():
    attempts = make_failure(OddError(7, reason="odd")).attempts
    error = RestartIntensityError("gave up", attempts=attempts, max_restarts=0)
    there = see(StageFailure("d0", error, attempts))
    assert type(there.error) is RestartIntensityError
    assert there.attempts == there.error.attempts
    assert there.attempts[0].error.code == 7


def test_the_failure_of_a_dependency_comes_along_in_words_where_it_cannot_as_it_is():
    failure = make_failure(LockedError())
    cancelled = Attempt(2, 2.0, 3.0, None)
    there = see(attrs.evolve(failure, attempts=(*failure.attempts, cancelled)))
    attempt, last = there.attempts
    assert str(there) == "RemoteError: LockedError: locked"
    assert "in raise_from" in there.error.traceback
    assert (attempt.number, attempt.started, attempt.error.kind) == (1, 0.5, "LockedError")
    assert last == cancelled


def test_a_cause_that_cannot_come_along_does_not_change_the_failure():
    there = see(make_failure(ValueError("outer"), LockedError()))
    assert type(there.error) is ValueError
    assert "LockedError: locked" in there.error.__notes__[0]


def fail_there(what):
    if os.environ.get("FUSSY"):
        raise ImportError("not there")
    return FussyError(what)


class FussyError(Exception):
    def __reduce__(self):
        return fail_there, self.args


def test_a_failure_that_cannot_be_read_there_is_told_in_words(monkeypatch):
    order = pack_order(look_at_failure, make_context(failures=[make_failure(FussyError("fussy"))]), ())
    monkeypatch.setenv("FUSSY", "1")
    assert unpack_reply(fulfil(order), make_context())["failure"] == "RemoteError: FussyError: fussy"
    assert type(seen.pop().error) is RemoteError


def test_what_cannot_be_pickled_is_a_broken_contract():
    with pytest.raises(ContractError, match=r"^it cannot be pickled: .*lambda"):
        pack("it", lambda: None)
