"""A pykka actor as a stage: started, asked and stopped by the runtime."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import types
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, final

import pykka
import trio
from trio.lowlevel import enable_ki_protection, wait_task_rescheduled

from stageflow_actors import StageKind
from stageflow_actors._bag import describe_error
from stageflow_actors._placement import Lodger
from stageflow_actors._validation import refuse, require_seconds

from ._pykka_life import Life, Plan, Request, StagedActor

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
        actor_class.__name__, (StagedActor, actor_class), exec_body=lambda ns: ns.update(body)
    )
    make = functools.partial(adapted.start, *args, **kwargs)
    daemon = actor_class.use_daemon_thread
    return functools.partial(PykkaStage, Plan(name, make, function, require_seconds("shutdown", shutdown), daemon))


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
class PykkaStage(Lodger):
    """A stage that is a pykka actor, from the entry to the exit of an attempt or an incarnation."""

    kind = StageKind.WORK

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._life: Life

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        life = self._life = Life(self._plan)
        life.begin()
        try:
            await life.begun.wait()
        except BaseException:  # Cancelled, or an interrupt: nobody will leave what was not entered
            with trio.CancelScope(shield=True):
                await life.end(self.host)
            raise
        if not life.is_up:
            error, life.error = life.error or life.make_dead(), None
            try:
                raise error
            finally:
                del self, life, error  # the traceback of what it raises keeps this frame
        life.scope.__enter__()
        return self

    @enable_ki_protection
    async def execute(self, ctx: StageContext) -> Any:
        """Ask the actor, and wait for its reply."""
        assert self._life.ref is not None
        request = Request(self._plan.handle, ctx)
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
        try:
            life.scope.__exit__(kind, error, traceback)
        finally:
            await life.end(self.host)
        if life.scope.cancelled_caught:
            raise life.make_dead()
        failed, life.stop_error = life.stop_error, None
        if failed is None:
            return
        if error is None or isinstance(error, trio.Cancelled):
            raise failed
        told = "pykka actor %s failed to stop: %s"
        _logger.error(told, self._plan.name, describe_error(failed), exc_info=failed)
