"""One run of a pipeline: who is told when, and what is made of the replies.

An actor in the sense that only its own turns (a start, a completion, a cancellation) touch its state,
one at a time, on the trio thread. A completion is a direct call, without a channel; a stage has a task
only while it runs. The file is long because the turns of one actor share all of its state.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections import deque
from functools import partial
from itertools import chain
from math import isnan
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio
from trio.lowlevel import Abort, current_task, enable_ki_protection

from ._actor import ask, call_class, call_function, close_nurseries, run_special, split_cancelled, to_output
from ._announcer import Announcer
from ._bag import Attempt, OutputBag, StageFailure, describe_error
from ._failures import advise, make_failed, make_overloaded, make_stray
from ._fanout import FanOutLimiterStage
from ._gates import Gates
from ._graph import DIRECT_CLASS, DIRECT_FUNCTION
from ._healing import Healing
from ._items import Loan, run_items
from ._output import StageOutput, StageStatus, make_ok
from ._placement import Host
from ._policy import (
    ABANDONED,
    CANCELLED,
    FAILED,
    NO_FAILURES,
    OK,
    PENDING,
    RESTARTING,
    RUNNING,
    SKIPPED,
    STATES,
    TOLD,
    Decision,
    Directive,
    Window,
)
from ._result import Ledger, RunEnd, RunEnding, RunResult
from ._shutdown import Shutdown
from ._spec import name_condition
from ._stage import StageContext, StageInputs
from ._tickets import Ticket
from ._traceback import clear_own_frames, drop_own_frames
from ._tracker import Tracker
from .errors import (
    ItemFailedError,
    LedgerError,
    OverloadedError,
    StageflowError,
    ThreadAbandonedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._gates import Pass
    from ._graph import Graph
    from ._limiter import Limiter
    from ._policy import Intensity
    from ._sites import Sites
    from ._snapshot import ContextSnapshot, RunIdentity
    from ._spec import Condition

_logger: Final = logging.getLogger("stageflow_actors")

# How many tasks that have not begun may exist at once. Spawning everything that is ready in one step
# stalls the loop for seconds at 100,000 stages; any chunk of some hundreds costs the same a stage.
_CHUNK: Final = 256

_STATUS_OK: Final = StageStatus.OK


@final
@attrs.frozen
class Means:
    """What all runs of a supervisor share."""

    threads: trio.CapacityLimiter
    """For plain functions."""
    running: Limiter | None
    """For all running stages."""
    shutdown: float
    """Each run's budget, in seconds."""
    random: Callable[[], float]
    """Gives numbers from 0 to 1, for jitter."""
    sites: Sites
    """Its open placements."""


