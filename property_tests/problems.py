"""What stages raise on purpose, and errors as the model names them: by their types."""

from __future__ import annotations


class PlannedError(Exception):
    """What a stage raises on purpose; its only argument is the stage's name."""


class UnprintableError(PlannedError):
    """One whose message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("there is no telling")

    __repr__ = __str__


class CleanupError(PlannedError):
    """What a stage raises when it is cancelled."""


class PredicateError(PlannedError):
    """What the functions of a restart raise."""


class Abort(BaseException):
    """What is no `Exception`."""


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions of a group, of its groups, and so on; or the one that it is."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves(inner)]


def find_behind(error: BaseException) -> set[str]:
    """Return the types of all causes and contexts of an error, and of theirs."""
    found: set[BaseException] = set()
    work = [*leaves(error), error]
    while work:
        current = work.pop()
        for behind in (current.__cause__, current.__context__):
            if behind is not None and behind not in found:
                found.add(behind)
                work += [behind, *leaves(behind)]
                found.update(leaves(behind))
    return {type(one).__name__ for one in found}


def name_problem(error: BaseException) -> tuple[str, ...]:
    """Return an error as the model names it."""
    name = type(error).__name__
    if not isinstance(error, BaseExceptionGroup):
        return (name,)
    return (name, *(type(leaf).__name__ for leaf in leaves(error)))
