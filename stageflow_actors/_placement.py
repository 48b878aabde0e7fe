"""Where the function of a stage runs, when that is neither the run's loop nor one of the supervisor's threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, final

import attrs

from ._stage import RunnerForm, bind_runner, inspect_runner
from ._validation import refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import trio

    from ._shutdown import Shutdown
    from ._stage import StageContext


class Placement(ABC):
    """Where stages run: what `placement=` of a stage is.

    It is a description, and may be shared between stages, pipelines and supervisors. A supervisor opens it when the
    first of its stages needs it, shares it between all that name the same object, and closes it when it is left.
    """

    @abstractmethod
    def check(self, runner: Any, form: RunnerForm) -> str | None:
        """Return why a runner cannot run here, to follow on "a stage that", or None where it can.

        Args:
            runner: What a stage, or each item of a fan-out, is to run.
            form: How it would be called: `is_class`, whether an attempt makes an instance of it first; `is_async`;
                `is_managed`, whether that is an async context manager.
        """

    def adapt(self, runner: Any, form: RunnerForm) -> tuple[RunnerForm, Callable[..., Any]]:
        """Return what is called here instead of a runner, and how: the runner itself, unless it has to travel.

        What is still a class, or managed, in the form that is returned is made, or entered, in the run's loop.
        """
        return form, bind_runner(runner, form)

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[Site]:
        """Open it, for one supervisor.

        What this raises is the failure of the stages that wait for it. Cancellation comes in only while it is being
        opened: when the supervisor is left before it is open. One that ends by itself is opened again when a stage
        needs it.
        """


@final
@attrs.frozen
class Host:
    """What a run lends to an attempt that is more than one await."""

    threads: trio.CapacityLimiter
    """Where a thread gets its place."""
    shutdown: Shutdown
    """The run's budget."""
    note_start: Callable[[], None]
    """Called when a plain function has its thread; an async one has started already."""
    keep: Callable[[], Callable[[], None]]
    """Called when its thread is abandoned, to keep what the attempt holds; returns what gives it back."""
    reach: Callable[[Placement], Awaitable[Site]]
    """Gives an open placement."""
    placement: Placement | None
    """Where the attempt runs; None for the loop or, of a plain function, a thread of the supervisor."""


class Lodger:
    """A managed stage of the library's own that uses what the run lends to its attempt."""

    host: Host | None = None
    """None in a resident actor."""


class Site(ABC):
    """A placement that a supervisor has opened. It belongs to the trio thread."""

    @abstractmethod
    async def call(
        self, function: Callable[[StageContext], Any], ctx: StageContext, begin: Callable[[], None], host: Host
    ) -> Any:
        """Run one attempt here and return what it returned, or raise what it raised.

        Cancelling this cancels the attempt, as far as it can be, and waits for its end: until
        `host.shutdown.deadline()`, on trio's clock, at most.

        Args:
            function: What the placement made of the runner.
            ctx: What the function is told.
            begin: To be called once, when the attempt has its place and begins: its timeout counts from then, and the
                timing of a plain function. A site that never calls it has neither.
            host: What the run lends to it: `shutdown`, its budget, and `keep`, which is called for what is given up
                although it still runs. The attempt's limiter slots stay taken until what `keep` returns is called.

        Raises:
            ThreadAbandonedError: The attempt outlived the budget, and is given up: the stage is `ABANDONED`.
        """


def check_placement(placement: object, runner: Any, pipeline: str | None, stage: str) -> None:
    """Refuse a placement that is none, or in which the runner cannot run. Of a fan-out, its worker is looked at.

    Raises:
        PipelineValidationError: The message says why.
    """
    if not isinstance(placement, Placement):
        hint = "write placement=processes(), from stageflow_actors.placement"
        refuse(f"placement must be a placement, not {placement!r}", pipeline=pipeline, stage=stage, hint=hint)
    form = inspect_runner(runner)
    if form.is_container:
        runner = runner.worker
        form = inspect_runner(runner)
    if form.is_actor:
        problem = "a resident actor lives where it was spawned, and nowhere else"
        refuse(problem, pipeline=pipeline, stage=stage, hint="leave the placement out")
    unfit = placement.check(runner, form)
    if unfit is not None:
        refuse(f"placement {placement!r} is not for a stage that {unfit}", pipeline=pipeline, stage=stage)
