"""One attempt at a stage: how its runner is called, timed, left and, in a thread, given up.

Errors come out as the user's code raised them; what they mean for the run is decided above.
"""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

import trio
from trio.lowlevel import Task, current_task, disable_ki_protection

from ._graph import DIRECT_CLASS, DIRECT_FUNCTION
from ._output import EMPTY_OUTPUT, StageOutput, make_ok
from ._placement import Lodger
from ._threads import ThreadedCall, apart
from .errors import NurseryLeftOpenError, StageReturnTypeError, StageTimeoutError

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from ._placement import Host
    from ._shutdown import Shutdown
    from ._stage import RunnerForm, StageContext, StageInputs

_logger: Final = logging.getLogger("stageflow_actors")


def to_output(returned: Any) -> StageOutput:
    """Return what a stage returned as an output.

    Raises:
        StageReturnTypeError: It is none.
        NotFreezableError: It holds a value that cannot be frozen.
    """
    if returned is None:
        return EMPTY_OUTPUT
    if isinstance(returned, StageOutput):
        return returned
    if isinstance(returned, Mapping):
        return StageOutput.ok(returned)
    if inspect.iscoroutine(returned):
        returned.close()
        problem = f"it returned the coroutine {returned.__qualname__!r}"
        raise StageReturnTypeError(problem, hint="await it, or define the stage with `async def`")
    problem = f"it returned {reprlib.repr(returned)}, of type {type(returned).__qualname__}"
    raise StageReturnTypeError(problem, hint="return StageOutput.ok(...), a mapping or None")


@disable_ki_protection
async def call_function(function: Callable[[StageContext], Awaitable[Any]], ctx: StageContext) -> Any:
    """Run an async function, or an instance's `execute`."""
    return await function(ctx)


@disable_ki_protection
async def call_class(cls: Callable[[], Any], ctx: StageContext) -> Any:
    """Run a fresh instance of a stage class."""
    return await cls().execute(ctx)


def ask(context: contextvars.Context, when: Callable[[StageInputs], Any], inputs: StageInputs) -> bool:
    """Return what a condition says of a stage's inputs, in the context of the run.

    Raises:
        StageReturnTypeError: It is an async function in disguise.
    """
    answer = context.run(next, apart(when, inputs))
    if inspect.iscoroutine(answer):
        answer.close()
        problem = f"its condition returned the coroutine {answer.__qualname__!r}"
        raise StageReturnTypeError(problem, hint="a condition is a plain function of the stage's inputs")
    return bool(answer)


@disable_ki_protection
def make_instance(cls: Callable[[], Any]) -> Any:
    """Make the instance of one attempt."""
    return cls()


@final
class Entered:
    """An instance inside its own `__aenter__` and `__aexit__`, left behind a shield.

    The shield's scope surrounds both, so that a nursery may be opened in the one and closed in the other.
    """

    __slots__ = ("_instance", "_scope", "_shutdown", "error")

    def __init__(self, instance: Any, scope: trio.CancelScope, shutdown: Shutdown) -> None:
        self._instance = instance
        self._scope = scope
        self._shutdown = shutdown
        self.error: BaseException | None = None

    @disable_ki_protection
    async def __aenter__(self) -> None:
        await self._instance.__aenter__()

    @disable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.error = error
        self._shutdown.shield(self._scope)
        try:
            return await self._instance.__aexit__(kind, error, traceback)  # type: ignore[no-any-return]
        finally:
            self._shutdown.release(self._scope)


def _nothing() -> None:
    pass


async def perform(
    form: RunnerForm,
    direct: int,
    target: Callable[..., Any],
    ctx: StageContext,
    timeout: float | None,
    host: Host | None,
) -> tuple[StageOutput | None, BaseException | None]:
    """Run one attempt to its end; return what it returned, or what it raised. Raises nothing.

    Args:
        form: How the runner is to be called.
        direct: Whether that is one await, and of what; see `find_direct`.
        target: What is called: a class, or a function of the context.
        ctx: The actor's context.
        timeout: Seconds that `execute` may take, or None.
        host: What the run lends to the attempt, where it is more than one await.
    """
    output: StageOutput | None = None
    error: BaseException | None = None
    try:
        if direct == DIRECT_FUNCTION:
            returned = await call_function(target, ctx)
        elif direct == DIRECT_CLASS:
            returned = await call_class(target, ctx)
        else:
            assert host is not None
            returned = await run_special(form, target, ctx, timeout, host)
        cls = returned.__class__
        output = returned if cls is StageOutput else make_ok(returned) if cls is dict else to_output(returned)
    except BaseException as raised:
        error = raised
    task = current_task()
    if task.child_nurseries:
        left_open = await close_nurseries(task)
        left_open.__context__ = error
        output, error = None, left_open
        del left_open
    try:
        return output, error
    finally:
        del error  # its traceback keeps this frame


