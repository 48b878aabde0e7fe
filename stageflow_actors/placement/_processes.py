"""Plain functions in worker processes."""

from __future__ import annotations

import contextvars
import os
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

from stageflow_actors._placement import Placement, Site
from stageflow_actors._validation import refuse, require_count, require_seconds
from stageflow_actors.errors import MissingExtraError, NotPicklableError

from ._parcel import Carrier, pack, pack_order, unpack_reply
from ._workers import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from stageflow_actors import StageContext
    from stageflow_actors._actor import Host
    from stageflow_actors._stage import RunnerForm


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
        _require_picklable("initializer", initializer)
    return ProcessPlacement(count, initializer, idle_timeout, tuple(_make_carrier(each) for each in carry))


def _require_extra() -> None:
    try:
        import tblib  # noqa: F401, PLC0415 (it may be missing)
    except ModuleNotFoundError as error:
        hint = "install it: pip install 'stageflow-actors[processes]'"
        raise MissingExtraError(f"processes() needs {error.name}", extra="processes", hint=hint) from error


def _require_picklable(what: str, value: object) -> None:
    try:
        pack(what, value)
    except NotPicklableError as error:
        refuse(error.problem, hint=error.hint)


# What is carried along


def _make_carrier(carried: object) -> Carrier:
    if isinstance(carried, Carrier):
        _require_picklable("the restore of a Carrier", carried.restore)
        return carried
    if not isinstance(carried, contextvars.ContextVar):
        refuse(f"carry takes context variables and Carriers, not {carried!r}")
    module = _find_module(carried)
    return Carrier(partial(_capture, carried), partial(_restore, *module))


def _find_module(variable: contextvars.ContextVar[Any]) -> tuple[str, str]:
    """Return the module that a context variable is a global of, and its name there: so it is found in a worker."""
    for module, loaded in list(sys.modules.items()):
        for name, value in list(getattr(loaded, "__dict__", {}).items()):
            if value is variable:
                return module, name
    hint = "make it one, or carry what is needed of it with a Carrier"
    refuse(f"the context variable {variable.name!r} is no global of a module", hint=hint)


def _capture(variable: contextvars.ContextVar[Any]) -> tuple[Any, ...]:
    """Return the value in a tuple, which is empty where there is none."""
    try:
        return (variable.get(),)
    except LookupError:
        return ()


def _restore(module: str, name: str, captured: tuple[Any, ...]) -> None:
    for value in captured:
        variable: contextvars.ContextVar[Any] = getattr(sys.modules[module], name)
        variable.set(value)


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
                await (
                    trio.lowlevel.checkpoint_if_cancelled()
                )  # a place that was given in the step in which the run ends
                begin()
                reply = await worker.ask(order)
            finally:
                self._pool.give_back(worker)
        return unpack_reply(reply, ctx)
