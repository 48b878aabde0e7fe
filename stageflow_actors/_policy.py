"""States, and the decisions about them: pure functions of what has happened."""

from __future__ import annotations

import inspect
import sys
from bisect import bisect_left
from collections.abc import Callable
from enum import Enum, StrEnum
from functools import partial
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, final

import attrs

from ._validation import refuse, require_between, require_count, require_seconds
from .errors import ContractError, StageReturnTypeError, ThreadAbandonedError

if TYPE_CHECKING:
    from collections.abc import Iterator


class StageState(StrEnum):
    """What a run made of a stage."""

    PENDING = "pending"
    """Waits for its dependencies, for a limiter, for its task to begin or, a plain function, for its thread."""
    RUNNING = "running"
    RESTARTING = "restarting"
    """An attempt failed, and the next has not begun: it backs off, or waits for a limiter again."""
    OK = "ok"
    SKIPPED = "skipped"
    """Was not chosen, or said so itself, or stands below a stage that was skipped."""
    FAILED = "failed"
    ISOLATED = "isolated"
    """Never ran, because a stage that it depends on did not end well."""
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """Its worker thread was still running when its shutdown budget was spent."""


# A run keeps one byte a stage: the position of its state here. TOLD is a pending stage whose message is
# under way; from outside the two are the same.
PENDING, TOLD, RUNNING, RESTARTING, OK, SKIPPED, FAILED, ISOLATED, CANCELLED, ABANDONED = range(10)
STATES: Final = (
    StageState.PENDING,
    StageState.PENDING,
    StageState.RUNNING,
    StageState.RESTARTING,
    StageState.OK,
    StageState.SKIPPED,
    StageState.FAILED,
    StageState.ISOLATED,
    StageState.CANCELLED,
    StageState.ABANDONED,
)

BAD: Final = frozenset({FAILED, ISOLATED, CANCELLED, ABANDONED})
"""The codes of the states that isolate a dependent."""


class Trigger(StrEnum):
    """When a stage whose dependencies have all ended runs. Names and meanings are Airflow's."""

    ALL_SUCCESS = "all_success"
    """Every dependency ended OK. Below a skipped one the stage is skipped, below a bad one isolated."""
    NONE_FAILED = "none_failed"
    """No dependency ended badly; skipped ones do not matter."""
    ONE_SUCCESS = "one_success"
    """At least one dependency ended OK, decided when all have ended, so that no schedule shows through."""
    ALL_DONE = "all_done"
    """All dependencies ended, however they did."""


class Decision(Enum):
    """What becomes of a stage whose dependencies have all ended."""

    RUN = "run"
    SKIP = "skip"
    ISOLATE = "isolate"


def decide(trigger: Trigger, *, bad: bool, skipped: bool, ok: bool) -> Decision:
    """Return what a stage's trigger says, all its dependencies having ended.

    Args:
        trigger: The stage's.
        bad: Whether a dependency ended badly.
        skipped: Whether a dependency was skipped.
        ok: Whether a dependency ended OK.
    """
    if trigger is Trigger.ALL_DONE or not (bad or skipped):
        return Decision.RUN
    if trigger is Trigger.ONE_SUCCESS and ok:
        return Decision.RUN
    if bad:
        return Decision.ISOLATE
    return Decision.RUN if trigger is Trigger.NONE_FAILED else Decision.SKIP


def isolates_at_stop(trigger: Trigger, *, bad: bool, all_ended: bool, ok: bool) -> bool:
    """Return whether a stage that a stopping run never started is isolated, rather than cancelled.

    Args:
        trigger: The stage's.
        bad: Whether one of its dependencies has ended badly.
        all_ended: Whether all of them have ended.
        ok: Whether one of them has ended OK.
    """
    if not bad or trigger is Trigger.ALL_DONE:
        return False
    return trigger is not Trigger.ONE_SUCCESS or (all_ended and not ok)


# Restarts

_MOST_RESTARTS: Final = 1_000_000


class Directive(StrEnum):
    """What becomes of a stage after an attempt failed."""

    RESTART = "restart"
    """Run it again, where a restart is left."""
    FAIL = "fail"
    """It is `FAILED`."""
    ESCALATE = "escalate"
    """It is `FAILED` and the run ends, also one that is to continue on failure; of an actor, its supervisor ends."""
    RESUME = "resume"
    """Of a resident actor alone: it fails who asked, and goes on as it is."""


