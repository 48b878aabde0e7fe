"""What the life of a resident actor costs: its start, its restarts and its end."""

from __future__ import annotations

import contextlib
import gc
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
import trio.testing
from actor_timing import Stopwatch, Times, logging_nowhere, require, take
from rows import Figure, Settings, Taken

from stageflow_actors import Intensity, Supervisor
from stageflow_actors.errors import ActorDeadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from actor_timing import Candidate

    from stageflow_actors import ActorRef, StageContext

OFTEN: Final = Intensity(1_000_000)
"""More restarts than there are."""
IN_ALL: Final = 15.0
"""What ten times as many may take longer, in all."""


async def idle(_ctx: StageContext) -> None:
    pass


class Idle:
    async def execute(self, _ctx: StageContext) -> None:
        pass


class Managed(Idle):
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_args: object) -> None:
        pass


class Fragile:
    """Fails with every message."""

    async def execute(self, _ctx: StageContext) -> None:
        raise ValueError


class Unwell(Managed, Fragile):
    """Fails with every message, and is entered before and left after it."""

    execute = Fragile.execute


# Starting and stopping many


@attrs.frozen
class Lives:
    """So many actors that are spawned one after the other and then all stopped."""

    chain: bool = False
    """Whether each depends on the one before."""
    below: bool = False
    """Whether they live in a child supervisor."""
    stop: str = "leave"
    """How they are stopped: the supervisor is left (`leave`), one after the other (`each`), all at once (`all`)."""
    collect: bool = True
    """Whether Python's collector of cycles goes on meanwhile, which looks at all that lives now and then."""

    def measure(self, size: int) -> tuple[Stopwatch, Stopwatch]:
        """Return what starting and stopping them took."""
        starting, stopping = Stopwatch(), Stopwatch()
        if not self.collect:
            gc.disable()
        try:
            ended = trio.run(self._live, size, starting, stopping)
        finally:
            gc.enable()
        require("actors that were stopped", ended, size)
        return starting, stopping

    async def _live(self, size: int, starting: Stopwatch, stopping: Stopwatch) -> int:
        refs: list[ActorRef] = []
        async with contextlib.AsyncExitStack() as leaving:
            supervisor = await leaving.enter_async_context(Supervisor())
            home = await supervisor.spawn_supervisor(Supervisor(), name="below") if self.below else supervisor
            with starting:
                for number in range(size):
                    depends_on = refs[-1:] if self.chain else ()
                    refs.append(await home.spawn(idle, name=f"idle-{number}", depends_on=depends_on))
            with stopping:
                if self.stop == "leave":
                    await leaving.aclose()
                elif self.stop == "each":
                    for ref in refs:
                        await ref.stop()
                else:
                    await _stop_at_once(refs)
        return sum(map(has_ended, refs))


@attrs.frozen
class ByHand:
    """So many tasks that wait behind channels, and are cancelled."""

    def measure(self, size: int) -> tuple[Stopwatch, Stopwatch]:
        """Return what starting and stopping them took."""
        starting, stopping = Stopwatch(), Stopwatch()
        trio.run(self._live, size, starting, stopping)
        return starting, stopping

    async def _live(self, size: int, starting: Stopwatch, stopping: Stopwatch) -> None:
        async with contextlib.AsyncExitStack() as leaving:
            nursery = await leaving.enter_async_context(trio.open_nursery())
            with starting:
                for _ in range(size):
                    nursery.start_soon(wait_behind, *trio.open_memory_channel[None](64))
                    await trio.lowlevel.checkpoint()
            with stopping:
                nursery.cancel_scope.cancel()
                await leaving.aclose()


async def wait_behind(_send: trio.MemorySendChannel[None], receive: trio.MemoryReceiveChannel[None]) -> None:
    async for _ in receive:
        pass


async def _stop_at_once(refs: Sequence[ActorRef]) -> None:
    async with trio.open_nursery() as nursery:
        for ref in refs:
            nursery.start_soon(ref.stop)


def has_ended(ref: ActorRef) -> bool:
    try:
        ref.tell_nowait()
    except ActorDeadError:
        return True
    return False


WAYS: Final = {
    "leaving the supervisor": Lives(),
    "leaving it, each depends on the one before": Lives(chain=True),
    "leaving it, all in a child supervisor": Lives(below=True),
    "stop() of each": Lives(stop="each"),
    "stop() of each, each depends on the one before": Lives(stop="each", chain=True),
    "stop() of each, all in a child supervisor": Lives(stop="each", below=True),
    "stop() of all at once": Lives(stop="all"),
}
SPAWNING: Final = {
    "spawning": "leaving the supervisor",
    "spawning, each depends on the one before": "leaving it, each depends on the one before",
    "spawning, all in a child supervisor": "leaving it, all in a child supervisor",
}
"""What is started in which of the ways."""
BY_HAND: Final = "by hand, tasks behind channels"
ASIDE: Final = {
    "leaving it, without the collector": Lives(collect=False),
    "stop() of all at once, without the collector": Lives(stop="all", collect=False),
    BY_HAND: ByHand(),
}
"""What has no bar, and says where the others' time goes."""


