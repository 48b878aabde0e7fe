"""Event streams and dead letters with readers that are slow, leave early, or are cancelled: nothing is told twice."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from property_tests.actor_world import later, open_desk, spawn
from property_tests.explored import Room, chain, check_result, fork, take_steps
from property_tests.residents import MANY, all_answer, crash
from property_tests.residents import spawn as spawn_resident
from property_tests.test_explored_stops import check_told_once
from stageflow_actors import Intensity, Mailbox, Supervisor
from stageflow_actors.events import ActorEnded, ActorStarted, RunEnded, StageEmitted, StageEnded, StageStarted
from stageflow_actors.testing import race_test


async def read(stream, heard, steps):
    """Read to the end, and be so slow."""
    async with stream:
        async for event in stream:
            heard.append(event)
            await take_steps(steps)


@pytest.mark.parametrize("most", [1, 2])
@race_test
async def test_a_slow_reader_misses_what_it_cannot_keep_and_is_told_how_much(most):
    """What it heard is what the other one heard, in its order, but for so many."""
    room = Room()
    everything, some = [], []
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(chain("p", room.stage(1), room.stage(0)))
        slow = run.events(max_queued=most)
        nursery.start_soon(read, run.events(), everything, 0)
        nursery.start_soon(read, slow, some, 2)
        check_result(await run.result())
    assert len(some) + slow.dropped == len(everything) == 5
    rest = iter(everything)
    assert all(event in rest for event in some)
    room.check()


@race_test
async def test_two_readers_of_two_runs():
    """Each hears its own run, all of it."""
    room = Room()
    heard = {"x": [], "y": []}
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        runs = {name: supervisor.start(chain("p", room.stage(1)), {"run": name}) for name in heard}
        for name, run in runs.items():
            nursery.start_soon(read, run.events(), heard[name], 1)
        for run in runs.values():
            check_result(await run.result())
    for name, run in runs.items():
        assert [type(event) for event in heard[name]] == [StageStarted, StageEnded, RunEnded]
        assert {event.run_id for event in heard[name]} == {run.run_id}
    room.check()


@race_test
async def test_a_reader_that_is_cancelled_and_one_that_leaves_early():
    """The run does not care, nor does the third."""
    room = Room()
    heard = []
    scope = trio.CancelScope()

    async def be_cancelled(stream):
        with scope:
            await read(stream, [], 1)

    async def leave_early(stream):
        async with stream:
            async for _event in stream:
                return

    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(fork("p", room.stage(1), room.stage(1)))
        nursery.start_soon(be_cancelled, run.events())
        nursery.start_soon(leave_early, run.events())
        nursery.start_soon(read, run.events(), heard, 0)
        nursery.start_soon(later, 2, scope.cancel)
        result = await run.result()
    check_result(result)
    assert result.ok
    check_told_once(heard, result)
    room.check()


@race_test
async def test_what_a_stage_emits_is_told_between_its_start_and_its_end():
    async def emit(ctx):
        for number in range(2):
            ctx.emit(number)
            await take_steps(1)

    heard = []
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(fork("p", emit, emit))
        nursery.start_soon(read, run.events(), heard, 0)
        check_result(await run.result())
    for name in "ab":
        told = [event for event in heard if getattr(event, "stage", None) == name]
        assert [type(event) for event in told] == [StageStarted, StageEmitted, StageEmitted, StageEnded]
        assert [event.event for event in told[1:3]] == [0, 1]


@race_test
async def test_somebody_subscribes_while_a_run_is_stopped():
    """Whatever it hears is the tail of what the first one has heard."""
    room = Room()
    early, late = [], []
    async with trio.open_nursery() as nursery, Supervisor() as supervisor:
        run = supervisor.start(chain("p", room.stage(1), room.stage(1)))
        nursery.start_soon(read, run.events(), early, 0)
        nursery.start_soon(later, 2, lambda: nursery.start_soon(read, run.events(), late, 0))
        nursery.start_soon(later, 3, run.cancel)
        result = await run.result()
    check_result(result)
    check_told_once(early, result)
    assert late == early[len(early) - len(late) :]
    room.check()


@pytest.mark.parametrize("most", [1, 4096])
@race_test
async def test_a_slow_reader_of_what_happens_to_actors(most):
    room = Room()
    heard = []
    async with trio.open_nursery() as nursery, Supervisor(intensity=MANY) as supervisor:
        stream = supervisor.events(max_queued=most)
        nursery.start_soon(read, stream, heard, 1)
        a, b = [await spawn_resident(supervisor, room, name) for name in "ab"]
        async with trio.open_nursery() as users:
            users.start_soon(crash, a)
            users.start_soon(all_answer, b)
        await all_answer(a)
    if most > 1:
        assert stream.dropped == 0
        for name in "ab":
            kinds = [type(event) for event in heard if event.actor == name]
            assert kinds[0] is ActorStarted
            assert kinds[-1] is ActorEnded
            assert kinds.count(ActorStarted) == room.entered[name]
    times = [event.at for event in heard]
    assert times == sorted(times)
    room.check()


@pytest.mark.parametrize("most", [1, 4096])
@race_test
async def test_a_slow_reader_of_dead_letters_and_the_account_that_misses_none(most):
    supervisor = Supervisor(intensity=Intensity(100))
    heard = []
    async with trio.open_nursery() as nursery, open_desk(supervisor) as desk:
        letters = supervisor.dead_letters(max_queued=most)
        nursery.start_soon(read, letters, heard, 1)
        ref = await spawn(supervisor, desk, mailbox=Mailbox(1, "drop_oldest"))
        async with trio.open_nursery() as senders:
            for number in range(3):
                senders.start_soon(desk.tell, ref, number, "step")
            senders.start_soon(partial(desk.ask, ref, 3, "step", timeout=1))
        await ref.stop()
        await desk.tell(ref, 4)
        ledger = ref.statistics().ledger
    reasons = [letter.reason for letter in heard]
    counted = ledger.overflow + ledger.stopped + ledger.poison + ledger.late_reply + ledger.no_recipient
    assert len(heard) + letters.dropped == counted
    for reason in set(reasons):
        assert reasons.count(reason) <= getattr(ledger, reason)
    assert desk.outcomes[4] == "dead"
