"""What the tests of pykka share: stages, actors, and a look at what is left after each test."""

from __future__ import annotations

import sqlite3
import threading

import pykka
import pytest
import trio

from stageflow_actors import Pipeline

FOREVER = 60.0
"""Seconds that no test waits for, unless it fails."""


async def add_one(ctx):
    return {"n": ctx.snapshot.data["n"] + 1}


async def forever(ctx):
    await trio.sleep_forever()


def fail(ctx):
    raise OSError("disk full") from KeyError("sector")


adding = Pipeline("adding").with_stage("add", add_one)
endless = Pipeline("endless").with_stage("add", add_one).with_stage("wait", forever, dependencies="add")
failing = Pipeline("failing").with_stage("bad", fail)


class Keeper(pykka.ThreadingActor):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_receive(self, message):
        self.kept.append(message)


class Library(pykka.ThreadingActor):
    """Owns an SQLite handle, which no other thread may use."""

    def __init__(self, path=":memory:"):
        super().__init__()
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None)

    def on_start(self):
        self.db.execute("CREATE TABLE IF NOT EXISTS tracks (title TEXT)")

    def execute(self, ctx):
        title = ctx.snapshot.data.get("title")
        if title is not None:
            self.db.execute("INSERT INTO tracks VALUES (?)", (title,))
        if title == "noise":
            raise ValueError(title)
        (count,) = self.db.execute("SELECT count(*) FROM tracks").fetchone()
        return {"count": count, "thread": threading.get_ident()}

    def on_stop(self):
        self.db.close()


class Echo(pykka.ThreadingActor):
    """Does what the message says."""

    def on_receive(self, message):
        return {"got": message}

    def execute(self, ctx):
        return ctx.snapshot.data["do"](self, ctx)


class Gate:
    """A stage that waits, in whatever way, until the test lets it go on."""

    def __init__(self):
        self.reached = threading.Event()
        self.opened = threading.Event()

    def wait(self, *_):
        self.reached.set()
        assert self.opened.wait(FOREVER)

    def wait_until_reached(self):
        assert self.reached.wait(FOREVER)


def list_threads():
    """The threads that live, without those that trio keeps for the next function of anybody."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}


def join_new_threads(before):
    """Wait for the threads that are not among `before`: after its last word one may need another moment."""
    for thread in list_threads() - before:
        thread.join(FOREVER)
    assert list_threads() - before == set()


@pytest.fixture(autouse=True)
def nothing_left():
    """No actor, and no thread, is left after a test."""
    before = list_threads()
    assert pykka.ActorRegistry.get_all() == []
    yield
    left = pykka.ActorRegistry.get_all()
    for ref in left:  # for the next test
        pykka.ActorRegistry.unregister(ref)
        ref.stop(block=False)
    join_new_threads(before)
    assert left == []


@pytest.fixture
def exits(monkeypatch):
    """What threads have ended with, which they may in these tests."""
    before = list_threads()
    ended_with = []
    monkeypatch.setattr(threading, "excepthook", lambda told: ended_with.append(told.exc_type))
    yield ended_with
    join_new_threads(before)
