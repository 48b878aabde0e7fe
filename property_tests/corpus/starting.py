"""Starting, restarting and meeting: who is ready when, and who has arrived."""

from __future__ import annotations

import trio
from trio.lowlevel import ParkingLot, checkpoint

from .entry import Entry, side_by_side


async def parent_sets_late():
    """The child reads its handle before the parent, which has just started it, has stored it."""
    handle = None

    async def child():
        await checkpoint()  # sets itself up
        assert handle is not None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await checkpoint()  # the new thread's handle travels
        handle = "thread"
        await checkpoint()


async def parent_sets_late_twin():
    """Holds: the handle is stored before the child exists."""
    handle = None

    async def child():
        await checkpoint()
        assert handle is not None

    async with trio.open_nursery() as nursery:
        await checkpoint()
        handle = "thread"
        nursery.start_soon(child)
        await checkpoint()


async def call_before_listening():
    """The client calls before the server, started first but not awaited, has bound its address."""
    addresses = {}

    async def serve():
        send, receive = trio.open_memory_channel(1)
        await checkpoint()  # binds
        addresses["api"] = send
        await receive.receive()

    async def call():
        await addresses["api"].send("hello")

    await side_by_side(serve, call)


async def call_before_listening_twin():
    """Holds: `start` returns once the server has said that it is bound."""
    addresses = {}

    async def serve(task_status):
        send, receive = trio.open_memory_channel(1)
        await checkpoint()
        addresses["api"] = send
        task_status.started()
        await receive.receive()

    async def call():
        await addresses["api"].send("hello")

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        nursery.start_soon(call)


async def ready_too_early():
    """The subscriber says that it is ready, and registers an await later; the first message finds nobody."""
    subscribers = []
    inbox = []

    async def subscribe(task_status):
        task_status.started()
        await checkpoint()  # the server's answer travels
        subscribers.append(inbox)

    async def publish():
        for message in ("first", "second"):
            for subscriber in subscribers:
                subscriber.append(message)
            await checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(subscribe)
        nursery.start_soon(publish)
    assert inbox == ["first", "second"]


async def ready_too_early_twin():
    """Holds: the subscriber is registered when it says so."""
    subscribers = []
    inbox = []

    async def subscribe(task_status):
        await checkpoint()
        subscribers.append(inbox)
        task_status.started()

    async def publish():
        for message in ("first", "second"):
            for subscriber in subscribers:
                subscriber.append(message)
            await checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(subscribe)
        nursery.start_soon(publish)
    assert inbox == ["first", "second"]


class WaitGroup:
    """Counts tasks, and waits until none is left, as Go's does."""

    def __init__(self):
        self._count = 0
        self._changed = ParkingLot()

    def add(self):
        self._count += 1

    def done(self):
        self._count -= 1
        self._changed.unpark_all()

    async def wait(self):
        while self._count:
            await self._changed.park()


async def wait_before_add():
    """The post counts itself, so a stop that comes before its first step waits for nothing."""
    group = WaitGroup()
    asked_to_stop = trio.Event()
    stopped = False

    async def post():
        group.add()
        await checkpoint()
        assert not stopped
        group.done()

    async def ask_to_stop():
        asked_to_stop.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(post)
        nursery.start_soon(ask_to_stop)
        await asked_to_stop.wait()
        await group.wait()
        stopped = True


async def wait_before_add_twin():
    """Holds: the post is counted before it is started."""
    group = WaitGroup()
    asked_to_stop = trio.Event()
    stopped = False

    async def post():
        await checkpoint()
        assert not stopped
        group.done()

    async def ask_to_stop():
        asked_to_stop.set()

    async with trio.open_nursery() as nursery:
        group.add()
        nursery.start_soon(post)
        nursery.start_soon(ask_to_stop)
        await asked_to_stop.wait()
        await group.wait()
        stopped = True


async def two_restarts():
    """Both restarts stop the same process, and each starts a new one."""
    running = {1}
    started = 1

    async def restart():
        nonlocal started
        old = set(running)
        await checkpoint()  # waits until they have stopped
        running.difference_update(old)
        started += 1
        running.add(started)

    await side_by_side(restart, restart)
    assert len(running) == 1


