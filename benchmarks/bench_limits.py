"""What limits, restarts and dynamic fan-out cost: against the same runs without them.

    python benchmarks/bench_limits.py            all rows, some minutes
    python benchmarks/bench_limits.py --quick    a smoke check: fewer rounds, the large row once
    python benchmarks/bench_limits.py --only policies-500 --json figures.json

Everything is measured in one process in interleaved rounds, in processor time. A ratio is the median of
the ratios of the rounds; a time the median of the times. Building is excluded. Every output is checked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench_dag005 import measure
from limit_rows import ROWS
from rich.console import Console
from rows import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each row (default: 9)")
    parser.add_argument("--only", action="append", choices=ROWS, help="measure this row; may be given again")
    parser.add_argument("--quick", action="store_true", help="at most 3 rounds, the large row once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = read_arguments(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    settings = Settings({}, min(3, chosen.rounds) if chosen.quick else chosen.rounds, chosen.quick)
    return int(measure(console, ROWS, settings, chosen) is None)


if __name__ == "__main__":
    sys.exit(main())
