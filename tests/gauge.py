"""A stage that takes a second and knows how many of it run."""

from __future__ import annotations

import trio


class Gauge:
    """A shared runner; `took` is in seconds."""

    def __init__(self, took=1.0):
        self.took = took
        self.running = 0
        self.most = 0
        self.starts = []

    async def execute(self, ctx):
        self.running += 1
        self.most = max(self.most, self.running)
        self.starts.append((ctx.stage_name, trio.current_time()))
        try:
            await trio.sleep(self.took)
        finally:
            self.running -= 1

    @property
    def order(self):
        """The names in the order in which they started."""
        return [name for name, _ in self.starts]

    @property
    def times(self):
        """When they started, in order."""
        return [at for _, at in self.starts]


def held(limiter):
    """Return how many a limiter has running and queued."""
    return limiter.statistics().running, limiter.statistics().queued
