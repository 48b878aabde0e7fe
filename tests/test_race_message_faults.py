"""What faults of messages have in common: which messages they count, what they cost, how they replay."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from race_cases import explore_all, find
from race_mail import AGAIN, agree, open_log, run_all, together

from stageflow_actors import ContextSnapshot, Mailbox, Pipeline, Supervisor
from stageflow_actors._resident import Resident
from stageflow_actors.testing import Crash, Doubled, Dropped, Late, explore, race_test, replay
from stageflow_actors.testing.strategies import fault_plans

KINDS = [Late, Doubled, Dropped]
OPTIONS = {"mailbox": Mailbox(4, overflow="drop_newest"), **AGAIN}


def was_struck(log, name):
    """Return whether one of the faults struck a message."""
    return log.at.get(name) != log.sent[name] or (name, 2) in log.seen


async def tell_three(log, ref):
    for name in "abc":
        await log.tell(ref, name)
    await trio.sleep(3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_the_point_is_the_number_of_the_message(kind, at):
    struck = "abc"[at - 1]
    for log in run_all(tell_three, kind("log", at=at), executions=60, **OPTIONS):
        # What the same task sends waits behind one that is late.
        assert [name for name in "abc" if was_struck(log, name)] == list("abc"[at - 1 :] if kind is Late else struck)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_befalls_messages_past_the_last_or_to_others(kind):
    for fault in (kind("log", at=4), kind("other"), kind("below/log", at=1), kind("log[0]")):
        for log in run_all(tell_three, fault, executions=60, **OPTIONS):
            assert not any(was_struck(log, name) for name in "abc")


@pytest.mark.parametrize("kind", KINDS)
def test_anywhere_is_every_message_and_none(kind):
    found = {
        tuple(name for name in "abc" if was_struck(log, name))
        for log in run_all(tell_three, kind("log"), executions=400, **OPTIONS)
    }
    by_late = {(), ("c",), ("b", "c"), ("a", "b", "c")}
    assert found == (by_late if kind is Late else {(), ("a",), ("b",), ("c",)})


async def ask_two(heard, **options):
    """Ask two actors, of which one is below another supervisor."""
    async with open_log(**options) as (log, ref):
        below = await log.supervisor.spawn_supervisor(Supervisor(), name="below")
        other = await below.spawn(log.handle, name="log", **options)
        await log.ask(ref, "a")
        await log.ask(other, "b")
    heard.append(tuple(name for name in "ab" if was_struck(log, name)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_is_meant_by_its_full_name_and_any_by_an_asterisk(kind):
    for on, at, struck in (
        ("log", 1, {("a",)}),
        ("below/log", 1, {("b",)}),
        ("*", 1, {("a",)}),
        ("*", 2, {("b",)}),
        ("*", None, {(), ("a",), ("b",)}),
    ):
        heard = []
        program = partial(ask_two, heard, **OPTIONS)
        explore(program, clock="auto", max_executions=150, faults=[kind(on, at=at)]).raise_for_failure()
        assert set(heard) == struck


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_comes_first_and_has_no_fault(kind):
    logs = run_all(tell_three, kind("*"), executions=1, **OPTIONS)
    assert not any(was_struck(log, name) for log in logs for name in "abc")


# How they are explored


async def ask_once():
    async with open_log(**OPTIONS) as (log, ref):
        await log.ask(ref, "a")
    if was_struck(log, "a"):
        raise AssertionError("struck")


@pytest.mark.parametrize("kind", KINDS)
def test_each_costs_one_and_none_is_needed(kind):
    failure = find(ask_once, clock="auto", faults=[kind("log")])
    assert (failure.faults, failure.preemptions, failure.jumps, failure.minimal) == (1, 0, 0, True)
    assert "1 fault; none fails with fewer" in str(failure)
    assert f"faults=({kind.__name__}('log'),)" in failure.call


@pytest.mark.parametrize("kind", KINDS)
def test_equal_faults_are_not_told_apart(kind):
    async def anything():
        async with open_log(**OPTIONS) as (log, ref):
            await log.ask(ref, "a")

    one = explore_all(anything, clock="auto", faults=[kind("log")])
    assert explore_all(anything, clock="auto", faults=[kind("log")] * 3).executions == one.executions


@pytest.mark.parametrize("strategy", ["dfs", "pct", "pos", "random"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_strategy_finds_them(kind, strategy):
    failure = find(ask_once, clock="auto", faults=[kind("*")], strategy=strategy)
    assert failure.faults == 1
    again = replay(ask_once, failure.schedule, clock="auto", faults=[kind("*")])
    assert again.trace == failure.trace


def test_faults_of_messages_and_of_tasks_make_a_plan():
    plan = [Crash("log"), Late("log"), Doubled("log"), Dropped("log")]
    found = set()

    async def program():
        async with open_log(**OPTIONS) as (log, ref):
            await together((log.ask, ref, "a", 1), (log.ask, ref, "b", 1))
        found.add(tuple(log.seen))

    explore(program, clock="auto", faults=plan, max_executions=600).raise_for_failure()
    assert {(("a", 1), ("a", 2), ("b", 1)), (("b", 1), ("a", 1)), (("a", 1),)} <= found


@given(faults=fault_plans("log", kinds=KINDS, max_at=3))
@settings(max_examples=25, deadline=None)
@race_test(max_executions=10, clock="auto")
async def test_drawn_plans(faults):
    async with open_log(**OPTIONS) as (log, ref):
        await tell_three(log, ref)
    assert log.ledger.accepted == 3


# How they replay

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_race_message_faults import KINDS, ask_once
from stageflow_actors.testing import replay

for kind, schedule in zip(KINDS, sys.argv[1:]):
    failure = replay(ask_once, schedule, clock="auto", faults=[kind("log")])
    print(*failure.trace, sep="\\n")
"""


