"""Faults as values: what they are made of, how they print, and what a crash raises."""

from __future__ import annotations

import pickle
import traceback

import attrs
import pytest

from stageflow_actors import PipelineValidationError, StageTimeoutError
from stageflow_actors.errors import InjectedError
from stageflow_actors.testing._faults import (
    Cancel,
    ClockJump,
    Crash,
    Delay,
    Doubled,
    Dropped,
    Late,
    make_error,
    require_faults,
)


class PickyError(Exception):
    """Cannot be made or copied without its arguments."""

    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")


class CodedError(Exception):
    """Has state beside its arguments."""

    def __init__(self, code=7):
        super().__init__(code)
        self.code = code


class WordyError(Exception):
    """Would be copied from its message instead of its argument."""

    def __init__(self, code=7):
        super().__init__(f"code {code}")


def make_picky():
    return PickyError(1, detail="x")


FAULTS = [
    (Crash("score"), "Crash('score')"),
    (Crash("score", 3), "Crash('score', at=3)"),
    (Crash("*", at=1, error=OSError), "Crash('*', at=1, error=OSError)"),
    (Crash("score", error=ValueError("x")), "Crash('score', error=ValueError('x'))"),
    (Crash("score", error=make_picky), "Crash('score', error=make_picky)"),
    (Delay("score"), "Delay('score')"),
    (Delay("score", 2, 0.5), "Delay('score', at=2, seconds=0.5)"),
    (Cancel(), "Cancel()"),
    (Cancel(4), "Cancel(at=4)"),
    (ClockJump(60), "ClockJump(60)"),
    (ClockJump(0.5, 4), "ClockJump(0.5, at=4)"),
    (Late("ingest/parser"), "Late('ingest/parser')"),
    (Late("*", 2, 0.5), "Late('*', at=2, seconds=0.5)"),
    (Doubled("counter"), "Doubled('counter')"),
    (Doubled("counter", 3), "Doubled('counter', at=3)"),
    (Dropped("*"), "Dropped('*')"),
    (Dropped("*", at=1), "Dropped('*', at=1)"),
]


@pytest.mark.parametrize(("fault", "written"), FAULTS)
def test_a_fault_prints_as_it_is_written(fault, written):
    assert repr(fault) == written


@pytest.mark.parametrize("fault", [fault for fault, _ in FAULTS])
def test_faults_are_values(fault):
    assert fault == attrs.evolve(fault)
    assert hash(fault) == hash(attrs.evolve(fault))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        fault.at = 2


