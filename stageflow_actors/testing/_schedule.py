"""Schedules as text: what was chosen at each point where there was a choice.

Version 1: one digit a choice (0 to 9, a to z for 10 to 35, `[36]` from there on); a digit that is repeated more
than three times is followed by how often, in parentheses: `0(17)10(40)2`. Choices after the end are 0, the default.
A later version will begin with `v2:`; `v1:` may stand here too.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final

from stageflow_actors.errors import ReplayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_TOKEN: Final = re.compile(r"(?:([0-9a-z])|\[(\d{1,9})\])(?:\((\d{1,9})\))?")
_VERSION: Final = re.compile(r"v(\d+):")
_LONGEST: Final = 10_000_000
"""Choices; a run of the toolkit has far fewer."""


def encode(choices: Iterable[int]) -> str:
    """Return the text of a schedule; `0` for the default one."""
    kept = list(choices)
    while kept and kept[-1] == 0:
        kept.pop()
    parts = []
    for choice, group in groupby(kept):
        times = len(list(group))
        digit = _DIGITS[choice] if choice < len(_DIGITS) else f"[{choice}]"
        parts.append(digit * times if times <= 3 else f"{digit}({times})")
    return "".join(parts) or "0"


def decode(text: object) -> Sequence[int]:
    """Return the choices of a schedule's text.

    Raises:
        ReplayError: It is none.
    """
    if not isinstance(text, str) or not text:
        raise ReplayError(f"a schedule must be a non-empty string, not {text!r}", hint="copy it from a failure")
    at = 0
    if version := _VERSION.match(text):
        if version[1] != "1":
            problem = f"the schedule {text!r} is of version {version[1]}, and this release knows version 1"
            raise ReplayError(problem, hint="replay it with the release that printed it")
        at = version.end()
    choices: list[int] = []
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            problem = f"the schedule {text!r} has {text[at]!r} at position {at + 1}, which is no choice"
            raise ReplayError(problem, hint="copy it whole from a failure")
        times = int(token[3] or 1)
        if len(choices) + times > _LONGEST:
            raise ReplayError(f"the schedule {text!r} has more than {_LONGEST:,} choices")
        choices.extend([_DIGITS.index(token[1]) if token[1] else int(token[2])] * times)
        at = token.end()
    return choices
