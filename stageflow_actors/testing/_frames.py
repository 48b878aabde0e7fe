"""Where a suspended task is: read from its frames, and from the traps by which it waits."""

from __future__ import annotations

import enum
import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Wait(enum.Enum):
    """For what a task waits, where that is not another task's doing."""

    NOTHING = "nothing"
    THREAD = "a thread"
    IO = "a socket, file or process"
    IDLE = "all other tasks being blocked"
    CHILDREN = "the end of its nursery"


IN_NOTHING: Final = Wait.NOTHING
IN_THREAD: Final = Wait.THREAD
IN_IO: Final = Wait.IO
IN_IDLE: Final = Wait.IDLE
IN_CHILDREN: Final = Wait.CHILDREN

_OWN: Final = __name__.partition(".")[0]
_CALLER: Final = f"{__name__.rpartition('.')[0]}._control"
_IN_LOOP: Final = {"Runner.wait_all_tasks_blocked": IN_IDLE, "Nursery._nested_child_finished": IN_CHILDREN}


def classify(trap: Any) -> Wait:
    """Return what a trap waits for: trio's abort functions say by where they are defined who made them."""
    abort = getattr(trap, "abort_func", None)
    module = getattr(abort, "__module__", "")
    if module == "trio._threads":
        return IN_THREAD
    if module.startswith("trio._core._io_"):
        return IN_IO
    if module == "trio._core._run":
        return _IN_LOOP.get(getattr(abort, "__qualname__", "").partition(".<locals>")[0], IN_NOTHING)
    return IN_NOTHING


@attrs.frozen
class Place:
    """Where a task is."""

    awaits: str
    """What it awaits, as a person says it: `Event.wait`, `trio.sleep`, `the end of its nursery`."""
    file: str
    line: int
    function: str
    """The innermost function of the program's own code, and where it stands."""

    def __str__(self) -> str:
        return f"{shorten(self.file)}:{self.line} in {self.function}"


def walk(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, from the outermost to the one that waits."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
            continue
        # The steps of an asynchronous generator do not say whose they are (python/cpython#76991).
        generators = (other for other in gc.get_referents(coroutine) if hasattr(other, "ag_frame"))
        generator = next(generators, None)
        if generator is None or generator.ag_frame is None:
            return
        yield generator.ag_frame
        coroutine = generator.ag_await


def is_of(frame: FrameType, package: str) -> bool:
    """Return whether a frame is of code in a package."""
    name = frame.f_globals.get("__name__", "")
    return bool(name == package or name.startswith(package + "."))


def is_own(frame: FrameType) -> bool:
    """Return whether a frame is of code of this library."""
    return is_of(frame, _OWN)


def is_foreign(frame: FrameType) -> bool:
    """Return whether a frame is nobody's: trio's, an adapter's beneath it, or the one that calls the program."""
    name = frame.f_globals.get("__name__", "")
    return name == _CALLER or name.partition(".")[0] in {"trio", "outcome", "contextlib", "anyio"}


def split(coroutine: Any) -> tuple[FrameType | None, list[FrameType]]:
    """Return the innermost frame of the program's own code, and what it has called.

    Frames of this library are the program's only where there are no others, and those of its public functions are what
    the others have called.
    """
    frames = list(walk(coroutine))
    user = [index for index, frame in enumerate(frames) if not is_foreign(frame)]
    if not user:
        return None, frames
    own = [index for index in user if not is_own(frames[index])]
    private = [index for index in user if frames[index].f_code.co_name.startswith("_")]
    index = (own or private or user)[-1]
    return frames[index], frames[index + 1 :]


def locate(coroutine: Any) -> Place | None:
    """Return where a suspended coroutine is; None where it is in no code of the program's."""
    frame, called = split(coroutine)
    if frame is None:
        return None
    function = frame.f_code.co_qualname.rpartition("<locals>.")[2]
    return Place(_name_await(called), frame.f_code.co_filename, frame.f_lineno, function)


def get_object(coroutine: Any) -> Any:
    """Return the lock, event or channel that a suspended coroutine waits for, or None."""
    owners = (frame.f_locals.get("self") for frame in split(coroutine)[1] if is_foreign(frame))
    return next((owner for owner in owners if type(owner).__module__.startswith("trio")), None)


NURSERY: Final = Wait.CHILDREN.value

_NAMES: Final = {
    "NurseryManager.__aexit__": NURSERY,
    "Nursery._nested_child_finished": NURSERY,
    "to_thread_run_sync": "trio.to_thread.run_sync",
    "checkpoint": "trio.lowlevel.checkpoint",
    "cancel_shielded_checkpoint": "trio.lowlevel.cancel_shielded_checkpoint",
    "checkpoint_if_cancelled": "trio.lowlevel.checkpoint_if_cancelled",
    "wait_task_rescheduled": "trio.lowlevel.wait_task_rescheduled",
}


def _name_await(called: list[FrameType]) -> str:
    """Return what a function awaits: the first public thing that it has called."""
    for frame in called:
        code = frame.f_code
        if code.co_qualname in _NAMES:
            return _NAMES[code.co_qualname]
        if not code.co_name.startswith("_"):
            owner = frame.f_locals.get("self")
            if owner is not None:
                return f"{type(owner).__name__}.{code.co_name}"
            package = frame.f_globals.get("__name__", "").partition(".")[0]
            return f"{package}.{code.co_qualname}"
    return called[0].f_code.co_qualname if called else "its turn"


def shorten(file: str) -> str:
    """Return a path as it is best read: below the current directory, relative to it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def get_name(program: Callable[..., object]) -> str:
    """Return a program's name as people know it."""
    while isinstance(program, partial):
        program = program.func
    name: str = getattr(program, "__qualname__", None) or type(program).__qualname__
    return name.rpartition("<locals>.")[2]