def test_the_same_choices_strike_the_same_messages_in_any_process():
    failures = [find(ask_once, clock="auto", faults=[kind("log")]) for kind in KINDS]
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, *(failure.schedule for failure in failures)]
    told = []
    for seed in ("1", "2"):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        told.append(done.stdout.splitlines())
    here = [str(step) for failure in failures for step in failure.trace]
    for there in told:
        assert there == here


# How they are told


def test_a_message_is_told_by_what_it_holds():
    async def program():
        async with open_log() as (log, ref):
            for snapshot in (None, ContextSnapshot(input_text="some text"), {"name": "n" * 60}):
                with pytest.raises(KeyError):
                    await ref.ask(snapshot)
            pipeline = Pipeline("p").with_stage("asked", ref)
            await log.supervisor.run(pipeline, {"name": "stage", "how": (0,)})
        raise AssertionError("for its trace")

    faults = [Late("log", at=at) for at in (1, 2, 3, 4)]
    failure = explore(program, faults=faults, clock="auto", max_executions=1, strategy="dfs").failure
    assert [step.did for step in failure.trace if step.then.startswith("struck")] == [
        "the message to log comes late",
        "the message some text to log comes late",
        f"the message {{'name': '{'n' * 47}... to log comes late",
        "the message of stage 'asked' to log comes late",
    ]
    assert next(step.did for step in failure.trace if "arrives" in step.did) == "the late message arrives"
    assert failure.faults == 0


# Whom they leave alone


def test_actors_are_as_they_were_when_it_is_over():
    before = (Resident.accept, Resident.reply)
    during = []

    async def program():
        during.append((Resident.accept, Resident.reply))

    explore(program, faults=[Late("*")])
    with pytest.raises(KeyboardInterrupt):
        explore(interrupt, faults=[Late("*")])
    explore(program, faults=[Crash("*")])
    assert before not in during[:1]
    assert set(during[1:]) == {before}
    assert (Resident.accept, Resident.reply) == before


async def interrupt():
    raise KeyboardInterrupt


def test_two_threads_may_explore_at_the_same_time():
    found = []

    async def outer():
        inner = partial(explore, ask_once, clock="auto", faults=[Dropped("log", at=1)], max_executions=1)
        found.append((await trio.to_thread.run_sync(inner)).failure.faults)
        await ask_once()

    failure = explore(outer, clock="auto", faults=[Doubled("log", at=1)], max_executions=1).failure
    assert str(failure.error) == "struck"
    assert found[0] == 0
    assert Resident.accept.__name__ == "accept"


def test_a_run_of_another_thread_is_left_alone():
    async def main():
        async with open_log(**OPTIONS) as (log, ref):
            await log.ask(ref, "a")
        return log

    async def program():
        log = await trio.to_thread.run_sync(trio.run, main)
        assert log.seen == [("a", 1)]
        assert log.ends == {"a": "reply 1"}

    faults = [kind("*", at=1) for kind in KINDS]
    explore(program, clock="auto", faults=faults, max_executions=3).raise_for_failure()


def test_a_message_from_a_thread_or_a_callback_is_one_too():
    async def body(log, ref):
        tell = partial(log.tell_nowait, ref)
        await trio.to_thread.run_sync(trio.from_thread.run_sync, tell, "thread")
        trio.lowlevel.current_trio_token().run_sync_soon(tell, "callback")
        await trio.sleep(3)

    logs = run_all(body, Late("log", at=1), Late("log", at=2, seconds=2), executions=20)
    assert agree(logs, "at") == {"thread": 1, "callback": 2}
