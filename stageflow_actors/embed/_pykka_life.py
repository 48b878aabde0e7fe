"""The life of a pykka actor that is a stage: one thread, which nobody waits for but by being told."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import outcome
import pykka
import trio
from trio.lowlevel import Abort, current_task, reschedule

from stageflow_actors._bag import describe_error
from stageflow_actors._threads import apart
from stageflow_actors.errors import ActorDeadError, ThreadAbandonedError

from ._pykka_actor import BridgedActor, register_supervisors_last

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from stageflow_actors import StageContext
    from stageflow_actors._placement import Host

_logger: Final = logging.getLogger("stageflow_actors")


@final
@attrs.frozen
class Plan:
    """What a stage starts its actors by."""

    name: str
    """Of the actor's class."""
    make: Callable[[], object]
    """Makes one, and runs it to its end, in the present thread."""
    handle: Callable[[Any, StageContext], Any]
    shutdown: float
    daemon: bool


@final
class Request:
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

    def perform(self, actor: StagedActor) -> None:
        """Handle it, in the actor's thread. Raises nothing."""
        context, call = self._context, apart(self._function, actor, self._ctx)
        del self._context, self._ctx  # pykka keeps a message until the next one comes
        if self.raise_cancel is not None:
            return
        context.run(_REQUEST.set, self)
        # Whatever it is: pykka would stop every actor over what is no `Exception`, and answer nobody.
        result: outcome.Outcome[Any] = context.run(outcome.capture, next, call)
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


_REQUEST: Final[contextvars.ContextVar[Request | None]] = contextvars.ContextVar(
    "stageflow_actors.embed.pykka.request", default=None
)


class StagedActor(BridgedActor):
    """What is mixed into a user's actor to make it a stage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._bridge_life = _LIFE.get()
        """None in one that its own code has started, which is an actor as any other."""
        _LIFE.set(None)  # it is this actor's, and no other's: one of its class that its constructor starts
        super().__init__(*args, **kwargs)

    def _start_actor_loop(self) -> None:
        life = self._bridge_life
        if life is None:
            super()._start_actor_loop()
            return
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
        if type(message) is Request:
            return message.perform(self)
        return super().on_receive(message)


@final
class Life:
    """The life of one actor, as its thread and the task that has started it see it."""

    def __init__(self, plan: Plan) -> None:
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
        self._free: Callable[[], None] | None = None
        """Gives back what an attempt that was abandoned holds."""

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
        if self._free is not None:
            self._free()

    async def end(self, host: Host | None) -> None:
        """Tell it to stop, and wait for its thread.

        Args:
            host: What a run lends to the attempt; None in a resident actor.

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
            if host is not None:
                self._free = host.keep()
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


_LIFE: Final[contextvars.ContextVar[Life | None]] = contextvars.ContextVar(
    "stageflow_actors.embed.pykka.life", default=None
)
"""What the actor that is started in this thread takes over."""


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
