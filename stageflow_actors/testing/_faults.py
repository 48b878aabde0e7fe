"""What can be made to go wrong in a program that is explored: pure values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from typing import Any, Final, TypeAlias, final

import attrs

from stageflow_actors._validation import refuse, require_between, require_count, require_name
from stageflow_actors.errors import InjectedError

from ._brief import Brief

ANY: Final = "*"
"""The name that stands for any task, or any actor."""

_KNOWN: Final = "Crash, Delay, Cancel, ClockJump, Late, Doubled or Dropped"

ErrorSource: TypeAlias = type[Exception] | Callable[[], Exception] | Exception
"""What a crash raises: a type or function that is called without arguments, or an exception, which is copied."""


class Fault(Brief):
    """The base of the faults: a program's `faults` are an iterable of them.

    `Crash` and `Delay` strike a task, `Cancel` and `ClockJump` the program, `Late`, `Doubled` and `Dropped` a message
    to a resident actor. Each strikes once, at most. A point is an await that stands for real work, which can fail and
    take long: a checkpoint, a sleep, a thread, a socket. Locks, events and memory channels have none.
    """

    __slots__ = ()


@final
@attrs.frozen(repr=False)
class Crash(Fault):
    """A task raises an error where it comes back from an await, as if what it awaited had failed.

    Raises:
        PipelineValidationError: A value cannot be used, or `error` cannot be made anew for every execution.
    """

    on: str
    """The name of the task or stage; `"*"` for any but the program itself."""
    at: int | None = None
    """Which of its points, counted from 1; None for any or none, explored as a choice."""
    error: ErrorSource = InjectedError
    """A type of exception or a function, called without arguments, or an exception, of which a copy is raised."""

    def __attrs_post_init__(self) -> None:
        require_name("the on of a Crash", self.on)
        _require_point("the at of a Crash", self.at)
        _require_error(self.error)


@final
@attrs.frozen(repr=False)
class Delay(Fault):
    """A task stays behind for some seconds of the program's clock before it goes on from an await.

    Raises:
        PipelineValidationError: A value cannot be used.
    """

    on: str
    """The name of the task or stage; `"*"` for any but the program itself."""
    at: int | None = None
    """Which of its points, counted from 1; None for any or none, explored as a choice."""
    seconds: float = 1.0
    """On the clock of the program, which jumps: nobody waits for them."""

    def __attrs_post_init__(self) -> None:
        require_name("the on of a Delay", self.on)
        _require_point("the at of a Delay", self.at)
        require_between("the seconds of a Delay", self.seconds, 0)


@final
@attrs.frozen(repr=False)
class Cancel(Fault):
    """The whole program is cancelled from outside, as by a cancel scope around it.

    Raises:
        PipelineValidationError: A value cannot be used.
    """

    at: int | None = None
    """At which step of the execution, counted from 1; None for any or none, explored as a choice."""

    def __attrs_post_init__(self) -> None:
        _require_point("the at of a Cancel", self.at)


@final
@attrs.frozen(repr=False)
class ClockJump(Fault):
    """The program's clock jumps ahead, past any deadlines that lie between, as when a machine sleeps.

    Raises:
        PipelineValidationError: A value cannot be used.
    """

    seconds: float
    """How far."""
    at: int | None = None
    """At which step of the execution, counted from 1; None for any or none, explored as a choice."""

    def __attrs_post_init__(self) -> None:
        require_between("the seconds of a ClockJump", self.seconds, 0)
        _require_point("the at of a ClockJump", self.at)


class MessageFault(Fault):
    """The base of the faults that befall messages to resident actors: asks, tells, and stages of runs alike."""

    __slots__ = ()

    on: str
    at: int | None

    def _check(self) -> None:
        kind = type(self).__name__
        require_name(f"the on of a {kind}", self.on)
        if "" in self.on.split("/"):
            refuse(f"the on of a {kind} must be the full name of an actor, such as 'ingest/parser', not {self.on!r}")
        _require_point(f"the at of a {kind}", self.at)


@final
@attrs.frozen(repr=False)
class Late(MessageFault):
    """A message to an actor is accepted at once, and comes late: messages that were sent after it overtake it.

    Those of other tasks, that is. What the same task sends to the same actor meanwhile comes after it, for the order
    of these is what a mailbox promises. Until it comes it is queued in every other respect: it takes up room, its
    asker may give up, it is a dead letter where the actor ends. It strikes only where the mailbox has room.

    Raises:
        PipelineValidationError: A value cannot be used.
    """

    on: str
    """The actor, by its name with those of the supervisors above, such as `ingest/parser`; `"*"` for any."""
    at: int | None = None
    """Which of the messages that are sent to it, counted from 1; None for any or none, explored as a choice."""
    seconds: float = 1.0
    """By how much, on the clock of the program, which jumps: nobody waits for them."""

    def __attrs_post_init__(self) -> None:
        self._check()
        require_between("the seconds of a Late", self.seconds, 0)


@final
@attrs.frozen(repr=False)
class Doubled(MessageFault):
    """A message is handled, replied to, and then delivered to the actor again, as if that had never been noted.

    The second delivery comes before all that is queued, with the same `idempotency_key` and the next `attempt`. The
    asker has the first reply; the second is a `late_reply`. In the ledger the message ends as its last delivery does.

    It strikes only what may be delivered again: actors with `idempotent=True` and `max_deliveries` left.

    Raises:
        PipelineValidationError: A value cannot be used; or, while it is explored, the actor that it names delivers
            nothing twice.
    """

    on: str
    """The actor, by its name with those of the supervisors above, such as `ingest/parser`; `"*"` for any."""
    at: int | None = None
    """Which of the messages that are sent to it, counted from 1; None for any or none, explored as a choice."""

    def __attrs_post_init__(self) -> None:
        self._check()


@final
@attrs.frozen(repr=False)
class Dropped(MessageFault):
    """A message finds the mailbox full, and the mailbox does what its `overflow` says.

    With `reject`, `drop_newest` and `drop_oldest` a message is refused or dropped, with the errors, dead letters and
    counts of a mailbox that is full. With `wait` none is lost: its sender waits until others had a turn, and
    `tell_nowait` raises the `MailboxFullError`.

    Raises:
        PipelineValidationError: A value cannot be used; or, while it is explored, the mailbox of the actor that it
            names is never full.
    """

    on: str
    """The actor, by its name with those of the supervisors above, such as `ingest/parser`; `"*"` for any."""
    at: int | None = None
    """Which of the messages that are sent to it, counted from 1; None for any or none, explored as a choice."""

    def __attrs_post_init__(self) -> None:
        self._check()


def make_error(crash: Crash) -> Exception:
    """Return a new exception of the kind that a crash raises: no two executions share a traceback.

    An `InjectedError` says which crash it is of; give a crash whose `on` and `at` are known, where they are.

    Raises:
        PipelineValidationError: The crash's function returned what is no exception.
    """
    source = crash.error
    if source is InjectedError:
        return InjectedError(f"injected by {crash!r}")
    if isinstance(source, Exception):
        return _copy(source)
    error: object = source()
    if not isinstance(error, Exception):
        refuse(f"the error of a Crash must be an Exception, not {error!r}, which {source!r} returned")
    return error


def require_faults(faults: object) -> tuple[Fault, ...]:
    """Return a fault plan, given as an iterable of faults, as a tuple.

    Raises:
        PipelineValidationError: It is no iterable, or holds something else.
    """
    if isinstance(faults, Fault):
        refuse(f"faults must be an iterable of faults, not {faults!r}", hint=f"write faults=({faults!r},)")
    if isinstance(faults, str) or not isinstance(faults, Iterable):
        refuse(f"faults must be an iterable of faults, not {faults!r}")
    plan = tuple(faults)
    for fault in plan:
        if not isinstance(fault, Fault):
            refuse(f"a fault must be a {_KNOWN}, not {fault!r}")
    return plan


def _require_point(what: str, at: object) -> None:
    if at is not None:
        require_count(what, at)


def _require_error(error: Any) -> None:
    if error is InjectedError:
        return
    if isinstance(error, Exception):
        _copy(error)
    elif isinstance(error, type) and issubclass(error, Exception):
        try:
            error()
        except Exception as reason:  # whatever a user's constructor raises
            problem = f"the error of a Crash cannot be made by {error.__qualname__}(): {reason}"
            refuse(problem, hint=f"give an instance, or a function: error=lambda: {error.__qualname__}(...)")
    elif isinstance(error, (type, BaseException)) or not callable(error):
        refuse(f"the error of a Crash must be an Exception, a type of one, or a function, not {error!r}")


def _copy(error: Exception) -> Exception:
    """Return a copy without a traceback, whatever has been raised with the original."""
    hint = f"give a function that makes it: error=lambda: {type(error).__qualname__}(...)"
    try:
        same = copy(error)
    except Exception as reason:  # whatever a user's constructor raises
        refuse(f"the error of a Crash, {error!r}, cannot be copied: {reason}", hint=hint)
    if same.args != error.args:  # its constructor makes a message of its arguments, and has made one of the message
        refuse(f"the error of a Crash, {error!r}, cannot be copied: its copy is {same!r}", hint=hint)
    same.__cause__ = error.__cause__
    same.__suppress_context__ = error.__suppress_context__
    return same
