"""What an ask costs: beside pykka, beside a channel by hand, through a run's stage, and while many others wait."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
import trio.testing
from actor_timing import CAN_STAY, logging_nowhere, one_processor, require, take
from rows import Figure, Settings, Taken

from stageflow_actors import Mailbox, Pipeline, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from actor_timing import Candidate, Stopwatch, Times

    from stageflow_actors import ActorRef, StageContext

TIMEOUT: Final = 5.0
UNBOUNDED: Final = Mailbox(max_queued=None)


class Counter:
    """Answers with the next number."""

    async def execute(self, ctx: StageContext) -> Mapping[str, Any]:
        return {"n": ctx.snapshot.data["n"] + 1}


class Yielding(Counter):
    """Lets others go first."""

    async def execute(self, ctx: StageContext) -> Mapping[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"n": ctx.snapshot.data["n"] + 1}


class Sleeping(Counter):
    """Waits for something, as for a server, a millisecond long."""

    async def execute(self, ctx: StageContext) -> Mapping[str, Any]:
        await trio.sleep(0.001)
        return {"n": ctx.snapshot.data["n"] + 1}


async def wait_for_ever(_ctx: StageContext) -> None:
    await trio.sleep_forever()


async def ask_each(ref: ActorRef, count: int, timeout: float | None) -> int:
    """Ask one ask after the other; return the sum of the replies."""
    total = 0
    for number in range(count):
        total += (await ref.ask({"n": number}, timeout=timeout)).data["n"]
    return total


async def ask_in_turn(watch: Stopwatch, count: int, timeout: float | None) -> int:
    """Ask one actor, one ask after the other; return the sum of the replies."""
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Counter, name="counter")
        with watch:
            return await ask_each(ref, count, timeout)


async def ask_by_hand(watch: Stopwatch, count: int, timeout: float) -> int:
    """Do the same with what trio has: a task behind a channel, an event an ask, a timeout around it."""
    send, receive = trio.open_memory_channel[tuple[int, list[int], trio.Event]](64)

    async def be_actor() -> None:
        async for number, reply, answered in receive:
            reply.append(number + 1)
            answered.set()

    total = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_actor)
        with watch:
            for number in range(count):
                reply: list[int] = []
                answered = trio.Event()
                with trio.fail_after(timeout):
                    await send.send((number, reply, answered))
                    await answered.wait()
                total += reply[0]
        send.close()
    return total


async def spawn_all(supervisor: Supervisor, count: int) -> list[ActorRef]:
    return [await supervisor.spawn(Counter, name=f"counter-{number}") for number in range(count)]


async def ask_from_clients(watch: Stopwatch, actors: int, each: int, timeout: float | None) -> int:
    """Ask from one task an actor, one ask after the other; return the sum of the replies."""
    totals: list[int] = []

    async def be_client(ref: ActorRef) -> None:
        totals.append(await ask_each(ref, each, timeout))

    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, actors)
        with watch:
            async with trio.open_nursery() as nursery:
                for ref in refs:
                    nursery.start_soon(be_client, ref)
    return sum(totals)


async def ask_by_tasks(watch: Stopwatch, actors: int, each: int, timeout: float | None) -> int:
    """Ask all actors, each ask in a new task, and wait for all replies, over and over; return the sum of these."""
    totals: list[int] = []

    async def ask(ref: ActorRef, number: int) -> None:
        totals.append((await ref.ask({"n": number}, timeout=timeout)).data["n"])

    async with Supervisor() as supervisor:
        refs = await spawn_all(supervisor, actors)
        with watch:
            for number in range(each):
                async with trio.open_nursery() as nursery:
                    for ref in refs:
                        nursery.start_soon(ask, ref, number)
    return sum(totals)


@attrs.frozen
class Asking:
    """A candidate: asks that have to give a certain sum."""

    what: str
    total: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    is_async: bool = True

    def __call__(self, watch: Stopwatch) -> None:
        run = partial(trio.run, self.function) if self.is_async else self.function
        with logging_nowhere():
            found = run(watch, *self.arguments)
        require(self.what, found, self.total)


def _sum(count: int) -> int:
    return sum(range(1, count + 1))


def _find_pykka(settings: Settings) -> ModuleType | None:
    return settings.peers.get("pykka")


def _line(times: Times, name: str, count: int, bases: tuple[str, ...]) -> tuple[str, ...]:
    ratios = [times.compare(base, name) if base in times.wall else None for base in bases]
    return name, *times.each(name, count), *("" if each is None else f"{each.processor:.2f}x" for each in ratios)


def _on_one(candidates: Mapping[str, Candidate], names: tuple[str, ...]) -> dict[str, Candidate]:
    """Return some candidates once more, on one processor, by the name of each."""
    if not CAN_STAY:
        return {}
    return {f"{name}, on one processor": partial(stay, candidates[name]) for name in names if name in candidates}


def stay(candidate: Candidate, watch: Stopwatch) -> None:
    with one_processor():
        candidate(watch)


def _compare_with_pykka(what: str, times: Times, ours: str, theirs: str) -> list[Figure]:
    """Return by how much more asks a second we have: as the system spreads the threads, and on one processor."""
    figures = []
    for where in ("", ", on one processor"):
        if ours + where in times.wall and theirs + where in times.wall:
            ratios = times.compare(theirs + where, ours + where)
            note = f"wall time {ratios.wall:.2f}x"
            figures.append(
                Figure(f"{what}, against pykka{where}", 1.5, ratios.processor, "x", at_most=False, note=note)
            )
    return figures


def measure_ask(settings: Settings, count: int) -> Taken:
    """An ask to one resident actor, one after the other; `against` says how many more of them there are a second.

    What pykka's threads take to wake each other up depends on where they run: least on one processor.
    """
    pykka = _find_pykka(settings)
    ours, theirs = f"ask(timeout={TIMEOUT:g})", f"pykka, ask(timeout={TIMEOUT:g})"
    ask = partial(Asking, total=_sum(count))
    candidates: dict[str, Candidate] = {
        ours: ask(ours, function=ask_in_turn, arguments=(count, TIMEOUT)),
        "ask(timeout=None)": ask("ask", function=ask_in_turn, arguments=(count, None)),
        "channel, event, fail_after": ask("by hand", function=ask_by_hand, arguments=(count, TIMEOUT)),
    }
    if pykka is not None:
        ask = partial(ask, pykka.TITLE, function=pykka.ask_in_turn, is_async=False)
        candidates[theirs] = ask(arguments=(count, TIMEOUT))
        candidates["pykka, ask()"] = ask(arguments=(count, None))
        candidates |= _on_one(candidates, (ours, theirs))
    times = take(settings.rounds, candidates, warm_up=True)
    figures = _compare_with_pykka("ask with a timeout, one after the other", times, ours, theirs)
    lines = [_line(times, name, count, (theirs, "channel, event, fail_after")) for name in candidates]
    head = ("one after the other", "us/ask", "of processor time", "against pykka", "against by hand")
    return Taken(head, lines, figures, times.to_raw())


def measure_asks(settings: Settings, actors: int, each: int) -> Taken:
    """Many resident actors with as many asks in flight, over and over, all with a timeout unless said otherwise.

    A client asks an actor of its own, one ask after the other: a task here, a thread in pykka. Pykka's other way is
    one thread that sends all asks and then waits for each of the futures.
    """
    pykka = _find_pykka(settings)
    count, total = actors * each, actors * _sum(each)
    ours, theirs, futures = f"{actors} clients", f"pykka, {actors} clients", "pykka, futures in one thread"
    ask = partial(Asking, total=total)
    candidates: dict[str, Candidate] = {
        ours: ask(ours, function=ask_from_clients, arguments=(actors, each, TIMEOUT)),
        f"{ours}, timeout=None": ask(ours, function=ask_from_clients, arguments=(actors, each, None)),
        "a task an ask": ask("tasks", function=ask_by_tasks, arguments=(actors, each, TIMEOUT)),
    }
    if pykka is not None:
        ask = partial(ask, pykka.TITLE, arguments=(actors, each, TIMEOUT), is_async=False)
        candidates[theirs] = ask(function=pykka.ask_from_clients)
        candidates[futures] = ask(function=pykka.ask_by_futures)
        candidates |= _on_one(candidates, (ours, theirs, futures))
    times = take(settings.rounds, candidates, warm_up=True)
    what = f"{actors} actors with {actors} asks in flight, from clients"
    figures = _compare_with_pykka(what, times, ours, theirs)
    lines = [_line(times, name, count, (theirs, futures)) for name in candidates]
    head = ("in flight", "us/ask", "of processor time", "against pykka's clients", "against pykka's futures")
    return Taken(head, lines, figures, times.to_raw())


# While others wait


async def ask_beside(watch: Stopwatch, pending: int, count: int, timeout: float | None) -> int:
    """Ask one actor, one ask after the other, while another one has so many asks that it never answers."""
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(Counter, name="counter")
        silent = await supervisor.spawn(wait_for_ever, name="silent", mailbox=UNBOUNDED, shutdown=0.0)
        async with trio.open_nursery() as nursery:
            for _ in range(pending):
                nursery.start_soon(partial(silent.ask, {}, timeout=timeout))
            await trio.testing.wait_all_tasks_blocked()
            with watch:
                total = await ask_each(ref, count, TIMEOUT)
            nursery.cancel_scope.cancel()
    return total


async def let_wait(watch: Stopwatch, pending: int, timeout: float | None, *, cancel: bool) -> int:
    """Have so many asks wait at once, and then answered or cancelled, all in the time; return how many ended so."""
    gate = trio.Event()
    ended = 0

    async def be_behind_gate(_ctx: StageContext) -> None:
        await gate.wait()

    async def ask(ref: ActorRef) -> None:
        nonlocal ended
        try:
            await ref.ask({}, timeout=timeout)
        except trio.Cancelled:
            ended += 1
            raise
        ended += 1

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(be_behind_gate, name="behind-gate", mailbox=UNBOUNDED)
        with watch:
            async with trio.open_nursery() as nursery:
                for _ in range(pending):
                    nursery.start_soon(ask, ref)
                await trio.testing.wait_all_tasks_blocked()
                if cancel:
                    nursery.cancel_scope.cancel()
                else:
                    gate.set()
        gate.set()
    return ended


def measure_pending(settings: Settings, pending: int, count: int) -> Taken:
    """Asks while many others wait, and what these cost; the timeout of those that wait is an hour, or there is none."""
    beside = partial(Asking, "beside", _sum(count), ask_beside)
    wait = partial(Asking, "wait", pending)
    base = "an ask, nothing pending"
    candidates: dict[str, Candidate] = {
        base: beside((0, count, None)),
        f"an ask beside {pending:,} with a timeout": beside((pending, count, 3600.0)),
        f"an ask beside {pending:,} without": beside((pending, count, None)),
    }
    answered, without = f"one of {pending:,} that wait with a timeout, answered", "without a timeout, answered"
    candidates[answered] = wait(partial(let_wait, cancel=False), (pending, 3600.0))
    candidates[without] = wait(partial(let_wait, cancel=False), (pending, None))
    candidates["with a timeout, cancelled"] = wait(partial(let_wait, cancel=True), (pending, 3600.0))
    candidates["without a timeout, cancelled"] = wait(partial(let_wait, cancel=True), (pending, None))
    times = take(settings.limit(9), candidates)
    lines: list[tuple[str, ...]] = []
    for position, name in enumerate(candidates):
        to, each = (base, count) if position < 3 else (without, pending)
        lines.append((name, *times.each(name, each), f"{times.compare(name, to).processor:.2f}x"))
    return Taken(("while many wait", "us/ask", "of processor time", "against the first"), lines, [], times.to_raw())


# As a stage, and in a pool


async def run_stages(watch: Stopwatch, size: int, repeat: int, runner: Any, *, chain: bool, **options: Any) -> int:
    """Run a pipeline of so many equal stages some times; return the sum of what they gave."""
    async with Supervisor() as supervisor:
        if options:
            runner = await supervisor.spawn(runner, name="counter", **options)
        pipeline = Pipeline("stages")
        for number in range(size):
            pipeline = pipeline.with_stage(
                f"s{number}", runner, dependencies=f"s{number - 1}" if chain and number else ()
            )
        pipeline.validate()
        total = 0
        with watch:
            for _ in range(repeat):
                result = await supervisor.run(pipeline, {"n": 0})
                total += sum(output.data["n"] for output in result.values())
    return total


def measure_stages(settings: Settings, size: int, repeat: int) -> Taken:
    """A run whose stages are all one resident actor, against the same run with the actor's stage class."""
    candidates: dict[str, Candidate] = {}
    bases: dict[str, str] = {}
    for shape, chain in (("wide", False), ("chain", True)):
        for what, options in (
            ("the stage class", {}),
            ("the actor", {"mailbox": UNBOUNDED}),
            ("the actor, behind a mailbox of 64", {"mailbox": Mailbox()}),
        ):
            name, function = f"{shape}, {what}", partial(run_stages, chain=chain, **options)
            candidates[name] = Asking(name, size * repeat, function, (size, repeat, Counter))
            bases[name] = f"{shape}, the stage class"
    times = take(settings.rounds, candidates, warm_up=True)
    lines = [
        (name, *times.each(name, size * repeat), f"{times.compare(name, base).processor:.2f}x")
        for name, base in bases.items()
    ]
    return Taken((f"{size} stages", "us/stage", "of processor time", "against the class"), lines, [], times.to_raw())


