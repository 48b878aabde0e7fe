"""Batches: stages that wait for one limiter at one place of its queue."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from limiter_desk import Desk, held

from stageflow_actors import Limiter
from stageflow_actors._gates import Batch
from stageflow_actors._tickets import bind


def enter(desk, limiter, members, priority=0):
    batch = Batch(desk, bind(limiter), priority)
    batch.waiting.extend(members)
    return batch, batch.enter()


async def test_as_many_enter_as_there_is_room_for():
    desk, limiter = Desk(), Limiter(3)
    batch, admitted = enter(desk, limiter, range(5))
    assert admitted == [0, 1, 2]
    assert held(limiter) == (3, 2)
    batch.release()
    assert desk.admissions == [3]
    assert held(limiter) == (3, 1)
    for _ in range(4):
        batch.release()
    assert desk.admissions == [3, 4]
    assert held(limiter) == (0, 0)


async def test_a_batch_stands_in_the_queue_as_its_members_would():
    desk, limiter = Desk(), Limiter(1)
    first, _ = enter(desk, limiter, ["a", "b", "c"])
    enter(desk, limiter, ["d"])
    enter(desk, limiter, ["urgent", "urgent too"], priority=1)
    for _ in range(5):
        first.release()
    assert desk.admissions == ["urgent", "urgent too", "b", "c", "d"]


async def test_those_that_wait_can_be_withdrawn():
    desk, limiter = Desk(), Limiter(1)
    batch, _ = enter(desk, limiter, range(4))
    batch.withdraw()
    batch.withdraw()
    assert held(limiter) == (1, 0)
    batch.release()
    assert held(limiter) == (0, 0)
    assert desk.admissions == []


@pytest.mark.parametrize("members", [1, 3])
async def test_a_slot_of_which_a_withdrawn_batch_has_not_learnt_goes_on(members):
    desk, limiter = Desk(), Limiter(1)
    holder = desk.request("holder", limiter)
    batch, _ = enter(desk, limiter, range(members))
    enter(desk, limiter, ["next"])
    holder.release_quietly()
    assert held(limiter) == (1, members)
    batch.withdraw()
    await trio.testing.wait_all_tasks_blocked()
    assert desk.admissions == ["holder", "next"]
    assert held(limiter) == (1, 0)
