"""Ctrl-C while a program is explored.

Trio would raise it wherever the main thread happens to be, and that may be inside an instrument, which trio then
takes away: control would be lost. So it is only noted, and heard before the next step.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self, final

from ._frames import is_foreign, is_of

if TYPE_CHECKING:
    from types import FrameType, TracebackType


@final
class Interrupts:
    """Notes interrupts inside its `with` block, in the main thread, unless somebody else handles them."""

    def __init__(self) -> None:
        self.is_noted = False
        """Whether there was one."""
        self._is_ours = False

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        self._is_ours = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._is_ours:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, _number: int, frame: FrameType | None) -> None:
        # A program that goes on without an await never makes the next step: the second time, it is interrupted.
        if self.is_noted and frame is not None and not is_foreign(frame) and not is_of(frame, __package__ or ""):
            raise KeyboardInterrupt
        self.is_noted = True