Matcher: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors: a type, a tuple of types, or a predicate."""


@final
@attrs.frozen(kw_only=True)
class Backoff:
    """How long a failed stage waits before it is run again: exponentially longer, with jitter.

    The delay before restart n, counted from 1, is `min(maximum, initial * factor**(n-1) * U(1-jitter, 1))`
    seconds, U being uniform. Jitter keeps stages that failed together from coming back together; see Brooker,
    "Exponential Backoff and Jitter" (2015), whose "equal jitter" is `jitter=0.5`.
    """

    initial: float = 0.1
    """Seconds, before jitter, of the first delay; 0 for none at all."""
    factor: float = 2.0
    """How many times longer each delay is than the one before it; 1 for delays that do not grow."""
    maximum: float = 10.0
    """Seconds that no delay exceeds."""
    jitter: float = 0.5
    """The share of a delay that is left to chance, from 0 to 1."""

    def __attrs_post_init__(self) -> None:
        require_between("the initial delay of a Backoff", self.initial, 0)
        require_between("the factor of a Backoff", self.factor, 1)
        require_between("the maximum of a Backoff", self.maximum, 0)
        require_between("the jitter of a Backoff", self.jitter, 0, 1)
        if self.initial > self.maximum:
            hint = f"raise the maximum: Backoff(initial={self.initial:g}, maximum=...)"
            refuse(f"the initial delay of {self.initial:g} s is above the maximum of {self.maximum:g} s", hint=hint)

    def delay(self, restart: int, chance: float, *, at_least: float = 0.0) -> float:
        """Return the seconds to wait before a restart.

        Args:
            restart: Which one, counted from 1.
            chance: A random number from 0 to 1: it picks from the range that jitter leaves, 0 the shortest.
            at_least: Wait no shorter than this, but for `maximum`.
        """
        jittered = self._grow(restart) * (1 - self.jitter * (1 - chance))
        return min(self.maximum, max(at_least, jittered))

    def _grow(self, restart: int) -> float:
        try:
            return min(self.initial * float(self.factor) ** (restart - 1), sys.float_info.max)
        except OverflowError:
            return sys.float_info.max if self.initial else 0.0


@final
@attrs.frozen(kw_only=True)
class Restart:
    """Consent to run a stage again after it failed, within limits.

    There are at most `1 + max_restarts` attempts in the stage's life or, with `within`, in any such number of
    seconds, as Erlang/OTP counts: the stage gives up at failure `max_restarts + 1` within it. A returned `retry`
    uses the same budget and asks neither `on` nor `decide`. Never run again are a stage that returned `fail`,
    one that broke the contract, one whose thread was abandoned, and one that raised what is no `Exception`.

    Raises:
        PipelineValidationError: An option that cannot be, or a window so short that the delays alone outlast it:
            such a stage would be restarted for ever.
    """

    max_restarts: int = 3
    within: float | None = None
    """Seconds of the sliding window; None for the life of the stage."""
    backoff: Backoff = attrs.field(factory=Backoff)
    """The delays before restarts; with `within`, restarts count anew when failures have left the window."""
    on: Matcher = Exception
    """Which errors to restart on. A type matches an exception group only where it matches every leaf, or is itself
    one of groups; a predicate is given the group as it is."""
    decide: Callable[[Exception], Directive] | None = None
    """What to do about an error, instead of `on`."""

    def __attrs_post_init__(self) -> None:
        require_count("max_restarts", self.max_restarts, least=0, most=_MOST_RESTARTS)
        if not isinstance(self.backoff, Backoff):
            refuse(f"backoff must be a Backoff, not {self.backoff!r}", hint="write backoff=Backoff(initial=0.1)")
        _check_matcher(self.on)
        if self.decide is not None:
            _check_predicate("decide", self.decide)
        if self.within is not None:
            require_seconds("within", self.within)
            check_window(self, 0.0)


@final
@attrs.frozen
class Intensity:
    """How often the stages of a run may be restarted together; past it, nothing in that run is restarted any more."""

    max_restarts: int
    within: float | None = None
    """Seconds of the sliding window; None for the whole run."""

    def __attrs_post_init__(self) -> None:
        require_count("max_restarts", self.max_restarts, least=0, most=_MOST_RESTARTS)
        if self.within is not None:
            require_seconds("within", self.within)


def list_shortest(backoff: Backoff, restarts: int) -> Iterator[tuple[float, int]]:
    """Iterate over the shortest delays, in order: each with how many times it comes in a row."""
    for restart in range(1, restarts + 1):
        delay = backoff.delay(restart, 0.0)
        if delay == backoff.maximum or backoff.factor == 1 or not backoff.initial or backoff.jitter == 1:
            yield delay, restarts - restart + 1
            return
        yield delay, 1


def check_window(restart: Restart, timeout: float, *, pipeline: str | None = None, stage: str | None = None) -> None:
    """Refuse a window that cannot be tripped by attempts that take `timeout` seconds each.

    The arithmetic: failure `max_restarts + 1` comes no sooner after the first than the shortest delays and
    as many attempts take.

    Raises:
        PipelineValidationError: It would restart for ever.
    """
    if restart.within is None:
        return
    took = restart.max_restarts * timeout
    delays: list[tuple[float, int]] = []
    entries = 0
    for delay, times in list_shortest(restart.backoff, restart.max_restarts):
        took += delay * times
        delays.append((delay, times))
        entries += 1
        if len(delays) > 6:
            del delays[3]
    if took <= restart.within:
        return
    shown = [f"{times} * {delay:g}" if times > 1 else f"{delay:g}" for delay, times in delays]
    if entries > 6:
        shown[3:-2] = ["..."]
    by = " by attempts that time out" if timeout else ""
    attempts = f", and {restart.max_restarts} * {timeout:g} s until they time out," if timeout else ""
    problem = (
        f"max_restarts={restart.max_restarts} within {restart.within:g} s can never be exceeded{by}: "
        f"the shortest delays between {restart.max_restarts + 1} failures, {' + '.join(shown)} s{attempts} "
        f"take {took:g} s"
    )
    hint = f"give within more than {took:g} s, or leave it out to count over the stage's life"
    refuse(problem, pipeline=pipeline, stage=stage, hint=hint)


def _check_matcher(on: object) -> None:
    types = on if isinstance(on, tuple) else (on,)
    if isinstance(on, tuple) and not on:
        refuse("on names no type of error", hint="name one, or leave it out for every Exception")
    if not isinstance(on, (type, tuple)):
        if not callable(on) or isinstance(on, GenericAlias):
            _refuse_matcher(f"on must be types of errors or a predicate, not {on!r}")
        _check_predicate("on", on)
        return
    for one in types:
        if not isinstance(one, type) or not issubclass(one, BaseException):
            _refuse_matcher(f"on must be types of errors or a predicate, not {one!r}")
        if not issubclass(one, Exception):
            _refuse_matcher(f"on={one.__qualname__} is no Exception, and what is none is never restarted")


def _refuse_matcher(problem: str) -> NoReturn:
    refuse(problem, hint="write on=ConnectionError, on=(OSError, ValueError) or on=lambda error: ...")


def _check_predicate(what: str, value: Any) -> None:
    function = value
    while isinstance(function, partial):
        function = function.func
    if any(_answers_later(one) for one in (function, type(function).__call__)):
        refuse(f"{what} is the async function {value!r}", hint="it is a plain function of the error: it cannot wait")
    if not callable(value) or isinstance(value, (type, GenericAlias)):
        refuse(f"{what} must be a function of the error, not {value!r}")


def _answers_later(function: object) -> bool:
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    return any(is_one(function) for is_one in kinds)


@final
@attrs.frozen
class Window:
    """The failures that count against a limit at one moment."""

    count: int = 0
    times: tuple[float, ...] = ()
    """When they were, in a sliding window."""


NO_FAILURES: Final = Window()


def count_failure(window: Window, within: float | None, now: float) -> Window:
    """Return the failures that count, after one more at `now`: those not longer ago than `within` seconds."""
    if within is None:
        return Window(window.count + 1)
    first = bisect_left(window.times, -within, key=lambda time: time - now)
    times = (*window.times[first:], now)
    return Window(len(times), times)


def is_restartable(error: BaseException) -> bool:
    """Return whether any policy may restart a stage that raised this."""
    if not isinstance(error, Exception):
        return False
    return not any(isinstance(leaf, (ContractError, ThreadAbandonedError)) for leaf in _list_leaves(error))


def match(on: Matcher, error: Exception) -> bool:
    """Return whether an error is among those to restart on.

    Raises:
        BaseException: What a predicate raises.
    """
    if not isinstance(on, (type, tuple)):
        return bool(on(error))
    if isinstance(error, BaseExceptionGroup):
        groups = tuple(one for one in (on if isinstance(on, tuple) else (on,)) if issubclass(one, BaseExceptionGroup))
        return isinstance(error, groups) or all(isinstance(leaf, on) for leaf in _list_leaves(error))
    return isinstance(error, on)


def direct(restart: Restart, error: Exception, *, may_resume: bool = False) -> Directive:
    """Return what a policy says of an error that may be restarted on, its count left aside.

    Args:
        restart: The policy.
        error: The error.
        may_resume: Whether it is that of a resident actor, which can go on as it is.

    Raises:
        StageReturnTypeError: `decide` returned no directive.
        BaseException: What `decide` or the predicate `on` raises.
    """
    if restart.decide is None:
        return Directive.RESTART if match(restart.on, error) else Directive.FAIL
    decided: Any = restart.decide(error)
    known = [member for member in Directive if may_resume or member is not Directive.RESUME]
    if decided not in known:
        hint = f"return one of Directive.{', Directive.'.join(member.name for member in known)}"
        raise StageReturnTypeError(f"the decide of its restart returned {decided!r}", hint=hint)
    return Directive(decided)


def plan_restart(
    restart: Restart, window: Window, now: float, chance: float, *, at_least: float = 0.0
) -> tuple[Window, float | None]:
    """Return the failures that count now, and after how many seconds to restart: None where no restart is left.

    Args:
        restart: The policy.
        window: The failures that counted before this one.
        now: When the attempt failed.
        chance: A random number from 0 to 1.
        at_least: A delay that the stage asked for, in seconds.
    """
    window = count_failure(window, restart.within, now)
    if window.count > restart.max_restarts:
        return window, None
    return window, restart.backoff.delay(window.count, chance, at_least=at_least)


def _list_leaves(error: BaseException) -> Iterator[BaseException]:
    work = [error]
    while work:
        one = work.pop()
        if isinstance(one, BaseExceptionGroup):
            work += one.exceptions
        else:
            yield one
