"""Finds out, at import, whether this release of trio lets the toolkit control its tasks.

Control rests on documented interfaces of trio and on one that is documented and not promised: that an instrument
may assign to `Task.coro` before the task's first step.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import trio

from stageflow_actors.errors import ControlError

from ._choosers import Given
from ._clock import ControlledClock
from ._control import Controller, Hooks
from ._interrupts import Interrupts

if TYPE_CHECKING:
    from ._execution import Execution

_EXPECTED: Final = {"0": "aabb", "1": "bbaa", "01": "abba"}
"""What the canary's two tasks write, by schedule: `0` is the default, `01` stops the first after its first letter."""


def _check() -> str | None:
    """Return what is wrong, or None."""
    written: list[str] = []

    async def write(letter: str) -> None:
        written.append(letter)
        await trio.lowlevel.checkpoint()
        written.append(letter)

    async def program() -> str:
        written.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "a")
            nursery.start_soon(write, "b")
        await trio.sleep(3600)
        return "".join(written)

    async def main(controller: Controller) -> dict[str, Execution]:
        await trio.lowlevel.checkpoint()
        controller.enter()
        async with trio.open_nursery() as nursery:
            return {text: await controller.execute(nursery, program, Given(list(map(int, text)))) for text in _EXPECTED}

    clock = ControlledClock()
    controller = Controller(clock, Interrupts(), max_steps=100, explores_clock=False)
    try:
        executions = trio.run(main, controller, clock=clock, instruments=[Hooks(controller)])
    except BaseException as error:  # whatever a changed trio makes of it
        return f"{type(error).__qualname__}: {error}"
    for text, expected in _EXPECTED.items():
        if executions[text].value != expected:
            return f"schedule {text!r} gave {executions[text].value!r} instead of {expected!r}"
    return None


def _check_anywhere() -> str | None:
    """Check in a thread of its own: the module may be imported inside a run of trio."""
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_check()), name="race toolkit canary", daemon=True)
    thread.start()
    thread.join(timeout=10)
    return found[0] if found else "two tasks and a checkpoint did not end"


PROBLEM: Final = _check_anywhere()
"""Why control does not work; None if it does."""


def require_control() -> None:
    """Raise a `ControlError` if this release of trio cannot be controlled."""
    if PROBLEM is not None:
        problem = f"trio {trio.__version__} does not let its tasks be controlled: {PROBLEM}"
        hint = "explore, replay, race_test and check_pipeline need another release of trio; run_stage works"
        raise ControlError(problem, hint=hint)
