"""What an exploration says: what it covered, and the failure that it found."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal, NoReturn, final

import attrs

from stageflow_actors._validation import count
from stageflow_actors.errors import RaceError

from ._trace import tell_error, unwrap_lone

if TYPE_CHECKING:
    from ._diagnosis import Waiting
    from ._trace import Step

_SHOWN: Final = 60
"""Steps of a trace that are printed, the last ones; `RaceFailure.trace` has all."""

_WAITING: Final = 20
"""Tasks of which it is printed for what they wait."""

_NUMBER: Final = len(">1234")
"""Characters before the column of the tasks."""

_WIDEST: Final = 24
"""Characters of the column of the tasks."""


@final
@attrs.frozen
class RaceFailure:
    """A schedule under which a program fails. `print` it: steps, who waits for what, and how to replay it."""

    program: str
    """The program's name."""
    kind: str
    """`exception`, `deadlock`, `lost wake-up` or `livelock`."""
    error: BaseException | None
    """What the program raised; None where it did not end."""
    schedule: str
    """What was chosen at each point where there was a choice: give it to `replay`."""
    preemptions: int
    """How often a task was stopped that could have gone on."""
    jumps: int
    """How often the clock jumped although a task could have gone on."""
    faults: int
    """How many faults struck where they were a choice."""
    minimal: bool | None
    """Whether every schedule with fewer preemptions, jumps and faults was run, and none fails; None: nobody looked."""
    reproduced: bool
    """Whether it failed again when its schedule was replayed."""
    steps: int
    """After how many steps it failed."""
    trace: tuple[Step, ...] = attrs.field(repr=False)
    """What happened, step by step."""
    waiting: tuple[Waiting, ...] = ()
    """Who waited for what when it was stopped; empty for an exception."""
    uncontrolled: tuple[str, ...] = ()
    """What went on outside the toolkit's control: threads, sockets."""
    call: str = ""
    """The line that replays it."""

    @property
    def cost(self) -> int:
        """How many preemptions, jumps and faults it needs."""
        return self.preemptions + self.jumps + self.faults

    def __str__(self) -> str:
        return "\n".join(self._tell())

    def _tell(self) -> list[str]:
        lines = [f"{self.program}: {self._name()} after {count(self.steps, 'step')}, {self._tell_cost()}"]
        hidden = len(self.trace) - _SHOWN
        if hidden > 0:
            lines.append(f"     (the first {count(hidden, 'step')} left out; `failure.trace` has all)")
        shown = self.trace[-_SHOWN:]
        width = min(max((len(step.task) for step in shown), default=0), _WIDEST)
        for told, group in groupby(shown, lambda step: step.tell(width)[_NUMBER:]):
            marks = [step.tell(width)[:_NUMBER] for step in group]
            if len(marks) > 2:
                marks[1:] = [f"       (and {count(len(marks) - 1, 'more step')} like it)"]
                lines += [marks[0] + told, marks[1]]
            else:
                lines += [mark + told for mark in marks]
        if self.waiting:
            lines.append("when it was stopped:")
            lines += [f"      {waiting}" for waiting in self.waiting[:_WAITING]]
            if len(self.waiting) > _WAITING:
                lines.append(f"      and {count(len(self.waiting) - _WAITING, 'more task')}")
        if self.uncontrolled:
            lines.append("not controlled: " + "; ".join(self.uncontrolled))
        if not self.reproduced:
            lines.append(
                "its schedule, replayed, did not fail in the same way: the program depends on something else too,"
                " such as global state, random numbers, the order of a set, a thread or the wall clock"
            )
        lines.append(f"replay: {self.call}")
        return lines

    def _name(self) -> str:
        return self.kind if self.error is None else tell_error(self.error)

    def _tell_cost(self) -> str:
        parts = [
            count(number, *words)
            for number, *words in (
                (self.preemptions, "preemption"),
                (self.jumps, "early jump of the clock", "early jumps of the clock"),
                (self.faults, "fault"),
            )
            if number
        ]
        told = " and ".join(parts) or "without a preemption"
        if not self.cost or self.minimal is None:
            return told
        return f"{told}; {'none fails with fewer' if self.minimal else 'fewer may do'}"


