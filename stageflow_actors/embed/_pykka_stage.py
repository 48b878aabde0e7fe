"""A pykka actor as a stage: started, asked and stopped by the runtime, in one thread that it has to itself."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import logging
import threading
import types
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

import attrs
import outcome
import pykka
import trio
from trio.lowlevel import Abort, current_task, enable_ki_protection, reschedule, wait_task_rescheduled

from stageflow_actors import StageKind
from stageflow_actors._actor import Lodger
from stageflow_actors._bag import describe_error
from stageflow_actors._threads import apart
from stageflow_actors._validation import refuse, require_seconds
from stageflow_actors.errors import ActorDeadError, ThreadAbandonedError

from ._pykka_actor import BridgedActor, register_supervisors_last

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from stageflow_actors import StageContext, StageReturn

A = TypeVar("A", bound=pykka.ThreadingActor)
_logger: Final = logging.getLogger("stageflow_actors")


def pykka_stage(
    actor_class: type[A],
    /,
    *args: Any,
    handle: str | Callable[[A, StageContext], StageReturn] = "execute",
    shutdown: float = 5.0,
    **kwargs: Any,
) -> functools.partial[Any]:
    """Return a runner that starts a pykka actor, asks it, and stops it: for `with_stage` and for `spawn`.

    As a stage of a pipeline every attempt has an actor of its own. As a resident actor every incarnation has one, which
    handles one message after the other; restarts, the mailbox, dead letters and timeouts are then the supervisor's.

    The actor lives in one thread, `__init__` and hooks included, so that it may own what belongs to one thread. It is
    in pykka's registry while it lives. What its handler raises is the attempt's error, also a `KeyboardInterrupt`, and
    does not stop other actors; so is what `__init__`, `on_start` and `on_stop` raise. Where somebody else stops it, the
    attempt, or the incarnation, fails with an `ActorDeadError`. Context variables cross into the handler.

    A cancelled attempt does not wait for its handler's reply, which is dropped. The handler can find out by calling
    `check_cancelled`. The actor is then told to stop, and its thread is waited for.

    Args:
        actor_class: The class of the actor; an existing one will do.
        args: What its constructor takes.
        handle: What it does with a message, in its thread: the name of a method that takes the stage's context; a
            function of the actor and the context; or `"on_receive"`, which gets the snapshot's data as a dict. What is
            returned becomes the stage's output, as with every stage.
        shutdown: Seconds that its thread may take to end, `on_stop` included, once it was told to; less where the run
            has less left. Past it the stage is `ABANDONED`, and the thread ends when it will.
        kwargs: What its constructor takes.

    Raises:
        PipelineValidationError: An argument cannot be. Nothing has started.
    """
    if not isinstance(actor_class, type) or not issubclass(actor_class, pykka.ThreadingActor):
        hint = "pass the class itself: pykka_stage(Counter), not Counter.start()"
        refuse(f"pykka_stage takes a subclass of pykka.ThreadingActor, not {actor_class!r}", hint=hint)
    name = actor_class.__qualname__
    function = _find_handle(actor_class, handle)
    _check_call(actor_class, args, kwargs, f"pykka actor {name}", "pass what its constructor takes after the class")
    body = {"__module__": actor_class.__module__, "__qualname__": name, "__doc__": actor_class.__doc__}
    adapted: Any = types.new_class(
        actor_class.__name__, (_StagedActor, actor_class), exec_body=lambda ns: ns.update(body)
    )
    make = functools.partial(adapted.start, *args, **kwargs)
    daemon = actor_class.use_daemon_thread
    return functools.partial(PykkaStage, _Plan(name, make, function, require_seconds("shutdown", shutdown), daemon))


def check_cancelled() -> None:
    """Raise `trio.Cancelled` where the stage whose handler this is called in was cancelled; else do nothing.

    For the thread of an actor that is a `pykka_stage`. As in trio itself, let the exception pass: whoever asked has
    gone on already, and nothing that the handler still does, returns or raises counts.

    Raises:
        trio.Cancelled: It was cancelled.
        RuntimeError: No handler of a `pykka_stage` is running here.
    """
    request = _REQUEST.get()
    if request is None:
        message = (
            "check_cancelled() is for the handler of a pykka_stage, in the actor's thread, and none is running here"
        )
        raise RuntimeError(message)
    if request.raise_cancel is not None:
        request.raise_cancel()


def _find_handle(actor_class: type[Any], handle: Any) -> Callable[[Any, StageContext], Any]:
    name = actor_class.__qualname__
    hint = "name a method, or pass a function of the actor and the stage's context"
    if handle == "on_receive":
        return _receive
    if isinstance(handle, str):
        method = getattr(actor_class, handle, None)
        if not callable(method):
            refuse(f"handle={handle!r} is no method of pykka actor {name}", hint=hint)
        bound = not inspect.isfunction(inspect.getattr_static(actor_class, handle))
        _check_call(method, (None,) if bound else (None, None), {}, f"handle={handle!r} of {name}", hint)
        function: Any = _call_method(handle)
    elif callable(handle):
        method = function = handle
        _check_call(handle, (None, None), {}, f"handle={handle!r}", hint)
    else:
        refuse(f"handle must be the name of a method or a function, not {handle!r}", hint=hint)
    if inspect.iscoroutinefunction(method) or inspect.isgeneratorfunction(method):
        refuse(
            f"handle={handle!r} of pykka actor {name} is no plain function", hint="an actor's thread runs no coroutines"
        )
    return function  # type: ignore[no-any-return]


def _check_call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], what: str, hint: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some callables written in C have none
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        refuse(f"{what}{signature} cannot be called: {error}", hint=hint)


def _call_method(name: str) -> Callable[[Any, StageContext], Any]:
    return lambda actor, ctx: methodcaller(name, ctx)(actor)


def _receive(actor: pykka.Actor, ctx: StageContext) -> Any:
    return actor.on_receive(dict(ctx.snapshot.data))


@final
@attrs.frozen
class _Plan:
    """What a stage starts its actors by."""

    name: str
    """Of the actor's class."""
    make: Callable[[], object]
    """Makes one, and runs it to its end, in the present thread."""
    handle: Callable[[Any, StageContext], Any]
    shutdown: float
    daemon: bool


