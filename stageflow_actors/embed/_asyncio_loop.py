"""Async stages that await asyncio, in an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, final

import attrs
import outcome
import trio

from stageflow_actors._placement import Placement, Site
from stageflow_actors._stage import bind_runner
from stageflow_actors._validation import refuse
from stageflow_actors.errors import MissingExtraError, StrayCancelledError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from stageflow_actors import StageContext
    from stageflow_actors._actor import Host
    from stageflow_actors._stage import RunnerForm


def asyncio_loop(loop: asyncio.AbstractEventLoop | None = None) -> Placement:
    """Return a placement for async stages that await asyncio instead of trio.

    Everything of such a stage runs in that loop: it is made, entered if it is an async context manager, executed and
    left there, in a task of its own, all within its timeout. Cancelling it cancels that task, in asyncio's way: a
    `CancelledError`, once; the run waits until it has ended. Context variables hold as for any stage.

    Args:
        loop: The application's own, which has to run as long as the supervisor is open: for stages that share clients
            with the rest of the application. By default a loop inside trio's, opened for the supervisor, by
            trio-asyncio; to have that imported changes how asyncio makes new loops in the whole process, so it is
            not for programs that run asyncio too.

    Raises:
        MissingExtraError: There is no `loop`, and the extra `asyncio` is not installed.
        PipelineValidationError: It is no loop, or closed.
    """
    if loop is None:
        _require_extra()
    elif not isinstance(loop, asyncio.AbstractEventLoop):
        refuse(f"loop must be an asyncio loop, not {loop!r}", hint="write asyncio_loop(asyncio.get_running_loop())")
    elif loop.is_closed():
        refuse(f"loop {loop!r} is closed", hint="give one that runs as long as the supervisor is open")
    return LoopPlacement(loop)


def _require_extra() -> None:
    from importlib.util import find_spec  # noqa: PLC0415 (to import it has effects, so it is only looked for)

    if find_spec("trio_asyncio") is None:
        hint = "install it: pip install 'stageflow-actors[asyncio]'"
        raise MissingExtraError("asyncio_loop() without a loop needs trio_asyncio", extra="asyncio", hint=hint)


@final
@attrs.frozen(eq=False)
class LoopPlacement(Placement):
    """Made by `asyncio_loop`."""

    loop: asyncio.AbstractEventLoop | None

    def check(self, _runner: Any, form: RunnerForm) -> str | None:
        """Refuse plain functions."""
        return None if form.is_async else "awaits nothing, as it is a plain `def`: leave the placement out"

    def adapt(self, runner: Any, form: RunnerForm) -> tuple[RunnerForm, Callable[..., Any]]:
        """Have a class made and entered in the loop too."""
        adapted = attrs.evolve(form, is_class=False, is_managed=False)
        if form.is_managed:
            return adapted, partial(_enter, runner)
        return adapted, partial(_make, runner) if form.is_class else bind_runner(runner, form)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Site]:
        """Open it."""
        if self.loop is not None:
            yield LoopSite(self.loop)
            return
        from trio_asyncio import open_loop  # noqa: PLC0415 (it belongs to an extra, and has effects)

        async with open_loop() as loop:
            yield LoopSite(loop)

    def __repr__(self) -> str:
        """Write it as it is made."""
        return "asyncio_loop()" if self.loop is None else f"asyncio_loop({self.loop!r})"


async def _make(cls: Callable[[], Any], ctx: StageContext) -> Any:
    return await cls().execute(ctx)


async def _enter(cls: Callable[[], Any], ctx: StageContext) -> Any:
    instance = cls()
    async with instance:
        return await instance.execute(ctx)
    return None  # __aexit__ swallowed an error


@final
class LoopSite(Site):
    """An asyncio loop, while a supervisor is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def call(
        self, function: Callable[[StageContext], Any], ctx: StageContext, begin: Callable[[], None], _host: Host
    ) -> Any:
        """Run one attempt in the loop."""
        visit = _Visit(self._loop, partial(function, ctx))
        begin()
        self._loop.call_soon_threadsafe(visit.begin)
        try:
            await visit.ended.wait()
        except trio.Cancelled:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its task gone
                self._loop.call_soon_threadsafe(visit.cancel)
                with trio.CancelScope(shield=True):
                    await visit.ended.wait()
            if visit.result is None:
                raise
        if visit.result is None:
            raise StrayCancelledError("an asyncio.CancelledError came out of it that its run had not caused")
        return visit.result.unwrap()


@final
class _Visit:
    """One attempt in the loop. All but its end happens in the loop's thread, which may be that of trio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[Any]]) -> None:
        self._loop = loop
        self._function = function
        self._context = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._task: asyncio.Task[None] | None = None
        self.ended = trio.Event()
        self.result: outcome.Outcome[Any] | None = None
        """What came of it; None where its task was cancelled."""

    def begin(self) -> None:
        self._task = self._loop.create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _run(self) -> None:
        try:
            self.result = outcome.Value(await self._function())
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # asyncio would end the loop with what is no `Exception`; the run is to judge it
            self.result = outcome.Error(error)

    def _end(self, _task: asyncio.Task[None]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.ended.set)
