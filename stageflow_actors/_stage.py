"""What a stage is, and what it sees."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final, runtime_checkable

import attrs

from ._output import StageReturn
from ._policy import STATES, StageState
from ._validation import count, list_names, nearest, refuse
from .errors import MissingKeyError, NoOutputError, UndeclaredDependencyError

if TYPE_CHECKING:
    from ._bag import OutputBag, StageFailure
    from ._output import StageOutput
    from ._snapshot import ContextSnapshot


class StageKind(StrEnum):
    """What a stage is for. It tells readers and reports; it changes nothing about how the stage runs."""

    TRANSFORM = "transform"
    ENRICH = "enrich"
    ROUTE = "route"
    GUARD = "guard"
    WORK = "work"
    AGENT = "agent"


@runtime_checkable
class Stage(Protocol):
    """An object with an `execute`: `async def` runs in the run's loop, plain `def` in a worker thread."""

    def execute(self, ctx: StageContext, /) -> Awaitable[StageReturn] | StageReturn:
        """Do the stage's work and return its output."""
        ...


Runner: TypeAlias = Callable[[], Stage] | Stage | Callable[["StageContext"], Awaitable[StageReturn] | StageReturn]
"""What runs a stage: a stage class or a `partial` of one (a fresh instance an attempt), an instance
(shared), or a function of the context (or a `partial` of one)."""


@final
@attrs.frozen
class RunnerForm:
    """How a runner is to be called."""

    is_class: bool
    is_async: bool
    is_managed: bool
    """Whether each attempt enters the instance as an async context manager."""
    is_container: bool = False
    """Whether it runs actors of its own, for which the runtime lends it its means."""
    is_actor: bool = False
    """Whether it is a reference to a resident actor."""

    @property
    def is_threaded(self) -> bool:
        """Whether an attempt begins when it has a thread, and not with its task."""
        return not self.is_async and not self.is_managed


_TAKES_CONTEXT: Final = "a stage takes its context, and nothing more that has no default"


def inspect_runner(runner: Any, *, pipeline: str | None = None, stage: str | None = None) -> RunnerForm:
    """Return how to call a runner.

    Raises:
        PipelineValidationError: It is nothing that can run a stage.
    """
    target = runner
    while isinstance(target, partial):
        target = target.func
    if inspect.iscoroutine(target):
        target.close()
        name = target.__qualname__
        hint = f"pass the function itself: {name}, not {name}()"
        refuse(f"runner is a coroutine of {name!r}, already called", pipeline=pipeline, stage=stage, hint=hint)
    if isinstance(target, type):
        if getattr(target, "_is_container", False):
            hint = f"pass an instance: {target.__qualname__}(worker, items=...)"
            refuse(f"runner {target.__qualname__} is a class of fan-outs", pipeline=pipeline, stage=stage, hint=hint)
        execute = getattr(target, "execute", None)
        if not callable(execute):
            problem = f"runner {target.__qualname__} is a class without an execute method"
            refuse(problem, pipeline=pipeline, stage=stage, hint="define `async def execute(self, ctx)`")
        if inspect.isabstract(target) or getattr(target, "_is_protocol", False):
            problem = f"runner {target.__qualname__} is an abstract class"
            refuse(problem, pipeline=pipeline, stage=stage, hint="pass a class that can be instantiated")
        _check_call(runner, (), pipeline, stage, "pass what it needs: functools.partial(cls, name=value)")
        bound = not inspect.isfunction(inspect.getattr_static(target, "execute"))
        _check_call(execute, (None,) if bound else (None, None), pipeline, stage, _TAKES_CONTEXT)
        managed = hasattr(target, "__aenter__") and hasattr(target, "__aexit__")
        return RunnerForm(is_class=True, is_async=_is_async(execute, pipeline, stage), is_managed=managed)
    if getattr(getattr(target, "__self__", None), "_is_actor", False):
        name = getattr(target, "__qualname__", target)
        hint = "pass the reference itself"
        refuse(f"runner {name} is a method of a reference to an actor", pipeline=pipeline, stage=stage, hint=hint)
    execute = getattr(runner, "execute", None)
    function = execute if callable(execute) else runner
    if not callable(function):
        hint = "pass a stage class, an instance of one, or a function of the stage's context"
        refuse(f"runner {runner!r} cannot run a stage", pipeline=pipeline, stage=stage, hint=hint)
    _check_call(function, (None,), pipeline, stage, _TAKES_CONTEXT)
    is_async = _is_async(function, pipeline, stage)
    return RunnerForm(
        is_class=False,
        is_async=is_async,
        is_managed=False,
        is_container=getattr(runner, "_is_container", False),
        is_actor=getattr(runner, "_is_actor", False),
    )


