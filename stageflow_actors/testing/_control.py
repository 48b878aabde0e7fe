"""Control of every interleaving of a trio program, through trio's public interface.

An instrument sees each task at its spawning and puts a `Cell` in the place of its coroutine. When the task that
was chosen has made its step, the controller chooses the next among all that could go on, which may be parked in
the gate or just be scheduled by trio. Trio's own order inside a batch therefore decides nothing.

Where choosing must wait for the world (threads, sockets, the expiry of deadlines after a jump of the clock),
nobody is granted a step; trio runs out of work and asks the clock for how long it may sleep, and the controller,
which answers, goes on from there.

The file is long because the turns of one scheduler share all of its state.
"""

from __future__ import annotations

import enum
import gc
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import outcome
import trio
from trio.lowlevel import reschedule

from ._cell import Abandoned, Cell, State
from ._choosers import ABANDON, Given
from ._diagnosis import EXCEPTION, LIVELOCK, diagnose
from ._execution import Execution, Raw
from ._frames import IN_CHILDREN, IN_IDLE, IN_IO, IN_THREAD, get_name, locate
from ._injection import AGAIN, Injection, Strike
from ._outside import Outside
from ._probe import make_probes
from ._reduction.search import Walk
from ._trace import iterate_leaves, unwrap_lone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.lowlevel import Task

    from ._choosers import Chooser, Option
    from ._clock import ControlledClock
    from ._interrupts import Interrupts
    from ._message_faults import Post
    from ._reduction.events import Trail
    from ._reduction.tracker import Tracker
    from ._trace import Recorder

PATIENCE: Final = 100
"""Steps: so long a task that could go on is kept waiting; then it is its turn, whatever is chosen."""

CLOCK_PATIENCE: Final = 1000
"""Steps: so long the clock stands still while a deadline is pending and tasks go on without end."""

_DRAIN_STEPS: Final = 5_000
"""Steps for what is left of an execution after its end, or after a failure, to end by itself."""

_SETTLING: Final = 100
"""Passes of the loop for what trio does between two executions."""

_FORCED: Final = 20
"""How often everything that waits is made to raise, before it is dropped."""


class Phase(enum.Enum):
    """What the steps of an execution are for."""

    EXPLORE = enum.auto()
    DRAIN = enum.auto()
    """The program has ended or failed; what is left of it is brought to an end."""
    FORCE = enum.auto()
    """It does not end by itself: whatever waits is made to raise."""


class _Clock:
    """The option that the clock jumps to the next deadline."""

    number = -1
    name = "the clock"


class _Standstill:
    """The option that nothing happens although nothing can go on: a deadlock."""

    number = -1
    name = "nothing"


CLOCK: Final = _Clock()
STANDSTILL: Final = _Standstill()


def _is_cancelled(error: BaseException | None) -> bool:
    """Return whether it is nothing but what trio has cancelled a program with, for a reason that is told elsewhere."""
    return error is not None and all(isinstance(leaf, trio.Cancelled) for leaf in iterate_leaves(error))


@final
class Hooks(trio.abc.Instrument):
    """What trio is given of a controller: it looks at every name of an instrument, and at each call anew."""

    __slots__ = ("after_task_step", "task_scheduled", "task_spawned")

    def __init__(self, controller: Controller) -> None:
        self.after_task_step = controller.after_task_step  # type: ignore[method-assign]
        self.task_scheduled = controller.task_scheduled  # type: ignore[method-assign]
        self.task_spawned = controller.task_spawned  # type: ignore[method-assign]

    def __dir__(self) -> tuple[str, ...]:
        return self.__slots__


