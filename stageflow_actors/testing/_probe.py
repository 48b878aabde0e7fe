"""What the running loop is asked for at every step."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, TypeAlias

import trio
from trio.lowlevel import current_statistics, current_task

Probes: TypeAlias = tuple[Callable[[], float], Callable[[], int], Callable[[float], list[Any] | None]]


def make_probes() -> Probes:
    """Return functions that ask the loop.

    They give the next deadline, infinite if there is none; how many callbacks are queued; and the cancel scopes with a
    deadline up to a time, None where that cannot be told.

    Trio's statistics have the first two, and cost as much as a step does, for they ask the operating system's
    interface too. So it is tried whether what they are made from can be read directly; if not, speed is lost, and
    jumps of the clock are followed less exactly.
    """
    try:
        runner: Any = current_task()._runner  # noqa: SLF001 (see above)
        get_deadline: Callable[[], float] = runner.deadlines.next_deadline
        count_callbacks: Callable[[], int] = runner.entry_queue.size
        statistics = current_statistics()
        if get_deadline() == inf == statistics.seconds_to_next_deadline and isinstance(count_callbacks(), int):

            def list_expiring(until: float) -> list[Any]:
                heap: list[tuple[float, int, Any]] = runner.deadlines._heap  # noqa: SLF001
                return [scope for deadline, _, scope in heap if deadline <= until and deadline == _registered(scope)]

            list_expiring(0)

            return get_deadline, count_callbacks, list_expiring
    except AttributeError:
        pass
    return _get_deadline, _count_callbacks, lambda _until: None


def _registered(scope: Any) -> float:
    deadline: float = scope._registered_deadline  # noqa: SLF001
    return deadline


def _get_deadline() -> float:
    return trio.current_time() + current_statistics().seconds_to_next_deadline


def _count_callbacks() -> int:
    return current_statistics().run_sync_soon_queue_size
