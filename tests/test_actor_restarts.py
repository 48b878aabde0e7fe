"""The restart policy of an actor: on what, when, how often, and what it says instead."""

from __future__ import annotations

import contextvars

import pytest
import trio
import trio.testing
from actor_cases import ESCALATE, MANY, POLICIES, SCOPES, CrashError, Diary, later, name_of, send, spawn_all

from stageflow_actors import Backoff, Directive, Intensity, PipelineValidationError, Restart, Supervisor, events
from stageflow_actors.errors import ActorDeadError, RestartIntensityError, StageReturnTypeError

KEPT = contextvars.ContextVar("KEPT", default="nothing")


def answer(directive):
    return lambda error: directive


async def live(policy, restart, *, crashes=1, gap=0.0, intensity=MANY, **options):
    """Have one actor crash; return what the diary says, why the actor and why the supervisor ended."""
    diary = Diary()
    ended = failed = None
    try:
        async with Supervisor(intensity=intensity, **options) as supervisor:
            refs = await spawn_all(supervisor, diary, a={"policy": policy, "restart": restart}, b={})
            for _ in range(crashes):
                if isinstance(await send(refs["a"], "crash", after=gap), ActorDeadError):
                    break
            await trio.sleep(1000)
            if refs["a"].statistics().workers == 0:
                ended = await refs["a"].wait_stopped()
            lines = diary.take_timed()
    except Exception as error:
        lines, failed = diary.take_timed(), error
    return lines, ended, failed


# On what


@pytest.mark.parametrize(
    ("on", "restarts"),
    [
        (Exception, True),
        (CrashError, True),
        ((OSError, CrashError), True),
        (OSError, False),
        (lambda error: isinstance(error, CrashError), True),
        (lambda error: False, False),
    ],
)
@pytest.mark.parametrize("policy", ["permanent", "transient"])
async def test_it_is_restarted_on_what_is_listed(policy, on, restarts, autojump_clock):
    """What is not ends it and, where it is permanent, its supervisor: with the error itself."""
    lines, ended, failed = await live(policy, Restart(on=on, backoff=Backoff(initial=0.0)))
    if restarts:
        assert lines == [(0.0, "a1 down"), (0.0, "a2 up")]
        assert (ended, failed) == (None, None)
    elif policy == "permanent":
        assert lines == [(0.0, "a1 down"), (0.0, "b1 down")]
        assert type(failed) is CrashError
    else:
        assert lines == [(0.0, "a1 down")]
        assert type(ended) is CrashError


def aborting(error):
    raise SystemExit(3)


def broken(error):
    raise LookupError("odd")


@pytest.mark.parametrize("function", ["on", "decide"])
@pytest.mark.parametrize("policy", ["permanent", "transient"])
async def test_a_policy_that_raises_is_the_error_that_it_ends_with(policy, function, autojump_clock):
    _, ended, failed = await live(policy, Restart(**{function: broken}))
    error = failed if policy == "permanent" else ended
    assert type(error) is LookupError
    assert type(error.__context__) is CrashError


@pytest.mark.parametrize("function", ["on", "decide"])
async def test_a_policy_that_exits_ends_the_program(function, autojump_clock):
    with pytest.raises(SystemExit):
        await live("transient", Restart(**{function: aborting}))


async def test_a_decision_that_is_none_ends_it(autojump_clock):
    _, ended, _ = await live("transient", Restart(decide=answer("again")))
    assert type(ended) is StageReturnTypeError
    assert "Directive.RESUME" in str(ended)


async def test_a_policy_is_asked_in_the_context_that_the_actor_was_spawned_in(autojump_clock):
    seen = []

    def decide(error):
        seen.append(KEPT.get())
        return Directive.RESTART

    async def run(ctx):
        KEPT.set("by the handler")
        raise CrashError

    KEPT.set("by the spawner")
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(run, name="a", restart=Restart(decide=decide))
        KEPT.set("by the asker")
        await send(ref)
        assert seen == ["by the spawner"]


def test_a_temporary_actor_has_no_policy():
    async def spawn():
        async with Supervisor() as supervisor:
            with pytest.raises(PipelineValidationError, match="has a restart policy, and is temporary"):
                await supervisor.spawn(Diary().stage("a"), name="a", policy="temporary", restart=Restart())

    trio.run(spawn)


# When


