"""A real Ctrl-C while a program is explored: the program is ended, and the interrupt comes out alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest

PROGRAMS = {
    "many executions": """
        async def program():
            print("running", flush=True) if begin() else None
            async with trio.open_nursery() as nursery:
                for seconds in range(5):
                    nursery.start_soon(trio.sleep, seconds)
    """,
    "a spinning task": """
        async def program():
            begin() and print("running", flush=True)
            while True:
                await checkpoint()
    """,
    "spinning tasks": """
        async def program():
            begin() and print("running", flush=True)
            async def spin():
                while True:
                    await checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spin)
                nursery.start_soon(spin)
    """,
    "a program that swallows it": """
        async def program():
            begin() and print("running", flush=True)
            while True:
                try:
                    await checkpoint()
                except BaseException:
                    pass
    """,
    "a shield": """
        async def program():
            begin() and print("running", flush=True)
            with trio.CancelScope(shield=True):
                while True:
                    await checkpoint()
    """,
    "a thread": """
        async def program():
            begin() and print("running", flush=True)
            await trio.to_thread.run_sync(release.wait, 2)
    """,
    "a socket": """
        async def program():
            begin() and print("running", flush=True)
            left, right = trio.socket.socketpair()
            with left, right:
                await right.recv(1)
    """,
    "a cleanup": """
        async def program():
            begin() and print("running", flush=True)
            try:
                while True:
                    await checkpoint()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                print("cleaned", flush=True)
    """,
}

DEAF = {
    "code without an await": """
        async def program():
            begin() and print("running", flush=True)
            while True:
                pass
    """,
    "code without an await in a child": """
        async def program():
            async def spin():
                begin() and print("running", flush=True)
                while True:
                    pass
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spin)
    """,
}
"""Programs that go on without an await: they are interrupted by the second one."""

RUN = """
import gc, signal, threading, trio
from trio.lowlevel import checkpoint
from stageflow_actors.testing import explore

release = threading.Event()
begun = []

def begin():
    begun.append(None)
    return len(begun) == 1

{program}

try:
    explore(program, max_executions=10**9, max_steps=10**9)
except BaseException as error:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of those that were sent again
    print(type(error).__name__, flush=True)
assert trio.run(trio.sleep, 0) is None
begun.append(None)
async def after():
    await checkpoint()
print(explore(after).complete, gc.isenabled(), flush=True)
"""


PATIENCE = 60
"""Seconds: far more than it takes."""


def interrupt(program, *, again_after=PATIENCE):
    """Run an exploration and interrupt it, again after so many seconds in which it has not ended; return its output."""
    code = RUN.format(program=textwrap.dedent(program))
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        try:
            assert process.stdout.readline() == "running\n"
            for _ in range(int(PATIENCE / again_after)):
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    return process.communicate(timeout=again_after)
        finally:
            process.kill()
        return process.communicate()


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_interrupt_ends_the_exploration(name):
    told, errors = interrupt(PROGRAMS[name])
    assert told.splitlines()[-2:] == ["KeyboardInterrupt", "True True"], told + errors
    assert errors == ""
    if name == "a cleanup":
        assert "cleaned" in told


@pytest.mark.parametrize("name", DEAF)
def test_the_second_interrupt_ends_what_does_not_await(name):
    told, errors = interrupt(DEAF[name], again_after=0.5)
    assert told.splitlines()[-2:] == ["KeyboardInterrupt", "True True"], told + errors
    assert errors == ""