@final
class Engine:
    """The private state of a run, and its turns."""

    __slots__ = (
        "_accepted",
        "_announcer",
        "_bag",
        "_cancelled",
        "_context",
        "_end",
        "_entry",
        "_fail_fast",
        "_failed",
        "_fatal",
        "_gates",
        "_graph",
        "_healing",
        "_interrupted",
        "_now",
        "_nursery",
        "_overrides",
        "_parked",
        "_passes",
        "_ready",
        "_remaining",
        "_replied",
        "_shutdown",
        "_sites",
        "_snapshot",
        "_stopped_by_stage",
        "_task",
        "_threads",
        "_timeout",
        "_tracker",
        "_unbegun",
        "_waits",
        "_windows",
        "identity",
        "result",
        "turned_away",
    )

    def __init__(
        self,
        graph: Graph,
        snapshot: ContextSnapshot[Any],
        identity: RunIdentity,
        *,
        fail_fast: bool,
        timeout: float | None,
        intensity: Intensity | None,
        overrides: Mapping[str, StageOutput],
        means: Means,
    ) -> None:
        self.identity = identity
        self.result: RunResult | None = None
        self._graph = graph
        self._snapshot = snapshot.stamped(identity)
        self._fail_fast = fail_fast
        self._timeout = timeout
        self._overrides = overrides
        self._threads = means.threads
        self._sites = means.sites
        self._shutdown = Shutdown(means.shutdown)
        self._now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        # Every task of the run starts from a copy of this, and none from that of another stage.
        self._context = contextvars.copy_context()
        self._bag = OutputBag(graph.names, self._now())
        self._announcer = Announcer(identity.run_id, self._now)
        self._tracker = Tracker(graph, self._bag)
        self._gates = Gates(graph, means.running)
        self._passes = self._gates.passes
        self._healing = Healing(self._context, intensity, means.random)
        self._windows: dict[int, Window] = {}
        """Of the stages that were restarted, the failures that count."""
        self._ready: deque[int] = deque()
        self._unbegun = 0
        self._remaining = len(graph)
        self._accepted = self._replied = self._failed = self._cancelled = 0
        self._end: RunEnd | None = None
        """Set at the moment at which the run stops before its time."""
        self._stopped_by_stage = False
        self._fatal: list[BaseException] = []
        self._interrupted: BaseException | None = None
        self._entry: Ticket | None = None
        self._waits = False
        """Whether it waits until the supervisor has a place for it."""
        self.turned_away: OverloadedError | None = None
        self._nursery: trio.Nursery | None = None
        self._task: trio.lowlevel.Task | None = None
        self._parked = False

    # The run as a whole

    def enter(self, runs: Limiter) -> None:
        """Take a place among the runs of the supervisor, or one in the queue for it.

        Raises:
            OverloadedError: There is none.
        """
        self._entry = Ticket(self, None, (runs,), 0)
        try:
            self._waits = not self._entry.request()
        except OverloadedError as error:
            raise make_overloaded(error, self._graph.pipeline) from None

    def leave(self) -> None:
        """Give that place back."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.release()

    @enable_ki_protection
    async def execute(self) -> None:
        """Run the pipeline in the present task, to its end. What is to be raised, `unwrap` raises."""
        async with trio.open_nursery() as self._nursery:
            if self._timeout is not None:
                self._nursery.cancel_scope.deadline = self._bag.began + self._timeout
            if not self._waits:
                self._begin()
            if self._remaining:
                # A stage's task that swallowed the caller's Cancelled would swallow it for the caller
                # too. So the caller's own task waits here, where a cancellation and an interrupt find it.
                self._task = current_task()
                self._parked = True
                try:
                    await trio.lowlevel.wait_task_rescheduled(self._abort)
                except BaseException as error:
                    if not (isinstance(error, trio.Cancelled) and self._nursery.cancel_scope.cancel_called):
                        self._interrupted = error
                    self.stop(RunEnding.CANCELLED, describe_error(error))
                    self._nursery.cancel_scope.cancel()
        self._finish()
        del self  # the traceback of a condition that failed at the start may keep this frame

    def unwrap(self) -> RunResult:
        """Return the result of a run that is over, or raise what it ended with."""
        assert self.result is not None
        interrupted, self._interrupted = self._interrupted, None
        try:
            if self.fatal is not None:
                raise self.fatal
            if self.turned_away is not None:
                raise self.turned_away
            if interrupted is not None and not isinstance(interrupted, trio.Cancelled):
                raise interrupted
            if self.is_failed:
                raise self.result._make_error()  # noqa: SLF001 (the result's own)
            if interrupted is not None:
                raise interrupted
            if not self.result.ledger.balanced:
                problem = f"the ledger does not balance: {self.result.ledger}"
                raise LedgerError(problem, result=self.result, pipeline=self._graph.pipeline, hint="please report it")
            return self.result
        finally:
            del interrupted, self  # the traceback of what it raises keeps this frame

    @property
    def fatal(self) -> BaseException | None:
        """What a stage raised that is no `Exception`, and has to end more than the run."""
        if len(self._fatal) > 1:
            return BaseExceptionGroup(f"stages of {self._graph.pipeline!r}", self._fatal)
        return self._fatal[0] if self._fatal else None

    @property
    def is_failed(self) -> bool:
        """Whether it has something to raise: not where it was to continue on failure, even if a stage escalated."""
        assert self.result is not None
        if self.turned_away is not None:
            return True
        return self.result.ended.ending is RunEnding.FAILED and self._fail_fast

    @property
    def graph(self) -> Graph:
        """The graph that runs."""
        return self._graph

    def view(self) -> RunResult:
        """Return what the run has completed so far, or its result."""
        if self.result is not None:
            return self.result
        end = self._end or RunEnd(RunEnding.UNFINISHED)
        return RunResult(self._graph, self._bag.copy(), self.identity, end, self._balance())

    def count_states(self) -> list[int]:
        """Return how many stages are in each state, by the state's code."""
        return [self._bag.states.count(code) for code in range(len(STATES))]

    @property
    def announcer(self) -> Announcer:
        """Where to listen to the run."""
        return self._announcer

    def stop(self, ending: RunEnding, reason: str, *, cancel: bool = True) -> None:
        """End the run before its time: nothing more is started, what runs is cancelled.

        Args:
            ending: How the run ends. The first call decides.
            reason: Why.
            cancel: Whether to cancel what runs; not where the cancellation comes from outside already.
        """
        if self._end is not None or self.result is not None:
            return
        self._end = RunEnd(ending, reason)
        if self._announcer.listeners:
            self._announcer.run_stopping(self._end)
        self._shutdown.begin()
        if self._waits:
            self.leave()
        isolated, rest = self._tracker.settle()
        for stage in isolated:
            self._end_stage(stage, self._bag.states[stage], self._tracker.isolate(stage))
        # Those that wait go first, so that what the others give back is not given to them.
        told = (*self._gates.withdraw(), *self._ready)
        self._cancelled += len(told)
        for stage in (*rest, *told):
            self._end_stage(stage, CANCELLED, "the run ended before it began")
        self._ready.clear()
        for stage in told:
            self._gates.free(stage)
        if cancel and self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def cancel(self, reason: str) -> None:
        """End the run from outside; after its last stage has ended there is nothing to end."""
        if self._remaining:
            self.stop(RunEnding.CANCELLED, reason)

    def _begin(self) -> None:
        if self._end is not None:
            return  # cancelled between its admission and its first step: everything is decided
        self._bag.began = self._now()
        self._announcer.begin(self._bag.began)
        roots = [stage for stage, count in enumerate(self._tracker.unmet) if not count]
        given = {self._graph.positions[name]: output for name, output in self._overrides.items()}
        for stage, output in given.items():
            self._bag.outputs[stage] = output
            self._end_stage(stage, OK if output.status is _STATUS_OK else SKIPPED, "given by overrides")
        for stage in given:
            if self._end is None:
                self._release(stage)
        for stage in roots:
            if self._bag.states[stage] == PENDING:
                self._consider(stage)
        self._gates.enter(self, self._ready)
        self._pump_in_context()

    def _abort(self, _raise_cancel: Callable[[], None]) -> Abort:
        """Take note, at the very moment of a cancellation, that nothing may begin any more."""
        self._parked = False
        assert self._nursery is not None
        scope = self._nursery.cancel_scope
        if scope.cancel_called and self._timeout is not None and self._now() >= scope.deadline:
            self.stop(RunEnding.TIMED_OUT, f"after {self._timeout:g} s", cancel=False)
        else:
            self.stop(RunEnding.CANCELLED, "it was cancelled from outside", cancel=False)
        return Abort.SUCCEEDED

    def _finish(self) -> None:
        for failure in self._bag.failures.values():
            clear_own_frames(failure.error, self)
        for attempt in chain.from_iterable(self._bag.attempts.values()):
            if attempt.error is not None:
                clear_own_frames(attempt.error, self)
        end = self._end or RunEnd(RunEnding.COMPLETED)
        ledger = self._balance()
        self.result = RunResult(self._graph, self._bag, self.identity, end, ledger)
        self._nursery = self._task = None
        self._context = contextvars.Context()
        if not ledger.balanced:
            _logger.critical("run %s: the ledger does not balance: %s", self.identity.run_id, ledger)
            self._announcer.ledger_unbalanced(ledger)
        self._announcer.run_ended(end)

    def _balance(self) -> Ledger:
        return Ledger(self._accepted, self._replied, self._failed, self._cancelled)

    # Starting stages

    def _consider(self, stage: int) -> None:
        """Tell a stage whose dependencies have all ended, or decide otherwise and follow the consequences."""
        work = [stage]
        while work and self._end is None:
            stage = work.pop()
            if not self._tracker.flags[stage] or self._chosen(stage):
                self._bag.states[stage] = TOLD
                self._accepted += 1
                (self._gates.told if self._gates.is_used else self._ready).append(stage)
            elif self._end is None:
                work.extend(self._tracker.count_down(stage))

    # Limits

    def admitted(self, ticket: Pass) -> None:
        """Start a stage that has waited for its limiters, or the whole run."""
        if ticket is self._entry:
            self._waits = False
            if self._nursery is not None:
                self._begin()
            return
        self._ready.append(ticket.what)
        if self._end is None and not self._unbegun:  # a run that stops looks through those that are ready
            self._pump_in_context()

    def refused(self, ticket: Ticket, error: OverloadedError) -> None:
        """Fail a stage that a limiter would not have, or give up the whole run."""
        if ticket is self._entry:
            if self._end is None:
                self.turned_away = make_overloaded(error, self._graph.pipeline, dropped=True)
                self.stop(RunEnding.CANCELLED, self.turned_away.describe())
            return
        stage: int = ticket.what
        self._gates.free(stage)
        self._failed += 1
        if self._announcer.listeners:
            self._announcer.stage_rejected(self._graph.names[stage], error.describe())
        self._fail(stage, error)
        if self._end is None:
            self._release(stage)

    def _chosen(self, stage: int) -> bool:
        """Return whether a stage runs; where it does not, end it."""
        graph = self._graph
        bag = self._bag
        decision = self._tracker.judge(stage)
        if decision is Decision.ISOLATE:
            reason = self._tracker.isolate(stage)
            self._end_stage(stage, bag.states[stage], reason)
        elif decision is Decision.SKIP:
            skipped = next(number for number in graph.dependencies[stage] if bag.states[number] == SKIPPED)
            self._end_stage(stage, SKIPPED, f"dependency {graph.names[skipped]!r} was skipped")
        elif (when := graph.specs[stage].when) is None:
            return True
        else:
            return self._ask(stage, when)
        return False

    def _ask(self, stage: int, when: Condition) -> bool:
        """Return whether a stage's condition chooses it; where it does not, end the stage."""
        # A predicate is user code: it may stop the run, and that must not decide this stage meanwhile.
        self._bag.states[stage] = TOLD
        inputs = self._make_inputs(stage)
        try:
            # The context of whichever stage happened to finish last is none of the predicate's business.
            chosen = ask(self._context.copy(), when, inputs)
        except BaseException as error:
            self._fail(stage, error)
            return False
        finally:
            inputs._close()  # noqa: SLF001 (closed where it was made)
        if self._end is not None:
            self._end_stage(stage, CANCELLED, "the run ended before it began")
        elif not chosen:
            self._end_stage(stage, SKIPPED, f"not chosen by {name_condition(when)}")
        else:
            return True
        return False

    def _make_inputs(self, stage: int) -> StageInputs:
        spec = self._graph.specs[stage]
        names = spec.local_names or spec.dependencies
        return StageInputs(self._bag, spec.name, names, self._graph.dependencies[stage])

    def _pump_in_context(self) -> None:
        if self._ready:
            self._context.run(self._pump)

    def _pump(self) -> None:
        """Spawn the tasks of ready stages, no more than a chunk ahead of those that have begun."""
        assert self._nursery is not None
        ready = self._ready
        names = self._graph.names
        spawn = self._nursery.start_soon
        run_stage = self._run_stage
        room = max(0, min(_CHUNK - self._unbegun, len(ready)))
        for _ in range(room):
            stage = ready.popleft()
            spawn(run_stage, stage, name=names[stage])
        self._unbegun += room

    # One stage

    @enable_ki_protection
    async def _run_stage(self, stage: int) -> None:  # noqa: C901, PLR0912 (every stage would pay for more calls)
        self._unbegun -= 1
        if not self._unbegun and self._ready:
            self._pump_in_context()
        if self._end is not None:
            self._cancelled += 1
            self._end_stage(stage, CANCELLED, "the run ended before it began")
            self._gates.free(stage)
            return
        graph = self._graph
        bag = self._bag
        spec = graph.specs[stage]
        target = graph.targets[stage]
        direct = graph.direct[stage]
        if direct or not graph.forms[stage].is_threaded:  # a plain function starts when it has its thread
            bag.states[stage] = RUNNING
            bag.started[stage] = self._now()
            if self._gates.has_rates or self._announcer.listeners:
                self._tell_start(stage)
        inputs = StageInputs(bag, spec.name, spec.local_names or spec.dependencies, graph.dependencies[stage])
        attempt = bag.count_attempts(stage) if bag.attempts else 1
        ctx = StageContext(spec.name, self._snapshot, inputs, spec.config, attempt, self._announcer.stage_emitted)
        error: BaseException | None = None
        try:
            if direct == DIRECT_FUNCTION:
                returned = await call_function(target, ctx)
            elif direct == DIRECT_CLASS:
                returned = await call_class(target, ctx)
            else:
                form, host = graph.forms[stage], self._make_host(stage)
                returned = await run_special(form, self._find_target(stage), ctx, spec.timeout, host)
            cls = returned.__class__
            output = returned if cls is StageOutput else make_ok(returned) if cls is dict else to_output(returned)
        except BaseException as raised:
            error = raised
        task = current_task()
        if task.child_nurseries:
            left_open = await close_nurseries(task)
            left_open.__context__ = error
            error = left_open
        ctx._emit = inputs._bag = None  # noqa: SLF001 (closed where they were made)
        bag.ended[stage] = self._now()
        if self._passes:
            self._gates.free(stage)  # before its dependents ask for a slot
        if error is None:
            delay = self._complete(stage, output)
        else:
            delay = self._crash(stage, error)
            del error
        if delay is not None:
            await self._back_off(stage, delay)

    def _note_thread(self, stage: int) -> None:
        self._bag.states[stage] = RUNNING
        self._bag.started[stage] = self._now()
        self._tell_start(stage)

    def _tell_start(self, stage: int) -> None:
        """Tell of an attempt that begins: its limiters, whose rate it uses, and those who listen."""
        self._gates.start(stage)
        if self._announcer.listeners:
            self._announcer.stage_started(self._graph.names[stage], self._bag.count_attempts(stage))

    def _make_host(self, stage: int) -> Host:
        note_start, keep = partial(self._note_thread, stage), partial(self._gates.keep, stage)
        placement = None if self._graph.forms[stage].is_container else self._graph.specs[stage].placement
        return Host(self._threads, self._shutdown, note_start, keep, self._sites.reach, placement)

    def _find_target(self, stage: int) -> Callable[..., Any]:
        """Return what a stage calls: its runner or, where that runs actors of its own, what lends it the means."""
        spec = self._graph.specs[stage]
        runner = spec.runner
        if not isinstance(runner, FanOutLimiterStage):
            return self._graph.targets[stage]
        loan = Loan(
            context=self._context,
            announcer=self._announcer,
            healing=self._healing,
            threads=self._threads,
            shutdown=self._shutdown,
            reach=self._sites.reach,
            placement=spec.placement,
            pipeline=self._graph.pipeline,
            stage=spec.name,
            limiters=self._gates.list_limiters(runner.limiter),
            priority=spec.priority,
            counted=spec.intensity,
            began=self._bag.began,
            now=self._now,
            is_stopping=self._is_stopping,
            account=self._account,
        )
        return partial(run_items, runner, loan)

    def _is_stopping(self) -> bool:
        return self._end is not None

    def _account(self, accepted: int, replied: int, failed: int, cancelled: int) -> None:
        """Enter what became of the messages to a fan-out's items."""
        self._accepted += accepted
        self._replied += replied
        self._failed += failed
        self._cancelled += cancelled

    def _notice_overrun(self, stage: int) -> None:
        timeout = self._graph.specs[stage].timeout
        took = self._bag.ended[stage] - self._bag.started[stage]
        if self._end is not None or (timeout is not None and took > timeout):
            self._announcer.stage_overran(self._graph.names[stage], self._bag.count_attempts(stage))

    def _complete(self, stage: int, output: StageOutput) -> float | None:
        """Take a stage's reply; return the seconds after which it is run again, where it is."""
        status = output.status
        if status is _STATUS_OK:
            self._replied += 1
            bag = self._bag
            bag.outputs[stage] = output
            bag.states[stage] = OK
            if self._announcer.listeners:
                self._notice_overrun(stage)
                self._announcer.stage_ended(self._graph.names[stage], OK, "")
            self._remaining -= 1
            if not self._remaining:
                self._wake()
        elif status is StageStatus.SKIP:
            self._replied += 1
            self._bag.outputs[stage] = output
            self._end_stage(stage, SKIPPED, output.reason)
        elif status is StageStatus.CANCEL:
            self._replied += 1
            self._end_stage(stage, CANCELLED, output.reason)
            if self._end is None:
                self._stopped_by_stage = True
                said = f": {output.reason}" if output.reason else ""
                self.stop(RunEnding.CANCELLED, f"stage {self._graph.names[stage]!r}{said}")
        else:
            failed = make_failed(output, may_restart=self._graph.specs[stage].restart is not None)
            return self._judge(stage, failed, asked=output)
        if self._end is None:
            self._release(stage)
        return None

    def _crash(self, stage: int, error: BaseException) -> float | None:
        """Take what a stage raised; return the seconds after which it is run again, where it is."""
        assert self._nursery is not None
        remains = split_cancelled(error)
        if remains is None:
            if self._nursery.cancel_scope.cancel_called:
                self.stop(RunEnding.CANCELLED, "it was cancelled from outside")
            if self._end is not None:
                self._cancelled += 1
                self._end_stage(stage, CANCELLED, "the run ended while it ran")
                return None
            remains = make_stray(error)
        return self._judge(stage, remains)

    # Restarts

    def _judge(self, stage: int, error: BaseException, asked: StageOutput | None = None) -> float | None:
        """Decide what becomes of a stage that failed; return the seconds after which it is run again, where it is.

        Args:
            stage: The stage.
            error: What it raised, or what stands for its reply.
            asked: Its reply, where it did not raise.
        """
        graph = self._graph
        bag = self._bag
        name = graph.names[stage]
        self._locate(stage, error)
        if self._announcer.listeners:
            self._announcer.stage_crashed(name, bag.count_attempts(stage), error)
        restart = graph.specs[stage].restart
        escalates = isinstance(error, ItemFailedError) and error.escalates
        attempt = self._make_attempt(stage, error)
        attempts = (*bag.attempts.get(stage, ()), attempt)
        if restart is not None and self._end is None and not escalates:
            window = self._windows.get(stage, NO_FAILURES)
            # Its functions are user code, which may stop the run.
            verdict, window = self._healing.judge(
                restart, window, error, asked, attempts, bag.ended[stage], graph.specs[stage].intensity
            )
            if verdict.directive is Directive.RESTART and self._end is None:
                self._windows[stage] = window
                bag.close_attempt(stage, attempt)
                bag.states[stage] = RESTARTING
                reason, number = describe_error(error), attempt.number
                told = "pipeline %r, stage %r: attempt %d failed, the next is in %.3g s: %s"
                _logger.warning(told, graph.pipeline, name, number, verdict.delay, reason)
                if self._announcer.listeners:
                    self._announcer.stage_restarting(name, number + 1, verdict.delay)
                return verdict.delay
            error = verdict.error
            escalates = verdict.directive is Directive.ESCALATE
        self._failed += 1
        self._fail(stage, error, attempts, escalates=escalates)
        if self._end is None:
            self._release(stage)
        return None

    async def _back_off(self, stage: int, delay: float) -> None:
        """Wait until a stage is to be run again, and send it off: to a new task, through its limiters."""
        with contextlib.suppress(trio.Cancelled):
            await trio.sleep(delay)
        assert self._nursery is not None
        if self._nursery.cancel_scope.cancel_called:
            self.stop(RunEnding.CANCELLED, "it was cancelled from outside")
        if self._end is not None:
            self._cancelled += 1
            self._end_stage(stage, CANCELLED, "the run ended before it was restarted")
        else:
            self._gates.told.append(stage)
            self._gates.enter(self, self._ready)
        if self._ready and not self._unbegun:
            self._pump_in_context()

    def _locate(self, stage: int, error: BaseException) -> None:
        drop_own_frames(error)
        advise(error)
        if isinstance(error, StageflowError):
            number = self._bag.count_attempts(stage)
            error.locate(pipeline=self._graph.pipeline, stage=self._graph.names[stage], attempt=number)

    def _make_attempt(self, stage: int, error: BaseException) -> Attempt:
        bag = self._bag
        if isnan(bag.started[stage]):  # it failed before its function had a thread
            bag.started[stage] = bag.ended[stage]
        return bag.make_attempt(stage, error)

    def _fail(
        self,
        stage: int,
        error: BaseException,
        attempts: tuple[Attempt, ...] | None = None,
        *,
        escalates: bool = False,
    ) -> None:
        """Give a stage its final failure, and stop the run where that is what it does about one.

        Args:
            stage: The stage.
            error: Why it failed.
            attempts: All of them; the earlier ones where it failed outside of one.
            escalates: Whether the run ends in any case.
        """
        graph = self._graph
        bag = self._bag
        name = graph.names[stage]
        self._locate(stage, error)
        bag.failures[stage] = StageFailure(name, error, bag.attempts.get(stage, ()) if attempts is None else attempts)
        reason = describe_error(error)
        _logger.error("pipeline %r, stage %r failed: %s", graph.pipeline, name, reason, exc_info=error)
        self._end_stage(stage, ABANDONED if isinstance(error, ThreadAbandonedError) else FAILED, reason)
        if not isinstance(error, Exception):
            self._fatal.append(error)
        if self._end is None:
            if self._fail_fast or self._fatal or escalates:
                self._tracker.count_down(stage)
                self.stop(RunEnding.FAILED, f"stage {name!r}: {reason}")
        elif self._fail_fast and self._stopped_by_stage:
            # A stage's `cancel` and another's failure at the same moment: the failure wins.
            self._end = RunEnd(RunEnding.FAILED, f"stage {name!r}: {reason}")

    def _end_stage(self, stage: int, state: int, reason: str) -> None:
        """Give a stage its final state."""
        bag = self._bag
        bag.states[stage] = state
        if reason and stage not in bag.failures and stage not in bag.parents:
            bag.reasons[stage] = reason
        if self._announcer.listeners:
            self._announcer.stage_ended(self._graph.names[stage], state, reason)
        self._remaining -= 1
        if not self._remaining:
            self._wake()

    def _wake(self) -> None:
        """Wake the run's own task, where it waits, after the last stage."""
        if self._parked:
            assert self._task is not None
            self._parked = False
            trio.lowlevel.reschedule(self._task)

    def _release(self, stage: int) -> None:
        """Start, or decide, the stages that waited for nothing but this one."""
        for dependent in self._tracker.count_down(stage):
            self._consider(dependent)
        if self._gates.told:
            self._gates.enter(self, self._ready)
        if self._ready and not self._unbegun:  # else the last of those to begin pumps
            self._pump_in_context()
