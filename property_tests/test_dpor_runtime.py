"""The reduction over this library's own runtime: runs, limits and actors, with what every schedule of them leads to."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.lowlevel import checkpoint

from stageflow_actors import Mailbox, Restart, Supervisor, Trigger
from stageflow_actors.errors import MailboxFullError

from .explored import chain, fork, get_result
from .outcomes_of import by_dfs, by_dpor, compare

EVERY = 600


def tell_result(result):
    """Return what came of the stages."""
    states = tuple((stage, state.value) for stage, state in sorted(result.states.items()))
    return (states, tuple((stage, repr(dict(output.data))) for stage, output in sorted(result.items())))


class Log:
    """What stages did, in their order."""

    def __init__(self):
        self.entries = []

    def stage(self, name, *, fails=False):
        async def run(_ctx):
            self.entries.append(name)
            await checkpoint()
            self.entries.append(name)
            if fails:
                raise ValueError(name)
            return {"seen": len(self.entries)}

        return run


async def two_stages():
    """Stages that share a log: their order shows in their data."""
    log = Log()
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", log.stage("a"), log.stage("b")))
    return tell_result(result)


async def two_stages_apart():
    async with Supervisor() as supervisor:
        result = await supervisor.run(fork("p", Log().stage("a"), Log().stage("b")))
    return tell_result(result)


async def behind_a_limit():
    log = Log()
    async with Supervisor(max_running_stages=1) as supervisor:
        result = await supervisor.run(fork("p", log.stage("a"), log.stage("b")))
    return tell_result(result)


async def one_fails():
    """A failure ends the run, in the middle of the other or after it."""
    log = Log()
    async with Supervisor() as supervisor:
        run = supervisor.start(fork("p", log.stage("a", fails=True), log.stage("b")), continue_on_failure=False)
        result = await get_result(run)
    return tell_result(result)


async def all_are_done():
    log = Log()
    pipeline = chain("p", log.stage("a", fails=True)).with_stage(
        "d", log.stage("d"), dependencies=("a",), trigger=Trigger.ALL_DONE
    )
    async with Supervisor() as supervisor:
        result = await get_result(supervisor.start(pipeline))
    return tell_result(result)


async def restarted():
    tries = []

    async def flaky(ctx):
        tries.append(ctx.attempt)
        await checkpoint()
        if ctx.attempt == 1:
            raise ValueError("once")
        return {"tries": len(tries)}

    async with Supervisor() as supervisor:
        pipeline = fork("p", flaky, Log().stage("b"), restart=Restart(max_restarts=1))
        result = await supervisor.run(pipeline)
    return tell_result(result)


async def a_timeout():
    async with Supervisor() as supervisor:
        result = await supervisor.run(chain("p", Log().stage("a")), timeout=1.0)
    return tell_result(result)


class Counter:
    def __init__(self):
        self.count = 0

    async def execute(self, ctx):
        seen = self.count
        await checkpoint()
        self.count = seen + ctx.snapshot.data["by"]
        return {"count": self.count}


async def two_senders():
    """An actor needs no lock."""
    replies = []

    async def send(ref, by):
        output = await ref.ask({"by": by})
        replies.append((by, output.data["count"]))

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Counter, name="counter")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ref, 1)
            nursery.start_soon(send, ref, 2)
    return tuple(replies)


async def overflowing(overflow):
    said = []

    async def send(ref, by):
        try:
            await ref.tell({"by": by})
        except MailboxFullError:
            said.append(("full", by))
        else:
            said.append(("told", by))

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Counter, name="counter", mailbox=Mailbox(1, overflow))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ref, 1)
            nursery.start_soon(send, ref, 2)
        ledger = ref.statistics().ledger
    return (tuple(said), ledger.overflow, ledger.rejected)


async def a_stop():
    """The supervisor stops while somebody asks."""
    said = []

    async def send(ref):
        try:
            output = await ref.ask({"by": 1})
        except Exception as error:
            said.append(type(error).__name__)
        else:
            said.append(output.data["count"])

    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        ref = await supervisor.spawn(Counter, name="counter")
        nursery.start_soon(send, ref)
        await checkpoint()
    return tuple(said)


PROGRAMS = [
    two_stages,
    two_stages_apart,
    behind_a_limit,
    one_fails,
    all_are_done,
    restarted,
    a_timeout,
    two_senders,
    partial(overflowing, "reject"),
]
LARGE = [*(partial(overflowing, policy) for policy in ("wait", "drop_oldest", "drop_newest")), a_stop]


def name(program):
    return program.__name__ if not isinstance(program, partial) else f"{program.func.__name__} {program.args[0]}"


@pytest.mark.parametrize(
    "program", [*PROGRAMS, *(pytest.param(program, marks=pytest.mark.slow) for program in LARGE)], ids=name
)
def test_what_can_come_of_a_run_is_what_the_reduction_sees(program):
    reduced = by_dpor(program, most=500, clock="auto")
    plain = by_dfs(program, most=EVERY, clock="auto")
    if reduced.complete:
        compare(reduced, plain)
    else:
        assert reduced.untracked or reduced.executions == 500, reduced
