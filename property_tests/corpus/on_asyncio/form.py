"""The form of a program for asyncio: its state, the tasks that share it, and what must hold when they have ended."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class OnAsyncio:
    """A program: an object with the shared state as attributes, which tasks change side by side.

    Tools that want a state, workers and an invariant get the class itself, `workers()` and `holds`; `run` is the
    same as a program for `asyncio.run`.
    """

    tasks: ClassVar[tuple[str | tuple[Any, ...], ...]]
    """The names of the methods that run as tasks, started in this order; one with arguments as a tuple."""

    def holds(self) -> bool:
        """Return whether all is as it should be when all tasks have ended."""
        return True

    @classmethod
    def workers(cls) -> list[Callable[[Any], Awaitable[None]]]:
        """Return a function for each task, which takes the program."""
        return [
            _with_arguments(getattr(cls, task[0]), task[1:]) if isinstance(task, tuple) else getattr(cls, task)
            for task in cls.tasks
        ]

    @classmethod
    async def run(cls) -> None:
        """Run the tasks in a group, and look whether all is as it should be."""
        program = cls()
        async with asyncio.TaskGroup() as group:
            for worker in cls.workers():
                group.create_task(worker(program))
        assert program.holds()


def _with_arguments(method: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]) -> Any:
    async def worker(program: Any) -> None:
        await method(program, *arguments)

    return worker


@attrs.frozen
class Pair:
    """A bug of the corpus on asyncio, and its twin: the same program, mended."""

    bug: type[OnAsyncio]
    twin: type[OnAsyncio]


async def pause():
    """Stand where trio has a checkpoint, also where one is inside a primitive of trio's."""
    await asyncio.sleep(0)


class Lot:
    """Where tasks sleep until another one wakes them, as in trio's ParkingLot."""

    def __init__(self):
        self._asleep = deque()

    async def park(self):
        woken = asyncio.Event()
        self._asleep.append(woken)
        try:
            await woken.wait()
        except asyncio.CancelledError:
            if woken in self._asleep:
                self._asleep.remove(woken)
            raise

    def unpark(self):
        if self._asleep:
            self._asleep.popleft().set()

    def unpark_all(self):
        while self._asleep:
            self.unpark()


class HandOver:
    """A channel without room: a sender waits until its message is taken. asyncio has no such queue."""

    def __init__(self):
        self._offered = asyncio.Queue()
        self.over = False
        """Whether None was received: no more is sent."""

    async def send(self, message):
        taken = asyncio.Event()
        await self._offered.put((message, taken))
        await taken.wait()

    async def receive(self):
        message, taken = await self._offered.get()
        taken.set()
        self.over = message is None
        return message
