"""Runs executions, as many as can be inside one run of trio."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio

from ._clock import ControlledClock
from ._control import Controller
from ._injection import Injection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._faults import Fault
    from ._search import Search
    from ._trace import Recorder

Program: TypeAlias = "Callable[[], Awaitable[object]]"

_LOGGER: Final = logging.getLogger(__name__.partition(".")[0])
"""The library's. It logs every failure of a stage; thousands of executions would say the same."""

_SETTLE: Final = 2
"""Passes of the loop after which trio's own tasks wait."""


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
    session = _Session(world, search, recorder)
    _LOGGER.addFilter(_refuse)
    try:
        while not session.is_over:
            session.run()
    finally:
        _LOGGER.removeFilter(_refuse)
    if session.interrupt is not None:
        raise session.interrupt


def _refuse(_record: logging.LogRecord) -> bool:
    return False


@final
class _Session:
    def __init__(self, world: World, search: Search, recorder: Recorder | None) -> None:
        self._world = world
        self._search = search
        self._recorder = recorder
        self.is_over = False
        self.interrupt: BaseException | None = None

    def run(self) -> None:
        """Run executions until the search is over, or one leaves something behind."""
        clock = ControlledClock()
        world = self._world
        controller = Controller(
            clock, max_steps=world.max_steps, explores_clock=world.explores_clock, recorder=self._recorder
        )
        self._is_spoiled = False
        try:
            trio.run(self._run_executions, controller, clock=clock, instruments=[controller])
        except trio.TrioInternalError:
            if not self._is_spoiled:
                raise

    async def _run_executions(self, controller: Controller) -> None:
        for _ in range(_SETTLE):
            await trio.lowlevel.checkpoint()
        world = self._world
        while not self._is_spoiled:
            chooser = self._search.next()
            if chooser is None:
                self.is_over = True
                return
            injection = Injection(world.faults) if world.faults else None
            execution = await controller.execute(world.program, chooser, injection)
            self._is_spoiled = execution.spoiled
            if execution.failure is not None:
                self.interrupt = find_interrupt(execution.failure.error)
                if self.interrupt is not None:
                    self.is_over = True
                    return
            self._search.learn(execution)


def find_interrupt(error: BaseException | None) -> BaseException | None:
    """Return what is not for the toolkit to judge: an interrupt, an exit, a skipped test; None for a failure."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for found in map(find_interrupt, error.exceptions) if found is not None), None)
    if error is None or isinstance(error, (Exception, trio.Cancelled, GeneratorExit)) or _is_failed_test(error):
        return None
    return error


def _is_failed_test(error: BaseException) -> bool:
    """Return whether it is what `pytest.fail` raises, which is no Exception."""
    pytest = sys.modules.get("pytest")
    return pytest is not None and isinstance(error, pytest.fail.Exception)
