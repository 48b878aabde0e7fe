"""Breaks the runtime on purpose, one mutation at a time, and shows which test notices.

Run it from the root of the repository: `python property_tests/mutate.py`. It works on a temporary copy,
prints a table, and exits with 1 if a mutation survives or can no longer be applied.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __package__:
    from .mutations import MUTATIONS as BASIC
    from .mutations import Mutation
    from .mutations_of_actors import MUTATIONS as ACTORS
    from .mutations_of_limits import MUTATIONS as LIMITS
    from .mutations_of_races import MUTATIONS as RACES
else:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from mutations import MUTATIONS as BASIC
    from mutations import Mutation
    from mutations_of_actors import MUTATIONS as ACTORS
    from mutations_of_limits import MUTATIONS as LIMITS
    from mutations_of_races import MUTATIONS as RACES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "stageflow_actors"
# A failing example needs no shrinking here, the same examples are drawn for every mutation, and none is
# kept from one mutation for the next.
PROFILE = """
from hypothesis import HealthCheck, Phase, settings
settings.register_profile(
    "mutate", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
    max_examples={examples}, suppress_health_check=list(HealthCheck),
)
"""
PATIENCE = 3
"""How many times longer than without a mutation the tests may take; then they hang, which counts as noticing."""


class Bench:
    """A copy of the repository in which the tests run against mutated code."""

    def __init__(self, folder: Path, tests: list[str], examples: int) -> None:
        self.folder = folder
        self._tests = tests
        ignore = shutil.ignore_patterns(".*", "__pycache__", "dist", "build")
        shutil.copytree(ROOT, folder, ignore=ignore, dirs_exist_ok=True)
        (folder / "mutate_profile.py").write_text(PROFILE.format(examples=examples), encoding="utf-8")
        self._limit: float | None = None
        self._environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        imported = self.python("-c", f"import {PACKAGE}; print({PACKAGE}.__file__)").stdout.strip()
        if not imported.startswith(str(folder)):
            sys.exit(f"the copy is not what is imported, but {imported}")

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=self._limit,
            check=False,
        )

    def run(self) -> str | None:
        """Run the tests; return what noticed something first, or None where nothing did."""
        options = ["-p", "mutate_profile", "--hypothesis-profile=mutate", "-p", "no:cacheprovider"]
        try:
            done = self.python("-m", "pytest", "-x", "-q", "--tb=no", *options, *self._tests)
        except subprocess.TimeoutExpired:
            return f"hung for {self._limit:.0f} s"
        if done.returncode == 0:
            return None
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return found[1] if found else f"pytest ended with {done.returncode}: {done.stderr[-200:] or done.stdout[-200:]}"

    def run_unbroken(self) -> str | None:
        """Run the tests without a mutation, and learn how long they take."""
        began = time.monotonic()
        noticed = self.run()
        self._limit = PATIENCE * (time.monotonic() - began)
        return noticed

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Apply a mutation to the copy for the length of a block."""
        path = self.folder / PACKAGE / mutation.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")

    def try_out(self, mutation: Mutation) -> str | None:
        """Run the tests with a mutation applied."""
        with self.mutated(mutation):
            return self.run()


def find_stale(mutations: list[Mutation]) -> list[Mutation]:
    """Return the mutations whose text does not occur exactly once."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / PACKAGE).glob("*.py")}
    return [mutation for mutation in mutations if texts.get(mutation.file, "").count(mutation.old) != 1]


def main() -> int:
    """Try every mutation; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tests", nargs="*", default=["property_tests", "tests"], help="what to run")
    parser.add_argument("--only", default="", help="part of the names of the mutations to try")
    parser.add_argument("--skip", type=int, default=0, help="how many of them to leave out, from the first")
    parser.add_argument("--examples", type=int, default=100, help="examples a property test")
    parser.add_argument("--list", action="store_true", help="only say which mutations there are, and which are stale")
    options = parser.parse_args()
    chosen = [mutation for mutation in (*BASIC, *LIMITS, *RACES, *ACTORS) if options.only in mutation.name][
        options.skip :
    ]
    stale = find_stale(chosen)
    for mutation in chosen if options.list else stale:
        print(f"{'STALE' if mutation in stale else 'ok':6} {mutation.file:18} {mutation.name}")
    if options.list or not chosen:
        return bool(stale) or not chosen
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        bench = Bench(Path(folder), options.tests, options.examples)
        broken = bench.run_unbroken()
        if broken is not None:
            print(f"without any mutation the tests do not pass: {broken}")
            return 1
        for mutation in [mutation for mutation in chosen if mutation not in stale]:
            began = time.monotonic()
            noticed = bench.try_out(mutation)
            survivors += noticed is None
            took = time.monotonic() - began
            print(f"{mutation.file:18} {mutation.name:55} {noticed or 'SURVIVED'}  ({took:.0f} s)", flush=True)
    print(f"{len(chosen)} mutations, {survivors} survived, {len(stale)} stale")
    return bool(survivors or stale)


if __name__ == "__main__":
    sys.exit(main())
