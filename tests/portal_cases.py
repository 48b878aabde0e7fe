"""What the tests of the portal share: both modes, stages that tell how far they are, and a look at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from pathlib import Path

import pytest
import trio

from stageflow_actors import Pipeline
from stageflow_actors.embed.asyncio import SupervisorPortal

PATIENCE = 60
"""Seconds after which a test has failed; none waits for them."""


@pytest.fixture(params=["thread", "guest"])
def open_portal(request):
    """Makes a portal, in each of its two modes."""

    def make(**options):
        return SupervisorPortal(guest=request.param == "guest", **options)

    make.is_guest = request.param == "guest"
    return make


def run(main):
    """Run an async function in a fresh asyncio loop; nothing of it may be left."""

    async def checked():
        async with asyncio.timeout(PATIENCE):
            returned = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()
        return returned

    before, threads = list_sockets(), list_threads()
    returned = asyncio.run(checked())
    assert list_threads() - threads == set()
    gc.collect()
    assert list_sockets() == before
    return returned


def list_threads():
    """Return all threads but the idle ones that trio keeps for a while."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}


def list_sockets():
    """Return the sockets that this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):  # nothing where there is no such folder
        with contextlib.suppress(OSError):  # that of the list itself
            found.add(descriptor.readlink().name)
    return {name for name in found if name.startswith("socket:")}


class Waiting:
    """A stage that waits for ever, until it is cancelled. Made in an asyncio task."""

    def __init__(self):
        self._host = asyncio.get_running_loop()
        self.begun = asyncio.Event()
        self.ended = 0
        """How often it has ended."""
        self.pipeline = Pipeline("waiting").with_stage("wait", self)

    def tell(self, event):
        self._host.call_soon_threadsafe(event.set)

    async def execute(self, ctx):
        self.tell(self.begun)
        try:
            await trio.sleep_forever()
        finally:
            self.ended += 1


class Stubborn(Waiting):
    """One that, being cancelled, still waits for `release`."""

    def __init__(self):
        super().__init__()
        self.stopping = asyncio.Event()
        self._released = trio.Event()
        self._token = None

    async def execute(self, ctx):
        self._token = trio.lowlevel.current_trio_token()
        try:
            await super().execute(ctx)
        finally:
            self.tell(self.stopping)
            with trio.CancelScope(shield=True):
                await self._released.wait()

    def release(self):
        self._token.run_sync_soon(self._released.set)


class Gated(Waiting):
    """One that waits for `release`, and returns."""

    def __init__(self):
        super().__init__()
        self._released = trio.Event()
        self._token = None

    async def execute(self, ctx):
        self._token = trio.lowlevel.current_trio_token()
        self.tell(self.begun)
        await self._released.wait()
        self.ended += 1
        return {"released": True}

    def release(self):
        self._token.run_sync_soon(self._released.set)


async def settle():
    """Let whatever is ready in the asyncio loop go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def wait_idle(portal):
    """Wait until a portal has no run."""
    while (await portal.statistics()).runs:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0)
