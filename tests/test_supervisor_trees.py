"""Supervisors below supervisors: what reaches the one above, and what comes up again when."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from actor_cases import ESCALATE, LIMITS, MANY, CrashError, Diary, at_once, grow, later, name_of, send, spawn_all

from stageflow_actors import Intensity, Pipeline, Supervisor, events
from stageflow_actors.errors import (
    ActorDeadError,
    AskTimeoutError,
    PipelineValidationError,
    RestartIntensityError,
    UnknownActorError,
)

DOWN = ["b1 down", "t1 down", "a1 down"]
AGAIN = ["a2 up", "b2 up"]

# What reaches the supervisor above


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_supervisor_that_gives_up_is_one_child_that_failed(limit, autojump_clock):
    """It is brought up again with all that is not temporary, behind the same references and with what was queued."""
    diary = Diary()
    async with Supervisor() as top:
        others = await spawn_all(top, diary, z={})
        _, refs = await grow(top, diary, limit=limit, restart=later(5.0))
        assert isinstance(await send(refs["b"], "crash"), CrashError)
        await trio.testing.wait_all_tasks_blocked()
        assert await name_of(others["z"]) == "z1"
        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(send, refs[name])
        assert diary.take_timed() == [*((0.0, line) for line in DOWN), *((5.0, line) for line in AGAIN)]
        assert [ref.statistics().restarts for ref in refs.values()] == [1, 1, 0]
        assert isinstance(await send(refs["t"]), ActorDeadError)
        assert top.actor("s/a") == refs["a"]
        with pytest.raises(UnknownActorError):
            top.actor("s/t")
    assert diary.take() == ["b2 down", "a2 down", "z1 down"]
    assert top.ledger.balanced


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("policy", ["transient", "temporary"])
async def test_one_that_may_not_come_up_again_ends_with_all_of_its_actors(policy, limit, autojump_clock):
    diary = Diary()
    restart = None if policy == "temporary" else later(0.0, max_restarts=0)
    async with Supervisor(intensity=Intensity(0)) as top:
        below, refs = await grow(top, diary, limit=limit, policy=policy, restart=restart)
        async with top.events() as stream:
            await send(refs["b"], "crash")
            await trio.testing.wait_all_tasks_blocked()
            ended = [event async for event in until_end_of(stream, "s")]
        assert diary.take() == DOWN
        assert [event.actor for event in ended] == ["s/t", "s/b", "s/a", "s"]
        kind = {"transient": RestartIntensityError}.get(policy)
        assert kind is None or isinstance(ended[-1].error, kind)
        for ref in refs.values():
            assert isinstance(await send(ref), ActorDeadError)
            await ref.wait_stopped()
        with pytest.raises(ActorDeadError, match="actor 's': the supervisor has ended"):
            await below.spawn(diary.stage("x"), name="x")
        with pytest.raises(ActorDeadError, match="actor 's': the supervisor has ended"):
            below.start(Pipeline("p").with_stage("x", diary.stage("x")))
        _, again = await grow(top, diary)
        assert (await send(again["a"])).data


async def until_end_of(stream, name, kind=events.ActorEnded):
    """Iterate over the events of a kind in a stream, up to the end of one child."""
    async for event in stream:
        if isinstance(event, kind):
            yield event
        if isinstance(event, events.ActorEnded) and event.actor == name:
            return


@pytest.mark.parametrize("limit", LIMITS)
async def test_one_that_may_not_come_up_again_and_is_permanent_ends_the_one_above(limit, autojump_clock):
    diary = Diary()
    with pytest.raises(RestartIntensityError) as caught:
        async with Supervisor() as top:
            await spawn_all(top, diary, y={})
            _, refs = await grow(top, diary, limit=limit, restart=later(0.0, max_restarts=0))
            await spawn_all(top, diary, z={})
            await send(refs["b"], "crash")
            await trio.sleep_forever()
    assert caught.value.actor == "s"
    cause = caught.value.__cause__
    assert type(cause) is (CrashError if limit == "escalation" else RestartIntensityError)
    assert diary.take() == [*DOWN, "z1 down", "y1 down"]
    assert top.ledger.balanced


@pytest.mark.parametrize(("left", "comes_back"), [(0, False), (1, True)])
async def test_an_error_may_go_up_two_levels(left, comes_back, autojump_clock):
    """Each level that may restart nothing more passes it on, with the reason for its reason."""
    diary = Diary()
    error = None
    try:
        async with Supervisor(intensity=Intensity(left)) as top:
            middle = await top.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="m")
            await spawn_all(middle, diary, c={})
            below = await middle.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="s")
            refs = await spawn_all(below, diary, a={}, b={})
            assert [ref.name for ref in refs.values()] == ["m/s/a", "m/s/b"]
            await send(refs["b"], "crash")
            assert await name_of(refs["b"]) == "b2"
            assert await name_of(top.actor("m/s/a")) == "a2"
    except RestartIntensityError as raised:
        error = raised
    assert (error is None) is comes_back
    first = ["b1 down", "a1 down", "c1 down"]
    again = ["c2 up", "a2 up", "b2 up", "b2 down", "a2 down", "c2 down"]
    assert diary.take() == (first + again if comes_back else first)
    if error is not None:
        causes = [error, error.__cause__, error.__cause__.__cause__, error.__cause__.__cause__.__cause__]
        assert [type(cause) for cause in causes] == [RestartIntensityError] * 3 + [CrashError]
        assert "supervisor 'm' failed" in str(causes[0])
        assert "supervisor 'm/s' failed" in str(causes[1])
        assert "actor 'm/s/b' failed" in str(causes[2])


async def test_the_intensity_above_counts_actors_and_supervisors_alike(autojump_clock):
    diary = Diary()
    with pytest.raises(RestartIntensityError, match="has had 2 restarts, and actor 'z' failed"):
        async with Supervisor(intensity=Intensity(2)) as top:
            others = await spawn_all(top, diary, z={})
            _, refs = await grow(top, diary)
            for ref in (others["z"], refs["b"], others["z"]):
                await send(ref, "crash")
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep_forever()


async def test_failures_before_it_came_up_again_are_forgotten(autojump_clock):
    """The count of the supervisor, and those of its actors."""
    diary = Diary()
    async with Supervisor(intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(intensity=Intensity(1)), name="s")
        spent = {"policy": "permanent", "restart": later(0.0, max_restarts=1)}
        refs = await spawn_all(below, diary, a=spent)
        for number in range(1, 8):
            assert await name_of(refs["a"]) == f"a{number}"
            await send(refs["a"], "crash")
            await trio.testing.wait_all_tasks_blocked()
        assert refs["a"].statistics().workers == 1


async def test_what_is_no_exception_leaves_the_whole_tree(autojump_clock):
    diary = Diary()
    with pytest.raises(SystemExit):
        async with Supervisor() as top:
            await spawn_all(top, diary, z={})
            middle = await top.spawn_supervisor(Supervisor(), name="m")
            _, refs = await grow(middle, diary)
            await send(refs["a"], "exit")
            await trio.sleep_forever()
    assert diary.take() == ["a1 down", "t1 down", "b1 down", "z1 down"]


# While it is away


async def test_what_can_be_done_while_it_backs_off(autojump_clock):
    diary = Diary()
    async with Supervisor() as top, trio.open_nursery() as nursery:
        below, refs = await grow(top, diary, restart=later(10.0))
        await send(refs["b"], "crash")
        await trio.sleep(1)
        diary.take()
        with pytest.raises(ActorDeadError, match="has given up, and is being restarted; try again"):
            await below.spawn(diary.stage("x"), name="x")
        with pytest.raises(ActorDeadError, match="has given up, and is being restarted; try again"):
            await below.run(Pipeline("p").with_stage("x", diary.stage("x")))
        with pytest.raises(ActorDeadError), at_once():
            await refs["a"].restart()
        with pytest.raises(AskTimeoutError):
            await refs["a"].ask(timeout=2.0)
        with at_once():
            await refs["b"].stop()
        answers = []

        async def ask():
            answers.append((await send(refs["a"])).data["by"])

        nursery.start_soon(ask)
        await trio.sleep(20)
        assert diary.take_timed() == [(10.0, "a2 up")]
        assert answers == ["a2"]
        assert await name_of(await below.spawn(diary.stage("x"), name="x")) == "x1"


async def test_an_actor_that_is_stopped_while_it_comes_up_again_keeps_nobody_down(autojump_clock):
    diary = Diary()
    async with Supervisor(intensity=Intensity(1)) as top:
        _, refs = await grow(top, diary, a={"start": {2: 100.0}})
        await send(refs["b"], "crash")
        await trio.sleep(1)
        with at_once():
            await refs["a"].stop()
        assert await name_of(refs["b"]) == "b2"
        assert trio.current_time() - diary.began == 1.0


@pytest.mark.parametrize("scope", ["one_for_one", "dependents", "one_for_all", "rest_for_one"])
async def test_a_crash_while_others_come_up_again(scope, autojump_clock):
    """Each is up once in the end, and the supervisor above has nothing to do with it."""
    diary = Diary()
    async with Supervisor(intensity=Intensity(1)) as top:
        below = await top.spawn_supervisor(Supervisor(scope=scope, intensity=MANY), name="s")
        actors = {"a": {}, "b": {"start": {2: 5.0}, "restart": ESCALATE}, "c": {"depends_on": "a"}}
        refs = await spawn_all(below, diary, **actors)
        await send(refs["b"], "crash")
        await trio.sleep(2)
        await send(refs["a"], "crash")
        await trio.sleep(20)
        up = dict.fromkeys("abc", 1)
        for line in diary.take():
            up[line[0]] += line.endswith("up") - line.endswith("down")
            assert up[line[0]] in {0, 1}
        assert set(up.values()) == {1}
        assert {(await send(ref)).data["by"][0] for ref in refs.values()} == set("abc")


@pytest.mark.parametrize(("fails", "above"), [({2}, 1), ({2, 3}, 1), ({2, 3, 4, 5}, 2)])
async def test_a_start_that_fails_on_the_way_up_is_tried_again(fails, above, autojump_clock):
    """As often as the supervisor may, here twice; then that is one more failure for the one above."""
    diary = Diary()
    async with Supervisor(intensity=Intensity(above)) as top:
        below = await top.spawn_supervisor(Supervisor(intensity=Intensity(2)), name="s")
        refs = await spawn_all(below, diary, a={"fails": fails}, b={"restart": ESCALATE})
        await send(refs["b"], "crash")
        assert await name_of(refs["a"]) == f"a{max(fails) + 1}"
        assert await name_of(refs["b"]) == "b2"


async def test_one_that_gives_up_on_its_way_up_was_never_up(autojump_clock):
    """So nobody is started who comes after it."""
    diary = Diary()
    async with Supervisor(scope="rest_for_one", intensity=MANY) as top:
        below = await top.spawn_supervisor(Supervisor(intensity=Intensity(0)), name="s", restart=later(1.0))
        refs = await spawn_all(below, diary, a={"fails": {2}}, b={"restart": ESCALATE})
        await spawn_all(top, diary, z={})
        async with top.events() as stream:
            await send(refs["b"], "crash")
            await trio.sleep(10)
            assert diary.take() == ["b1 down", "a1 down", "z1 down", "a2 fails", "a3 up", "b2 up", "z2 up"]
            await refs["b"].stop()
            seen = [event.actor async for event in until_end_of(stream, "s/b", events.ActorStarted)]
        assert seen == ["s/a", "s/b", "s", "z"]


# Together with others


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("one_for_one", ["y1 down", "y2 up"]),
        ("dependents", ["y1 down", *reversed(["a1 down", "b1 down", "t1 down"]), "y2 up", *AGAIN]),
        (
            "one_for_all",
            ["y1 down", "z1 down", "t1 down", "b1 down", "a1 down", "x1 down", "x2 up", "y2 up", *AGAIN, "z2 up"],
        ),
        ("rest_for_one", ["y1 down", "z1 down", "t1 down", "b1 down", "a1 down", "y2 up", *AGAIN, "z2 up"]),
    ],
)
async def test_it_is_restarted_with_its_siblings_in_its_place(scope, expected, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope) as top:
        refs = await spawn_all(top, diary, x={}, y={})
        below = await top.spawn_supervisor(Supervisor(), name="s", depends_on="y")
        await spawn_all(below, diary, a={}, b={}, t={"policy": "temporary"})
        await spawn_all(top, diary, z={})
        await send(refs["y"], "crash")
        await trio.sleep(1)
        assert diary.take() == expected


async def test_an_actor_may_depend_on_a_supervisor(autojump_clock):
    diary = Diary()
    async with Supervisor(scope="dependents") as top:
        _, refs = await grow(top, diary)
        await spawn_all(top, diary, y={"depends_on": "s"}, z={})
        await send(refs["b"], "crash")
        await trio.sleep(1)
        assert diary.take() == [*DOWN, "y1 down", *AGAIN, "y2 up"]


async def test_a_sibling_that_fails_while_it_comes_up_again(autojump_clock):
    diary = Diary()
    async with Supervisor(scope="one_for_all") as top:
        others = await spawn_all(top, diary, z={})
        _, refs = await grow(top, diary, b={"start": {2: 5.0}})
        await send(refs["b"], "crash")
        await trio.sleep(2)
        diary.take()
        await send(others["z"], "crash")
        await trio.sleep(20)
        assert diary.take() == ["z2 down", "b2 is cut off", "a2 down", "z3 up", "a3 up", "b3 up"]


async def test_a_child_supervisor_belongs_to_the_one_above(autojump_clock):
    async with Supervisor() as top:
        below = await top.spawn_supervisor(Supervisor(), name="s")
        with pytest.raises(RuntimeError, match="another supervisor opens and closes this one"):
            async with below:
                pass
        with pytest.raises(PipelineValidationError, match="must be a Supervisor that was never opened"):
            await top.spawn_supervisor(below, name="t")
        with pytest.raises(PipelineValidationError, match="has an actor 's' already"):
            await top.spawn_supervisor(Supervisor(), name="s")
    with pytest.raises(RuntimeError, match="another supervisor opens and closes this one"):
        async with below:
            pass
