"""One execution of a dynamic fan-out: items are taken, run, and accounted for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import attrs
import trio
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ._actor import perform, split_cancelled
from ._bag import Attempt, StageFailure, describe_error
from ._failures import advise, make_failed, make_stray
from ._graph import adapt_runner, find_direct
from ._limiter import Waiter
from ._output import StageOutput, StageStatus
from ._placement import Host
from ._policy import ABANDONED, CANCELLED, FAILED, NO_FAILURES, OK, SKIPPED, Directive
from ._snapshot import with_item
from ._stage import StageContext
from ._tickets import Gate, Ticket, bind
from ._traceback import clear_own_frames, drop_own_frames
from .errors import ItemFailedError, OverloadedError, StageflowError, ThreadAbandonedError

if TYPE_CHECKING:
    import contextvars

    from ._announcer import Announcer
    from ._fanout import FanOutLimiterStage
    from ._healing import Healing
    from ._limits import LimiterBase
    from ._placement import Placement, Site
    from ._policy import Intensity
    from ._shutdown import Shutdown

_logger: Final = logging.getLogger("stageflow_actors")

_CHUNK: Final = 256
"""How many items may be sent off without a checkpoint."""


@final
@attrs.frozen
class Loan:
    """What a run lends to a fan-out for one attempt at it."""

    context: contextvars.Context
    """Which the tasks of items start from."""
    announcer: Announcer
    healing: Healing
    threads: trio.CapacityLimiter
    shutdown: Shutdown
    reach: Callable[[Placement], Awaitable[Site]]
    placement: Placement | None
    """Where each item runs."""
    pipeline: str
    stage: str
    limiters: tuple[LimiterBase, ...]
    """What each item passes."""
    priority: int
    counted: tuple[str, Intensity] | None
    """The subpipeline that counts restarts instead of the run, and how many it allows."""
    began: float
    """When the run began, on its clock."""
    now: Callable[[], float]
    is_stopping: Callable[[], bool]
    """Whether the run ends before its time."""
    account: Callable[[int, int, int, int], None]
    """Told how many items were accepted, replied, failed and were cancelled."""


@final
class _OpenSlots:
    """What a ticket is to one item, for all that a plain limiter admits at once: it has nothing to remember."""

    __slots__ = ("gate",)

    def __init__(self, gate: Gate | None) -> None:
        self.gate = gate

    def start(self) -> None:
        """Do nothing: nobody counts starts."""

    def release(self) -> None:
        """Give the slot of an item back."""
        if self.gate is not None:
            self.gate.leave(False)


NO_TICKET: Final = _OpenSlots(None)


@final
class _Item(Waiter):
    """One item, from the time it is taken to its end."""

    __slots__ = ("_announcer", "_stage", "attempts", "index", "name", "number", "started", "ticket", "value", "window")

    def __init__(self, announcer: Announcer, stage: str, index: int, value: Any) -> None:
        self._task = self._ticket = None
        self._announcer = announcer
        self._stage = stage
        self.ticket: Ticket | _OpenSlots = NO_TICKET
        """What lets it through its limiters, until it has ended: the ticket leads back here."""
        self.index = index
        self.name = f"{stage}[{index}]"
        self.value = value
        self.number = 1
        """Of the present attempt."""
        self.started: float | None = None
        self.attempts: tuple[Attempt, ...] = ()
        """The failed ones."""
        self.window = NO_FAILURES

    def emit(self, _name: str, attempt: int, event: object) -> None:
        """Tell what the worker has to tell."""
        self._announcer.stage_emitted(self._stage, attempt, event, self.index)

    def free(self) -> None:
        """Give back the slots of an item, or its place in a queue, and let go of the ticket."""
        ticket, self.ticket = self.ticket, NO_TICKET
        ticket.release()


@final
class FanOut:
    """One execution of a fan-out: takes items, runs them, and knows what came of each."""

    def __init__(self, stage: FanOutLimiterStage, loan: Loan, ctx: StageContext) -> None:
        self._stage = stage
        self._options = options = stage._options  # noqa: SLF001 (two sides of one thing)
        self._loan = loan
        self._name = loan.stage
        self._announcer = loan.announcer
        self._now = loan.now
        self._snapshot = ctx.snapshot
        self._inputs = ctx.inputs
        self._config = ctx.config
        self._spawn = loan.context.run
        self._form, self._target = adapt_runner(stage.worker, options.form, loan.placement)
        self._timeout = options.timeout
        self._collects = options.collects
        self._is_threaded = self._form.is_threaded
        self._direct = find_direct(self._form, options.timeout, loan.placement)
        self._most_restarting = stage.limiter.max_concurrency
        limits = [limiter._options for limiter in loan.limiters]  # noqa: SLF001 (likewise)
        self._has_rates = any(each.rate is not None for each in limits)
        self._slots = NO_TICKET
        self._try_enter: Callable[[], bool] | None = None
        if len(limits) == 1 and limits[0].is_plain:
            gate = bind(loan.limiters[0])
            self._slots, self._try_enter = _OpenSlots(gate), gate.try_enter
        self._nursery: trio.Nursery | None = None
        self._results: list[Mapping[str, Any] | None] = []
        self._failures: dict[int, StageFailure] = {}
        self._told = self._replied = self._failed = self._cancelled = self._ok = self._skipped = 0
        self._stopped = False
        self._cancel: StageOutput | None = None
        """The reply of the item that ended the run."""
        self._errors: list[BaseException] = []
        """What ended the stage before its time."""
        self._restarting = 0
        self._room = trio.Event()

    @enable_ki_protection
    async def run(self) -> StageOutput:
        """Run all items to their end, and return the stage's output."""
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    await self._feed()
                except trio.Cancelled:
                    raise
                except BaseException as error:
                    self._stop(error)
        except BaseException:  # Cancelled, from outside: what failed by itself comes before it
            if not self._errors:
                raise
        finally:
            self._loan.account(self._told, self._replied, self._failed, self._cancelled)
            self._nursery = None
        for failure in self._failures.values():
            clear_own_frames(failure.error, self)
        if self._errors:
            self._raise()
        if self._cancel is not None:
            return self._cancel
        if self._cancelled:
            await trio.lowlevel.checkpoint_if_cancelled()  # the items took the Cancelled that was meant for the stage
        return self._make_output()

    def _raise(self) -> NoReturn:
        """Raise what ended the stage: first of all what is no `Exception`, else what came first."""
        errors, self._errors = self._errors, []
        fatal = [error for error in errors if not isinstance(error, Exception)]
        try:
            raise (
                BaseExceptionGroup(f"items of {self._loan.stage!r}", fatal) if len(fatal) > 1 else (fatal or errors)[0]
            )
        finally:
            del errors, fatal, self

    def _make_output(self) -> StageOutput:
        counts = {"count": self._told, "ok": self._ok, "skipped": self._skipped, "failed": self._failed}
        if not self._collects:
            return StageOutput.ok(counts)
        failures = dict(sorted(self._failures.items()))
        return StageOutput.ok({**counts, "results": self._results, "failures": failures})

    def _stop(self, error: BaseException | None) -> None:
        """Take no more items, and cancel those that run."""
        if error is not None:
            self._errors.append(error)
        self._stopped = True
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    # Taking items

    async def _feed(self) -> None:
        found = call_apart(self._stage._find_items, self._inputs)  # noqa: SLF001 (likewise)
        if not isinstance(found, AsyncIterable):
            await self._send_all(partial(_take, iter(found)))
            return
        iterator = aiter(found)
        try:
            await self._send_all(partial(_take_async, iterator), is_async=True)
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()

    async def _send_all(self, take: Callable[[], Any], *, is_async: bool = False) -> None:
        """Take the items one by one and send each off, once there is room for it."""
        assert self._nursery is not None
        start_soon: Callable[..., None] = self._nursery.start_soon
        while True:
            taken = await take() if is_async else take()
            while taken and self._restarting >= self._most_restarting:
                self._room = trio.Event()
                await self._room.wait()
            if self._stopped or self._loan.is_stopping():
                await trio.lowlevel.checkpoint_if_cancelled()
            if not taken or self._stopped:
                break
            item = _Item(self._announcer, self._name, self._told, taken[0])
            self._told += 1
            if self._collects:
                self._results.append(None)
            try:
                ticket = self._request(item)
                if ticket is not None:
                    await item.wait(ticket)
                    await trio.lowlevel.checkpoint_if_cancelled()
            except OverloadedError as error:
                self._reject(item, error)
                await trio.lowlevel.checkpoint()  # or a long source would be refused in one go
                continue
            except BaseException:
                self._give_up(item, "the stage ended before it began")
                raise
            self._spawn(start_soon, self._run_item, item, name=item.name)
            if not self._told % _CHUNK:
                await trio.lowlevel.checkpoint()

    def _request(self, item: _Item) -> Ticket | None:
        """Ask the limiters for an item; return the ticket to wait for, or None where they admit it at once.

        Raises:
            OverloadedError: One will not have it.
        """
        if self._try_enter is not None and self._try_enter():
            item.ticket = self._slots
            return None
        item.ticket = ticket = Ticket(item, item.index, self._loan.limiters, self._loan.priority)
        return None if ticket.request() else ticket

    # One item

    @enable_ki_protection
    async def _run_item(self, item: _Item) -> None:
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._give_up(item, "the stage ended before it began")
            return
        while True:
            if self._is_threaded:
                item.started = None
            else:
                self._start(item)
            try:
                snapshot = with_item(self._snapshot, item.value, item.index)
            except StageflowError as refused:
                delay = self._judge(item, refused)
            else:
                ctx = StageContext(item.name, snapshot, self._inputs, self._config, item.number, item.emit)
                host = None if self._direct else self._make_host(item)
                output, raised = await perform(self._form, self._direct, self._target, ctx, self._timeout, host)
                ctx._emit = None  # noqa: SLF001 (closed where it was made)
                delay = self._complete(item, output) if output is not None else self._crash(item, raised)
                del raised
            item.free()
            if delay is None or not await self._back_off(item, delay):
                break

    async def _back_off(self, item: _Item, delay: float) -> bool:
        """Wait until an item is to be run again, and for its limiters; return whether it has them."""
        self._restarting += 1
        try:
            await trio.sleep(delay)
            ticket = self._request(item)
            if ticket is not None:
                await item.wait(ticket)
                await trio.lowlevel.checkpoint_if_cancelled()
        except OverloadedError as error:
            self._reject(item, error)
        except BaseException:
            self._give_up(item, "the stage ended before it was restarted")
        else:
            return True
        finally:
            self._restarting -= 1
            self._room.set()
        return False

    def _make_host(self, item: _Item) -> Host:
        loan = self._loan
        note_start, keep = partial(self._start, item), partial(self._keep, item)
        return Host(loan.threads, loan.shutdown, note_start, keep, loan.reach, loan.placement)

    def _start(self, item: _Item) -> None:
        if self._has_rates:
            item.ticket.start()
        item.started = self._now()
        if self._announcer.listeners:
            self._announcer.stage_started(self._loan.stage, item.number, item.index)

    def _keep(self, item: _Item) -> Callable[[], None]:
        """Leave an item its slots, because its thread still runs; return what gives them back."""
        ticket, item.ticket = item.ticket, NO_TICKET
        return ticket.release

    def _complete(self, item: _Item, output: StageOutput) -> float | None:
        status = output.status
        if status is StageStatus.OK:
            self._ok += 1
            if self._collects:
                self._results[item.index] = output.data
            if self._announcer.listeners:
                self._notice_overrun(item)
                self._end(item, OK, "")
        elif status is StageStatus.SKIP:
            self._skipped += 1
            self._end(item, SKIPPED, output.reason)
        elif status is StageStatus.CANCEL:
            self._cancel = self._cancel or output
            self._end(item, CANCELLED, output.reason)
            self._stop(None)
        else:
            failed = make_failed(output, may_restart=self._options.restart is not None)
            return self._judge(item, failed, asked=output)
        self._replied += 1
        return None

    def _notice_overrun(self, item: _Item) -> None:
        took = self._now() - (item.started or 0.0)
        if trio.current_effective_deadline() == -inf or (self._timeout is not None and took > self._timeout):
            self._announcer.stage_overran(self._name, item.number, item.index)

    def _crash(self, item: _Item, error: BaseException | None) -> float | None:
        assert error is not None
        remains = split_cancelled(error)
        if remains is None:
            if trio.current_effective_deadline() == -inf:
                self._give_up(item, "the stage ended while it ran")
                return None
            remains = make_stray(error)
        return self._judge(item, remains)

    def _judge(self, item: _Item, error: BaseException, asked: StageOutput | None = None) -> float | None:
        """Decide what becomes of an item that failed; return the seconds after which it is run again, where it is."""
        loan = self._loan
        drop_own_frames(error)
        advise(error)
        if isinstance(error, StageflowError):
            error.locate(pipeline=loan.pipeline, stage=item.name, attempt=item.number)
        ended = loan.now()
        started = ended if item.started is None else item.started
        item.attempts += (Attempt(item.number, started - loan.began, ended - loan.began, error),)
        if loan.announcer.listeners:
            loan.announcer.stage_crashed(loan.stage, item.number, error, item.index)
        escalates = False
        if self._options.restart is not None and trio.current_effective_deadline() != -inf:
            verdict, item.window = loan.healing.judge(
                self._options.restart, item.window, error, asked, item.attempts, ended, loan.counted
            )
            if verdict.directive is Directive.RESTART and trio.current_effective_deadline() != -inf:
                told = "pipeline %r, stage %r, item %d: attempt %d failed, the next is in %.3g s: %s"
                reason = describe_error(error)
                _logger.warning(told, loan.pipeline, loan.stage, item.index, item.number, verdict.delay, reason)
                item.number += 1
                if loan.announcer.listeners:
                    loan.announcer.stage_restarting(loan.stage, item.number, verdict.delay, item.index)
                return verdict.delay
            error = verdict.error
            escalates = verdict.directive is Directive.ESCALATE
        self._fail(item, error, escalates=escalates)
        return None

    def _reject(self, item: _Item, error: OverloadedError) -> None:
        if trio.current_effective_deadline() == -inf:
            self._give_up(item, "the stage ended before it began")
            return
        item.free()
        if self._announcer.listeners:
            self._announcer.stage_rejected(self._loan.stage, error.describe(), item.index)
        self._fail(item, error)

    def _fail(self, item: _Item, error: BaseException, *, escalates: bool = False) -> None:
        """Give an item its final failure, and end the stage where that is what it does about one."""
        loan = self._loan
        name = item.name
        drop_own_frames(error)
        if isinstance(error, StageflowError):
            error.locate(pipeline=loan.pipeline, stage=name, attempt=item.number)
        self._failed += 1
        reason = describe_error(error)
        _logger.error("pipeline %r, stage %r failed: %s", loan.pipeline, name, reason, exc_info=error)
        if self._collects:
            self._failures[item.index] = StageFailure(name, error, item.attempts)
        self._end(item, ABANDONED if isinstance(error, ThreadAbandonedError) else FAILED, reason)
        if not isinstance(error, Exception):
            self._stop(error)
        elif (self._options.ends_at_failure or escalates) and not self._stopped:
            failed = ItemFailedError(f"item {item.index:,} failed: {reason}", index=item.index, escalates=escalates)
            failed.__cause__ = error
            self._stop(failed)

    def _give_up(self, item: _Item, reason: str) -> None:
        """End an item that was not to end by itself."""
        item.free()
        self._cancelled += 1
        self._end(item, CANCELLED, reason)

    def _end(self, item: _Item, state: int, reason: str) -> None:
        if self._announcer.listeners:
            self._announcer.stage_ended(self._loan.stage, state, reason, item.index)


async def run_items(stage: FanOutLimiterStage, loan: Loan, ctx: StageContext) -> StageOutput:
    """Run a fan-out: the function of the context that a stage is."""
    return await FanOut(stage, loan, ctx).run()


@disable_ki_protection
def call_apart(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call what may call a user's function."""
    return function(argument)


@disable_ki_protection
def _take(iterator: Iterator[Any]) -> tuple[Any, ...]:
    """Return the next item in a tuple, which is empty at the end."""
    for value in iterator:
        return (value,)
    return ()


@disable_ki_protection
async def _take_async(iterator: AsyncIterator[Any]) -> tuple[Any, ...]:
    with contextlib.suppress(StopAsyncIteration):
        return (await anext(iterator),)
    return ()