async def run_special(
    form: RunnerForm, target: Callable[..., Any], ctx: StageContext, timeout: float | None, host: Host
) -> Any:
    """Run an attempt that is more than one await: in a thread, with a timeout, or inside a context manager.

    Args:
        form: How the runner is to be called.
        target: What is called: a class, or a function of the context.
        ctx: The stage's context.
        timeout: Seconds that `execute` may take, or None.
        host: What the run lends to the attempt.

    Raises:
        StageTimeoutError: The attempt ran into its timeout, or its cleanup into the shutdown budget.
        ThreadAbandonedError: Its thread outlived the shutdown budget.
    """
    note_start = host.note_start if form.is_threaded else _nothing
    if not form.is_managed:
        function = make_instance(target).execute if form.is_class else target
        return await _run_timed(form, function, ctx, timeout, host, note_start)
    scope = trio.CancelScope()
    with scope:
        instance = make_instance(target)
        if isinstance(instance, Lodger):
            instance.host = host
        entered = Entered(instance, scope, host.shutdown)
        async with entered:
            return await _run_timed(form, instance.execute, ctx, timeout, host, _nothing)
        return None  # __aexit__ swallowed an error
    seconds = host.shutdown.seconds
    problem = f"its __aexit__ was still running when the shutdown budget of {seconds:g} s was spent"
    raise StageTimeoutError(problem, seconds=seconds) from entered.error


async def _run_timed(
    form: RunnerForm,
    function: Callable[[StageContext], Any],
    ctx: StageContext,
    timeout: float | None,
    host: Host,
    note_start: Callable[[], None],
) -> Any:
    if timeout is None:
        return await _run_once(form, function, ctx, host, note_start)
    scope = trio.CancelScope()

    def begin() -> None:
        note_start()
        scope.deadline = trio.current_time() + timeout

    try:
        with scope:
            return await _run_once(form, function, ctx, host, begin)
    except BaseException as error:
        if scope.cancel_called and not isinstance(error, trio.Cancelled):
            late = _make_timeout(timeout)
            late.__context__ = error.__context__
            error.__context__ = late
        raise
    raise _make_timeout(timeout)


def _make_timeout(seconds: float) -> StageTimeoutError:
    return StageTimeoutError(f"it ran into its timeout of {seconds:g} s", seconds=seconds)


async def _run_once(
    form: RunnerForm,
    function: Callable[[StageContext], Any],
    ctx: StageContext,
    host: Host,
    begin: Callable[[], None],
) -> Any:
    if host.placement is not None:
        site = await host.reach(host.placement)
        await trio.lowlevel.checkpoint_if_cancelled()  # the run may have stopped in the step in which it was opened
        return await site.call(function, ctx, begin, host)
    if not form.is_async:
        return await ThreadedCall(function, host.threads, begin, host.keep).run(ctx, host.shutdown)
    begin()
    task = current_task()
    before = len(task.child_nurseries)
    try:
        returned = await call_function(function, ctx)
    except BaseException:
        if len(task.child_nurseries) > before:
            raise await close_nurseries(task, before)  # noqa: B904 (the context is what it should be)
        raise
    if len(task.child_nurseries) > before:
        raise await close_nurseries(task, before)
    return returned


def split_cancelled(error: BaseException, cancelled: type[BaseException] = trio.Cancelled) -> BaseException | None:
    """Return what remains of an error when every cancellation is taken out of it, or None.

    Args:
        error: What was raised.
        cancelled: What the event loop that raised it cancels with.
    """
    if isinstance(error, cancelled):
        return None
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancelled)[1]
    return error


async def close_nurseries(task: Task, keep: int = 0) -> BaseException:
    """Cancel and close the nurseries that a stage left open, and return the error to fail it with.

    Trio would end the whole run for them when the task exits ("Nursery stack corrupted"), and has no
    public way to close a nursery from outside its block.

    Args:
        task: The stage's task: the present one.
        keep: How many of its nurseries, from the outermost, are not the stage's.

    Returns:
        A `NurseryLeftOpenError`, its cause what the children raised; or what they raised, where that
        is no `Exception`.
    """
    errors: list[Exception] = []
    count = 0
    while len(task.child_nurseries) > keep:
        nursery = task.child_nurseries[-1]
        count += 1
        nursery.cancel_scope.cancel()
        error = await nursery._nested_child_finished(None)  # noqa: SLF001
        try:
            if nursery.cancel_scope.__exit__(type(error) if error else None, error, None):
                error = None
        except BaseException as rest:
            error = rest
        remains = split_cancelled(error) if error else None
        if isinstance(remains, Exception):
            errors.append(remains)
        elif remains is not None:
            return remains
    left = "a nursery" if count == 1 else f"{count} nurseries"
    made = NurseryLeftOpenError(f"it ended with {left} still open", hint="open nurseries with `async with`")
    if errors:
        made.__cause__ = ExceptionGroup("in a nursery that was left open", errors)
    return made
