"""What can come of a program: the set of its outcomes over every execution that a search makes."""

from __future__ import annotations

import re

import attrs

from stageflow_actors.testing._drive import drive
from stageflow_actors.testing._explore import MAX_STEPS, make_world
from stageflow_actors.testing._reduction.search import Dpor

from .race_driving import Collect, run_all

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
MOST = 20_000
"""Executions: a program of which the depth-first search needs more is too large to be compared."""


@attrs.frozen
class Outcomes:
    """What came of the executions of one search."""

    seen: frozenset
    """What they came to: a value that was returned, or a failure."""
    executions: int
    complete: bool
    """Whether the search says that no other outcome can be."""
    untracked: tuple = ()
    """What the reduction could not follow."""
    hurried: bool = False
    """Whether somebody had to be given their turn, so that nothing may be said of all schedules."""
    uncontrolled: frozenset = frozenset()


def tell_error(error):
    """Return an error as a value: a group is a tuple of what is in it, in its order."""
    if isinstance(error, BaseExceptionGroup):
        return ("group", *map(tell_error, error.exceptions))
    return (type(error).__name__, ADDRESS.sub("", str(error)))


def tell(execution):
    """Return what came of an execution, as a value that says nothing of the way there."""
    failure = execution.failure
    if failure is None:
        value = execution.value
        return ("value", ADDRESS.sub("", value) if isinstance(value, str) else value)
    if failure.error is not None:
        return (failure.kind, tell_error(failure.error))
    return (failure.kind, tuple(sorted((waiting.task, waiting.awaits) for waiting in failure.waiting)))


def collect(executions, *, complete, untracked=()):
    """Return the outcomes of executions."""
    return Outcomes(
        frozenset(map(tell, executions)),
        len(executions),
        complete,
        tuple(untracked),
        any(execution.hurried for execution in executions),
        frozenset().union(*(execution.uncontrolled for execution in executions)),
    )


def by_dfs(program, *, most=MOST, **options):
    """Return the outcomes under every schedule; not complete where there are more than `most`."""
    executions, frontier = run_all(program, most=most, **options)
    return collect(executions, complete=frontier.is_complete)


def run_reduced(program, *, most=MOST, faults=(), clock="explore", max_steps=MAX_STEPS):
    """Return every execution that the reduction makes, without those of what it falls back to, and its search."""
    search = Dpor()
    collected = Collect(search, most)
    drive(make_world(program, faults, clock, max_steps), collected)
    return collected.executions, search


def by_dpor(program, **options):
    """Return the outcomes under the schedules that the reduction runs, without what it falls back to."""
    executions, search = run_reduced(program, **options)
    ended = [execution for execution in executions if not execution.trail.is_abandoned]
    return collect(ended, complete=search.is_complete, untracked=search.untracked)


def compare(reduced, plain):
    """Assert that a reduction that calls itself complete has seen what every schedule leads to, and nothing else.

    Args:
        reduced: What it has seen.
        plain: What the depth-first search has seen; if that is not complete, it is no more than a part.
    """
    assert reduced.complete
    missing = plain.seen - reduced.seen
    assert not missing, f"{len(missing)} of {len(plain.seen)} outcomes are missing, such as {min(missing, key=str)}"
    if plain.complete:
        extra = reduced.seen - plain.seen
        assert not extra, f"{len(extra)} outcomes come of no schedule, such as {min(extra, key=str)}"
