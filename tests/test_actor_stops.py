"""Supervisors that are left, in every way, whatever their actors are at: nothing is left, in order, within budgets."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from actor_cases import ESCALATE, MANY, SCOPES, CrashError, Diary, later, send, spawn_all

from stageflow_actors import Pipeline, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorStartError, ActorUnavailableError

WAYS = ("normally", "with an error", "cancelled", "cancelled while it leaves")
HURRIED = WAYS[1:]


class LeftError(Exception):
    """What a supervisor is left with."""


class Scene:
    """A supervisor that is left in one of the ways, and those who asked its actors, who live longer."""

    def __init__(self, way, scope="one_for_one"):
        self.way = way
        self.supervisor = Supervisor(scope=scope, intensity=MANY)
        self.diary = Diary()
        self.answers = {}
        """What came of each question, and when."""
        self.nursery = None
        self.left_at = None

    def now(self):
        return trio.current_time() - self.diary.began

    async def play(self, body):
        """Do something inside of the supervisor, and leave it; return how long that took."""
        async with trio.open_nursery() as self.nursery:
            with trio.CancelScope() as scope:
                try:
                    async with self.supervisor:
                        await body()
                        self.left_at = self.now()
                        await self._leave(scope)
                except LeftError:
                    assert self.way == "with an error"
                else:
                    assert self.way == "normally"
            took = self.now() - self.left_at
            await trio.testing.wait_all_tasks_blocked()
            assert not self.nursery.child_tasks
        assert self.supervisor.ledger.balanced
        return took

    async def _leave(self, scope):
        if self.way == "with an error":
            raise LeftError
        if self.way.startswith("cancelled"):
            scope.cancel()
        if self.way == "cancelled":
            await trio.sleep_forever()

    def ask(self, ref, key, do=None, **data):
        """Ask an actor, in the background."""

        async def ask():
            answer = await send(ref, do, **data)
            self.answers[key] = self.now(), answer

        self.nursery.start_soon(ask)

    def kind_of(self, key):
        return type(self.answers[key][1])


# In the backoff


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_backoff_is_not_waited_for(scope, way, autojump_clock):
    scene = Scene(way, scope)

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={"restart": later(100.0)}, b={"depends_on": "a"}, c={})
        scene.ask(refs["a"], "crash", "crash")
        await trio.sleep(1)
        scene.ask(refs["a"], "queued")
        await trio.testing.wait_all_tasks_blocked()

    assert await scene.play(body) == 0
    lines = scene.diary.take()
    assert sorted(lines) == ["a1 down", "b1 down", "c1 down"]
    assert scene.kind_of("crash") is CrashError
    assert scene.kind_of("queued") is ActorDeadError
    assert scene.supervisor.ledger.stopped == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_crash_in_the_last_step_is_the_last(way, autojump_clock):
    """The restart that was to follow does not."""
    scene = Scene(way, "one_for_all")

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={}, b={}, c={})
        assert isinstance(await send(refs["b"], "crash"), CrashError)

    await scene.play(body)
    lines = scene.diary.take()
    assert sorted(line for line in lines if "1" in line) == ["a1 down", "b1 down", "c1 down"]
    assert sum(line.endswith("up") for line in lines) + 3 == sum(line.endswith("down") for line in lines)


# While one starts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_restart_that_takes_time_is_cut_off(scope, way, autojump_clock):
    scene = Scene(way, scope)

    async def body():
        refs = await spawn_all(
            scene.supervisor, scene.diary, a={}, b={"start": {2: 100.0}}, c={"depends_on": "b"}, d={}
        )
        scene.ask(refs["b"], "crash", "crash")
        await trio.sleep(1)
        scene.ask(refs["b"], "queued")
        await trio.testing.wait_all_tasks_blocked()
        scene.diary.take()

    assert await scene.play(body) == 0
    assert scene.kind_of("queued") is ActorDeadError
    expected = {
        "one_for_one": ["d1 down", "c1 down", "b2 is cut off", "a1 down"],
        "dependents": ["d1 down", "b2 is cut off", "a1 down"],
        "one_for_all": ["b2 is cut off", "a2 down"],
        "rest_for_one": ["b2 is cut off", "a1 down"],
    }
    assert scene.diary.take() == expected[scope]


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_start_that_takes_time_is_cut_off(way, autojump_clock):
    scene = Scene(way)
    raised = []

    async def spawn():
        try:
            await scene.supervisor.spawn(scene.diary.stage("b", start=100.0), name="b")
        except ActorStartError as error:
            raised.append(error)

    async def body():
        await spawn_all(scene.supervisor, scene.diary, a={})
        scene.nursery.start_soon(spawn)
        await trio.sleep(1)

    assert await scene.play(body) == 0
    assert scene.diary.take() == ["b1 starts", "b1 is cut off", "a1 down"]
    assert str(raised[0]) == "actor 'b': it did not start: the supervisor was stopped meanwhile"


# With messages


@pytest.mark.parametrize("way", WAYS)
async def test_the_message_in_hand_has_its_time_unless_there_is_a_hurry(way, autojump_clock):
    scene = Scene(way)

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={}, b={"stop": 2.0})
        scene.ask(refs["a"], "a in hand", after=6.0)
        scene.ask(refs["b"], "b in hand", after=3.0)
        await trio.sleep(1)
        for name, ref in refs.items():
            scene.ask(ref, f"{name} queued")
        await trio.testing.wait_all_tasks_blocked()

    took = await scene.play(body)
    assert {scene.kind_of(f"{name} queued") for name in "ab"} == {ActorDeadError}
    if way in HURRIED:
        assert took == 2.0
        assert {scene.kind_of(f"{name} in hand") for name in "ab"} == {ActorUnavailableError}
        assert scene.diary.take_timed() == [(1.0, "b1 leaves"), (3.0, "b1 down"), (3.0, "a1 down")]
    else:
        assert took == 5.0
        assert [scene.answers[f"{name} in hand"][0] for name in "ab"] == [6.0, 3.0]
        assert scene.diary.take_timed() == [(3.0, "b1 leaves"), (5.0, "b1 down"), (6.0, "a1 down")]
    ledger = scene.supervisor.ledger
    assert (ledger.replied, ledger.cancelled, ledger.stopped) == ((0, 2, 2) if way in HURRIED else (2, 0, 2))


async def test_what_is_waited_for_is_hurried_when_the_supervisor_is_cancelled(autojump_clock):
    """Also the actors that were not told to end before."""
    diary = Diary()
    with trio.move_on_at(trio.current_time() + 2.0) as scope:
        async with Supervisor() as supervisor:
            refs = await spawn_all(supervisor, diary, a={"stop": 1.0}, b={})
            for ref in refs.values():
                await ref.tell({"after": 4.0})
            await trio.testing.wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert diary.take_timed() == [(2.0, "b1 down"), (2.0, "a1 leaves"), (3.0, "a1 down")]
    assert supervisor.ledger.cancelled == 2


async def test_a_supervisor_that_has_given_up_can_be_hurried(autojump_clock):
    diary = Diary()
    with trio.move_on_at(trio.current_time() + 2.0):
        with pytest.raises(CrashError):
            async with Supervisor() as supervisor:
                refs = await spawn_all(supervisor, diary, a={"stop": 1.0}, b={}, c={"restart": ESCALATE})
                for name in "ab":
                    await refs[name].tell({"after": 4.0})
                await trio.sleep(1)
                await send(refs["c"], "crash")
                await trio.sleep_forever()
        assert diary.take_timed() == [(1.0, "c1 down"), (2.0, "b1 down"), (2.0, "a1 leaves"), (3.0, "a1 down")]


@pytest.mark.parametrize("way", WAYS)
async def test_a_run_ends_before_the_actors_that_it_uses(way, autojump_clock):
    scene = Scene(way)
    runs = []

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={})
        pipeline = Pipeline("p").with_stage("x", refs["a"]).with_stage("y", refs["a"], dependencies="x")
        runs.append(scene.supervisor.start(pipeline, {"after": 3.0}))
        await trio.sleep(1)

    took = await scene.play(body)
    assert took == (0 if way in HURRIED else 5.0)
    assert runs[0].partial().ok is (way not in HURRIED)
    assert scene.diary.take() == ["a1 down"]


async def test_what_the_body_raises_meanwhile_is_the_context(autojump_clock):
    """A supervisor that has given up says so, and keeps what went wrong in its block because of that."""

    async def clean_up_badly():
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("in cleanup")

    diary = Diary()
    with pytest.raises(CrashError) as caught:
        async with Supervisor() as supervisor, trio.open_nursery() as nursery:
            refs = await spawn_all(supervisor, diary, a={"restart": ESCALATE})
            nursery.start_soon(clean_up_badly)
            await send(refs["a"], "crash")
            await trio.sleep_forever()
    context = caught.value.__context__
    assert isinstance(context, ExceptionGroup)
    assert str(context.exceptions[0]) == "in cleanup"


async def test_a_spawn_that_waits_while_the_supervisor_gives_up(autojump_clock):
    diary = Diary()
    refused = []

    async def spawn(supervisor):
        try:
            await supervisor.spawn(diary.stage("b", start=100.0), name="b")
        except ActorStartError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        with pytest.raises(CrashError):
            async with Supervisor() as supervisor:
                refs = await spawn_all(supervisor, diary, a={"restart": ESCALATE})
                nursery.start_soon(spawn, supervisor)
                await trio.sleep(1)
                await send(refs["a"], "crash")
                await trio.sleep_forever()
    assert len(refused) == 1
    assert diary.take_timed() == [(0.0, "b1 starts"), (1.0, "a1 down"), (1.0, "b1 is cut off")]


# Budgets


@pytest.mark.parametrize("way", WAYS)
async def test_an_exit_that_hangs_is_cut_off_when_its_budget_is_spent(way, autojump_clock):
    scene = Scene(way)

    async def body():
        hangs = {"stop": 1000.0, "shutdown": 2.0}
        await spawn_all(scene.supervisor, scene.diary, a=hangs, b={}, c={**hangs, "shutdown": 3.0})

    assert await scene.play(body) == 5.0
    assert scene.diary.take_timed() == [
        (0.0, "c1 leaves"),
        (3.0, "c1 is cut off"),
        (3.0, "c1 down"),
        (3.0, "b1 down"),
        (3.0, "a1 leaves"),
        (5.0, "a1 is cut off"),
        (5.0, "a1 down"),
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_no_budget_at_all(way, autojump_clock):
    scene = Scene(way)

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={"stop": 1.0, "shutdown": 0.0})
        scene.ask(refs["a"], "in hand", after=1.0)
        await trio.sleep(0.5)

    assert await scene.play(body) == 0
    assert scene.kind_of("in hand") is ActorUnavailableError


async def test_the_message_in_hand_and_the_exit_share_a_budget(autojump_clock):
    scene = Scene("normally")

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={"stop": 10.0, "shutdown": 5.0})
        scene.ask(refs["a"], "in hand", after=3.0)
        await trio.testing.wait_all_tasks_blocked()

    assert await scene.play(body) == 5.0
    assert scene.answers["in hand"][1].data["by"] == "a1"
    assert scene.diary.take_timed() == [(3.0, "a1 leaves"), (5.0, "a1 is cut off"), (5.0, "a1 down")]


# Others


@pytest.mark.parametrize("way", WAYS)
async def test_everyone_who_waits_for_an_end_hears_of_it(way, autojump_clock):
    scene = Scene(way)
    heard = []

    async def wait(ref):
        heard.append(await ref.wait_stopped())

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={}, b={"restart": later(100.0)})
        await send(refs["b"], "crash")
        for ref in refs.values():
            scene.nursery.start_soon(wait, ref)
            scene.nursery.start_soon(ref.stop) if way == "normally" else None
        await trio.testing.wait_all_tasks_blocked()

    await scene.play(body)
    assert heard == [None, None]


async def test_a_restart_that_is_asked_for_during_the_end_is_refused(autojump_clock):
    scene = Scene("normally")
    raised = []

    async def restart(ref):
        await trio.sleep(1)
        try:
            await ref.restart()
        except ActorDeadError as error:
            raised.append(error)

    async def body():
        refs = await spawn_all(scene.supervisor, scene.diary, a={}, b={"stop": 3.0}, c={})
        for ref in refs.values():
            scene.nursery.start_soon(restart, ref)

    assert await scene.play(body) == 3.0
    assert len(raised) == 3
    assert scene.diary.take() == ["c1 down", "b1 leaves", "b1 down", "a1 down"]
