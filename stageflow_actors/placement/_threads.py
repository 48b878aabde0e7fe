"""Plain functions in a pool of threads of their own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import attrs
import trio

from stageflow_actors._placement import Placement, Site
from stageflow_actors._threads import ThreadedCall
from stageflow_actors._validation import require_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from stageflow_actors import StageContext
    from stageflow_actors._placement import Host
    from stageflow_actors._stage import RunnerForm


def threads(max_threads: int) -> Placement:
    """Return a placement for what blocks: at most so many of its stages are in worker threads at once.

    They take no place among the supervisor's own `max_threads`, and lose none to others: a slow database behind
    `threads(4)` holds up four stages, and nothing else. The number is kept for each supervisor that uses it. In all
    else such a stage is a plain `def` as without a placement: it hears of its end from
    `trio.from_thread.check_cancelled`, and is `ABANDONED` where it does not end within the shutdown budget. Its place
    is taken until its thread really ends.

    Args:
        max_threads: How many may be at work at once.

    Raises:
        PipelineValidationError: It is no number of threads.
    """
    return ThreadPlacement(require_count("max_threads", max_threads))


@final
@attrs.frozen(eq=False)
class ThreadPlacement(Placement):
    """Made by `threads`."""

    max_threads: int

    def check(self, _runner: Any, form: RunnerForm) -> str | None:
        """Refuse async stages."""
        return "awaits, as it is async: a thread runs plain functions" if form.is_async else None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Site]:
        """Open it."""
        yield ThreadSite(trio.CapacityLimiter(self.max_threads))

    def __repr__(self) -> str:
        """Write it as it is made."""
        return f"threads({self.max_threads})"


@final
class ThreadSite(Site):
    """A pool of threads, while a supervisor is open."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter

    async def call(
        self, function: Callable[[StageContext], Any], ctx: StageContext, begin: Callable[[], None], host: Host
    ) -> Any:
        """Run one attempt in a thread."""
        return await ThreadedCall(function, self._limiter, begin, host.keep).run(ctx, host.shutdown)
