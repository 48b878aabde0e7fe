"""How others look for a bug of the corpus: trio as it is, run again and again, and trio seeded by Hypothesis."""

from __future__ import annotations

import contextlib
from time import process_time
from typing import TYPE_CHECKING, Any, Final

import attrs
import hypothesis
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Program = Callable[[], Awaitable[None]]

HUNG: Final = 1e6
"""Virtual seconds after which a program counts as hung: nothing in it can go on."""

MAX_STEPS: Final = 10_000
"""Steps after which a program counts as one that does not end."""


@attrs.define
class Hunt:
    """A search for one bug, and what came of it."""

    most: int
    """Runs."""
    seconds: float
    """Of processor time, after which no further run begins."""
    runs: int = 0
    took: float = 0.0
    kind: str | None = None
    """How it failed; None as long as it has not."""

    def is_over(self) -> bool:
        return self.kind is not None or self.runs >= self.most or self.took >= self.seconds

    def go(self, program: Program) -> None:
        """Run the program once more."""
        began = process_time()
        self.kind = run_once(program)
        self.took += process_time() - began
        self.runs += 1


class Leash(trio.abc.Instrument):
    """Cancels a program that makes too many steps, or that waits for ever."""

    def __init__(self) -> None:
        self.steps = 0
        self.scope = trio.CancelScope()

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == MAX_STEPS:
            self.scope.cancel()

    async def hold(self, program: Program) -> None:
        self.scope.relative_deadline = HUNG
        with self.scope:
            await program()


def run_once(program: Program) -> str | None:
    """Run a program with trio's own scheduler on a virtual clock; return how it failed, None if it did not."""
    leash = Leash()
    raised = False
    try:
        trio.run(leash.hold, program, clock=trio.testing.MockClock(autojump_threshold=0), instruments=[leash])
    except Exception:
        raised = True
    if leash.scope.cancel_called:
        return "no end" if leash.steps >= MAX_STEPS else "hang"
    return "exception" if raised else None


@contextlib.contextmanager
def scheduling(*, seeded: bool) -> Iterator[Any]:
    """Have trio shuffle what is ready by its random numbers, as under pytest-trio, or do as it does by itself.

    To import Hypothesis is enough for trio to shuffle, so that must be undone.

    Yields:
        The source of those random numbers.
    """
    run: Any = trio._core._run
    before, state = run._ALLOW_DETERMINISTIC_SCHEDULING, run._r.getstate()
    run._ALLOW_DETERMINISTIC_SCHEDULING = seeded
    try:
        yield run._r
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before
        run._r.setstate(state)


def hunt_plainly(program: Program, *, most: int, seconds: float) -> Hunt:
    """Run a program again and again, until it fails or the budget is used up."""
    hunt = Hunt(most, seconds)
    with scheduling(seeded=False):
        while not hunt.is_over():
            hunt.go(program)
    return hunt


class _OverError(Exception):
    """Ends the examples: there is a failure, or no budget."""


def hunt_seeded(program: Program, *, most: int, seconds: float) -> Hunt:
    """Run a program with one seed of trio's scheduler after another, drawn by Hypothesis."""
    hunt = Hunt(most, seconds)

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=most,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        deadline=None,
        database=None,
    )
    @hypothesis.given(st.integers(0, 2**64 - 1))
    def attempt(seed: int) -> None:
        if not hunt.is_over():
            source.seed(seed)
            hunt.go(program)
        # Hypothesis repeats a failing example, which must fail again.
        if hunt.kind is not None or hunt.took >= hunt.seconds:
            raise _OverError

    with scheduling(seeded=True) as source, contextlib.suppress(_OverError):
        attempt()
    return hunt
