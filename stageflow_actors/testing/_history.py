"""Histories: who asked for what, what came of it, and in which order that happened."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple, cast, final

import attrs
from trio.lowlevel import Task, current_task, in_trio_task

from stageflow_actors._freeze import freeze
from stageflow_actors._snapshot import read_snapshot
from stageflow_actors._validation import refuse, require_name
from stageflow_actors.errors import ActorDeadError, MailboxFullError, NotFreezableError

from ._timeline import draw, tell_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

    from stageflow_actors import ActorRef, ContextSnapshot, StageContext, StageOutput

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_UNDONE: Final = (ActorDeadError, MailboxFullError)
"""What says, when it is about the actor that was asked, that it has not begun."""


@final
@attrs.frozen
class Operation:
    """One thing that a client asked for: from its invocation to its response, if there was one.

    Raises:
        PipelineValidationError: It would return before it was invoked.
    """

    client: str
    """Who asked."""
    call: Any
    """What was asked: the data of a message to an actor, or a tuple of a function's name and arguments; frozen."""
    result: Any = None
    """What came back: the `StageOutput` of an actor, or what a function returned, frozen. None while it is pending."""
    invoked: float = attrs.field(kw_only=True)
    """When it was invoked: a number, larger than those of the responses before."""
    returned: float | None = attrs.field(default=None, kw_only=True)
    """When the response came, a number not below `invoked`; None for a *pending* operation, which took effect at any
    time after its invocation, or never. What was invoked at the same number as another one returned overlaps it."""
    error: BaseException | None = attrs.field(default=None, kw_only=True)
    """What it raised, where that is its response."""

    def __attrs_post_init__(self) -> None:
        if self.returned is not None and not self.returned >= self.invoked:
            refuse(f"an operation cannot return at {self.returned}, before its invocation at {self.invoked}")

    @property
    def pending(self) -> bool:
        """Whether there was no response, or one that does not say whether it took effect."""
        return self.returned is None

    def __str__(self) -> str:
        """Return the call and what came of it: `get('a') -> 1`."""
        return tell_call(self)


class Open:
    """An operation under way, whose `result` its block sets."""

    __slots__ = ("call", "client", "error", "invoked", "result", "returned", "undone")

    def __init__(self, client: str, call: object, invoked: int) -> None:
        self.client = client
        self.call = call
        self.invoked = invoked
        self.result: Any = None
        """What it returns."""
        self.returned: int | None = None
        self.error: BaseException | None = None
        self.undone = False

    def __repr__(self) -> str:
        return f"<operation {tell_call(self.close())}>"

    def close(self) -> Operation:
        """Return it as it is now."""
        result = None if self.returned is None else self.result
        begun, ended = self.invoked, self.returned
        return Operation(self.client, self.call, result, invoked=begun, returned=ended, error=self.error)


