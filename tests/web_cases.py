"""What the tests of web applications share: a server as a process of its own, and clients of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds after which a test has failed; none waits for them."""


@attrs.frozen
class Served:
    """A server that runs."""

    process: subprocess.Popen[str]
    address: str
    client: httpx.Client

    def wait_for(self, holds: Callable[[dict[str, int]], bool]) -> dict[str, int]:
        """Ask for the status until it is as it should be; nobody tells."""
        give_up = time.monotonic() + PATIENCE
        while not holds(status := self.client.get("/status").json()):
            assert time.monotonic() < give_up, status
        return status

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal; return the exit code, and what the process has written."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


@contextmanager
def serving(script: str, *arguments: str) -> Iterator[Served]:
    """Run a server of the examples on a free port, until the block is left."""
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / script), "--port", "0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", env=environment) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("serving at "), first
            address = first.split()[2].rstrip(";")
            with open_client(address) as client:
                yield Served(process, address, client)
        finally:
            if process.poll() is None:
                process.kill()


def open_client(address: str) -> httpx.Client:
    return httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False)


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Read server-sent events: the kind of each, and its data."""
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
