"""Runs executions, as many as can be inside one run of trio."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio
from trio.lowlevel import Task

from ._cell import Abandoned
from ._clock import ControlledClock
from ._control import Controller, Hooks
from ._injection import Injection
from ._interrupts import Interrupts
from ._message_faults import intercept
from ._reduction.search import Walk
from ._reduction.tracker import Tracker
from ._trace import iterate_leaves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ._choosers import Chooser
    from ._execution import Execution
    from ._faults import Fault
    from ._search import Search
    from ._trace import Recorder

Program: TypeAlias = "Callable[[], Awaitable[object]]"

_LOGGER: Final = logging.getLogger(__name__.partition(".")[0])
"""The library's. It logs every failure of a stage; thousands of executions would say the same."""


@final
@attrs.frozen
class World:
    """What all executions of a program have in common."""

    program: Program
    faults: tuple[Fault, ...]
    explores_clock: bool
    max_steps: int


def drive(world: World, search: Search, *, recorder: Recorder | None = None) -> None:
    """Run executions for as long as the search has choosers, and let it learn from each.

    They share a run of trio: to start one costs more than most programs. An execution that leaves something
    behind ends the run, and the next begins another.

    Raises:
        KeyboardInterrupt: The user interrupted; everything has ended.
        BaseException: What the program raised that is no `Exception`, such as `SystemExit`. It does not pass
            through trio's loop, which it would wreck.
    """
    with Interrupts() as interrupts, intercept(world.faults):
        session = _Session(world, search, recorder, interrupts)
        _LOGGER.addFilter(_refuse)
        try:
            while not session.is_over:
                session.run()
                session.tidy()
        finally:
            _LOGGER.removeFilter(_refuse)
            session.end()
    if interrupts.is_noted:
        raise KeyboardInterrupt
    if session.interrupt is not None:
        raise session.interrupt


def _refuse(_record: logging.LogRecord) -> bool:
    return False


@final
class _Session:
    def __init__(self, world: World, search: Search, recorder: Recorder | None, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._world = world
        self._search = search
        self._recorder = recorder
        self._wreck: BaseException | None = None
        self.is_over = False
        self._tracker: Tracker | None = None
        self._is_running = False
        self.interrupt: BaseException | None = None

    def run(self) -> None:
        """Run executions until the search is over, or one leaves something behind."""
        clock = ControlledClock()
        world = self._world
        controller = Controller(
            clock,
            self._interrupts,
            max_steps=world.max_steps,
            explores_clock=world.explores_clock,
            recorder=self._recorder,
        )
        left: BaseException | None = None
        try:
            trio.run(self._run_executions, controller, clock=clock, instruments=[Hooks(controller)])
        except BaseException as error:
            is_broken = controller.is_spoiled or isinstance(error, trio.TrioInternalError)
            if not controller.is_stopped and not (self._is_running and is_broken):
                raise
            self._wreck = error
            if not _is_ours(error):
                left = error  # the program has broken trio's rules, and so its run
        if controller.is_stopped:
            self.is_over = True
            self.interrupt = controller.broken
        elif self._is_running:
            self._take(controller.conclude(left))

    def _get_tracker(self, chooser: Chooser) -> Tracker | None:
        """Return what tracks the execution of a chooser, None where nobody wants to hear of its steps."""
        is_tracked = isinstance(chooser, Walk)
        if is_tracked and self._tracker is None:
            self._tracker = Tracker()
        if self._tracker is not None:
            self._tracker.turn(on=is_tracked)
        return self._tracker if is_tracked else None

    def end(self) -> None:
        """Leave the classes of the program as they were."""
        if self._tracker is not None:
            self._tracker.turn(on=False)
            self._tracker.let_go()

    def tidy(self) -> None:
        """Let go of a run of trio that broke off.

        Its tasks were not ended, and complain when they are collected: in somebody else's test, if not here and now.
        """
        wreck, self._wreck = self._wreck, None
        if wreck is None:
            return
        if self._tracker is not None:
            self._tracker.let_go()
        for error in _iterate_chain(wreck):
            traceback.clear_frames(error.__traceback__)
            if any(isinstance(one, Task) for one in error.args):  # a task holds all of the run
                error.args = tuple(repr(one) if isinstance(one, Task) else one for one in error.args)
        hook = sys.unraisablehook
        sys.unraisablehook = lambda _unraisable: None
        try:
            gc.collect()
        finally:
            sys.unraisablehook = hook

    async def _run_executions(self, controller: Controller) -> None:
        await trio.lowlevel.checkpoint()  # after which trio's own tasks wait
        world = self._world
        controller.enter()
        async with trio.open_nursery() as nursery:
            while not (self.is_over or controller.is_spoiled):
                chooser = self._search.next()
                if chooser is None:
                    self.is_over = True
                    return
                tracker = self._get_tracker(chooser)
                injection = Injection(world.faults) if world.faults else None
                self._is_running = True
                execution = await controller.execute(nursery, world.program, chooser, injection, tracker)
                if controller.is_stopped:
                    return
                if not controller.is_spoiled:  # else it is known what came of it when the run of trio has ended
                    self._take(execution)

    def _take(self, execution: Execution) -> None:
        self._is_running = False
        if execution.failure is not None:
            self.interrupt = find_interrupt(execution.failure.error)
            if self.interrupt is not None:
                self.is_over = True
                return
        self._search.learn(execution)


def _iterate_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it came from, and what is in them."""
    open_ones, seen = [error], set[int]()
    while open_ones:
        found = open_ones.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            open_ones += [found.__cause__, found.__context__]
            if isinstance(found, BaseExceptionGroup):
                open_ones += found.exceptions


def _is_ours(error: BaseException) -> bool:
    """Return whether it comes from nothing but the end that was made of what did not end by itself."""
    cause = error.__cause__ if isinstance(error, trio.TrioInternalError) else error
    return cause is not None and all(isinstance(leaf, Abandoned) for leaf in iterate_leaves(cause))


def find_interrupt(error: BaseException | None) -> BaseException | None:
    """Return what is not for the toolkit to judge, such as an interrupt or a skipped test; None for a failure."""
    return None if error is None else next(filter(_is_verdict, iterate_leaves(error)), None)


def _is_verdict(error: BaseException) -> bool:
    if isinstance(error, (trio.Cancelled, GeneratorExit)):
        return False
    return isinstance(error, _list_verdicts()) or not (isinstance(error, Exception) or _is_failed_test(error))


def _list_verdicts() -> tuple[type[BaseException], ...]:
    """Return what a test raises to say something else than that it fails: of what is imported, for nothing else can."""
    verdicts: list[type[BaseException]] = []
    if (pytest := sys.modules.get("pytest")) is not None:
        verdicts += [pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception]
    if (case := sys.modules.get("unittest.case")) is not None:
        verdicts.append(case.SkipTest)
    if (errors := sys.modules.get("hypothesis.errors")) is not None:
        verdicts.append(errors.HypothesisException)
    return tuple(verdicts)


def _is_failed_test(error: BaseException) -> bool:
    """Return whether it is what `pytest.fail` raises, which is no Exception."""
    pytest = sys.modules.get("pytest")
    return pytest is not None and isinstance(error, pytest.fail.Exception)
