"""What limits, restarts and dynamic fan-out cost: against the same runs without them.

    python benchmarks/bench_limits.py            all rows, some minutes
    python benchmarks/bench_limits.py --quick    a smoke check: fewer rounds, the large row once
    python benchmarks/bench_limits.py --only policies-500 --json figures.json

Everything is measured in one process in interleaved rounds, in processor time. A ratio is the median of
the ratios of the rounds; a time the median of the times. Building is excluded. Every output is checked.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from limit_rows import ROWS
from running import run_rows

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    return run_rows(__doc__, ROWS, arguments, rounds=3, quick="at most 3 rounds, the large row once")


if __name__ == "__main__":
    sys.exit(main())
