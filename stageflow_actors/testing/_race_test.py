"""`race_test`: an async test that runs under many schedules."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, final, overload

import attrs
import trio

from stageflow_actors._validation import refuse
from stageflow_actors.errors import RaceError, ReplayError, StageflowError

from ._examples import (
    EXAMPLE_EXECUTIONS,
    INPUTS_NOTE,
    as_one_example,
    is_data,
    is_example_of,
    is_in_example,
    is_to_shrink,
)
from ._explore import MAX_EXECUTIONS, hunt_down, make_world, replay, require_conditions, require_search
from ._frames import get_name
from ._report import raise_failure
from ._simplify import MAX_STEPS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from ._drive import Program
    from ._explore import ClockMode
    from ._faults import Fault
    from ._report import RaceFailure, Report
    from ._search import Strategy

P = ParamSpec("P")

_AsyncTest: TypeAlias = "Callable[P, Awaitable[object]]"


@final
@attrs.frozen
class Orders:
    """What pytest says to the race test that runs, and what it answers."""

    command: str
    """The command that runs this test alone."""
    max_executions: int | None = None
    strategy: Strategy | None = None
    seed: int | None = None
    schedule: str | None = None
    """Replay this, and explore nothing."""
    reports: list[Report] = attrs.field(factory=list)
    """One an exploration: of each example, with Hypothesis."""
    replays: list[RaceFailure | None] = attrs.field(factory=list)
    """What came of each replay."""


ORDERS: Final[ContextVar[Orders | None]] = ContextVar("race test orders", default=None)


@overload
def race_test(test: _AsyncTest[P], /) -> Callable[P, None]: ...


@overload
def race_test(
    *,
    max_executions: int | None = None,
    strategy: Strategy = "auto",
    seed: int = 0,
    faults: Iterable[Fault] = (),
    clock: ClockMode = "explore",
    max_steps: int = MAX_STEPS,
) -> Callable[[_AsyncTest[P]], Callable[P, None]]: ...


def race_test(
    test: _AsyncTest[P] | None = None,
    /,
    *,
    max_executions: int | None = None,
    strategy: Strategy = "auto",
    seed: int = 0,
    faults: Iterable[Fault] = (),
    clock: ClockMode = "explore",
    max_steps: int = MAX_STEPS,
) -> Callable[P, None] | Callable[[_AsyncTest[P]], Callable[P, None]]:
    """Make an async test run under many schedules, as `explore` runs a program.

        @race_test
        async def test_no_update_is_lost():
            account = Account()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(account.deposit, 1)
                nursery.start_soon(account.deposit, 1)
            assert account.balance == 2

    What it returns is a plain function, for pytest a sync test: with fixtures, marks and parameters as usual.
    Fixtures and other arguments are made once, for all executions; what an execution changes has to be made inside.
    A test that skips, is expected to fail or is interrupted in an execution does so as any other, and ends there.

    With Hypothesis, `@given` stands outermost; each example is explored. Hypothesis makes the inputs of a failure
    simpler and the toolkit its schedule. Inside, `assume`, `event` and `note` do what they do in any test; the notes
    that are printed are those of the execution that is shown. `data()` is refused, for it would draw anew in every
    execution, and so is `target` by Hypothesis, which wants to hear it once. Give it `settings(deadline=None)` where
    an example takes long.

    Args:
        test: The async function.
        max_executions: How many executions are made at most to find a failure; None: 1,000, and 100 for each
            example of Hypothesis.
        strategy: As in `explore`, like all that follows.
        seed: Of the samplers.
        faults: What may go wrong.
        clock: Whether jumps of the clock are a choice.
        max_steps: An execution with more steps does not end: a livelock.

    Returns:
        The test, or a decorator if only options were given. It raises a `RaceError` from what the test raised, with
        the schedule, its trace, and a line that replays it.

    Raises:
        PipelineValidationError: An option that cannot be; or what is decorated is no async function. Nothing has run.
    """
    require_search(MAX_EXECUTIONS if max_executions is None else max_executions, strategy, seed)
    plan = require_conditions(faults, clock, max_steps)
    options = _Options(max_executions, strategy, seed, plan, clock, max_steps)
    return options.decorate if test is None else options.decorate(test)


@final
@attrs.frozen
class _Options:
    max_executions: int | None
    strategy: Strategy
    seed: int
    faults: tuple[Fault, ...]
    clock: ClockMode
    max_steps: int

    def decorate(self, test: _AsyncTest[P], /) -> Callable[P, None]:
        _require_test(test)
        signature = inspect.signature(test)

        @wraps(test)
        def explored(*args: P.args, **kwargs: P.kwargs) -> None:
            __tracebackhide__ = True
            arguments = signature.bind(*args, **kwargs).arguments
            notes: list[object] = []
            with as_one_example(notes):
                try:
                    _require_shareable(test, arguments)
                    self._run(_Call(test, args, kwargs, notes))
                except StageflowError as error:
                    if isinstance(error, RaceError) and is_in_example():
                        error.add_note(INPUTS_NOTE)
                    raise error.with_traceback(None)  # noqa: B904  # the same, without frames that are not the user's

        explored.is_race_test = True  # type: ignore[attr-defined]  # what the plugin knows it by
        # A mark of pytest-trio, as on a whole module, would have it refuse what is not async.
        explored._trio_test_runner_wrapped = True  # type: ignore[attr-defined]  # noqa: SLF001
        return explored

    def _run(self, call: _Call) -> None:
        __tracebackhide__ = True
        orders = ORDERS.get()

        def program() -> Awaitable[object]:
            call.notes.clear()
            return call.test(*call.args, **call.kwargs)

        program.__qualname__ = get_name(call.test)
        if orders is not None and orders.schedule is not None:
            self._replay(program, orders, call)
        else:
            self._explore(program, orders, call)

    def _explore(self, program: Program, orders: Orders | None, call: _Call) -> None:
        __tracebackhide__ = True
        world = make_world(program, self.faults, self.clock, self.max_steps)
        executions = self.max_executions or (EXAMPLE_EXECUTIONS if is_in_example() else MAX_EXECUTIONS)
        strategy, seed = self.strategy, self.seed
        if orders is not None:
            executions = orders.max_executions or executions
            strategy = orders.strategy or strategy
            seed = seed if orders.seed is None else orders.seed
        report = hunt_down(
            world, max_executions=executions, strategy=strategy, seed=seed, simplifies=not is_to_shrink()
        )
        if orders is not None:
            orders.reports.append(report)
        if report.failure is not None:
            failure = attrs.evolve(report.failure, call=call.write_replay(report.failure, orders))
            raise_failure(failure, attrs.evolve(report, failure=failure))

    def _replay(self, program: Program, orders: Orders, call: _Call) -> None:
        __tracebackhide__ = True
        assert orders.schedule is not None
        failure = None
        try:
            failure = replay(program, orders.schedule, faults=self.faults, clock=self.clock, max_steps=self.max_steps)
        except ReplayError:
            if not is_in_example():
                raise
            # It was found with other inputs; these need not have its choices.
        orders.replays.append(failure)
        if failure is not None:
            raise_failure(attrs.evolve(failure, call=call.write_replay(failure, orders)), None)


@final
@attrs.frozen
class _Call:
    """A test and its arguments."""

    test: Callable[..., Awaitable[object]]
    args: Sequence[object]
    kwargs: Mapping[str, object]
    notes: list[object]
    """What the execution that runs, or was the last, has noted for Hypothesis."""

    def write_replay(self, failure: RaceFailure, orders: Orders | None) -> str:
        """Return the line that replays a failure: of a shell for pytest, and of Python elsewhere."""
        if orders is not None:
            return f'{orders.command} --race-replay "{failure.schedule}"'
        name = get_name(self.test)
        written = f"{name}.hypothesis.inner_test.__wrapped__" if is_example_of(self.test) else f"{name}.__wrapped__"
        given = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        if given:
            written = f"partial({', '.join([written, *given])})"
        return failure.call.replace(f"replay({failure.program},", f"replay({written},", 1)


def _require_test(test: object) -> None:
    if inspect.iscoroutinefunction(test) and not hasattr(test, "hypothesis"):
        return
    hint = "make it an async def"
    if not inspect.isfunction(test):
        hint = "write @staticmethod above it" if isinstance(test, staticmethod) else "options are given by name"
        refuse(f"race_test must stand over an async function, not over {test!r}", hint=hint)
    what = "a plain def"
    if hasattr(test, "hypothesis"):
        what, hint = "a test of Hypothesis", "write @given above @race_test"
    elif hasattr(test, "is_race_test"):
        what, hint = "a race test", "once is enough"
    elif inspect.isasyncgenfunction(test):
        what, hint = "an async generator", "a test has no yield"
    elif hasattr(test, "__wrapped__"):
        hint = "if what it wraps is async, write race_test below the other decorators, or make their wrapper async too"
    refuse(f"race_test must stand over an async function, and {get_name(test)} is {what}", hint=hint)


def _require_shareable(test: Callable[..., object], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that cannot be the same for many executions."""
    for name, value in arguments.items():
        problem = f"the argument {name!r} of the race test {get_name(test)} "
        if inspect.iscoroutine(value) or inspect.isasyncgen(value):
            what = "a coroutine" if inspect.iscoroutine(value) else "an async generator"
            hint = "if it is an async fixture, make what it makes inside the test"
            refuse(f"{problem}is {what}, which runs once, and the test many times", hint=hint)
        if isinstance(value, trio.abc.Clock):
            hint = "leave it out; for a clock that jumps only when nothing else can go on, say clock='auto'"
            refuse(f"{problem}is a clock, and the toolkit brings its own", hint=hint)
        if is_data(value):
            hint = "draw everything in @given, with @composite where it depends on other draws"
            refuse(f"{problem}is data(), which would draw other values in every execution", hint=hint)
