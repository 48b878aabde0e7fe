"""What can go wrong over a message, and what is no `Exception` at any point of an actor's life."""

from __future__ import annotations

import signal
from functools import partial

import pytest
import trio
import trio.lowlevel
import trio.testing
from actor_cases import MANY, CrashError, Diary, send, spawn_all

from stageflow_actors import Directive, Restart, StageOutput, Supervisor
from stageflow_actors.errors import (
    ActorStartError,
    ActorUnavailableError,
    NurseryLeftOpenError,
    StageReturnTypeError,
    StrayCancelledError,
)


class Abort(BaseException):
    """What is no `Exception`."""


# Handlers


async def leave_nursery_open(ctx):
    nursery = await trio.open_nursery().__aenter__()
    nursery.start_soon(trio.sleep_forever)


async def raise_stray(ctx):
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            kept = cancelled
    raise kept


async def return_nonsense(ctx):
    return 3


async def fail_in_a_nursery(ctx):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise CrashError


def crash_in_a_thread(ctx):
    raise CrashError


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (leave_nursery_open, NurseryLeftOpenError),
        (raise_stray, StrayCancelledError),
        (return_nonsense, StageReturnTypeError),
        (fail_in_a_nursery, ExceptionGroup),
        (crash_in_a_thread, CrashError),
    ],
)
async def test_a_handler_that_goes_wrong_fails_its_asker_and_is_restarted(handler, error, autojump_clock):
    made = []

    class Stage:
        def __init__(self):
            made.append(self)

        async def execute(self, ctx):
            if ctx.snapshot.data.get("ok"):
                return {"by": made.index(self)}
            return await handler(ctx)

    runner = handler if handler is crash_in_a_thread else Stage
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(runner, name="a")
        answer = await send(ref)
        assert type(answer) is error
        if isinstance(answer, NurseryLeftOpenError):
            assert answer.actor == "a"
        await trio.testing.wait_all_tasks_blocked()
        statistics = ref.statistics()
        assert (statistics.workers, statistics.restarts, statistics.ledger.failed) == (1, 1, 1)
        if runner is Stage:
            assert (await ref.ask({"ok": True})).data == {"by": 1}


async def test_what_a_nursery_that_was_left_open_ran_is_over_before_the_restart(autojump_clock):
    lines = []

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            lines.append("child is over")

    class Stage:
        def __init__(self):
            lines.append("made")

        async def execute(self, ctx):
            (await trio.open_nursery().__aenter__()).start_soon(child)
            await trio.sleep(1)

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Stage, name="a")
        assert isinstance(await send(ref), NurseryLeftOpenError)
        await trio.sleep(2)
        assert lines == ["made", "child is over", "made"]


async def test_a_handler_that_is_cut_off_and_fails_in_its_cleanup(autojump_clock):
    """Its asker hears of it, and nobody is restarted: it was to end."""
    diary = Diary()

    async def run(ctx):
        try:
            await trio.sleep_forever()
        finally:
            raise CrashError

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        await spawn_all(supervisor, diary, b={})
        ref = await supervisor.spawn(run, name="a", shutdown=2.0)
        answers = []

        async def ask():
            answers.append(await send(ref))

        nursery.start_soon(ask)
        await trio.sleep(1)
        await ref.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - diary.began == 3.0
        assert isinstance(answers[0], (CrashError, ActorUnavailableError))
        assert await ref.wait_stopped() is None
        assert ref.statistics().restarts == 0


# What is no Exception


class Special:
    """Raises what is no `Exception` at one point of its life."""

    def __init__(self, where, error):
        self.where = where
        self.error = error
        self.touch("init")

    def touch(self, where):
        if self.where == where:
            raise self.error

    async def __aenter__(self):
        self.touch("enter")
        self.manager = trio.open_nursery()
        (await self.manager.__aenter__()).start_soon(self.keep)

    async def keep(self):
        await trio.sleep(1.5)
        self.touch("kept")

    async def __aexit__(self, *exc):
        try:
            self.touch("exit")
        finally:
            self.manager._nursery.cancel_scope.cancel()
            await self.manager.__aexit__(*exc)

    async def execute(self, ctx):
        await trio.sleep(1)
        self.touch("execute")
        if self.where == "group":
            raise BaseExceptionGroup("several", [CrashError(), self.error])
        if self.where == "exit":
            ctx.stop()
        await trio.sleep(1)


