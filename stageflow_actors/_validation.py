"""The checks of arguments, with one wording each."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from .errors import PipelineValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable


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
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        refuse(f"{what} must be a positive number of seconds, not {value!r}", pipeline=pipeline, stage=stage)
    return value


def require_count(what: str, value: object) -> int:
    """Return `value` if it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        refuse(f"{what} must be a whole number of at least 1, not {value!r}")
    return value


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return `did you mean 'x'?` for the known name nearest to `name`, or None where none is near."""
    found = get_close_matches(str(name), list(known), n=1)
    return f"did you mean {found[0]!r}?" if found else None
