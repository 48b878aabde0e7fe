"""Operations drawn as lines of text, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from stageflow_actors import StageOutput, StageStatus
from stageflow_actors._validation import count

from ._brief import brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._history import Operation

_WIDEST: Final = 60
"""Columns of the intervals; where there are more events, some share one."""

_STEP: Final = 4
"""Columns from an event to the next one, where there is room."""

_LINES: Final = 60
"""Operations that are drawn, the last ones."""

_LONGEST: Final = 80
"""Characters of a value."""


def draw(operations: Sequence[Operation]) -> list[str]:
    """Return a line for each operation, numbered from 1: the client, the interval, the call and its result.

    The columns are events, not times: an interval that ends left of another one's beginning was over before.
    """
    first = max(0, len(operations) - _LINES)
    shown = operations[first:]
    moments = sorted({when for each in shown for when in (each.invoked, each.returned) if when is not None})
    step = max(1, min(_STEP, _WIDEST // max(1, len(moments))))
    wide = min(_WIDEST, step * len(moments))
    places = {when: place * wide // len(moments) for place, when in enumerate(moments)}
    digits = len(str(len(operations)))
    names = max((len(each.client) for each in shown), default=0)
    lines = [f"({count(first, 'operation')} before)"] if first else []
    for number, each in enumerate(shown, first + 1):
        begin = places[each.invoked]
        end = wide if each.returned is None else max(begin + 1, places[each.returned])
        bar = f"|{'-' * (end - begin - 1)}{'>' if each.returned is None else '|'}"
        lines.append(f"{number:>{digits}} {each.client:<{names}}  {' ' * begin}{bar:<{wide + 1 - begin}}  {each}")
    return lines


def tell_call(operation: Operation) -> str:
    """Return the call and what came of it: `get('a') -> 1`, `put('a', 1) -> ?` for a pending one."""
    call = operation.call
    if isinstance(call, Mapping):
        told = ", ".join(f"{key}={_trim(value)}" for key, value in call.items()) or "{}"
    elif isinstance(call, tuple) and call and isinstance(call[0], str):
        told = f"{call[0]}({', '.join(map(_trim, call[1:]))})"
    else:
        told = _trim(call)
    if operation.error is not None:
        return f"{told} raises {tell_value(operation.error)}"
    return f"{told} -> {'?' if operation.returned is None else tell_value(operation.result)}"


def tell_value(value: Any) -> str:
    """Return a result, a state or what a model replies as it is best read: an output that is ok as its data."""
    if isinstance(value, StageOutput) and value.status is StageStatus.OK and value.label is None:
        return _trim(value.data)
    return _trim(value)


def _trim(value: object) -> str:
    told = brief(value)
    return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 3]}..."
