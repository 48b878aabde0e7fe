"""Every policy, way to end, and scope of resident actors, against a model of OTP's supervisors."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from actor_cases import MANY, POLICIES, SCOPES, CrashError, Diary, Member, Model, send, send_and_leave

from stageflow_actors import Intensity, StageOutput, StageStatus, Supervisor
from stageflow_actors.errors import ActorDeadError, RestartIntensityError

ENDINGS = ("stop", "fail", "cancel", "crash", "withdrawn")
PLACES = ("first", "middle", "last")
NAMES = "abcdef"


async def spawn(supervisor, diary, member):
    return await supervisor.spawn(
        diary.stage(member.name), name=member.name, policy=member.policy, depends_on=member.depends_on
    )


def family(place, policy):
    """Return children of all policies; `v`, of the one given, is at a place among them, and others depend on it."""
    before = [Member("a", "permanent"), Member("b", "temporary"), Member("c", "transient", ("a",))]
    after = [
        Member("d", "permanent", ("v",)),
        Member("e", "transient"),
        Member("f", "temporary", ("v",)),
        Member("g", "transient", ("f",)),
        Member("h", "transient", ("e",)),
    ]
    victim = Member("v", policy, () if place == "first" else ("a",))
    if place == "first":
        return [victim, *after]
    if place == "last":
        return [*before, victim]
    return [*before, victim, *after]


def expect(model, ending):
    """Return what the diary should say after `v` has been asked to end so."""
    if ending == "crash":
        return model.fail("v", 0.0)
    return model.leave("v", 0.0) if ending == "stop" else []


async def tell(ref, ending):
    """Have it end so, and return what the asker hears."""
    if ending == "withdrawn":
        return await send_and_leave(ref)
    return await send(ref, ending)


def check_answer(ending, answer):
    if ending == "withdrawn":
        assert answer is None
    elif ending == "crash":
        assert type(answer) is CrashError
    else:
        expected = {"stop": StageStatus.OK, "fail": StageStatus.FAIL, "cancel": StageStatus.CANCEL}[ending]
        assert isinstance(answer, StageOutput)
        assert answer.status is expected


async def check_children(model, refs, first=None):
    """Check that those are up that should be, as whom, and that the others have ended, and why."""
    for member in model.members:
        assert (await send(refs[member.name])).data["by"] == member.who
        statistics = refs[member.name].statistics()
        assert (statistics.workers, statistics.restarts) == (1, member.incarnation - (first or {}).get(member.name, 1))
    for name, reason in model.ended.items():
        error = await refs[name].wait_stopped()
        assert error is None if reason is None else type(error) is reason
        assert isinstance(await send(refs[name]), ActorDeadError)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scope", SCOPES)
async def test_who_is_restarted_and_in_which_order(scope, policy, ending, place, autojump_clock):
    diary = Diary()
    members = family(place, policy)
    model = Model(scope, members)
    async with Supervisor(scope=scope, intensity=MANY) as supervisor:
        refs = {member.name: await spawn(supervisor, diary, member) for member in members}
        assert diary.take() == [f"{member.name}1 up" for member in members]
        expected = expect(model, ending)
        check_answer(ending, await tell(refs["v"], ending))
        await trio.testing.wait_all_tasks_blocked()
        assert diary.take() == expected
        await check_children(model, refs)
        assert refs["v"].statistics().ledger.late_reply == (ending == "withdrawn")
    assert diary.take() == [f"{member.who} down" for member in reversed(model.members)]
    assert supervisor.ledger.balanced


@pytest.mark.parametrize("ending", ["stop", "crash"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scope", SCOPES)
async def test_who_is_stopped_when_no_restart_is_left(scope, policy, ending, autojump_clock):
    """A supervisor that may not restart anything ends where it would have to, and all of its actors in order."""
    diary = Diary()
    members = family("middle", policy)
    model = Model(scope, members, Intensity(0))
    expected = expect(model, ending)
    error = None
    try:
        async with Supervisor(scope=scope, intensity=Intensity(0)) as supervisor:
            refs = {member.name: await spawn(supervisor, diary, member) for member in members}
            diary.take()
            await send(refs["v"], ending)
            await trio.testing.wait_all_tasks_blocked()
            assert diary.take() == expected
            await check_children(model, refs)
    except RestartIntensityError as raised:
        error = raised
    assert (error is not None) == model.is_over
    if error is not None:
        assert diary.take() == expected
        assert error.max_restarts == 0
        assert type(error.__cause__) is (CrashError if ending == "crash" else type(None))
    assert all(ref.statistics().workers == 0 for ref in refs.values())
    assert supervisor.ledger.balanced


# Long lives


class Life:
    """A supervisor and its model, through the same random events."""

    def __init__(self, scope, seed):
        self.random = random.Random(seed)
        self.intensity = Intensity(self.random.randint(1, 5), within=3.0)
        self.model = Model(scope, [], self.intensity)
        self.diary = Diary()
        self.stages = {name: self.diary.stage(name) for name in NAMES}
        self.members = {}
        """What became of each name last, as the model has it."""
        self.first = {}
        """The number of its first incarnation behind the present reference."""
        self.refs = {}

    async def spawn(self, supervisor, name):
        """Spawn an actor, also one that was there before; return what the diary should say of it."""
        alive = [member.name for member in self.model.members]
        before = self.members.get(name)
        if before is None:
            needs = tuple(other for other in alive if self.random.random() < 0.4)
            member = Member(name, self.random.choice(POLICIES), needs)
        else:
            del self.model.ended[name]
            needs = tuple(other for other in before.depends_on if other in alive)
            member = Member(name, before.policy, needs, before.incarnation + 1)
        self.members[name] = member
        self.first[name] = member.incarnation
        self.refs[name] = await supervisor.spawn(
            self.stages[name], name=name, policy=member.policy, depends_on=member.depends_on
        )
        return self.model.spawn(member)

    async def step(self, supervisor):
        """Let one thing happen; return what the diary should say of it."""
        await trio.sleep(self.random.choice([0.0, 0.5, 1.0, 3.0]))
        missing = [name for name in NAMES if name in self.model.ended]
        if missing and (not self.model.members or self.random.random() < 0.3):
            return await self.spawn(supervisor, self.random.choice(missing))
        name = self.random.choice(self.model.members).name
        what = self.random.choice(["crash", "crash", "tell", "stop", "fail", "cancel", "retire", "restart"])
        if what == "retire":
            await self.refs[name].stop()
            return self.model.stop(name)
        if what == "restart" and self.members[name].policy != "temporary":
            await self.refs[name].restart()
            return self.model.restart(name)
        now = trio.current_time()
        if what == "tell":
            await self.refs[name].tell({"do": "crash"})
        else:
            await send(self.refs[name], what)
        if what in {"crash", "tell"}:
            return self.model.fail(name, now)
        return self.model.leave(name, now) if what == "stop" else []


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_long_life(scope, seed, autojump_clock):
    life = Life(scope, seed)
    expected = error = None
    try:
        async with Supervisor(scope=scope, intensity=life.intensity) as supervisor:
            for name in NAMES:
                await life.spawn(supervisor, name)
            life.diary.take()
            for _ in range(40):
                expected = await life.step(supervisor)
                await trio.testing.wait_all_tasks_blocked()
                assert not life.model.is_over
                assert life.diary.take() == expected
                await check_children(life.model, life.refs, life.first)
            expected = [f"{member.who} down" for member in reversed(life.model.members)]
    except RestartIntensityError as raised:
        error = raised
    assert (error is not None) == life.model.is_over
    assert life.diary.take() == expected
    assert supervisor.ledger.balanced
