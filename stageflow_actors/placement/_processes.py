"""Plain functions in worker processes."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

from stageflow_actors._placement import Placement, Site
from stageflow_actors._validation import refuse, require_count, require_seconds
from stageflow_actors.errors import NotPicklableError

from ._carrying import make_carrier
from ._parcel import pack, pack_order, require_picklable, unpack_reply
from ._workers import Pool

if TYPE_CHECKING:
    import contextvars
    from collections.abc import AsyncIterator, Callable, Iterable

    from stageflow_actors import StageContext
    from stageflow_actors._placement import Host
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
        PipelineValidationError: An option cannot be.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = cores if max_workers is None else require_count("max_workers", max_workers)
    require_seconds("idle_timeout", idle_timeout)
    if initializer is not None:
        if not callable(initializer):
            refuse(f"initializer must be a function, not {initializer!r}")
        require_picklable("initializer", initializer)
    return ProcessPlacement(count, initializer, idle_timeout, tuple(make_carrier(each) for each in carry))


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
        async with trio.open_nursery() as nursery:
            pool = Pool(nursery, self.initializer, self.idle_timeout)
            try:
                yield ProcessSite(self, pool)
            finally:
                with trio.CancelScope(shield=True):
                    await pool.close()

    def __repr__(self) -> str:
        """Write it as it is made."""
        return f"processes({self.max_workers})"


@final
class ProcessSite(Site):
    """Worker processes, while a supervisor is open."""

    def __init__(self, placement: ProcessPlacement, pool: Pool) -> None:
        self._pool = pool
        self._carriers = placement.carriers
        self._limiter = trio.CapacityLimiter(placement.max_workers)

    async def call(
        self, function: Callable[[StageContext], Any], ctx: StageContext, begin: Callable[[], None], _host: Host
    ) -> Any:
        """Run one attempt in a worker."""
        async with self._limiter:
            order = pack_order(function, ctx, self._carriers)  # not before: those that wait would fill the memory
            worker = await self._pool.take()
            try:
                # The place may have been given in the step in which the run ends.
                await trio.lowlevel.checkpoint_if_cancelled()
                begin()
                reply = await worker.ask(order)
            finally:
                self._pool.give_back(worker)
        return unpack_reply(reply, ctx)
