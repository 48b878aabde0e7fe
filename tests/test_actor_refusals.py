"""What cannot be spawned, with the exact message of each refusal: nothing has started."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
from refusals import refusal

from stageflow_actors import (
    Backoff,
    FanOutLimiterStage,
    Intensity,
    Limiter,
    Mailbox,
    PipelineValidationError,
    Restart,
    Supervisor,
)
from stageflow_actors.errors import CycleDetectedError, UnknownActorError


async def work(_ctx):
    return None


def work_in_thread(_ctx):
    return None


class Work:
    def __init__(self, ready=None):
        self.ready = ready

    async def execute(self, _ctx):
        return None


@pytest.fixture
async def supervisor():
    async with Supervisor() as supervisor:
        yield supervisor


def is_untouched(supervisor):
    """Return whether a supervisor has no actor."""
    with pytest.raises(UnknownActorError, match="it has none; spawn it"):
        supervisor.actor("a")
    return True


# What is spawned


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        (None, "runner None cannot run a stage"),
        (3, "runner 3 cannot run a stage"),
        ("work", "runner 'work' cannot run a stage"),
        (object, "runner object is a class without an execute method"),
        (lambda: None, "cannot be called: too many positional arguments"),
        (FanOutLimiterStage, "runner FanOutLimiterStage is a class of fan-outs"),
    ],
)
async def test_what_is_no_runner(supervisor, runner, message):
    assert message in await refusal(supervisor.spawn, runner, name="a")
    assert is_untouched(supervisor)


async def test_a_coroutine_is_no_runner(supervisor):
    message = await refusal(supervisor.spawn, work(None), name="a")
    assert message == (
        "actor 'a': runner is a coroutine of 'work', already called; pass the function itself: work, not work()"
    )


async def test_a_fan_out_needs_a_run(supervisor):
    fan_out = FanOutLimiterStage(work, items=[1], limiter=Limiter(1))
    message = await refusal(supervisor.spawn, fan_out, name="a")
    assert message == "the runner of actor 'a' is a fan-out, which needs a run; put it into a pipeline, and run that"


async def test_an_actor_runs_no_actor(supervisor):
    ref = await supervisor.spawn(work, name="a")
    message = await refusal(supervisor.spawn, ref, name="b")
    assert message == "the runner of actor 'b' is the actor 'a' itself; pass a stage class"


@pytest.mark.parametrize("name", ["", None, 5, b"a", ["a"], object])
@pytest.mark.parametrize("spawn", ["actor", "supervisor"])
async def test_what_is_no_name(supervisor, spawn, name):
    calls = {
        "actor": partial(supervisor.spawn, work),
        "supervisor": partial(supervisor.spawn_supervisor, Supervisor()),
    }
    assert await refusal(calls[spawn], name=name) == f"the name of an actor must be a non-empty string, not {name!r}"
    assert is_untouched(supervisor)


@pytest.mark.parametrize("name", ["/", "a/b", "/a", "a/"])
async def test_a_name_is_no_path(supervisor, name):
    expected = f"the name of an actor has no slash, unlike {name!r}; a path leads through child supervisors"
    assert await refusal(supervisor.spawn, work, name=name) == expected
    assert await refusal(supervisor.spawn_supervisor, Supervisor(), name=name) == expected


async def test_a_name_that_is_taken(supervisor):
    await supervisor.spawn(work, name="a")
    child = await supervisor.spawn_supervisor(Supervisor(), name="child")
    await child.spawn(work, name="a")
    hint = "stop that one first, or choose another name"
    taken = f"the supervisor has an actor 'a' already; {hint}"
    assert await refusal(supervisor.spawn, work, name="a") == taken
    assert await refusal(supervisor.spawn_supervisor, Supervisor(), name="a") == taken
    assert await refusal(supervisor.spawn, work, name="child") == f"the supervisor has an actor 'child' already; {hint}"
    assert await refusal(child.spawn, work, name="a") == f"the supervisor has an actor 'child/a' already; {hint}"


async def test_a_name_is_taken_while_it_starts_and_while_it_ends_and_then_free(supervisor, autojump_clock):
    class Slow(Work):
        async def __aenter__(self):
            await trio.sleep(1)

        async def __aexit__(self, *_):
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(supervisor.spawn, Slow, name="a"))
        await trio.sleep(0.5)
        assert "already" in await refusal(supervisor.spawn, work, name="a")
    ref = supervisor.actor("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ref.stop)
        await trio.sleep(0.5)
        assert "already" in await refusal(supervisor.spawn, work, name="a")
    again = await supervisor.spawn(work, name="a")
    assert again != ref


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "always"}, "policy must be one of permanent, transient, temporary, not 'always'"),
        (
            {"policy": "permament"},
            "policy must be one of permanent, transient, temporary, not 'permament'; did you mean 'permanent'?",
        ),
        ({"policy": None}, "policy must be one of permanent, transient, temporary, not None"),
        ({"policy": []}, "policy must be one of permanent, transient, temporary, not []"),
        ({"restart": 3}, "restart must be a Restart, not 3; write restart=Restart(max_restarts=3)"),
        ({"restart": Restart}, f"restart must be a Restart, not {Restart!r}; write restart=Restart(max_restarts=3)"),
        (
            {"restart": Restart(), "policy": "temporary"},
            (
                "actor 'a' has a restart policy, and is temporary: it is never restarted; "
                "leave restart out, or take policy='transient'"
            ),
        ),
        ({"depends_on": None}, "depends_on must be actors or their names, not None"),
        ({"depends_on": 5}, "depends_on must be actors or their names, not 5"),
        ({"depends_on": [5]}, "depends_on must be actors or their names, not 5"),
        ({"depends_on": [""]}, "depends_on must be actors or their names, not ''"),
        ({"depends_on": [None]}, "depends_on must be actors or their names, not None"),
        ({"depends_on": "b"}, "actor 'a' depends on 'b', which is unknown or has ended; spawn it first"),
        ({"depends_on": ["b"]}, "actor 'a' depends on 'b', which is unknown or has ended; spawn it first"),
    ],
)
async def test_options_of_a_child_that_are_refused(supervisor, options, message):
    assert await refusal(partial(supervisor.spawn, work), name="a", **options) == message
    assert await refusal(partial(supervisor.spawn_supervisor, Supervisor()), name="a", **options) == message
    assert is_untouched(supervisor)


NO_COUNTS = [0, -1, True, 1.0, "2", None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"pool": bad}, f"pool must be a whole number of at least 1, not {bad!r}") for bad in NO_COUNTS),
        *(
            ({"max_deliveries": bad}, f"max_deliveries must be a whole number of at least 1, not {bad!r}")
            for bad in NO_COUNTS
        ),
        ({"shutdown": -1}, "shutdown must be a number of at least 0, not -1"),
        ({"shutdown": math.nan}, "shutdown must be a number of at least 0, not nan"),
        ({"shutdown": math.inf}, "shutdown must be a number below 1e+15, not inf"),
        ({"shutdown": None}, "shutdown must be a number of at least 0, not None"),
        ({"shutdown": True}, "shutdown must be a number of at least 0, not True"),
        ({"shutdown": "5"}, "shutdown must be a number of at least 0, not '5'"),
        ({"mailbox": None}, "mailbox must be a Mailbox, not None; write mailbox=Mailbox(max_queued=64)"),
        ({"mailbox": 64}, "mailbox must be a Mailbox, not 64; write mailbox=Mailbox(max_queued=64)"),
        ({"mailbox": Mailbox}, f"mailbox must be a Mailbox, not {Mailbox!r}; write mailbox=Mailbox(max_queued=64)"),
        ({"idempotent": None}, "idempotent must be True or False, not None"),
        ({"idempotent": 1}, "idempotent must be True or False, not 1"),
        (
            {"max_deliveries": 2},
            (
                "max_deliveries=2 may handle a message of actor 'a' more than once; "
                "write idempotent=True if handling a message twice does no harm"
            ),
        ),
        (
            {"idempotent": True},
            (
                "idempotent=True changes nothing about actor 'a' with max_deliveries=1; "
                "give max_deliveries, such as max_deliveries=3"
            ),
        ),
    ],
)
async def test_options_of_an_actor_that_are_refused(supervisor, options, message):
    assert await refusal(partial(supervisor.spawn, work), name="a", **options) == message
    assert is_untouched(supervisor)


async def test_a_pool_of_threads_that_can_never_all_be_at_work():
    async with Supervisor(max_threads=2) as supervisor:
        message = await refusal(supervisor.spawn, work_in_thread, name="a", pool=3)
        assert message.endswith("raise max_threads: so many of them can be at work at once")
        await supervisor.spawn(work_in_thread, name="a", pool=2)
        await supervisor.spawn(work, name="b", pool=3)


async def test_options_have_names(supervisor):
    with pytest.raises(TypeError, match="positional argument"):
        await supervisor.spawn(work, "a")
    with pytest.raises(TypeError, match="name"):
        await supervisor.spawn(work)


# Dependencies


async def test_an_unknown_dependency_and_the_nearest_known(supervisor):
    await supervisor.spawn(work, name="parser")
    assert await refusal(supervisor.spawn, work, name="a", depends_on="prser") == (
        "actor 'a' depends on 'prser', which is unknown or has ended; did you mean 'parser'?"
    )
    assert await refusal(supervisor.spawn, work, name="a", depends_on="zzz") == (
        "actor 'a' depends on 'zzz', which is unknown or has ended; the supervisor has 'parser'"
    )


async def test_a_dependency_that_has_ended(supervisor):
    ref = await supervisor.spawn(work, name="parser")
    await supervisor.spawn(work, name="other")
    await ref.stop()
    assert await refusal(supervisor.spawn, work, name="a", depends_on=ref) == (
        "actor 'a' depends on 'parser', which has ended; spawn that one again first"
    )
    assert await refusal(supervisor.spawn, work, name="a", depends_on="parser") == (
        "actor 'a' depends on 'parser', which is unknown or has ended; the supervisor has 'other'"
    )


async def test_a_dependency_in_another_supervisor(supervisor):
    child = await supervisor.spawn_supervisor(Supervisor(), name="child")
    inner = await child.spawn(work, name="inner")
    outer = await supervisor.spawn(work, name="outer")
    hint = "which lives in another supervisor; only siblings are restarted together"
    assert await refusal(supervisor.spawn, work, name="a", depends_on=[outer, inner]) == (
        f"actor 'a' depends on 'child/inner', {hint}"
    )
    assert await refusal(child.spawn, work, name="a", depends_on=outer) == f"actor 'a' depends on 'outer', {hint}"


async def test_an_actor_that_depends_on_itself(supervisor):
    with pytest.raises(CycleDetectedError) as caught:
        await supervisor.spawn(work, name="a", depends_on=["a"])
    assert str(caught.value) == "actor 'a' depends on itself"
    assert caught.value.cycle == ("a", "a")
    assert is_untouched(supervisor)


async def test_actors_that_would_depend_on_each_other(supervisor):
    first = await supervisor.spawn(work, name="a")
    await supervisor.spawn(work, name="b", depends_on=first)
    await supervisor.spawn(work, name="c", depends_on="b")
    await first.stop()
    with pytest.raises(CycleDetectedError) as caught:
        await supervisor.spawn(work, name="a", depends_on="c")
    assert str(caught.value) == "actors would depend on each other: a -> c -> b -> a"
    assert caught.value.cycle == ("a", "c", "b", "a")
    await supervisor.spawn(work, name="a")


# Child supervisors


async def test_what_is_no_child_supervisor(supervisor):
    used = Supervisor()
    async with used:
        message = await refusal(supervisor.spawn_supervisor, used, name="a")
    left = await refusal(supervisor.spawn_supervisor, used, name="a")
    itself = await refusal(supervisor.spawn_supervisor, supervisor, name="a")
    for told, shown in ((message, used), (left, used), (itself, supervisor)):
        assert told == (
            f"supervisor must be a Supervisor that was never opened, not {shown!r}; "
            "write spawn_supervisor(Supervisor(), name='...')"
        )
    for bad in (None, Supervisor, "child"):
        assert f"never opened, not {bad!r}" in await refusal(supervisor.spawn_supervisor, bad, name="a")
    assert is_untouched(supervisor)


async def test_a_child_supervisor_has_one_parent_and_is_opened_by_it(supervisor):
    child = await supervisor.spawn_supervisor(Supervisor(), name="child")
    assert "never opened" in await refusal(supervisor.spawn_supervisor, child, name="again")
    with pytest.raises(RuntimeError) as caught:
        async with child:
            pass
    assert str(caught.value) == ("another supervisor opens and closes this one; use it as it is, without `async with`")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "one_for_one "}, "scope must be one of one_for_one, dependents, one_for_all, rest_for_one"),
        ({"scope": None}, "scope must be one of one_for_one, dependents, one_for_all, rest_for_one, not None"),
        ({"intensity": None}, "intensity must be an Intensity, not None; write intensity=Intensity(3, within=5)"),
        ({"intensity": 3}, "intensity must be an Intensity, not 3; write intensity=Intensity(3, within=5)"),
    ],
)
def test_options_of_a_supervisor_that_are_refused(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        Supervisor(**options)
    assert str(caught.value).startswith(message)


def test_windows_of_nothing():
    """A window in which nothing can fit would never be exceeded."""
    with pytest.raises(PipelineValidationError, match=r"^within must be a positive number of seconds, not 0$"):
        Intensity(3, within=0)
    with pytest.raises(PipelineValidationError, match=r"can never be exceeded"):
        Restart(max_restarts=3, within=1.0, backoff=Backoff(initial=2.0, jitter=0.0))
