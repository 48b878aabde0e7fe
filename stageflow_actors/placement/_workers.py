"""Worker processes as a supervisor has them: started when they are needed, killed when they have to end, reaped always.

The processes are multiprocessing's, spawned; a socket pair leads to each. trio-parallel, which does likewise, waits
under a shield for what a killed worker has left behind, in threads of trio's default limiter, and takes a result that
breaks off for an error of the caller: whatever happens to a worker has to be the failure of one stage, at once.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import multiprocessing
import os
import signal
import socket
import sys
from math import inf
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Final, final

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from stageflow_actors import ContextSnapshot
from stageflow_actors._bag import OutputBag
from stageflow_actors._spec import NO_CONFIG
from stageflow_actors._stage import StageContext, StageInputs
from stageflow_actors.errors import WorkerDiedError

from ._parcel import pack_order, unpack_reply
from ._serving import HEADER, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess

_logger: Final = logging.getLogger("stageflow_actors")
_spawning: Final = multiprocessing.get_context("spawn")
_GRACE: Final = 1.0
"""Seconds that a worker without work may take to end, and one whose channel is broken to be dead."""
_PIECE: Final = 1 << 20
"""So many bytes of a message are read at once."""


@final
class Pool:
    """The workers of one placement, while a supervisor has it open.

    Args:
        nursery: Keeps the tasks that watch over the workers.
        initializer: Called in each of them when it starts, or None.
        idle_timeout: Seconds after which one without work is ended.
    """

    def __init__(self, nursery: trio.Nursery, initializer: Callable[[], object] | None, idle_timeout: float) -> None:
        self._nursery = nursery
        self._context = contextvars.copy_context()
        self._beginning = _make_context()
        self._first = pack_order(_Beginning(initializer), self._beginning, ())
        """The order that a worker starts with."""
        self._idle_timeout = idle_timeout
        self._threads = trio.CapacityLimiter(inf)
        """For what blocks a moment; trio's own limiter is for others, who may wait for us."""
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []
        """The one that worked last is taken first, so that those too many grow old."""

    async def take(self) -> Worker:
        """Return a worker that is ready: one that is idle, or a new one.

        Raises:
            WorkerDiedError: It did not come up.
            Exception: What its initializer has raised.
        """
        if self._idle:
            worker = self._idle.pop()
            worker.rest.deadline = inf
            return worker
        worker = Worker()
        await worker.start(self._threads)
        self._workers.add(worker)
        for watch in (self._see_off, self._let_grow_old):
            self._context.run(self._nursery.start_soon, watch, worker)
        try:
            unpack_reply(await worker.ask(self._first), self._beginning)
        except WorkerDiedError as died:
            died.problem += " before it was ready"
            died.hint = (
                "it imports the main module: let that be a file, with its work under `if __name__ == '__main__'`"
            )
            raise
        except BaseException:
            worker.kill()
            raise
        return worker

    def give_back(self, worker: Worker) -> None:
        """Take back a worker that may work again."""
        if not worker.ended.is_set():
            self._idle.append(worker)
            worker.rest.deadline = trio.current_time() + self._idle_timeout

    async def close(self) -> None:
        """End all; they have no work any more."""
        async with trio.open_nursery() as nursery:
            for worker in self._workers:
                nursery.start_soon(worker.end)

    @enable_ki_protection
    async def _see_off(self, worker: Worker) -> None:
        """Wait for a worker's end, and forget it."""
        with trio.CancelScope(shield=True):
            await worker.wait_for_end(self._threads)
        self._workers.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)

    @enable_ki_protection
    async def _let_grow_old(self, worker: Worker) -> None:
        """End a worker that has had nothing to do for too long."""
        while not worker.ended.is_set():
            with trio.CancelScope(shield=True, deadline=worker.rest.deadline) as worker.rest:
                await worker.ended.wait()
            if worker.rest.cancelled_caught:
                worker.rest.deadline = inf
                if worker in self._idle:
                    self._idle.remove(worker)
                    with trio.CancelScope(shield=True):
                        await worker.end()


