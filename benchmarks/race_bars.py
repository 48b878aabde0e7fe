"""What all rows of the benchmark of the race-testing toolkit share: budgets, settings, figures to reach."""

from __future__ import annotations

import sys
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any, Final

import attrs
from race_kept import Kept
from rows import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the corpus is in property_tests, not installed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from property_tests.corpus import Entry

EXECUTIONS: Final = 1000
SECONDS: Final = 5.0
"""Of processor time, for others at work on the machine must not count."""


@attrs.frozen
class Bar(Figure):
    """A figure to reach, with the names of what missed it."""

    missed: tuple[str, ...] = ()
    number: int = 0
    """Of the figure in the list of those to reach, which has several parts."""


@attrs.frozen
class Settings:
    """What all rows share."""

    entries: Sequence[Entry]
    rounds: int = 5
    """Of times; and how many seeds each bug is looked for with."""
    peer_runs: int = 10_000
    peer_seconds: float = SECONDS
    twin_executions: int = 10_000
    shared_executions: int = 1000
    replays: int = 25
    """Under each hash seed, at least."""
    together: int = 5
    """Replays in one process."""
    rivals: int | None = None
    """How many bugs are hunted by frontrun too; None: all that there are on asyncio."""
    rival_executions: int = EXECUTIONS
    rival_seconds: float = SECONDS
    """Of wall time, for a hunt of frontrun's."""
    tell: Callable[[str], None] = lambda _: None
    """Is told what is going on."""
    kept: Kept = attrs.field(factory=Kept)
    """What is measured already."""


QUICK: Final[dict[str, Any]] = {
    "rounds": 2,
    "peer_runs": 100,
    "peer_seconds": 0.1,
    "twin_executions": 100,
    "shared_executions": 200,
    "replays": 1,
    "together": 100,
    "rivals": 1,
    "rival_executions": 20,
    "rival_seconds": 0.1,
}


def percent(what: str, bar: float, verdicts: Sequence[tuple[str, bool]], *, number: int = 0) -> Bar:
    """Return which share of some is as it has to be, in per cent; of none it is all."""
    missed = tuple(name for name, good in verdicts if not good)
    total = len(verdicts)
    good = total - len(missed)
    note = f"{good} of {total}"
    reached = 100 * good / total if total else 100.0
    return Bar(what, bar, reached, "%", at_most=False, note=note, missed=missed, number=number)


def time_call(function: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function; return what it gave, and the seconds of processor time that it took."""
    began = process_time()
    value = function()
    return value, process_time() - began
