"""The checks of arguments, with one wording each."""

from __future__ import annotations

from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import PipelineValidationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


_TOO_LONG = 1e15
"""Seconds; past it clocks lose their fractions."""

FEW_NAMES = 200
"""How many names to compare where a wrong one is no rarity: an actor is looked for, and spawned where there is none."""

_LOOKED_AT = 10_000
"""How many names `nearest` compares, so that an error in a huge pipeline does not stall whoever waits."""


def refuse(problem: str, *, pipeline: str | None = None, stage: str | None = None, hint: str | None = None) -> NoReturn:
    """Raise the error of a definition that cannot work."""
    raise PipelineValidationError(problem, pipeline=pipeline, stage=stage, hint=hint)


def require_name(what: str, value: object, *, pipeline: str | None = None) -> str:
    """Return `value` if it is a string that names something."""
    if not isinstance(value, str) or not value:
        refuse(f"{what} must be a non-empty string, not {value!r}", pipeline=pipeline)
    return value


def require_seconds(what: str, value: object, *, pipeline: str | None = None, stage: str | None = None) -> float:
    """Return `value` if it is a positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _TOO_LONG:
        hint = "leave it out for no limit" if isinstance(value, (int, float)) and value >= _TOO_LONG else None
        refuse(f"{what} must be a positive number of seconds, not {value!r}", pipeline=pipeline, stage=stage, hint=hint)
    return value


def require_count(what: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """Return `value` if it is a whole number of at least 1, or of what is given."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        rule = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        refuse(f"{what} must be a whole number {rule}, not {value!r}")
    return value


def require_between(what: str, value: object, least: float, most: float = _TOO_LONG) -> float:
    """Return `value` if it is a finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        rule = f"of at least {least:g}" if most == _TOO_LONG else f"from {least:g} to {most:g}"
        if most == _TOO_LONG and isinstance(value, (int, float)) and value > most:
            rule = f"below {most:g}"
        refuse(f"{what} must be a number {rule}, not {value!r}")
    return value


def require_one_of(what: str, value: object, known: Collection[str]) -> str:
    """Return `value` if it is one of some words."""
    if not isinstance(value, str) or value not in known:
        refuse(f"{what} must be one of {', '.join(map(repr, known))}, not {value!r}", hint=nearest(value, known))
    return value


def require_word(what: str, value: object, known: tuple[str, ...]) -> Any:
    """Return `value` if it is one of some words, which a `Literal` lists."""
    if value not in known:
        refuse(f"{what} must be one of {', '.join(known)}, not {value!r}", hint=nearest(value, known))
    return value


def count(number: int, one: str, many: str | None = None) -> str:
    """Return `1 stage` or `2 stages`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def list_names(names: Iterable[object]) -> str:
    """Return the names for an error's message, no more than ten."""
    told = [repr(name) for name in names]
    more = f" and {len(told) - 10:,} more" if len(told) > 10 else ""
    return ", ".join(told[:10]) + more


def suggest(name: object, known: Collection[str], what: str, *, most: int = _LOOKED_AT) -> str:
    """Return the hint for an unknown name: the nearest known one, or what there is.

    Args:
        name: The unknown one.
        known: Those that there are.
        what: What the list of them begins with.
        most: How many of them to compare; fewer than by default where asking for an unknown name is no rarity.
    """
    return nearest(name, known, most) or f"{what} {list_names(known)}"


def nearest(name: object, known: Iterable[str], most: int = _LOOKED_AT) -> str | None:
    """Return `did you mean 'x'?` for the known name nearest to `name`, or None where none is near."""
    wanted = str(name)
    near = (other for other in map(str, known) if abs(len(other) - len(wanted)) <= 3)
    found = get_close_matches(wanted, islice(near, most), n=1)
    return f"did you mean {found[0]!r}?" if found else None
