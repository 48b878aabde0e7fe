"""The corpus is in order: named, sourced, its twins pass, and its bugs show as they say, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from property_tests.corpus import CORPUS, MADE_UP, Entry, find

RUNS = 30
SECONDS = 1_000  # of the mock clock: far past every deadline in the corpus
STEPS = 500  # far past the steps of every program that ends
HANGS = {"deadlock", "lost wake-up"}


class StepLimit(trio.abc.Instrument):
    """Cancels a run that takes too many steps: a livelock never lets a mock clock jump."""

    def __init__(self, scope):
        self._scope = scope
        self._left = STEPS
        self.spent = False

    def before_task_step(self, task):
        self._left -= 1
        if self._left == 0:
            self.spent = True
            self._scope.cancel()


async def guarded(program):
    """Say how a program ended: "passed", "exception", "hang" or "livelock"."""
    with trio.move_on_after(SECONDS) as scope:
        limit = StepLimit(scope)
        trio.lowlevel.add_instrument(limit)
        try:
            await program()
        except Exception:
            return "exception"
        finally:
            trio.lowlevel.remove_instrument(limit)
    if limit.spent:
        return "livelock"
    return "hang" if scope.cancelled_caught else "passed"


def run_guarded(program):
    return trio.run(guarded, program, clock=trio.testing.MockClock(autojump_threshold=0))


def allowed(entry):
    """Ends that a bug may come to: it shows, or it does not."""
    return {"passed", "hang" if entry.shows in HANGS else entry.shows}


each_entry = pytest.mark.parametrize("entry", CORPUS, ids=lambda entry: entry.name)


def test_no_name_is_given_twice():
    names = [entry.name for entry in CORPUS]
    assert len(set(names)) == len(names)


def test_no_program_is_given_twice():
    programs = [program for entry in CORPUS for program in (entry.bug, entry.twin)]
    assert len(set(programs)) == len(programs)


def test_every_entry_has_a_source_and_most_are_published():
    assert all(entry.source.strip() for entry in CORPUS)
    assert sum(entry.published for entry in CORPUS) * 2 >= len(CORPUS)
    assert {entry.source for entry in CORPUS if not entry.published} == {MADE_UP}


def test_it_is_large_deep_and_shows_every_kind_of_failure():
    assert len(CORPUS) >= 40
    assert {entry.depth for entry in CORPUS} == {1, 2, 3, 4, 5}
    assert {entry.shows for entry in CORPUS} == {"exception", "deadlock", "lost wake-up", "livelock"}
    assert any(entry.needs_clock for entry in CORPUS)


def test_entries_are_found_by_name():
    assert all(find(entry.name) is entry for entry in CORPUS)
    with pytest.raises(KeyError, match="no such entry"):
        find("no such entry")


def test_a_depth_counts_from_one():
    lost_update = find("lost update")
    with pytest.raises(ValueError, match="depth"):
        Entry(name="x", kind="x", depth=0, source="x", bug=lost_update.bug, twin=lost_update.twin, shows="exception")


def test_the_guard_knows_every_end():
    async def spin():
        while True:
            await trio.lowlevel.checkpoint()

    async def fail():
        raise ValueError

    assert run_guarded(trio.sleep_forever) == "hang"
    assert run_guarded(spin) == "livelock"
    assert run_guarded(fail) == "exception"
    assert run_guarded(trio.lowlevel.checkpoint) == "passed"


@each_entry
def test_a_twin_passes(entry):
    assert {run_guarded(entry.twin) for _ in range(RUNS)} == {"passed"}


@each_entry
def test_a_bug_shows_as_it_says_or_not_at_all(entry):
    assert {run_guarded(entry.bug) for _ in range(RUNS // 3)} <= allowed(entry)


def test_the_readme_lists_the_corpus():
    text = (Path(__file__).parent.parent / "property_tests" / "corpus" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == [
        f"| {entry.name} | {entry.kind} | {entry.depth} | {entry.shows} | {entry.source} |" for entry in CORPUS
    ]
