"""What is run: a source, workers and a join; or a chain. Every stage reads, and returns a small dict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

SEED = 1009
"""What the source hands to every worker, and what the chain counts up from."""


@attrs.frozen
class Wide:
    """A source, `size` workers that each read one value of it, and a join that reads a value of each."""

    size: int
    latency: float = 0.0
    """Seconds that each worker sleeps."""
    stuck: bool = False
    """Whether the source never ends."""

    def __len__(self) -> int:
        return self.size + 2

    @property
    def workers(self) -> list[str]:
        return [f"worker-{key}" for key in range(self.size)]

    def graph(self) -> dict[str, tuple[str, ...]]:
        """Return what each stage depends on."""
        workers = self.workers
        return {"source": (), **dict.fromkeys(workers, ("source",)), "join": tuple(workers)}

    def expect(self) -> dict[str, Mapping[str, Any]]:
        """Return the data of every stage."""
        values = range(SEED, SEED + self.size)
        workers = {f"worker-{key}": {"value": value} for key, value in enumerate(values)}
        return {"source": {"seed": SEED}, **workers, "join": {"total": sum(values)}}


@attrs.frozen
class Chain:
    """`size` stages in a row; each adds one to the value of the one before."""

    size: int

    def __len__(self) -> int:
        return self.size

    def graph(self) -> dict[str, tuple[str, ...]]:
        """Return what each stage depends on."""
        return {f"link-{key}": (f"link-{key - 1}",) if key else () for key in range(self.size)}

    def expect(self) -> dict[str, Mapping[str, Any]]:
        """Return the data of every stage."""
        return {f"link-{key}": {"value": SEED + key} for key in range(self.size)}


Shape = Wide | Chain