def measure_lives(settings: Settings, small: int, large: int) -> Taken:
    """Starting and stopping many actors, and ten times as many: the totals are to stay in proportion.

    What grows is the work of Python's collector of cycles, as the rows without it and those by hand show.
    """
    starting, stopping = Times(), Times()
    for _ in range(settings.limit(9)):
        for name, way in (WAYS | ASIDE).items():
            for size in (small, large):
                start, stop = way.measure(size)
                starting.note(f"{name}, {size}", start)
                stopping.note(f"{name}, {size}", stop)
    rows = [(what, starting, name) for what, name in SPAWNING.items()]
    rows += [("spawning, without the collector", starting, "leaving it, without the collector")]
    rows += [("starting by hand, tasks behind channels", starting, BY_HAND)]
    rows += [(name, stopping, name) for name in WAYS | ASIDE]
    lines: list[tuple[str, ...]] = []
    figures = []
    for what, times, name in rows:
        grown = times.compare(f"{name}, {large}", f"{name}, {small}")
        each = [times.each(f"{name}, {size}", size)[1] for size in (small, large)]
        lines.append((what, *each, f"{grown.processor:.1f}x", f"{grown.wall:.1f}x"))
        if name in WAYS:
            by_hand = times.compare(f"{BY_HAND}, {large}", f"{BY_HAND}, {small}").processor
            note = f"wall time {grown.wall:.1f}x; by hand {by_hand:.1f}x"
            compared = f"{what}: {large:,} against {small:,}"
            figures.append(Figure(compared, IN_ALL, grown.processor, "x in all", note=note))
    head = ("processor time, us/actor", f"{small:,} actors", f"{large:,} actors", "in all", "wall time")
    return Taken(head, lines, figures, {"starting": starting.to_raw(), "stopping": stopping.to_raw()})


# Restarts


async def crash_in_turn(watch: Stopwatch, runner: Any, count: int) -> int:
    """Ask an actor that fails with every message; return how often it was restarted."""
    async with Supervisor(intensity=OFTEN) as supervisor:
        ref = await supervisor.spawn(runner, name="fragile")
        with watch:
            for _ in range(count):
                with contextlib.suppress(ValueError):
                    await ref.ask()
            await wait_up([ref])
    return ref.statistics().restarts


async def crash_at_once(watch: Stopwatch, count: int) -> int:
    """Let so many actors fail in one moment; return how often they were restarted."""
    async with Supervisor(intensity=OFTEN) as supervisor:
        refs = [await supervisor.spawn(Fragile, name=f"fragile-{number}") for number in range(count)]
        with watch:
            for ref in refs:
                ref.tell_nowait()
            await wait_up(refs)
    return sum(ref.statistics().restarts for ref in refs)


async def restart_in_turn(watch: Stopwatch, count: int) -> int:
    """Restart an actor again and again; return how often it was."""
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Idle, name="idle")
        with watch:
            for _ in range(count):
                await ref.restart()
    return ref.statistics().restarts


async def restart_all(watch: Stopwatch, count: int, *, crash: bool) -> int:
    """Restart a family in which one takes all along; return how often its actors were restarted."""
    async with Supervisor(scope="one_for_all") as supervisor:
        refs = [await supervisor.spawn(Fragile, name=f"fragile-{number}") for number in range(count)]
        with watch:
            if crash:
                refs[0].tell_nowait()
                await wait_up(refs)
            else:
                await refs[0].restart()
    return sum(ref.statistics().restarts for ref in refs)


async def wait_up(refs: Sequence[ActorRef]) -> None:
    """Wait until nothing goes on any more, and all are up; those that are ask for no time."""
    await trio.testing.wait_all_tasks_blocked()
    require("actors that are up", sum(ref.statistics().workers for ref in refs), len(refs))


@attrs.frozen
class Restarting:
    """A candidate: so many restarts."""

    count: int
    function: Callable[..., Awaitable[int]]
    arguments: tuple[Any, ...] = ()

    def __call__(self, watch: Stopwatch) -> None:
        with logging_nowhere():
            restarts = trio.run(self.function, watch, *self.arguments, self.count)
        require("restarts", restarts, self.count)


def measure_restarts(settings: Settings, count: int, family: int) -> Taken:
    """Restarts of one actor and of families, each with what it logs, but for the writing of it."""
    candidates: dict[str, Candidate] = {
        "crash after crash": Restarting(count, crash_in_turn, (Fragile,)),
        "crash after crash, an async context manager": Restarting(count, crash_in_turn, (Unwell,)),
        "restart() after restart()": Restarting(count, restart_in_turn),
        f"{family:,} crash at once": Restarting(family, crash_at_once),
        f"one_for_all, one of {family:,} crashes": Restarting(family, partial(restart_all, crash=True)),
        f"one_for_all, restart() of {family:,}": Restarting(family, partial(restart_all, crash=False)),
    }
    times = take(settings.rounds, candidates, warm_up=True)
    lines: list[tuple[str, ...]] = []
    for name in candidates:
        restarts = family if f"{family:,}" in name else count
        wall = median(times.wall[name])
        lines.append((name, *times.each(name, restarts), f"{restarts / wall:,.0f}", f"{1000 * wall:,.1f}"))
    head = ("restarts", "us/restart", "of processor time", "restarts/s", "ms in all")
    return Taken(head, lines, [], times.to_raw())
