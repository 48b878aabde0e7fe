"""What goes to a worker process and comes back from it, and how it is packed.

Every value is pickled here and not by the transport below, so that what cannot travel is found, with a name to it.
"""

from __future__ import annotations

import contextvars
import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import attrs

from stageflow_actors._actor import to_output
from stageflow_actors._bag import safe_str
from stageflow_actors._output import StageOutput
from stageflow_actors._policy import STATES
from stageflow_actors._stage import StageContext, StageInputs
from stageflow_actors._traceback import drop_own_frames
from stageflow_actors._validation import refuse
from stageflow_actors.errors import NoOutputError, NotPicklableError

from ._errors import Parcel, dump, open_parcel, pack_error, pack_failure, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stageflow_actors import ContextSnapshot
    from stageflow_actors._bag import StageFailure

_HINT: Final = "what goes to another process is data, and functions and classes of modules"


@final
@attrs.frozen
class Carrier:
    """How something that belongs to the context of a run, and cannot be pickled itself, comes into a worker process."""

    capture: Callable[[], object]
    """Called in the task of the stage's attempt, before it is sent off; what it returns is pickled."""
    restore: Callable[[Any], object]
    """Called with that in the worker, in the context in which the stage then runs; a function of a module."""


def pack(what: str, value: object) -> bytes:
    """Return something pickled.

    Args:
        what: What it is, for the error: `its snapshot`.
        value: It.

    Raises:
        NotPicklableError: It cannot be.
    """
    try:
        return dump(value)
    except BaseException as error:  # the __reduce__ of a user's object may raise anything, and ends no run
        raise NotPicklableError(f"{what} cannot be pickled: {_say(error)}", hint=_HINT) from error


def _say(error: BaseException) -> str:
    return tell(error, safe_str) or type(error).__qualname__


def require_picklable(what: str, value: object) -> None:
    """Refuse an option that cannot be pickled.

    Raises:
        PipelineValidationError: It cannot be.
    """
    try:
        pack(what, value)
    except NotPicklableError as error:
        refuse(error.problem, hint=error.hint)


# To the worker


@final
@attrs.frozen
class Order:
    """One attempt at a stage, to be run in another process."""

    function: Callable[[StageContext], Any]
    name: str
    snapshot: ContextSnapshot[Any]
    config: Mapping[str, Any]
    attempt: int
    dependencies: tuple[str, ...]
    outputs: tuple[StageOutput | None, ...]
    states: bytes
    failures: Mapping[int, Parcel]
    reasons: Mapping[int, str]
    """Why dependencies have no output, by position."""
    restorers: tuple[Callable[[Any], object], ...]
    carried: tuple[object, ...]
    """What these are called with."""


_NAMES: Final = {
    "function": "what runs it",
    "snapshot": "its snapshot",
    "config": "its configuration",
    "outputs": "an output of its dependencies",
    "restorers": "what restores its context",
    "carried": "what is carried along with it",
}
"""Of the fields of an order that users fill, in messages."""


def pack_order(function: Callable[[StageContext], Any], ctx: StageContext, carriers: Sequence[Carrier]) -> bytes:
    """Return an attempt at a stage as bytes.

    Raises:
        NotPicklableError: Something of it cannot be pickled; the message says what.
    """
    inputs = ctx.inputs
    names = tuple(inputs)
    outputs = inputs.outputs
    failures = {number: failure for number, name in enumerate(names) if (failure := inputs.failure(name)) is not None}
    order = Order(
        function=function,
        name=ctx.stage_name,
        snapshot=ctx.snapshot,
        config=ctx.config,
        attempt=ctx.attempt,
        dependencies=names,
        outputs=tuple([outputs.get(name) for name in names]),
        states=bytes([STATES.index(inputs.state(name)) for name in names]),
        failures={number: pack_failure(failure) for number, failure in failures.items()},
        reasons={number: _explain(inputs, name) for number, name in enumerate(names) if name not in outputs},
        restorers=tuple([carrier.restore for carrier in carriers]),
        carried=tuple([carrier.capture() for carrier in carriers]),
    )
    try:
        return dump(order)
    except BaseException:  # see `pack`
        for field, what in _NAMES.items():
            pack(what, getattr(order, field))
        raise


