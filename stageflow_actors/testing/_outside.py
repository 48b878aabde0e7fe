"""What goes on outside an explored program, threads and I/O, and how long a choice waits for it.

None of it is controlled. So that the same choices lead to the same execution all the same, where that is possible,
a choice is made only when running threads have reported and ready sockets were seen.
"""

from __future__ import annotations

import time
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, final

from ._cell import Cell, State
from ._frames import IN_IDLE, IN_IO, IN_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._frames import Wait

# Real seconds.
_BEFORE_CHOICE: Final = 0.05
"""So long a choice waits for a running thread: it may be one that waits for the program."""
_BETWEEN_LOOKS: Final = 0.001
"""So long until it is looked again, where the one who hears of threads does not listen, for it has heard of one."""
_BEFORE_JUMP: Final = {IN_THREAD: 1.0, IN_IO: 0.05}
"""So long a program in which nothing can go on waits for the world before the clock jumps."""
_BEFORE_DEADLOCK: Final = 10.0
"""So long where there is no deadline to jump to."""


@final
class Outside:
    """What tasks wait for outside the program.

    Args:
        system: The cells of trio's own tasks, by which threads report.
        count_callbacks: Says how many callbacks are queued for them.
    """

    def __init__(self, system: Sequence[Cell], count_callbacks: Callable[[], int]) -> None:
        self._system = system
        self._count_callbacks = count_callbacks
        self._waits: Counter[Wait] = Counter()
        self.begin()

    def begin(self) -> None:
        """Begin a step, or a jump of the clock: what was waited for before says nothing any more."""
        self._polled = self._settled = self._nudged = False
        self._patient_until = 0.0

    def enter(self, wait: Wait) -> None:
        """Note that a task waits for something outside."""
        self._waits[wait] += 1

    def leave(self, wait: Wait) -> None:
        """Note that it no longer does."""
        self._waits[wait] -= 1

    def is_settled(self) -> bool:
        """Return whether a choice may be made now."""
        if self._settled:
            return True
        if self._count_callbacks() and not self._is_heard():
            return False
        return not self._waits or not (self._waits[IN_IO] or self._is_thread_out())

    def get_patience(self, deadline: float, *, is_ready: bool) -> float | None:
        """Return for how many real seconds trio shall wait for the world; None where it is time to go on.

        Args:
            deadline: The program's next, infinite if it has none.
            is_ready: Whether a task could go on.
        """
        if not self._polled:
            self._polled = True  # what is there already shall be seen, and what has expired
            return 0.0
        if is_ready:
            is_unheard = bool(self._count_callbacks()) and not self._is_heard()
            if (is_unheard or self._is_thread_out()) and (left := self._get_rest(_BEFORE_CHOICE)):
                return min(left, _BETWEEN_LOOKS) if self._is_heard() else left
            self._settled = True
            return None
        if self._waits[IN_IDLE] and not self._nudged:
            self._nudged = True
            return _BEFORE_DEADLOCK  # trio sleeps for as long as they want to wait, and wakes them
        graces = [grace for wait, grace in _BEFORE_JUMP.items() if self._waits[wait]]
        if not graces:
            return None
        return self._get_rest(_BEFORE_DEADLOCK if deadline == inf else max(graces)) or None

    def _is_thread_out(self) -> bool:
        """Return whether a thread has not reported yet that it has ended, or trio has not heard it."""
        threads = self._waits[IN_THREAD]
        if threads == 0:
            return False
        return not self._is_heard() or threads > self._count_callbacks()

    def _is_heard(self) -> bool:
        """Return whether trio has heard of the callbacks that are queued, so that to run them is an option."""
        return any(cell.state is not State.BLOCKED for cell in self._system)

    def _get_rest(self, seconds: float) -> float:
        """Return how much is left of so many real seconds, which begin with the first question after a step."""
        now = time.perf_counter()
        if not self._patient_until:
            self._patient_until = now + seconds
        return max(0.0, self._patient_until - now)