def test_faults_pickle():
    plan = (
        Crash("score", 3, OSError),
        Delay("score"),
        Cancel(1),
        ClockJump(2.0),
        Late("a"),
        Doubled("a"),
        Dropped("a"),
    )
    assert pickle.loads(pickle.dumps(plan)) == plan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crash(""), "the on of a Crash must be a non-empty string, not ''"),
        (lambda: Crash(3), "the on of a Crash must be a non-empty string, not 3"),
        (lambda: Crash("a", 0), "the at of a Crash must be a whole number of at least 1, not 0"),
        (lambda: Crash("a", at=True), "the at of a Crash must be a whole number of at least 1, not True"),
        (lambda: Delay(None), "the on of a Delay must be a non-empty string, not None"),
        (lambda: Delay("a", at=1.5), "the at of a Delay must be a whole number of at least 1, not 1.5"),
        (lambda: Delay("a", seconds=-1), "the seconds of a Delay must be a number of at least 0, not -1"),
        (lambda: Cancel(-1), "the at of a Cancel must be a whole number of at least 1, not -1"),
        (lambda: ClockJump("soon"), "the seconds of a ClockJump must be a number of at least 0, not 'soon'"),
        (lambda: ClockJump(float("inf")), r"the seconds of a ClockJump must be a number below 1e\+15, not inf"),
        (lambda: ClockJump(float("nan")), "the seconds of a ClockJump must be a number of at least 0, not nan"),
        (lambda: ClockJump(1, "2"), "the at of a ClockJump must be a whole number of at least 1, not '2'"),
        (lambda: Late(""), "the on of a Late must be a non-empty string, not ''"),
        (lambda: Doubled(None), "the on of a Doubled must be a non-empty string, not None"),
        (
            lambda: Dropped("/parser"),
            "the on of a Dropped must be the full name of an actor, such as 'ingest/parser', not '/parser'",
        ),
        (
            lambda: Late("ingest/"),
            "the on of a Late must be the full name of an actor, such as 'ingest/parser', not 'ingest/'",
        ),
        (lambda: Late("a", at=0), "the at of a Late must be a whole number of at least 1, not 0"),
        (lambda: Doubled("a", at=True), "the at of a Doubled must be a whole number of at least 1, not True"),
        (lambda: Dropped("a", at="1"), "the at of a Dropped must be a whole number of at least 1, not '1'"),
        (lambda: Late("a", seconds=-1), "the seconds of a Late must be a number of at least 0, not -1"),
        (lambda: Late("a", seconds=float("inf")), r"the seconds of a Late must be a number below 1e\+15, not inf"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(PipelineValidationError, match=f"^{message}$"):
        make()


@pytest.mark.parametrize("error", [None, "boom", int, KeyboardInterrupt, KeyboardInterrupt()])
def test_a_crash_raises_exceptions_and_nothing_else(error):
    with pytest.raises(PipelineValidationError, match="the error of a Crash must be an Exception, a type of one, or"):
        Crash("a", error=error)


def test_a_type_that_needs_arguments_is_refused():
    with pytest.raises(PipelineValidationError) as caught:
        Crash("a", error=PickyError)
    assert "the error of a Crash cannot be made by PickyError():" in str(caught.value)
    assert str(caught.value).endswith("; give an instance, or a function: error=lambda: PickyError(...)")


def test_an_exception_that_cannot_be_copied_is_refused():
    with pytest.raises(PipelineValidationError) as caught:
        Crash("a", error=make_picky())
    assert "the error of a Crash, PickyError('1: x'), cannot be copied:" in str(caught.value)
    assert str(caught.value).endswith("; give a function that makes it: error=lambda: PickyError(...)")


def test_an_injected_error_says_of_which_crash_it_is():
    error = make_error(Crash("score", 3))
    assert type(error) is InjectedError
    assert str(error) == "injected by Crash('score', at=3)"


def test_an_exception_that_would_be_copied_wrongly_is_refused():
    with pytest.raises(PipelineValidationError) as caught:
        Crash("a", error=WordyError(3))
    assert "WordyError('code 3'), cannot be copied: its copy is WordyError('code code 3'); give" in str(caught.value)


@pytest.mark.parametrize(
    "source", [CodedError, WordyError, make_picky, CodedError(3), StageTimeoutError("late", seconds=2.0)]
)
def test_every_error_is_new(source):
    crash = Crash("a", error=source)
    made = [make_error(crash) for _ in range(3)]
    assert len({id(one) for one in [*made, source]}) == 4
    assert len({(type(one), str(one)) for one in made}) == 1


def test_a_copy_has_the_state_and_the_cause_of_the_original_and_no_traceback():
    cause = OSError("disk")
    try:
        raise CodedError(3) from cause
    except CodedError as error:
        original = error
    original.add_note("a note")
    copied = make_error(Crash("a", error=original))
    assert copied.code == 3
    assert copied.__cause__ is cause
    assert copied.__traceback__ is None
    assert original.__traceback__ is not None
    assert traceback.format_exception_only(copied) == traceback.format_exception_only(original)


def test_a_copy_keeps_whether_its_context_is_shown():
    hidden = ValueError("x")
    hidden.__suppress_context__ = True
    assert make_error(Crash("a", error=hidden)).__suppress_context__
    assert not make_error(Crash("a", error=ValueError("x"))).__suppress_context__


def test_a_function_must_return_an_exception():
    with pytest.raises(PipelineValidationError, match=r"must be an Exception, not 3, which <function .* returned"):
        make_error(Crash("a", error=lambda: 3))


def test_a_plan_is_any_iterable_of_faults():
    plan = [Crash("a"), Cancel()]
    assert require_faults(plan) == tuple(plan)
    assert require_faults(iter(plan)) == tuple(plan)
    assert require_faults(()) == ()


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (Crash("a"), r"faults must be an iterable of faults, not Crash\('a'\); write faults=\(Crash\('a'\),\)"),
        (None, "faults must be an iterable of faults, not None"),
        ("Crash", "faults must be an iterable of faults, not 'Crash'"),
        (
            [Cancel(), Crash],
            "a fault must be a Crash, Delay, Cancel, ClockJump, Late, Doubled or Dropped, not <class '.*Crash'>",
        ),
    ],
)
def test_what_is_no_plan_is_refused(faults, message):
    with pytest.raises(PipelineValidationError, match=f"^{message}$"):
        require_faults(faults)
