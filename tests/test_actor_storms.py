"""Random trees of supervisors through random storms: nobody is there twice, nobody is forgotten, nothing is left."""

from __future__ import annotations

import contextlib
import random
from collections import Counter

import pytest
import trio
from actor_cases import ESCALATE, POLICIES, SCOPES, CrashError, later, obey

from stageflow_actors import (
    Directive,
    Intensity,
    Mailbox,
    Pipeline,
    PipelineValidationError,
    Restart,
    StageTimeoutError,
    Supervisor,
)
from stageflow_actors.errors import ActorDeadError, ActorError, OverloadedError, RestartIntensityError

RESTARTS = [
    None,
    later(0.0, max_restarts=2),
    later(1.0),
    ESCALATE,
    Restart(decide=lambda error: Directive.RESUME),
]
MAILBOXES = [Mailbox(), Mailbox(max_queued=1), Mailbox(max_queued=0), Mailbox(max_queued=1, overflow="drop_oldest")]
WAYS = ("normally", "with an error", "cancelled")


class LeftError(Exception):
    """What a supervisor is left with."""


EXPECTED = (
    LeftError,
    CrashError,
    StageTimeoutError,
    ActorError,
    OverloadedError,
    RestartIntensityError,
    PipelineValidationError,
)


def is_expected(error):
    if isinstance(error, ExceptionGroup):  # of a nursery that an instance keeps
        return all(map(is_expected, error.exceptions))
    return isinstance(error, EXPECTED) or (isinstance(error, RuntimeError) and "the supervisor" in str(error))


@contextlib.contextmanager
def only_what_is_expected():
    """Let pass what may come of a storm, and nothing else."""
    try:
        yield
    except Exception as error:
        if not is_expected(error):
            raise


class Storm:
    """A tree that is made, shaken and left, all by chance, and those that are inside of it."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.way = self.random.choice(WAYS)
        self.inside = Counter()
        self.problems = []
        self.refs = []
        self.supervisors = [self.make_supervisor()]
        self.names = iter(range(10_000))

    def make_supervisor(self):
        limits = [Intensity(0), Intensity(1), Intensity(2, within=2.0), Intensity(50)]
        return Supervisor(scope=self.random.choice(SCOPES), intensity=self.random.choice(limits))

    def make_stage(self, key, pool):
        """Return a stage class that takes some time or none to come and go, and may fail to start."""
        start, stop = self.random.choice([0, 0.0, 0.5, 2]), self.random.choice([0, 0.0, 0.5, 2])
        fails = self.random.choice([(), (), (3,), (3, 4, 6)])
        starts = Counter()
        storm = self

        class Shaken:
            async def __aenter__(self):
                starts[key] += 1
                storm.inside[key] += 1
                if storm.inside[key] > pool:
                    storm.problems.append(f"{key} is there twice")
                try:
                    await trio.sleep(start)
                    if starts[key] in fails:
                        raise CrashError
                    self.manager = trio.open_nursery()
                    self.broken = trio.Event()
                    (await self.manager.__aenter__()).start_soon(self.keep)
                except BaseException:
                    storm.inside[key] -= 1
                    raise

            async def keep(self):
                await self.broken.wait()
                raise CrashError

            async def __aexit__(self, *exc):
                try:
                    await trio.sleep(stop)
                finally:
                    storm.inside[key] -= 1
                    self.manager._nursery.cancel_scope.cancel()
                    await self.manager.__aexit__(*exc)

            async def execute(self, ctx):
                if ctx.snapshot.data.get("do") == "break":
                    self.broken.set()
                return await obey(ctx)

        return Shaken

    async def spawn(self, supervisor):
        pick = self.random.choice
        key, pool, policy, deliveries = next(self.names), pick([1, 1, 2]), pick(POLICIES), pick([1, 1, 3])
        siblings = [ref for ref in self.refs if ref._resident.home is supervisor._household._family]
        ref = await supervisor.spawn(
            self.make_stage(key, pool),
            name=f"a{key}",
            policy=policy,
            pool=pool,
            restart=None if policy == "temporary" else pick(RESTARTS),
            mailbox=pick(MAILBOXES),
            shutdown=pick([0.0, 1.0, 5.0]),
            max_deliveries=deliveries,
            idempotent=deliveries > 1,
            depends_on=[ref for ref in siblings if not ref._resident.is_retiring and self.random.random() < 0.4],
        )
        self.refs.append(ref)

    async def spawn_supervisor(self):
        below = self.make_supervisor()
        await self.random.choice(self.supervisors).spawn_supervisor(
            below,
            name=f"s{next(self.names)}",
            restart=self.random.choice([None, later(1.0)]),
            policy=self.random.choice(POLICIES[:2]),
        )
        self.supervisors.append(below)
        await self.spawn(below)

    async def strike(self):
        """Do something to somebody."""
        await trio.sleep(self.random.choice([0, 0, 0.5, 1.0, 2.0]))
        ref, supervisor = self.random.choice(self.refs), self.random.choice(self.supervisors)
        what = self.random.choice(
            ["crash", "crash", "break", "stop", "wait", "tell", "restart", "end", "run", "new", "sub"]
        )
        with only_what_is_expected():
            if what in {"crash", "break", "stop", "wait"}:
                after = self.random.choice([0.0, 0.5, 3.0])
                await ref.ask({"do": what, "after": after}, timeout=self.random.choice([None, 2.0]))
            elif what == "tell":
                await ref.tell({"do": "crash"})
            elif what == "restart":
                await ref.restart()
            elif what == "end":
                await ref.stop()
            elif what == "run":
                await supervisor.run(Pipeline("p").with_stage("x", ref), {"after": 1.0}, continue_on_failure=True)
            elif what == "new":
                await self.spawn(supervisor)
            else:
                await self.spawn_supervisor()

    async def live(self, nursery):
        """Let it happen, inside of the supervisor at the top."""
        for _ in range(self.random.randint(1, 3)):
            await self.spawn(self.supervisors[0])
        for _ in range(self.random.randint(0, 2)):
            await self.spawn_supervisor()
        for _ in range(self.random.randint(3, 14)):
            nursery.start_soon(self.strike)
        for _ in range(self.random.choice([0, 1, 3, 1000])):
            await trio.sleep(0.5)
            if not nursery.child_tasks:
                await trio.sleep(60)
                await self.check_all_there()
                return

    async def check_all_there(self):
        """Once it is quiet, whoever has not ended is there, with all workers."""
        for ref in self.refs:
            if ref._resident.ended.is_set():
                with pytest.raises(ActorDeadError):
                    await ref.ask()
            elif ref.statistics().workers != len(ref._resident.units):
                self.problems.append(f"{ref} is forgotten")


@pytest.mark.parametrize("seed", range(80))
async def test_a_storm(seed, autojump_clock):
    storm = Storm(seed)
    top = storm.supervisors[0]
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope, only_what_is_expected():
            async with top:
                await storm.live(nursery)
                if storm.way == "with an error":
                    raise LeftError
                if storm.way == "cancelled":
                    scope.cancel()
                    await trio.sleep(storm.random.choice([0, 1]))
        assert +storm.inside == {}
        nursery.cancel_scope.deadline = trio.current_time() + 60
    assert not nursery.cancel_scope.cancelled_caught
    assert storm.problems == []
    assert top.ledger.balanced
