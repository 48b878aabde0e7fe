"""The server of the load test: started as a process of its own, and looked at from time to time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import attrs
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).resolve().parents[1]
IDLE_WITHIN = 30.0
"""Seconds within which a server that nobody asks anything has to be idle."""


@attrs.frozen
class Sample:
    """What the server had at one time."""

    at: float
    """Seconds from the start of the load."""
    runs: int
    asyncio_tasks: int
    trio_tasks: int
    threads: int
    rss: float | None
    """MiB in memory; None where the system does not tell."""


@attrs.define
class Server:
    """A server that runs."""

    process: asyncio.subprocess.Process
    address: str
    began: float = attrs.field(factory=perf_counter)
    complaints: str = ""
    """What it has written to its log; it is told to log only what goes wrong."""

    async def look(self) -> Sample:
        """Look at it."""
        async with httpx.AsyncClient(base_url=self.address, timeout=30, trust_env=False) as client:
            status = (await client.get("/status")).raise_for_status().json()
        return Sample(perf_counter() - self.began, rss=read_rss(self.process.pid), **status)

    async def watch(self, every: float, samples: list[Sample]) -> None:
        """Look at it again and again."""
        while True:
            samples.append(await self.look())
            await asyncio.sleep(every)

    async def wait_idle(self, best: Sample | None = None) -> Sample:
        """Wait until it has no run, and no more tasks and threads than before; return what it has then.

        Args:
            best: What it had before. It is not waited for longer than `IDLE_WITHIN`.
        """
        until = perf_counter() + IDLE_WITHIN
        while True:
            sample = await self.look()
            is_idle = sample.runs == 0 and (best is None or not exceeds(sample, best))
            if is_idle or perf_counter() > until:
                return sample
            await asyncio.sleep(0.25)


def exceeds(sample: Sample, before: Sample) -> list[str]:
    """Return of what there is more than before."""
    names = ("runs", "asyncio_tasks", "trio_tasks", "threads")
    return [name for name in names if getattr(sample, name) > getattr(before, name)]


def read_rss(pid: int) -> float | None:
    """Return the MiB that a process has in memory, or None where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@asynccontextmanager
async def serve(*options: str) -> AsyncIterator[Server]:
    """Serve the FastAPI example on a free port of 127.0.0.1; afterwards it has stopped, and said what went wrong."""
    script = ROOT / "examples" / "fastapi_app" / "main.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), "--port", "0", "--quiet", *options, stdout=pipe, stderr=pipe, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    reading = asyncio.create_task(process.stderr.read())
    try:
        first = (await process.stdout.readline()).decode()
        if not first.startswith("serving at "):
            message = f"the server does not serve: {first}{(await reading).decode()}"
            raise RuntimeError(message)
        server = Server(process, first.split()[2].rstrip(";"))
        yield server
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(IDLE_WITHIN):
            server.complaints = (await reading).decode()
            code = await process.wait()
        if code:
            server.complaints += f"exit code {code}\n"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        reading.cancel()
