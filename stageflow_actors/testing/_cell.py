"""What stands in the place of a task's coroutine: it runs the coroutine only when the controller says so.

Trio drives a task by `task.coro.send(outcome)` and gets a *trap*, a request to the scheduler, back. A cell
has the same interface. Where the controller has chosen another task, it keeps the outcome and answers with a
trap of its own, the gate, in which the task waits until it is chosen. The gate's abort function answers
`FAILED`, so that a cancellation comes at the coroutine's next checkpoint, as it does for a runnable task.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, final

import attrs
import outcome
from trio.lowlevel import Abort, Task, cancel_shielded_checkpoint, wait_task_rescheduled

from ._frames import IN_CHILDREN, IN_NOTHING, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ._control import Controller
    from ._frames import Wait


def _get_trap(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """Return what an async function of trio's asks of its scheduler."""
    awaited = function(*args)
    trap = awaited.send(None)
    awaited.close()
    return trap


GATE: Final = _get_trap(wait_task_rescheduled, lambda _raise_cancel: Abort.FAILED)
CHECKPOINT: Final = _get_trap(cancel_shielded_checkpoint)


@final
class _Nothing:
    """The outcome of a checkpoint. One of `outcome` can be unwrapped once only; this one is for all."""

    def unwrap(self) -> None:
        """Return nothing."""


NOTHING: Final = _Nothing()


_UNDEAD: Final[list[object]] = []
"""Coroutines that went on whatever was raised in them. To collect one would run it again, inside another trio run."""


_COUNTS_POINTS: Final = hasattr(Task, "_schedule_points")


class Abandoned(BaseException):
    """Ends what does not end by itself, after a failure was found."""


@final
@attrs.frozen
class Thrown:
    """The outcome that is raised in a coroutine by `throw`, for it takes no other."""

    error: BaseException


class State(enum.Enum):
    """Where a task is between its steps."""

    BLOCKED = enum.auto()
    """It waits for something in trio."""
    SCHEDULED = enum.auto()
    """Trio is about to resume it."""
    PARKED = enum.auto()
    """It could go on, and waits in the gate."""
    RUNNING = enum.auto()
    DONE = enum.auto()


class Detour(Protocol):
    """What a fault does with a task that is about to go on."""

    def begin(self, value: Any) -> tuple[Any, Any]:
        """Return the coroutine that is run first, or None, and the outcome to go on with."""


@final
class Cell:
    """A task of the explored program, in trio's eyes its coroutine."""

    __slots__ = (
        "_after",
        "_body",
        "_controller",
        "detour",
        "inner",
        "is_system",
        "name",
        "number",
        "ready_since",
        "since",
        "state",
        "task",
        "value",
        "wait",
    )

    def __init__(self, controller: Controller, task: Task, *, number: int, name: str, is_system: bool) -> None:
        self._controller = controller
        self.task = task
        self.inner: Coroutine[Any, Any, Any] = task.coro
        self._body: Coroutine[Any, Any, Any] = self.inner
        """What is driven: the coroutine, except on a detour."""
        self._after: Any = None
        """The outcome with which the coroutine goes on after a detour."""
        self.number = number
        self.name = name
        self.is_system = is_system
        """Whether it is trio's own."""
        self.state = State.BLOCKED
        self.value: Any = None
        """With which outcome it goes on, while it is parked."""
        self.wait: Wait = IN_NOTHING
        self.since = 0
        """The step after which it has been where it is."""
        self.ready_since = 0
        """The step after which it could have gone on."""
        self.detour: Detour | None = None
        """What a fault does at its next step."""

    @property
    def is_waiting(self) -> bool:
        """Whether its step is still to come."""
        return self.state is State.PARKED or self.state is State.SCHEDULED

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.state is State.DONE

    def send(self, value: Any) -> Any:  # noqa: C901, PLR0912 (every step of every task goes through it)
        """Let the coroutine go on if it is chosen, until it waits for something; else keep it in the gate."""
        __tracebackhide__ = True
        controller = self._controller
        if self.state is State.PARKED:
            value, self.value = self.value, None
        elif controller.granted is not self and controller.is_active:
            self.state = State.PARKED
            self.value = value
            return GATE
        while True:
            self.state = State.RUNNING
            if not controller.is_active:
                controller.outlive()
            if controller.drops and not self.is_system:
                self._drop()
            if self.detour is not None:
                value = self._turn_aside(value)
            if controller.tracker is not None:
                controller.tracker.deliver(value)
            try:
                trap = self._body.throw(value.error) if type(value) is Thrown else self._body.send(value)
            except BaseException as error:
                if self._body is not self.inner:
                    value = self._come_back(error)
                    continue
                self.state = State.DONE
                controller.leave(self, error)
                raise
            if trap is not CHECKPOINT:
                self.state = State.BLOCKED
                self._block(trap)
                return trap
            self.state = State.PARKED
            if not controller.is_active:
                self.value = NOTHING
                return CHECKPOINT
            if not controller.go_on(self):
                self.value = NOTHING
                return GATE
            # It goes on without a pass of trio's loop, which would cost more than the step.
            if _COUNTS_POINTS:
                self.task._schedule_points += 1  # noqa: SLF001 (what `trio.testing.assert_checkpoints` reads)
            value = NOTHING

    def throw(self, error: BaseException) -> Any:
        """Raise an error in the coroutine: what trio does with one that asks for what it does not know."""
        __tracebackhide__ = True
        return self.send(Thrown(error))

    def _block(self, trap: Any) -> None:
        controller = self._controller
        wait = classify(trap)
        if wait is not IN_NOTHING and not self.is_system:
            self.wait = wait
            if wait is not IN_CHILDREN:
                controller.outside.enter(wait)
        controller.stop(self)

    def resume(self) -> None:
        """Note that trio is about to resume it."""
        if self.wait is not IN_NOTHING and self.wait is not IN_CHILDREN:
            self._controller.outside.leave(self.wait)
        self.wait = IN_NOTHING
        self.state = State.SCHEDULED

    def _drop(self) -> NoReturn:
        """Have the task end, as if it had returned, although its coroutine does not."""
        self.state = State.DONE
        _UNDEAD.append(self.inner)
        end = StopIteration()
        self._controller.leave(self, end)
        raise end

    def _turn_aside(self, value: Any) -> Any:
        assert self.detour is not None
        detour, self.detour = self.detour, None
        body, value = detour.begin(value)
        if body is None:
            return value
        self._body, self._after = body, value
        return None

    def _come_back(self, error: BaseException) -> Any:
        """Return with which outcome the coroutine goes on after a detour has ended."""
        self._body = self.inner
        after, self._after = self._after, None
        return after if isinstance(error, StopIteration) else outcome.Error(error)

    def __getattr__(self, name: str) -> Any:
        """Return what trio and its tools want of a coroutine: `cr_frame`, `cr_await`, `cr_suspended`, `close`."""
        return getattr(self.inner, name)
