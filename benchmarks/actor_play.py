"""Plays the plan of a chaos of resident actors: three phases under one supervisor, on a virtual clock where it can."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from actor_checks import look_round
from actor_clients import ask, be_client, flood
from actor_plans import PHASES, STEP, Act, ActorsPlan, Kind, Leave, Strike, SupervisorPlan
from actor_stages import make_restart, make_runner
from actor_world import Actor, Ending, LeftError, Life, World

from property_tests.harness import Tasks, scheduled
from property_tests.problems import leaves
from stageflow_actors import Intensity, Mailbox, PipelineValidationError, RunIdentity, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorStartError

if TYPE_CHECKING:
    from collections.abc import Callable

_NEVER = datetime(2026, 1, 1, tzinfo=UTC)
_HUNG = 500.0
"""Virtual seconds after which a seed counts as hung."""
_HUNG_REALLY = 120.0
_MOST_STEPS = 500_000
"""So many steps of tasks at one moment of virtual time count as going round in circles."""
_SETTLES = 64.0
"""Seconds in which everything must be up and idle, once no harm is done any more."""
_MOST_QUEUED = 10**6
_LOOKS = 4
"""The books are compared at every fourth moment at which nothing is left to do."""


def play(plan: ActorsPlan) -> World:
    """Play a plan in a fresh trio loop."""
    world = World(plan)
    tasks = _Steps(world)
    clock = None if plan.real else _make_clock(world, tasks)
    with scheduled(plan.seed):
        try:
            trio.run(_main, world, tasks, clock=clock, instruments=[tasks])
        except BaseExceptionGroup as group:
            if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves(group)):
                raise KeyboardInterrupt from None
            raise
    return world


class _Steps(Tasks):
    """Counts the tasks that are alive, and the steps of tasks, also since time has gone on."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.moment = 0
        """How many there had been when time last went on."""
        self.scope = trio.CancelScope()
        """Cancelled where they are too many at one moment."""

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self._world.steps += 1
        if self._world.steps == self.moment + _MOST_STEPS:
            self.scope.cancel()


