"""A resident actor of a supervisor, for synchronous callers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pykka

    from stageflow_actors import ActorRef, ContextSnapshot, StageOutput

    from ._pykka_desk import Desk


@final
class PykkaResident:
    """A resident actor, for callers in any thread. Made by `SupervisorProxy.spawn` and `SupervisorProxy.actor`.

    Messages from one thread are handled in the order in which it sent them, unless the actor is a pool.
    """

    def __init__(self, desk: Desk, ref: ActorRef) -> None:
        self._desk = desk
        self._ref = ref

    @property
    def name(self) -> str:
        """The actor's name, with those of the supervisors above its own."""
        return self._ref.name

    @property
    def ref(self) -> ActorRef:
        """The reference to make it a stage of a pipeline with. Its methods belong to the supervisor's thread."""
        return self._ref

    def ask(
        self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None, *, timeout: float | None = 5.0
    ) -> pykka.Future[StageOutput]:
        """Send a message; return the future of the reply. It raises what `ActorRef.ask` would.

        Args:
            snapshot: The message; a mapping is short for a snapshot with that `data`.
            timeout: Seconds until the reply, after which a message that was not begun with is withdrawn; None for ever.
                It counts on whether or not anybody waits for the future.
        """
        return self._desk.call(partial(self._ref.ask, snapshot, timeout=timeout))

    def tell(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None) -> pykka.Future[None]:
        """Send a message to which no reply is wanted; return a future that is set when it was accepted.

        Args:
            snapshot: The message; a mapping is short for a snapshot with that `data`.
        """
        return self._desk.call(partial(self._ref.tell, snapshot))

    def stop(self) -> pykka.Future[None]:
        """End the actor for good, whatever its policy; return a future that is set when it has ended."""
        return self._desk.call(self._ref.stop)

    def __repr__(self) -> str:
        """Name the actor."""
        return f"<PykkaResident {self.name!r}>"
