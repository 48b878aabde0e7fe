"""What goes to a worker process and comes back from it, and how it is packed.

Every value is pickled here and not by the transport below, so that what cannot travel is found, with a name to it.
"""

from __future__ import annotations

import contextvars
import io
import pickle
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import attrs

from stageflow_actors._bag import StageFailure, describe_error
from stageflow_actors._policy import STATES
from stageflow_actors._stage import StageContext, StageInputs
from stageflow_actors._traceback import drop_own_frames
from stageflow_actors.errors import NoOutputError, NotPicklableError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stageflow_actors import ContextSnapshot, StageOutput

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
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # the __reduce__ of a user's object may raise anything
        raise NotPicklableError(f"{what} cannot be pickled: {error}", hint=_HINT) from error


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
    failures: Mapping[int, StageFailure]
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
        failures={number: _copy_failure(failure) for number, failure in failures.items()},
        reasons={number: _explain(inputs, name) for number, name in enumerate(names) if name not in outputs},
        restorers=tuple([carrier.restore for carrier in carriers]),
        carried=tuple([carrier.capture() for carrier in carriers]),
    )
    try:
        return pickle.dumps(order, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # see `pack`
        for field, what in _NAMES.items():
            pack(what, getattr(order, field))
        raise


def _copy_failure(failure: StageFailure) -> StageFailure:
    """Return a failure that can be pickled: itself or, where its errors cannot be, its last one in words."""
    try:
        pack("it", failure)
    except NotPicklableError:
        return StageFailure(failure.stage, make_remote_error(failure.error), ())
    return failure


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
        self.failures = order.failures
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


def fulfil(packed: bytes | bytearray) -> bytes:
    """Run an attempt in this process, and return what came of it as bytes. Raises nothing."""
    told = _Told()
    try:
        returned = pack("what it returned", contextvars.Context().run(_perform, _unpack(packed), told))
    except BaseException as error:  # all that a stage raises is for the run to judge, in its own process
        drop_own_frames(error)
        return pickle.dumps((False, _pack_error(error), told.events))
    return pickle.dumps((True, returned, told.events))


def _unpack(packed: bytes | bytearray) -> Order:
    try:
        return pickle.loads(packed)  # type: ignore[no-any-return]  # noqa: S301 (made by the process above)
    except Exception as error:  # what unpickling imports and calls may raise anything
        hint = "it imports the modules anew: let them be importable, without effects outside of functions"
        problem = f"its worker process could not read it: {describe_error(error)}"
        raise NotPicklableError(problem, hint=hint) from error


def _perform(order: Order, told: _Told) -> object:
    for restore, carried in zip(order.restorers, order.carried, strict=True):
        restore(carried)
    copied: Any = _Outputs(order)
    inputs = StageInputs(copied, order.name, order.dependencies, tuple(range(len(order.dependencies))))
    ctx = StageContext(order.name, order.snapshot, inputs, order.config, order.attempt, told)
    return order.function(ctx)


def _pack_error(error: BaseException) -> bytes:
    """Return an error as bytes, with its traceback, cause and context; in words where it cannot travel."""
    packed = io.BytesIO()
    try:
        _ErrorPickler(packed, protocol=pickle.HIGHEST_PROTOCOL).dump(error)
        pickle.loads(packed.getvalue())  # noqa: S301 (some classes can be written and not read)
    except Exception:  # see `pack`
        return pickle.dumps(make_remote_error(error))
    return packed.getvalue()


@final
class _ErrorPickler(pickle.Pickler):
    """Pickles errors with what pickle leaves out: tracebacks, causes, contexts."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, TracebackType):
            from tblib import pickling_support  # noqa: PLC0415 (a worker needs it only where something fails)

            return pickling_support.pickle_traceback(obj)
        if not isinstance(obj, BaseException):
            return NotImplemented
        reduced: Any = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        function, args, *state = reduced
        links = (obj.__cause__, obj.__context__, obj.__suppress_context__, obj.__traceback__)
        # As its state, which is read when it is there: errors may lead back to each other.
        return _make_error, (function, args, type(obj), obj.args), (state, links), None, None, _complete_error


def _make_error(
    function: Callable[..., BaseException], args: Any, cls: type[BaseException], own: tuple[Any, ...]
) -> BaseException:
    """Make an error as its class says; where that needs more than it says, without calling its `__init__`."""
    try:
        return function(*args)
    except TypeError:
        error = cls.__new__(cls, *own)
        error.args = own
        return error


def _complete_error(error: BaseException, state: tuple[list[Any], tuple[Any, ...]]) -> None:
    for each in state[0]:
        if each is not None:
            error.__setstate__(each)
    error.__cause__, error.__context__, error.__suppress_context__, error.__traceback__ = state[1]


def make_remote_error(error: BaseException) -> RemoteError:
    """Return an error that stands for one that cannot be pickled."""
    shown = "".join(traceback.format_exception(error))
    return RemoteError(describe_error(error), kind=type(error).__qualname__, traceback=shown)


# Back


def unpack_reply(packed: bytes | bytearray, ctx: StageContext) -> Any:
    """Pass on what a stage has emitted, and return what it returned, or raise what it raised."""
    fine, result, events = pickle.loads(packed)  # noqa: S301 (made by `fulfil`)
    for event in events:
        ctx.emit(_read("an event that it emitted", event))
    if fine:
        return _read("what it returned", result)
    _raise(pickle.loads(result))  # noqa: S301 (likewise)


def _read(what: str, packed: bytes) -> Any:
    try:
        return pickle.loads(packed)  # noqa: S301 (likewise)
    except Exception as error:  # see `_unpack`
        problem = f"{what} could not be read where it came back to: {describe_error(error)}"
        raise NotPicklableError(problem, hint=_HINT) from error


def _raise(error: BaseException) -> NoReturn:
    try:
        raise error
    finally:
        del error  # its traceback keeps this frame
