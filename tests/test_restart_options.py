"""The options of restart policies: what each takes, and every refusal in full."""

from __future__ import annotations

import copy
import math
import pickle
from decimal import Decimal
from fractions import Fraction
from functools import partial

import attrs
import pytest

from stageflow_actors import Backoff, Directive, Intensity, PipelineValidationError, Restart
from stageflow_actors._policy import check_window
from stageflow_actors.errors import ContractError

NO_NUMBERS = [True, False, "1", None, [1], Decimal(1), Fraction(1, 2), 1j, math.nan, math.inf, -math.inf, -1, -0.5]
NO_COUNTS = [True, False, "1", None, 1.0, math.nan, math.inf, -1, Decimal(1)]
NO_SECONDS = [True, False, "1", [1], Decimal(1), math.nan, -math.inf, -1, 0, -0.0]
EXACT = Backoff(initial=1, factor=2, maximum=60, jitter=0)


class Judge:
    """Judges errors as a callable object, a method or a function."""

    def __call__(self, error):
        return Directive.RESTART

    def decide(self, error):
        return Directive.ESCALATE


def restart_all(error):
    return Directive.RESTART


async def decide_later(error):
    return Directive.RESTART


def refusal(call, *args, **options):
    with pytest.raises(PipelineValidationError) as caught:
        call(*args, **options)
    return str(caught.value)


# Backoff


def test_the_backoff_that_is_not_asked_for():
    assert Backoff() == Backoff(initial=0.1, factor=2.0, maximum=10.0, jitter=0.5)


@pytest.mark.parametrize("bad", NO_NUMBERS)
@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ("initial", "the initial delay of a Backoff must be a number of at least 0"),
        ("factor", "the factor of a Backoff must be a number of at least 1"),
        ("maximum", "the maximum of a Backoff must be a number of at least 0"),
        ("jitter", "the jitter of a Backoff must be a number from 0 to 1"),
    ],
)
def test_an_option_of_a_backoff_that_is_refused(option, rule, bad):
    if bad == math.inf and option != "jitter":
        rule = f"{rule.partition(' of at least')[0]} below 1e+15"
    assert refusal(Backoff, **{option: bad}) == f"{rule}, not {bad!r}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 0.99}, "the factor of a Backoff must be a number of at least 1, not 0.99"),
        ({"factor": 0}, "the factor of a Backoff must be a number of at least 1, not 0"),
        ({"jitter": 1.01}, "the jitter of a Backoff must be a number from 0 to 1, not 1.01"),
        (
            {"initial": 20},
            (
                "the initial delay of 20 s is above the maximum of 10 s; "
                "raise the maximum: Backoff(initial=20, maximum=...)"
            ),
        ),
        (
            {"maximum": 0},
            (
                "the initial delay of 0.1 s is above the maximum of 0 s; "
                "raise the maximum: Backoff(initial=0.1, maximum=...)"
            ),
        ),
    ],
)
def test_a_backoff_that_is_refused(options, message):
    assert refusal(Backoff, **options) == message


@pytest.mark.parametrize("edge", [{"initial": 0}, {"initial": 10}, {"factor": 1}, {"jitter": 0}, {"jitter": 1}])
def test_the_edges_of_a_backoff_are_taken(edge):
    assert attrs.asdict(Backoff(**edge)).items() >= edge.items()


# Restarts


def test_the_restart_that_is_not_asked_for():
    assert Restart() == Restart(max_restarts=3, within=None, backoff=Backoff(), on=Exception, decide=None)
    assert Intensity(0) == Intensity(max_restarts=0, within=None)


@pytest.mark.parametrize("kind", [Restart, Backoff])
def test_options_have_names(kind):
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        kind(3)


@pytest.mark.parametrize("value", [Restart(within=60, on=(OSError, KeyError)), EXACT, Intensity(20, within=60)])
def test_policies_are_values(value):
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    assert len({value, copy.copy(value)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.within = 1.0


@pytest.mark.parametrize("make", [lambda number: Restart(max_restarts=number), Intensity])
@pytest.mark.parametrize("bad", NO_COUNTS)
def test_a_number_of_restarts_that_is_refused(make, bad):
    assert refusal(make, bad) == f"max_restarts must be a whole number from 0 to 1,000,000, not {bad!r}"


@pytest.mark.parametrize("make", [lambda seconds: Restart(within=seconds), partial(Intensity, 3)])
@pytest.mark.parametrize("bad", NO_SECONDS)
def test_a_window_that_is_no_number_of_seconds(make, bad):
    assert refusal(make, bad) == f"within must be a positive number of seconds, not {bad!r}"


@pytest.mark.parametrize("make", [lambda seconds: Restart(within=seconds), partial(Intensity, 3)])
def test_a_window_without_end_is_left_out(make):
    message = "within must be a positive number of seconds, not inf; leave it out for no limit"
    assert refusal(make, math.inf) == message


@pytest.mark.parametrize("bad", [None, 0.5, {"initial": 1}, Backoff])
def test_a_backoff_that_is_none(bad):
    assert (
        refusal(Restart, backoff=bad) == f"backoff must be a Backoff, not {bad!r}; write backoff=Backoff(initial=0.1)"
    )


@pytest.mark.parametrize(
    "on",
    [
        OSError,
        ExceptionGroup,
        ContractError,
        (OSError,),
        (OSError, ExceptionGroup, Exception),
        restart_all,
        Judge(),
        Judge().decide,
        partial(isinstance, OSError),
        callable,
    ],
)
def test_errors_to_restart_on(on):
    assert Restart(on=on).on is on


HINT = "; write on=ConnectionError, on=(OSError, ValueError) or on=lambda error: ..."


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ((), "on names no type of error; name one, or leave it out for every Exception"),
        (int, f"on must be types of errors or a predicate, not <class 'int'>{HINT}"),
        (object, f"on must be types of errors or a predicate, not <class 'object'>{HINT}"),
        (Judge, f"on must be types of errors or a predicate, not {Judge!r}{HINT}"),
        ((OSError, int), f"on must be types of errors or a predicate, not <class 'int'>{HINT}"),
        ((OSError, "KeyError"), f"on must be types of errors or a predicate, not 'KeyError'{HINT}"),
        ((OSError, None), f"on must be types of errors or a predicate, not None{HINT}"),
        (((OSError,), KeyError), f"on must be types of errors or a predicate, not (<class 'OSError'>,){HINT}"),
        ((OSError, restart_all), f"on must be types of errors or a predicate, not {restart_all!r}{HINT}"),
        (BaseException, f"on=BaseException is no Exception, and what is none is never restarted{HINT}"),
        (KeyboardInterrupt, f"on=KeyboardInterrupt is no Exception, and what is none is never restarted{HINT}"),
        (BaseExceptionGroup, f"on=BaseExceptionGroup is no Exception, and what is none is never restarted{HINT}"),
        ((OSError, SystemExit), f"on=SystemExit is no Exception, and what is none is never restarted{HINT}"),
        (None, f"on must be types of errors or a predicate, not None{HINT}"),
        ("OSError", f"on must be types of errors or a predicate, not 'OSError'{HINT}"),
        ([OSError], f"on must be types of errors or a predicate, not [<class 'OSError'>]{HINT}"),
        (OSError("x"), f"on must be types of errors or a predicate, not OSError('x'){HINT}"),
        (OSError | KeyError, f"on must be types of errors or a predicate, not OSError | KeyError{HINT}"),
        (True, f"on must be types of errors or a predicate, not True{HINT}"),
    ],
)
def test_what_cannot_be_restarted_on(on, message):
    assert refusal(Restart, on=on) == message


