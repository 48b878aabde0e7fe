"""Asking a resident actor: the five ways in which it ends, what a reply is, and what an asker may be."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from stageflow_actors import (
    AskTimeoutError,
    Directive,
    Intensity,
    Mailbox,
    Restart,
    StageOutput,
    StageStatus,
    Supervisor,
)
from stageflow_actors.errors import (
    ActorDeadError,
    ActorError,
    ActorUnavailableError,
    MailboxFullError,
    NotFreezableError,
    NurseryLeftOpenError,
    OverloadedError,
    StageflowError,
    StageReturnTypeError,
)
from stageflow_actors.statistics import ActorLedger

OFTEN = Intensity(100)


class CrashError(Exception):
    pass


@pytest.fixture
async def supervisor():
    async with Supervisor(intensity=OFTEN) as supervisor:
        yield supervisor


async def obey(ctx):
    """Do what the message says."""
    data = ctx.snapshot.data
    await trio.sleep(data.get("takes", 0))
    if "crash" in data:
        raise CrashError(data["crash"])
    return {"attempt": ctx.attempt}


async def get_busy(ref, seconds):
    ref.tell_nowait({"takes": seconds})
    await trio.testing.wait_all_tasks_blocked()


# The five ways


async def test_the_reply(supervisor):
    ref = await supervisor.spawn(obey, name="a")
    output = await ref.ask({"x": 1})
    assert output == StageOutput.ok({"attempt": 1})
    assert supervisor.ledger == ActorLedger(accepted=1, replied=1)


async def test_what_the_stage_raised(supervisor):
    """The very exception, as the stage raised it."""
    errors = []

    async def fail(ctx):
        errors.append(CrashError(1))
        raise errors[-1]

    ref = await supervisor.spawn(fail, name="a")
    with pytest.raises(CrashError) as caught:
        await ref.ask()
    assert caught.value is errors[0]
    assert caught.traceback[-1].name == "fail"
    assert caught.value.__context__ is None
    assert supervisor.ledger == ActorLedger(accepted=1, failed=1)
    with pytest.raises(CrashError):
        await ref.ask()


async def test_a_timeout_before_it_was_begun_with(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a")
    await get_busy(ref, 10)
    with pytest.raises(AskTimeoutError) as caught:
        await ref.ask({"crash": 1}, timeout=2)
    assert trio.current_time() == 2
    assert str(caught.value) == (
        "actor 'a': it did not answer within 2 s; it had not begun with the message, which was withdrawn"
    )
    assert (caught.value.actor, caught.value.seconds, caught.value.stage) == ("a", 2, None)
    await trio.sleep(20)
    assert supervisor.ledger == ActorLedger(accepted=2, replied=1, cancelled=1)


async def test_a_timeout_while_it_waited_for_room(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", mailbox=Mailbox(0))
    await get_busy(ref, 10)
    with pytest.raises(AskTimeoutError, match="it had not begun with the message, which was withdrawn"):
        await ref.ask({"crash": 1}, timeout=2)
    await trio.sleep(20)
    assert supervisor.ledger == ActorLedger(accepted=1, replied=1)


async def test_a_timeout_while_it_was_handled(supervisor, autojump_clock):
    """The actor goes on with it; what it replies is a dead letter."""
    letters = supervisor.dead_letters()
    ref = await supervisor.spawn(obey, name="a")
    await ref.ask({"takes": 3})
    await ref.ask({"takes": 4})
    assert trio.current_time() == 7
    with pytest.raises(AskTimeoutError) as caught:
        await ref.ask({"takes": 6, "name": "late"})
    assert str(caught.value) == "actor 'a': it did not answer within 5 s; it has begun with the message"
    assert trio.current_time() == 12
    await ref.ask()
    assert trio.current_time() == 13
    letter = await anext(letters)
    assert (letter.reason, letter.snapshot.data["name"]) == ("late_reply", "late")
    assert supervisor.ledger == ActorLedger(accepted=4, replied=4, late_reply=1)


async def test_it_was_dead_already(supervisor):
    ref = await supervisor.spawn(obey, name="a")
    await ref.stop()
    with pytest.raises(ActorDeadError) as caught:
        await ref.ask()
    assert str(caught.value) == "actor 'a': it was stopped; the message was not handled"
    assert supervisor.ledger == ActorLedger(no_recipient=1)


async def test_it_had_died_of_an_error(supervisor):
    ref = await supervisor.spawn(obey, name="a", policy="temporary")
    with pytest.raises(CrashError):
        await ref.ask({"crash": "early"})
    with pytest.raises(ActorDeadError) as caught:
        await ref.ask()
    assert str(caught.value) == "actor 'a': it ended with CrashError: early; the message was not handled"


@pytest.mark.parametrize("bound", [0, 1])
async def test_it_died_before_it_began_with_the_message(supervisor, bound, autojump_clock):
    """The message was queued, or its asker waited for room."""
    ref = await supervisor.spawn(obey, name="a", policy="temporary", mailbox=Mailbox(bound))
    ref.tell_nowait({"takes": 1, "crash": "early"})
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(ActorDeadError, match="it ended with CrashError: early; the message was not handled"):
        await ref.ask()
    assert supervisor.ledger == ActorLedger(accepted=1 + bound, failed=1, stopped=bound, no_recipient=1 - bound)


async def test_it_was_stopped_while_it_handled_the_message(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", shutdown=2)
    async with trio.open_nursery() as nursery:

        async def ask():
            with pytest.raises(ActorUnavailableError) as caught:
                await ref.ask({"takes": 1e3}, timeout=None)
            assert trio.current_time() == 2
            assert str(caught.value) == (
                "actor 'a': it was stopped while it handled the message, which it may have done in part"
            )

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await ref.stop()
    assert supervisor.ledger == ActorLedger(accepted=1, cancelled=1)


async def test_it_was_restarted_while_it_handled_the_message(supervisor, autojump_clock):
    ref = await supervisor.spawn(obey, name="a", shutdown=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(later, 1, ref.restart)
        with pytest.raises(ActorUnavailableError) as caught:
            await ref.ask({"takes": 1e3}, timeout=None)
    assert trio.current_time() == 3
    assert caught.value.hint == "idempotent=True and max_deliveries have such a message delivered again"
    assert (await ref.ask()).data == {"attempt": 1}


async def later(seconds, function):
    await trio.sleep(seconds)
    await function()


def test_the_errors_are_of_one_family():
    for kind in (AskTimeoutError, ActorDeadError, ActorUnavailableError):
        assert issubclass(kind, ActorError)
    assert issubclass(AskTimeoutError, TimeoutError)
    assert issubclass(MailboxFullError, OverloadedError)
    assert issubclass(ActorError, StageflowError)


# What a reply is


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (None, StageStatus.OK),
        ({"x": 1}, StageStatus.OK),
        (StageOutput.ok({"x": 1}), StageStatus.OK),
        (StageOutput.skip("not today"), StageStatus.SKIP),
        (StageOutput.fail("no"), StageStatus.FAIL),
        (StageOutput.retry("again"), StageStatus.RETRY),
        (StageOutput.cancel("enough"), StageStatus.CANCEL),
        (StageOutput.route("left"), StageStatus.OK),
    ],
)
async def test_whatever_it_returns_is_a_reply(supervisor, returned, status):
    """Nothing is restarted, nothing ends."""

    async def work(_ctx):
        return returned

    ref = await supervisor.spawn(work, name="a", policy="temporary")
    output = await ref.ask()
    assert output.status is status
    if isinstance(returned, StageOutput):
        assert output == returned
    assert ref.statistics().restarts == 0
    assert supervisor.ledger == ActorLedger(accepted=1, replied=1)
    assert await ref.ask() == output


@pytest.mark.parametrize(
    ("returned", "kind", "problem"),
    [
        (
            5,
            StageReturnTypeError,
            "actor 'a': it returned 5, of type int; return StageOutput.ok(...), a mapping or None",
        ),
        ({"x": {1: {2}, "y": object}}, None, None),
    ],
)
async def test_a_reply_that_is_none(supervisor, returned, kind, problem):
    async def work(_ctx):
        return returned

    ref = await supervisor.spawn(work, name="a", max_deliveries=3, idempotent=True)
    if kind is None:
        assert (await ref.ask()).status is StageStatus.OK
        return
    with pytest.raises(kind) as caught:
        await ref.ask()
    assert str(caught.value) == problem
    assert supervisor.ledger == ActorLedger(accepted=1, failed=1)  # it would be the same the next time


async def test_a_reply_that_cannot_be_frozen(supervisor):
    async def work(_ctx):
        rows = []
        rows.append(rows)
        return {"rows": rows}

    ref = await supervisor.spawn(work, name="a")
    with pytest.raises(NotFreezableError) as caught:
        await ref.ask()
    assert caught.value.actor == "a"


async def test_a_nursery_left_open(supervisor):
    async def work(_ctx):
        await trio.open_nursery().__aenter__()

    ref = await supervisor.spawn(work, name="a")
    for _ in range(2):
        with pytest.raises(NurseryLeftOpenError) as caught:
            await ref.ask()
        assert caught.value.actor == "a"


async def test_resume_fails_the_asker_and_nothing_else(supervisor):
    class Work:
        def __init__(self):
            self.seen = 0

        async def execute(self, ctx):
            self.seen += 1
            if ctx.snapshot.data.get("crash"):
                raise CrashError
            return {"seen": self.seen}

    resume = Restart(decide=lambda error: Directive.RESUME)
    ref = await supervisor.spawn(Work, name="a", restart=resume, max_deliveries=3, idempotent=True)
    with pytest.raises(CrashError):
        await ref.ask({"crash": True})
    assert (await ref.ask()).data == {"seen": 2}
    assert ref.statistics().restarts == 0
    assert supervisor.ledger == ActorLedger(accepted=2, replied=1, failed=1)


async def test_an_exception_that_is_none_ends_the_supervisor_and_its_asker_hears_of_it(autojump_clock):
    async def work(_ctx):
        raise SystemExit(3)

    told = []

    async def ask(ref):
        with pytest.raises(ActorUnavailableError) as caught:
            await ref.ask()
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        with pytest.raises(SystemExit):
            async with Supervisor() as supervisor:
                ref = await supervisor.spawn(work, name="a", max_deliveries=3, idempotent=True)
                nursery.start_soon(ask, ref)
                await trio.sleep_forever()
    assert told == ["actor 'a': it ended with SystemExit: 3"]
    assert supervisor.ledger == ActorLedger(accepted=1, failed=1)
