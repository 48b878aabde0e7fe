"""Changes that leave no mark, and corners of trio."""

from __future__ import annotations

from collections import OrderedDict, deque

import trio
import trio.testing
from trio.lowlevel import checkpoint

from property_tests.dpor_programs import World


def no_mark():
    """Changes that are taken back within a step: who iterates notices all the same."""
    queue = deque([1, 2])
    table = {"a": 1, "b": 2}
    ordered = OrderedDict(a=1, b=2)
    members = {1, 2}

    async def each(me):
        try:
            for item in queue:
                await checkpoint()
                me.see(item)
        except RuntimeError as error:
            me.see(str(error))

    async def in_and_out(me):
        await checkpoint()
        queue.append(3)
        queue.pop()

    async def each_key(me):
        try:
            for key in table:
                await checkpoint()
                me.see(key)
        except RuntimeError as error:
            me.see(str(error))

    async def move(me):
        await checkpoint()
        table["b"] = table.pop("b")
        table["c"] = 3
        del table["c"]

    async def each_ordered(me):
        try:
            for key in ordered:
                await checkpoint()
                me.see(key)
        except RuntimeError as error:
            me.see(str(error))

    async def move_ordered(me):
        await checkpoint()
        ordered["c"] = 3
        del ordered["c"]

    async def each_member(me):
        try:
            for member in members:
                await checkpoint()
                me.see(member)
        except RuntimeError as error:
            me.see(str(error))

    async def in_and_out_of_set(me):
        await checkpoint()
        members.add(3)
        members.remove(3)

    return World((each, in_and_out, each_key, move, each_ordered, move_ordered, each_member, in_and_out_of_set))


def bases():
    """What a class inherits is changed."""

    class Base:
        n = 1

    class Other:
        n = 2

    class Middle(Base):
        pass

    class Child(Middle):
        def get(self):
            return super().n

    thing = Child()

    async def rebase(me):
        await checkpoint()
        Middle.__bases__ = (Other,)

    async def change(me):
        await checkpoint()
        Base.n = me.name

    async def delete(me):
        Other.n = 3
        await checkpoint()

    async def look(me):
        me.see(thing.n)
        await checkpoint()
        me.see((thing.get(), isinstance(thing, Other)))

    return World((rebase, change, delete, look))


def callbacks():
    """What is run in trio's own task, or by it in the middle of its loop."""
    log = []
    state = {"n": 0}

    async def soon(me):
        trio.lowlevel.current_trio_token().run_sync_soon(log.append, me.name)
        await checkpoint()

    async def look(me):
        await checkpoint()
        me.see(len(log))

    async def abort(me):
        def fn(_raise):
            state["n"] += 1
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(1):
            await trio.lowlevel.wait_task_rescheduled(fn)

    async def read(me):
        await checkpoint()
        me.see(state["n"])

    return World((soon, look, abort, read), lambda: (log, state))


def trees():
    """What can be seen of tasks and nurseries, and who ends when."""
    nurseries = []

    async def child():
        await checkpoint()
        await checkpoint()

    async def parent(me):
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            nursery.start_soon(child, name=f"{me.name} child")
            await checkpoint()
        me.see("joined")

    async def adopt(me):
        await checkpoint()
        if nurseries:
            try:
                nurseries[0].start_soon(child, name=f"{me.name} adopted")
            except RuntimeError:
                me.see("closed")

    async def count(me):
        await checkpoint()
        root = me.nursery.parent_task
        me.see(sum(len(nursery.child_tasks) for nursery in root.child_nurseries))

    async def grandchildren(me):
        await checkpoint()
        found = [len(task.child_nurseries) for task in sorted(me.nursery.child_tasks, key=lambda task: task.name)]
        me.see(found)

    async def cancel(me):
        await checkpoint()
        for nursery in nurseries:
            nursery.cancel_scope.cancel()

    return World((parent, adopt, count, grandchildren, cancel))


def breaking():
    """A lock whose holder ends without letting go, and limits on behalf of others."""
    lock = trio.StrictFIFOLock()
    limiter = trio.CapacityLimiter(1)
    broken = trio.Lock()

    async def hold(me):
        async with lock:
            await checkpoint()

    async def leave(me):
        with trio.move_on_after(3):
            await broken.acquire()
            me.see("held")

    async def borrow(me):
        with trio.move_on_after(1) as scope:
            await limiter.acquire_on_behalf_of(me.name)
        me.see(scope.cancelled_caught)

    async def give_back(me):
        await checkpoint()
        try:
            limiter.release_on_behalf_of("t0")
        except RuntimeError:
            me.see("not borrowed")

    async def look(me):
        await checkpoint()
        me.see((lock.locked(), broken.locked(), limiter.available_tokens))

    return World((hold, leave, borrow, give_back, look))


def sequences():
    """Helpers of trio's own tests, and streams in memory."""
    sequencer = trio.testing.Sequencer()
    one, other = trio.testing.memory_stream_one_way_pair()
    log = []

    async def first(me):
        async with sequencer(0):
            log.append(me.name)

    async def second(me):
        with trio.move_on_after(1):
            async with sequencer(1):
                log.append(me.name)

    async def send(me):
        await one.send_all(me.name.encode())

    async def receive(me):
        with trio.move_on_after(1):
            me.see(await other.receive_some(1))

    return World((first, second, send, receive), lambda: log)


def values_of_starts():
    """What is handed over by start, by reschedule, and by errors, and changed afterwards."""
    sleeping = []

    async def serve(me, *, task_status=trio.TASK_STATUS_IGNORED):
        box = [0]
        task_status.started(box)
        seen = box[0]
        await checkpoint()
        box[0] = seen + 1

    async def start(me):
        box = await me.nursery.start(serve, me, name=f"{me.name} serves")
        seen = box[0]
        await checkpoint()
        box[0] = seen + 10
        me.see(box)

    async def fail(box):
        await checkpoint()
        raise ValueError(box)

    async def catch(me):
        box = [0]
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail, box, name=f"{me.name} fails")
        except* ValueError as group:
            group.exceptions[0].args[0].append(len(sleeping))
        me.see(box)

    async def sleep(me):
        sleeping.append(trio.lowlevel.current_task())
        me.see(await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED))

    async def wake(me):
        await checkpoint()
        box = [me.name]
        while sleeping:
            trio.lowlevel.reschedule(sleeping.pop(), trio.lowlevel.current_task().context.run(lambda: outcome_of(box)))
        await checkpoint()
        box.append("later")

    return World((start, catch, sleep, wake))


def outcome_of(value):
    import outcome  # noqa: PLC0415

    return outcome.Value(value)


KINDS = (
    no_mark,
    bases,
    callbacks,
    trees,
    breaking,
    sequences,
    values_of_starts,
)
