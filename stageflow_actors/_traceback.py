"""Tracebacks that keep nothing of the runtime.

A failed run would otherwise be a reference cycle (error, traceback, frame, run, error) that waits for
the collector; and a person wants to see their own lines.
"""

from __future__ import annotations

import gc
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

_OWN = (f"{__package__}._", f"{__package__}.placement.", f"{__package__}.embed.", "outcome.")
"""What the names of modules begin with whose frames tell a person nothing."""
_OUTERMOST = frozenset({"_run_stage", "_run_item"})
"""The outermost coroutines of the tasks of stages and items."""
_MAY_BE_SUSPENDED = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def drop_own_frames(error: BaseException) -> None:
    """Take the runtime's own frames out of the tracebacks of an error and of all those behind it."""
    for other in _list_errors(error):
        # Not `other.__traceback__ =`: an error may be a frozen dataclass, which refuses that.
        BaseException.with_traceback(other, _without_own(other.__traceback__))


def clear_own_frames(error: BaseException, owner: object) -> None:
    """Empty the runtime's own frames, which have ended, below those in the tracebacks of an error.

    From Python 3.12 on, a coroutine's frame that is kept keeps those of its callers too, and what they
    hold: the run.

    Args:
        error: With all those behind it.
        owner: Whose tasks have all ended: the `self` of their outermost frames. Other coroutines are left
            alone: one that is suspended would be closed by having its frame cleared.
    """
    for other in _list_errors(error):
        traceback = other.__traceback__
        while traceback is not None:
            _clear_callers(traceback.tb_frame.f_back, owner)
            traceback = traceback.tb_next


def _clear_callers(frame: FrameType | None, owner: object) -> None:
    awaiting: list[FrameType] = []
    try:
        while frame is not None:
            if not _is_own(frame):
                pass
            elif not frame.f_code.co_flags & _MAY_BE_SUSPENDED:
                frame.clear()
            else:
                awaiting.append(frame)
                if frame.f_code.co_name in _OUTERMOST:
                    # Not `f_locals`, which from then on would keep what the frame does.
                    if any(held is owner for held in gc.get_referents(frame)):
                        for each in awaiting:
                            each.clear()
                    awaiting.clear()
            frame = frame.f_back
    except RuntimeError:
        return  # it is still running, and so are its callers


def _list_errors(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and all its causes, contexts and parts."""
    work: list[BaseException | None] = [error]
    seen: set[int] = set()
    while work:
        other = work.pop()
        if other is None or id(other) in seen:
            continue
        seen.add(id(other))
        yield other
        work += other.__context__, other.__cause__
        if isinstance(other, BaseExceptionGroup):
            work += other.exceptions


def _is_own(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_OWN)


def _without_own(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and _is_own(traceback.tb_frame):
        traceback = traceback.tb_next
    kept = traceback
    while kept is not None:
        following = kept.tb_next
        while following is not None and _is_own(following.tb_frame):
            following = following.tb_next
        if following is not kept.tb_next:  # to set it walks through all that follow
            kept.tb_next = following
        kept = following
    return traceback
