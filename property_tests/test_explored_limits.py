"""Limits in every order that the race toolkit finds: never too many, nobody forgotten, nothing kept in the end."""

from __future__ import annotations

import itertools

import trio
import trio.testing

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    OverloadedError,
    Rate,
    RunEnding,
    StageState,
    Supervisor,
)
from stageflow_actors.testing import race_test

from .explored import FEW, Room, chain, check_idle, check_result, fork, get_result, take_steps

OK, CANCELLED, FAILED = StageState.OK, StageState.CANCELLED, StageState.FAILED


class Desk:
    """Tasks that want a slot of one limiter, and what became of them."""

    def __init__(self, limiter):
        self.limiter = limiter
        self.room = Room(limiter.max_concurrency)
        self.served = []
        self.refused = []
        self.scopes = {}

    async def visit(self, name, steps=1, priority=0):
        """Take a slot for so many steps."""
        with self.scopes.setdefault(name, trio.CancelScope()):
            try:
                async with self.limiter.slot(priority):
                    with self.room.enter(name):
                        await take_steps(steps)
                    self.served.append(name)
            except OverloadedError:
                self.refused.append(name)

    async def send_away(self, name, steps):
        """Cancel one after so many steps."""
        await take_steps(steps)
        self.scopes.setdefault(name, trio.CancelScope()).cancel()

    def check(self, *names):
        """Check that everybody was served or turned away, once, and that nothing is kept."""
        gone = [name for name, scope in self.scopes.items() if scope.cancelled_caught]
        assert sorted([*self.served, *self.refused, *gone]) == sorted(names)
        check_idle(self.limiter)
        self.room.check()


# Slots


@race_test(max_executions=FEW)
async def test_a_slot_is_given_from_one_to_the_next():
    desk = Desk(Limiter(1))
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(desk.visit, name)
    desk.check("a", "b", "c")
    assert desk.limiter.statistics().admitted == 3


@race_test
async def test_one_that_is_cancelled_while_it_waits_or_is_admitted_leaves_its_slot_to_others():
    desk = Desk(Limiter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.visit, "a", 2)
        nursery.start_soon(desk.visit, "b", 0)
        nursery.start_soon(desk.send_away, "b", 8)
    await desk.visit("c")
    desk.check("a", "b", "c")


