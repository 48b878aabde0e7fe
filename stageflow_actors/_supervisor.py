"""The supervisor: admits runs, keeps actors, and leaves nothing behind.

The file is long because of what it says to its users; what it does stands in the files that it imports.
"""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, final

import trio
from trio.lowlevel import enable_ki_protection

from ._actor import split_cancelled
from ._admission import make_engine
from ._bag import describe_error
from ._engine import Engine, Means
from ._household import Household, Opening
from ._limiter import Limiter
from ._mailbox import Mailbox
from ._policy import Intensity
from ._realm import Realm, Subordinate
from ._ref import ActorRef
from ._resident import Resident
from ._run import Run
from ._scopes import require_scope
from ._sites import Sites
from ._snapshot import RunIdentity
from ._spawning import read_child, read_resident
from ._validation import refuse, require_count, require_name, require_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._definition import PipelineDefinition
    from ._family import Family
    from ._limits import Overflow
    from ._output import StageOutput
    from ._policy import Restart
    from ._result import RunResult
    from ._scopes import Policy, Scope
    from ._snapshot import ContextSnapshot
    from ._stage import Runner
    from ._stream import EventStream
    from .events import ActorEvent, DeadLetter
    from .statistics import ActorLedger, SupervisorStatistics

_DEFAULT_INTENSITY: Final = Intensity(3, within=5.0)
_DEFAULT_MAILBOX: Final = Mailbox()


