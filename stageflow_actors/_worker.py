"""One worker of a resident actor: a task that lives from start to end, and again after every restart."""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import trio
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_task,
    enable_ki_protection,
    wait_task_rescheduled,
)

from ._actor import Entered, call_function, close_nurseries, make_instance, split_cancelled, to_output
from ._bag import describe_error
from ._child import DOWN, LEAVING, STARTING, UP, Unit
from ._failures import advise, make_stray
from ._messages import BEGUN, Message
from ._output import StageOutput, make_ok
from ._policy import Directive
from ._shutdown import Shutdown
from ._threads import ThreadedCall
from ._traceback import drop_own_frames
from .errors import StageflowError, StageTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._resident import Resident
    from ._stage import StageContext

_logger: Final = logging.getLogger("stageflow_actors")

_BURST: Final = 16
"""So many messages may be handled without a checkpoint of the worker's own."""


def _nothing() -> None:
    pass


def _keep_nothing() -> Callable[[], None]:
    return _nothing


@final
class Worker(Unit):
    """Takes one message after the other, and handles it in its own task."""

    __slots__ = ("_before", "_behind", "_life", "_shutdown", "_start", "_work", "leaves", "message", "resident", "task")

    def __init__(self, resident: Resident, index: int) -> None:
        super().__init__(resident, index)
        self.resident = resident
        self.task: Task | None = None
        self.message: Message | None = None
        """What it has in hand."""
        self.leaves = False
        """Whether it ends, normally, after the message in hand: `ctx.stop()`."""
        self._start: trio.CancelScope
        """Around everything, until it is up: cancelled where it is told to end before."""
        self._life: trio.CancelScope
        """Around everything it does: cancelled when its budget for ending is spent."""
        self._work: trio.CancelScope
        """Around the handling of messages: cancelled where it has to end in a hurry."""
        self._shutdown: Shutdown
        self._behind: BaseException | None = None
        """What was on its way out when its budget was spent."""
        self._before = 0
        """How many nurseries its task has open that are the instance's own."""

    def spawn(self) -> None:
        """Start its task, in a copy of the context that the actor was spawned in."""
        self.leaves = False
        self._start, self._life, self._work = trio.CancelScope(), trio.CancelScope(), trio.CancelScope()
        self._shutdown = Shutdown(self.resident.shutdown)
        start_soon: Callable[..., None] = self.child.home.nursery.start_soon
        self.resident.context.run(start_soon, self._live, name=self.resident.name_worker(self))

    def end(self, *, hurry: bool) -> None:
        """Tell it to end: after the message in hand or, in a hurry, at once. Its budget begins with the first call."""
        self.ordered = True
        if self.state is STARTING:
            self._start.cancel()
        elif self.state is not DOWN:
            self._begin_to_leave()
            if hurry:
                self._work.cancel()
            elif self.state is UP:
                self.resident.wake(self)

    def _begin_to_leave(self) -> None:
        self._shutdown.begin()
        self._life.deadline = min(self._life.deadline, self._shutdown.deadline())

    # Its task

    @enable_ki_protection
    async def _live(self) -> None:
        error: BaseException | None = None
        self.task = task = current_task()
        try:
            with self._start, self._life:
                if not self.ordered:
                    await self._serve()
        except BaseException as raised:
            error = raised
        if task.child_nurseries:  # which the instance's __aenter__ opened and its __aexit__ did not close
            left_open = await close_nurseries(task)
            left_open.__context__ = error
            error = left_open
            del left_open
        error = self._judge_end(error)
        self._let_go(error)
        self.task = None
        if error is not None:
            drop_own_frames(error)
        self.enter(DOWN)
        self.child.home.unit_ended(self, error)
        del error  # its traceback keeps this frame

    def _judge_end(self, error: BaseException | None) -> BaseException | None:
        """Return what it really ended with: its own cancellation is no error, an error that was swallowed is one."""
        if error is not None:
            remains = split_cancelled(error)
            if remains is None and not (self._start.cancel_called or self._life.cancel_called):
                remains = make_stray(error)
            error = remains
        error = error or self.error
        if error is None and self._life.cancelled_caught and self.started:
            seconds = self._shutdown.seconds
            problem = f"it had not ended when its shutdown budget of {seconds:g} s was spent, and was cancelled"
            error = StageTimeoutError(problem, seconds=seconds, actor=self.resident.path)
            error.__cause__ = self._behind
        self._behind = None
        return error

    async def _serve(self) -> None:
        resident = self.resident
        form = resident.form
        if not form.is_managed:
            function = make_instance(resident.runner).execute if form.is_class else resident.target
            await self._work_through(function)
            return
        instance = make_instance(resident.runner)
        try:
            async with Entered(instance, self._life, self._shutdown):
                await self._work_through(instance.execute)
                if self.error is not None:
                    raise self.error
        except trio.Cancelled as cancelled:
            self._behind = cancelled.__context__
            raise

    async def _work_through(self, function: Callable[..., Any]) -> None:
        """Handle messages until it has to end; what it failed with by itself is its error."""
        self._life.shield = True  # what its start was told does not concern it any more
        self._before = len(current_task().child_nurseries)
        try:
            if self.ordered:
                return
            self.come_up()
            with self._work:
                await self._handle_all(function)
        finally:
            self.enter(LEAVING)
            self._begin_to_leave()
            if self.message is not None and self.message.where is not BEGUN:
                message, self.message = self.message, None
                self.resident.put_back(message)

    async def next_message(self) -> None:
        """Wait until there is a message, or something to be told."""
        self.resident.idle.append(self)
        await wait_task_rescheduled(self._abort)

    def _abort(self, _raise_cancel: Callable[[], None]) -> Abort:
        self.resident.idle.remove(self)
        return Abort.SUCCEEDED

    async def _handle_all(self, function: Callable[..., Any]) -> None:
        resident = self.resident
        is_async = resident.form.is_async
        returned: Any
        output: Any
        task = current_task()
        handled = 0
        while not (self.ordered or self.leaves):
            message = self.message
            if message is None:
                message = resident.take()
                if message is None:
                    handled = 0
                    ctx = returned = output = None  # what they hold is not to wait for the next message
                    await self.next_message()
                    continue
                self.message = message
            if handled == _BURST:
                handled = 0
                await checkpoint()
                continue
            handled += 1
            ctx = resident.begin(message, self)
            if ctx is None:
                self.message = None
                continue
            error: BaseException | None = None
            try:
                returned = await (call_function(function, ctx) if is_async else self._call_in_thread(function, ctx))
                cls = returned.__class__
                output = returned if cls is StageOutput else make_ok(returned) if cls is dict else to_output(returned)
            except BaseException as raised:
                error = raised
            if len(task.child_nurseries) > self._before:
                left_open = await close_nurseries(task, self._before)
                left_open.__context__ = error
                error = left_open
                del left_open
            ctx._emit = None  # noqa: SLF001 (closed where it was made)
            if error is None:
                self.message = None
                resident.reply(message, output)
            elif not self._fail(message, error):
                del error
                return
            del error

    async def _call_in_thread(self, function: Callable[..., Any], ctx: StageContext) -> Any:
        call = ThreadedCall(function, self.child.home.threads, _nothing, _keep_nothing)
        # Cancelled when the actor's budget is spent, a thread is given as long again to notice.
        return await call.run(ctx, Shutdown(self.resident.shutdown))

    def _fail(self, message: Message, error: BaseException) -> bool:
        """Take what the stage raised; return whether it goes on as it is."""
        remains = split_cancelled(error)
        if remains is None:
            if self._life.cancel_called or trio.current_effective_deadline() == -inf:
                raise error  # what it was cancelled for is seen when it has left; the message is let go of then
            remains = make_stray(error)
        drop_own_frames(remains)
        advise(remains)
        if isinstance(remains, StageflowError):
            remains.locate(actor=self.resident.path)
        self.message = None
        self.delivery = message.deliveries
        directive, remains = self.resident.direct(remains)
        if directive is Directive.RESUME and not self.ordered:
            assert isinstance(remains, Exception)
            self.resident.fail(message, remains)
            _logger.warning("actor %r resumes after %s", self.resident.path, describe_error(remains))
            self.resident.tell_resumed(self, remains)
            return True
        if not self.ordered or not isinstance(remains, Exception):
            self.directive, self.error = directive, remains
        if directive is Directive.RESTART:
            self._hand_in(message, remains)
        else:
            self.resident.fail(message, remains)
        return False

    def _hand_in(self, message: Message, error: BaseException) -> None:
        """Put back a message over which the stage has failed, if it may be delivered again."""
        self.redelivers = self.resident.may_redeliver(message, error)
        if self.redelivers:
            assert isinstance(error, Exception)
            message.error = error
            self.resident.put_back(message)
        else:
            self.resident.fail(message, error)

    def _let_go(self, error: BaseException | None) -> None:
        """Let go of the message in hand, where it ends with one."""
        message, self.message = self.message, None
        if message is None:
            return
        self.delivery = message.deliveries
        self.redelivers = self.resident.may_redeliver(message, error)
        if self.redelivers:
            self.resident.put_back(message)
        elif self.ordered or not isinstance(error, Exception):
            self.resident.interrupt(message)
        else:
            self.resident.fail(message, error)
