"""Actors with several workers: who of them is restarted, and what becomes of the others and of the messages."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing
from actor_cases import MANY, POLICIES, SCOPES, CrashError, Diary, at_once, later, send, spawn_all

from stageflow_actors import Intensity, Mailbox, Supervisor, events
from stageflow_actors.errors import ActorDeadError, ActorStartError, RestartIntensityError

NOT_ALL = [scope for scope in SCOPES if scope != "one_for_all"]


class Desk:
    """Asks an actor from many tasks, and keeps the answers."""

    def __init__(self, nursery):
        self.nursery = nursery
        self.began = trio.current_time()
        self.answers = {}

    async def ask(self, ref, key, do=None, **data):
        """Ask in the background, and let the message be taken."""
        self.nursery.start_soon(self._ask, ref, key, do, data)
        await trio.testing.wait_all_tasks_blocked()

    async def _ask(self, ref, key, do, data):
        answer = await send(ref, do, **data)
        self.answers[key] = trio.current_time() - self.began, answer

    def who(self, key):
        return self.answers[key][1].data["by"]

    def kind(self, key):
        return type(self.answers[key][1])


@pytest.mark.parametrize("scope", NOT_ALL)
async def test_a_worker_that_crashes_is_restarted_alone(scope, autojump_clock):
    """The others end their messages, and go on to take more."""
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor, trio.open_nursery() as nursery:
        desk = Desk(nursery)
        refs = await spawn_all(supervisor, diary, z={}, a={"pool": 3, "start": {4: 2.0}})
        for key in ("first", "second"):
            await desk.ask(refs["a"], key, after=5.0)
        await desk.ask(refs["a"], "crash", "crash")
        diary.take()
        assert refs["a"].statistics().workers == 2
        await trio.sleep(6)
        assert diary.take() == ["a4 up"]
        assert {desk.who("first"), desk.who("second")} < {"a1", "a2", "a3"}
        assert desk.answers["first"][0] == desk.answers["second"][0] == 5.0
        assert desk.kind("crash") is CrashError
        statistics = refs["a"].statistics()
        assert (statistics.workers, statistics.idle, statistics.restarts) == (3, 3, 1)


async def test_with_one_for_all_the_other_workers_are_restarted_too(autojump_clock):
    diary = Diary()
    async with Supervisor(scope="one_for_all") as supervisor, trio.open_nursery() as nursery:
        desk = Desk(nursery)
        refs = await spawn_all(supervisor, diary, a={"pool": 3}, b={})
        await desk.ask(refs["a"], "first", after=3.0)
        await desk.ask(refs["a"], "crash", "crash")
        await trio.sleep(5)
        assert desk.answers["first"][0] == 3.0
        lines = diary.take()
        assert sorted(lines[:4]) == ["a1 down", "a2 down", "a3 down", "b1 down"]
        assert sorted(lines[4:7]) == ["a4 up", "a5 up", "a6 up"]
        assert lines[7:] == ["b2 up"]


@pytest.mark.parametrize("scope", ["dependents", "one_for_all", "rest_for_one"])
async def test_a_pool_is_restarted_with_another_as_a_whole(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, z={}, a={"pool": 3, "depends_on": "z"}, b={"depends_on": "a"})
        await send(refs["z"], "crash")
        await trio.sleep(1)
        lines = diary.take()
        assert lines[:2] == ["z1 down", "b1 down"]
        assert sorted(lines[2:5]) == ["a1 down", "a2 down", "a3 down"]
        assert lines[5] == "z2 up"
        assert sorted(lines[6:9]) == ["a4 up", "a5 up", "a6 up"]
        assert lines[9:] == ["b2 up"]


@pytest.mark.parametrize("scope", SCOPES)
async def test_workers_that_crash_at_the_same_time_are_all_up_again(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor, trio.open_nursery() as nursery:
        desk = Desk(nursery)
        refs = await spawn_all(supervisor, diary, a={"pool": 4})
        for number in range(4):
            nursery.start_soon(partial(desk.ask, refs["a"], number, "crash", after=1.0))
        await trio.sleep(2)
        assert [desk.kind(number) for number in range(4)] == [CrashError] * 4
        assert refs["a"].statistics().workers == 4
        lines = diary.take()
        assert len([line for line in lines if line.endswith("up")]) >= 4
        assert len([line for line in lines if line.endswith("down")]) == len([line for line in lines if "up" in line])


@pytest.mark.parametrize(("left", "survives"), [(1, False), (2, True)])
async def test_each_worker_counts(left, survives, autojump_clock):
    diary = Diary()
    error = None
    try:
        async with Supervisor(intensity=Intensity(left)) as supervisor:
            refs = await spawn_all(supervisor, diary, a={"pool": 2})
            for _ in range(2):
                await send(refs["a"], "crash")
            await trio.testing.wait_all_tasks_blocked()
    except RestartIntensityError as raised:
        error = raised
    assert (error is None) is survives


async def test_a_policy_counts_the_failures_of_all_workers(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={"pool": 3, "restart": later(0.0, max_restarts=1)})
        for _ in range(2):
            await send(refs["a"], "crash")
        assert isinstance(await refs["a"].wait_stopped(), RestartIntensityError)
        assert refs["a"].statistics().workers == 0
        assert len([line for line in diary.take() if line.endswith("down")]) == 4


# Ends


async def test_an_actor_that_ends_takes_all_workers_along_each_after_its_message(autojump_clock):
    diary = Diary()
    mailbox = Mailbox(max_queued=1)
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        desk = Desk(nursery)
        refs = await spawn_all(supervisor, diary, a={"pool": 3, "policy": "temporary", "mailbox": mailbox})
        await desk.ask(refs["a"], "first", after=3.0)
        await desk.ask(refs["a"], "second", after=4.0)
        await desk.ask(refs["a"], "crash", "crash", after=1.0)
        await desk.ask(refs["a"], "queued")
        await desk.ask(refs["a"], "blocked")
        error = await refs["a"].wait_stopped()
        assert isinstance(error, CrashError)
        assert trio.current_time() - desk.began == 4.0
        await trio.testing.wait_all_tasks_blocked()
        assert (desk.answers["first"][0], desk.answers["second"][0]) == (3.0, 4.0)
        assert (desk.kind("queued"), desk.kind("blocked")) == (ActorDeadError, ActorDeadError)
        assert [at for at, line in diary.take_timed() if line.endswith("down")] == [1.0, 3.0, 4.0]
        ledger = refs["a"].statistics().ledger
        assert (ledger.replied, ledger.failed, ledger.stopped, ledger.no_recipient) == (2, 1, 1, 1)


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_worker_that_stops_speaks_for_all_unless_they_are_permanent(policy, autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        desk = Desk(nursery)
        refs = await spawn_all(supervisor, diary, a={"pool": 2, "policy": policy})
        await desk.ask(refs["a"], "first", after=3.0)
        await desk.ask(refs["a"], "stop", "stop")
        await trio.sleep(5)
        assert desk.answers["first"][0] == 3.0
        lines = [at for at, line in diary.take_timed() if line.endswith("down")]
        if policy == "permanent":
            assert lines == [0.0]
            assert refs["a"].statistics().workers == 2
        else:
            assert lines == [0.0, 3.0]
            assert await refs["a"].wait_stopped() is None


@pytest.mark.parametrize("way", ["stop", "restart", "scope", "leave"])
async def test_workers_stop_at_the_same_time_within_one_budget(way, autojump_clock):
    diary = Diary()
    async with Supervisor(scope="rest_for_one") as supervisor:
        refs = await spawn_all(
            supervisor, diary, z={}, a={"pool": 3, "stop": {1: 2.0, 2: 2.0, 3: 9.0}, "shutdown": 4.0}
        )
        if way == "stop":
            await refs["a"].stop()
        elif way == "restart":
            await refs["a"].restart()
        elif way == "scope":
            await send(refs["z"], "crash")
            await trio.sleep(100)
    downs = [at for at, line in diary.take_timed() if line in {"a1 down", "a2 down", "a3 down"}]
    assert downs == [2.0, 2.0, 4.0]


@pytest.mark.parametrize("way", ["spawn", "restart"])
async def test_workers_start_at_the_same_time(way, autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(diary.stage("a", start=2.0), name="a", pool=3)
        if way == "restart":
            diary.take()
            await ref.restart()
        began = {"spawn": 0.0, "restart": 2.0}[way]
        ups = [at for at, line in diary.take_timed() if line.endswith("up")]
        assert ups == [began + 2.0] * 3


# Starts


async def test_one_that_does_not_start_keeps_the_whole_pool_from_it(autojump_clock):
    """Those that were up already are left, and the others are not waited for."""
    diary = Diary()
    async with Supervisor() as supervisor:
        stage = diary.stage("a", start={2: 1.0, 3: 100.0}, fails={2})
        with pytest.raises(ActorStartError) as caught:
            await supervisor.spawn(stage, name="a", pool=3)
        assert str(caught.value.__cause__) == "a2 does not start"
        lines = diary.take_timed()
        assert {line for line in lines if line[0] == 1.0} == {
            (1.0, "a2 fails"),
            (1.0, "a1 down"),
            (1.0, "a3 is cut off"),
        }
        assert (await send(await supervisor.spawn(stage, name="a", pool=3))).data


async def test_one_that_crashes_before_the_others_are_up(autojump_clock):
    diary = Diary()

    async def crash(number):
        await trio.sleep(1)
        if number == 1:
            raise CrashError

    async with Supervisor() as supervisor:
        stage = diary.stage("a", start={2: 100.0, 3: 100.0}, kept=crash)
        with pytest.raises(ActorStartError) as caught:
            await supervisor.spawn(stage, name="a", pool=3)
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert trio.current_time() - diary.began == 1.0


async def test_a_pool_that_hangs_at_its_first_start_can_be_given_up(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        with trio.move_on_after(1) as scope:
            await supervisor.spawn(diary.stage("a", start={3: 100.0}), name="a", pool=3)
        assert scope.cancelled_caught
        assert sorted(diary.take()) == ["a1 down", "a1 up", "a2 down", "a2 up", "a3 is cut off", "a3 starts"]


async def test_a_worker_whose_restart_fails_is_tried_again_alone(autojump_clock):
    diary = Diary()
    async with Supervisor(scope="rest_for_one") as supervisor:
        restart = {"restart": later(1.0)}
        refs = await spawn_all(supervisor, diary, a={"pool": 2, "fails": {3, 4}, **restart})
        with at_once():
            await send(refs["a"], "crash")
        await trio.sleep(0.5)
        assert (await send(refs["a"])).data["by"] in {"a1", "a2"}
        await trio.sleep(5)
        assert diary.take_timed()[1:] == [(1.0, "a3 fails"), (2.0, "a4 fails"), (3.0, "a5 up")]
        assert refs["a"].statistics().workers == 2


async def test_a_pool_without_a_worker_keeps_its_messages(autojump_clock):
    diary = Diary()
    async with Supervisor(intensity=MANY) as supervisor, trio.open_nursery() as nursery:
        desk = Desk(nursery)
        refs = await spawn_all(supervisor, diary, a={"pool": 2, "restart": later(3.0)})
        for _ in range(2):
            await send(refs["a"], "crash")
        for key in range(4):
            await desk.ask(refs["a"], key)
        assert refs["a"].statistics().queued == 4
        await trio.sleep(5)
        assert [desk.answers[key][0] for key in range(4)] == [3.0] * 4
        await refs["a"].stop()


async def test_every_message_has_one_answer_whoever_crashes(autojump_clock):
    diary = Diary()
    async with Supervisor(intensity=MANY) as supervisor:
        refs = await spawn_all(supervisor, diary, a={"pool": 3, "start": 0.3, "restart": later(0.2)})
        async with trio.open_nursery() as nursery:
            desk = Desk(nursery)
            for key in range(60):
                do = "crash" if key % 7 == 0 else None
                nursery.start_soon(partial(desk.ask, refs["a"], key, do, after=0.1 + key % 3 / 10))
        assert set(desk.answers) == set(range(60))
        assert {key for key in range(60) if desk.kind(key) is CrashError} == set(range(0, 60, 7))
        ledger = refs["a"].statistics().ledger
        assert (ledger.accepted, ledger.replied, ledger.failed) == (60, 51, 9)


async def test_events_say_which_worker(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        async with supervisor.events() as stream:
            refs = await spawn_all(supervisor, diary, a={"pool": 2})
            await send(refs["a"], "crash")
            seen = [await anext(stream) for _ in range(5)]
        assert [type(event) for event in seen] == [
            events.ActorStarted,
            events.ActorStarted,
            events.ActorCrashed,
            events.ActorRestarting,
            events.ActorStarted,
        ]
        assert sorted(event.worker for event in seen[:2]) == [0, 1]
        worker = seen[2].worker
        assert [event.worker for event in seen[2:]] == [worker] * 3
        assert seen[4].incarnation == 2
