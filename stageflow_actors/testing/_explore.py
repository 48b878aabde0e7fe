"""`explore` and `replay`."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import attrs
import trio

from stageflow_actors._validation import refuse, require_count, require_one_of
from stageflow_actors.errors import ReplayError

from ._canary import require_control
from ._choosers import Given
from ._drive import Program, World, drive
from ._faults import MessageFault, require_faults
from ._frames import get_name
from ._report import Certificate, RaceFailure, Report
from ._schedule import decode
from ._search import STRATEGIES, Frontier, make_search
from ._simplify import MAX_STEPS, Hunt, Once, make_failure, simplify
from ._trace import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._choosers import Chooser
    from ._execution import Execution
    from ._faults import Fault
    from ._search import Plan, Strategy

ClockMode: TypeAlias = Literal["explore", "auto"]
CLOCKS: Final[tuple[str, ...]] = get_args(ClockMode)

MAX_EXECUTIONS: Final = 1000


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
        strategy: `auto`: every schedule without a preemption, with one, with two and so on, in turn with partial order
            reduction; from half of the executions on, PCT, POS and random take turns with these. `dpor`: only
            partial order reduction, and where that cannot follow the program's state what `dfs` does. `dfs`: only the
            schedules by preemptions, depth first. `pct`, `pos`, `random`: only that sampler.
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
    require_search(max_executions, strategy, seed)
    world = make_world(program, faults, clock, max_steps)
    return hunt_down(world, max_executions=max_executions, strategy=strategy, seed=seed)


def hunt_down(world: World, *, max_executions: int, strategy: Strategy, seed: int, simplifies: bool = True) -> Report:
    """Do what `explore` does, with arguments that were checked.

    Args:
        world: The program and what all executions have in common.
        max_executions: As in `explore`.
        strategy: As in `explore`.
        seed: As in `explore`.
        simplifies: Whether a failure is made simpler and replayed for its trace. One that is only to be known of,
            while Hypothesis looks for simpler inputs, is not worth hundreds of executions.
    """
    name = get_name(world.program)
    unfollowed = "faults that befall messages" if any(isinstance(one, MessageFault) for one in world.faults) else None
    plan = make_search(strategy, seed, max_executions, unfollowed=unfollowed)
    frontier, dpor = plan.frontier, plan.dpor
    hunt = Hunt(plan.search, max_executions)
    try:
        drive(world, hunt)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"{name}: interrupted after {hunt.executions:,} executions without a failure")
        raise
    report = Report(
        program=name,
        failure=None,
        executions=hunt.executions,
        certificate=None if hunt.found is not None or not hunt.is_pure else certify(plan),
        bound=None if frontier is None or hunt.is_hurried else frontier.bound,
        reduced=0 if dpor is None else dpor.taken,
        sampled=hunt.executions - plan.systematic,
        untracked=() if dpor is None else tuple(dpor.untracked),
        diverged=plan.diverged,
        uncontrolled=tuple(sorted(hunt.uncontrolled)),
        seed=seed,
        clock="explore" if world.explores_clock else "auto",
    )
    if hunt.found is None:
        return report
    if not simplifies:
        failure = make_failure(world, hunt.found, Recorder(), minimal=None, reproduced=True)
        return attrs.evolve(report, failure=failure)
    failure, extra = simplify(world, hunt.found, frontier or Frontier(f"auto/{seed}"))
    return attrs.evolve(report, failure=failure, simplified_in=extra)


def certify(plan: Plan) -> Certificate | None:
    """Return the proof that every schedule was run, or one for each that can be told apart; None if not."""
    if plan.diverged:
        return None
    if plan.frontier is not None and plan.frontier.is_complete:
        return Certificate("dfs", plan.frontier.taken, 0)
    if plan.dpor is not None and plan.dpor.is_complete:
        if not plan.dpor.has_choices:
            return Certificate("dfs", plan.dpor.executions, 0)
        return Certificate("dpor", plan.dpor.executions, plan.dpor.pruned)
    return None


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
        return make_failure(world, execution, recorder, minimal=None, reproduced=True)
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
    plan = require_conditions(faults, clock, max_steps)
    require_control()
    if trio.lowlevel.in_trio_run():
        message = "the race toolkit starts trio itself, and trio is running here; call it from a plain def"
        raise RuntimeError(message)
    return World(program, plan, clock == "explore", max_steps)


def require_search(max_executions: int, strategy: str, seed: int) -> None:
    """Refuse options that no search can have."""
    require_count("max_executions", max_executions)
    require_count("seed", seed, least=0)
    require_one_of("strategy", strategy, STRATEGIES)


def require_conditions(faults: Iterable[Fault], clock: str, max_steps: int) -> tuple[Fault, ...]:
    """Refuse conditions under which no execution can be; return the fault plan."""
    require_one_of("clock", clock, CLOCKS)
    require_count("max_steps", max_steps)
    return require_faults(faults)


def record(world: World, chooser: Chooser) -> tuple[Execution, Recorder]:
    """Run one execution with its trace."""
    recorder = Recorder()
    once = Once(chooser)
    drive(world, once, recorder=recorder)
    assert once.execution is not None
    return once.execution, recorder


def _require_program(program: object) -> None:
    if not callable(program):
        hint = "give the function itself, without calling it" if inspect.iscoroutine(program) else None
        refuse(f"program must be an async function, not {program!r}", hint=hint)
    code = getattr(program, "__code__", None)
    if inspect.iscoroutinefunction(program) and code is not None and not code.co_argcount + code.co_kwonlyargcount:
        return  # it is what it nearly always is
    try:
        inspect.signature(program).bind()
    except TypeError as error:
        refuse(f"program must be an async function without arguments, and {get_name(program)} has a {error}")
    except ValueError as error:
        if isinstance(program, partial):
            refuse(f"program must be an async function without arguments, and {get_name(program)}: {error}")
        # else it has no signature to look at
    inner: Any = program
    while isinstance(inner, partial):
        inner = inner.func
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        refuse(f"program must be an async function, and {get_name(program)} is a generator")
