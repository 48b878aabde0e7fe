"""Executions of the race toolkit one by one, as the tests of its engine look at them."""

from __future__ import annotations

from stageflow_actors.testing._choosers import Given
from stageflow_actors.testing._drive import drive
from stageflow_actors.testing._explore import MAX_STEPS, make_world, record
from stageflow_actors.testing._search import Frontier, Systematic


class Collect:
    """A search that keeps what came of each execution of another."""

    def __init__(self, search, most):
        self.search = search
        self.most = most
        self.executions = []

    def next(self):
        return None if len(self.executions) >= self.most else self.search.next()

    def learn(self, execution):
        self.executions.append(execution)
        self.search.learn(execution)


class Listed:
    """A search that runs given schedules, or those of given choosers."""

    def __init__(self, choosers):
        self.choosers = iter(choosers)

    def next(self):
        return next(self.choosers, None)

    def learn(self, execution):
        """Nothing is to be learnt: what is run is decided."""


def run_all(program, *, most=5_000, faults=(), clock="explore", max_steps=MAX_STEPS):
    """Return every execution that the depth-first search makes, failures too, and its frontier."""
    frontier = Frontier(None)
    search = Collect(Systematic(frontier), most)
    drive(make_world(program, faults, clock, max_steps), search)
    return search.executions, frontier


def run_choosers(program, choosers, *, faults=(), clock="explore", max_steps=MAX_STEPS):
    """Return the executions of choosers, which share a run of trio."""
    search = Collect(Listed(choosers), len(choosers))
    drive(make_world(program, faults, clock, max_steps), search)
    return search.executions


def run_schedules(program, schedules, **options):
    """Return the executions of given choices."""
    return run_choosers(program, [Given(choices) for choices in schedules], **options)


def run_traced(program, choices=(), *, faults=(), clock="explore", max_steps=MAX_STEPS):
    """Return the execution of given choices and its trace."""
    execution, recorder = record(make_world(program, faults, clock, max_steps), Given(choices))
    return execution, tuple(recorder.steps)
