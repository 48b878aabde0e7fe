"""What pykka actors need to be bridged: an end that is always noticed, and a stop that nobody waits for in vain."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import pykka

from stageflow_actors._bag import describe_error

if TYPE_CHECKING:
    from pykka._actor import ActorInbox
    from pykka._envelope import Envelope

_INSIDE: Final[ContextVar[tuple[pykka.ActorRef[Any], ...]]] = ContextVar(
    "stageflow_actors.embed.pykka.inside", default=()
)
"""The supervisors that run what runs here, from the outermost to the innermost."""

A = TypeVar("A", bound="BridgedActor")


def enter(supervisor: pykka.ActorRef[Any]) -> None:
    """Take note that what runs in the present context, from now on, is run by a supervisor."""
    _INSIDE.set((*_INSIDE.get(), supervisor))


def register_supervisors_last() -> None:
    """Let the supervisors that run what runs here be the last in pykka's registry.

    `ActorRegistry.stop_all` begins with the last: so it stops a supervisor before an actor that this has started since,
    and that it will stop itself. A moment long they are registered twice, rather than not at all.
    """
    for supervisor in _INSIDE.get():
        pykka.ActorRegistry.register(supervisor)
        pykka.ActorRegistry.unregister(supervisor)  # the first of the two


class ClosingInbox(queue.Queue["Envelope[Any]"]):
    """An inbox that leaves no future unset: what comes after its actor's last look is answered too.

    Pykka looks whether an actor is alive and then puts the message in; in between the actor may have ended, its thread
    with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    def put(self, item: Envelope[Any], block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 (as inherited)
        """Put a message in; answer it with `pykka.ActorDeadError` where nobody will look."""
        super().put(item, block, timeout)
        if self._closed:
            self._answer_all()

    def close(self) -> None:
        """Answer what is in it and whatever still comes."""
        self._closed = True  # either this thread finds a message, or its sender finds this
        self._answer_all()

    def _answer_all(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                reply_to = self.get_nowait().reply_to
                if reply_to is not None:
                    dead = pykka.ActorDeadError("the actor stopped before handling the message")
                    reply_to.set_exception((type(dead), dead, None))
        super().put(_WAKE)  # for its thread, where that waits although it was buried by another


class _Wake:
    """A message about nothing, in an envelope of its own."""

    reply_to: pykka.Future[Any] | None = None

    @property
    def message(self) -> Self:
        return self


_WAKE: Final[Any] = _Wake()


class BridgedRef(pykka.ActorRef[A]):
    """A reference whose `stop` does not wait where the actor could not stop before the caller goes on."""

    def __init__(self, actor: A) -> None:
        super().__init__(actor)
        self._bridged = weakref.ref(actor)

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Ask the actor to stop, as any pykka actor; see there.

        Called in the actor's own thread, or from within something that it runs, it does not wait, and the future that
        it gives with `block=False` is set already: who waited for it would wait for itself.
        """
        actor = self._bridged()
        if actor is None or not actor._bridge_needs_caller():  # noqa: SLF001 (two sides of one thing)
            return super().stop(block=block, timeout=timeout)
        alive = self.is_alive()
        super().stop(block=False)
        if block:
            return alive
        future: pykka.ThreadingFuture[bool] = pykka.ThreadingFuture()
        future.set(alive)
        return future


class BridgedActor(pykka.ThreadingActor):
    """A pykka actor that is out of the registry, and says so, however its thread ends.

    It is mixed into users' classes: its attributes have names that those will not have.
    """

    _bridge_thread: threading.Thread | None = None
    """The one it runs in, from its start on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._actor_ref = BridgedRef(self)

    @staticmethod
    def _create_actor_inbox() -> ActorInbox:
        return ClosingInbox()

    def _handle_receive(self, message: Any) -> Any:
        if message is _WAKE:
            return None
        try:
            return super()._handle_receive(message)
        except Exception:
            raise
        except BaseException as error:  # over which pykka would answer nobody, and stop every actor of the process
            if self.actor_stopped.is_set():  # its `on_stop` raised it; stopped it is all the same
                self._handle_failure(type(error), error, error.__traceback__)
                return None
            self.stop()
            raise pykka.ActorDeadError(f"{self.actor_ref} ended: {describe_error(error)}") from error

    def _actor_loop(self) -> None:
        self._bridge_thread = threading.current_thread()
        try:
            super()._actor_loop()
        finally:  # also after a SystemExit in `on_start`, over which pykka leaves an actor that says it is alive
            self._bridge_bury()

    def _bridge_needs_caller(self) -> bool:
        """Return whether it cannot stop before the caller goes on."""
        return self._bridge_thread is threading.current_thread() or self.actor_ref in _INSIDE.get()

    def _bridge_bury(self) -> None:
        """Leave nothing of it; the last thing that happens in its thread."""
        pykka.ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()
        assert isinstance(self.actor_inbox, ClosingInbox)
        self.actor_inbox.close()
