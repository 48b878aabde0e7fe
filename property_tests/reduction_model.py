"""Programs without trio for the reduction: processes that read and write, and every way in which they can be mixed."""

from __future__ import annotations

from itertools import count

import attrs

from stageflow_actors.testing._choosers import ABANDON
from stageflow_actors.testing._execution import Execution
from stageflow_actors.testing._reduction.events import Event, Order, Trail


@attrs.frozen
class Step:
    """What a process does at once: the variables that it reads, those that it writes, whom it starts."""

    reads: frozenset[int] = frozenset()
    writes: frozenset[int] = frozenset()
    starts: int | None = None

    @property
    def touched(self):
        return {variable: variable in self.writes for variable in sorted(self.reads | self.writes)}


@attrs.frozen
class Option:
    number: int
    name: str = ""


def run(processes, chooser, *, hear=True):
    """Run processes, given as lists of steps, as a chooser says; those that a step starts cannot go on before."""
    started = {number for number in range(len(processes)) if not any(_starts(process, number) for process in processes)}
    done = dict.fromkeys(range(len(processes)), 0)
    enabled_by, last = {}, {}
    choices, widths, events, order, values = [], [], [], [], {}
    is_abandoned = False
    for number in count():
        ready = [process for process in sorted(started) if done[process] < len(processes[process])]
        if not ready:
            break
        ask, chosen = -1, ready[0]
        if len(ready) > 1:
            index = chooser.choose([Option(process + 1) for process in ready])
            if index == ABANDON:
                is_abandoned = True
                break
            ask, chosen = len(choices), ready[index]
            choices.append(index)
            widths.append(len(ready))
        elif hear and chooser.is_asleep(chosen + 1):
            is_abandoned = True
            break
        step = processes[chosen][done[chosen]]
        done[chosen] += 1
        before = sum({1 << event for event in (last.get(chosen), enabled_by.get(chosen)) if event is not None})
        last[chosen] = number
        event = Event(chosen + 1, ask, before, step.touched, {("variable", key): w for key, w in step.touched.items()})
        events.append(event)
        seen = tuple((variable, values.get(variable)) for variable in sorted(step.reads))
        order.append((chosen, done[chosen], seen))
        for variable in step.writes:
            values[variable] = (chosen, done[chosen])
        if step.starts is not None:
            started.add(step.starts)
            enabled_by[step.starts] = number
        if hear:
            chooser.hear(event)
    trail = Trail(events, (), False, False, is_abandoned)
    outcome = frozenset(order), frozenset(values.items())
    return Execution(choices, widths, [1] * len(choices), len(events), None, outcome, trail=trail)


def _starts(process, number):
    return any(step.starts == number for step in process)


def list_classes(executions):
    """Return the executions that differ in more than the order of independent steps, by who happens before whom."""
    return {describe(execution.trail.events) for execution in executions}


def describe(events):
    """Return an execution's steps, each with those before it, in a form that the order of independent ones leaves."""
    order = Order()
    names, counts = [], {}
    for event in events:
        order.add(event)
        counts[event.process] = counts.get(event.process, 0) + 1
        names.append((event.process, counts[event.process]))
    return frozenset(
        (name, frozenset(names[other] for other in range(len(events)) if past >> other & 1))
        for name, past in zip(names, order.past, strict=True)
    )
