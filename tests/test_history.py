"""What a history records: who asked for what, what came of it, and which of that is known."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from actor_cases import CrashError, obey

from stageflow_actors import ContextSnapshot, Mailbox, Pipeline, PipelineValidationError, StageOutput, Supervisor
from stageflow_actors.errors import ActorDeadError, ActorUnavailableError, AskTimeoutError, MailboxFullError
from stageflow_actors.testing import History, Operation


@pytest.fixture
def history():
    return History()


def told(history):
    """Return the operations in a line each."""
    return [f"{each.client}: {each}" for each in history.operations]


async def echo(ctx):
    return {"got": ctx.snapshot.data["send"]} if "send" in ctx.snapshot.data else None


# Actors


async def test_an_ask_is_recorded_with_its_message_and_its_output(history):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(echo, name="echo"), client="ann")
        output = await ref.ask({"send": [1]})
        await ref.ask(ContextSnapshot(data={"send": 2}), timeout=None)
        await ref.ask()
    first, second, third = history.operations
    assert first == Operation("ann", {"send": (1,)}, output, invoked=1, returned=2)
    assert second == Operation("ann", {"send": 2}, StageOutput.ok(got=2), invoked=3, returned=4)
    assert third == Operation("ann", {}, StageOutput.ok(), invoked=5, returned=6)
    assert told(history) == ["ann: send=(1,) -> {'got': (1,)}", "ann: send=2 -> {'got': 2}", "ann: {} -> {}"]
    assert not first.pending
    assert len(history) == 3


async def test_a_recorded_actor_is_the_actor_beside(history):
    async with Supervisor() as supervisor:
        actor = await supervisor.spawn(echo, name="echo")
        ref = history.record(actor)
        assert (ref.name, ref.kind, ref.statistics()) == ("echo", actor.kind, actor.statistics())
        assert repr(ref) == f"<recorded {actor!r}>"
        await ref.stop()
        assert await ref.wait_stopped() is None
        with pytest.raises(AttributeError):
            ref.nothing  # noqa: B018
    assert history.operations == ()


async def test_a_stage_that_is_a_recorded_actor_is_recorded(history):
    async def fail(ctx):
        raise CrashError(ctx.stage_name)

    async with Supervisor() as supervisor:
        for runner in (echo, fail):
            ref = history.record(await supervisor.spawn(runner, name=runner.__name__), client="run")
            pipeline = Pipeline("p").with_stage("ask", ref)
            result = await supervisor.run(pipeline, {"send": 1}, continue_on_failure=True)
            assert result.ok == (runner is echo)
    assert told(history) == ["run: send=1 -> {'got': 1}", "run: send=1 -> ?"]


async def test_clients_are_called_by_their_tasks(history):
    async def ask(ref):
        await ref.ask()

    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(echo, name="echo"))
        for name in ("bob", "ann", "bob"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, ref, name=name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ref)
    assert [each.client for each in history.operations] == ["bob", "ann", "bob#2", "ask"]


async def test_a_task_keeps_its_name(history):
    for _ in range(2):
        with history.operation("look"):
            pass
    first, second = history.operations
    assert first.client == second.client != ""


def test_outside_of_trio_there_is_one_client(history):
    with history.operation("look"):
        pass
    assert told(history) == ["main: look() -> None"]


async def test_operations_overlap_as_they_did(history, autojump_clock):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it", pool=2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ref.ask, {"after": 3.0}), name="long")
            nursery.start_soon(partial(ref.ask, {"after": 1.0}), name="short")
            await trio.sleep(2)
            await ref.ask({"after": 0.5})
    seen = {each.call["after"]: each for each in history.operations}
    assert seen[1.0].returned < seen[0.5].invoked < seen[0.5].returned < seen[3.0].returned
    assert seen[3.0].invoked == seen[1.0].invoked < seen[1.0].returned


async def test_what_has_not_returned_yet_is_pending(history):
    with history.operation("look") as operation:
        assert told(history)[0].endswith("look() -> ?")
        assert repr(operation) == "<operation look() -> ?>"
        operation.result = 3
        assert history.operations[0].result is None
    assert history.operations[0].result == 3


# What nobody knows


async def test_an_ask_that_runs_into_its_timeout_is_pending(history, autojump_clock):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it"), client="ann")
        with pytest.raises(AskTimeoutError):
            await ref.ask({"after": 2.0}, timeout=1.0)
    assert told(history) == ["ann: after=2.0 -> ?"]
    assert history.operations[0].pending


async def test_an_ask_that_is_cancelled_is_pending(history, autojump_clock):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it"), client="ann")
        with trio.move_on_after(1.0):
            await ref.ask({"after": 2.0})
    assert told(history) == ["ann: after=2.0 -> ?"]


async def test_an_ask_that_the_stage_fails_over_is_pending(history):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it"), client="ann")
        with pytest.raises(CrashError):
            await ref.ask({"do": "crash"})
    assert told(history) == ["ann: do='crash' -> ?"]


async def test_an_ask_of_an_actor_that_is_stopped_is_pending_if_it_was_begun_with(history, autojump_clock):
    async def ask(ref, after, error):
        with pytest.raises(error):
            await ref.ask({"after": after}, timeout=None)

    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it", shutdown=1.0), client="ann")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ref, 5.0, ActorUnavailableError)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, ref, 6.0, ActorDeadError)
            await trio.testing.wait_all_tasks_blocked()
            await ref.stop()
        with pytest.raises(ActorDeadError):
            await ref.ask({"after": 7.0})
    assert told(history) == ["ann: after=5.0 -> ?"]


async def test_an_ask_that_was_not_accepted_is_left_out(history, autojump_clock):
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(obey, name="it", mailbox=Mailbox(0, overflow="reject"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ref.ask, {"after": 1.0}))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(MailboxFullError):
                await history.record(ref).ask()
            with pytest.raises(MailboxFullError):
                await history.record(ref).tell()
            with pytest.raises(MailboxFullError):
                history.record(ref).tell_nowait()
    assert history.operations == ()


@pytest.mark.parametrize("error", [ActorDeadError, MailboxFullError])
async def test_the_death_of_another_actor_says_nothing(history, error):
    async def front(ctx):
        raise error("it has ended", actor="behind")

    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(front, name="front"), client="ann")
        with pytest.raises(error):
            await ref.ask()
    assert told(history) == ["ann: {} -> ?"]


async def test_an_ask_that_cannot_be_is_not_recorded(history):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(echo, name="echo"))
        with pytest.raises(PipelineValidationError, match="snapshot must be a ContextSnapshot or a mapping, not 3"):
            await ref.ask(3)
    assert history.operations == ()


async def test_tells_are_pending(history):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(echo, name="echo"), client="ann")
        await ref.tell({"send": 1})
        ref.tell_nowait({"send": 2})
    assert told(history) == ["ann: send=1 -> ?", "ann: send=2 -> ?"]


async def test_a_tell_that_sends_nothing_is_left_out(history, autojump_clock):
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it", mailbox=Mailbox(0)), client="ann")
        await ref.tell({"after": 2.0})
        with trio.move_on_after(1.0):
            await ref.tell({"after": 3.0})
        await ref.stop()
        with pytest.raises(ActorDeadError):
            await ref.tell({"after": 4.0})
    assert told(history) == ["ann: after=2.0 -> ?"]


# What somebody says they know


async def test_an_error_can_be_a_response():
    history = History(responses=CrashError)
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it"), client="ann")
        with pytest.raises(CrashError):
            await ref.ask({"do": "crash", "why": "so"})
    (operation,) = history.operations
    assert (operation.pending, operation.result) == (False, None)
    assert operation.error.args == ("so",)
    assert str(operation) == "do='crash', why='so' raises CrashError('so')"


async def test_an_error_can_mean_that_nothing_was_done():
    history = History(undone=[CrashError, KeyError])
    async with Supervisor() as supervisor:
        ref = history.record(await supervisor.spawn(obey, name="it"))
        with pytest.raises(CrashError):
            await ref.ask({"do": "crash"})
    with pytest.raises(KeyError), history.operation("look"):
        raise KeyError
    with pytest.raises(ValueError, match="odd"), history.operation("see"):
        raise ValueError("odd")
    assert [str(each) for each in history.operations] == ["see() -> ?"]


# Functions and blocks


async def test_a_call_is_recorded_with_its_arguments_and_its_result(history):
    async def add(number, more):
        await trio.lowlevel.checkpoint()
        return [number, *more]

    assert await history.call(add, 1, [2, 3], client="ann") == [1, 2, 3]
    assert history.operations == (Operation("ann", ("add", 1, (2, 3)), (1, 2, 3), invoked=1, returned=2),)
    assert await history.call(partial(add, 1), [2], name="add one", client="ann") == [1, 2]
    assert told(history) == ["ann: add(1, (2, 3)) -> (1, 2, 3)", "ann: add one((2,)) -> (1, 2)"]


async def test_a_call_that_raises_is_pending(history):
    async def fail():
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        await history.call(fail, client="ann")
    assert told(history) == ["ann: fail() -> ?"]


def test_what_is_recorded_does_not_change_any_more(history):
    items = [1]
    with history.operation("keep", items) as operation:
        operation.result = items
    items.append(2)
    assert str(history.operations[0]) == "keep((1,)) -> (1,)"


# As text


def test_it_is_drawn_with_a_line_for_each_operation(history):
    with history.operation("put", "a", 1, client="ann"):
        with history.operation("get", "a", client="bob") as inner:
            inner.result = 0
        with pytest.raises(KeyError), history.operation("get", "b", client="bob"):
            raise KeyError
    assert str(history).splitlines() == [
        "1 ann  |-----------|      put('a', 1) -> None",
        "2 bob  |---|              get('a') -> 0",
        "3 bob          |------->  get('b') -> ?",
    ]
    assert repr(history) == "<History of 3 operations>"


def test_an_empty_one_says_so(history):
    assert str(history) == "no operations"


def test_a_long_one_is_drawn_without_its_beginning(history):
    for number in range(100):
        with history.operation("put", number, client="ann"):
            pass
    lines = str(history).splitlines()
    assert lines[0] == "(40 operations before)"
    assert len(lines) == 61
    assert lines[1].startswith(" 41 ann  || ")
    assert lines[-1].endswith(" ||  put(99) -> None")
    assert max(map(len, lines)) < 100


def test_long_values_are_cut(history):
    with history.operation("put", "x" * 200, client="ann"):
        pass
    assert str(history) == f"1 ann  |---|      put('{'x' * 76}...) -> None"


def test_calls_of_another_kind_are_drawn_as_they_are():
    assert str(Operation("ann", 7, StageOutput.skip("no"), invoked=0, returned=1)) == "7 -> StageOutput.skip('no')"


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: History(responses=ValueError()), "responses must be types of exceptions, not ValueError()"),
        (lambda: History(undone=[KeyError, int]), "undone must be types of exceptions, not <class 'int'>"),
        (
            lambda: History().record(3),
            "only a reference to an actor can be recorded, not 3; record a function with call(...)",
        ),
        (lambda: History().operation("").__enter__(), "the name of an operation must be a non-empty string, not ''"),
        (lambda: History().operation("look", client=3).__enter__(), "a client must be a non-empty string, not 3"),
        (lambda: History().operation("look", client="").__enter__(), "a client must be a non-empty string, not ''"),
        (
            lambda: Operation("ann", ("look",), invoked=3, returned=2),
            "an operation cannot return at 2, before its invocation at 3",
        ),
    ],
)
def test_what_cannot_be_recorded_is_refused(make, message):
    with pytest.raises(PipelineValidationError) as caught:
        make()
    assert str(caught.value) == message


async def test_a_function_without_a_name_is_refused(history):
    with pytest.raises(PipelineValidationError, match=r"an operation needs a name, which functools.*say name=\.\.\.$"):
        await history.call(partial(echo, None))
    assert history.operations == ()


def test_arguments_that_cannot_be_frozen_are_refused(history):
    loop = []
    loop.append(loop)
    with (
        pytest.raises(PipelineValidationError, match="a call of look refers to itself"),
        history.operation("look", loop),
    ):
        pass
    with pytest.raises(PipelineValidationError, match="the result of look refers to itself"):  # noqa: SIM117
        with history.operation("look", client="ann") as operation:
            operation.result = loop
    assert told(history) == ["ann: look() -> ?"]
