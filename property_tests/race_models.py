"""What an exploration must find, counted without trio: interleavings of tasks, and trees of choices."""

from __future__ import annotations

from collections import Counter
from math import factorial, prod

import attrs

from stageflow_actors.testing._execution import Execution


def count_interleavings(lengths):
    """Return in how many orders sequences of steps can be mixed."""
    return factorial(sum(lengths)) // prod(map(factorial, lengths))


def count_by_preemptions(lengths):
    """Return how many of the orders have how many preemptions: switches away from a task that has steps left."""
    counts = Counter()

    def go_on(left, last, preemptions):
        if not any(left):
            counts[preemptions] += 1
        for task, steps in enumerate(left):
            if steps:
                stops = last is not None and task != last and left[last] > 0
                go_on((*left[:task], steps - 1, *left[task + 1 :]), task, preemptions + stops)

    go_on(tuple(lengths), None, 0)
    return counts


CHECKPOINT, ACQUIRE, RELEASE = "checkpoint", "acquire", "release"


@attrs.frozen
class State:
    """Tasks with locks: how far each is, who holds which lock, and who waits for it, in order."""

    at: tuple
    holders: tuple
    queues: tuple
    path: tuple = ()


def list_orders(scripts, locks):
    """Return every order in which tasks can make their steps, with what is left in a deadlock.

    A script is a list of `(CHECKPOINT, None)`, `(ACQUIRE, lock)` and `(RELEASE, lock)`. A lock that is free is taken,
    and then others may go first; one that is released goes to who has waited longest, without a race for it.
    """
    found = []
    pending = [State((0,) * len(scripts), (None,) * locks, ((),) * locks)]
    while pending:
        state = pending.pop()
        able = [task for task in range(len(scripts)) if can_go_on(state, scripts, task)]
        pending += [step(state, scripts, task) for task in able]
        if not able:
            found.append((state.path, tuple(task for task, at in enumerate(state.at) if at <= len(scripts[task]))))
    return found


def can_go_on(state, scripts, task):
    """Return whether a task has a step left and does not wait for a lock."""
    return state.at[task] <= len(scripts[task]) and all(task not in queue for queue in state.queues)


def step(state, scripts, task):
    """Return the state after a task's next step: up to its next await, or to its end."""
    at, holders, queues = list(state.at), list(state.holders), list(state.queues)
    while True:
        at[task] += 1
        if at[task] > len(scripts[task]):
            break
        what, lock = scripts[task][at[task] - 1]
        if what == RELEASE:
            holders[lock], queues[lock] = (queues[lock][0], queues[lock][1:]) if queues[lock] else (None, ())
            continue
        if what == ACQUIRE and holders[lock] is None:
            holders[lock] = task
        elif what == ACQUIRE:
            queues[lock] = (*queues[lock], task)
        break
    return State(tuple(at), tuple(holders), tuple(queues), (*state.path, task))


@attrs.frozen
class Tree:
    """A program as its choices: how many options there are, how many of them are free, and what follows."""

    width: int = 0
    free: int = 0
    children: tuple = ()
    """By option; a leaf has none."""

    def run(self, chooser):
        """Return the execution of a chooser."""
        choices, widths, free = [], [], []
        node = self
        while node.children:
            index = chooser.choose([Numbered(number) for number in range(node.width)])
            choices.append(index)
            widths.append(node.width)
            free.append(node.free)
            node = node.children[index]
        return Execution(choices, widths, free, len(choices), None, impossible=getattr(chooser, "impossible", None))

    def list_leaves(self, path=(), cost=0):
        """Return every path to a leaf with what it costs."""
        if not self.children:
            return [(path, cost)]
        return [
            leaf
            for index, child in enumerate(self.children)
            for leaf in child.list_leaves((*path, index), cost + (index >= self.free))
        ]


@attrs.frozen
class Numbered:
    """An option."""

    number: int
    name: str = ""
