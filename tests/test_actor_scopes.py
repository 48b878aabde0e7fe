"""Actors that fail while others restart: during the backoff, and while one of them starts or stops."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from actor_cases import MANY, SCOPES, CrashError, Diary, at_once, later, name_of, send, spawn_all

from stageflow_actors import Intensity, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, RestartIntensityError

CHAIN = {"a": {}, "b": {"depends_on": "a"}, "c": {"depends_on": "b"}, "d": {}}
"""Of these, the last stands alone."""
WITH_A = {"one_for_one": "a", "dependents": "abc", "one_for_all": "abcd", "rest_for_one": "abcd"}
"""Who restarts when `a` does."""
WITH_B = {"one_for_one": "b", "dependents": "bc", "one_for_all": "abcd", "rest_for_one": "bcd"}
GROUPS = [scope for scope in SCOPES if scope != "one_for_one"]


def chain(**options):
    """Return the actors of the chain, some with options of their own."""
    return {name: {**fixed, **options.get(name, {})} for name, fixed in CHAIN.items()}


def order(lines, event):
    """Return the actors of which the diary says this, in order."""
    return "".join(line[0] for line in lines if line.endswith(f" {event}"))


async def names_of(refs):
    return [await name_of(ref) for ref in refs.values()]


# In the backoff


@pytest.mark.parametrize("scope", SCOPES)
async def test_all_of_a_scope_are_down_while_one_backs_off(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(a={"restart": later(10.0)}))
        await send(refs["a"], "crash")
        await trio.sleep(20)
        group = WITH_A[scope]
        assert diary.take_timed() == [
            (0.0, "a1 down"),
            *[(0.0, f"{name}1 down") for name in reversed(group[1:])],
            *[(10.0, f"{name}2 up") for name in group],
        ]


@pytest.mark.parametrize("scope", ["one_for_one", "dependents"])
async def test_a_failure_elsewhere_does_not_wait_for_a_backoff(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(a={"restart": later(10.0)}))
        await send(refs["a"], "crash")
        await trio.sleep(2)
        diary.take()
        await send(refs["d"], "crash")
        await trio.sleep(20)
        ups = [(10.0, f"{name}2 up") for name in WITH_A[scope]]
        assert diary.take_timed() == [(2.0, "d1 down"), (2.0, "d2 up"), *ups]


async def test_a_failure_before_those_that_back_off_takes_them_in(autojump_clock):
    """Each is started once, in order, and not before its own backoff is over."""
    diary = Diary()
    async with Supervisor(scope="rest_for_one") as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(c={"restart": later(10.0)}))
        await send(refs["c"], "crash")
        await trio.sleep(2)
        assert diary.take() == ["c1 down", "d1 down"]
        await send(refs["a"], "crash")
        await trio.sleep(7.9)
        lines = diary.take()
        assert lines[:2] == ["a1 down", "b1 down"]
        assert "c" not in order(lines, "up")
        await trio.sleep(10)
        assert order(lines + diary.take(), "up") == "abcd"
        assert await names_of(refs) == ["a2", "b2", "c2", "d2"]


async def test_two_that_back_off_are_restarted_each_at_its_time(autojump_clock):
    diary = Diary()
    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, diary, a={"restart": later(10.0)}, b={"restart": later(3.0)})
        await send(refs["a"], "crash")
        await send(refs["b"], "crash")
        await trio.sleep(20)
        assert diary.take_timed() == [(0.0, "a1 down"), (0.0, "b1 down"), (3.0, "b2 up"), (10.0, "a2 up")]


@pytest.mark.parametrize("scope", GROUPS)
async def test_one_that_is_stopped_during_a_backoff_stays_so(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(a={"restart": later(10.0)}))
        await send(refs["a"], "crash")
        await trio.sleep(2)
        diary.take()
        with at_once():
            await refs["b"].stop()
        assert await refs["b"].wait_stopped() is None
        await trio.sleep(20)
        assert diary.take() == [f"{name}2 up" for name in WITH_A[scope] if name != "b"]


@pytest.mark.parametrize("scope", SCOPES)
async def test_the_others_come_up_although_the_one_that_failed_is_stopped_meanwhile(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(a={"restart": later(10.0)}))
        await send(refs["a"], "crash")
        await trio.sleep(2)
        diary.take()
        with at_once():
            await refs["a"].stop()
        await trio.sleep(20)
        assert diary.take() == [f"{name}2 up" for name in WITH_A[scope][1:]]
        assert isinstance(await send(refs["a"]), ActorDeadError)


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_restart_that_is_asked_for_waits_for_no_backoff(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(a={"restart": later(10.0)}))
        await send(refs["a"], "crash")
        await trio.sleep(2)
        diary.take()
        with at_once():
            await refs["a"].restart()
        await trio.sleep(20)
        assert diary.take() == [f"{name}2 up" for name in WITH_A[scope]]


# While one starts


@pytest.mark.parametrize("scope", SCOPES)
async def test_one_that_fails_while_a_later_one_starts(scope, autojump_clock):
    """The start is given up where that one is to be restarted too, and made anew."""
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(b={"start": {2: 5.0}}))
        await send(refs["b"], "crash")
        await trio.sleep(2)
        diary.take()
        await send(refs["a"], "crash")
        await trio.sleep(10)
        lines = diary.take()
        if scope == "one_for_one":
            assert lines == ["a1 down", "a2 up", "b2 up"]
            return
        assert "b2 is cut off" in lines
        number = 3 if scope == "one_for_all" else 2
        assert await names_of(refs) == [f"a{number}", "b3", "c2", "d1" if scope == "dependents" else "d2"]
        assert order(lines, "up") == WITH_A[scope]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_start_that_fails_is_one_more_failure(scope, autojump_clock):
    """And is made again, with those of its own scope: what the first failure had restarted before stays up."""
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(b={"fails": {2}}))
        await send(refs["a" if scope != "one_for_one" else "b"], "crash")
        await trio.sleep(1)
        lines = diary.take()
        again = {
            "one_for_one": ["b1 down", "b2 fails", "b3 up"],
            "dependents": ["a2 up", "b2 fails", "b3 up", "c2 up"],
            "one_for_all": ["a2 up", "b2 fails", "a2 down", "a3 up", "b3 up", "c2 up", "d2 up"],
            "rest_for_one": ["a2 up", "b2 fails", "b3 up", "c2 up", "d2 up"],
        }[scope]
        assert lines[-len(again) :] == again
        assert refs["b"].statistics().restarts == 2


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_failed_start_backs_off(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(a={"restart": later(4.0), "fails": {2, 3}}))
        await send(refs["a"], "crash")
        await trio.sleep(20)
        lines = [line for line in diary.take_timed() if line[1][0] == "a"]
        assert lines == [(0.0, "a1 down"), (4.0, "a2 fails"), (8.0, "a3 fails"), (12.0, "a4 up")]
        assert await names_of(refs) == [
            f"{name}{2 if name in WITH_A[scope][1:] else 1}".replace("a1", "a4") for name in CHAIN
        ]


@pytest.mark.parametrize(("scope", "restarts"), [(scope, count) for scope in SCOPES for count in (0, 1, 2)])
async def test_starts_that_fail_spend_the_intensity(scope, restarts, autojump_clock):
    diary = Diary()
    with pytest.raises(RestartIntensityError) as caught:
        async with Supervisor(scope=scope, intensity=Intensity(restarts)) as supervisor:
            refs = await spawn_all(supervisor, diary, **chain(a={"fails": set(range(2, 9))}))
            await send(refs["a"], "crash")
            await trio.sleep(1)
    assert type(caught.value.__cause__) is CrashError
    lines = diary.take()
    assert order(lines, "fails") == "a" * restarts
    assert order(lines, "up") == ""
    assert order(lines, "down") == ("acbd" if scope == "dependents" and restarts else "adcb")


@pytest.mark.parametrize("scope", GROUPS)
async def test_a_start_that_fails_for_good_does_not_keep_the_others_down(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(b={"fails": {2}, "restart": later(0.0, max_restarts=0)}))
        await send(refs["a"], "crash")
        await trio.sleep(1)
        assert isinstance(await refs["b"].wait_stopped(), RestartIntensityError)
        assert order(diary.take(), "up") == WITH_A[scope].replace("b", "")


@pytest.mark.parametrize("scope", GROUPS)
async def test_one_that_is_stopped_while_it_starts_does_not_keep_the_others_down(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(b={"start": {2: 100.0}}))
        await send(refs["a"], "crash")
        await trio.sleep(2)
        with at_once():
            await refs["b"].stop()
        await trio.testing.wait_all_tasks_blocked()
        assert order(diary.take(), "up") == WITH_A[scope].replace("b", "")


async def test_an_actor_that_is_only_being_spawned_is_left_alone(autojump_clock):
    diary = Diary()
    async with Supervisor(scope="one_for_all") as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, a={}, b={})
        done = []

        async def spawn():
            done.append(await supervisor.spawn(diary.stage("c", start={1: 5.0}), name="c"))

        nursery.start_soon(spawn)
        await trio.sleep(2)
        await send(refs["a"], "crash")
        await trio.sleep(5)
        assert diary.take() == ["c1 starts", "a1 down", "b1 down", "a2 up", "b2 up", "c1 up"]
        assert await name_of(done[0]) == "c1"


# While one stops


@pytest.mark.parametrize("scope", ["one_for_all", "rest_for_one"])
async def test_each_ends_before_the_next_one_is_told_to(scope, autojump_clock):
    diary = Diary()
    stops = {"b": {"stop": {1: 1.0}}, "c": {"stop": {1: 2.0}}, "d": {"stop": {1: 3.0}}}
    async with Supervisor(scope=scope) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(**stops))
        await send(refs["a"], "crash")
        await trio.sleep(10)
        assert diary.take_timed() == [
            (0.0, "a1 down"),
            (0.0, "d1 leaves"),
            (3.0, "d1 down"),
            (3.0, "c1 leaves"),
            (5.0, "c1 down"),
            (5.0, "b1 leaves"),
            *[(6.0, line) for line in ("b1 down", "a2 up", "b2 up", "c2 up", "d2 up")],
        ]


@pytest.mark.parametrize("scope", GROUPS)
async def test_one_that_fails_before_its_turn_to_stop_counts_for_nothing(scope, autojump_clock):
    """It was to stop anyway."""
    diary = Diary()
    async with Supervisor(scope=scope, intensity=Intensity(1)) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain(c={"stop": {1: 3.0}}))
        await send(refs["a"], "crash")
        await trio.sleep(1)
        assert isinstance(await send(refs["b"], "crash"), CrashError)
        await trio.sleep(10)
        assert order(diary.take(), "up") == WITH_A[scope]
        assert await names_of(refs) == ["a2", "b2", "c2", "d1" if scope == "dependents" else "d2"]


async def test_those_that_fail_together_count_once(autojump_clock):
    """Where the first of them has them all restarted anyway."""
    diary = Diary()
    async with Supervisor(scope="one_for_all", intensity=Intensity(1)) as supervisor:
        refs = await spawn_all(supervisor, diary, **chain())
        for ref in refs.values():
            await ref.tell({"do": "crash", "after": 1.0})
        await trio.sleep(2)
        assert await names_of(refs) == ["a2", "b2", "c2", "d2"]


@pytest.mark.parametrize("scope", GROUPS)
async def test_one_that_fails_over_its_last_message_fails_its_asker_and_nobody_else(scope, autojump_clock):
    """It is to stop anyway: that is no failure of its own, also where none is left to restart."""
    diary = Diary()
    async with Supervisor(scope=scope, intensity=Intensity(1)) as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, **chain())
        answers = []

        async def ask():
            answers.append(await send(refs["c"], "crash", after=2.0))

        nursery.start_soon(ask)
        await trio.sleep(1)
        await send(refs["a"], "crash")
        await trio.sleep(5)
        assert [type(answer) for answer in answers] == [CrashError]
        assert await names_of(refs) == ["a2", "b2", "c2", "d1" if scope == "dependents" else "d2"]


@pytest.mark.parametrize("scope", GROUPS)
@pytest.mark.parametrize("shutdown", [1.0, 5.0])
async def test_the_others_have_their_budget_for_the_message_in_hand_and_keep_what_is_queued(
    scope, shutdown, autojump_clock
):
    diary = Diary()
    async with Supervisor(scope=scope) as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, **chain(b={"shutdown": shutdown}))
        answers = {}

        async def ask(what):
            answers[what] = trio.current_time() - diary.began, await send(refs["b"], after=3.0)

        nursery.start_soon(ask, "in hand")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "queued")
        await trio.sleep(1)
        await send(refs["a"], "crash")
        await trio.sleep(20)
        if shutdown == 5.0:
            assert answers["in hand"][1].data["by"] == "b1"
        else:
            assert isinstance(answers["in hand"][1], ActorUnavailableError)
        assert answers["queued"][1].data["by"] == "b2"
        assert (3.0 if shutdown == 5.0 else 2.0, "a2 up") in diary.take_timed()


@pytest.mark.parametrize("scope", SCOPES)
async def test_all_that_fail_at_once_are_up_again_once(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope, intensity=MANY) as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, **chain())
        for ref in refs.values():
            nursery.start_soon(send, ref, "crash")
        await trio.sleep(1)
        lines = diary.take()
        assert sorted(order(lines, "down")) == sorted(order(lines, "up"))
        assert order(lines, "up")[-4:] == "abcd" or scope in {"one_for_one", "dependents"}
        up = dict.fromkeys(refs, 1)
        for line in lines:
            up[line[0]] += 1 if line.endswith("up") else -1
            assert up[line[0]] in {0, 1}
        assert set(up.values()) == {1}


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_storm_of_failures_ends_with_everyone_up(scope, autojump_clock):
    """Also where starts and ends take their time, and one failure comes into the repair of another."""
    diary = Diary()
    slow = {"start": 1.0, "stop": 1.0}
    async with Supervisor(scope=scope, intensity=MANY) as supervisor, trio.open_nursery() as nursery:
        refs = await spawn_all(supervisor, diary, **chain(a=slow, b=slow, c=slow, d=slow))
        for turn, name in enumerate("adbccabdabdc" * 3):
            nursery.start_soon(send, refs[name], "crash")
            await trio.sleep(0.7 + turn % 3)
        await trio.sleep(100)
        last = {}
        inside = dict.fromkeys(refs, 1)
        for line in diary.take():
            name, _, event = line.partition(" ")
            inside[line[0]] += {"up": 1, "down": -1}.get(event, 0)
            assert inside[line[0]] in {0, 1}
            last[line[0]] = name
        assert set(inside.values()) == {1}
        assert await names_of(refs) == [last[name] for name in "abcd"]
    assert supervisor.ledger.balanced