def _check_call(function: Any, arguments: tuple[Any, ...], pipeline: str | None, stage: str | None, hint: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some callables written in C have none
    try:
        signature.bind(*arguments)
    except TypeError as error:
        name = getattr(function, "__qualname__", None) or repr(function)
        refuse(f"runner {name}{signature} cannot be called: {error}", pipeline=pipeline, stage=stage, hint=hint)


def _is_async(function: Any, pipeline: str | None, stage: str | None) -> bool:
    while isinstance(function, partial):
        function = function.func
    candidates = (function, type(function).__call__)
    if any(inspect.isasyncgenfunction(one) or inspect.isgeneratorfunction(one) for one in candidates):
        name = getattr(function, "__qualname__", None) or repr(function)
        hint = "return the output instead of yielding it"
        refuse(f"runner {name} is a generator: a stage replies once", pipeline=pipeline, stage=stage, hint=hint)
    return any(inspect.iscoroutinefunction(one) for one in candidates)


def bind_runner(runner: Any, form: RunnerForm) -> Callable[..., Any]:
    """Return the function of the context behind a runner that is no class."""
    execute = None if form.is_class else getattr(runner, "execute", None)
    return execute if callable(execute) else runner  # type: ignore[no-any-return]


_FEW: Final = 8
"""Below so many dependencies a look through the names is faster than making a dict of them."""


@final
class StageInputs:
    """A read-only view of the outputs of exactly the stages that a stage declared as dependencies.

    Nothing is copied: outputs are frozen. The view closes when the stage ends.
    """

    __slots__ = ("_bag", "_names", "_numbers", "_outputs", "_positions", "_stage")

    def __init__(self, bag: OutputBag, stage: str, names: tuple[str, ...], positions: tuple[int, ...]) -> None:
        self._bag: OutputBag | None = bag
        self._stage = stage
        self._names = names
        self._positions = positions
        self._numbers: dict[str, int] | None = None
        self._outputs: Mapping[str, StageOutput] | None = None

    def output(self, stage: str) -> StageOutput:
        """Return the whole output of a dependency.

        Raises:
            NoOutputError: It has none; the message says its state.
            UndeclaredDependencyError: `stage` is not among the dependencies.
        """
        bag, number = self._find(stage)
        output = bag.outputs[number]
        if output is None:
            why = bag.explain(number)
            hint = "get_from(..., default) does without it, state(...) tells"
            raise NoOutputError(f"dependency {stage!r} has no output: {why}", stage=self._stage, hint=hint)
        return output

    def get_from(self, stage: str, key: str, default: Any = None) -> Any:
        """Return one value of a dependency's data, or `default` where there is no output or no such key.

        Raises:
            UndeclaredDependencyError: `stage` is not among the dependencies.
        """
        bag, number = self._find(stage)
        output = bag.outputs[number]
        return default if output is None else output.data.get(key, default)

    def require_from(self, stage: str, key: str) -> Any:
        """Return one value of a dependency's data.

        Raises:
            NoOutputError: The dependency gave no output; the message says its state.
            MissingKeyError: Its data has no such key; the message says which it has.
            UndeclaredDependencyError: `stage` is not among the dependencies.
        """
        names = self._names
        if len(names) < _FEW:
            try:
                # Nearly always all is well: then no question is asked. If not, what follows says why.
                return self._bag.outputs[self._positions[names.index(stage)]].data[key]  # type: ignore[union-attr]
            except (AttributeError, LookupError, ValueError):
                pass
        data = self.output(stage).data
        if key not in data:
            has = f"only {list_names(data)}" if data else "it has no data"
            problem = f"the output of {stage!r} has no key {key!r}, {has}"
            raise MissingKeyError(problem, stage=self._stage, hint=nearest(key, data))
        return data[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key` from the first dependency, in declaration order, whose data has it."""
        bag = self._open()
        for number in self._positions:
            output = bag.outputs[number]
            if output is not None and key in output.data:
                return output.data[key]
        return default

    @property
    def outputs(self) -> Mapping[str, StageOutput]:
        """The outputs of the dependencies that gave one, by name, in declaration order; read-only."""
        if self._outputs is None:
            outputs = self._open().outputs
            pairs = zip(self._names, self._positions, strict=True)
            self._outputs = MappingProxyType(
                {name: output for name, number in pairs if (output := outputs[number]) is not None}
            )
        return self._outputs

    def state(self, stage: str) -> StageState:
        """Return how a dependency ended.

        Raises:
            UndeclaredDependencyError: `stage` is not among the dependencies.
        """
        bag, number = self._find(stage)
        return STATES[bag.states[number]]

    def failure(self, stage: str) -> StageFailure | None:
        """Return why a dependency failed, or None where it did not.

        Raises:
            UndeclaredDependencyError: `stage` is not among the dependencies.
        """
        bag, number = self._find(stage)
        return bag.failures.get(number)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the dependencies, in declaration order."""
        return iter(self._names)

    def __len__(self) -> int:
        """Return how many dependencies there are."""
        return len(self._names)

    def __contains__(self, stage: object) -> bool:
        """Return whether a stage is a declared dependency."""
        return stage in self._names

    def __repr__(self) -> str:
        """Name the stage and its dependencies."""
        return f"<StageInputs of {self._stage!r}: {count(len(self._names), 'dependency', 'dependencies')}>"

    def _close(self) -> None:
        self._bag = None

    def _copy(self) -> StageInputs:
        """Return a view of the same outputs that closes by itself."""
        return StageInputs(self._open(), self._stage, self._names, self._positions)

    def _open(self) -> OutputBag:
        if self._bag is None:
            message = f"stage {self._stage!r} has ended, and with it its inputs; read what you need while it runs"
            raise RuntimeError(message)
        return self._bag

    def _find(self, stage: str) -> tuple[OutputBag, int]:
        bag = self._bag or self._open()
        names = self._names
        if len(names) < _FEW:
            if stage in names:
                return bag, self._positions[names.index(stage)]
            number = None
        else:
            if self._numbers is None:
                self._numbers = dict(zip(names, self._positions, strict=True))
            number = self._numbers.get(stage)
        if number is None:
            hint = nearest(stage, self._names) or f"declare it: dependencies=[..., {stage!r}]"
            raise UndeclaredDependencyError(f"{stage!r} is not a dependency", stage=self._stage, hint=hint)
        return bag, number


class Delivery(Protocol):
    """What a message to a resident actor knows of itself."""

    @property
    def key(self) -> str:
        """The same for every delivery of the message, and for no other."""
        ...

    def stop(self) -> None:
        """Let the actor end after it."""


@final
class StageContext:
    """The message that starts a stage: the run's snapshot and the stage's own inputs and configuration."""

    __slots__ = ("_attempt", "_config", "_delivery", "_emit", "_inputs", "_name", "_snapshot")

    def __init__(
        self,
        name: str,
        snapshot: ContextSnapshot[Any],
        inputs: StageInputs,
        config: Mapping[str, Any],
        attempt: int,
        emit: Callable[[str, int, Any], None] | None,
        delivery: Delivery | None = None,
    ) -> None:
        self._name = name
        self._snapshot = snapshot
        self._inputs = inputs
        self._config = config
        self._attempt = attempt
        self._emit = emit
        self._delivery = delivery

    @property
    def snapshot(self) -> ContextSnapshot[Any]:
        """The run's snapshot, with its `run_id` and `created_at`."""
        return self._snapshot

    @property
    def inputs(self) -> StageInputs:
        """The outputs of the declared dependencies."""
        return self._inputs

    @property
    def config(self) -> Mapping[str, Any]:
        """The stage's own frozen configuration."""
        return self._config

    @property
    def stage_name(self) -> str:
        """The stage's name in the run."""
        return self._name

    @property
    def attempt(self) -> int:
        """Which time it is that the stage is run, or the message is delivered to an actor, counted from 1."""
        return self._attempt

    @property
    def idempotency_key(self) -> str:
        """A key that is the same for every attempt at this stage of this run, or at this message to an actor."""
        return self._delivery.key if self._delivery else f"{self._snapshot.run_id}/{self._name}/1"

    def emit(self, event: object) -> None:
        """Tell those who listen to the run's events; never waits. A worker thread may call it too.

        After the stage has ended this does nothing.
        """
        if self._emit is not None:
            self._emit(self._name, self._attempt, event)

    def stop(self) -> None:
        """Let the resident actor that handles this message end after it, normally; never waits.

        One that is `permanent` is restarted, any other has ended. After the message this does nothing.

        Raises:
            RuntimeError: This is a stage of a run, which ends by returning.
        """
        if self._delivery is None:
            message = (
                f"stage {self._name!r} is no resident actor; it ends by returning, StageOutput.cancel ends its run"
            )
            raise RuntimeError(message)
        self._delivery.stop()

    def __repr__(self) -> str:
        """Name the stage, the attempt and the run."""
        return f"<StageContext of {self._name!r}, attempt {self._attempt}, run {self._snapshot.run_id}>"
