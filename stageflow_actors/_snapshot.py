"""The immutable message that every stage of a run receives."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Self, final

import attrs

from ._freeze import FrozenDict, freeze, freeze_item, freeze_mapping
from ._validation import refuse
from .errors import NotJSONError

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # with a default, which the standard library has from 3.13 on

    _E = TypeVar("_E", default=Any)
else:
    from typing import TypeVar

    _E = TypeVar("_E")


_EMPTY: FrozenDict[str, Any] = FrozenDict()


@final
@attrs.frozen
class RunIdentity:
    """Which run it is, and when it was admitted."""

    run_id: str
    created_at: datetime
    """With a time zone."""

    @classmethod
    def new(cls) -> RunIdentity:
        """Return a fresh random id and the present time: what a supervisor uses unless told otherwise."""
        return cls(uuid.uuid4().hex, datetime.now(UTC))


def _freeze_data(value: Mapping[str, Any]) -> FrozenDict[str, Any]:
    return freeze_mapping(value, "data")


def _freeze_metadata(value: Mapping[str, Any]) -> FrozenDict[str, Any]:
    return freeze_mapping(value, "metadata")


def _freeze_extensions(value: _E | None) -> _E | None:
    return freeze(value, "extensions")  # type: ignore[no-any-return]


@final
@attrs.frozen(kw_only=True, weakref_slot=False)
class ContextSnapshot(Generic[_E]):
    """What a run is about: deeply immutable, the same for every stage of the run.

    A run stamps its own identity on its copy; a snapshot that is in no run has none.
    """

    input_text: str | None = None
    data: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=_freeze_data)
    metadata: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=_freeze_metadata)
    extensions: _E | None = attrs.field(default=None, converter=_freeze_extensions)
    """An application's own value; frozen where its type can be, else passed by reference."""
    topology: str | None = None
    execution_mode: str | None = None
    identity: RunIdentity | None = None
    """Set by the run, at admission."""

    @property
    def run_id(self) -> str | None:
        """The id of the run, or None outside one."""
        return self.identity.run_id if self.identity else None

    @property
    def created_at(self) -> datetime | None:
        """When the run was admitted, or None outside one."""
        return self.identity.created_at if self.identity else None

    def stamped(self, identity: RunIdentity) -> Self:
        """Return this snapshot as the run `identity` hands it out."""
        return attrs.evolve(self, identity=identity)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict that `json.dumps` takes and `from_dict` makes an equal snapshot of.

        Raises:
            NotJSONError: A value that JSON cannot carry back; it names the path.
        """
        plain: dict[str, Any] = {
            "input_text": self.input_text,
            "data": self.data,
            "metadata": self.metadata,
            "extensions": self.extensions,
            "topology": self.topology,
            "execution_mode": self.execution_mode,
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat() if self.created_at else None,
        }
        return {name: _to_json(value, name) for name, value in plain.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Return the snapshot that `to_dict` made `plain` of.

        Raises:
            TypeError: `plain` has a key that no snapshot has.
        """
        if not isinstance(plain, Mapping):
            message = f"a snapshot is made of a mapping, not {plain!r}"
            raise TypeError(message)
        fields = dict(plain)
        run_id, created_at = fields.pop("run_id", None), fields.pop("created_at", None)
        if run_id is not None and created_at is not None:
            fields["identity"] = RunIdentity(run_id, datetime.fromisoformat(created_at))
        return cls(**fields)


@attrs.define(eq=False, weakref_slot=False, init=False)
class _Draft(Generic[_E]):
    """The slots of a `ContextSnapshot`, while one is made whose values are frozen already."""

    input_text: str | None
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    extensions: Any
    topology: str | None
    execution_mode: str | None
    identity: RunIdentity | None


def with_item(snapshot: ContextSnapshot[Any], item: object, index: int) -> ContextSnapshot[Any]:
    """Return a snapshot with an item of a fan-out, and its position, in its data.

    Every item pays for it: the slots of a frozen class are set several times faster on a draft, which then
    becomes frozen by becoming the class.

    Raises:
        NotFreezableError: The item holds a value that cannot be frozen.
    """
    data = freeze_item(snapshot.data, item, index)
    made: Any = _Draft()
    made.input_text = snapshot.input_text
    made.data = data
    made.metadata = snapshot.metadata
    made.extensions = snapshot.extensions
    made.topology = snapshot.topology
    made.execution_mode = snapshot.execution_mode
    made.identity = snapshot.identity
    made.__class__ = ContextSnapshot
    return made  # type: ignore[no-any-return]


def read_snapshot(value: ContextSnapshot[Any] | Mapping[str, Any] | None) -> ContextSnapshot[Any]:
    """Return a message as a snapshot: a mapping is short for one with that `data`.

    Raises:
        PipelineValidationError: It is neither.
        NotFreezableError: It holds a value that cannot be frozen.
    """
    if value.__class__ is dict:
        made: Any = _Draft()
        made.input_text = made.extensions = made.topology = made.execution_mode = made.identity = None
        made.data = freeze_mapping(value, "data")
        made.metadata = _EMPTY
        made.__class__ = ContextSnapshot  # as in `with_item`
        return made  # type: ignore[no-any-return]
    if isinstance(value, ContextSnapshot):
        return value
    if value is None:
        return ContextSnapshot()
    if isinstance(value, Mapping):
        return ContextSnapshot(data=value)
    refuse(f"snapshot must be a ContextSnapshot or a mapping, not {value!r}")


def _to_json(value: Any, path: str) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
    elif isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                message = f"{path} has the key {key!r}; JSON has strings for keys"
                raise NotJSONError(message, path=path)
        return {key: _to_json(item, f"{path}[{key!r}]") for key, item in value.items()}
    elif type(value) in (tuple, list):
        return [_to_json(item, f"{path}[{position}]") for position, item in enumerate(value)]
    message = f"{path} is {value!r}, of type {type(value).__qualname__}, which JSON cannot carry back"
    raise NotJSONError(message, path=path)
