"""Shows what plain trio notices of the mutations of races: the programs that the toolkit explores, run as they are.

Run it from the root of the repository: `python property_tests/plain_trio.py`. It prints, for each mutation, what
exploring says with default settings, and in how many ordinary runs something is wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from property_tests.mutate import Bench
from property_tests.mutations_of_races import NOTICED_BY

PROGRAM = """
import logging, trio, trio.testing
from property_tests.{module} import {name} as test

logging.disable(logging.CRITICAL)


async def main():
    with trio.fail_after(1000):
        await test.__wrapped__()


noticed = 0
for _ in range({times}):
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except Exception:
        noticed += 1
try:
    test()
    found = "nothing"
except AssertionError as error:
    found = str(error).splitlines()[-1]
print(f"{{noticed}} of {times} ordinary runs; explored: {{found}}")
"""


def main() -> None:
    """Print a line for each mutation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=200, help="ordinary runs of each program")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        bench = Bench(Path(folder), [], examples=1)
        for mutation, node in NOTICED_BY.items():
            module, _, name = node.replace(".py", "").partition("::")
            with bench.mutated(mutation):
                done = bench.python("-c", PROGRAM.format(module=module, name=name, times=options.times))
            print(f"{mutation.name}\n    {done.stdout.strip() or done.stderr.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