@final
class History:
    """What clients asked of something shared, and what they were told, in the order in which it happened.

    Record the asks of an actor with `record`, calls of functions with `call`, and anything else with `operation`. The
    order is that of the events in the program, never that of a clock. An operation that is cancelled, runs into a
    timeout, or raises is *pending*: it may have taken effect at any time after its invocation, or never.

    Args:
        responses: Types of exceptions that are responses, which the model knows; `Operation.error` has them.
        undone: Types of exceptions that mean that nothing was done; the operation is left out. Of an actor that is
            known of its own `ActorDeadError` and `MailboxFullError`.

    Raises:
        PipelineValidationError: They are no types of exceptions.
    """

    def __init__(
        self,
        *,
        responses: type[BaseException] | Iterable[type[BaseException]] = (),
        undone: type[BaseException] | Iterable[type[BaseException]] = (),
    ) -> None:
        self._responses = _read_types("responses", responses)
        self._undone = _read_types("undone", undone)
        self._open: list[Open] = []
        self._count = 0
        """Responses so far. Only they tell invocations apart: in which order two begin makes no difference."""
        self._names: dict[str, dict[Task | None, str]] = {}

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was recorded so far, by invocation; what has not returned yet is pending."""
        return tuple(operation.close() for operation in self._open if not operation.undone)

    def record(self, ref: ActorRef, *, client: str | None = None) -> ActorRef:
        """Return a reference to the same actor whose asks and tells are recorded here, also those of a stage.

        Args:
            ref: The actor.
            client: Who asks; None for the name of the task that does.

        Raises:
            PipelineValidationError: There is nothing to ask, or the client is no name.
        """
        if not hasattr(ref, "ask"):
            refuse(
                f"only a reference to an actor can be recorded, not {ref!r}", hint="record a function with call(...)"
            )
        return cast("ActorRef", RecordedActor(self, ref, _read_client(client)))  # it has all that one has

    async def call(
        self,
        function: Callable[[*_Ts], Awaitable[_T]],
        *args: *_Ts,
        name: str | None = None,
        client: str | None = None,
    ) -> _T:
        """Call an async function, and record that; its call is the tuple `(name, *args)`.

        Args:
            function: The function.
            args: Its arguments.
            name: What the model calls it; None for the function's own name.
            client: Who calls; None for the name of the task that does.

        Raises:
            Exception: What the function raises.
            PipelineValidationError: The function has no name, or an argument cannot be frozen.
        """
        if name is None:
            name = getattr(function, "__name__", None)
            if name is None:
                refuse(f"an operation needs a name, which {function!r} does not have", hint="say name=...")
        with self.operation(name, *args, client=client) as operation:
            operation.result = result = await function(*args)
        return result

    @contextmanager
    def operation(self, name: str, *args: object, client: str | None = None) -> Iterator[Open]:
        """Record a block as one operation, whose call is the tuple `(name, *args)`.

        Its `result` is what the block sets: `operation.result = ...`, else None. A block that raises has no result.

        Args:
            name: What the model calls it.
            args: What it was given.
            client: Who asks; None for the name of the task that does.

        Raises:
            Exception: What the block raises.
            PipelineValidationError: A name is no name, or an argument cannot be frozen.
        """
        call = (require_name("the name of an operation", name), *args)
        operation = self._invoke(_read_client(client), _freeze(call, f"a call of {name}"))
        try:
            yield operation
        except BaseException as error:
            self._fail(operation, error, isinstance(error, self._undone))
            raise
        operation.result = _freeze(operation.result, f"the result of {name}")
        self._return(operation)

    def _invoke(self, client: str | None, call: object) -> Open:
        operation = Open(client or self._name_task(), call, 2 * self._count + 1)
        self._open.append(operation)
        return operation

    def _return(self, operation: Open) -> None:
        self._count += 1
        operation.returned = 2 * self._count

    def _fail(self, operation: Open, error: BaseException, undone: bool) -> None:  # noqa: FBT001 (both are of ours)
        if isinstance(error, self._responses):
            operation.error = error
            operation.result = None
            self._return(operation)
        elif undone:
            operation.undone = True

    def _name_task(self) -> str:
        """Return the name of the current task as people know it; but for the first of that name with a number."""
        task = current_task() if in_trio_task() else None
        name = "main" if task is None else task.name
        function = getattr(getattr(getattr(task, "coro", None), "cr_code", None), "co_qualname", None)
        if function is not None and name.endswith(f".{function}"):
            name = function
        name = name.rpartition("<locals>.")[2]
        known = self._names.setdefault(name, {})
        if task not in known:
            known[task] = f"{name}#{len(known) + 1}" if known else name
        return known[task]

    def __len__(self) -> int:
        return len(self.operations)

    def __repr__(self) -> str:
        return f"<History of {len(self)} operations>"

    def __str__(self) -> str:
        """Draw it: a line for each operation, with its interval."""
        return "\n".join(draw(self.operations)) or "no operations"


@final
class RecordedActor:
    """A reference to an actor whose asks and tells go into a history; all else is that of the actor."""

    __slots__ = ("_client", "_history", "_ref")

    def __init__(self, history: History, ref: ActorRef, client: str | None) -> None:
        self._history = history
        self._ref = ref
        self._client = client

    async def ask(
        self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None, *, timeout: float | None = 5.0
    ) -> StageOutput:
        """Ask as `ActorRef.ask` does, and record it.

        Raises:
            Exception: As `ActorRef.ask`.
        """
        sent = read_snapshot(snapshot)
        return await self._record(sent, partial(self._ref.ask, sent, timeout=timeout))

    async def execute(self, ctx: StageContext, /) -> StageOutput:
        """Be a stage of a run as `ActorRef.execute` is, and record it.

        Raises:
            Exception: As `ActorRef.execute`.
        """
        return await self._record(ctx.snapshot, partial(self._ref.execute, ctx))

    async def _record(self, sent: ContextSnapshot[Any], ask: Callable[[], Awaitable[StageOutput]]) -> StageOutput:
        history = self._history
        operation = history._invoke(self._client, sent.data)  # noqa: SLF001 (the history is of this file)
        try:
            operation.result = output = await ask()
        except BaseException as error:
            history._fail(operation, error, self._is_undone(error))  # noqa: SLF001
            raise
        history._return(operation)  # noqa: SLF001
        return output

    async def tell(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None) -> None:
        """Tell as `ActorRef.tell` does, and record it: pending, for nobody hears of its end.

        Raises:
            Exception: As `ActorRef.tell`.
        """
        sent = read_snapshot(snapshot)
        operation = self._history._invoke(self._client, sent.data)  # noqa: SLF001
        try:
            await self._ref.tell(sent)
        except BaseException:
            operation.undone = True  # whatever it is: a tell that raises has sent nothing
            raise

    def tell_nowait(self, snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None) -> None:
        """Tell as `ActorRef.tell_nowait` does, and record it: pending, for nobody hears of its end.

        Raises:
            Exception: As `ActorRef.tell_nowait`.
        """
        sent = read_snapshot(snapshot)
        self._ref.tell_nowait(sent)
        self._history._invoke(self._client, sent.data)  # noqa: SLF001

    def _is_undone(self, error: BaseException) -> bool:
        """Return whether an error of an ask means that the actor has not begun; another actor's error says nothing."""
        if isinstance(error, self._history._undone):  # noqa: SLF001
            return True
        return isinstance(error, _UNDONE) and error.actor == self._ref.name

    def __getattr__(self, name: str) -> Any:
        """Return what the actor has beside."""
        return getattr(self._ref, name)

    def __repr__(self) -> str:
        return f"<recorded {self._ref!r}>"


def _freeze(value: object, what: str) -> Any:
    try:
        return freeze(value, what)
    except NotFreezableError as error:
        refuse(error.problem, hint=error.hint)


def _read_client(client: object) -> str | None:
    return None if client is None else require_name("a client", client)


def _read_types(what: str, types: Any) -> tuple[type[BaseException], ...]:
    listed = (types,) if isinstance(types, type) else types
    try:
        read = tuple(listed)
    except TypeError:
        read = (listed,)
    for each in read:
        if not isinstance(each, type) or not issubclass(each, BaseException):
            refuse(f"{what} must be types of exceptions, not {each!r}")
    return read