@final
class _Request:
    """One message to the actor, from the task that waits for the reply."""

    __slots__ = ("_context", "_ctx", "_function", "_task", "_token", "raise_cancel")

    def __init__(self, function: Callable[[Any, StageContext], Any], ctx: StageContext) -> None:
        self._function = function
        self._ctx = ctx
        self._context = contextvars.copy_context()
        self._task: trio.lowlevel.Task | None = current_task()
        self._token = trio.lowlevel.current_trio_token()
        self.raise_cancel: Callable[[], None] | None = None
        """Set when whoever asked was cancelled."""

    def perform(self, actor: _StagedActor) -> None:
        """Handle it, in the actor's thread. Raises nothing."""
        if self.raise_cancel is not None:
            return
        self._context.run(_REQUEST.set, self)
        # Whatever it is: pykka would stop every actor over what is no `Exception`, and answer nobody.
        result: outcome.Outcome[Any] = self._context.run(outcome.capture, next, apart(self._function, actor, self._ctx))
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._reply, result)

    def abort(self, raise_cancel: Callable[[], None]) -> Abort:
        """Let the handler know that nobody waits any more."""
        self.raise_cancel = raise_cancel
        self._task = None
        return Abort.SUCCEEDED

    def _reply(self, result: outcome.Outcome[Any]) -> None:
        if self._task is not None:
            reschedule(self._task, result)
            self._task = None


_REQUEST: Final[contextvars.ContextVar[_Request | None]] = contextvars.ContextVar(
    "stageflow_actors.embed.pykka.request", default=None
)


class _StagedActor(BridgedActor):
    """What is mixed into a user's actor to make it a stage."""

    _bridge_life: _Life | None = None
    """None in one that its own code has started, which is an actor as any other."""

    def _start_actor_loop(self) -> None:
        life = self._bridge_life = _LIFE.get()
        if life is None:
            super()._start_actor_loop()
            return
        _LIFE.set(None)  # it is this actor's, and no other's that may be started in this thread
        life.ref = self.actor_ref
        register_supervisors_last()
        if life.is_unwanted:
            self._bridge_bury()
        else:
            self._actor_loop()  # here: this thread is its own from its constructor on

    def on_start(self) -> None:
        result = outcome.capture(next, apart(super().on_start))
        life = self._bridge_life
        if life is None:
            result.unwrap()
        elif isinstance(result, outcome.Error):  # pykka would log the one kind, and leave a zombie over the other
            life.error = result.error
            self.actor_stopped.set()
        else:
            life.tell_up()

    def on_stop(self) -> None:
        result = outcome.capture(next, apart(super().on_stop))
        life = self._bridge_life
        if life is None:
            result.unwrap()
        elif isinstance(result, outcome.Error):
            life.stop_error = result.error

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bridge_life is not None:
            self._bridge_life.error = exception_value
        super().on_failure(exception_type, exception_value, traceback)

    def on_receive(self, message: Any) -> Any:
        if type(message) is _Request:
            return message.perform(self)
        return super().on_receive(message)


