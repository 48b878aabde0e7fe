"""What is made of a failed attempt: run again, failed, or more than its stage's affair."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs

from ._failures import make_spent, name_window, tell_failures
from ._output import StageOutput, StageStatus
from ._policy import NO_FAILURES, Directive, Restart, Window, count_failure, direct, is_restartable, plan_restart
from ._threads import apart
from ._validation import count

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from ._bag import Attempt
    from ._policy import Intensity


@final
@attrs.frozen
class Verdict:
    """What becomes of an actor whose attempt failed."""

    directive: Directive
    error: BaseException
    """What it fails with, where it does."""
    delay: float = 0.0
    """Seconds until it is run again, where it is."""


@final
class Healing:
    """The restarts of one run: each actor's within its own policy, and all within an intensity.

    That is the run's, or the one of the innermost subpipeline that has its own.
    """

    __slots__ = ("_context", "_counters", "_intensity", "_random")

    def __init__(self, context: contextvars.Context, intensity: Intensity | None, random: Callable[[], float]) -> None:
        self._context = context
        self._intensity = intensity
        self._random = random
        self._counters: dict[str | None, _Counter] = {}
        """One for every subpipeline that counts for itself, and one for the run."""

    def judge(
        self,
        restart: Restart,
        window: Window,
        error: BaseException,
        asked: StageOutput | None,
        attempts: tuple[Attempt, ...],
        now: float,
        counted: tuple[str, Intensity] | None,
    ) -> tuple[Verdict, Window]:
        """Return what becomes of an actor, and the failures that count for it from now on.

        Args:
            restart: Its policy.
            window: The failures that counted for it so far.
            error: Why the attempt failed.
            asked: Its reply, `fail` or `retry`, where it did not raise.
            attempts: Every attempt, that one included.
            now: When it failed, on the run's clock.
            counted: The subpipeline that counts its restarts, and how many it allows; None where the run does.
        """
        if not is_restartable(error) or (asked is not None and asked.status is StageStatus.FAIL):
            return Verdict(Directive.FAIL, error), window
        assert isinstance(error, Exception)
        if asked is None:
            try:
                directive = self._context.copy().run(next, apart(direct, restart, error))
            except BaseException as raised:
                if raised is not error and raised.__context__ is None:
                    raised.__context__ = error
                return Verdict(Directive.FAIL, raised), window
            if directive is not Directive.RESTART:
                return Verdict(directive, error), window
        at_least = 0.0 if asked is None else asked.after
        window, delay = plan_restart(restart, window, now, self._random(), at_least=at_least)
        if delay is None:
            return Verdict(Directive.FAIL, make_spent(tell_failures(window, restart), restart, error, attempts)), window
        name, intensity = counted if counted is not None else (None, self._intensity)
        if intensity is not None and self._counters.setdefault(name, _Counter()).is_spent(intensity, now):
            who = "the run" if name is None else f"subpipeline {name!r}"
            told = f"{who} has had {count(intensity.max_restarts, 'restart')}{name_window(intensity)}"
            return Verdict(Directive.FAIL, make_spent(told, intensity, error, attempts)), window
        return Verdict(Directive.RESTART, error, delay), window


@final
class _Counter:
    """The restarts that one intensity has counted; once past it, it stays so."""

    __slots__ = ("_tripped", "_window")

    def __init__(self) -> None:
        self._window = NO_FAILURES
        self._tripped = False

    def is_spent(self, intensity: Intensity, now: float) -> bool:
        """Count a restart, and return whether it is one too many, or one was."""
        if not self._tripped:
            self._window = count_failure(self._window, intensity.within, now)
            self._tripped = self._window.count > intensity.max_restarts
        return self._tripped
