"""Histories recorded while the race toolkit explores: actors that are linearizable in every schedule, and some not."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.lowlevel
from history_cases import ADD, GET, KEEPER, PUT, Behind, Cache, Hasty, Keeper, play

from stageflow_actors import Supervisor
from stageflow_actors.errors import AskTimeoutError, LinearizabilityError, RaceError
from stageflow_actors.testing import Crash, Doubled, History, Model, check_linearizable, explore, race_test, replay

SOME = 200
"""Executions in which what is right must not fail."""

TWO_WRITERS = {"ann": [PUT, GET], "bob": [{**PUT, "value": 2}, GET]}
TWO_ADD = {"ann": [ADD], "bob": [ADD]}
READ_TWICE = {"ann": [PUT, GET], "bob": [GET]}


def lines(failure):
    """Return the calls of the violation that a failure holds."""
    assert isinstance(failure.error, LinearizabilityError)
    return list(map(str, failure.error.violation.operations))


@pytest.mark.parametrize("scripts", [TWO_WRITERS, TWO_ADD, READ_TWICE], ids=["writers", "add", "read twice"])
def test_a_keeper_of_values_is_linearizable_in_every_schedule(scripts):
    report = explore(partial(play, Keeper, scripts), max_executions=SOME, strategy="random")
    assert report.failure is None


def test_a_pool_that_shares_its_values_loses_an_update():
    failure = explore(lambda: play(Hasty(), TWO_ADD, pool=2), strategy="random").failure
    assert lines(failure) == ["op='add', key='a' -> {'value': 1}", "op='add', key='a' -> {'value': 1}"]
    assert explore(lambda: play(Hasty(), TWO_ADD), max_executions=SOME, strategy="random").failure is None


def test_a_cache_that_nobody_tells_serves_what_was_there_before():
    failure = explore(partial(play, Keeper, READ_TWICE, front=Cache)).failure
    assert lines(failure) == ["op='put', key='a', value=1 -> {}", "op='get', key='a' -> {'value': None}"]
    assert failure.preemptions == 0


def test_a_write_that_is_only_told_of_is_not_read():
    """In a pool a later message may overtake it; of a single worker it may not."""
    program = partial(play, front=Behind, scripts={"ann": [PUT, GET]})
    failure = explore(lambda: program(Keeper(), pool=2), strategy="random").failure
    assert lines(failure) == ["op='put', key='a', value=1 -> {}", "op='get', key='a' -> {'value': None}"]
    assert explore(partial(program, Keeper), max_executions=SOME, strategy="random").failure is None


async def ask_in_time(runner, **options):
    """Let two clients add, who give up after a second, and look at what has come of it."""
    history = History()
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(runner, name="keeper", **options))

        async def add():
            for _ in range(2):
                try:
                    await ref.ask(ADD, timeout=1.0)
                except AskTimeoutError:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, name="ann")
            nursery.start_soon(add, name="bob")
        await ref.ask(ADD, timeout=None)
    check_linearizable(history, KEEPER)


def test_asks_that_run_into_their_timeout_may_have_been_handled():
    assert explore(partial(ask_in_time, Keeper), max_executions=SOME, strategy="random").failure is None
    assert isinstance(
        explore(lambda: ask_in_time(Hasty(), pool=2), strategy="random").failure.error, LinearizabilityError
    )


def test_a_crash_that_loses_the_values_is_seen():
    failure = explore(partial(play_with_crash, Keeper), faults=[Crash("keeper")]).failure
    assert lines(failure) == ["op='put', key='a', value=1 -> {}", "op='get', key='a' -> {'value': None}"]
    outliving = explore(
        lambda: play_with_crash(Keeper()), faults=[Crash("keeper")], max_executions=SOME, strategy="random"
    )
    assert outliving.failure is None


def test_a_claim_of_idempotence_that_does_not_hold_is_seen():
    twice = {"idempotent": True, "max_deliveries": 2}
    failure = explore(partial(play, Keeper, TWO_ADD, **twice), faults=[Doubled("keeper")]).failure
    assert lines(failure) == ["op='add', key='a' -> {'value': 3}"]
    assert str(failure.error).splitlines()[-2:] == [
        "at best 1 other, then the state is {'a': 1}, and next",
        "  1 cannot be: the model replies {'value': 2}",
    ]
    report = explore(
        partial(play, Keeper, READ_TWICE, **twice), faults=[Doubled("keeper")], max_executions=SOME, strategy="random"
    )
    assert report.failure is None


async def play_with_crash(runner):
    """Write, crash or not, and read."""
    history = History()
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(runner, name="keeper"), client="ann")
        await ask_anyhow(ref, PUT)
        await ask_anyhow(ref, {**PUT, "key": "b"})
        await ask_anyhow(ref, GET)
    check_linearizable(history, KEEPER)


async def ask_anyhow(ref, message):
    with suppress(Exception):  # the history knows of it
        await ref.ask(message, timeout=None)


# Without actors


def step(value, call):
    match call:
        case ("read",):
            return value, value
        case ("add", amount):
            return value + amount, value + amount


CELL = Model(step, 0)


class Cell:
    """A number that is read from somewhere else and written there."""

    def __init__(self, *, locked):
        self.value = 0
        self.lock = trio.Lock() if locked else trio.CapacityLimiter(10)

    async def read(self):
        async with self.lock:
            await trio.lowlevel.checkpoint()
            return self.value

    async def add(self, amount):
        async with self.lock:
            value = self.value
            await trio.lowlevel.checkpoint()
            self.value = value + amount
            return self.value


async def add_and_read(*, locked):
    cell, history = Cell(locked=locked), History()

    async def client():
        await history.call(cell.add, 1)
        await history.call(cell.read)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client, name="ann")
        nursery.start_soon(partial(history.call, cell.add, 2), name="bob")
    check_linearizable(history, CELL)


def test_a_cell_with_a_lock_is_atomic():
    report = explore(partial(add_and_read, locked=True), max_executions=3000)
    assert report.complete
    assert report.failure is None


def test_a_cell_without_a_lock_is_not():
    failure = explore(partial(add_and_read, locked=False)).failure
    assert lines(failure) == ["add(1) -> 1", "add(2) -> 2"]
    again = replay(partial(add_and_read, locked=False), failure.schedule)
    assert str(again.error) == str(failure.error)
    assert failure.minimal


def test_a_race_test_fails_with_the_history():
    @race_test
    async def check():
        await add_and_read(locked=False)

    with pytest.raises(RaceError) as caught:
        check()
    assert isinstance(caught.value.__cause__, LinearizabilityError)
    assert str(caught.value.__cause__).splitlines()[:3] == [
        "not linearizable: no order explains these 2 operations, whatever became of the other 1",
        "1 ann  |-------|      add(1) -> 1",
        "2 bob  |---|          add(2) -> 2",
    ]
    assert "not linearizable: no order explains these 2 operations" in str(caught.value)


def test_no_history_is_left_out_by_partial_order_reduction():
    """Two that begin at the same time make one history in either order: there is something to leave out."""
    seen = {"dfs": set(), "dpor": set()}

    async def add(strategy):
        cell, history = Cell(locked=True), History()
        async with trio.open_nursery() as nursery:
            for client in ("ann", "bob", "cat"):
                nursery.start_soon(partial(history.call, cell.add, 1), name=client)
        seen[strategy].add(frozenset((each.client, each.result, each.invoked) for each in history.operations))

    reports = {strategy: explore(partial(add, strategy), strategy=strategy) for strategy in seen}
    assert all(report.complete for report in reports.values())
    assert seen["dfs"] == seen["dpor"] != set()
    assert reports["dpor"].executions <= reports["dfs"].executions
