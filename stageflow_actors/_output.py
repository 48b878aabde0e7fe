"""What a stage replies."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias, final

import attrs

from ._freeze import FrozenDict, freeze_mapping


class StageStatus(StrEnum):
    """What a stage said of itself."""

    OK = "ok"
    SKIP = "skip"
    CANCEL = "cancel"
    FAIL = "fail"
    RETRY = "retry"


_OK = StageStatus.OK
_EMPTY: FrozenDict[str, Any] = FrozenDict()


def _read_status(value: Any) -> StageStatus:
    if value.__class__ is StageStatus:
        return value
    try:
        return StageStatus(value)
    except ValueError:
        message = f"status must be one of {', '.join(StageStatus)}, not {value!r}; use StageOutput.ok(...) and its kin"
        raise ValueError(message) from None


def _freeze_data(value: Mapping[str, Any]) -> FrozenDict[str, Any]:
    return freeze_mapping(value, "data")


def _merge(data: Mapping[str, Any] | None, fields: dict[str, Any]) -> Mapping[str, Any]:
    if data is None:
        return fields or _EMPTY
    return {**freeze_mapping(data, "data"), **fields} if fields else data


@attrs.define(eq=False, weakref_slot=False, init=False)
class _Draft:
    """The slots of a `StageOutput`, while it is made."""

    status: StageStatus
    data: Mapping[str, Any]
    error: str | Exception | None
    reason: str
    label: str | None
    after: float


@final
@attrs.frozen(weakref_slot=False)
class StageOutput:
    """A stage's reply: a status and frozen data. Made by the class methods, one a status.

    The data is copied and frozen when the output is made, so that its producer keeps no way into it.
    """

    status: StageStatus = attrs.field(converter=_read_status)
    data: Mapping[str, Any] = attrs.field(default=_EMPTY, converter=_freeze_data)
    """What the stage produced: a frozen dict."""
    error: str | Exception | None = None
    """Why it failed or wants to be run again."""
    reason: str = ""
    """Why it was skipped, or cancelled the run."""
    label: str | None = None
    """The label that a router chose."""
    after: float = 0.0
    """Seconds that it wants to be left alone before it is run again."""

    @classmethod
    def ok(cls, data: Mapping[str, Any] | None = None, /, **fields: Any) -> StageOutput:
        """Succeed, with `data`, `fields`, or both."""
        return make_ok(_merge(data, fields))

    @classmethod
    def skip(cls, reason: str = "", data: Mapping[str, Any] | None = None) -> StageOutput:
        """Say that there was nothing to do. Stages that need this one are skipped too, by their triggers."""
        return cls(StageStatus.SKIP, _merge(data, {}), reason=str(reason))

    @classmethod
    def cancel(cls, reason: str = "", data: Mapping[str, Any] | None = None) -> StageOutput:
        """End the whole run without an error: this stage and the unfinished ones are cancelled."""
        return cls(StageStatus.CANCEL, _merge(data, {}), reason=str(reason))

    @classmethod
    def fail(cls, error: str | Exception, data: Mapping[str, Any] | None = None) -> StageOutput:
        """Fail for good."""
        return cls(StageStatus.FAIL, _merge(data, {}), error)

    @classmethod
    def retry(cls, error: str | Exception, data: Mapping[str, Any] | None = None, *, after: float = 0.0) -> StageOutput:
        """Fail, and ask to be run again where a restart is left.

        Args:
            error: Why.
            data: What it has all the same; it stands in the error's `output`.
            after: Seconds to wait at least, such as a server's Retry-After; the `maximum` of the backoff limits it.

        Raises:
            ValueError: `after` is no number of seconds.
        """
        if isinstance(after, bool) or not isinstance(after, (int, float)) or not after >= 0:
            message = f"after must be a number of seconds of at least 0, not {after!r}"
            raise ValueError(message)
        return cls(StageStatus.RETRY, _merge(data, {}), error, after=after)

    @classmethod
    def route(cls, label: str, data: Mapping[str, Any] | None = None, /, **fields: Any) -> StageOutput:
        """Succeed and choose the stages whose `when=route(this_stage, label)` names the label.

        Raises:
            TypeError: The label is no string, or empty.
        """
        if not isinstance(label, str) or not label:
            message = f"label must be a non-empty string, not {label!r}"
            raise TypeError(message)
        return cls(_OK, _merge(data, fields), label=label)


def make_ok(data: Mapping[str, Any]) -> StageOutput:
    """Return an output of status `ok`.

    Every stage pays for this. A frozen class sets its slots through `object.__setattr__`, which takes
    three times as long as setting those of a draft that then becomes frozen by becoming the class.
    """
    made: Any = _Draft()
    made.status = _OK
    made.data = freeze_mapping(data, "data")
    made.error = made.label = None
    made.reason = ""
    made.after = 0.0
    made.__class__ = StageOutput
    return made  # type: ignore[no-any-return]


EMPTY_OUTPUT = StageOutput(_OK)
"""What a stage that returns None has said."""

StageReturn: TypeAlias = StageOutput | Mapping[str, Any] | None
"""What a stage may return: an output; a mapping, which means `ok`; None, which means `ok` without data."""