@final
class Worker:
    """One worker process. Whatever happens to it, and whoever is cancelled, ends with it reaped."""

    def __init__(self) -> None:
        self._process: SpawnProcess
        self._stream: trio.SocketStream
        self.pid: int
        self.ended = trio.Event()
        """Set when it is dead, and reaped."""
        self._exitcode: int | None = None
        self._call = trio.CancelScope()
        """Around what waits for a message from it: cancelled when it is dead."""
        self.rest = trio.CancelScope()
        """Its deadline says until when it may be idle."""

    async def start(self, threads: trio.CapacityLimiter) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                name = "stageflow_actors worker"
                self._process = _spawning.Process(target=serve, args=(theirs,), name=name, daemon=True)
                # Cancelled, it goes on to the end: that is a moment, and a process of which nobody knows is none.
                await trio.to_thread.run_sync(_start, self._process, limiter=threads)
            except BaseException:
                ours.close()
                raise
        assert self._process.pid is not None
        self.pid = self._process.pid
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    async def ask(self, message: bytes) -> bytearray:
        """Send a message, and wait for the reply. Cancelled, it has killed the process.

        Raises:
            WorkerDiedError: The process has ended instead.
        """
        self._call = trio.CancelScope()
        try:
            with self._call, contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, EOFError):
                if self.ended.is_set():
                    self._call.cancel()
                await self._stream.send_all(HEADER.pack(len(message)))
                await self._stream.send_all(message)
                return await self._read(HEADER.unpack(await self._read(HEADER.size))[0])
            with trio.move_on_after(_GRACE):  # to end in its own way: its exit code tells more than that of a kill
                await self.ended.wait()
        except BaseException:  # Cancelled, above all
            await self._reap()
            raise
        await self._reap()
        raise WorkerDiedError(f"its worker process {_tell_exit(self._exitcode)}", exitcode=self._exitcode)

    async def _read(self, count: int) -> bytearray:
        found = bytearray()
        while len(found) < count:
            piece = await self._stream.receive_some(min(count - len(found), _PIECE))
            if not piece:
                raise EOFError
            found += piece
        return found

    async def _reap(self) -> None:
        self.kill()
        with trio.CancelScope(shield=True):
            await self.ended.wait()

    def kill(self) -> None:
        """Kill it, and all that it has started, as far as that has not left its group."""
        if not self.ended.is_set():
            self._kill_group()
            self._process.kill()

    def _kill_group(self) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has not come so far, or there is none
                os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """End it, which has no work: it ends by itself, or is killed."""
        self._stream.socket.close()
        with trio.move_on_after(_GRACE):
            await self.ended.wait()
        if not self.ended.is_set():
            _logger.warning("worker process %d did not end by itself, and was killed", self.pid)
            self.kill()
            await self.ended.wait()

    async def wait_for_end(self, threads: trio.CapacityLimiter) -> None:
        """Wait until it is dead, and reap it. For one task alone."""
        await _wait_for_end(self._process, threads)
        self._kill_group()  # what it has left behind; not reaped yet, its number is nobody else's
        self._process.join()
        self._exitcode = self._process.exitcode  # None where other code of the application has reaped it
        with contextlib.suppress(ValueError):  # then it counts as running
            self._process.close()
        self._stream.socket.close()
        self.ended.set()
        self._call.cancel()


@final
@attrs.frozen
class _Beginning:
    """What a worker does first: as a stage, so that it comes to something in the same way."""

    initializer: Callable[[], object] | None

    def __call__(self, _ctx: StageContext) -> None:
        if self.initializer is not None:
            self.initializer()


def _make_context() -> StageContext:
    """Return a context of no run."""
    inputs = StageInputs(OutputBag((), 0.0), "initializer", (), ())
    return StageContext("initializer", ContextSnapshot(), inputs, NO_CONFIG, 1, None)


def _start(process: SpawnProcess) -> None:
    """Start a process that does not hear Ctrl-C before it ignores it: it would show the traceback of an import."""
    if sys.platform == "win32":
        process.start()
        return
    resource_tracker.ensure_running()  # it is started with the first process, and would lift the block after that
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _wait_for_end(process: SpawnProcess, threads: trio.CapacityLimiter) -> None:
    """Wait until a process has ended. Not on multiprocessing's sentinel: what the process starts may hold that open."""
    if sys.platform == "win32":
        await trio.lowlevel.WaitForSingleObject(process.sentinel)
        return
    try:
        descriptor = os.pidfd_open(process.pid or 0)
    except (AttributeError, OSError):  # no Linux, or an old one
        await trio.to_thread.run_sync(process.join, limiter=threads, abandon_on_cancel=True)
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _tell_exit(exitcode: int | None) -> str:
    if exitcode is None:
        return "has ended, and its exit code was taken by somebody else"
    if exitcode < 0:
        try:
            return f"was killed by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"was killed by signal {-exitcode}"
    return f"ended with exit code {exitcode}"
