"""Random programs for the reduction: tasks that do things to shared state of every kind, and say what they saw.

A `Kind` of state is a function that makes it and returns a `World`: what tasks can do with it, and how it looks in
the end. A program makes a few worlds, lets each task do a few of the things, and returns what each task saw and how
the worlds look. What a task sees it keeps to itself until the end, so that to observe makes nothing depend on
anything.
"""

from __future__ import annotations

import random

import attrs
import trio
from trio.lowlevel import checkpoint

from .outcomes_of import tell_error

PAUSE = None
"""In a script: the task lets others go first."""


@attrs.frozen
class World:
    """Shared state."""

    acts: tuple
    """Async functions of a `Me`: what tasks can do with it."""
    look: object = lambda: None
    """Returns how it looks in the end; called when all tasks have ended."""
    close: object = lambda: None
    """Lets go of what it holds; called last, and where only the acts are counted."""
    aclose: object = None
    """The same, asynchronously, within a program."""


class Me:
    """A task, as what it does sees it."""

    __slots__ = ("name", "number", "nursery", "see", "seen")

    def __init__(self, number, nursery):
        self.number = number
        self.name = f"t{number}"
        self.nursery = nursery
        self.seen = []
        self.see = self.seen.append


@attrs.frozen
class Drawn:
    """A program as a value."""

    kinds: tuple
    """Functions that make a world."""
    scripts: tuple
    """By task: what it does, as pairs of a kind's index and an act's index, or `PAUSE`."""
    scoped: bool = False
    """Whether each task's errors are its own: they are seen, and do not cancel the others."""

    def __str__(self):
        names = [kind.__name__ for kind in self.kinds]
        return f"Drawn([{', '.join(names)}], {self.scripts!r}, scoped={self.scoped})"

    async def program(self):
        """Run it; return what was seen, and how it ended."""
        worlds = [kind() for kind in self.kinds]
        ended = None
        tasks = []
        try:
            async with trio.open_nursery() as nursery:
                for number, script in enumerate(self.scripts):
                    me = Me(number, nursery)
                    tasks.append(me)
                    acts = [act if act is PAUSE else worlds[act[0]].acts[act[1]] for act in script]
                    nursery.start_soon(walk, me, acts, self.scoped, name=me.name)
        except BaseException as error:
            ended = tell_error(error)
        seen = repr((ended, [me.seen for me in tasks], [world.look() for world in worlds]))
        for world in worlds:
            if world.aclose is not None:
                await world.aclose()
            world.close()
        return seen


async def walk(me, acts, scoped):
    """Do one thing after another: it knows nothing of the kinds that the worlds are of."""
    for act in acts:
        if act is PAUSE:
            await checkpoint()
            continue
        try:
            await act(me)
        except Exception as error:
            if not scoped:
                raise
            me.see(tell_error(error))


def count_acts(kind):
    """Return how many things can be done with a kind of state."""
    world = kind()
    world.close()
    return len(world.acts)


def list_pairs(kind):
    """Return the programs in which two tasks do one thing each, for each pair of things, and each twice."""
    acts = count_acts(kind)
    return [Drawn((kind,), (((0, one),), ((0, other),))) for one in range(acts) for other in range(one, acts)]


def draw(kinds, seed, *, tasks=(2, 2, 2, 3), acts=(1, 2, 2, 3), pauses=0.3):
    """Return a random program over one or two of the kinds."""
    rng = random.Random(seed)
    chosen = tuple(rng.sample(kinds, min(len(kinds), rng.choice((1, 1, 1, 2)))))
    widths = [count_acts(kind) for kind in chosen]
    scripts = []
    count = rng.choice(tasks)
    for _ in range(count):
        script = []
        for _ in range(rng.choice(acts) if count == 2 else rng.choice((1, 1, 2))):
            index = rng.randrange(len(chosen))
            script.append((index, rng.randrange(widths[index])))
            if rng.random() < pauses:
                script.append(PAUSE)
        if script[-1] is PAUSE:
            script.pop()
        scripts.append(tuple(script))
    return Drawn(chosen, tuple(scripts), rng.random() < 0.3)


def shrink(drawn, fails):
    """Return a program that fails and is smaller, as far as leaving things out goes."""
    shrunk = True
    while shrunk:
        shrunk = False
        for smaller in list_smaller(drawn):
            if fails(smaller):
                drawn, shrunk = smaller, True
                break
    return drawn


def list_smaller(drawn):
    """Yield programs with a task less, then with a thing less."""
    scripts = drawn.scripts
    for task in range(len(scripts)):
        yield attrs.evolve(drawn, scripts=scripts[:task] + scripts[task + 1 :])
    for task, script in enumerate(scripts):
        for at in range(len(script)):
            less = script[:at] + script[at + 1 :]
            yield attrs.evolve(drawn, scripts=(*scripts[:task], less, *scripts[task + 1 :]))
