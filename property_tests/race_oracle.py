"""A second controller of trio, made of its private hooks: what the race toolkit does must come out the same.

Trio runs all tasks that can go on in passes, and has a hook for tests by which the order of a pass can be decided:
`_r.shuffle`. The object here leaves one task in the pass and puts the others back. It rests on nothing that the
toolkit rests on: no task is wrapped, nothing is parked.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from pathlib import Path

import attrs
import trio
from trio._core import _run as trio_internals

from stageflow_actors.testing._control import CLOCK_PATIENCE, PATIENCE
from stageflow_actors.testing._explore import get_name

ENTRY_QUEUE = "<TrioToken.run_sync_soon task>"
CLOCK = "the clock"


@attrs.frozen
class Outcome:
    """What came of one run."""

    choices: tuple
    widths: tuple
    free: tuple
    """How many of the first options are no preemption and no jump of the clock."""
    value: object
    error: BaseException | None
    stuck: tuple
    """The tasks that waited for each other; empty if it ended."""
    steps: tuple
    """Who made each step, and where it stood then; `ends` where it ended."""


class Standing(trio.abc.Clock):
    """A clock that stands until it is set."""

    def __init__(self, oracle):
        self.now = 0.0
        self.oracle = oracle

    def start_clock(self):
        """Do nothing."""

    def current_time(self):
        return self.now

    def deadline_to_sleep_time(self, _deadline):
        """Hear that nobody can go on. Trio may sleep where somebody waits for that, and wakes them when it would."""
        self.oracle.current = None
        return 1.0 if trio_internals.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle else 0.0


class Oracle(trio.abc.Instrument):
    """Stands in the place of trio's source of random numbers."""

    def __init__(self, given, *, explores_clock, max_steps):
        self.given = given
        self.max_steps = max_steps
        self.explores_clock = explores_clock
        self.clock = Standing(self)
        self.current = None
        self.ready = {}
        """The tasks that could go on, in the order in which they came to that, with the step since when."""
        self.jumped_at = 0
        self.choices, self.widths, self.free, self.steps, self.stuck = [], [], [], [], ()
        self.scope = trio.CancelScope()
        self.living = {}

    def random(self):
        """Never be asked: the order is deterministic."""
        raise AssertionError

    def task_spawned(self, task):
        if task.parent_nursery is not None and task.name != ENTRY_QUEUE:
            self.living[task] = task.name.rpartition("<locals>.")[2]

    def shuffle(self, batch):
        """Leave in a pass of trio's only the task that is chosen."""
        runner = trio_internals.GLOBAL_RUN_CONTEXT.runner
        mine = [task for task in batch if task not in self.living]
        if mine or not self.living:  # trio's own tasks, at the beginning and the end
            runner.runq.extend(task for task in batch if task in self.living)
            batch[:] = mine
            return
        fresh = [task for task in batch if task is not self.current and task not in self.ready]
        now = len(self.steps)
        self.ready |= dict.fromkeys(sorted(fresh, key=lambda task: task._counter), now)
        current = self.current if self.current in batch else None
        chosen = self.choose(current, runner)
        if current is not None and chosen is not current:
            self.ready[current] = now
        self.ready.pop(chosen, None)
        self.current = chosen
        runner.runq.extend(task for task in batch if task is not chosen)
        batch[:] = [] if chosen is None else [chosen]

    def choose(self, current, runner):
        """Return the next task, or None after a jump of the clock."""
        deadline = runner.deadlines.next_deadline()
        if len(self.steps) >= self.max_steps and not self.stuck:
            self.give_up(deadline)
        first = next(iter(self.ready), None)
        if first is not None and len(self.steps) - self.ready[first] > PATIENCE:
            return first
        options = [*self.ready] if current is None else [current, *self.ready]
        free = max(1, len(options) if current is None else 1)
        if deadline < inf and not self.stuck:
            if options and len(self.steps) - self.jumped_at > CLOCK_PATIENCE:
                return self.jump(deadline)
            if self.explores_clock or not options:
                options.append(CLOCK)
        if not options:
            return self.give_up(deadline)
        index = 0
        if len(options) > 1 and not self.stuck:
            index = self.given[len(self.choices)] if len(self.choices) < len(self.given) else 0
            index = index if index < len(options) else 0
            self.choices.append(index)
            self.widths.append(len(options))
            self.free.append(free)
        return self.jump(deadline) if options[index] is CLOCK else options[index]

    def jump(self, deadline):
        """Let the clock jump."""
        self.steps.append((CLOCK, ""))
        self.jumped_at = len(self.steps)
        self.clock.now = deadline

    def give_up(self, deadline):
        """Cancel what waits for ever, shielded or not; let the clock run on for what it still does."""
        if not self.stuck:
            self.stuck = tuple(self.living.values())
            self.scope.cancel()
        elif deadline < inf:
            self.clock.now = deadline
        else:
            for task in self.living:
                status = task._cancel_status
                while status is not None:
                    status._scope.shield = False
                    status = status._parent

    def after_task_step(self, task):
        """Note where it stands."""
        if task in self.living and not self.stuck:
            self.steps.append((self.living[task], locate(task)))
        if task.coro.cr_frame is None:
            self.living.pop(task, None)


def locate(task):
    """Return the line on which a task waits in code of the program's; `ends` if it has ended."""
    if task.coro.cr_frame is None:
        return "ends"
    frames = [(frame, line) for frame, line in task.iter_await_frames() if not is_trios(frame)]
    return f"{Path(frames[-1][0].f_code.co_filename).name}:{frames[-1][1]}" if frames else ""


def is_trios(frame):
    """Return whether a frame is trio's, or of what lies between it and the program."""
    name = frame.f_globals["__name__"]
    return name == __name__ or name.partition(".")[0] in {"trio", "outcome", "contextlib"}


@contextmanager
def hooked(oracle):
    """Put the oracle in the place of trio's random numbers."""
    before = trio_internals._r, trio_internals._ALLOW_DETERMINISTIC_SCHEDULING
    trio_internals._r, trio_internals._ALLOW_DETERMINISTIC_SCHEDULING = oracle, True
    try:
        yield
    finally:
        trio_internals._r, trio_internals._ALLOW_DETERMINISTIC_SCHEDULING = before


def consult(program, choices=(), *, clock="explore", max_steps=10_000):
    """Run a program in plain trio with the schedule of these choices."""
    oracle = Oracle(choices, explores_clock=clock == "explore", max_steps=max_steps)
    value = error = None

    async def main():
        nonlocal value, error
        trio.lowlevel.current_task().name = name
        oracle.living[trio.lowlevel.current_task()] = name
        try:
            with oracle.scope:
                value = await program()
        except BaseException as raised:
            error = raised

    name = get_name(program)
    with hooked(oracle):
        trio.run(main, clock=oracle.clock, instruments=[oracle])
    lists = oracle.choices, oracle.widths, oracle.free
    return Outcome(*map(tuple, lists), value, error, oracle.stuck, tuple(oracle.steps))


def consult_all(program, *, clock="explore", most=5_000):
    """Return what comes of every schedule, by its choices: a search that knows nothing of the toolkit's."""
    outcomes = {}
    pending = [()]
    while pending and len(outcomes) < most:
        given = pending.pop()
        outcome = consult(program, given, clock=clock)
        assert outcome.choices not in outcomes
        outcomes[outcome.choices] = outcome
        pending += [
            (*outcome.choices[:at], other)
            for at in range(len(given), len(outcome.choices))
            for other in range(1, outcome.widths[at])
        ]
    return outcomes
