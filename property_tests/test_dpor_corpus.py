"""Of every program of the corpus, the reduction sees what the depth-first search sees: the bugs, and nothing else."""

from __future__ import annotations

import sys

import pytest

from stageflow_actors.testing import explore

from .corpus import CORPUS
from .outcomes_of import by_dfs, by_dpor, compare

MAX_STEPS = 200
"""Far more than any program of the corpus has that ends; one has a livelock."""
CLOCKS = ("explore", "auto")
EVERY = 20_000
EVERY_DAY = 2_000

TOO_LARGE = {
    ("count to infinity", "bug", "explore"),
    ("count to infinity", "bug", "auto"),
    ("two-phase commit", "bug", "explore"),
    ("reply to another", "bug", "explore"),
    ("reply to another", "twin", "explore"),
}
"""Programs of which the depth-first search does not finish within 20,000 executions: 5 of 220."""

LARGE = {
    ("two-phase commit", "twin", "explore"),  # 18,907 executions
    ("lock of another", "bug", "explore"),  # 18,624
    ("redelivered job", "bug", "explore"),  # 16,536
    ("redelivered job", "twin", "explore"),  # 16,536
    ("reply to another", "bug", "auto"),  # 4,792
    ("reply to another", "twin", "auto"),  # 4,792
    ("two-phase commit", "bug", "auto"),  # 2,637
    ("two-phase commit", "twin", "auto"),  # 2,637
}
"""Programs of which it does, but not every day."""

PROGRAMS = [
    pytest.param(
        getattr(entry, which),
        clock,
        id=f"{entry.name} {which} {clock}",
        marks=[pytest.mark.slow] if (entry.name, which, clock) in LARGE | TOO_LARGE else [],
    )
    for entry in CORPUS
    for which in ("bug", "twin")
    for clock in CLOCKS
]


def with_state(program):
    """Return a program that returns the plain values among its variables, as they are when it ends."""

    async def ending():
        kept = {}

        def note(frame, event, _told):
            if event == "return" and frame.f_code is program.__code__:
                kept.update(pick_plain(frame.f_locals))

        sys.setprofile(note)
        try:
            await program()
        finally:
            sys.setprofile(None)
        return repr(kept)

    ending.__name__ = program.__name__
    return ending


def pick_plain(variables):
    """Return those that are numbers, texts, or containers of such, as texts."""
    return {name: repr(value) for name, value in variables.items() if is_plain(value)}


def is_plain(value):
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return value is None or isinstance(value, (int, float, str, bytes))


@pytest.mark.parametrize(("program", "clock"), PROGRAMS)
def test_the_same_outcomes(program, clock, request):
    observed = with_state(program)
    is_slow = request.node.get_closest_marker("slow") is not None
    plain = by_dfs(observed, most=EVERY if is_slow else EVERY_DAY, clock=clock, max_steps=MAX_STEPS)
    reduced = by_dpor(observed, most=EVERY, clock=clock, max_steps=MAX_STEPS)
    if reduced.complete:
        compare(reduced, plain)
    else:
        assert reduced.untracked or reduced.hurried, reduced
    assert is_slow or plain.complete


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)
def test_each_bug_is_found(entry):
    failure = explore(entry.bug, strategy="dpor", max_executions=2_000).failure
    assert failure is not None
    assert failure.kind in {entry.shows, "exception"}  # an assertion may notice first what would end in a deadlock
    assert failure.reproduced


@pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)
def test_no_twin_fails(entry):
    report = explore(entry.twin, strategy="dpor", max_executions=2_000)
    report.raise_for_failure()
    assert not report.diverged