async def two_restarts_twin():
    """Holds: one restart at a time, so the second one stops what the first one started."""
    running = {1}
    started = 1
    lock = trio.Lock()

    async def restart():
        nonlocal started
        async with lock:
            old = set(running)
            await checkpoint()
            running.difference_update(old)
            started += 1
            running.add(started)

    await side_by_side(restart, restart)
    assert len(running) == 1


async def name_in_use():
    """The old actor says that it has ended before its name is free, and its successor cannot be named."""
    names = {"worker"}
    stop = trio.Event()
    ended = trio.Event()

    async def old():
        await stop.wait()
        ended.set()
        await checkpoint()
        names.remove("worker")

    async def supervise():
        stop.set()
        await ended.wait()
        assert "worker" not in names
        names.add("worker")

    await side_by_side(old, supervise)


async def name_in_use_twin():
    """Holds: the name is free when the end is said."""
    names = {"worker"}
    stop = trio.Event()
    ended = trio.Event()

    async def old():
        await stop.wait()
        await checkpoint()
        names.remove("worker")
        ended.set()

    async def supervise():
        stop.set()
        await ended.wait()
        assert "worker" not in names
        names.add("worker")

    await side_by_side(old, supervise)


class Barrier:
    """Lets two through at a time; `swap_first` says whether the next door is closed before this one opens."""

    def __init__(self, *, swap_first):
        self._door = trio.Event()
        self._waiting = 0
        self._swap_first = swap_first

    async def meet(self):
        door = self._door
        self._waiting += 1
        if self._waiting == 1:
            await door.wait()
            return
        self._waiting = 0
        if self._swap_first:
            self._door = trio.Event()
        door.set()
        await checkpoint()  # counts the meeting
        if not self._swap_first:
            self._door = trio.Event()


async def walk_two_laps(barrier):
    laps = [0, 0]

    async def walk(me):
        for lap in range(1, 3):
            laps[me] = lap
            await barrier.meet()
            assert min(laps) == lap

    async with trio.open_nursery() as nursery:
        for me in range(2):
            nursery.start_soon(walk, me)


async def barrier_reused():
    """The first walker comes round again before the door is closed, and walks on alone."""
    await walk_two_laps(Barrier(swap_first=False))


async def barrier_reused_twin():
    """Holds: those of the next lap wait at a new door, made before the old one opens."""
    await walk_two_laps(Barrier(swap_first=True))


ENTRIES = (
    Entry(
        name="parent sets late",
        kind="order violation",
        depth=1,
        source="Lu, Park, Seo, Zhou, Learning from Mistakes, ASPLOS 2008: order violation, Mozilla nsThread",
        bug=parent_sets_late,
        twin=parent_sets_late_twin,
        shows="exception",
    ),
    Entry(
        name="call before listening",
        kind="readiness",
        depth=1,
        source="python-trio/trio#284: how to start up a complex task tree in an orderly way",
        bug=call_before_listening,
        twin=call_before_listening_twin,
        shows="exception",
    ),
    Entry(
        name="ready too early",
        kind="readiness",
        depth=1,
        source="supabase/supabase-py#1209: subscribe returns without waiting for an answer",
        bug=ready_too_early,
        twin=ready_too_early_twin,
        shows="exception",
    ),
    Entry(
        name="wait before add",
        kind="order violation",
        depth=1,
        source="Tu, Liu, Song, Zhang, Understanding [...] Concurrency Bugs in Go, ASPLOS 2019: figure 9",
        bug=wait_before_add,
        twin=wait_before_add_twin,
        shows="exception",
    ),
    Entry(
        name="two restarts",
        kind="restart",
        depth=2,
        source="Unitech/pm2#938: two simultaneous restarts leave two running processes",
        bug=two_restarts,
        twin=two_restarts_twin,
        shows="exception",
    ),
    Entry(
        name="name in use",
        kind="restart",
        depth=1,
        source="Akka 2.2 API, GracefulStopSupport: an actor's end and its name's freeing have no reliable order",
        bug=name_in_use,
        twin=name_in_use_twin,
        shows="exception",
    ),
    Entry(
        name="barrier reused",
        kind="barrier reuse",
        depth=1,
        source="Downey, The Little Book of Semaphores, Reusable barrier: a thread gets ahead of the others by a lap",
        bug=barrier_reused,
        twin=barrier_reused_twin,
        shows="exception",
    ),
)
