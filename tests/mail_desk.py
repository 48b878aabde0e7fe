"""An actor for the tests of mailboxes, which handles one message a second, and what they send and look at."""

from __future__ import annotations

import contextlib

import trio
import trio.testing


class CrashError(Exception):
    pass


class Handler:
    """Handles one message a second, and writes down which; some crash."""

    def __init__(self):
        self.handled = []

    async def __call__(self, ctx):
        number = ctx.snapshot.data["number"]
        self.handled.append(number)
        await trio.sleep(ctx.snapshot.data.get("takes", 1))
        if ctx.snapshot.data.get("crashes", 0) >= ctx.attempt:
            raise CrashError(number)
        return {"number": number}


def message(number, **data):
    return {"number": number, **data}


async def settle():
    await trio.testing.wait_all_tasks_blocked()


async def get_busy(ref):
    """Give a worker something to do for a second."""
    ref.tell_nowait(message("first"))
    await settle()


def read(stream):
    """Return the dead letters so far: what they were about, and why they are dead."""
    letters = []
    with contextlib.suppress(trio.WouldBlock):
        while True:
            letter = stream._receive.receive_nowait()
            letters.append((letter.snapshot.data["number"], letter.reason))
    return letters
