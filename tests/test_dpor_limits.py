"""What partial order reduction cannot follow is named, and never certified by it: then every schedule is run."""

from __future__ import annotations

import array
import io
import os
import random
import socket
import threading
from contextvars import ContextVar, copy_context

import pytest
import trio
from race_cases import side_by_side
from trio.lowlevel import checkpoint

from stageflow_actors.testing import explore

NAME = "STAGEFLOW_ACTORS_TEST_DPOR_LIMITS"


def lose_an_update(get, put):
    """Return a program in which two tasks read, wait and write a number, by these functions."""

    async def update():
        put(0)

        async def add():
            seen = get()
            await checkpoint()
            put(seen + 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, name="one")
            nursery.start_soon(add, name="two")
        assert get() == 2

    return update


def keep_an_update(get, put):
    """Return the same program without the race."""

    async def update():
        put(0)

        async def add():
            await checkpoint()
            put(get() + 1)
            await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(add, name="one")
            nursery.start_soon(add, name="two")
        assert get() == 2

    return update


def in_random():
    """The module's generator: its seed is the number."""

    def get():
        state = random.getstate()
        value = SEEDED.index(random.random())
        random.setstate(state)
        return value

    return get, random.seed


SEEDED = [random.Random(seed).random() for seed in range(3)]


def in_environment():
    return lambda: int(os.environ[NAME]), lambda value: os.environ.__setitem__(NAME, str(value))


def in_file(path):
    return lambda: int(path.read_text()), lambda value: path.write_text(str(value))


def in_array():
    numbers = array.array("i", [0])
    return lambda: numbers[0], lambda value: numbers.__setitem__(0, value)


def in_thread_local():
    local = threading.local()
    return lambda: local.n, lambda value: setattr(local, "n", value)


NUMBER = ContextVar("NUMBER", default=0)


def in_context():
    context = copy_context()
    return lambda: context.run(NUMBER.get), lambda value: context.run(NUMBER.set, value)


def in_socket():
    """What has been sent and not yet received: a byte."""
    near, far = socket.socketpair()
    near.send(b"0")

    def get():
        value = far.recv(1)
        near.send(value)
        return int(value)

    def put(value):
        far.recv(1)
        near.send(str(value).encode())

    return get, put


def in_text():
    """A buffer in C."""
    text = io.StringIO()

    def put(value):
        text.seek(0)
        text.write(str(value))

    return lambda: int(text.getvalue()), put


STATES = {
    "os.environ": in_environment,
    "a file": None,
    "a buffer": in_text,
    "threading.local": in_thread_local,
    "a socket": in_socket,
}
NAMED = {
    "os.environ": "the module os",
    "a file": "pathlib",
    "a buffer": "_io.StringIO",
    "threading.local": "_thread._local",
    "a socket": "socket.socket",
}
"""What the report must name."""

FOLLOWED = {"random": in_random, "an array": in_array, "a context": in_context}
"""State that can be followed although it is in C."""


@pytest.fixture(params=STATES)
def state(request, tmp_path, monkeypatch):
    """Return the name of a state, and how it is read and written."""
    monkeypatch.setenv(NAME, "0")
    make = STATES[request.param]
    functions = in_file(tmp_path / "file") if make is None else make()
    yield request.param, functions
    for function in functions:
        for cell in function.__closure__ or ():
            if isinstance(cell.cell_contents, socket.socket):
                cell.cell_contents.close()


def test_a_race_in_untracked_state_is_found_all_the_same(state):
    """The reduction falls back to what `dfs` does."""
    _, functions = state
    report = explore(lose_an_update(*functions), strategy="dpor")
    assert isinstance(report.failure.error, AssertionError)
    assert report.failure.minimal
    assert report.untracked
    assert not report.complete


def test_untracked_state_is_not_certified_before_everything_was_run(state):
    name, functions = state
    program = keep_an_update(*functions)
    every = explore(program, strategy="dfs").executions
    assert every == 20
    for most in (1, 2, 10, 19, 20):
        report = explore(program, strategy="dpor", max_executions=most)
        assert report.failure is None
        assert not report.complete, most
        assert report.certificate is None
        assert any(NAMED[name] in one for one in report.untracked), report.untracked


def test_untracked_state_is_certified_when_everything_was_run(state):
    _, functions = state
    report = explore(keep_an_update(*functions), strategy="dpor", max_executions=1_000)
    assert report.complete
    assert report.certificate.method == "dfs"
    assert report.certificate.executions == 20
    assert report.untracked


def test_the_default_strategy_does_not_certify_it_either(state):
    _, functions = state
    report = explore(keep_an_update(*functions), max_executions=15)
    assert not report.complete
    report = explore(keep_an_update(*functions), max_executions=1_000)
    assert report.certificate.method == "dfs"


def test_the_report_names_what_is_not_tracked_and_says_what_was_run_instead(state):
    name, functions = state
    text = str(explore(keep_an_update(*functions), strategy="dpor", max_executions=15))
    assert text.startswith(
        "update: no failure in 15 executions: every schedule with at most 2 preemptions; without partial"
    )
    assert "without partial order reduction, which cannot follow " in text
    assert NAMED[name] in text.partition("cannot follow ")[2]
    assert "complete" not in text


@pytest.mark.parametrize("make", FOLLOWED.values(), ids=FOLLOWED)
def test_some_state_in_c_is_followed(make):
    report = explore(lose_an_update(*make()), strategy="dpor")
    assert isinstance(report.failure.error, AssertionError)
    assert report.untracked == ()
    report = explore(keep_an_update(*make()), strategy="dpor")
    assert report.certificate.method == "dpor"
    assert report.untracked == ()


def test_threads_are_not_controlled():
    async def program():
        done = []

        async def work():
            await trio.to_thread.run_sync(done.append, 1)

        await side_by_side(work, checkpoint)
        assert done == [1]

    report = explore(program, strategy="dpor", max_executions=50)
    assert report.failure is None
    assert not report.complete
    assert report.uncontrolled


def test_a_program_that_does_not_repeat_itself_is_not_certified():
    runs = []

    async def program():
        runs.append(None)
        steps = []

        async def step():
            steps.append(None)
            await checkpoint()

        await side_by_side(*[step] * (2 + len(runs) % 2))

    report = explore(program, strategy="dpor", max_executions=50)
    assert not report.complete


def test_where_somebody_had_to_be_given_their_turn_nothing_is_certified():
    """A loop that waits for a flag could go on for ever alone."""

    async def program():
        ready = False

        async def wait():
            while not ready:
                await checkpoint()

        async def tell():
            nonlocal ready
            await checkpoint()
            ready = True

        await side_by_side(wait, tell)

    report = explore(program, strategy="dpor", max_executions=300)
    assert report.failure is None
    assert not report.complete


def test_what_only_one_task_touches_need_not_be_tracked():
    async def program():
        async def draw():
            numbers = array.array("i", [1])
            await checkpoint()
            numbers.append(2)
            await checkpoint()
            assert numbers.tolist() == [1, 2]

        await side_by_side(draw, draw)

    report = explore(program, strategy="dpor")
    assert report.complete
    assert report.certificate.method in ("dpor", "dfs")