def leaves_of(error):
    while isinstance(error, BaseExceptionGroup):
        error = next(one for one in error.exceptions if not isinstance(one, CrashError))
    return error


@pytest.mark.parametrize("where", ["init", "enter", "kept", "exit", "execute", "group"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Abort])
@pytest.mark.parametrize("policy", ["permanent", "transient", "temporary"])
async def test_what_is_no_exception_ends_the_supervisor_and_propagates(policy, kind, where, autojump_clock):
    diary = Diary()
    error = kind("now")
    answers = []

    async def ask(ref):
        answers.append(await send(ref))

    raised = None
    async with trio.open_nursery() as nursery:
        try:
            async with Supervisor(intensity=MANY) as supervisor:
                await spawn_all(supervisor, diary, a={}, b={})
                spawn = partial(supervisor.spawn, partial(Special, where, error), name="s", policy=policy)
                if where in {"init", "enter"}:
                    with pytest.raises(ActorStartError) as refused:
                        await spawn()
                    assert refused.value.__cause__ is error
                else:
                    nursery.start_soon(ask, await spawn())
                await trio.sleep_forever()
        except BaseException as caught:
            raised = caught
    assert leaves_of(raised) is error
    assert diary.take() == ["b1 down", "a1 down"]
    expected = {"init": [], "enter": [], "exit": [StageOutput]}
    assert [type(answer) for answer in answers] == expected.get(where, [ActorUnavailableError])
    assert supervisor.ledger.balanced


@pytest.mark.parametrize("way", ["stop", "restart"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, Abort])
async def test_what_is_no_exception_is_not_lost_while_the_actor_is_told_to_end(kind, way, autojump_clock):
    diary = Diary()
    error = kind("now")

    async def run(ctx):
        await trio.sleep(1)
        raise error

    raised = None
    try:
        async with Supervisor(intensity=MANY) as supervisor:
            await spawn_all(supervisor, diary, a={})
            ref = await supervisor.spawn(run, name="s")
            await ref.tell()
            await trio.testing.wait_all_tasks_blocked()
            await (ref.stop() if way == "stop" else ref.restart())
            await trio.sleep_forever()
    except BaseException as caught:
        raised = caught
    assert raised is error
    assert diary.take() == ["a1 down"]


async def test_an_interrupt_that_comes_in_a_handler(autojump_clock):
    diary = Diary()

    async def run(ctx):
        signal.raise_signal(signal.SIGINT)
        await trio.sleep(1)

    answer = None
    with pytest.raises(KeyboardInterrupt):
        async with Supervisor() as supervisor:
            await spawn_all(supervisor, diary, a={})
            answer = await send(await supervisor.spawn(run, name="s"))
            await trio.sleep_forever()
    assert isinstance(answer, ActorUnavailableError)
    assert diary.take_timed() == [(0.0, "a1 down")]


async def test_of_an_exception_and_what_is_none_the_latter_comes_out(autojump_clock):
    """One of them has ended the supervisor, and the other comes while the actors are stopped."""
    error = KeyboardInterrupt()

    class Late:
        async def __aenter__(self):
            pass

        async def __aexit__(self, *exc):
            raise error

        async def execute(self, ctx):
            pass

    async def escalate(ctx):
        raise CrashError

    with pytest.raises(KeyboardInterrupt) as caught:
        async with Supervisor() as supervisor:
            await supervisor.spawn(Late, name="a")
            ref = await supervisor.spawn(escalate, name="b", restart=Restart(decide=lambda _: Directive.ESCALATE))
            await send(ref)
            await trio.sleep_forever()
    assert caught.value is error
