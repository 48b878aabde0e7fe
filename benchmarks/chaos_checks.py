"""What must hold of a chaos run, whatever happened in it; and that the reference model agrees with every state."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

from chaos_items import check_items
from chaos_plans import Leave
from chaos_play import LeftError

from property_tests.attempt_model import CANCELLED, FAILED, OK, SKIPPED
from property_tests.comparing import describe, flatten, list_problems
from property_tests.model import predict
from property_tests.plans import Act, Way
from property_tests.problems import Abort, leaves, name_problem
from property_tests.restart_model import NEAR, Failures, asks_for, find_delays
from property_tests.stop_model import Moment, find_facts, find_moment, foresee, may_fail_fast, name_actor
from stageflow_actors import OverloadedError, PipelineFailedError, RunEnding, RunResult, StageState
from stageflow_actors.events import (
    LedgerUnbalanced,
    RunEnded,
    StageCrashed,
    StageEnded,
    StageRejected,
    StageRestarting,
    StageStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos_play import Call, Log

    from property_tests.model import Seen

FINAL = frozenset(StageState) - {StageState.PENDING, StageState.RUNNING, StageState.RESTARTING}


def check(log: Log) -> list[str]:
    """Return what is wrong with a chaos run, in words."""
    found = list(log.problems)
    for name, meter in log.meters.items():
        found += [f"limit {name or 'max_running_stages'}: {problem}" for problem in meter.problems]
    found += _check_ends(log)
    found += _check_rejections(log)
    for number, call in enumerate(log.calls):
        found += [f"run {number}: {problem}" for problem in _check_call(log, call)]
    return found


def _check_ends(log: Log) -> Iterator[str]:
    """What is left, and what came out of the supervisor."""
    if log.tasks_left:
        yield f"{log.tasks_left} tasks are left"
    if log.runs_left:
        yield f"{log.runs_left} runs are left in the supervisor"
    for name, left in log.slots_left.items():
        if left != (0, 0):
            yield f"limiter {name}: {left[0]} slots are left, {left[1]} still wait"
    yield from _check_left(log)


def _check_left(log: Log) -> Iterator[str]:
    """What came out of the supervisor."""
    raised = [] if log.left is None else leaves(log.left)
    aborted = [call for call in log.calls if call.plan.run.started and _aborts(call)]
    if any(isinstance(error, Abort) for error in raised) != bool(aborted):
        yield f"{log.left!r} came out of the supervisor; what is no Exception was raised by {len(aborted)} runs"
    if any(isinstance(error, LeftError) for error in raised) > (log.left_at is not None):
        yield f"{log.left!r} came out of the supervisor, which was not left"
    lost = {id(error.result) for error in raised if isinstance(error, PipelineFailedError)}
    unheard = {id(call.result) for call in log.calls if call.cancelled and call.engine and _is_failed(call)}
    if lost != (set() if list_stops(log) else unheard):
        yield f"{log.left!r} came out of the supervisor; {len(unheard)} failed unheard"


def _is_failed(call: Call) -> bool:
    """Return whether a run that was started has something to raise."""
    plan, result = call.plan.run, call.result
    failed = result is not None and result.ended.ending is RunEnding.FAILED and not plan.continue_on_failure
    return plan.started and failed


def _aborts(call: Call) -> bool:
    result = call.result
    if result is None:
        return False
    return any(isinstance(leaf, Abort) for failure in result.failures.values() for leaf in leaves(failure.error))


def _check_rejections(log: Log) -> Iterator[str]:
    told = dict.fromkeys(log.limiters, 0)
    for call in log.calls:
        for event in call.events:
            if isinstance(event, StageRejected):
                name = call.plan.run.find(name_actor(event)).limiter
                if name is None:
                    yield f"stage {name_actor(event)!r} has no limiter and was turned away: {event.reason}"
                else:
                    told[name] += 1
    fans = {stage.fan.limiter for call in log.calls for stage in call.plan.run.stages if stage.fan is not None}
    stopped = any(find_moment(call.events) is not None for call in log.calls)
    for name, limiter in log.limiters.items():
        statistics, plan = limiter.statistics(), dict(log.plan.limiters)[name]
        refused = statistics.rejected + statistics.dropped
        if told[name] and plan.overflow == "wait":
            yield f"limiter {name} is to let everybody wait, and turned {told[name]} away"
        # One that is stopped before it is told of it is cancelled: by its run, or, an item, by its fan-out.
        if told[name] > refused or (told[name] < refused and not (stopped or name in fans)):
            yield f"limiter {name} turned {refused} away, and {told[name]} were told"


def _check_call(log: Log, call: Call) -> Iterator[str]:
    if call.at is None:
        if call.plan.at + NEAR < min(list_stops(log), default=inf):
            yield "it was never asked for"
        return
    if call.engine is None:
        yield from _check_refused(log, call)
        return
    result = call.result
    if result is None:
        yield "it has no result"
        return
    yield from _check_books(call, result)
    yield from _check_events(log, call, result)
    moment = find_moment(call.events)
    yield from _check_states(call, result, moment, timed=not log.plan.threads)
    yield from check_items(call, result, timed=not log.plan.threads)
    yield from _check_starts(log, call)
    yield from _check_delays(call)
    yield from _check_ending(log, call, result, moment)
    yield from _check_raised(log, call, result)


def _check_refused(log: Log, call: Call) -> Iterator[str]:
    """Without a place among the runs of the supervisor."""
    plan, runs = log.plan, call.runs
    if call.cancelled and call.runs is None:
        return  # the supervisor was cancelled before
    if not isinstance(call.error, OverloadedError) or runs is None:
        yield f"it was not admitted: {call.error!r}"
        return
    bound = plan.max_queued or 0
    if plan.overflow == "wait" or runs.running < runs.max_concurrency or runs.queued < bound:
        yield f"it was refused with {runs}"
    if plan.overflow == "drop_oldest" and bound:
        yield f"it was refused, and not the run that was queued for longest: {runs}"
    if call.recorder.entries:
        yield "it was refused, and stages ran"


def _check_books(call: Call, result: RunResult) -> Iterator[str]:
    """The ledger, and final states."""
    ledger, states = result.ledger, result.states
    if not ledger.balanced or any(isinstance(event, LedgerUnbalanced) for event in call.events):
        yield f"the ledger does not balance: {ledger}"
    for name, state in states.items():
        if state not in FINAL:
            yield f"stage {name!r} was left {state}"
    stages = [event for event in call.events if isinstance(event, StageEnded) and event.item is None]
    items = [event.state for event in call.events if isinstance(event, StageEnded) and event.item is not None]
    begun = {event.stage for event in call.events if isinstance(event, StageStarted) and event.item is None}
    told = begun | {event.stage for event in call.events if isinstance(event, StageRejected) and event.item is None}
    states = Counter([*items, *(event.state for event in stages if event.stage in told)])
    unbegun = sum(event.state is CANCELLED for event in stages if event.stage not in told)
    if ledger.failed != states[FAILED]:
        yield f"{states[FAILED]} that were told failed, and the ledger says {ledger}"
    # Who replied `cancel` is CANCELLED and has replied; who was told and had not begun is CANCELLED too.
    cancelling = ledger.replied - states[OK] - states[SKIPPED]
    rest = states[CANCELLED] - cancelling
    if not 0 <= cancelling <= states[CANCELLED] or not 0 <= ledger.cancelled - rest <= unbegun:
        yield f"those that were told ended as {dict(states)}, {unbegun} were perhaps told; the ledger says {ledger}"


def _check_events(log: Log, call: Call, result: RunResult) -> Iterator[str]:
    """What was told is what was seen inside of stages, and each stage ended once."""
    ends = [event for event in call.events if isinstance(event, StageEnded) and event.item is None]
    ended = Counter(event.stage for event in ends)
    if ended != Counter(list(result.states)):
        yield f"stages ended as often as {dict(ended)}"
    states = {event.stage: event.state for event in ends}
    if states != result.states:
        yield f"the events tell of other states: {states}, not {dict(result.states)}"
    if not isinstance(call.events[-1], RunEnded) or sum(isinstance(event, RunEnded) for event in call.events) != 1:
        yield "its last event is not its end"
    started = Counter(name_actor(event) for event in call.events if isinstance(event, StageStarted))
    seen = Counter({name: number for name, number in started.items() if call.plan.run.find(name).fan is None})
    begun = Counter(call.recorder.count("begin"))
    # In a thread it has begun when its instance is entered, and may be stopped before it has the thread.
    if seen != begun and not (log.plan.threads and begun <= seen):
        yield f"attempts began {dict(begun)}, and {dict(seen)} were told of"
    for name, attempts in result.attempts.items():
        restart = call.plan.run.find(name).restart
        most = 1 if restart is None else inf if restart.within is not None else 1 + restart.max_restarts
        if len(attempts) > most or len(attempts) != started[name]:
            yield f"stage {name!r} has {len(attempts)} attempts, of at most {most}; {started[name]} were told of"


def _check_states(call: Call, result: RunResult, moment: Moment | None, *, timed: bool) -> Iterator[str]:
    plan = call.plan.run
    if moment is None:
        yield from _check_completed(call, result, predict(plan, find_facts(call.events)), timed=timed)
        return
    allowed = foresee(plan, moment, timed=timed)
    if list(allowed) != list(result.states):
        yield f"it has the stages {list(result.states)}, not {list(allowed)}"
        return
    for name, endings in allowed.items():
        found = describe(result, name)
        if found not in [flatten(ending) for ending in endings]:
            yield f"stage {name!r} ended as {found}; the stop at {moment.time:g} allows {endings}"
    if moment.late:
        yield f"attempts at {moment.late} began after the stop at {moment.time:g}"
    seen = predict(plan, moment.facts)
    yield from _check_attempts(result, {name: seen[name] for name in moment.ended}, timed=timed)


def _check_completed(call: Call, result: RunResult, expected: Seen, *, timed: bool) -> Iterator[str]:
    """Nothing stopped it: nothing in it may have wanted to."""
    if list(result.states) != list(expected):
        yield f"it has the stages {list(result.states)}, not {list(expected)}"
        return
    for name, stage in expected.items():
        found, wanted = describe(result, name), flatten(stage)  # type: ignore[arg-type]
        if (found.state, found.output, found.problem) != (wanted.state, wanted.output, wanted.problem):
            yield f"stage {name!r} ended as {found}, not {stage}"
        if result.cause_chain(name) != stage.chain:
            yield f"the causes of stage {name!r} are {result.cause_chain(name)}, not {stage.chain}"
        if stage.state is CANCELLED or "Abort" in (stage.problem or ()) or stage.escalates:
            yield f"stage {name!r} did not end the run"
        if stage.state is FAILED and not call.plan.run.continue_on_failure:
            yield f"stage {name!r} failed, and the run went on"
    yield from _check_attempts(result, expected, timed=timed)


def _check_attempts(result: RunResult, expected: Seen, *, timed: bool) -> Iterator[str]:
    for name, stage in expected.items():
        found, wanted = list_problems(result, name), [span.problem for span in stage.attempts]
        if found != wanted:
            yield f"the attempts at stage {name!r} came to {found}, not {wanted}"
            continue
        if not timed:
            continue
        for attempt, span in zip(result.attempts.get(name, ()), stage.attempts, strict=True):
            if abs(attempt.started - span.started) + abs(attempt.ended - span.ended) > NEAR:
                yield f"stage {name!r}: {attempt} was to take from {span.started:g} to {span.ended:g}"


def _check_starts(log: Log, call: Call) -> Iterator[str]:
    """No attempt begins before it may, nor, where nothing limits it, after."""
    plan = call.plan.run
    due: dict[str, float] = {}
    ended: dict[str, float] = {}
    for event in call.events:
        if isinstance(event, StageEnded):
            ended[name_actor(event)] = event.at
        elif isinstance(event, StageRestarting):
            due[name_actor(event)] = event.at + event.delay
        elif isinstance(event, StageStarted):
            name = name_actor(event)
            stage = plan.find(name)
            if event.attempt == 1:
                if missing := [one for one in stage.dependencies if one not in ended]:
                    yield f"stage {name!r} began before {missing} had ended"
                    continue
                due[name] = max((ended[one] for one in stage.dependencies), default=0.0)
            late = event.at - due[name]
            free = stage.fan is not None or (stage.limiter is None and log.plan.max_running is None)
            if late < -NEAR or (late > NEAR and free and not log.plan.threads):
                yield f"attempt {event.attempt} at stage {name!r} began {late:g} s late"


def _check_delays(call: Call) -> Iterator[str]:
    """Each delay is one that the backoff can give."""
    failures: dict[str, Failures] = {}
    for crash, event in pairwise(call.events):
        if not isinstance(crash, StageCrashed):
            continue
        name, problem = name_actor(crash), name_problem(crash.error)
        stage = call.plan.run.find(name)
        mine = failures.setdefault(name, Failures())
        mine.judge(stage.restart, stage.at(crash.attempt).act, problem, crash.at)
        if isinstance(event, StageRestarting):
            if stage.restart is None or (name_actor(event), event.attempt) != (name, crash.attempt + 1):
                yield f"{event} follows {crash}"
                continue
            after = asks_for(stage, crash.attempt, problem)
            low, high = find_delays(stage.restart, mine.count(stage.restart, crash.at), after)
            if not low - NEAR <= event.delay <= high + NEAR:
                yield f"stage {name!r} backs off for {event.delay:g} s, not {low:g} to {high:g} s"


def list_stops(log: Log) -> list[float]:
    """Return when all runs were stopped from outside, at the earliest: the supervisor was left, or a stage ended it."""
    stops = [call.began + call.events[-1].at for call in log.calls if call.plan.run.started and _aborts(call)]
    return stops if log.left_at is None else [*stops, log.left_at]


def _list_own_stops(call: Call) -> list[tuple[float, RunEnding]]:
    """Return when a run was to be stopped from outside, and how it ends then."""
    stop = call.plan.run.stop
    assert call.at is not None
    if stop is None or stop.at is None or (stop.way is Way.SCOPE and call.plan.run.started):
        return []  # cancelling a waiter does not cancel the run
    ending = RunEnding.TIMED_OUT if stop.way is Way.TIMEOUT else RunEnding.CANCELLED
    return [(call.at + stop.at, ending)]


def _check_ending(log: Log, call: Call, result: RunResult, moment: Moment | None) -> Iterator[str]:
    """Who or what ended a run, and that nothing did that it did not notice."""
    ended = result.ended
    assert call.engine is not None
    over = call.began + (call.events[-1].at if moment is None else moment.time)
    stops = _list_own_stops(call) + [(at, RunEnding.CANCELLED) for at in list_stops(log)]
    late = log.plan.leave is Leave.RAISING and log.left_at is not None  # it waits for its callers first
    near = 1.0 if log.plan.threads else NEAR
    if missed := [at for at, _ in stops if at < over - near and not (late and at == log.left_at)]:
        yield f"it went on until {over:g}, and was stopped at {missed}"
    if moment is None:
        if ended.ending is not RunEnding.COMPLETED:
            yield f"it ended as {ended}, and was not stopped"
        return
    if call.engine.turned_away is not None:
        if log.plan.overflow != "drop_oldest" or call.recorder.entries or ended.ending is not RunEnding.CANCELLED:
            yield f"it was dropped from the queue, and ended as {ended}"
        return
    plan = call.plan.run
    culprit = may_fail_fast(plan, moment)
    replier = next((name for name, state in moment.ended.items() if state is CANCELLED), None)
    if culprit is not None:
        if ended.ending is not RunEnding.FAILED or repr(culprit) not in ended.reason:
            yield f"stage {culprit!r} ended it, and it ended as {ended}"
    elif replier is not None:
        failed = not plan.continue_on_failure and result.failures
        if ended.ending is not (RunEnding.FAILED if failed else RunEnding.CANCELLED):
            yield f"stage {replier!r} cancelled it, and it ended as {ended}"
        if plan.find(replier).fan is None and plan.find(replier).act is not Act.CANCEL:
            yield f"stage {replier!r} was the first to be cancelled"
    elif not _may_stop(log, call, over, ended.ending, stops):
        yield f"nothing stopped it at {over:g}, and it ended as {ended}"


def _may_stop(log: Log, call: Call, at: float, ending: RunEnding, stops: list[tuple[float, RunEnding]]) -> bool:
    """Return whether a run may have been stopped from outside at a moment."""
    if any(abs(time - at) <= (1.0 if log.plan.threads else NEAR) and ending is wanted for time, wanted in stops):
        return True
    if ending is not RunEnding.CANCELLED:
        return False
    if log.plan.leave is Leave.RAISING and log.left_at is not None and at >= log.left_at - NEAR:
        return True
    stop = call.plan.run.stop
    by_entry = stop is not None and stop.entry is not None and call.recorder.stopped_after is not None
    return by_entry and not (stop is not None and stop.way is Way.SCOPE and call.plan.run.started)


def _check_raised(log: Log, call: Call, result: RunResult) -> Iterator[str]:
    """What came out of the call."""
    error, plan, ending = call.error, call.plan.run, result.ended.ending
    assert call.engine is not None
    if (call.returned is not None, error is not None, call.cancelled).count(True) != 1:
        yield f"it returned {call.returned!r}, raised {error!r}, was cancelled: {call.cancelled}"
    if isinstance(error, PipelineFailedError):
        group = error.__cause__
        errors = [failure.error for failure in result.failures.values()]
        whole = isinstance(group, ExceptionGroup) and list(group.exceptions) == errors
        if error.result is not result or ending is not RunEnding.FAILED or plan.continue_on_failure or not whole:
            yield f"it raised {error!r} because of {group!r}, and ended as {result.ended}"
    elif isinstance(error, OverloadedError):
        if call.engine.turned_away is None:
            yield f"it raised {error!r}, and was not turned away"
    elif error is not None:
        if not _aborts(call) or not all(isinstance(leaf, Abort) for leaf in leaves(error)):
            yield f"it raised {error!r}"
    elif call.returned is not None:
        if call.returned is not result:
            yield "it returned another result"
        if ending is RunEnding.FAILED and not plan.continue_on_failure:
            yield f"it returned, and ended as {result.ended}"
    elif not list_stops(log) and not (plan.stop is not None and plan.stop.way is Way.SCOPE):
        yield "its caller was cancelled"