@final
class _Life:
    """The life of one actor, as its thread and the task that has started it see it."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._token = trio.lowlevel.current_trio_token()
        self._context = contextvars.copy_context()
        self.ref: pykka.ActorRef[Any] | None = None
        """From the moment on at which it serves its inbox."""
        self.is_unwanted = False
        """Whether it is to end before that."""
        self.is_up = False
        self.is_abandoned = False
        self.error: BaseException | None = None
        """What it failed with: at its start or, later, over what somebody else has sent it."""
        self.stop_error: BaseException | None = None
        self.scope = trio.CancelScope()
        """Cancelled when its thread has ended."""
        self.begun = trio.Event()
        """Set when it is up, or has ended without."""
        self.ended = trio.Event()
        """Set by the last thing that its thread does."""
        self.free: Callable[[], None] | None = None
        """Gives back what an attempt that was abandoned holds, when its thread has ended."""

    # In its thread

    def _live(self) -> None:
        _LIFE.set(self)
        result = outcome.capture(next, apart(self._plan.make))
        if isinstance(result, outcome.Error):
            self.error = result.error
        if self.is_abandoned:
            _logger.warning("the abandoned thread of pykka actor %s has ended", self._plan.name)
        self._tell(self._note_end)

    def tell_up(self) -> None:
        """Tell that it has started."""
        self._tell(self._note_up)

    def _tell(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # nobody is left to be told
            self._token.run_sync_soon(function)

    # On the loop

    def begin(self) -> None:
        """Start its thread."""
        live = functools.partial(self._context.run, self._live)
        threading.Thread(target=live, name=f"pykka actor {self._plan.name}", daemon=self._plan.daemon).start()

    def _note_up(self) -> None:
        self.is_up = True
        self.begun.set()

    def _note_end(self) -> None:
        self.ended.set()
        self.begun.set()
        self.scope.cancel()
        if self.free is not None:
            self.free()

    async def end(self) -> None:
        """Tell it to stop, and wait for its thread.

        Raises:
            ThreadAbandonedError: It outlived its budget, or that of what waits for it.
        """
        self.is_unwanted = True  # either its thread finds this, or this finds the reference
        if self.ref is not None and not self.ended.is_set():
            self.ref.stop(block=False)
        seconds, began = self._plan.shutdown, trio.current_time()
        try:
            with trio.move_on_after(seconds):
                await self.ended.wait()
        except trio.Cancelled:
            if self.ended.is_set():
                raise
            seconds = trio.current_time() - began  # the run had no more
        if not self.ended.is_set():
            self.is_abandoned = True
            if self.ref is not None:
                pykka.ActorRegistry.unregister(self.ref)  # or whoever stops all actors would wait for it
            problem = f"pykka actor {self._plan.name} was still running {seconds:.3g} s after it was told to stop"
            hint = "let its handler call check_cancelled() now and then"
            raise ThreadAbandonedError(problem, seconds=seconds, hint=hint)

    def make_dead(self) -> ActorDeadError:
        """Return the error of a stage whose actor has ended, and not because of the stage."""
        name = self._plan.name
        if self.error is None:
            hint = "let its supervisor stop it"
            return ActorDeadError(f"pykka actor {name} was stopped from outside", hint=hint)
        dead = ActorDeadError(f"pykka actor {name} ended: {describe_error(self.error)}")
        dead.__cause__ = self.error
        return dead


_LIFE: Final[contextvars.ContextVar[_Life | None]] = contextvars.ContextVar(
    "stageflow_actors.embed.pykka.life", default=None
)
"""What the actor that is started in this thread takes over."""


@final
class PykkaStage(Lodger):
    """A stage that is a pykka actor, from the entry to the exit of an attempt or an incarnation."""

    kind = StageKind.WORK

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._life: _Life

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        life = self._life = _Life(self._plan)
        life.begin()
        try:
            await life.begun.wait()
        except BaseException:  # Cancelled, or an interrupt: nobody will leave what was not entered
            with trio.CancelScope(shield=True):
                await self._end()
            raise
        if not life.is_up:
            try:
                raise life.error or life.make_dead()
            finally:
                del self, life  # the traceback of what it raises keeps this frame
        life.scope.__enter__()
        return self

    async def _end(self) -> None:
        try:
            await self._life.end()
        except ThreadAbandonedError:
            if self.host is not None:
                self._life.free = self.host.keep()
            raise

    @enable_ki_protection
    async def execute(self, ctx: StageContext) -> Any:
        """Ask the actor, and wait for its reply."""
        assert self._life.ref is not None
        request = _Request(self._plan.handle, ctx)
        try:
            with contextlib.suppress(pykka.ActorDeadError):  # it is ending, and its end cancels the scope
                self._life.ref.tell(request)
            return await wait_task_rescheduled(request.abort)
        finally:
            del self, ctx, request  # as above

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        life = self._life
        life.scope.__exit__(kind, error, traceback)
        await self._end()
        if life.scope.cancelled_caught:
            raise life.make_dead()
        if life.stop_error is None:
            return
        if error is None or isinstance(error, trio.Cancelled):
            raise life.stop_error
        _logger.error(
            "pykka actor %s failed to stop: %s",
            self._plan.name,
            describe_error(life.stop_error),
            exc_info=life.stop_error,
        )