@final
class Supervisor:
    """Runs pipelines, and keeps resident actors, inside one `async with` block, any number at once.

    Leaving the block normally waits for its runs, and then stops its actors, the last one first; leaving it with an
    exception cancels them, in the same order. Either way no task of theirs is left.

    Args:
        scope: Which resident actors are restarted with one that is: nobody else (`one_for_one`), those that
            depend on it, directly or not (`dependents`), all (`one_for_all`), those spawned after it (`rest_for_one`).
        intensity: How often resident actors may be restarted together. Past it the supervisor ends: its runs are
            cancelled, its actors stopped, and a `RestartIntensityError` leaves the block, or is for the supervisor
            above to deal with.
        max_running_stages: How many stages and fan-out items may run at once, over all runs; no limit by
            default. The others wait, the most urgent first, also one that has its own limiter's slot.
        max_runs: How many runs may go on at once; no limit by default. Further ones are queued.
        max_queued: How many runs may be queued; by default any number where they are to wait, else none.
        overflow: What becomes of a run for which the queue is full: it waits all the same (`wait`), it is
            refused with an `OverloadedError` (`reject`, `drop_newest`), or the run that has been queued for
            longest is (`drop_oldest`).
        max_threads: How many plain `def` stages may be in worker threads at once, over all runs; by
            default as many as `concurrent.futures` would use.
        shutdown: The budget, in seconds, of a run that stops: as long may its threads and the
            `__aexit__` of its stages still take. A thread that takes longer is `ABANDONED`.
        identify: Gives each run its identity; tests replace it.
        random: Gives numbers from 0 to 1, for the jitter of restarts; tests replace it.

    Raises:
        PipelineValidationError: An option that cannot be.
    """

    def __init__(
        self,
        *,
        scope: Scope = "one_for_one",
        intensity: Intensity = _DEFAULT_INTENSITY,
        max_running_stages: int | None = None,
        max_runs: int | None = None,
        max_queued: int | None = None,
        overflow: Overflow = "wait",
        max_threads: int | None = None,
        shutdown: float = 5.0,
        identify: Callable[[], RunIdentity] = RunIdentity.new,
        random: Callable[[], float] = random.random,
    ) -> None:
        require_scope(scope)
        if not isinstance(intensity, Intensity):
            refuse(f"intensity must be an Intensity, not {intensity!r}", hint="write intensity=Intensity(3, within=5)")
        self._running = None if max_running_stages is None else _make_limiter("max_running_stages", max_running_stages)
        self._runs = None
        if max_runs is not None:
            self._runs = _make_limiter("max_runs", max_runs, max_queued=max_queued, overflow=overflow)
        elif max_queued is not None or overflow != "wait":
            what = "overflow" if max_queued is None else "max_queued"
            refuse(f"{what} is about runs that max_runs keeps waiting, and there is none", hint="give max_runs too")
        self._max_threads = min(32, (os.cpu_count() or 1) + 4) if max_threads is None else max_threads
        require_count("max_threads", self._max_threads)
        self._shutdown = require_seconds("shutdown", shutdown)
        self._identify = identify
        self._random = random
        self._household = Household(scope, intensity, identify, random)
        self._engines: dict[Engine, None] = {}
        """In the order of their admission."""
        self._idle: trio.Event | None = None
        """Set when it has no run any more, where somebody waits for that."""
        self._unobserved: list[Run] = []
        self._fatal: BaseException | None = None
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        self._means: Means
        self._body: trio.CancelScope
        """Around the block: cancelled where the supervisor has to end by itself."""
        self._closed = False
        """Whether nothing more is admitted: it is being left, and does not wait for runs any more, or was left."""

    @enable_ki_protection  # an interrupt must not find a run that is admitted and not yet driven
    async def run(
        self,
        pipeline: PipelineDefinition,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        *,
        continue_on_failure: bool = False,
        timeout: float | None = None,
        intensity: Intensity | None = None,
        targets: Iterable[str] | None = None,
        overrides: Mapping[str, StageOutput | Mapping[str, Any]] | None = None,
    ) -> RunResult:
        """Run a pipeline in the caller's task and return what came of it. Cancelling the caller cancels the run.

        Args:
            pipeline: What to run.
            snapshot: The message for every stage; a mapping is short for a snapshot with that `data`.
            continue_on_failure: Whether a failing stage isolates the stages that need it and nothing
                else, and the result is returned; otherwise the first failure ends the run and is raised.
            timeout: Seconds for the whole run, from the call: also those for which it is queued. Then it ends,
                and what had completed is returned.
            intensity: How often its stages may be restarted together; past it, none is restarted any more.
            targets: The stages that are wanted: only they and what they need run. All by default.
            overrides: Outputs of stages that are given instead of run; a mapping is short for `ok`.

        Raises:
            PipelineValidationError: The pipeline or an argument cannot work. Nothing has started.
            PipelineFailedError: A stage failed, without `continue_on_failure`.
            OverloadedError: There was no place for it, or it was dropped from the queue. Nothing has started.
            RuntimeError: The supervisor is not open.
        """
        engine = self._admit(
            pipeline,
            snapshot,
            continue_on_failure=continue_on_failure,
            timeout=timeout,
            intensity=intensity,
            targets=targets,
            overrides=overrides,
        )
        try:
            await engine.execute()
        finally:
            self._forget(engine)
        try:
            return engine.unwrap()
        finally:
            del engine  # the traceback of a condition that failed at the start may keep this frame

    @enable_ki_protection
    def start(
        self,
        pipeline: PipelineDefinition,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        *,
        continue_on_failure: bool = False,
        timeout: float | None = None,
        intensity: Intensity | None = None,
        targets: Iterable[str] | None = None,
        overrides: Mapping[str, StageOutput | Mapping[str, Any]] | None = None,
    ) -> Run:
        """Start a run in the background and return a handle on it; arguments as in `run`.

        A failed run whose result nobody awaited is raised when the supervisor is left.

        Raises:
            PipelineValidationError: The pipeline or an argument cannot work. Nothing has started.
            OverloadedError: There is no place for it. One that is dropped later raises it from `Run.result`.
            RuntimeError: The supervisor is not open.
        """
        engine = self._admit(
            pipeline,
            snapshot,
            continue_on_failure=continue_on_failure,
            timeout=timeout,
            intensity=intensity,
            targets=targets,
            overrides=overrides,
        )
        run = Run(engine)
        assert self._nursery is not None
        self._nursery.start_soon(self._drive, run, engine, name=f"run {engine.graph.pipeline}")
        return run

    def _admit(
        self,
        pipeline: PipelineDefinition,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None,
        *,
        continue_on_failure: bool,
        timeout: float | None,
        intensity: Intensity | None,
        targets: Iterable[str] | None,
        overrides: Mapping[str, StageOutput | Mapping[str, Any]] | None,
    ) -> Engine:
        """Check everything that can be checked before anything starts."""
        self._require_open("run pipelines")
        engine = make_engine(
            pipeline,
            snapshot,
            continue_on_failure=continue_on_failure,
            timeout=timeout,
            intensity=intensity,
            targets=targets,
            overrides=overrides,
            means=self._means,
            identify=self._identify,
            check_actor=self._household.check_actor,
        )
        if self._runs is not None:
            engine.enter(self._runs)
        self._engines[engine] = None
        return engine

    def _forget(self, engine: Engine) -> None:
        engine.leave()
        self._engines.pop(engine, None)
        if not self._engines and self._idle is not None:
            self._idle.set()
            self._idle = None

    @enable_ki_protection
    async def _drive(self, run: Run, engine: Engine) -> None:
        """Execute a started run. Its task ends quietly: the outcome waits in the engine."""
        await engine.execute()
        self._forget(engine)
        run._finish()  # noqa: SLF001 (handle and supervisor are two sides of one thing)
        if engine.fatal is not None:
            self._give_up(engine.fatal)
        elif engine.is_failed:
            self._unobserved = [other for other in self._unobserved if not other._observed]  # noqa: SLF001
            self._unobserved.append(run)

    async def __aenter__(self) -> Self:
        """Open it."""
        self._household.refuse_entry()
        if self._nursery is not None:
            message = "a supervisor can be entered once; make another"
            raise RuntimeError(message)
        if not trio.lowlevel.in_trio_run():
            message = "a supervisor runs inside trio, and this is no trio task; start it with trio.run(...)"
            raise RuntimeError(message)
        threads = trio.CapacityLimiter(self._max_threads)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._means = Means(threads, self._running, self._shutdown, self._random, Sites(self._nursery, self._give_up))
        self._body = trio.CancelScope()
        self._body.__enter__()
        self._household.open(Opening(self._nursery, threads, self._give_up, trio.current_time()))
        return self

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for all runs, or cancel them where the block was left with an exception; and stop all actors."""
        assert self._manager is not None
        left = self._leave_body(kind, error, traceback)
        if left is not None:
            self._stop_all(f"the supervisor was left with {type(left).__qualname__}")
        remains = None if left is None else split_cancelled(left)
        # The body's exception is not for the nursery, which would wrap it in a group.
        try:
            try:
                with contextlib.suppress(trio.Cancelled):  # a scope that is cancelled says so again, below
                    await self._wait_idle()
            finally:
                self._closed = True  # in the step in which nobody was found; there is a checkpoint in what follows
                try:
                    with contextlib.suppress(trio.Cancelled):
                        hurry = left is not None or not isinstance(self._fatal, Exception | None)
                        await self._household.halt(hurry=hurry, fatal=self._fatal)
                finally:
                    self._means.sites.close()
                    await self._manager.__aexit__(None, None, None)
        except BaseException as raised:
            if self._fatal is None or split_cancelled(raised) is not None:
                raise  # else it is Cancelled, and what a stage raised comes before that
        if self._fatal is not None and (remains is None or isinstance(remains, Exception)):
            self._raise_fatal(remains)
        if left is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._raise_unheard()
        elif left is not error:
            raise left

    def _leave_body(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> BaseException | None:
        """Return what the body was left with, without what it was cancelled with because the supervisor had to end."""
        try:
            return None if self._body.__exit__(kind, error, traceback) else error
        except BaseException as rest:  # of a group
            return rest

    def _raise_fatal(self, remains: BaseException | None) -> NoReturn:
        """Raise what it ends with, its context what it was, rather than the Cancelled that the body has raised.

        Args:
            remains: What the body has raised beside that Cancelled.
        """
        fatal = self._fatal
        assert fatal is not None
        context = fatal.__context__
        try:
            raise fatal
        finally:
            fatal.__context__ = remains if context is None and remains is not fatal else context
            del self, fatal, remains, context

    def _stop_all(self, reason: str) -> None:
        """End all runs, and admit no more: here, and in the supervisors below, which are about to be stopped."""
        self._closed = True  # or a task that starts one run after the other would keep it open for ever
        self._household.start_no_more()
        for engine in list(self._engines):
            engine.cancel(reason)
        for below in self._household.list_below():
            below._stop_all(reason)  # noqa: SLF001 (its own class)

    async def _wait_idle(self) -> None:
        """Wait for all runs: also those that other tasks execute, for ours is the promise that none is left."""
        while (busy := self._find_busy()) is not None:
            try:
                await busy._wait_for_runs()  # noqa: SLF001 (its own class)
            except BaseException:  # Cancelled, or an interrupt
                self._stop_all("the supervisor was cancelled")
                with trio.CancelScope(shield=True):
                    while self._engines:
                        await self._wait_for_runs()
                raise

    def _find_busy(self) -> Subordinate | None:
        """Return this supervisor, or one below, if it has runs."""
        if self._engines:
            return self
        found = (below._find_busy() for below in self._household.list_below())  # noqa: SLF001 (its own class)
        return next((busy for busy in found if busy is not None), None)

    async def _wait_for_runs(self) -> None:
        if self._idle is None:
            self._idle = trio.Event()
        await self._idle.wait()

    def _raise_unheard(self) -> None:
        """Raise what nobody has heard of: runs that failed, and what went wrong while actors were stopped."""
        errors: list[Exception] = [run._make_error() for run in self._unobserved if not run._observed]  # noqa: SLF001
        told = f"{len(errors)} runs failed, and nobody awaited their results"
        unheard = self._household.list_unheard()
        if unheard:
            errors += unheard
            told = f"{len(errors)} runs and supervisors failed, and nobody has heard of it"
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup(told, errors)
        self._household.check_ledger()

    # Resident actors

    async def spawn(
        self,
        runner: Runner,
        *,
        name: str,
        restart: Restart | None = None,
        policy: Policy = "transient",
        mailbox: Mailbox = _DEFAULT_MAILBOX,
        depends_on: str | ActorRef | Iterable[str | ActorRef] = (),
        shutdown: float = 5.0,
        pool: int = 1,
        max_deliveries: int = 1,
        idempotent: bool = False,
    ) -> ActorRef:
        """Start a stage as a resident actor: it lives on between messages, until it or the supervisor is stopped.

        A stage class makes one instance an incarnation, which is entered if it is an async context manager, and left
        whenever the incarnation ends. The actor fails when `execute` raises; what it returns, `fail` and `cancel` too,
        is a reply. Its tasks start from the caller's context.

        Args:
            runner: A stage class or a `partial` of one, an instance, or a function of the stage's context.
            name: Its name, unique in the supervisor, without a slash.
            restart: Which failures it is restarted after, how often and with which delays; what `RESUME` says is
                decided here too. Without it it is restarted after every one, at once. Where a restart is not allowed,
                it ends; a `permanent` one takes its supervisor along.
            policy: When it is restarted: always (`permanent`), when it failed (`transient`), or never (`temporary`).
            mailbox: How many messages are queued, and what becomes of one more.
            depends_on: Actors of this supervisor that it needs: with scope "dependents" it is restarted with them.
            shutdown: Seconds that it may take to stop: to end the message in hand and leave its instance. Then both are
                cancelled; a thread may take as long again to notice, and is abandoned after that.
            pool: How many workers handle its messages, each with an instance of its own.
            max_deliveries: How often a message may be delivered, where the actor dies over it.
            idempotent: Whether handling a message twice does no harm; `max_deliveries` needs it.

        Returns:
            A reference to it, which stays valid across restarts.

        Raises:
            ActorStartError: It did not come up; a first start is not tried again.
            PipelineValidationError: An argument cannot be. Nothing has started.
            CycleDetectedError: It would depend on itself.
            RuntimeError: The supervisor is not open.
        """
        family = await self._prepare("spawn actors")
        child = read_child(family, name, policy, restart, depends_on)
        options = read_resident(
            runner,
            name,
            threads=int(family.threads.total_tokens),
            mailbox=mailbox,
            shutdown=shutdown,
            pool=pool,
            deliveries=max_deliveries,
            idempotent=idempotent,
        )
        resident = Resident(family, child, options, family.next_number())
        await family.start(resident)
        return ActorRef(resident)

    async def spawn_supervisor(
        self,
        supervisor: Supervisor,
        *,
        name: str,
        restart: Restart | None = None,
        policy: Policy = "permanent",
        depends_on: str | ActorRef | Iterable[str | ActorRef] = (),
    ) -> Supervisor:
        """Open another supervisor as a child of this one, and return it: it has a scope and an intensity of its own.

        When it gives up, its runs are cancelled and its actors stopped, and that is the failure of one child here. If
        it is restarted, its actors come up again in the order in which they were spawned, behind the same references
        and with what was queued; those that are `temporary` do not.

        Args:
            supervisor: A new one. It is opened and closed here, without `async with`.
            name: Its name, unique in this supervisor, without a slash. Its actors are known as `name/actor`.
            restart: As for an actor.
            policy: As for an actor.
            depends_on: Actors of this supervisor that it needs.

        Raises:
            PipelineValidationError: An argument cannot be. Nothing has started.
            RuntimeError: This supervisor is not open.
        """
        family = await self._prepare("spawn supervisors")
        child = read_child(family, name, policy, restart, depends_on)
        if (
            not isinstance(supervisor, Supervisor)
            or supervisor._nursery is not None
            or supervisor._household.realm is not None
        ):
            problem = f"supervisor must be a Supervisor that was never opened, not {supervisor!r}"
            refuse(problem, hint="write spawn_supervisor(Supervisor(), name='...')")
        realm = Realm(family, child, supervisor, family.next_number())
        supervisor._household.realm = realm
        await family.start(realm)
        return supervisor

    async def stop(self) -> None:
        """End this supervisor, the child of another one, for good, and wait until it has ended.

        Its runs are cancelled and its actors stopped, the last one first, each within its budget. Cancelling the
        caller does not stop it. Once it has ended this does nothing. One that was opened with `async with` ends with
        its block.

        Raises:
            RuntimeError: No other supervisor has opened it.
        """
        realm = self._household.realm
        if realm is None:
            message = (
                "a supervisor that was opened with `async with` ends with its block; stop() ends one below another"
            )
            raise RuntimeError(message)
        realm.home.retire(realm, "it was stopped")
        await realm.ended.wait()

    def actor(self, name: str) -> ActorRef:
        """Return the reference to an actor by its name, or by its path through child supervisors: `ingest/parser`.

        Raises:
            UnknownActorError: There is none of that name, or it has ended.
        """
        return ActorRef(self._household.find(require_name("the name of an actor", name)))

    def statistics(self) -> SupervisorStatistics:
        """Return what it has now: runs, resident actors, and the supervisors below. Printed, it is the tree."""
        return self._household.view(len(self._engines))

    @property
    def ledger(self) -> ActorLedger:
        """The account of all messages to resident actors since it was opened, those of supervisors below included."""
        return self._household.ledger

    def events(self, *, max_queued: int = 4096) -> EventStream[ActorEvent]:
        """Subscribe, at this call, to what happens to resident actors, those of supervisors below included.

        Args:
            max_queued: How many events may wait for a slow reader; more are dropped and counted.

        Raises:
            RuntimeError: The supervisor is not open.
        """
        self._require_open("listen to it")
        bound = require_count("max_queued", max_queued)
        return self._household.subscribe(lambda family: family.bulletin.events, bound)

    def dead_letters(self, *, max_queued: int = 4096) -> EventStream[DeadLetter]:
        """Subscribe, at this call, to the dead letters of resident actors, those of supervisors below included.

        Args:
            max_queued: How many letters may wait for a slow reader; more are dropped from the stream and counted there.
                The counters of `ledger` miss none.

        Raises:
            RuntimeError: The supervisor is not open.
        """
        self._require_open("listen to it")
        bound = require_count("max_queued", max_queued)
        return self._household.subscribe(lambda family: family.bulletin.letters, bound)

    def _require_open(self, what: str) -> None:
        error = self._household.make_closed_error() if self._closed else None
        if error is not None:
            raise error
        if self._nursery is None or self._closed:
            done = "has been left" if self._closed else "is not open"
            message = f"the supervisor {done}; {what} inside `async with Supervisor() as supervisor:`"
            raise RuntimeError(message)

    async def _prepare(self, what: str) -> Family:
        self._require_open(what)
        family = await self._household.prepare()
        self._require_open(what)
        return family

    def _give_up(self, error: BaseException) -> None:
        """End, because of a stage or an actor: with the first error, or the first that is no `Exception`."""
        if self._fatal is None or (isinstance(self._fatal, Exception) and not isinstance(error, Exception)):
            self._fatal = error
        self._stop_all(f"the supervisor had to end: {describe_error(error)}")
        self._body.cancel()
        if not isinstance(error, Exception):
            self._household.hurry()

    def _reset(self) -> None:
        """Get ready to be opened once more, as the child of another supervisor."""
        self._nursery = self._manager = self._fatal = self._idle = None
        self._unobserved = []
        self._closed = False


def _make_limiter(what: str, limit: int, **options: Any) -> Limiter:
    return Limiter(require_count(what, limit), **options)