@pytest.mark.parametrize(
    ("backoff", "chance", "delays"),
    [
        (Backoff(), 1.0, [0.1, 0.2, 0.4]),
        (Backoff(), 0.0, [0.05, 0.1, 0.2]),
        (Backoff(jitter=0.0), 0.3, [0.1, 0.2, 0.4]),
        (Backoff(initial=3, factor=10, maximum=100, jitter=0), 0.5, [3, 30, 100]),
        (Backoff(initial=0), 1.0, [0.0, 0.0, 0.0]),
    ],
)
async def test_delays_grow_as_the_backoff_says(backoff, chance, delays, autojump_clock):
    restart = Restart(max_restarts=3, backoff=backoff)
    lines, _, _ = await live("transient", restart, crashes=3, gap=2.0, random=lambda: chance)
    at, expected = 0.0, []
    for number, delay in enumerate(delays, start=1):
        at += 2.0
        expected.append((pytest.approx(at), f"a{number} down"))
        at += delay
        expected.append((pytest.approx(at), f"a{number + 1} up"))
    assert lines == expected


async def test_delays_start_anew_when_failures_have_left_the_window(autojump_clock):
    restart = Restart(max_restarts=2, within=4.0, backoff=Backoff(initial=1.0, factor=2.0, jitter=0.0))
    lines, _, _ = await live("transient", restart, crashes=4, gap=3.0)
    ups = [at for at, line in lines if line.endswith("up")]
    # The second failure is 4 s after the first, which still counts; the third 5 s after the second.
    assert ups == [4.0, 9.0, 13.0, 18.0]


# How often


@pytest.mark.parametrize("policy", ["permanent", "transient"])
@pytest.mark.parametrize("most", [0, 1, 3])
async def test_restarts_are_spent(policy, most, autojump_clock):
    lines, ended, failed = await live(policy, later(0.0, max_restarts=most), crashes=10)
    error = failed if policy == "permanent" else ended
    assert type(error) is RestartIntensityError
    assert type(error.__cause__) is CrashError
    assert (error.max_restarts, error.within, error.actor) == (most, None, "a")
    assert str(error).startswith(f"actor 'a': it failed {most + 1} time")
    assert [line for _, line in lines if line.endswith("up")] == [f"a{number} up" for number in range(2, most + 2)]


@pytest.mark.parametrize(("within", "survives"), [(2.0, False), (1.75, True)])
async def test_the_window_of_an_actor_slides(within, survives, autojump_clock):
    """A failure exactly so long ago counts."""
    restart = Restart(max_restarts=1, within=within, backoff=Backoff(initial=1.0, factor=1.0, maximum=1.0, jitter=0.0))
    lines, ended, _ = await live("transient", restart, crashes=5, gap=1.0)
    assert (ended is None) is survives
    assert len([line for _, line in lines if line.endswith("up")]) == (5 if survives else 1)


@pytest.mark.parametrize(("within", "survives"), [(2.0, False), (1.75, True)])
@pytest.mark.parametrize("ending", ["crash", "stop"])
async def test_the_window_of_a_supervisor_slides(ending, within, survives, autojump_clock):
    """Whoever is restarted: also an actor that has ended normally, and is permanent."""
    diary = Diary()
    error = None
    try:
        async with Supervisor(intensity=Intensity(1, within=within)) as supervisor:
            refs = await spawn_all(supervisor, diary, a={"policy": "permanent"}, b={"policy": "permanent"})
            for name in "abab":
                await trio.sleep(2)
                await send(refs[name], ending)
            await trio.testing.wait_all_tasks_blocked()
    except RestartIntensityError as raised:
        error = raised
    assert (error is None) is survives
    if error is not None:
        assert (error.max_restarts, error.within) == (1, 2.0)
        assert error.actor is None
        shown = "failed with CrashError" if ending == "crash" else "ended by itself"
        assert str(error).startswith(f"the supervisor has had 1 restart within 2 s, and actor 'b' {shown}")


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_restart_of_several_counts_as_one(scope, autojump_clock):
    diary = Diary()
    async with Supervisor(scope=scope, intensity=Intensity(2)) as supervisor:
        refs = await spawn_all(supervisor, diary, a={}, b={"depends_on": "a"}, c={"depends_on": "b"})
        for _ in range(2):
            await send(refs["a"], "crash")
            await trio.testing.wait_all_tasks_blocked()
        assert await name_of(refs["a"]) == "a3"


async def test_restarts_that_are_asked_for_count_for_nothing(autojump_clock):
    diary = Diary()
    async with Supervisor(intensity=Intensity(0)) as supervisor:
        refs = await spawn_all(supervisor, diary, a={"restart": later(100.0, max_restarts=0)})
        for _ in range(5):
            await refs["a"].restart()
        assert await name_of(refs["a"]) == "a6"
        assert refs["a"].statistics().restarts == 5
        assert trio.current_time() == diary.began


