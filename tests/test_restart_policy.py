"""Restart policies: delays, windows, which errors, and what is decided, by examples made by hand."""

from __future__ import annotations

import math

import pytest

from stageflow_actors import Backoff, Directive, Restart
from stageflow_actors._policy import Window, count_failure, direct, is_restartable, match, plan_restart
from stageflow_actors.errors import (
    ContractError,
    NotFreezableError,
    NurseryLeftOpenError,
    StageFailedError,
    StageReturnTypeError,
    StageTimeoutError,
    StrayCancelledError,
    ThreadAbandonedError,
    UndeclaredDependencyError,
)

EXACT = Backoff(initial=1, factor=2, maximum=60, jitter=0)


class Batch(ExceptionGroup):
    def derive(self, excs):
        return Batch(self.message, excs)


# Delays


@pytest.mark.parametrize(
    ("restart", "chance", "delay"),
    [
        (1, 1.0, 1),
        (1, 0.0, 0.75),
        (1, 0.5, 0.875),
        (2, 1.0, 3),
        (2, 0.0, 2.25),
        (3, 1.0, 9),
        (4, 1.0, 20),
        (4, 0.0, 20),
    ],
)
def test_delays_grow_up_to_the_maximum(restart, chance, delay):
    assert Backoff(initial=1, factor=3, maximum=20, jitter=0.25).delay(restart, chance) == delay


@pytest.mark.parametrize(("at_least", "delay"), [(0.0, 2), (1.5, 2), (2.5, 2.5), (60, 60), (61, 60), (math.inf, 60)])
def test_a_stage_may_ask_for_a_longer_delay_up_to_the_maximum(at_least, delay):
    assert EXACT.delay(2, 0.5, at_least=at_least) == delay


@pytest.mark.parametrize("restart", [64, 1_024, 10_000, 10**6])
def test_no_number_of_restarts_is_too_many(restart):
    assert Backoff(jitter=0.9).delay(restart, 0.0) == 10.0
    assert Backoff(factor=1e14).delay(restart, 0.0) == 10.0
    assert Backoff(factor=3).delay(restart, 0.0) == 10.0
    assert Backoff(initial=2, factor=1, jitter=0.5).delay(restart, 0.0) == 1.0
    assert Backoff(initial=0, factor=1e14).delay(restart, 1.0) == 0.0
    assert Backoff(jitter=1).delay(restart, 0.0) == 0.0


def test_a_backoff_of_nothing():
    assert Backoff(initial=0, maximum=0).delay(7, 1.0) == 0.0
    assert Backoff(initial=0, maximum=0).delay(7, 1.0, at_least=5.0) == 0.0


# Windows


def test_failures_leave_the_window_after_its_last_moment():
    window = Window()
    counts = []
    for now in (0.0, 2.0, 5.0, 7.0, 7.0, 12.5, 100.0):
        window = count_failure(window, 5.0, now)
        counts.append(window.count)
    assert counts == [1, 2, 3, 3, 4, 1, 1]
    assert window == Window(1, (100.0,))


def test_failures_stay_for_life_without_a_window():
    window = Window()
    for now in (0.0, 1e6, 1e12):
        window = count_failure(window, None, now)
    assert window == Window(3, ())


def plan(restart, times):
    """Return the delay after each failure; None is where it gives up."""
    window, delays = Window(), []
    for now in times:
        window, delay = plan_restart(restart, window, now, 0.5)
        delays.append(delay)
    return delays


@pytest.mark.parametrize(
    ("within", "times", "delays"),
    [
        (None, [0, 1, 1000, 10**6], [1, 2, 4, None]),
        (10, [0, 3, 6, 10], [1, 2, 4, None]),
        (10, [0, 3, 6, 10.5], [1, 2, 4, 4]),
        (10, [0, 3, 6, 13.5], [1, 2, 4, 2]),
        (10, [0, 11, 22, 33, 34, 36, 43], [1, 1, 1, 1, 2, 4, None]),
    ],
)
def test_restarts_until_it_gives_up(within, times, delays):
    assert plan(Restart(max_restarts=3, within=within, backoff=EXACT), times) == delays


def test_no_restart_at_all():
    assert plan(Restart(max_restarts=0), [0.0]) == [None]


def test_a_stage_may_ask_to_be_left_alone_for_a_while():
    restart = Restart(backoff=EXACT)
    assert plan_restart(restart, Window(), 0.0, 0.5, at_least=30) == (Window(1), 30)
    assert plan_restart(restart, Window(), 0.0, 0.5, at_least=90) == (Window(1), 60)
    assert plan_restart(restart, Window(3), 0.0, 0.5, at_least=30) == (Window(4), None)


# Which errors