@race_test
async def test_the_more_urgent_of_those_that_wait_comes_first():
    desk = Desk(Limiter(1))
    async with trio.open_nursery() as nursery, desk.limiter.slot():
        nursery.start_soon(desk.visit, "low", 0, 0)
        nursery.start_soon(desk.visit, "high", 0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert desk.limiter.statistics().queued == 2
    assert desk.served == ["high", "low"]
    desk.check("low", "high")


@race_test
async def test_one_that_is_dropped_learns_of_it_unless_it_has_left():
    """It is told from the loop, and may be cancelled before."""
    desk = Desk(Limiter(1, max_queued=1, overflow="drop_oldest"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.visit, "a", 3)
        nursery.start_soon(desk.visit, "b")
        nursery.start_soon(desk.visit, "c")
        nursery.start_soon(desk.send_away, "b", 5)
    desk.check("a", "b", "c")
    assert desk.limiter.statistics().dropped >= len(desk.refused)


@race_test(max_executions=FEW)
async def test_one_that_is_refused_holds_nothing():
    desk = Desk(Limiter(1, overflow="reject"))
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(desk.visit, name)
    desk.check("a", "b", "c")
    assert desk.limiter.statistics().rejected == len(desk.refused)


# Rates


@race_test
async def test_there_are_never_more_starts_than_tokens():
    """Also if one is admitted and cancelled before it learns of it: its token is another's, once."""
    desk = Desk(Limiter(2, rate=Rate(1, per=1.0, burst=1)))
    starts = []

    async def visit(name, at):
        await trio.sleep_until(at)
        with desk.scopes.setdefault(name, trio.CancelScope()):
            async with desk.limiter.slot():
                starts.append(trio.current_time())
                desk.served.append(name)

    async def send_away(name, at):
        await trio.sleep_until(at)
        desk.scopes.setdefault(name, trio.CancelScope()).cancel()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        await visit("a", began)
        nursery.start_soon(visit, "b", began + 0.5)
        nursery.start_soon(visit, "c", began + 1)
        nursery.start_soon(send_away, "b", began + 1)
    await visit("d", trio.current_time())
    assert all(later - earlier > 0.999 for earlier, later in itertools.pairwise(starts)), starts
    desk.check("a", "b", "c", "d")


# Stages behind limiters


@race_test(max_executions=FEW)
async def test_stages_of_two_runs_share_a_limiter():
    room = Room(1)
    limiter = Limiter(1)
    async with Supervisor() as supervisor:
        runs = [supervisor.start(fork("p", *[room.stage(0)] * 2, limiter=limiter), {"run": name}) for name in "xy"]
    for run in runs:
        check_result(run.partial())
        assert run.partial().ok
    check_idle(limiter)
    room.check()


@race_test
async def test_a_run_that_is_stopped_leaves_its_slots_to_others():
    """Whether its stages wait, are admitted, about to begin or run."""
    room = Room(1)
    limiter = Limiter(1)

    async def cancel(run):
        await take_steps(9)
        run.cancel()

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        pipeline = fork("p", room.stage(1)).with_stage("b", room.stage(0), dependencies="a", limiter=limiter)
        run = supervisor.start(pipeline, {"run": "x"})
        nursery.start_soon(cancel, run)
        check_result(await run.result())
        check_idle(limiter)
        check_result(await supervisor.run(fork("p", room.stage(0), limiter=limiter)))
    check_idle(limiter)
    room.check()


@race_test(max_executions=FEW)
async def test_a_stage_that_is_dropped_fails_once_whatever_stops_its_run():
    room = Room(1)
    limiter = Limiter(1, max_queued=1, overflow="drop_oldest")

    async def cancel(run):
        await take_steps(7)
        run.cancel()

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        pipeline = fork("p", room.stage(1), room.stage(0), limiter=limiter)
        pipeline = pipeline.with_stage("x", room.stage(0), limiter=limiter)
        run = supervisor.start(pipeline, continue_on_failure=True)
        nursery.start_soon(cancel, run)
        result = await run.result()
    check_result(result)
    failed = {name for name, state in result.states.items() if state is FAILED}
    assert {type(result.failures[name].error) for name in failed} <= {OverloadedError}
    assert result.ledger.failed == len(failed)
    check_idle(limiter)


@race_test(max_executions=FEW)
async def test_a_stage_that_waits_at_the_second_of_two_limits_gives_back_the_first():
    room = Room(1)
    limiter = Limiter(2)

    async def cancel(run):
        await take_steps(5)
        run.cancel()

    async with Supervisor(max_running_stages=1) as supervisor, trio.open_nursery() as nursery:
        runs = [supervisor.start(fork("p", room.stage(1), limiter=limiter), {"run": name}) for name in "xy"]
        nursery.start_soon(cancel, runs[1])
        for run in runs:
            check_result(await run.result())
        assert runs[0].partial().ok
        check_idle(limiter)
    room.check()


# Items


@race_test
async def test_items_that_are_stopped_leave_their_slots_to_others():
    """Whether they wait, are admitted, about to begin or run."""
    room = Room(2)
    limiter = Limiter(2)

    async def cancel(run):
        await take_steps(9)
        run.cancel()

    stage = FanOutLimiterStage(room.stage(0), items=range(3), limiter=limiter)
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        run = supervisor.start(fork("p", stage))
        nursery.start_soon(cancel, run)
        result = await run.result()
    check_result(result)
    assert result.states["a"] is OK or result.ended.ending is RunEnding.CANCELLED
    check_idle(limiter)
    room.check()


@race_test
async def test_the_first_item_that_fails_ends_the_others():
    room = Room(2)
    limiter = Limiter(2)

    async def work(ctx):
        with room.enter(ctx.stage_name):
            await take_steps(1)
            if ctx.snapshot.data["item"] == 1:
                raise ConnectionError("no")

    stage = FanOutLimiterStage(work, items=range(3), limiter=limiter)
    async with Supervisor() as supervisor:
        run = supervisor.start(chain("p", stage, room.stage(0)), continue_on_failure=True)
        result = await get_result(run)
    check_result(result)
    assert (result.states["a"], result.states["b"]) == (FAILED, StageState.ISOLATED)
    assert result.failures["a"].error.index == 1
    check_idle(limiter)
    room.check()