@final
class Controller:
    """Controls the executions of a program, one after another, inside one run of trio."""

    def __init__(
        self,
        clock: ControlledClock,
        interrupts: Interrupts,
        *,
        max_steps: int,
        explores_clock: bool,
        recorder: Recorder | None = None,
    ) -> None:
        self._clock = clock
        clock.controller = self
        self._max_steps = max_steps
        self._explores_clock = explores_clock
        self._interrupts = interrupts
        self.recorder = recorder
        self.is_active = False
        self.granted: Cell | None = None
        """Whose turn it is."""
        self._released: Cell | None = None
        """Who is let out of the gate at the moment."""
        self._main: Task | None = None
        self._system: list[Cell] = []
        self.broken: BaseException | None = None
        """An error of the toolkit's own."""
        self._reset(Given(), None)

    def _reset(self, chooser: Chooser, injection: Injection | None) -> None:
        self.chooser = chooser
        self._injection = injection
        self._phase = Phase.EXPLORE
        self.cells: list[Cell] = []
        self.steps = 0
        self._live = 0
        self._ready: list[Cell] = []
        self._fresh: list[Cell] = []
        self._choices: list[int] = []
        self.tracker: Tracker | None = None
        """Where it is written down what each step touches."""
        self._walk: Walk | None = None
        """The chooser, where it hears of that."""
        self._trail: Trail | None = None
        self._asked = -1
        """By which choice the next step was chosen; -1 where there was none."""
        self._widths: list[int] = []
        self._free: list[int] = []
        self.failure: Raw | None = None
        self.uncontrolled: set[str] = set()
        self._jumped_at = 0
        self.is_spoiled = self._is_hurried = False
        self._forced = 0
        self._drain_until = 0
        self.drops = False
        """Whether tasks are ended without running their coroutine any further."""
        self._names: Counter[str] = Counter()
        self._root: Cell | None = None
        self._in_place: Cell | None = None
        """Who is at a checkpoint, and would go on without trio's loop."""
        self._unsettled: Cell | None = None
        """Who has made the last step and could go on, while the choice waits for the world."""

    def enter(self) -> None:
        """Begin, inside the run of trio."""
        self._get_deadline, self._count_callbacks, self._list_expiring = make_probes()
        self.outside = Outside(self._system, self._count_callbacks)

    # Executions

    async def execute(
        self,
        nursery: trio.Nursery,
        program: Any,
        chooser: Chooser,
        injection: Injection | None = None,
        tracker: Tracker | None = None,
    ) -> Execution:
        """Run the program once, in a nursery of the main task's.

        All of it has ended when this returns, also where the user has interrupted it, unless `is_spoiled`: then the
        nursery is cancelled, and nothing more may run in this run of trio.
        """
        is_collecting = gc.isenabled()
        gc.disable()  # what is collected when must not decide anything; between executions there is time for it
        try:
            await self._settle()
            self._begin(chooser, injection)
            if tracker is not None and isinstance(chooser, Walk):
                tracker.begin(program, nursery)
                self.tracker, self._walk = tracker, chooser
            nursery.start_soon(self._run, program, name=get_name(program))
            self._root = self.cells[0]
            self._pick(None)
            await trio.lowlevel.wait_task_rescheduled(self._spoil)
        finally:
            if is_collecting:
                gc.enable()
        if self.is_spoiled:
            nursery.cancel_scope.cancel()
        return self.conclude()

    async def _settle(self) -> None:
        """Let trio close asynchronous generators that were collected: it does so in tasks of its own."""
        for _ in range(_SETTLING):
            if not self._count_callbacks() and len(self._system) == 1:
                break
            await trio.lowlevel.checkpoint()

    def _begin(self, chooser: Chooser, injection: Injection | None) -> None:
        """Take control, for one execution."""
        self._reset(chooser, injection)
        self.outside.begin()
        self._clock.now = 0.0
        self._fresh.extend(cell for cell in self._system if cell.state is State.SCHEDULED)
        for cell in self._system:
            cell.ready_since = cell.since = 0
        if self.recorder is not None:
            self.recorder.begin(self)
        self._scope = trio.CancelScope()
        self._outcome: outcome.Outcome[object] = outcome.Value(None)
        self._driver: Task | None = trio.lowlevel.current_task()
        self.is_active = True

    def conclude(self, left: BaseException | None = None) -> Execution:
        """Return what came of the execution.

        Args:
            left: What came out beside the program's own outcome.
        """
        if left is not None and (self.failure is None or _is_cancelled(self.failure.error)):
            self.failure = Raw(EXCEPTION, unwrap_lone(left), step=self.steps)
        return Execution(
            self._choices,
            self._widths,
            self._free,
            self.steps,
            self.failure,
            self._outcome.value if isinstance(self._outcome, outcome.Value) else None,
            frozenset(self.uncontrolled),
            getattr(self.chooser, "impossible", None),
            self._is_hurried,
            self._trail,
        )

    async def _run(self, program: Any) -> None:
        __tracebackhide__ = True
        try:
            with self._scope:
                self._outcome = outcome.Value(await program())
        except BaseException as error:  # whatever it is, the one who asked for the execution decides
            self._outcome = outcome.Error(error)

    def _spoil(self, _raise_cancel: Any) -> trio.lowlevel.Abort:
        self.is_spoiled = True  # the program has cancelled or broken what it runs in, and will end by that
        return trio.lowlevel.Abort.FAILED

    def _finish(self) -> None:
        """End the execution: from here on, trio's own order rules."""
        self.is_active = False
        self.is_spoiled = self.is_spoiled or self._live > 0
        self._drain_until = self.steps + _DRAIN_STEPS
        for cell in (*self.cells, *self._system):
            if cell.state is State.PARKED and cell is not self.granted:
                self._release(cell)
        self.granted = None
        driver, self._driver = self._driver, None
        assert driver is not None
        reschedule(driver)

    # What trio tells

    def task_spawned(self, task: Task) -> None:
        """Put a cell in the place of the task's coroutine."""
        if task.parent_nursery is None:
            return  # trio's first task
        if self._main is None:
            self._main = task  # the one that calls `execute`
            return
        if self.is_active:
            name = self._name(task)
            cell = Cell(self, task, number=len(self.cells) + 1, name=name, is_system=False)
            self.cells.append(cell)
            self._live += 1
            cell.since = self.steps
            if self.tracker is not None:
                self.tracker.spawn(cell)
        else:
            cell = Cell(self, task, number=0, name="callbacks of run_sync_soon", is_system=True)
            self._system.append(cell)
        task.coro = cell  # type: ignore[assignment]  # it has the interface that trio uses

    def _name(self, task: Task) -> str:
        """Return a task's name as people know it, unique in the execution.

        Where nobody has named it, trio gives it the function's name with its module.
        """
        function = task.coro.cr_code.co_qualname
        name = function if task.name.endswith(f".{function}") else task.name
        name = name.rpartition("<locals>.")[2]
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def task_scheduled(self, task: Task) -> None:
        """Note that a task can go on."""
        cell = task.coro
        if not isinstance(cell, Cell):
            return
        if cell.state is not State.PARKED:
            cell.resume()
            cell.ready_since = self.steps
            if self.tracker is not None:
                self.tracker.enable(cell)
            self._fresh.append(cell)
        elif cell is not self._released and cell is not self.granted:
            self._note_second(cell)

    def _release(self, cell: Cell) -> None:
        """Let a cell out of the gate."""
        self._released = cell
        reschedule(cell.task)
        self._released = None

    def _note_second(self, cell: Cell) -> None:
        """Note that the program wakes a task that it has woken before; trio would stop it with an AssertionError."""
        if self.tracker is not None:
            self.tracker.enable(cell)
        if cell in self._ready:
            self._ready.remove(cell)
        if self.failure is None and self._phase is Phase.EXPLORE:
            self.failure = Raw(EXCEPTION, AssertionError(f"{cell.name} was rescheduled twice"), step=self.steps)
            self._drain()
        self.is_spoiled = True

    def after_task_step(self, task: Task) -> None:
        """Choose who is next, when the one whose turn it was has to wait or has ended."""
        cell = self.granted
        if cell is None or cell.task is not task or not self.is_active or cell.state is State.PARKED:
            return
        current = None
        try:
            self.granted = None
            current = self._take_back(cell)
            self._pick(current)
        except BaseException as error:
            self._break(error, current)

    def _take_back(self, cell: Cell) -> Cell | None:
        """Return the one that has just made a step if it can go on all the same: it is cancelled, or woke itself."""
        if cell.state is not State.SCHEDULED:
            return None
        self._fresh.remove(cell)
        return cell

    def _break(self, error: BaseException, current: Cell | None = None) -> None:
        """End the execution in order after an error of our own, or of what was given to us, so that it is told.

        Args:
            error: What was raised.
            current: The task that made the last step, where it could go on.
        """
        if self.broken is not None:  # not even the end goes well
            self.is_spoiled = True
            self._finish()
            return
        self.broken = error
        self.granted = None
        if current is not None and current not in self._ready:
            self._unsettled = current
        self._drain()

    # What cells tell

    def stop(self, cell: Cell) -> None:
        """Note that a cell waits for something in trio."""
        if cell.wait in (IN_THREAD, IN_IO):
            self.uncontrolled.add(f"{cell.wait.value}: {locate(cell.inner) or cell.name}")
        elif cell.wait is IN_IDLE and self.tracker is not None:
            self.tracker.give_up("a wait for all tasks to be blocked")
        if self.is_active:
            cell.since = self.steps
            try:
                self._tell_stop(cell)
            except BaseException as error:
                self._break(error)

    def _tell_stop(self, cell: Cell) -> None:
        if self._injection is not None:
            self._injection.come(cell)
        if self.recorder is not None:
            self.recorder.stop(cell)

    def leave(self, cell: Cell, error: BaseException) -> None:
        """Note that a task has ended."""
        if cell.is_system:
            self._system.remove(cell)  # one that closed an asynchronous generator; that of the callbacks never ends
            return
        if not self.is_active:
            return
        self._live -= 1
        if self.tracker is not None:
            self.tracker.leave(cell)
        if self.recorder is not None:
            self.recorder.leave(cell, error)
        if cell is self._root:
            self._conclude()

    def outlive(self) -> None:
        """Note a step after the end of the execution: not too many of them, for trio waits for what is left."""
        if self.is_spoiled:
            self.steps += 1
            self.drops = self.drops or self.steps > self._drain_until

    def go_on(self, cell: Cell) -> bool:
        """Return whether a cell that only lets others go first may go on at once; else somebody else is granted."""
        try:
            cell.since = cell.ready_since = self.steps
            if self._injection is not None or self.recorder is not None:
                self._tell_stop(cell)
            self.granted = None
            self._in_place = cell
            return self._pick(cell) is cell
        except BaseException as error:
            self._break(error, cell)
            return not self.is_active
        finally:
            self._in_place = None

    def _conclude(self) -> None:
        """Judge how the program ended."""
        if self._phase is Phase.EXPLORE:
            self._end_trail()
            self._enter_phase(Phase.DRAIN)
            if isinstance(self._outcome, outcome.Error):
                self.failure = Raw(EXCEPTION, self._outcome.error, step=self.steps)

    # Choosing

    def _pick(self, current: Cell | None) -> Cell | None:
        """Choose who makes the next step and grant it. None if that must wait, or everything has ended.

        Args:
            current: The task that made the last step, where it could go on.
        """
        self._hear_interrupt()
        if self._phase is Phase.EXPLORE and self.steps < self._max_steps and self._get_deadline() <= self._clock.now:
            # What is due already expires in trio's next pass, as a part of the step that made it due.
            self._unsettled = self._unsettled if current is None else current
            self.outside.begin()
            return None
        self._end_step()
        self._take_fresh()
        if current is None:
            current, self._unsettled = self._unsettled, None
        if not self.outside.is_settled():
            self._unsettled = current
            return None
        if self._phase is not Phase.EXPLORE:
            return self._pick_default(current)
        if self.steps >= self._max_steps:
            self._fail(LIVELOCK)
            return self._pick_default(current)
        chosen = self._choose(current)
        if self._phase is not Phase.EXPLORE:
            return self._pick_default(current)
        if current is not None and chosen is not current:
            self._ready.append(current)
        return None if chosen is None else self._grant(chosen, current)

    def _end_step(self) -> None:
        """Write down what the step that was made touched, and let the chooser hear of it."""
        if self.tracker is not None and self._walk is not None:
            event = self.tracker.finish()
            if event is not None:
                self._walk.hear(event)

    def _end_trail(self, *, is_abandoned: bool = False) -> None:
        if self.tracker is not None:
            self._trail = self.tracker.conclude(is_abandoned=is_abandoned)
            self.tracker = self._walk = None

    def _hear_interrupt(self) -> None:
        if self._interrupts.is_noted and self._phase is Phase.EXPLORE:
            self._drain()

    def _take_fresh(self) -> None:
        if self._fresh:
            if len(self._fresh) > 1:  # trio keeps tasks in sets; their order must not come from there
                self._fresh.sort(key=lambda cell: cell.number)
            self._ready.extend(self._fresh)
            self._fresh.clear()

    def _choose(self, current: Cell | None) -> Cell | None:
        """Return the next task, or None where there is none: the clock has jumped, or nobody can go on."""
        while True:
            if self._injection is not None and not self._strike_due(self._injection):
                return None
            self._take_fresh()  # a fault may have cancelled something
            ready = self._ready
            if ready and self.steps - ready[0].ready_since > PATIENCE:
                self._is_hurried = True
                return ready[0]
            options: list[Option] = [*ready] if current is None else [current, *ready]
            if not options:
                return None  # the world comes first
            free = 1 if current is not None else len(options)
            if self._explores_clock or self._injection is not None or self.steps - self._jumped_at > CLOCK_PATIENCE:
                options = self._add_others(options)
            chosen = self._take_one(options, free)
            if chosen is None or isinstance(chosen, Cell):
                return chosen
            if not isinstance(chosen, Strike):
                self._jump(self._get_deadline())
                return None
            struck = self._strike(chosen)
            if struck is not AGAIN:
                return struck if isinstance(struck, Cell) else None
            self._end_step()

    def _strike(self, option: Strike) -> object:
        """Let a fault strike: see `Injection.strike`."""
        assert self._injection is not None
        if self.tracker is not None and option.cell is None:
            self.tracker.start_fault(option.number, self._asked)
            self._asked = -1
        return self._injection.strike(option, self)

    def _strike_due(self, injection: Injection) -> bool:
        """Let strike what was given to strike at this step; return whether there is still a choice to be made."""
        before = -1
        while before < self.steps:
            before = self.steps
            if injection.strike_due(self.steps + 1, self) is None:
                return False
        return True

    def _add_others(self, options: list[Option]) -> list[Option]:
        """Add what can happen beside the steps of tasks: a jump of the clock, faults."""
        if self._get_deadline() < inf:
            if self.steps - self._jumped_at > CLOCK_PATIENCE:
                self._is_hurried = True
                return [CLOCK]
            if self._explores_clock:
                options.append(CLOCK)
        if self._injection is not None:
            options += self._injection.get_options(options)
        return options

    def _take_one(self, options: Sequence[Option], free: int) -> Option | None:
        """Choose one of some options; None where all that could follow was run before, and the execution ends."""
        index = 0
        if len(options) > 1:
            index = self._ask(options, free)
        elif self._walk is not None and self._walk.is_asleep(options[0].number):
            index = ABANDON
        if index == ABANDON:
            self._end_trail(is_abandoned=True)
            self._drain()
            return None
        return options[index]

    def _ask(self, options: Sequence[Option], free: int) -> int:
        index = self.chooser.choose(options)
        if index == ABANDON:
            return index
        self._asked = len(self._choices)
        self._choices.append(index)
        self._widths.append(len(options))
        self._free.append(free)
        if self.recorder is not None:
            self.recorder.choose(options, index, free)
        return index

    # In the middle of a step

    @property
    def post(self) -> Post | None:
        """The faults that may befall messages to resident actors, while the program is explored."""
        injection = self._injection
        return injection.post if injection is not None and self.is_active and self._phase is Phase.EXPLORE else None

    def choose_within(self, options: Sequence[Option]) -> int:
        """Choose in the middle of a step, which goes on after it; all but the first option cost something."""
        try:
            index = self.chooser.choose(options)
        except BaseException as error:
            self._break(error)
            return 0
        self._choices.append(index)
        self._widths.append(len(options))
        self._free.append(1)
        return index

    def give_up(self, error: BaseException) -> None:
        """End the execution, and raise this: what was given for it cannot be, as has turned out."""
        if self.broken is None:
            self._break(error)

    # Going on

    def _pick_default(self, current: Cell | None) -> Cell | None:
        """Go on with what is left, in the default order, until it has ended."""
        ready = self._ready
        if self.steps > self._drain_until:
            if self._phase is Phase.FORCE:
                self.drops = True
            self._enter_phase(Phase.FORCE)
        if current is not None and not (ready and self.steps - ready[0].ready_since > PATIENCE):
            return self._grant(current, current)
        if current is not None:
            ready.append(current)
        if ready:
            return self._grant(ready[0], current)
        if self._live == 0 and not self._count_callbacks():
            self._finish()
        return None  # else the clock is asked, and finds what is left

    def _grant(self, cell: Cell, current: Cell | None) -> Cell:
        self.outside.begin()
        self.steps += 1
        self.granted = cell
        if self.tracker is not None:
            self._track(self.tracker, cell)
        if cell is not current:
            self._ready.remove(cell)
        if cell.state is State.PARKED and cell is not self._in_place:
            self._release(cell)
        return cell

    def _track(self, tracker: Tracker, cell: Cell) -> None:
        tracker.start(cell, self._asked)
        self._asked = -1
        if self._explores_clock:
            deadline = self._get_deadline()
            if deadline < inf:
                tracker.expect(self._list_expiring(deadline))

    # The clock and the world

    def _jump(self, deadline: float) -> None:
        """Let the clock jump. What expires is scheduled by trio in its next pass."""
        if self.tracker is not None and not self.tracker.is_open:
            self.tracker.start_jump(self._asked, is_barrier=not self._explores_clock)
            self._asked = -1
        if self.recorder is not None:
            self.recorder.jump(self._clock.now, deadline)
        self._clock.now = max(deadline, self._clock.now)
        self.steps += 1
        self._jumped_at = self.steps
        self.outside.begin()

    def jump_by(self, seconds: float) -> None:
        """Let the clock jump by so many seconds."""
        self._jump(self._clock.now + seconds)

    def consider(self, deadline: float) -> float:
        """Answer the loop, which has nothing to do, how many real seconds it may wait for the world."""
        if not self.is_active:
            if self.is_spoiled and any(cell.state is State.BLOCKED for cell in self.cells):
                self._raise_everywhere()  # trio has cancelled what was left, and it has not ended
                return 0.0
            return max(0.0, deadline - self._clock.now)
        try:
            return self._consider(deadline)
        except BaseException as error:
            self._break(error)
            return 0.0

    def _consider(self, deadline: float) -> float:
        self._hear_interrupt()
        is_ready = bool(self._fresh or self._ready or self._unsettled)
        if self._phase is not Phase.FORCE or is_ready:
            patience = self.outside.get_patience(deadline, is_ready=is_ready)
            if patience is not None:
                return patience
        if is_ready:
            self._pick(None)
        else:
            self._go_without(deadline)
        return 0.0

    def _go_without(self, deadline: float) -> None:
        """Go on although no task can: by the clock or a fault, or by ending it."""
        if self._live == 0:
            self._finish()
        elif self._phase is Phase.EXPLORE:
            self._rest(deadline)
        elif self._phase is Phase.FORCE:
            self._raise_everywhere()
        elif deadline < inf:
            self._jump(deadline)
        elif self._root is not None and self._root.state is State.DONE:
            self._finish()
        else:
            self._enter_phase(Phase.FORCE)

    def _rest(self, deadline: float) -> None:
        """Let the clock jump to the deadline or, where there is none, note that nothing can go on; or strike."""
        if self.steps >= self._max_steps:
            self._fail(LIVELOCK)
            return
        options: list[Option] = [CLOCK if deadline < inf else STANDSTILL]
        if self._injection is not None:
            if not self._strike_due(self._injection) or self._fresh:
                return
            options += self._injection.get_options(options)
        chosen = self._take_one(options, 1)
        if chosen is None:
            return
        if isinstance(chosen, Strike):
            self._strike(chosen)
        elif deadline < inf:
            self._jump(deadline)
        else:
            self._fail()

    def cancel(self) -> None:
        """Cancel the program from outside."""
        self.steps += 1
        self._scope.cancel()

    @property
    def is_stopped(self) -> bool:
        """Whether it was not the program that ended the run of trio: the user has interrupted it, or we are broken."""
        return self._interrupts.is_noted or self.broken is not None

    @property
    def error(self) -> BaseException | None:
        """What the program has raised."""
        return self._outcome.error if isinstance(self._outcome, outcome.Error) else None

    # Failing, and ending what does not end

    def _fail(self, kind: str | None = None) -> None:
        """Note a failure that is no exception: of this kind, or of what is found out about who waits for what."""
        diagnosis = diagnose(self.cells)
        self.failure = Raw(kind or diagnosis.kind, None, diagnosis.tasks, self.steps)
        self._drain()

    def _drain(self) -> None:
        """Cancel the program, and let it end in the default order."""
        self._end_trail()
        self._enter_phase(Phase.DRAIN)
        self.recorder = None
        self._injection = None
        self._scope.cancel()

    def _enter_phase(self, phase: Phase) -> None:
        self._phase = phase
        self._drain_until = self.steps + _DRAIN_STEPS

    def _raise_everywhere(self) -> None:
        """Make everything raise that still waits, except for the end of its own children: they raise."""
        self.is_spoiled = True
        self._forced += 1
        self.drops = self.drops or self._forced > _FORCED
        for cell in self.cells:
            if cell.state is State.BLOCKED and cell.wait is not IN_CHILDREN:
                reschedule(cell.task, outcome.Error(Abandoned()))