@final
@attrs.frozen
class Certificate:
    """How it is known that no schedule of a program fails, for these inputs, with these faults and this clock."""

    method: Literal["dpor", "dfs"]
    """`dfs`: every schedule was run. `dpor`: one of each that differ in the order of dependent steps."""
    executions: int
    """How many executions that took, without those of other searches and those that only showed how to track it."""
    pruned: int
    """How many of them ended early, for all that could follow had been run."""


@final
@attrs.frozen
class Report:
    """What an exploration covered."""

    program: str
    """The program's name."""
    failure: RaceFailure | None
    """The first failure, with as few preemptions as could be found; None if there was none."""
    executions: int
    """How many executions were made to find it or to find none, without those that made it simpler."""
    certificate: Certificate | None
    """How it is known that no schedule fails; None where it is not. It never is where something was not controlled."""
    bound: int | None
    """Every schedule with at most so many preemptions, jumps and faults was run; None: not even without."""
    sampled: int
    """How many of the executions were drawn by a sampler."""
    reduced: int = 0
    """How many of the executions were made by partial order reduction."""
    untracked: tuple[str, ...] = ()
    """State that several tasks touched and that partial order reduction cannot follow: it gave up."""
    simplified_in: int = 0
    """How many more executions it took to make the failure simpler and to prove that it cannot be more so."""
    diverged: int = 0
    """How many executions went another way than the same choices had gone before: the program is not deterministic."""
    uncontrolled: tuple[str, ...] = ()
    """What went on outside the toolkit's control."""
    seed: int = 0
    clock: str = "explore"
    """How the clock went: as in `explore`."""

    @property
    def complete(self) -> bool:
        """Whether every schedule was run, or one for all that cannot be told from it."""
        return self.certificate is not None

    def raise_for_failure(self) -> None:
        """Raise a `RaceError` if there is a failure."""
        __tracebackhide__ = True
        if self.failure is not None:
            raise_failure(self.failure, self)

    def __str__(self) -> str:
        if self.failure is not None:
            extra = f", simplified in {self.simplified_in:,} more" if self.simplified_in else ""
            hint = "; clock='auto' leaves early jumps out" if self.failure.jumps else ""
            return f"{self.failure}\nfound in {count(self.executions, 'execution')}{extra}, seed {self.seed}{hint}"
        return f"{self.program}: {self._tell_coverage()}"

    def _tell_coverage(self) -> str:
        made = count(self.executions, "execution")
        if self.certificate is not None:
            clock = "" if self.clock == "explore" else ", with a clock that jumps only when nothing else can go on"
            if self.certificate.method == "dfs":
                return f"no failure in any schedule: complete, {made}{clock}{self._tell_untracked()}"
            told = f"{made}, {self.reduced:,} by partial order reduction"
            return f"no failure in any schedule that can be told apart: complete, {told}{clock}"
        parts = []
        if self.bound is not None:
            most = f"with at most {count(self.bound, 'preemption')}" if self.bound else "without a preemption"
            parts.append(f"every schedule {most}")
        if self.sampled:
            parts.append(f"{self.sampled:,} sampled")
        told = f"no failure in {made}" + (f": {', '.join(parts)}" if parts else "")
        if self.sampled:
            told += f"; seed {self.seed}"
        if self.diverged:
            told += f"; not deterministic, {count(self.diverged, 'execution')} went another way with the same choices"
        if self.uncontrolled:
            told += "; not controlled: " + "; ".join(self.uncontrolled)
        return told + self._tell_untracked()

    def _tell_untracked(self) -> str:
        """Return why the search fell back to every schedule by preemptions."""
        if not self.untracked:
            return ""
        return f"; without partial order reduction, which cannot follow {', '.join(self.untracked)}"


def raise_failure(failure: RaceFailure, report: Report | None) -> NoReturn:
    """Raise the error of a failure."""
    __tracebackhide__ = True
    text = str(failure if report is None else report)
    error = None if failure.error is None else unwrap_lone(failure.error)  # which shows its source, unlike a group
    if error is not None and error.__traceback__ is None:
        error = None  # the toolkit has made it, and its text stands above
    raise RaceError(text, failure=failure, report=report) from error