def _explain(inputs: StageInputs, name: str) -> str:
    try:
        inputs.output(name)
    except NoOutputError as error:
        return error.problem.partition(": ")[2]
    raise AssertionError(name)


# In the worker


@final
class _Outputs:
    """What the inputs of a stage look into, in another process."""

    def __init__(self, order: Order) -> None:
        self.outputs = order.outputs
        self.states = order.states
        self.failures: dict[int, StageFailure] = {
            number: open_parcel(parcel) for number, parcel in order.failures.items()
        }
        self._reasons = order.reasons

    def explain(self, number: int) -> str:
        return self._reasons[number]


@final
class _Told:
    """What a stage has told by `ctx.emit`, until it ends."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def __call__(self, _name: str, _attempt: int, event: object) -> None:
        self.events.append(pack("the event that it emits", event))


_RETURNED: Final = frozenset({dict, StageOutput, type(None)})


def fulfil(packed: bytes | bytearray) -> bytes:
    """Run an attempt in this process, and return what came of it as bytes. Raises nothing."""
    told = _Told()
    try:
        returned = pack("what it returned", contextvars.Context().run(_perform, _unpack(packed), told))
    except BaseException as error:  # all that a stage raises is for the run to judge, in its own process
        with suppress(BaseException):  # an error may let nothing of itself be set
            drop_own_frames(error)
        return pickle.dumps((False, pack_error(error), told.events))
    return pickle.dumps((True, returned, told.events))


def _unpack(packed: bytes | bytearray) -> Order:
    try:
        return pickle.loads(packed)  # type: ignore[no-any-return]  # noqa: S301 (made by the process above)
    except BaseException as error:  # what unpickling imports and calls may raise anything, and ends no run
        hint = "it imports the modules anew: let them be importable, without effects outside of functions"
        problem = f"its worker process could not read it: {tell(error)}"
        raise NotPicklableError(problem, hint=hint) from error


def _perform(order: Order, told: _Told) -> object:
    for restore, carried in zip(order.restorers, order.carried, strict=True):
        restore(carried)
    copied: Any = _Outputs(order)
    inputs = StageInputs(copied, order.name, order.dependencies, tuple(range(len(order.dependencies))))
    ctx = StageContext(order.name, order.snapshot, inputs, order.config, order.attempt, told)
    returned = order.function(ctx)
    # These are frozen where they come back to, and only there, as that costs. The rest often cannot be pickled.
    return returned if type(returned) in _RETURNED else to_output(returned)


# Back


def unpack_reply(packed: bytes | bytearray, ctx: StageContext) -> Any:
    """Pass on what a stage has emitted, and return what it returned, or raise what it raised."""
    fine, result, events = pickle.loads(packed)  # noqa: S301 (made by `fulfil`)
    unreadable = _pass_on(events, ctx)
    if not fine:
        _raise(open_parcel(result))
    if unreadable is not None:
        _raise(unreadable)
    return _read("what it returned", result)


def _pass_on(events: list[bytes], ctx: StageContext) -> NotPicklableError | None:
    """Emit what can be read, and return an error for the first event that cannot."""
    unreadable = None
    for packed in events:
        try:
            event = _read("an event that it emitted", packed)
        except NotPicklableError as error:
            unreadable = unreadable or error
        else:
            ctx.emit(event)
    return unreadable


def _read(what: str, packed: bytes) -> Any:
    try:
        return pickle.loads(packed)  # noqa: S301 (likewise)
    except BaseException as error:  # see `_unpack`
        problem = f"{what} could not be read where it came back to: {tell(error)}"
        raise NotPicklableError(problem, hint=_HINT) from error


def _raise(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error  # its traceback keeps this frame
