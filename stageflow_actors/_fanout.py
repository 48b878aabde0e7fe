"""A dynamic fan-out: one stage that runs a worker for every item of something that is known only then."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import attrs

from ._limiter import Limiter
from ._spec import check_restart
from ._stage import StageContext, inspect_runner
from ._validation import nearest, refuse, require_seconds
from .errors import StageReturnTypeError

if TYPE_CHECKING:
    from ._output import StageOutput
    from ._policy import Restart
    from ._stage import Runner, RunnerForm, StageInputs

Items: TypeAlias = (
    tuple[str, str] | Iterable[Any] | AsyncIterable[Any] | Callable[["StageInputs"], Iterable[Any] | AsyncIterable[Any]]
)
"""Where the items come from: `(stage, key)`, something to iterate over, or a function of the inputs that gives it."""


@final
@attrs.frozen
class FanOutOptions:
    """How a fan-out runs its items."""

    form: RunnerForm
    """How its worker is to be called."""
    ends_at_failure: bool
    collects: bool
    restart: Restart | None
    timeout: float | None


@final
class FanOutLimiterStage:
    """A stage that runs `worker` once per item, each an actor of its own, as many at once as a limiter admits.

    Items are taken one by one, as there is room for them, and never all at once. Each worker finds its item in
    `ctx.snapshot.data["item"]` and its position in `["index"]`, beside the run's own data; `ctx.inputs` and
    `ctx.config` are those of this stage, and `ctx.stage_name` is such as `pages[17]`.

    The output's data counts the items: `count`, and of these `ok`, `skipped` and `failed`. With `collect` it has
    `results` too, a tuple in the order of the items of what each returned, None for one that failed or was skipped;
    and `failures`, the `StageFailure` of each that failed, by position.

    The stage itself holds no slot of the limiter, nor of its supervisor's `max_running_stages`: its items do.
    While the restarts of as many items as the limiter admits are due, no further item is taken.

    Args:
        worker: What runs each item: whatever can run a stage, except another fan-out.
        items: `(stage, key)` for what a dependency gave under that key; an iterable or async iterable; or a
            function of the stage's inputs that gives one. An iterator serves only one run: it is used up then.
        limiter: What each item needs a slot of.
        on_item_failure: With `fail` the first item that fails ends the stage, with an `ItemFailedError`; with
            `collect` its failure is kept, and the others go on.
        collect: Whether to keep results and failures, or only to count them.
        restart: When an item is run again; `restart=` of `with_stage` is about the stage as a whole.
        timeout: Seconds that an attempt at an item may take.

    Raises:
        PipelineValidationError: An option that cannot be.
    """

    _is_container = True

    def __init__(
        self,
        worker: Runner,
        *,
        items: Items,
        limiter: Limiter,
        on_item_failure: Literal["fail", "collect"] = "fail",
        collect: bool = True,
        restart: Restart | None = None,
        timeout: float | None = None,
    ) -> None:
        form = inspect_runner(worker)
        if form.is_container:
            refuse("the worker of a fan-out cannot be a fan-out", hint="make the items of both one sequence")
        if not isinstance(limiter, Limiter):
            refuse(f"limiter must be a Limiter, not {limiter!r}", hint="write limiter=Limiter(64)")
        if on_item_failure not in ("fail", "collect"):
            hint = nearest(on_item_failure, ("fail", "collect"))
            refuse(f"on_item_failure must be 'fail' or 'collect', not {on_item_failure!r}", hint=hint)
        if timeout is not None:
            require_seconds("timeout", timeout)
        if restart is not None:
            check_restart(restart, timeout)
            if form.is_actor:
                hint = (
                    "its supervisor restarts the actor; give the policy to spawn, with max_deliveries for the message"
                )
                refuse("items for a resident actor have no restart of their own", hint=hint)
        _check_items(items)
        self.worker = worker
        self.limiter = limiter
        self._options = FanOutOptions(form, on_item_failure == "fail", collect, restart, timeout)
        self._items = items
        self._is_used_up = False

    @property
    def source(self) -> str | None:
        """The dependency that gives the items, where it is named."""
        return self._items[0] if isinstance(self._items, tuple) and _is_pair(self._items) else None

    async def execute(self, ctx: StageContext, /) -> StageOutput:
        """Refuse: only a run can lend it what it needs.

        Raises:
            RuntimeError: Always.
        """
        message = f"stage {ctx.stage_name!r} is a fan-out, which runs as a stage of a pipeline and cannot be called"
        raise RuntimeError(message)

    def _find_items(self, inputs: StageInputs) -> Iterable[Any] | AsyncIterable[Any]:
        """Return what to iterate over.

        Raises:
            StageReturnTypeError: It gives no items, or no more.
        """
        found: Any = self._items
        where = "items"
        if _is_pair(found):
            stage, key = found
            found, where = inputs.require_from(stage, key), f"the output {key!r} of {stage!r}"
        elif callable(found):
            found, where = found(inputs), "what its function for the items returned"
        problem = _find_problem(found)
        if problem is not None:
            raise StageReturnTypeError(f"{where} {problem}", hint="it takes a list, a generator, or another iterable")
        if isinstance(self._items, (Iterator, AsyncIterator)):
            if self._is_used_up:
                hint = "give a function that makes one: items=lambda inputs: ..."
                raise StageReturnTypeError("its items were an iterator, which is used up", hint=hint)
            self._is_used_up = True
        return found  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        """Name the worker and the limiter."""
        return f"<FanOutLimiterStage of {self.worker!r} behind {self.limiter!r}>"


def _is_pair(items: object) -> bool:
    return isinstance(items, tuple) and len(items) == 2 and all(isinstance(part, str) for part in items)


def _find_problem(items: object) -> str | None:
    """Return why something gives no items, or None where it does."""
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, (Iterable, AsyncIterable)):
        return f"cannot be {reprlib.repr(items)}, of type {type(items).__qualname__}"
    return None


def _check_items(items: object) -> None:
    if _is_pair(items):
        return
    if inspect.iscoroutinefunction(items):
        hint = "let it be a plain function, or an async generator"
        refuse(f"items is the async function {items!r}", hint=hint)
    if callable(items) and not isinstance(items, type):
        return
    problem = _find_problem(items)
    if problem is not None:
        hint = "give ('stage', 'key'), an iterable, an async iterable, or a function of the stage's inputs"
        refuse(f"items {problem}", hint=hint)
