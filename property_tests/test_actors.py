"""Trees of resident actors that crash, resume, stop, are restarted and left, while senders send: what holds always.

Every message ends once, is handled no more often than it may be, in its sender's order, and is accounted for; nobody
is told what is not so. See `Desk.check`. The schedule is trio's, and random.
"""

from __future__ import annotations

import contextlib
import itertools

import attrs
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st

from stageflow_actors import (
    Backoff,
    Intensity,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    Restart,
    Supervisor,
)
from stageflow_actors.errors import ActorDeadError, RestartIntensityError

from .actor_world import Desk, spawn
from .mailbox_model import DieError, Options, options

SCOPES = ["one_for_one", "dependents", "one_for_all", "rest_for_one"]
ACTS = [
    *["reply"] * 4,
    *["step", "sleep1", "sleep1", "crash", "sleep1 crash", "step crash", "shrug", "step shrug"],
    *["sleep1 die", "sleep1 stop", "stop crash", "sleep4", "hang"],
]


@attrs.frozen
class Send:
    pause: int
    kind: str
    target: int
    script: tuple
    timeout: float | None
    patience: float | None
    """Seconds after which the sender is cancelled."""


@attrs.frozen
class Order:
    pause: int
    what: str
    target: int
    script: tuple


@attrs.frozen
class ActorPlan:
    options: Options
    is_inner: bool
    """Whether it lives in the child supervisor."""
    depends_on: tuple


@attrs.frozen
class Plan:
    scopes: tuple
    actors: tuple
    senders: tuple
    orders: tuple
    lasts: int
    ending: str
    is_fragile: bool
    """Whether the supervisor at the top allows for a few restarts only."""


scripts = st.lists(st.sampled_from(ACTS), min_size=1, max_size=3).map(tuple)
pauses = st.sampled_from([0, 0, 0, 1, 2])
actors = st.builds(ActorPlan, options, st.booleans(), st.sets(st.integers(0, 2), max_size=2).map(tuple))
sends = st.builds(
    Send,
    pauses,
    st.sampled_from(["ask", "ask", "ask", "tell", "tell", "nowait"]),
    st.integers(0, 3),
    scripts,
    st.sampled_from([None, 0.5, 2.5, 6.5]),
    st.sampled_from([None, None, None, 0.25, 1.75]),
)
orders = st.builds(
    Order, pauses, st.sampled_from(["restart", "restart", "run", "run", "run", "stop"]), st.integers(0, 3), scripts
)
plans = st.builds(
    Plan,
    st.tuples(st.sampled_from(SCOPES), st.sampled_from(SCOPES)),
    st.lists(actors, min_size=1, max_size=4).map(tuple),
    st.lists(st.lists(sends, min_size=1, max_size=8).map(tuple), min_size=1, max_size=4).map(tuple),
    st.lists(orders, max_size=5).map(tuple),
    st.sampled_from([12, 20, 8, 4, 0]),
    st.sampled_from(["normal", "normal", "error", "cancel"]),
    st.sampled_from([False, False, False, True]),
)


