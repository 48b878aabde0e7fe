"""Counting, inside of stages, what limiters promise: how many at once, and how often."""

from __future__ import annotations

import threading

import attrs

from .restart_model import NEAR


@attrs.define
class Meter:
    """Who is inside of one limit."""

    limit: int | None = None
    rate: tuple[int, float, int] | None = None
    inside: int = 0
    most: int = 0
    problems: list[str] = attrs.field(factory=list)
    level: float = 0.0
    """How many tokens there were at the last start, and are left."""
    _at: float | None = None
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def enter(self, who: str, now: float | None) -> None:
        """Count one that begins, in a task or, where there is no time, in a thread."""
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.limit is not None and self.inside > self.limit:
                self.problems.append(f"{who} is number {self.inside} of at most {self.limit}")
            if self.rate is not None and now is not None:
                self.level = self.find_level(now) - 1
                self._at = now
                if self.level < -NEAR:
                    self.problems.append(f"{who} began at {now:g} without a token: {self.level:g} left of {self.rate}")

    def leave(self) -> None:
        """Count one that ends."""
        with self._lock:
            self.inside -= 1

    def find_level(self, now: float) -> float:
        """Return how many tokens there are, by the textbook."""
        assert self.rate is not None
        count, per, burst = self.rate
        if self._at is None:
            return burst
        return min(burst, self.level + (now - self._at) * count / per)


ALL = ""
"""The name of the meter of `max_running_stages`."""
