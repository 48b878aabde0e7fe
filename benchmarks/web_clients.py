"""The clients of the load test: what each kind does, and what became of it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CITIES: Final = ("Athens", "Bergen", "Cairo", "Delhi", "Lima", "Oslo", "Quito", "Rome")
KINDS: Final = {"report": 0.45, "stream": 0.3, "leaves a stream": 0.15, "leaves a report": 0.1}
"""How often each comes up."""
LONG: Final = 30.0
"""Seconds that a station takes whose client leaves first."""
PATIENCE: Final = 30.0
"""Seconds within which the server has to answer; longer is an error."""


@attrs.frozen
class Order:
    """What one client asks for, and whether it stays."""

    kind: str
    cities: tuple[str, ...]
    delay: float

    @property
    def query(self) -> dict[str, Any]:
        """The order, as the server takes it."""
        return {"cities": list(self.cities), "delay": self.delay}


def draw(random: Random) -> Order:
    """Draw an order."""
    (kind,) = random.choices(list(KINDS), list(KINDS.values()))
    cities = (*random.sample(CITIES, random.randint(1, 6)), *(["Atlantis"] if random.random() < 0.2 else []))
    return Order(kind, cities, LONG if kind.startswith("leaves") else random.uniform(0.0, 0.1))


@attrs.define
class Tally:
    """What became of all requests."""

    done: Counter[str] = attrs.field(factory=Counter)
    """By kind: those that ended as their client wanted, leaving included."""
    refused: Counter[str] = attrs.field(factory=Counter)
    """By kind: those that were told to come back."""
    errors: list[str] = attrs.field(factory=list)
    """What the clients have not caused."""
    seconds: dict[str, list[float]] = attrs.field(factory=lambda: {kind: [] for kind in KINDS})
    """By kind, of those that were done: until the whole answer; for one that leaves a stream, until its first event."""

    @property
    def total(self) -> int:
        """How many there were."""
        return self.done.total() + self.refused.total() + len(self.errors)


class WrongAnswerError(Exception):
    """An answer that the server must not give."""


async def visit(client: httpx.AsyncClient, order: Order, tally: Tally) -> bool:
    """Do what one client does, once; return whether it was told to come back."""
    began = perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            if order.kind == "report":
                check(order, read(await client.post("/reports", json=order.query)))
            elif order.kind == "leaves a report":
                await leave_report(client, order)
            else:
                began = await follow(client, order, began)
    except Refused:
        tally.refused[order.kind] += 1
        return True
    except Exception as error:
        tally.errors.append(f"{order.kind}: {type(error).__name__}: {error}")
    else:
        tally.done[order.kind] += 1
        tally.seconds[order.kind].append(perf_counter() - began)
    return False


class Refused(Exception):  # noqa: N818 (no error: the server says so, as it should)
    """The server is busy."""


def refuse_if_busy(answer: httpx.Response) -> None:
    if answer.status_code == 503 and answer.headers.get("Retry-After") == "1":
        raise Refused
    if answer.status_code != 200:
        raise WrongAnswerError(f"status {answer.status_code}")


def read(answer: httpx.Response) -> dict[str, Any]:
    refuse_if_busy(answer)
    return answer.json()  # type: ignore[no-any-return]


def check(order: Order, report: dict[str, Any]) -> None:
    """Compare a report with what it has to be."""
    known = {reading["city"] for reading in report["ranking"]}
    if report["ended"] != "completed" or known != set(order.cities) - {"Atlantis"}:
        raise WrongAnswerError(f"{report} to {order}")
    if set(report["missing"]) != set(order.cities) & {"Atlantis"}:
        raise WrongAnswerError(f"{report} to {order}")


async def leave_report(client: httpx.AsyncClient, order: Order) -> None:
    """Ask for a report, and go away before it can be there; a refusal is there at once."""
    try:
        async with asyncio.timeout(0.2):
            answer = await client.post("/reports", json=order.query)
    except TimeoutError:
        return
    refuse_if_busy(answer)
    raise WrongAnswerError(f"an answer before it could be there: {answer.text}")


async def follow(client: httpx.AsyncClient, order: Order, began: float) -> float:
    """Read a stream to its end or, leaving, up to an early event; return when it began, for its latency."""
    async with client.stream("GET", "/reports/events", params=order.query) as answer:
        refuse_if_busy(answer)
        last: tuple[str, Any] = ("", None)
        async for event in read_events(answer):
            if order.kind == "leaves a stream":
                return began
            last = event
    if last[0] != "result":
        raise WrongAnswerError(f"a stream that ended with {last}")
    check(order, last[1])
    return began


async def read_events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Read server-sent events: the kind of each, and its data."""
    kind = ""
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


async def live(address: str, context: ssl.SSLContext, seed: str, tally: Tally, stop: asyncio.Event) -> None:
    """Be one client after the other, until it is enough."""
    random = Random(seed)
    # A pool for each: one for all would look through all its connections at each request. And it lets go of an idle
    # connection before the server does, or the two might do at the same moment what does not fit together.
    limits = httpx.Limits(keepalive_expiry=1.0)
    async with httpx.AsyncClient(
        base_url=address, limits=limits, timeout=None, verify=context, trust_env=False
    ) as client:
        while not stop.is_set():
            if await visit(client, draw(random), tally):
                await asyncio.sleep(random.uniform(0.2, 1.0))  # it was told to come back in a second


async def crowd(address: str, clients: int, seconds: float, seed: str) -> Tally:
    """Be so many clients at once, for so many seconds; each ends what it has begun."""
    tally = Tally()
    stop = asyncio.Event()
    context = ssl.create_default_context()  # of no use here, and slow to make: once for all
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(live(address, context, f"{seed}.{number}", tally, stop))
        await asyncio.sleep(seconds)
        stop.set()
    return tally