def group(*errors):
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("on", "error", "matches"),
    [
        (Exception, KeyError("x"), True),
        (OSError, ConnectionResetError(), True),
        (ConnectionError, OSError(), False),
        ((KeyError, OSError), ConnectionResetError(), True),
        ((KeyError, OSError), ValueError(), False),
        (TimeoutError, StageTimeoutError("late"), True),
        (OSError, group(ConnectionError(), TimeoutError()), True),
        (OSError, group(ConnectionError(), ValueError()), False),
        ((OSError, ValueError), group(ConnectionError(), ValueError()), True),
        (OSError, group(ConnectionError(), group(group(TimeoutError()), OSError())), True),
        (OSError, group(ConnectionError(), group(group(KeyError()), OSError())), False),
        (Exception, group(KeyError(), group(ValueError())), True),
        (ExceptionGroup, group(KeyError()), True),
        (ExceptionGroup, KeyError(), False),
        ((OSError, ExceptionGroup), group(KeyError()), True),
        (Batch, Batch("several", [KeyError()]), True),
        (Batch, group(KeyError()), False),
        (Batch, group(Batch("several", [KeyError()])), False),
        (ExceptionGroup, Batch("several", [KeyError()]), True),
    ],
)
def test_which_errors_match(on, error, matches):
    assert match(on, error) is matches
    assert match(on if isinstance(on, tuple) else (on,), error) is matches
    assert direct(Restart(on=on), error) is (Directive.RESTART if matches else Directive.FAIL)


@pytest.mark.parametrize("answer", [True, False, 0, "yes", None, [1]])
def test_a_predicate_is_given_the_error_as_it_is(answer):
    asked = []

    def ask(error):
        asked.append(error)
        return answer

    error = group(OSError(), group(KeyError()))
    assert match(ask, error) is bool(answer)
    assert asked == [error]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("option", ["on", "decide"])
def test_what_a_predicate_raises_comes_out(option, error):
    def fail(given):
        raise error

    with pytest.raises(error):
        direct(Restart(**{option: fail}), OSError())


CONTRACT = [
    ContractError("x"),
    StageReturnTypeError("x"),
    NotFreezableError("x"),
    UndeclaredDependencyError("x"),
    NurseryLeftOpenError("x"),
    StrayCancelledError("x"),
    ThreadAbandonedError("x"),
]


@pytest.mark.parametrize("error", CONTRACT)
def test_what_no_policy_restarts(error):
    assert not is_restartable(error)
    assert not is_restartable(group(error))
    assert not is_restartable(group(OSError(), group(KeyError(), error)))
    assert not is_restartable(BaseExceptionGroup("several", [error, KeyboardInterrupt()]))


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_is_not_restarted(kind):
    assert not is_restartable(kind())
    assert not is_restartable(BaseExceptionGroup("several", [OSError(), kind()]))


@pytest.mark.parametrize(
    "error", [OSError(), StageTimeoutError("x"), StageFailedError("x"), group(OSError(), KeyError())]
)
def test_what_a_policy_may_restart(error):
    assert is_restartable(error)


def test_a_broken_contract_that_was_dealt_with_is_no_matter():
    error = OSError()
    error.__cause__ = error.__context__ = ContractError("x")
    assert is_restartable(error)


# What to do about them


OF_STAGES = [Directive.RESTART, Directive.FAIL, Directive.ESCALATE]


@pytest.mark.parametrize("directive", OF_STAGES)
def test_decide_goes_before_on(directive):
    asked = []

    def decide(error):
        asked.append(error)
        return directive

    error = group(OSError(), KeyError())
    assert direct(Restart(on=ValueError, decide=decide), error) is directive
    assert direct(Restart(on=lambda error: 1 / 0, decide=decide), error) is directive
    assert asked == [error, error]


@pytest.mark.parametrize("directive", OF_STAGES)
def test_a_directive_may_be_said_in_its_word(directive):
    assert direct(Restart(decide=lambda error: str(directive)), OSError()) is directive


@pytest.mark.parametrize("wrong", [None, True, False, "again", "RESTART", 1, [], {}, Directive, OSError])
def test_what_is_no_directive(wrong):
    with pytest.raises(StageReturnTypeError) as caught:
        direct(Restart(decide=lambda error: wrong), OSError())
    assert str(caught.value) == (
        f"the decide of its restart returned {wrong!r}; "
        "return one of Directive.RESTART, Directive.FAIL, Directive.ESCALATE"
    )
    assert not is_restartable(caught.value)


def test_only_an_actor_resumes():
    policy = Restart(decide=lambda error: Directive.RESUME)
    assert direct(policy, OSError(), may_resume=True) is Directive.RESUME
    with pytest.raises(StageReturnTypeError, match=r"returned <Directive.RESUME: 'resume'>"):
        direct(policy, OSError())


def test_the_words():
    assert [str(directive) for directive in Directive] == ["restart", "fail", "escalate", "resume"]
