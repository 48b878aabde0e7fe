"""What a shared thing does when one operation comes after the other: the model that a history is checked against."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, MutableMapping
from collections.abc import Set as AbstractSet
from copy import copy
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs

from stageflow_actors import StageOutput, StageStatus
from stageflow_actors._freeze import freeze
from stageflow_actors._validation import refuse
from stageflow_actors.errors import NotFreezableError

from ._timeline import tell_value

if TYPE_CHECKING:
    from ._history import Operation

Step: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]
"""A function of a state and a call that returns the reply and the state after it."""

Accepts: TypeAlias = "Callable[[Any, Operation], Iterable[Any]]"
"""A function of a state and an operation that returns the states after it."""


@final
@attrs.frozen
class Model:
    """What a shared thing does if its operations come one after the other.

    `step` is all that most need. It gets a state of its own, which it may change; states that can be hashed count as
    immutable. Two states that are equal must behave alike.

    Raises:
        PipelineValidationError: There is not exactly one of `step` and `accepts`, something is no function, or the
            initial state cannot be compared.
    """

    step: Step | None = None
    """`step(state, call)` returns the pair `(reply, state)`: what the operation returns, and the state after it.

    The reply of an actor is what its stage may return: a mapping, None or a `StageOutput`; of a function, what it
    returns. For an exception that is a response it is that exception, or its type. Lists count as tuples.
    """
    initial: Any = None
    """The state at first; of a partitioned model that of each partition."""
    accepts: Accepts | None = attrs.field(default=None, kw_only=True)
    """In place of `step`, where more than one reply is right: `accepts(state, operation)` returns the states in which
    the thing may be after an operation with that result; none, if the result is wrong. A pending one has no result."""
    partition: Callable[[Any], Hashable] | None = attrs.field(default=None, kw_only=True)
    """A function of a call that returns its key, if operations with different keys never influence each other."""

    def __attrs_post_init__(self) -> None:
        if (self.step is None) == (self.accepts is None):
            refuse("a Model must have either step or accepts", hint="step(state, call) returns (reply, state)")
        for name in ("step", "accepts", "partition"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                refuse(f"the {name} of a Model must be a function, not {function!r}")
        make_key(self.initial, "the initial state of a Model")


class Evaluator:
    """A model that is asked about the operations of one history, and remembers its answers.

    States are known by their numbers; equal ones have the same.
    """

    def __init__(self, model: Model, operations: Iterable[Operation]) -> None:
        self._model = model
        self._twins: dict[int, int] = {}
        self.asked = 0
        """How often the model was called."""
        self._states: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._replies: dict[tuple[int, int], tuple[Any, int]] = {}
        self._after: dict[tuple[int, int], tuple[int, ...]] = {}
        self.operations = list(operations)
        kinds: dict[Hashable, int] = {}
        keys = ((self._name_client(each), _make_call_key(each.call, at)) for at, each in enumerate(self.operations))
        self.kinds = [kinds.setdefault(key, len(kinds)) for key in keys]
        """A number for each operation, the same for those that are the same to the model but for their results."""
        self.initial = self._intern(copy_state(model.initial))

    def get_state(self, state: int) -> Any:
        """Return a copy of a state, that nobody changes the original."""
        return copy_state(self._states[state])

    def follow(self, state: int, number: int) -> tuple[int, ...]:
        """Return the states after an operation; none, if the model does not accept its result."""
        found = self._after.get((state, number))
        if found is None:
            twin = self._twins.get(number)
            found = self._ask(state, number) if twin is None else self.follow(state, twin)
            self._after[state, number] = found
        return found

    def relax(self) -> None:
        """Add each operation twice more: after all of them as a pending one, then as one that may return anything."""
        originals = self.operations[:]
        count = len(originals)
        self.operations += [attrs.evolve(each, result=None, returned=None, error=None) for each in originals]
        self.operations += originals
        self.kinds *= 3
        self._twins = {2 * count + number: count + number for number in range(count)}

    def reply(self, state: int, number: int) -> Any:
        """Return what the model replies; only of a model with a `step`."""
        return self._step(state, number)[0]

    @property
    def has_replies(self) -> bool:
        """Whether the model has a `step`."""
        return self._model.step is not None

    def _name_client(self, operation: Operation) -> str:
        """Return who asked, where the model hears of that."""
        return "" if self._model.accepts is None else operation.client

    def _ask(self, state: int, number: int) -> tuple[int, ...]:
        operation = self.operations[number]
        if self._model.step is not None:
            reply, after = self._step(state, number)
            agreed = operation.pending or agree(reply, operation)
            return (after,) if agreed else ()
        accepts = self._model.accepts
        assert accepts is not None
        states = self._call(accepts, state, operation, operation)
        if isinstance(states, (str, bytes)) or not isinstance(states, Iterable):
            refuse(
                f"the accepts of a Model must return the states after {operation}, not {states!r}",
                hint="a list, empty where the result is wrong",
            )
        return tuple(dict.fromkeys(map(self._intern, states)))

    def _step(self, state: int, number: int) -> tuple[Any, int]:
        kind = self.kinds[number]
        found = self._replies.get((state, kind))
        if found is None:
            operation = self.operations[number]
            pair = self._call(self._model.step, state, operation.call, operation)
            if type(pair) is not tuple or len(pair) != 2:
                refuse(
                    f"the step of a Model must return (reply, state) for {operation}, not {pair!r}",
                    hint="does it know this call?" if pair is None else None,
                )
            found = self._replies[state, kind] = (pair[0], self._intern(pair[1]))
        return found

    def _call(self, function: Any, state: int, argument: object, operation: Operation) -> Any:
        self.asked += 1
        try:
            result = function(self.get_state(state), argument)
            if isinstance(result, Generator):
                result = list(result)  # here it raises what it raises
        except Exception as error:
            told = f"the state {tell_value(self._states[state])}"
            error.add_note(f"raised by the model, over {operation} in {told}; lists in calls and results are tuples")
            raise
        return result

    def _intern(self, state: object) -> int:
        key = make_key(state, "a state of a Model")
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._states)
            self._states.append(copy_state(state))
        return number


_ATOMS: Final = frozenset({int, str, bytes, bool, float, type(None)})
"""Types of which most states are made in the end; all else is looked at more closely."""

_CONTAINERS: Final = (Mapping, list, tuple, AbstractSet, deque, bytearray)
_BY_IDENTITY: Final = (Enum, type)


def make_key(state: Any, what: str) -> Hashable:
    """Return what stands for a state in a dict: equal for equal states.

    Raises:
        PipelineValidationError: It cannot be compared by value.
    """
    cls: Any = type(state)
    if cls in _ATOMS:
        return state  # type: ignore[no-any-return]
    if cls is dict and all(type(value) in _ATOMS for value in state.values()):
        return cls, frozenset(state.items())
    try:
        hash(state)
    except TypeError:
        return _make_container_key(state, what)
    if cls.__eq__ is object.__eq__ and cls is not object and not isinstance(state, _BY_IDENTITY) and state is not None:
        refuse(
            f"{what} must be comparable by value, not {state!r}",
            hint="use dicts, lists, tuples, or an attrs.frozen class",
        )
    return state  # type: ignore[no-any-return]


def _make_container_key(state: Any, what: str) -> Hashable:
    cls = type(state)
    if isinstance(state, OrderedDict):
        return cls, tuple((key, make_key(value, what)) for key, value in state.items())
    if isinstance(state, Mapping):
        return cls, frozenset((key, make_key(value, what)) for key, value in state.items())
    if isinstance(state, AbstractSet):
        return cls, frozenset(state)
    if isinstance(state, bytearray):
        return cls, bytes(state)
    if isinstance(state, (list, tuple, deque)):
        items = tuple(state)
        return cls, items if _is_hashable(items) else tuple(make_key(value, what) for value in items)
    refuse(
        f"{what} must be hashable, or made of dicts, lists and sets, not {state!r}",
        hint=f"make {cls.__qualname__} hashable by value, such as an attrs.frozen class",
    )


def copy_state(state: Any) -> Any:
    """Return a copy of what can be changed in a state; what can be hashed is taken to be immutable."""
    if type(state) is dict:
        return {key: value if type(value) in _ATOMS else copy_state(value) for key, value in state.items()}
    if type(state) in _ATOMS or not isinstance(state, _CONTAINERS) or _is_hashable(state):
        return state
    if isinstance(state, Mapping):
        items = {key: copy_state(value) for key, value in state.items()}
        twin: Any = copy(state)
        if isinstance(state, MutableMapping):
            for key, value in items.items():
                twin[key] = value  # not `update`, with which a Counter adds
        return twin
    if isinstance(state, (AbstractSet, bytearray)):
        return copy(state)
    if type(state) in (list, tuple):
        return type(state)(map(copy_state, state))
    twin = copy(state)
    if isinstance(state, (list, deque)):
        for index, value in enumerate(state):
            twin[index] = copy_state(value)
    return twin


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _make_call_key(call: Any, number: int) -> Hashable:
    return (type(call), call) if _is_hashable(call) else (object, number)


def agree(reply: Any, operation: Operation) -> bool:
    """Return whether what a model replies is what an operation has come back with."""
    if operation.error is not None:
        return _is_same_error(reply, operation.error)
    result = operation.result
    if not isinstance(result, StageOutput):
        return _is_same(reply, result)
    if reply is None or isinstance(reply, Mapping):
        return result.status is StageStatus.OK and result.label is None and _is_same(reply or {}, result.data)
    if not isinstance(reply, StageOutput):
        return False
    parts = [(each.status, each.reason, each.label, each.after) for each in (reply, result)]
    return (
        parts[0] == parts[1]
        and _is_same(reply.data, result.data)
        and (reply.error == result.error or _is_same_error(reply.error, result.error))
    )


def _is_same(reply: Any, result: Any) -> bool:
    if reply is result or reply == result:
        return True
    if not isinstance(reply, _CONTAINERS):
        return False
    try:
        return bool(freeze(reply, "a reply") == freeze(result, "a result"))
    except NotFreezableError:
        return False


def _is_same_error(reply: Any, error: Any) -> bool:
    if isinstance(reply, type):
        return isinstance(error, reply)
    return isinstance(reply, BaseException) and type(reply) is type(error) and reply.args == error.args
