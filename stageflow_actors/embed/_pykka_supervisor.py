"""A supervisor as a pykka actor, for applications that are not asynchronous."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, final

import pykka

from stageflow_actors import Supervisor

from ._pykka_actor import BridgedActor, BridgedRef
from ._pykka_desk import Desk
from ._pykka_resident import PykkaResident
from ._pykka_run import run_observed, start_run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from stageflow_actors import ContextSnapshot, Pipeline, RunResult
    from stageflow_actors._stage import Runner

    from ._options import RunOptions, SpawnOptions, SupervisorOptions
    from ._pykka_run import PykkaRun

S = TypeVar("S", bound="SupervisorActor")


class SupervisorActor(BridgedActor):
    """A `Supervisor` for synchronous applications, as one of their pykka actors: `SupervisorActor.start(...)`.

    The supervisor lives on a trio loop in a thread of its own, beside the actor's. What is asked through `proxy()` goes
    there directly, and not through the actor's inbox. `ref.stop()` and `ActorRegistry.stop_all()` are an orderly
    shutdown: its runs are cancelled, its resident actors stopped, each within its budget, and when the stop is
    done no thread is left but those that were abandoned. A supervisor that ends by itself, because its resident actors
    failed too often or a stage of a started run raised what is no `Exception`, stops the actor too and is logged; calls
    that it left unanswered have an `ActorDeadError` whose `__cause__` is the reason.

    A subclass may have hooks and methods as any pykka actor; its `on_stop` calls `super().on_stop()`, which waits for
    the supervisor. With `use_daemon_thread` both threads are daemons.

    Args:
        options: Those of `Supervisor`.

    Raises:
        PipelineValidationError: An option that cannot be. Nothing was started.
    """

    def __init__(self, **options: Unpack[SupervisorOptions]) -> None:
        super().__init__()
        supervisor = Supervisor(**options)
        self._actor_ref = SupervisorRef(self)
        self._desk = Desk(supervisor, self.actor_ref, self._stop_soon)

    @classmethod
    def start(cls, **options: Unpack[SupervisorOptions]) -> SupervisorRef[Self]:
        """Start it; when this returns, the supervisor is open.

        Args:
            options: Those of `Supervisor`.

        Raises:
            PipelineValidationError: An option that cannot be. Nothing was started.
        """
        ref = super().start(**options)
        assert isinstance(ref, SupervisorRef)
        return ref

    def on_stop(self) -> None:
        """Leave the supervisor and wait until it has ended; in the actor's thread."""
        self._desk.close()

    def _stop(self) -> None:
        try:
            super()._stop()
        finally:  # also where a subclass's `on_stop` has not come to it
            self._desk.close()

    def _start_actor_loop(self) -> None:
        try:
            self._desk.open(daemon=self.use_daemon_thread)
            super()._start_actor_loop()
        except BaseException:  # also an interrupt: pykka has registered it already, and nothing may be left
            self._desk.close()
            self._bridge_bury()
            raise

    def _bridge_bury(self) -> None:
        self._desk.close()  # for an end that calls no hook, such as an error in a subclass's `on_start`
        super()._bridge_bury()

    def _stop_soon(self) -> None:
        with contextlib.suppress(pykka.ActorDeadError):
            self.stop()


class SupervisorRef(BridgedRef[S]):
    """The reference to a `SupervisorActor`."""

    def proxy(self) -> SupervisorProxy[S]:
        """Return a proxy, through which pipelines are run.

        Raises:
            pykka.ActorDeadError: The actor has stopped.
        """
        return SupervisorProxy(actor_ref=self)


@final
class SupervisorProxy(pykka.ActorProxy[S]):
    """How callers in any thread use a `SupervisorActor`: every method returns a pykka future at once.

    Whatever goes wrong is raised by the future's `get`, the same error object that trio's side raised. What is run
    starts in the caller's context: its context variables hold there. After the stop, and where the stop cancels a call,
    the future raises `pykka.ActorDeadError`. No future stays unset. An async stage cannot wait for the futures of the
    supervisor that runs it: there `get` raises a `RuntimeError`.

    The methods of a subclass of `SupervisorActor` are reached through it as well, by way of the inbox.
    """

    def __init__(self, *, actor_ref: SupervisorRef[S]) -> None:
        super().__init__(actor_ref=actor_ref)
        self._desk: Desk = self._actor._desk  # noqa: SLF001 (two sides of one thing)

    def run(
        self,
        pipeline: Pipeline,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        *,
        events_to: pykka.ActorRef[Any] | None = None,
        max_queued: int = 4096,
        **options: Unpack[RunOptions],
    ) -> pykka.Future[RunResult]:
        """Run a pipeline; return the future of its result, which raises what `Supervisor.run` raises.

        The timeout of the future's `get` only ends the waiting; `timeout` here ends the run.

        Args:
            pipeline: What to run.
            snapshot: The message for every stage.
            events_to: A pykka actor that is told each event of the run, in order, all of them before the future is set.
                Its `on_receive` gets them. The run is a started one then: a stage that raises what is no `Exception`
                ends the supervisor.
            max_queued: How many messages may be in that actor's inbox. Events beyond are dropped, as are those for an
                actor that has stopped; how many is logged at the end of the run, which is not disturbed.
            options: The other options of `Supervisor.run`, such as `continue_on_failure` and `timeout`.
        """
        desk = self._desk
        if events_to is None:
            return desk.call(partial(desk.supervisor.run, pipeline, snapshot, **options))
        start = partial(desk.supervisor.start, pipeline, snapshot, **options)
        return desk.call(partial(run_observed, start, events_to, max_queued))

    def start_run(
        self,
        pipeline: Pipeline,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        *,
        events_to: pykka.ActorRef[Any] | None = None,
        max_queued: int = 4096,
        **options: Unpack[RunOptions],
    ) -> pykka.Future[PykkaRun]:
        """Start a run in the background; return the future of a handle on it, set when it is admitted.

        Arguments as in `run`. The future raises `PipelineValidationError` and `OverloadedError`: nothing has started
        then. What the run itself ends with, the handle's `result()` says.
        """
        start = partial(self._desk.supervisor.start, pipeline, snapshot, **options)
        return start_run(self._desk, start, events_to, max_queued)

    def spawn(self, runner: Runner, *, name: str, **options: Unpack[SpawnOptions]) -> pykka.Future[PykkaResident]:
        """Start a stage as a resident actor; return the future of it, set when it is up.

        Args:
            runner: As for `Supervisor.spawn`; `pykka_stage(...)` for a pykka actor.
            name: Its name, unique in the supervisor.
            options: The others of `Supervisor.spawn`.
        """
        desk = self._desk

        async def spawn() -> PykkaResident:
            return PykkaResident(desk, await desk.supervisor.spawn(runner, name=name, **options))

        return desk.call(spawn)

    def actor(self, name: str) -> pykka.Future[PykkaResident]:
        """Return the future of a resident actor by its name, or path; it raises `UnknownActorError` for another."""
        desk = self._desk

        async def find() -> PykkaResident:
            return PykkaResident(desk, desk.supervisor.actor(name))

        return desk.call(find)
