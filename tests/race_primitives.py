"""Programs of trio's primitives. Each returns what can be seen of the order of its steps."""

from __future__ import annotations

from contextlib import aclosing

import trio
import trio.testing
from race_cases import side_by_side
from trio.lowlevel import ParkingLot, cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled


async def nested_nurseries():
    log = []

    async def inner(name):
        log.append(name)
        await checkpoint()
        log.append(name)

    async def outer(name):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner, name + "1")
            nursery.start_soon(inner, name + "2")
        log.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer, "a")
        nursery.start_soon(inner, "b")
    return tuple(log)


async def started_tasks():
    log = []

    async def serve(name, task_status=trio.TASK_STATUS_IGNORED):
        await checkpoint()
        task_status.started(name)
        await checkpoint()
        log.append(f"served {name}")

    async def start(nursery, name):
        log.append(f"started {await nursery.start(serve, name)}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start, nursery, "a")
        nursery.start_soon(start, nursery, "b")
    return tuple(log)


async def a_start_that_fails():
    log = []

    async def serve(task_status=trio.TASK_STATUS_IGNORED):
        await checkpoint()
        raise ValueError("no port")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(checkpoint)
        try:
            await nursery.start(serve)
        except ValueError as error:
            log.append(str(error))
    return tuple(log)


async def cancelled_children():
    log = []

    async def child(name):
        try:
            await checkpoint()
            await trio.sleep_forever()
        except trio.Cancelled:
            log.append(f"{name} cancelled")
            raise
        finally:
            log.append(f"{name} ends")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child, "a")
        nursery.start_soon(child, "b")
        await checkpoint()
        nursery.cancel_scope.cancel()
    return tuple(log)


async def failing_children():
    log = []

    async def fail(name):
        try:
            await checkpoint()
        finally:
            log.append(name)
        raise ValueError(name)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, "a")
            nursery.start_soon(fail, "b")
    except* ValueError as group:
        log.append(tuple(str(error) for error in group.exceptions))
    return tuple(log)


async def shielded_cleanup():
    log = []

    async def child():
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await checkpoint()
                log.append("cleaned")
            log.append("left")
            await checkpoint_if_cancelled()

    async def other():
        await cancel_shielded_checkpoint()
        log.append("other")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(other)
        await checkpoint()
        nursery.cancel_scope.cancel()
    return tuple(log)


async def timeouts():
    log = []

    async def limited(name, seconds):
        with trio.move_on_after(seconds) as scope:
            await trio.sleep(2)
        log.append((name, scope.cancelled_caught, trio.current_time()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(limited, "a", 1)
        nursery.start_soon(limited, "b", 3)
    try:
        with trio.fail_after(1):
            await trio.sleep(1.5)
    except trio.TooSlowError:
        log.append("too slow")
    return tuple(log)


async def channels():
    log = []
    send, receive = trio.open_memory_channel(1)

    async def produce(name):
        async with send:
            for number in range(2):
                await send.send((name, number))

    async def consume():
        log.extend([item async for item in receive])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce, "a")
        nursery.start_soon(consume)
    return tuple(log)


async def locks():
    log = []
    lock = trio.Lock()

    async def work(name):
        async with lock:
            log.append(name)
            await checkpoint()
            log.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(work, name)
    return tuple(log)


async def semaphores_and_limiters():
    log = []
    semaphore, limiter = trio.Semaphore(1), trio.CapacityLimiter(1)

    async def work(name):
        async with semaphore, limiter:
            log.append(name)
            await checkpoint()
        log.append(f"{name} out")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, "a")
        nursery.start_soon(work, "b")
    return tuple(log)


async def events_and_conditions():
    log = []
    event, condition = trio.Event(), trio.Condition()
    items = []

    async def wait():
        await event.wait()
        async with condition:
            while not items:
                await condition.wait()
            log.append(items.pop())

    async def give():
        event.set()
        async with condition:
            items.append("item")
            condition.notify()
        log.append("given")

    await side_by_side(wait, give)
    return tuple(log)


async def parking_lots():
    log = []
    lot = ParkingLot()

    async def park(name):
        await lot.park()
        log.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(park, "a")
        nursery.start_soon(park, "b")
        await trio.testing.wait_all_tasks_blocked()
        lot.unpark(count=1)
        await checkpoint()
        lot.unpark_all()
    return tuple(log)


async def generators():
    log = []

    async def count(name):
        try:
            for number in range(3):
                await checkpoint()
                yield number
        finally:
            with trio.CancelScope(shield=True):
                await checkpoint()
            log.append(f"{name} closed")

    async def read(name):
        async with aclosing(count(name)) as numbers:
            async for number in numbers:
                log.append((name, number))
                if number == 1:
                    break

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "a")
        nursery.start_soon(read, "b")
    return tuple(log)


async def sequences():
    log = []
    order = trio.testing.Sequencer()

    async def work(number):
        async with order(number):
            log.append(number)

    async with trio.open_nursery() as nursery:
        for number in (2, 0, 1):
            nursery.start_soon(work, number)
    assert log == [0, 1, 2]
    return tuple(log)


async def idle_tasks():
    log = []

    async def idle(name, cushion):
        await trio.testing.wait_all_tasks_blocked(cushion)
        log.append((name, trio.current_time()))

    async def work():
        for _ in range(3):
            await checkpoint()
        log.append("worked")
        await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle, "a", 0.0)
        nursery.start_soon(idle, "b", 0.001)
        nursery.start_soon(work)
    return tuple(log)


async def streams():
    one, other = trio.testing.memory_stream_pair()
    log = []

    async def read():
        log.extend([bytes(data) async for data in other])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await one.send_all(b"hello")
        await one.aclose()
    return b"".join(log)


async def moved_deadlines():
    log = []
    with trio.CancelScope() as scope:
        start = trio.current_time()
        await checkpoint()
        scope.deadline = start + 1
        await checkpoint()
        scope.deadline += 1
        await checkpoint()
        log.append("not cancelled")
    log.append(trio.current_time())
    return tuple(log)


async def cancelled_while_woken():
    """A task that was woken and is then cancelled has what it waited for: the cancellation comes later."""
    log = []
    send, receive = trio.open_memory_channel(0)

    async def take():
        log.append(await receive.receive())
        try:
            await checkpoint()
        except trio.Cancelled:
            log.append("cancelled later")
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        send.send_nowait("item")
        nursery.cancel_scope.cancel()
    assert log[0] == "item"
    return tuple(log)


PROGRAMS = [
    nested_nurseries,
    started_tasks,
    a_start_that_fails,
    cancelled_children,
    failing_children,
    shielded_cleanup,
    timeouts,
    channels,
    locks,
    semaphores_and_limiters,
    events_and_conditions,
    parking_lots,
    generators,
    sequences,
    idle_tasks,
    streams,
    moved_deadlines,
    cancelled_while_woken,
]