async def ask_pool(watch: Stopwatch, runner: Any, pool: int, clients: int, each: int) -> int:
    """Ask a pool from so many clients; return the sum of the replies."""
    totals: list[int] = []

    async def be_client() -> None:
        totals.append(await ask_each(ref, each, TIMEOUT))

    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(runner, name="pool", pool=pool)
        with watch:
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(be_client)
    return sum(totals)


def measure_pool(settings: Settings, pool: int, clients: int, each: int) -> Taken:
    """An actor with one worker and with several: where its handler waits, it answers more often, in wall time."""
    candidates: dict[str, Candidate] = {}
    bases: dict[str, str] = {}
    for runner, what in ((Sleeping, "sleeps 1 ms"), (Yielding, "awaits a checkpoint"), (Counter, "awaits nothing")):
        for workers in (1, pool):
            name = f"{what}, pool={workers}"
            candidates[name] = Asking(name, clients * _sum(each), ask_pool, (runner, workers, clients, each))
            bases[name] = f"{what}, pool=1"
    times = take(settings.limit(9), candidates)
    lines = [
        (name, *times.each(name, clients * each), f"{times.compare(base, name).wall:.2f}x")
        for name, base in bases.items()
    ]
    head = (f"{clients} clients", "us/ask", "of processor time", "throughput against one worker")
    return Taken(head, lines, [], times.to_raw())
