"""Plain functions in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import asynccontextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from stageflow_actors._placement import Placement, Site
from stageflow_actors._validation import refuse, require_count, require_seconds
from stageflow_actors.errors import MissingExtraError, NotPicklableError, WorkerDiedError

from ._carrying import make_carrier
from ._parcel import fulfil, pack, pack_order, require_picklable, unpack_reply

if TYPE_CHECKING:
    import contextvars
    from collections.abc import AsyncIterator, Callable, Iterable
    from types import TracebackType

    from trio_parallel import WorkerContext

    from stageflow_actors import StageContext
    from stageflow_actors._actor import Host
    from stageflow_actors._stage import RunnerForm

    from ._parcel import Carrier


def processes(
    max_workers: int | None = None,
    *,
    initializer: Callable[[], object] | None = None,
    idle_timeout: float = 60.0,
    carry: Iterable[contextvars.ContextVar[Any] | Carrier] = (),
) -> Placement:
    """Return a placement for what computes: its stages run in worker processes, on as many cores as there are.

    A stage is a plain function or class of a module, which the workers import. It gets a copy of its context: the
    snapshot, the configuration and the outputs of its dependencies are pickled, and so is what it returns or raises; an
    error keeps its type, cause and traceback. What it emits arrives when it ends. One that is cancelled, or runs into
    its timeout, is stopped at once: its process is killed, and the next stage has a new one. A process that dies by
    itself is a `WorkerDiedError`, an ordinary failure, which `restart=` restarts.

    Workers are started when they are needed, with a new interpreter each, and end when they have had nothing to do for
    a while, when the supervisor is left and, whatever they are at, when the process above them is gone. The start of
    one, a few tenths of a second, does not count against a timeout. Ctrl-C does not reach them, only the run.

    Args:
        max_workers: How many there may be, for each supervisor; by default as many as this process has cores.
        initializer: Called in each worker before its first stage: a function of a module. What it raises is that
            stage's failure.
        idle_timeout: Seconds after which a worker without work ends.
        carry: What comes along of the context that the run was started in: context variables that are globals of
            modules, with values that can be pickled, and a `Carrier` for each other thing.

    Raises:
        MissingExtraError: The extra `processes` is not installed.
        PipelineValidationError: An option cannot be.
    """
    _require_extra()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = cores if max_workers is None else require_count("max_workers", max_workers)
    require_seconds("idle_timeout", idle_timeout)
    if initializer is not None:
        if not callable(initializer):
            refuse(f"initializer must be a function, not {initializer!r}")
        require_picklable("initializer", initializer)
    return ProcessPlacement(count, initializer, idle_timeout, tuple(make_carrier(each) for each in carry))


def _require_extra() -> None:
    try:
        import tblib  # noqa: F401, PLC0415 (it may be missing)
        import trio_parallel  # noqa: F401, PLC0415 (likewise)
    except ModuleNotFoundError as error:
        hint = "install it: pip install 'stageflow-actors[processes]'"
        raise MissingExtraError(f"processes() needs {error.name}", extra="processes", hint=hint) from error


# In the worker

_is_ready = False
"""Whether the initializer of this worker has done its work."""


def _begin() -> bool:
    """Hear interrupts again, which are ignored by now; and watch the process above."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _watch_parent()
    return True


