"""`explore` and `replay`."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final, get_args

import trio

from stageflow_actors._validation import nearest, refuse, require_count
from stageflow_actors.errors import ReplayError

from ._canary import require_control
from ._choosers import Given
from ._drive import Program, World, drive
from ._faults import require_faults
from ._report import RaceFailure, Report
from ._schedule import decode, encode
from ._search import STRATEGIES, Frontier, Systematic, make_search
from ._trace import Recorder, iterate_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._choosers import Chooser
    from ._execution import Execution
    from ._faults import Fault
    from ._search import Search, Strategy

ClockMode: TypeAlias = Literal["explore", "auto"]
CLOCKS: Final[tuple[str, ...]] = get_args(ClockMode)

MAX_EXECUTIONS: Final = 1000
MAX_STEPS: Final = 10_000

_SIMPLIFYING: Final = 300
"""How many further executions a failure is worth, to find one with fewer preemptions or to prove there is none."""


def explore(
    program: Program,
    *,
    max_executions: int = MAX_EXECUTIONS,
    strategy: Strategy = "auto",
    seed: int = 0,
    faults: Iterable[Fault] = (),
    clock: ClockMode = "explore",
    max_steps: int = MAX_STEPS,
) -> Report:
    """Run a program under many schedules, and say what came of it.

    At every await of a task it is chosen who goes on; nothing else switches tasks. The program is run many
    times: whatever it shares must be made inside. The first failure ends the search; it is then made simpler, and
    replayed for its trace.

    Args:
        program: An async function without arguments, of any trio code. It fails if it raises, if all its tasks
            wait for each other or for a wake-up that nobody can give, or if it does not end.
        max_executions: How many executions are made at most to find a failure; up to 300 more make it simpler.
        strategy: `auto`: every schedule without a preemption, with one, with two and so on; from half of the
            executions on, PCT, POS and random take turns with that. `dfs`: only the systematic part, depth first.
            `pct`, `pos`, `random`: only that sampler.
        seed: Of the samplers. The same seed gives the same executions.
        faults: What may go wrong, each once at most in an execution.
        clock: `explore`: that the clock jumps to the next deadline is a choice at every await, for real time
            passes when it likes. `auto`: it jumps only when nothing else can go on.
        max_steps: An execution with more steps does not end: a livelock.

    Returns:
        What was covered, and the failure.

    Raises:
        PipelineValidationError: An argument that cannot be. Nothing has started.
        ControlError: This release of trio cannot be controlled.
        RuntimeError: It was called inside trio.
        BaseException: What the program raised that is no `Exception`: an interrupt, a skipped test.
    """
    require_count("max_executions", max_executions)
    require_count("seed", seed, least=0)
    _require_one_of("strategy", strategy, STRATEGIES)
    world = make_world(program, faults, clock, max_steps)
    search, frontier = make_search(strategy, seed, max_executions)
    hunt = _Hunt(search, max_executions)
    try:
        drive(world, hunt)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"{get_name(program)}: interrupted after {hunt.executions:,} executions without a failure")
        raise
    failure, extra = None, 0
    if hunt.found is not None:
        failure, extra = _simplify(world, hunt.found, frontier or Frontier(f"auto/{seed}"))
    return Report(
        program=get_name(program),
        failure=failure,
        executions=hunt.executions,
        complete=frontier is not None and failure is None and frontier.is_complete and hunt.is_pure,
        bound=None if frontier is None else frontier.bound,
        sampled=hunt.executions - (0 if frontier is None else frontier.taken),
        simplified_in=extra,
        diverged=0 if frontier is None else frontier.diverged,
        uncontrolled=tuple(sorted(hunt.uncontrolled)),
        seed=seed,
        clock=clock,
    )


def replay(
    program: Program,
    schedule: str,
    *,
    faults: Iterable[Fault] = (),
    clock: ClockMode = "explore",
    max_steps: int = MAX_STEPS,
) -> RaceFailure | None:
    """Run a program once, under the schedule of a failure, in any process and on any supported Python.

    Args:
        program: As in `explore`.
        schedule: `RaceFailure.schedule`.
        faults: Those with which it was found.
        clock: That with which it was found.
        max_steps: That with which it was found.

    Returns:
        The failure, or None if it no longer fails.

    Raises:
        PipelineValidationError: An argument that cannot be.
        ReplayError: The text is no schedule; or the program does not fail and no longer has these choices, so that
            this says nothing: explore it again.
        ControlError: This release of trio cannot be controlled.
        RuntimeError: It was called inside trio.
    """
    choices = decode(schedule)
    world = make_world(program, faults, clock, max_steps)
    given = Given(choices)
    execution, recorder = record(world, given)
    if execution.failure is not None:
        return _make_failure(world, execution, recorder, minimal=False, reproduced=True)
    misfit = execution.impossible
    if misfit is None and any(choices[len(choices) - given.unused :]):
        misfit = f"it has {len(choices)} choices, and the program came to {len(execution.choices)}"
    if misfit is not None:
        problem = f"the program does not fail, and the schedule {schedule!r} does not fit it: {misfit}"
        raise ReplayError(problem, hint="it has changed since, or the options have; explore it again")
    return None


def make_world(program: Program, faults: Iterable[Fault], clock: str, max_steps: int) -> World:
    """Check what all executions have in common."""
    _require_program(program)
    _require_one_of("clock", clock, CLOCKS)
    require_count("max_steps", max_steps)
    plan = require_faults(faults)
    require_control()
    if trio.lowlevel.in_trio_run():
        message = "the race toolkit starts trio itself, and trio is running here; call it from a plain def"
        raise RuntimeError(message)
    return World(program, plan, clock == "explore", max_steps)


def record(world: World, chooser: Chooser) -> tuple[Execution, Recorder]:
    """Run one execution with its trace."""
    recorder = Recorder()
    hunt = _Hunt(_Once(chooser), 1)
    drive(world, hunt, recorder=recorder)
    assert hunt.last is not None
    return hunt.last, recorder


def get_name(program: Callable[..., object]) -> str:
    """Return a program's name as a person knows it."""
    while isinstance(program, partial):
        program = program.func
    name: str = getattr(program, "__qualname__", None) or repr(program)
    return name.rpartition("<locals>.")[2]


