"""Break the runtime on purpose, one place at a time, and see which test notices.

    python property_tests/mutate.py [NAME ...]

Each mutation is made in a copy of the project, whose tests then run up to the first failure. Prints a
table, and exits with 1 if a mutation survives. Takes some minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("property_tests", "tests/test_traps.py", "tests/test_supervisor.py", "tests/test_memory.py")


@attrs.frozen
class Mutation:
    """One text in one file of the package, and what takes its place."""

    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation("flip a comparison: isolate at the wrong trigger", "_policy.py", "if bad:\n", "if not bad:\n"),
    Mutation("one_success runs without an ok", "_policy.py", "Trigger.ONE_SUCCESS and ok:", "Trigger.ONE_SUCCESS:"),
    Mutation("a stop isolates below all_done", "_policy.py", "if not bad or trigger", "if not bad and trigger"),
    Mutation("drop a decrement", "_tracker.py", "unmet[dependent] = count = unmet", "count = unmet"),
    Mutation(
        "start a stage before its last dependency",
        "_tracker.py",
        "            if not count:",
        "            if count < 2:",
    ),
    Mutation("forget that a dependency was skipped", "_tracker.py", "BELOW_SKIPPED if state == SKIPPED else", "0 and"),
    Mutation("skip a cause", "_bag.py", "for stage in dependencies if", "for stage in reversed(dependencies) if"),
    Mutation("a stop isolates one level only", "_tracker.py", "work.extend(dependent for", "list(dependent for"),
    Mutation("lose a reply in the ledger", "_engine.py", "self._replied += 1\n            bag =", "bag ="),
    Mutation("lose a failure in the ledger", "_engine.py", "self._failed += 1\n        self._fail", "self._fail"),
    Mutation(
        "run an unbegun stage after the stop",
        "_engine.py",
        "        if self._end is not None:\n            self._cancelled += 1\n",
        "        if False:\n            self._cancelled += 1\n",
    ),
    Mutation("share the context of who finished last", "_engine.py", "self._context.run(self._pump)", "self._pump()"),
    Mutation("freeze mappings shallowly", "_freeze.py", "value = dict(frozen)\n                break", "pass"),
    Mutation(
        "freeze lists shallowly",
        "_freeze.py",
        "tuple([item if item.__class__ in _ATOMS else _freeze(item) for item in value])\n    if cls is tuple",
        "tuple(value)\n    if cls is tuple",
    ),
    Mutation(
        "swallow the caller's cancellation",
        "_engine.py",
        "            if interrupted is not None:\n                raise interrupted\n",
        "",
    ),
    Mutation(
        "a cancel wins over a failure", "_engine.py", "elif self._fail_fast and self._stopped", "elif not self._stopped"
    ),
    Mutation("overlook a nursery that was left open", "_engine.py", "if task.child_nurseries:", "if False:"),
    Mutation("keep own frames in tracebacks", "_engine.py", "        drop_own_frames(error)\n", ""),
    Mutation("a thread's timeout counts the wait", "_threads.py", "        self._on_start()\n", ""),
    Mutation("begin a thread after the stop", "_threads.py", "await trio.lowlevel.checkpoint_if_cancelled()", "pass"),
)


def mutate(mutation: Mutation, copy: Path) -> None:
    """Apply a mutation; the text must be there exactly once."""
    path = copy / "stageflow_actors" / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        message = f"{mutation.name}: {mutation.file} has the text {text.count(mutation.old)} times, not once"
        raise SystemExit(message)
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def find_catcher(copy: Path) -> str | None:
    """Return the first test that fails in a copy, or None."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
    except subprocess.TimeoutExpired:
        return "(the tests hang)"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"(exit {done.returncode}) {done.stdout[-300:]}"


def main(names: list[str]) -> int:
    """Try the mutations whose names contain one of `names`, or all."""
    survivors = 0
    for mutation in MUTATIONS:
        if names and not any(name in mutation.name for name in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "project")
            ignored = shutil.ignore_patterns(".venv", ".git", ".hypothesis", ".*_cache", "__pycache__")
            shutil.copytree(ROOT, copy, ignore=ignored)
            mutate(mutation, copy)
            catcher = find_catcher(copy)
        survivors += catcher is None
        print(f"{mutation.name:50} {catcher or 'SURVIVES'}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