def _watch_parent() -> None:
    """End this process when the one above is gone, even in the middle of a stage: nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    threading.Thread(target=watch, name="watches the process above", daemon=True).start()


def _get_ready(initializer: Callable[[], object] | None) -> None:
    global _is_ready  # noqa: PLW0603 (it belongs to the process)
    if not _is_ready:
        if initializer is not None:
            initializer()
        _is_ready = True


def _work(initializer: Callable[[], object] | None, order: bytes) -> bytes:
    _get_ready(initializer)
    return fulfil(order)


@final
@attrs.frozen
class _Fresh:
    """Runs a fresh instance of a stage class, made where it runs."""

    cls: Callable[[], Any]

    def __call__(self, ctx: StageContext) -> Any:
        return self.cls().execute(ctx)


# Above it


@final
@attrs.frozen(eq=False)
class ProcessPlacement(Placement):
    """Made by `processes`."""

    max_workers: int
    initializer: Callable[[], object] | None
    idle_timeout: float
    carriers: tuple[Carrier, ...]

    def check(self, runner: Any, form: RunnerForm) -> str | None:
        """Refuse what awaits, and what cannot be pickled."""
        if form.is_async:
            return "awaits, as it is async: a worker process runs plain functions"
        if form.is_managed:
            return "is an async context manager: it would be entered in this process, and run in another"
        try:
            pack("it", runner)
        except NotPicklableError as error:
            return f"cannot be pickled: {error.__cause__}; make it a function or class of a module"
        return None

    def adapt(self, runner: Any, form: RunnerForm) -> tuple[RunnerForm, Callable[..., Any]]:
        """Let a class be instantiated in the worker."""
        if not form.is_class:
            return super().adapt(runner, form)
        return attrs.evolve(form, is_class=False), _Fresh(runner)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Site]:
        """Open it; workers are started by its stages. Left, it waits until they have ended."""
        from trio_parallel import open_worker_context  # noqa: PLC0415 (it belongs to an extra)

        async with open_worker_context(self.idle_timeout, _begin) as workers:
            _deafen(workers)
            yield ProcessSite(self, workers)

    def __repr__(self) -> str:
        """Write it as it is made."""
        return f"processes({self.max_workers})"


@final
class _Deaf:
    """A process that starts with interrupts blocked, and is otherwise the one that it stands for."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def start(self) -> None:
        """Start it; what this thread has blocked, it has too."""
        resource_tracker.ensure_running()  # it is started with the first process, and would lift the block after that
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def _deafen(workers: WorkerContext) -> None:
    """Let workers not hear Ctrl-C before they ignore it: each would show the traceback of an import.

    There is no public way to say how they are started.
    """
    make = getattr(workers, "_worker_class", None)
    if make is None or not hasattr(signal, "pthread_sigmask"):
        return

    def make_deaf(*args: Any) -> Any:
        worker = make(*args)
        worker.proc = _Deaf(worker.proc)
        return worker

    vars(workers)["_worker_class"] = make_deaf


@final
class _Admitted:
    """Stands for a limiter that lets everybody in at once, so that a worker is taken in the step that looks for it."""

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


_ADMITTED: Final[Any] = _Admitted()


@final
class ProcessSite(Site):
    """Worker processes, while a supervisor is open."""

    def __init__(self, placement: ProcessPlacement, workers: WorkerContext) -> None:
        self._workers = workers
        self._initializer = placement.initializer
        self._carriers = placement.carriers
        self._limiter = trio.CapacityLimiter(placement.max_workers)

    async def call(
        self, function: Callable[[StageContext], Any], ctx: StageContext, begin: Callable[[], None], _host: Host
    ) -> Any:
        """Run one attempt in a worker."""
        order = pack_order(function, ctx, self._carriers)
        async with self._limiter:
            if not self._workers.statistics().idle_workers:
                await self._run(_get_ready, self._initializer)  # it is the worker that the next call takes
            await trio.lowlevel.checkpoint_if_cancelled()  # a place that was given in the step in which the run stopped
            begin()
            reply = await self._run(_work, self._initializer, order)
        return unpack_reply(reply, ctx)

    async def _run(self, function: Callable[..., Any], *args: object) -> Any:
        """Call a function in a worker; the process is killed where this is cancelled."""
        from trio_parallel import BrokenWorkerError  # noqa: PLC0415 (it belongs to an extra)

        try:
            return await self._workers.run_sync(function, *args, kill_on_cancel=True, limiter=_ADMITTED)
        except BrokenWorkerError as error:
            exitcode: int | None = error.args[-1].exitcode
        problem = f"its worker process {_tell_exit(exitcode)}"
        raise WorkerDiedError(problem, exitcode=exitcode)


def _tell_exit(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        try:
            return f"was killed by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"was killed by signal {-exitcode}"
    return f"ended with exit code {exitcode}"