def _make_clock(world: World, steps: _Steps) -> trio.testing.MockClock:
    """Return a virtual clock that looks round when nothing is left to do but to wait."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    jump = clock.jump

    def look_and_jump(seconds: float) -> None:
        world.looks += 1
        if world.looks % _LOOKS == 0:
            look_round(world, clock.current_time())
        steps.moment = world.steps
        jump(seconds)

    clock.jump = look_and_jump  # type: ignore[method-assign]
    return clock


async def _main(world: World, tasks: _Steps) -> None:
    plan = world.plan
    before = tasks.alive
    scope = trio.CancelScope() if plan.real else tasks.scope
    scope.deadline = trio.current_time() + (_HUNG_REALLY if plan.real else _HUNG)
    with scope:
        async with trio.open_nursery() as nursery:
            await _Play(world, nursery).supervise()
    if scope.cancelled_caught:
        waiting = [str(mail) for actor in world.actors.values() for mail in actor.mails.values() if not mail.ending]
        world.note(f"it hangs, or goes round in circles; under way are: {'; '.join(waiting[:4]) or 'no messages'}")
    if not plan.real:
        await trio.testing.wait_all_tasks_blocked()
    world.tasks_left = tasks.alive - before
    for _ in range(200):
        if plan.real and _count_threads():
            await trio.sleep(0.01)
    world.threads_left = _count_threads()


def _count_threads() -> int:
    """Return how many threads are still busy with a stage: trio gives them its name."""
    return sum(thread.name.startswith("stage ") for thread in threading.enumerate())


class _Play:
    """The tasks of one seed, which live outside of the supervisor, so that they see how it ends."""

    def __init__(self, world: World, nursery: trio.Nursery) -> None:
        self.world = world
        self.plan = world.plan
        self.nursery = nursery
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        """Set when the faulty phase is over, or to be left."""
        self.began = 0.0
        """When the supervisor began to count the time of its events."""
        self.striking = 0
        self.strikes = list(reversed(self.plan.strikes))

    async def supervise(self) -> None:
        """Open the supervisor at the top, and leave it as planned."""
        world = self.world
        try:
            with self.scope:
                async with self._make_supervisor(self.plan.supervisors[0]) as top:
                    try:
                        await self._go_through_phases(top)
                    finally:
                        world.is_closing = True
        except Exception as error:
            world.left = error
        world.is_caught = self.scope.cancelled_caught
        world.ledgers.append(top.ledger)

    def _make_supervisor(self, plan: SupervisorPlan) -> Supervisor:
        rng = random.Random(f"{self.plan.seed} {plan.path}")
        supervisor = Supervisor(
            scope=plan.scope,  # type: ignore[arg-type]
            intensity=Intensity(plan.max_restarts, within=plan.within),
            max_threads=4,
            random=rng.random,
            identify=lambda: RunIdentity.new() if self.plan.real else RunIdentity(f"{rng.getrandbits(64):x}", _NEVER),
        )
        self.world.supervisors[plan.path] = supervisor
        return supervisor

    async def _go_through_phases(self, top: Supervisor) -> None:
        world = self.world
        self.began = trio.current_time()
        self.nursery.start_soon(self._read, top.events(max_queued=_MOST_QUEUED), world.events.append)
        self.nursery.start_soon(self._read, top.dead_letters(max_queued=_MOST_QUEUED), world.take_letter)
        await self._spawn_all("")
        for number in range(len(PHASES) - 1):
            world.phase = number
            await self._run_clients()
            world.ledgers.append(top.ledger)
        world.phase = len(PHASES) - 1
        world.is_faulty = True
        self.nursery.start_soon(self._run_faulty_phase)
        await self.over.wait()
        if world.is_cut:
            raise LeftError
        await self._settle()
        if self.plan.leave is Leave.NORMALLY:
            await self._ask_once_more()

    async def _read(self, stream: Any, take: Callable[[Any], None]) -> None:
        async with stream:
            async for event in stream:
                take(event)
        self.world.dropped += stream.dropped

    # Its actors

    async def _spawn_all(self, path: str) -> None:
        plan = next(each for each in self.plan.supervisors if each.path == path)
        below = {each.path: each for each in self.plan.supervisors}
        for child in plan.children:
            if child in below:
                supervisor = self._make_supervisor(below[child])
                name = child.rpartition("/")[2]
                restart = make_restart(below[child].restart)
                await self.world.supervisors[path].spawn_supervisor(supervisor, name=name, restart=restart)
                await self._spawn_all(child)
                continue
            actor = self.world.actors[child] = Actor(self.world, self.plan.find(child))
            await self._spawn(actor, actor.plan.depends_on)
            self.nursery.start_soon(self._keep, actor)

    async def _spawn(self, actor: Actor, depends_on: tuple[str, ...]) -> None:
        plan = actor.plan
        life = Life(actor, len(actor.lives) + 1, depends_on)
        actor.lives.append(life)
        life.ref = await self.world.supervisors[plan.path.rpartition("/")[0]].spawn(
            make_runner(life),
            name=plan.name,
            restart=make_restart(plan.restart),
            policy=plan.policy,  # type: ignore[arg-type]
            mailbox=Mailbox(plan.max_queued, plan.overflow),  # type: ignore[arg-type]
            depends_on=depends_on,
            shutdown=plan.shutdown,
            pool=plan.pool,
            max_deliveries=plan.max_deliveries,
            idempotent=plan.max_deliveries > 1,
        )
        life.place = life.ref._resident.number
        actor.life = life

    async def _keep(self, actor: Actor) -> None:
        """Spawn an actor again whenever it has ended."""
        world = self.world
        while True:
            life = actor.life
            assert life.ref is not None
            await life.ref.wait_stopped()
            life.is_over = True
            while actor.life is life:
                if world.is_closing:
                    return
                depends_on = tuple(name for name in actor.plan.depends_on if self._is_there(actor, name))
                try:
                    await self._spawn(actor, depends_on)
                except (ActorStartError, ActorDeadError) as error:  # it fails, or its supervisor is being restarted
                    actor.lives[-1].place = -1 if isinstance(error, ActorStartError) else None
                    await trio.sleep(2 * STEP)
                except PipelineValidationError as error:  # one that it depends on has ended meanwhile
                    if not depends_on:
                        world.note(f"it cannot be spawned again: {error!r}")
                        return
                    await trio.sleep(STEP)
                except RuntimeError as error:
                    if not world.is_closing:
                        world.note(f"it cannot be spawned again: {error!r}")
                    return

    def _is_there(self, actor: Actor, name: str) -> bool:
        above = actor.plan.path.rpartition("/")[0]
        other = self.world.actors[f"{above}/{name}" if above else name].life
        return not (other.is_over or other.is_stopping)

    # Its clients

    async def _run_clients(self) -> None:
        async with trio.open_nursery() as clients:
            for actor in self.world.actors.values():
                share, rest = divmod(self.plan.asks, actor.plan.clients)
                for number in range(actor.plan.clients):
                    clients.start_soon(be_client, actor, number, share + (number < rest), self._advance)

    async def _run_faulty_phase(self) -> None:
        await self._run_clients()
        self.over.set()

    # Its strikes

    def _advance(self) -> None:
        """Take note that one more ask of the faulty phase is over, and begin with what is due."""
        world = self.world
        world.done += 1
        while self.strikes and self.strikes[-1].after <= world.done:
            self.striking += 1
            self.nursery.start_soon(self._strike, self.strikes.pop())
        if world.done == self.plan.leave_after:
            if self.plan.leave is Leave.RAISING:
                world.is_cut = True
                self.over.set()
            elif self.plan.leave is Leave.CANCELLED:
                world.is_cut = True
                self.scope.cancel()

    async def _strike(self, strike: Strike) -> None:
        world = self.world
        actor = world.actors[strike.path]
        life = actor.life
        assert life.ref is not None
        try:
            if strike.kind is Kind.STOP:
                life.is_stopping = True
                world.stopped.add((strike.path, trio.current_time() - self.began))
                await life.ref.stop()
            elif strike.kind is Kind.RESTART:
                await self._restart(life)
            elif strike.kind is Kind.WOUND:
                for instance in list(life.instances)[:1]:
                    instance.wound.set()
            else:
                flood(actor, strike.count, harmful=strike.kind is Kind.PROVOKE)
        except ActorDeadError as error:
            if not life.ref.statistics().ledger.balanced and not world.is_closing and life.is_over:
                world.note(f"{error!r}, and the ledger of {life} does not balance")
        except Exception as error:
            world.note(f"{strike} raised {error!r}")
        finally:
            self.striking -= 1

    async def _restart(self, life: Life) -> None:
        assert life.ref is not None
        self.world.asked.add((life.actor.plan.path, trio.current_time() - self.began))
        before = life.ref.statistics().restarts
        await life.ref.restart()
        if life.ref.statistics().restarts == before and not self.world.is_closing:
            self.world.note(f"restart() of {life} returned, and it was not restarted")

    # Its end

    async def _settle(self) -> None:
        """Do no more harm, and wait until everything is up and idle."""
        world = self.world
        world.is_faulty = False
        until = trio.current_time() + _SETTLES
        while restless := self._list_restless():
            if trio.current_time() > until:
                for problem in restless:
                    world.note(f"after {_SETTLES:g} s {problem}")
                return
            await trio.sleep(8 * STEP)
        for actor in world.actors.values():
            actor.life.is_settled = True

    def _list_restless(self) -> list[str]:
        found = [f"{self.striking} of what befalls actors are not over"] if self.striking else []
        for actor in self.world.actors.values():
            life, pool = actor.life, actor.plan.pool
            assert life.ref is not None
            has = life.ref.statistics()
            if life.is_over or (has.workers, has.idle, has.queued, has.blocked) != (pool, pool, 0, 0):
                found.append(f"{life} is not up and idle: {has}")
            elif has.ledger.pending:
                found.append(f"{life} is idle, and has messages: {has}")
        return found

    async def _ask_once_more(self) -> None:
        """Everybody answers, after all that."""
        for actor in self.world.actors.values():
            mail = actor.post("last", 0, is_ask=True)
            mail.timeout = 60.0
            await ask(mail, Act.OK, 0.0)
            if mail.ending is not Ending.REPLIED:
                self.world.note(f"it does not answer any more: {mail}")