@pytest.mark.parametrize("policy", ["permanent", "transient"])
async def test_an_actor_that_gives_up_costs_its_supervisor_nothing(policy, autojump_clock):
    """What is not restarted is no restart."""
    _, ended, failed = await live(policy, later(0.0, max_restarts=0), intensity=Intensity(0))
    error = failed if policy == "permanent" else ended
    assert error.actor == "a"


# What it says instead


@pytest.mark.parametrize("policy", ["permanent", "transient"])
@pytest.mark.parametrize("directive", list(Directive))
async def test_a_policy_decides(directive, policy, autojump_clock):
    decide = answer(directive)
    lines, ended, failed = await live(policy, Restart(decide=decide, backoff=Backoff(initial=0.0)))
    said = [line for _, line in lines]
    if directive is Directive.RESUME:
        assert (said, ended, failed) == ([], None, None)
    elif directive is Directive.RESTART:
        assert (said, ended, failed) == (["a1 down", "a2 up"], None, None)
    elif directive is Directive.FAIL and policy == "transient":
        assert (said, type(ended), failed) == (["a1 down"], CrashError, None)
    else:
        assert (said, ended, type(failed)) == (["a1 down", "b1 down"], None, CrashError)


async def test_resume_keeps_the_instance_and_everything_else(autojump_clock):
    """However often, and whoever asks: no restart is counted, and what is queued is handled by the same."""
    diary = Diary()
    async with Supervisor(scope="one_for_all", intensity=Intensity(0)) as supervisor:
        resume = Restart(max_restarts=0, decide=answer(Directive.RESUME))
        refs = await spawn_all(supervisor, diary, a={"restart": resume}, b={})
        async with supervisor.events() as stream:
            for number in range(5):
                assert isinstance(await send(refs["a"], "crash", why=str(number)), CrashError)
            await refs["a"].tell({"do": "crash"})
            assert await name_of(refs["a"]) == "a1"
            assert [type(await anext(stream)) for _ in range(6)] == [events.ActorResumed] * 6
        assert diary.take() == []
        statistics = refs["a"].statistics()
        assert (statistics.restarts, statistics.ledger.failed, statistics.ledger.replied) == (0, 6, 1)


@pytest.mark.parametrize("policy", POLICIES)
async def test_what_a_stage_says_of_itself_is_no_failure(policy, autojump_clock):
    """The policy is not even asked."""
    diary = Diary()
    asked = []
    restart = None if policy == "temporary" else Restart(decide=asked.append)
    async with Supervisor(intensity=Intensity(0)) as supervisor:
        refs = await spawn_all(supervisor, diary, a={"policy": policy, "restart": restart})
        for what in ("fail", "cancel", "fail", None):
            await send(refs["a"], what)
        assert await name_of(refs["a"]) == "a1"
    assert asked == []


async def test_a_start_that_fails_asks_the_policy_too(autojump_clock):
    """One that may not be tried again ends the actor, with what the start raised."""
    diary = Diary()

    def decide(error):
        return Directive.FAIL if "does not start" in str(error) else Directive.RESTART

    async with Supervisor() as supervisor:
        restart = Restart(decide=decide, backoff=Backoff(initial=0.0))
        refs = await spawn_all(supervisor, diary, a={"restart": restart, "fails": {3}})
        for _ in range(2):
            await send(refs["a"], "crash")
        assert str(await refs["a"].wait_stopped()) == "a3 does not start"
        assert diary.take() == ["a1 down", "a2 up", "a2 down", "a3 fails"]


@pytest.mark.parametrize("scope", SCOPES)
async def test_escalation_ends_everything_in_order(scope, autojump_clock):
    """With the message in hand of others ended, as always."""
    diary = Diary()
    answers = []

    async def ask(ref):
        answers.append(await send(ref, after=3.0))

    raised = None
    async with trio.open_nursery() as nursery:
        try:
            async with Supervisor(scope=scope) as supervisor:
                refs = await spawn_all(supervisor, diary, a={}, b={"restart": ESCALATE}, c={"depends_on": "b"})
                nursery.start_soon(ask, refs["a"])
                await trio.sleep(1)
                await send(refs["b"], "crash")
                await trio.sleep_forever()
        except CrashError as error:
            raised = error
    assert raised is not None
    assert diary.take_timed() == [(1.0, "b1 down"), (1.0, "c1 down"), (3.0, "a1 down")]
    assert answers[0].data == {"by": "a1"}
