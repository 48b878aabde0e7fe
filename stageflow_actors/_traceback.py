"""Tracebacks that keep nothing of the runtime.

A failed run would otherwise be a reference cycle (error, traceback, frame, run, error) that waits for
the collector; and a person wants to see their own lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

_OWN = f"{__package__}._"


def drop_own_frames(error: BaseException) -> None:
    """Take the runtime's own frames out of the tracebacks of an error and of all those behind it."""
    for other in _list_errors(error):
        other.__traceback__ = _without_own(other.__traceback__)


def clear_own_frames(error: BaseException) -> None:
    """Empty the runtime's own frames, which have ended, below those in the tracebacks of an error.

    From Python 3.12 on, a coroutine's frame that is kept keeps those of its callers too, and what they
    hold: the run.
    """
    for other in _list_errors(error):
        traceback = other.__traceback__
        while traceback is not None:
            _clear_callers(traceback.tb_frame.f_back)
            traceback = traceback.tb_next


def _clear_callers(frame: FrameType | None) -> None:
    while frame is not None:
        if _is_own(frame):
            try:
                frame.clear()
            except RuntimeError:
                return  # it is still running, and so are its callers
        frame = frame.f_back


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
    return isinstance(name, str) and name.startswith((_OWN, "outcome."))


def _without_own(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and _is_own(traceback.tb_frame):
        traceback = traceback.tb_next
    kept = traceback
    while kept is not None:
        following = kept.tb_next
        while following is not None and _is_own(following.tb_frame):
            following = following.tb_next
        kept.tb_next = following
        kept = following
    return traceback
