"""Bugs of a known depth, on asyncio."""

from __future__ import annotations

import asyncio

from .form import OnAsyncio, Pair, pause


class DepthThree(OnAsyncio):
    rungs = 4
    tasks = (("pass_by", 0), ("pass_by", 1))

    def __init__(self):
        self.height = 0

    async def pass_by(self, first):
        for rung in range(first, self.rungs, 2):
            if self.height == rung:
                self.height += 1
            await pause()

    def holds(self):
        return self.height < self.rungs


class DepthThreeTwin(DepthThree):
    tasks = (("pass_by_alone", 0), ("pass_by_alone", 1))

    def __init__(self):
        super().__init__()
        self.lock = asyncio.Lock()

    async def pass_by_alone(self, first):
        async with self.lock:
            await pause()
            await self.pass_by(first)


class DepthFour(DepthThree):
    rungs = 5


class DepthFourTwin(DepthThreeTwin):
    rungs = 5


class DepthFive(DepthThree):
    rungs = 6


class DepthFiveTwin(DepthThreeTwin):
    rungs = 6


PAIRS = {
    "depth 3": Pair(DepthThree, DepthThreeTwin),
    "depth 4": Pair(DepthFour, DepthFourTwin),
    "depth 5": Pair(DepthFive, DepthFiveTwin),
}
