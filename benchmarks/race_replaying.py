"""Replays schedules of the corpus in a process of its own, to see whether it is the same there.

Run as a script, it reads `[[name, schedule], ...]` from stdin and writes what came of each to stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the corpus is in property_tests, not installed

from property_tests.corpus import find
from stageflow_actors.errors import ReplayError
from stageflow_actors.testing import replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stageflow_actors.testing import RaceFailure


def describe(failure: RaceFailure | None) -> dict[str, Any] | None:
    """Return all that two replays of a failure must have in common."""
    if failure is None:
        return None
    return {
        "kind": failure.kind,
        "error": repr(failure.error),
        "schedule": failure.schedule,
        "preemptions": failure.preemptions,
        "jumps": failure.jumps,
        "steps": failure.steps,
        "trace": [str(step) for step in failure.trace],
        "waiting": [str(waiting) for waiting in failure.waiting],
    }


def replay_one(name: str, schedule: str) -> dict[str, Any] | None:
    """Replay a bug of the corpus, and describe what came of it."""
    try:
        return describe(replay(find(name).bug, schedule))
    except ReplayError as error:
        return {"refused": str(error)}


def replay_elsewhere(schedules: Sequence[tuple[str, str]], hash_seed: int) -> list[Any]:
    """Replay bugs of the corpus, by name and schedule, in a fresh process under a hash seed."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(schedules),
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    replayed: list[Any] = json.loads(done.stdout)
    return replayed


if __name__ == "__main__":
    json.dump([replay_one(name, schedule) for name, schedule in json.load(sys.stdin)], sys.stdout)
