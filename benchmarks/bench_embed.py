"""What it costs to embed a supervisor: bridges from other threads and from asyncio, and worker processes.

    python benchmarks/bench_embed.py            all rows, some minutes
    python benchmarks/bench_embed.py --quick    a smoke check: fewer rounds
    python benchmarks/bench_embed.py --only portal --json figures.json

Everything is measured in one run, in interleaved rounds, in wall time: most of it is waiting for another thread or
process. A ratio is the median of the ratios of the rounds; a time the median of the times. A bridge by hand runs the
same pipeline under the same supervisor, and does nothing else: no cancellation, no context, no end in order. Every
result is looked at.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from embed_rows import ROWS
from running import run_rows

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    return run_rows(__doc__, ROWS, arguments, rounds=3, quick="at most 3 rounds, the processes once")


if __name__ == "__main__":
    sys.exit(main())