@pytest.mark.parametrize("decide", [restart_all, Judge(), Judge().decide, partial(restart_all), lambda error: "fail"])
def test_what_decides(decide):
    assert Restart(decide=decide).decide is decide


@pytest.mark.parametrize("bad", [OSError, Directive, Judge, Directive.FAIL, "fail", True, (restart_all,), {}])
def test_what_cannot_decide(bad):
    assert refusal(Restart, decide=bad) == f"decide must be a function of the error, not {bad!r}"


@pytest.mark.parametrize("option", ["on", "decide"])
@pytest.mark.parametrize("later", [decide_later, partial(decide_later)])
def test_nothing_is_decided_later(option, later):
    hint = "it is a plain function of the error: it cannot wait"
    assert refusal(Restart, **{option: later}) == f"{option} is the async function {later!r}; {hint}"


# Windows that are too short

LEAVE_OUT = "or leave it out to count over the stage's life"


@pytest.mark.parametrize(
    ("restarts", "within", "backoff", "arithmetic"),
    [
        (1, 0.9, EXACT, "2 failures, 1 s take 1 s; give within more than 1 s"),
        (3, 6.5, EXACT, "4 failures, 1 + 2 + 4 s take 7 s; give within more than 7 s"),
        (6, 62, EXACT, "7 failures, 1 + 2 + 4 + 8 + 16 + 32 s take 63 s; give within more than 63 s"),
        (7, 122, EXACT, "8 failures, 1 + 2 + 4 + ... + 32 + 60 s take 123 s; give within more than 123 s"),
        (9, 242, EXACT, "10 failures, 1 + 2 + 4 + ... + 32 + 3 * 60 s take 243 s; give within more than 243 s"),
        (5, 9, Backoff(initial=2, factor=1, jitter=0), "6 failures, 5 * 2 s take 10 s; give within more than 10 s"),
        (5, 4.9, Backoff(initial=2, factor=1), "6 failures, 5 * 1 s take 5 s; give within more than 5 s"),
        (2, 1, Backoff(initial=1), "3 failures, 0.5 + 1 s take 1.5 s; give within more than 1.5 s"),
    ],
)
def test_a_window_that_the_delays_alone_outlast(restarts, within, backoff, arithmetic):
    assert refusal(Restart, max_restarts=restarts, within=within, backoff=backoff) == (
        f"max_restarts={restarts} within {within:g} s can never be exceeded: "
        f"the shortest delays between {arithmetic}, {LEAVE_OUT}"
    )


@pytest.mark.parametrize(
    ("restarts", "within", "backoff"),
    [
        (1, 1, EXACT),
        (3, 7, EXACT),
        (7, 123, EXACT),
        (0, 0.001, EXACT),
        (3, 1, Backoff()),
        (100, 0.001, Backoff(initial=0)),
        (100, 0.001, Backoff(jitter=1)),
        (10**6, 10, Backoff(initial=0.00001, factor=1, jitter=0)),
    ],
)
def test_a_window_that_can_be_exceeded(restarts, within, backoff):
    assert Restart(max_restarts=restarts, within=within, backoff=backoff).within == within


def test_a_window_that_timeouts_outlast():
    made = Restart(max_restarts=2, within=20, backoff=EXACT)
    check_window(made, 8.5)
    assert refusal(check_window, made, 8.75, pipeline="report", stage="fetch") == (
        "pipeline 'report', stage 'fetch': max_restarts=2 within 20 s can never be exceeded by attempts that time out: "
        "the shortest delays between 3 failures, 1 + 2 s, and 2 * 8.75 s until they time out, take 20.5 s; "
        f"give within more than 20.5 s, {LEAVE_OUT}"
    )


def test_a_life_has_no_window_to_check():
    check_window(Restart(max_restarts=100), 1e6)
    check_window(Restart(max_restarts=0, within=0.5), 1e6)
