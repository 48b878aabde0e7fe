"""The supervisor: admits runs, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self, final

import trio
from trio.lowlevel import enable_ki_protection

from ._actor import split_cancelled
from ._definition import PipelineDefinition
from ._engine import Engine, Means
from ._graph import Graph, narrow
from ._limiter import Limiter
from ._output import StageOutput, StageStatus
from ._policy import Intensity
from ._run import Run
from ._snapshot import ContextSnapshot, RunIdentity
from ._validation import refuse, require_count, require_seconds

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ._limits import Overflow
    from ._result import RunResult

_NO_OVERRIDES: Final[Mapping[str, StageOutput]] = {}


@final
class Supervisor:
    """Runs pipelines inside one `async with` block, any number at once.

    Leaving the block normally waits for its runs; leaving it with an exception cancels them. Either way
    no task of theirs is left.

    Args:
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
        max_running_stages: int | None = None,
        max_runs: int | None = None,
        max_queued: int | None = None,
        overflow: Overflow = "wait",
        max_threads: int | None = None,
        shutdown: float = 5.0,
        identify: Callable[[], RunIdentity] = RunIdentity.new,
        random: Callable[[], float] = random.random,
    ) -> None:
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
        self._engines: dict[Engine, None] = {}
        """In the order of their admission."""
        self._idle = trio.Event()
        self._unobserved: list[Run] = []
        self._fatal: BaseException | None = None
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None
        self._means: Means
        self._closed = False
        """Whether no further run is admitted: it is being left, and does not wait for runs any more, or was left."""

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
        if self._nursery is None or self._closed:
            done = "has been left" if self._closed else "is not open"
            message = f"the supervisor {done}; run pipelines inside `async with Supervisor() as supervisor:`"
            raise RuntimeError(message)
        if not isinstance(pipeline, PipelineDefinition):
            refuse(f"pipeline must be a Pipeline, not {pipeline!r}", hint="build one: Pipeline('name').with_stage(...)")
        graph = pipeline._compile()  # noqa: SLF001 (the compiled graph is the runtime's affair, not users')
        given = _NO_OVERRIDES
        if overrides is not None and not isinstance(overrides, Mapping):
            refuse(f"overrides must be a mapping of stage to output, not {overrides!r}", pipeline=pipeline.name)
        if overrides is not None:
            given = {name: _read_override(pipeline.name, name, value) for name, value in overrides.items()}
        if targets is not None or given:
            graph = narrow(graph, targets, given)
            given = {name: output for name, output in given.items() if name in graph.positions}
        if timeout is not None:
            require_seconds("timeout", timeout, pipeline=pipeline.name)
        read = _read_snapshot(snapshot)
        _check_item_keys(graph, read)
        if intensity is not None and not isinstance(intensity, Intensity):
            hint = "write intensity=Intensity(20, within=60)"
            refuse(f"intensity must be an Intensity, not {intensity!r}", pipeline=pipeline.name, hint=hint)
        engine = Engine(
            graph,
            read,
            self._identify(),
            fail_fast=not continue_on_failure,
            timeout=timeout,
            overrides=given,
            means=self._means,
            intensity=intensity,
        )
        if self._runs is not None:
            engine.enter(self._runs)
        self._engines[engine] = None
        return engine

    def _forget(self, engine: Engine) -> None:
        engine.leave()
        self._engines.pop(engine, None)
        if not self._engines:
            self._idle.set()

    @enable_ki_protection
    async def _drive(self, run: Run, engine: Engine) -> None:
        """Execute a started run. Its task ends quietly: the outcome waits in the engine."""
        await engine.execute()
        self._forget(engine)
        run._finish()  # noqa: SLF001 (handle and supervisor are two sides of one thing)
        if engine.fatal is not None:
            self._fatal = engine.fatal
            assert self._nursery is not None
            self._nursery.cancel_scope.cancel()
        elif engine.is_failed:
            self._unobserved = [other for other in self._unobserved if not other._observed]  # noqa: SLF001
            self._unobserved.append(run)

    async def __aenter__(self) -> Self:
        """Open it."""
        if self._nursery is not None:
            message = "a supervisor can be entered once; make another"
            raise RuntimeError(message)
        if not trio.lowlevel.in_trio_run():
            message = "a supervisor runs inside trio, and this is no trio task; start it with trio.run(...)"
            raise RuntimeError(message)
        threads = trio.CapacityLimiter(self._max_threads)
        self._means = Means(threads, self._running, self._shutdown, self._random)
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    @enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for all runs, or cancel them where the block was left with an exception."""
        assert self._manager is not None
        if error is not None:
            self._stop_all(f"the supervisor was left with {type(error).__qualname__}")
        # The body's exception is not for the nursery, which would wrap it in a group; except for the
        # Cancelled of the nursery's own scope, which only that scope can take.
        remains = None if error is None else split_cancelled(error)
        own = self._fatal is not None and error is not None and remains is None
        try:
            try:
                with contextlib.suppress(trio.Cancelled):  # a scope that is cancelled says so again, below
                    await self._wait_idle()
            finally:
                self._closed = True  # in the step in which nobody was found; there is a checkpoint in what follows
                left = (kind, error, traceback) if own else (None, None, None)
                await self._manager.__aexit__(*left)
        except BaseException as raised:
            if self._fatal is None or split_cancelled(raised) is not None:
                raise  # else it is Cancelled, and what a stage raised comes before that
        if self._fatal is not None and (remains is None or isinstance(remains, Exception)):
            raise self._fatal
        if error is None:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._raise_unobserved()

    def _stop_all(self, reason: str) -> None:
        self._closed = True  # or a task that starts one run after the other would keep it open for ever
        for engine in list(self._engines):
            engine.cancel(reason)

    async def _wait_idle(self) -> None:
        """Wait for all runs: also those that other tasks execute, for ours is the promise that none is left."""
        while self._engines:
            self._idle = trio.Event()
            try:
                await self._idle.wait()
            except BaseException:  # Cancelled, or an interrupt
                self._stop_all("the supervisor was cancelled")
                with trio.CancelScope(shield=True):
                    await self._idle.wait()
                raise

    def _raise_unobserved(self) -> None:
        errors = [run._make_error() for run in self._unobserved if not run._observed]  # noqa: SLF001
        if len(errors) == 1:
            raise errors[0]
        if errors:
            message = f"{len(errors)} runs failed, and nobody awaited their results"
            raise ExceptionGroup(message, errors)


def _make_limiter(what: str, limit: int, **options: Any) -> Limiter:
    return Limiter(require_count(what, limit), **options)


def _check_item_keys(graph: Graph, snapshot: ContextSnapshot[Any]) -> None:
    """Refuse data that the items of a fan-out would hide."""
    taken = next((key for key in ("item", "index") if key in snapshot.data), None)
    if taken is not None and any(form.is_container for form in graph.forms):
        stage = next(spec.name for spec, form in zip(graph.specs, graph.forms, strict=True) if form.is_container)
        problem = f"the snapshot's data has an entry {taken!r}, where its workers find their own"
        refuse(problem, pipeline=graph.pipeline, stage=stage, hint="rename the entry")


def _read_snapshot(snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None) -> ContextSnapshot[Any]:
    if snapshot is None:
        return ContextSnapshot()
    if isinstance(snapshot, ContextSnapshot):
        return snapshot
    if isinstance(snapshot, Mapping):
        return ContextSnapshot(data=snapshot)
    refuse(f"snapshot must be a ContextSnapshot or a mapping, not {snapshot!r}")


def _read_override(pipeline: str, name: str, value: object) -> StageOutput:
    if isinstance(value, StageOutput):
        if value.status not in (StageStatus.OK, StageStatus.SKIP):
            problem = f"an override must be an output of status ok or skip, not {value.status.value}"
            refuse(problem, pipeline=pipeline, stage=name)
        return value
    if isinstance(value, Mapping):
        return StageOutput.ok(value)
    refuse(f"an override must be a StageOutput or a mapping, not {value!r}", pipeline=pipeline, stage=name)