def _require_program(program: object) -> None:
    if not callable(program):
        hint = "give the function itself, without calling it" if inspect.iscoroutine(program) else None
        refuse(f"program must be an async function, not {program!r}", hint=hint)
    try:
        inspect.signature(program).bind()
    except TypeError as error:
        refuse(f"program must be an async function without arguments, and {get_name(program)} has a {error}")
    except ValueError:
        pass  # it has no signature to look at
    inner: Any = program
    while isinstance(inner, partial):
        inner = inner.func
    if inspect.isfunction(inner) and not inspect.iscoroutinefunction(inner) and inspect.isgeneratorfunction(inner):
        refuse(f"program must be an async function, and {get_name(program)} is a generator")


def _require_one_of(what: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        refuse(f"{what} must be one of {', '.join(map(repr, known))}, not {value!r}", hint=nearest(value, known))


@final
class _Once:
    """The search that makes one execution."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser: Chooser | None = chooser

    def next(self) -> Chooser | None:
        chooser, self._chooser = self._chooser, None
        return chooser

    def learn(self, execution: Execution) -> None:
        pass


@final
class _Hunt:
    """Goes on with a search until there is a failure, or no execution is left."""

    def __init__(self, search: Search, most: int) -> None:
        self._search = search
        self._most = most
        self.executions = 0
        self.found: Execution | None = None
        self.last: Execution | None = None
        self.uncontrolled: set[str] = set()
        self._hurried = False

    @property
    def is_pure(self) -> bool:
        """Whether nothing but the choices decided about the executions."""
        return not self.uncontrolled and not self._hurried

    def next(self) -> Chooser | None:
        if self.found is not None or self.executions >= self._most:
            return None
        return self._search.next()

    def learn(self, execution: Execution) -> None:
        self.executions += 1
        self.last = execution
        self.uncontrolled |= execution.uncontrolled
        self._hurried = self._hurried or execution.hurried
        if execution.failure is not None:
            self.found = execution
        self._search.learn(execution)


def _simplify(world: World, found: Execution, frontier: Frontier) -> tuple[RaceFailure, int]:
    """Look for a failure with fewer preemptions, until there is none or it took too long; then for plainer choices."""
    spent = 0
    best = found
    while best.cost and not frontier.covers(best.cost - 1) and spent < _SIMPLIFYING:
        hunt = _Hunt(Systematic(frontier, below=best.cost), _SIMPLIFYING - spent)
        drive(world, hunt)
        spent += hunt.executions
        if hunt.found is None:
            break
        best = hunt.found
    minimal = not best.cost or frontier.covers(best.cost - 1)
    best, more = _straighten(world, best, _SIMPLIFYING - spent)
    execution, recorder = record(world, Given(best.choices))
    reproduced = execution.failure is not None and get_signature(execution) == get_signature(best)
    shown = execution if reproduced else best
    failure = _make_failure(world, shown, recorder, minimal=minimal and reproduced, reproduced=reproduced)
    return failure, spent + more


def _straighten(world: World, best: Execution, most: int) -> tuple[Execution, int]:
    """Put the default in the place of each choice, from the last, where it fails in the same way all the same."""
    spent = 0
    at = len(best.choices)
    while at and spent < most:
        at -= 1
        if at >= len(best.choices) or not best.choices[at]:
            continue
        hunt = _Hunt(_Once(Given([*best.choices[:at], 0, *best.choices[at + 1 :]])), 1)
        drive(world, hunt)
        spent += 1
        other = hunt.found
        if other is not None and other.cost <= best.cost and get_signature(other) == get_signature(best):
            best = other
    return best, spent


def get_signature(execution: Execution) -> tuple[str, frozenset[type[BaseException]]]:
    """Return what two executions that fail in the same way have in common."""
    failure = execution.failure
    assert failure is not None
    leaves = () if failure.error is None else iterate_leaves(failure.error)
    return failure.kind, frozenset(map(type, leaves))


def _make_failure(
    world: World, execution: Execution, recorder: Recorder, *, minimal: bool, reproduced: bool
) -> RaceFailure:
    raw = execution.failure
    assert raw is not None
    schedule = encode(execution.choices)
    options = [repr(schedule)]
    if world.faults:
        options.append(f"faults={world.faults!r}")
    if not world.explores_clock:
        options.append("clock='auto'")
    if world.max_steps != MAX_STEPS:
        options.append(f"max_steps={world.max_steps}")
    return RaceFailure(
        program=get_name(world.program),
        kind=raw.kind,
        error=raw.error,
        schedule=schedule,
        preemptions=recorder.preemptions,
        jumps=recorder.jumps,
        faults=recorder.faults,
        minimal=minimal,
        reproduced=reproduced,
        steps=raw.step,
        trace=tuple(recorder.steps),
        waiting=raw.waiting,
        uncontrolled=tuple(sorted(execution.uncontrolled)),
        call=f"replay({get_name(world.program)}, {', '.join(options)})",
    )