class World:
    """The actors of a plan, and those who use them."""

    def __init__(self, plan):
        self.plan = plan
        self.numbers = itertools.count()
        self.refs = []
        self.child = None

    async def build(self, supervisor):
        self.supervisor = supervisor
        self.desk = Desk(supervisor)
        if any(actor.is_inner for actor in self.plan.actors):
            inner = Supervisor(scope=self.plan.scopes[1], intensity=Intensity(2))
            restart = Restart(max_restarts=10_000, backoff=Backoff(initial=1, factor=1, jitter=0))
            self.child = await supervisor.spawn_supervisor(inner, name="child", restart=restart)
        for number, actor in enumerate(self.plan.actors):
            home = self.child if actor.is_inner else supervisor
            before = range(min(number, 3))
            names = [
                f"a{one}"
                for one in actor.depends_on
                if one in before and self.plan.actors[one].is_inner is actor.is_inner
            ]
            self.refs.append(await spawn(home, self.desk, f"a{number}", **actor.options.spawn(), depends_on=names))

    def find(self, target):
        return self.refs[target % len(self.refs)]

    async def send(self, sender, sends):
        for one in sends:
            await trio.sleep(one.pause)
            number, ref = next(self.numbers), self.find(one.target)
            scope = trio.CancelScope()
            if one.patience is not None:
                scope.deadline = trio.current_time() + one.patience
            if one.kind == "ask":
                await self.desk.ask(ref, number, *one.script, sender=sender, timeout=one.timeout, scope=scope)
            elif one.kind == "tell":
                await self.desk.tell(ref, number, *one.script, sender=sender, scope=scope)
            else:
                self.desk.tell_nowait(ref, number, *one.script, sender=sender)

    async def order(self, orders):
        for one in orders:
            await trio.sleep(one.pause)
            ref = self.find(one.target)
            if one.what == "stop":
                await ref.stop()
            elif one.what == "restart":
                with contextlib.suppress(ActorDeadError):
                    await ref.restart()
            else:
                await self.run(ref, one.script)

    async def run(self, ref, script):
        """Run a pipeline of one stage, in the child supervisor if there is one."""
        snapshot = self.desk.note_stage(ref, next(self.numbers), *script)
        # Refused, failed or told that its supervisor is gone: all that is no matter here.
        with contextlib.suppress(PipelineValidationError, PipelineFailedError, ActorDeadError, RuntimeError):
            home = self.child if ref.name.startswith("child/") else self.supervisor
            await home.run(Pipeline("p").with_stage("x", ref, timeout=7.5), snapshot)

    async def watch(self):
        """Look at the counters every quarter of a second."""
        while True:
            await trio.sleep(0.25)
            for ref, actor in zip(self.refs, self.plan.actors, strict=True):
                statistics = ref.statistics()
                held = statistics.ledger.pending - statistics.queued
                assert 0 <= held <= actor.options.pool
                assert statistics.idle + held <= actor.options.pool
                assert statistics.idle <= statistics.workers <= actor.options.pool
                if statistics.blocked:
                    assert actor.options.overflow == "wait"
                    assert statistics.queued >= actor.options.max_queued
                    assert not statistics.idle


class LeaveError(Exception):
    pass


def is_expected(error):
    if isinstance(error, ExceptionGroup):
        return all(is_expected(one) for one in error.exceptions)
    return isinstance(error, (LeaveError, RestartIntensityError, DieError))


async def live(plan):
    tasks = trio.lowlevel.current_statistics().tasks_living
    world = World(plan)
    with trio.fail_after(10_000):
        async with trio.open_nursery() as senders:
            try:
                await leave_after(plan, world, senders)
            except Exception as error:
                event(f"left with {type(error).__name__}")
                if not is_expected(error):
                    raise
    world.desk.check()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    seen = set(world.desk.outcomes.values()) | {reason for reason, numbers in world.desk.letters.items() if numbers}
    if any(delivery > 1 for _, _, delivery in world.desk.begun):
        seen.add("delivered again")
    if any(ref.statistics().restarts for ref in world.refs):
        seen.add("restarted")
    for what in sorted(seen):
        event(what)


async def leave_after(plan, world, senders):
    intensity = Intensity(3 if plan.is_fragile else 100_000)
    with trio.CancelScope() as scope:
        async with Supervisor(scope=plan.scopes[0], intensity=intensity) as supervisor, trio.open_nursery() as nursery:
            await world.build(supervisor)
            nursery.start_soon(world.watch)
            for sender, sends in enumerate(plan.senders):
                senders.start_soon(world.send, sender, sends)
            senders.start_soon(world.order, plan.orders)
            await trio.sleep(plan.lasts)
            if plan.ending == "cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
            if plan.ending == "error":
                raise LeaveError


@settings(max_examples=2 * settings.default.max_examples)
@given(plan=plans)
def test_every_message_is_accounted_for(plan):
    trio.run(live, plan, clock=trio.testing.MockClock(autojump_threshold=0))
