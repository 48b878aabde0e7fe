"""Hunts for a failure, and makes one that was found simpler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from ._choosers import Given
from ._drive import World, drive, find_interrupt
from ._frames import get_name
from ._report import RaceFailure
from ._schedule import encode
from ._search import Frontier, Systematic
from ._trace import Recorder, iterate_leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._choosers import Chooser
    from ._execution import Execution
    from ._search import Search

MAX_STEPS: Final = 10_000
"""Steps of an execution, unless said otherwise; one with more does not end."""

SIMPLIFYING: Final = 300
"""How many further executions a failure is worth, to find one with fewer preemptions or to prove there is none."""


@final
class Once:
    """The search that makes one execution."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser: Chooser | None = chooser
        self.execution: Execution | None = None
        """What came of it."""

    def next(self) -> Chooser | None:
        """Return its chooser, once."""
        chooser, self._chooser = self._chooser, None
        return chooser

    def learn(self, execution: Execution) -> None:
        """Hear what came of it."""
        self.execution = execution


@final
class Hunt:
    """Goes on with a search until there is a failure, or no execution is left."""

    def __init__(self, search: Search, most: int) -> None:
        self._search = search
        self._most = most
        self.executions = 0
        self.found: Execution | None = None
        self.uncontrolled: set[str] = set()
        self.is_hurried = False
        """Whether some schedules were out of reach, for nobody is kept waiting for ever."""

    @property
    def is_pure(self) -> bool:
        """Whether nothing but the choices decided about the executions."""
        return not self.uncontrolled and not self.is_hurried

    def next(self) -> Chooser | None:
        """Return the chooser of the next execution, or None."""
        if self.found is not None or self.executions >= self._most:
            return None
        return self._search.next()

    def learn(self, execution: Execution) -> None:
        """Hear what came of it."""
        self.executions += 1
        self.uncontrolled |= execution.uncontrolled
        self.is_hurried = self.is_hurried or execution.hurried
        if execution.failure is not None:
            self.found = execution
        self._search.learn(execution)


def simplify(world: World, found: Execution, frontier: Frontier) -> tuple[RaceFailure, int]:
    """Look for a failure with fewer preemptions, until there is none or it took too long; then for plainer choices.

    Returns:
        The failure, and how many executions it took.
    """
    spent = 0
    best = found
    while best.cost and not frontier.covers(best.cost - 1) and spent < SIMPLIFYING:
        hunt = Hunt(Systematic(frontier, below=best.cost), SIMPLIFYING - spent)
        _try(world, hunt)
        spent += hunt.executions
        if hunt.found is None:
            break
        best = hunt.found
    minimal = not best.cost or frontier.covers(best.cost - 1)
    best, more = _straighten(world, best, SIMPLIFYING - spent)
    recorder = Recorder()
    again = _run_again(world, best.choices, recorder)
    if again is not None and get_signature(again) == get_signature(best):
        return make_failure(world, again, recorder, minimal=minimal, reproduced=True), spent + more
    return make_failure(world, best, recorder, minimal=False, reproduced=False), spent + more


def _run_again(world: World, choices: Sequence[int], recorder: Recorder | None = None) -> Execution | None:
    """Return what came of these choices if they fail."""
    once = Once(Given(choices))
    _try(world, once, recorder)
    return None if once.execution is None or once.execution.failure is None else once.execution


def _try(world: World, search: Search, recorder: Recorder | None = None) -> None:
    """Run what may end without a result: a test that is skipped under some schedules fails under another."""
    try:
        drive(world, search, recorder=recorder)
    except KeyboardInterrupt:
        raise
    except BaseException as verdict:
        if find_interrupt(verdict) is None:
            raise


def _straighten(world: World, best: Execution, most: int) -> tuple[Execution, int]:
    """Put the default in the place of each choice, from the last, where it fails in the same way all the same."""
    spent = 0
    at = len(best.choices)
    while at and spent < most:
        at -= 1
        if at >= len(best.choices) or not best.choices[at]:
            continue
        other = _run_again(world, [*best.choices[:at], 0, *best.choices[at + 1 :]])
        spent += 1
        if other is not None and other.cost <= best.cost and get_signature(other) == get_signature(best):
            best = other
    return best, spent


def get_signature(execution: Execution) -> tuple[str, frozenset[type[BaseException]]]:
    """Return what two executions that fail in the same way have in common."""
    failure = execution.failure
    assert failure is not None
    leaves = () if failure.error is None else iterate_leaves(failure.error)
    return failure.kind, frozenset(map(type, leaves))


def make_failure(
    world: World, execution: Execution, recorder: Recorder, *, minimal: bool | None, reproduced: bool
) -> RaceFailure:
    """Return what is told of an execution that failed.

    Args:
        world: Where it failed.
        execution: What came of it.
        recorder: Of its trace.
        minimal: Whether none fails with fewer preemptions; None where nobody looked.
        reproduced: Whether it failed again.
    """
    raw = execution.failure
    assert raw is not None
    schedule = encode(execution.choices)
    options = [repr(schedule)]
    if world.faults:
        options.append(f"faults={world.faults!r}")
    if not world.explores_clock:
        options.append("clock='auto'")
    if world.max_steps != MAX_STEPS:
        options.append(f"max_steps={world.max_steps}")
    return RaceFailure(
        program=get_name(world.program),
        kind=raw.kind,
        error=raw.error,
        schedule=schedule,
        preemptions=recorder.preemptions,
        jumps=recorder.jumps,
        faults=recorder.faults,
        minimal=minimal,
        reproduced=reproduced,
        steps=len(recorder.steps) or raw.step,
        trace=tuple(recorder.steps),
        waiting=raw.waiting,
        uncontrolled=tuple(sorted(execution.uncontrolled)),
        call=f"replay({get_name(world.program)}, {', '.join(options)})",
    )
