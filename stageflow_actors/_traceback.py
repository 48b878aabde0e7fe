"""Tracebacks without the runtime's own frames.

A failed run would otherwise be a reference cycle (error, traceback, frame, run, error) that waits for
the collector; and a person wants to see their own lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

_OWN = f"{__package__}._"


def drop_own_frames(error: BaseException) -> None:
    """Take the runtime's own frames out of the tracebacks of an error and of all those behind it."""
    work: list[BaseException | None] = [error]
    seen: set[int] = set()
    while work:
        error_ = work.pop()
        if error_ is None or id(error_) in seen:
            continue
        seen.add(id(error_))
        error_.__traceback__ = _without_own(error_.__traceback__)
        work += error_.__context__, error_.__cause__
        if isinstance(error_, BaseExceptionGroup):
            work += error_.exceptions


def _is_own(traceback: TracebackType) -> bool:
    name = traceback.tb_frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith((_OWN, "outcome."))


def _without_own(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and _is_own(traceback):
        traceback = traceback.tb_next
    kept = traceback
    while kept is not None:
        following = kept.tb_next
        while following is not None and _is_own(following):
            following = following.tb_next
        kept.tb_next = following
        kept = following
    return traceback
