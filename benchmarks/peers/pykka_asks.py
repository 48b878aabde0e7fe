"""Asks in pykka: an actor is a thread, and an ask a future.

Not a peer for the shapes of `peers`: it has the asks of `actor_asks`, under the same names.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pykka

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from actor_timing import Stopwatch

TITLE = "pykka"


class Counter(pykka.ThreadingActor):
    """Answers with the next number."""

    def on_receive(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {"n": message["n"] + 1}


class Actors:
    """So many actors, stopped in the end."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._refs: list[Any] = []

    def __enter__(self) -> list[Any]:
        self._refs = [Counter.start() for _ in range(self._count)]
        return self._refs

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for ref in self._refs:
            ref.stop()


def ask_in_turn(watch: Stopwatch, count: int, timeout: float | None) -> int:
    """Ask one actor, one ask after the other; return the sum of the replies."""
    with Actors(1) as (ref,), watch:
        return sum(ref.ask({"n": number}, timeout=timeout)["n"] for number in range(count))


def ask_from_clients(watch: Stopwatch, actors: int, each: int, timeout: float | None) -> int:
    """Ask from one thread an actor, one ask after the other; return the sum of the replies.

    The threads are there before the time begins.
    """
    begin = threading.Event()
    totals: list[int] = []

    def be_client(ref: Any) -> None:
        begin.wait()
        totals.append(sum(ref.ask({"n": number}, timeout=timeout)["n"] for number in range(each)))

    with Actors(actors) as refs:
        clients = [threading.Thread(target=be_client, args=(ref,), daemon=True) for ref in refs]
        for client in clients:
            client.start()
        with watch:
            begin.set()
            for client in clients:
                client.join()
    return sum(totals)


def ask_by_futures(watch: Stopwatch, actors: int, each: int, timeout: float | None) -> int:
    """Ask all actors from one thread, and then wait for each reply, over and over; return the sum of the replies."""
    total = 0
    with Actors(actors) as refs, watch:
        for number in range(each):
            futures = [ref.ask({"n": number}, block=False) for ref in refs]
            total += sum(future.get(timeout=timeout)["n"] for future in futures)
    return total
