"""What the explored tests of supervision share: actors that are counted from their start to their end."""

from __future__ import annotations

import contextlib

import trio

from stageflow_actors import Backoff, Directive, Intensity, Restart
from stageflow_actors.errors import ActorError

from .explored import FEW, take_steps

SOME = FEW // 2
"""Executions of a test that has several sets of parameters."""
SCOPES = ["one_for_one", "dependents", "one_for_all", "rest_for_one"]
MANY = Intensity(1000)
ESCALATE = Restart(decide=lambda error: Directive.ESCALATE)
LATER = Restart(max_restarts=1000, backoff=Backoff(initial=1.0, factor=1.0, jitter=0.0))


class CrashError(Exception):
    """What a stage raises that is told to."""


def resident(room, name, start=0, stop=0):
    """Return a stage class whose instances are in the room from their start to their end, both of so many steps."""

    class Resident:
        async def __aenter__(self):
            self.stack = contextlib.ExitStack()
            with self.stack:
                self.stack.enter_context(room.enter(name))
                await take_steps(start)
                self.stack = self.stack.pop_all()

        async def __aexit__(self, *exc):
            with self.stack:
                await take_steps(stop)

        async def execute(self, ctx):
            if ctx.snapshot.data.get("crash"):
                raise CrashError
            if ctx.snapshot.data.get("wait"):
                await trio.sleep(1)
            return {"by": name}

    return Resident


async def spawn(supervisor, room, name, start=0, stop=0, **options):
    return await supervisor.spawn(resident(room, name, start, stop), name=name, **options)


async def crash(ref):
    with contextlib.suppress(CrashError, ActorError):
        await ref.ask({"crash": True}, timeout=None)


async def all_answer(*refs):
    for ref in refs:
        assert (await ref.ask(timeout=None)).data == {"by": ref.name.rpartition("/")[2]}
