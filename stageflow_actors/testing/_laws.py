"""The laws that every run keeps, as a stranger checks them: from what its stages' runners did, its events, its result.

Nothing here calls what it checks: what becomes of a stage is decided anew, from the table of triggers in the
documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import attrs

from stageflow_actors import FanOutLimiterStage, RunEnding, StageState, Trigger
from stageflow_actors._spec import Route
from stageflow_actors.errors import ContractError
from stageflow_actors.events import LedgerUnbalanced, RunEnded, RunStopping, StageEnded, StageStarted

from ._imprint import find_change
from ._witness import RAISED, WAS_CANCELLED, Problem, map_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stageflow_actors import RunResult, StageSpec
    from stageflow_actors.events import Event

    from ._witness import Call, Witness

OK, SKIPPED, FAILED = StageState.OK, StageState.SKIPPED, StageState.FAILED
ISOLATED, CANCELLED, ABANDONED = StageState.ISOLATED, StageState.CANCELLED, StageState.ABANDONED
BAD: Final = frozenset({FAILED, ISOLATED, CANCELLED, ABANDONED})
_FINAL: Final = BAD | {OK, SKIPPED}
_ENDS: Final = {"ok": OK, "skip": SKIPPED, "cancel": CANCELLED, "fail": FAILED}
"""The state of a stage by the status that it returned at last; `retry` may have been followed by a stop."""


class BrokenLawError(AssertionError):
    """A run of a pipeline broke a law."""


@final
class Evidence:
    """What is known of one run that is over.

    Args:
        witness: Who heard the runners.
        given: The stages whose outputs were given instead of run.
        result: What came of it.
        events: All of them, in order.
    """

    def __init__(
        self,
        witness: Witness,
        given: frozenset[str],
        result: RunResult,
        events: Sequence[Event],
    ) -> None:
        self.witness = witness
        self.result = result
        self.states = result.states
        self.given = given
        self.specs = {
            spec.name: attrs.evolve(spec, dependencies=(), local_names=None, when=None) if spec.name in given else spec
            for spec in witness.stages
            if spec.name in self.states
        }
        self.events = events
        self.ended: dict[str, list[int]] = {}
        """Where, among the events, each stage ended."""
        self.started: dict[str, list[int]] = {}
        """Where each attempt at each stage began."""
        self.stop: int | None = None
        """Where the run ended before its time."""
        self.abandoned: set[str] = set()
        """The stages, and items, whose threads were given up."""
        for at, event in enumerate(events):
            if isinstance(event, StageEnded) and event.state is ABANDONED:
                self.abandoned.add(_name_actor(event))
            if isinstance(event, (StageEnded, StageStarted)) and event.item is None:
                places = self.ended if isinstance(event, StageEnded) else self.started
                places.setdefault(event.stage, []).append(at)
            elif isinstance(event, RunStopping) and self.stop is None:
                self.stop = at
        self.calls: dict[str, list[Call]] = {}
        """Of each stage, without a fan-out's items."""
        for call in witness.notes.calls:
            if not call.is_item:
                self.calls.setdefault(call.stage, []).append(call)

    def state_of(self, at: int) -> StageState:
        """Return the state that an event says a stage has ended in."""
        event = self.events[at]
        assert isinstance(event, StageEnded)
        return event.state


def _name_actor(event: StageStarted | StageEnded) -> str:
    """Return the name of the stage or item that an event is about."""
    return event.stage if event.item is None else f"{event.stage}[{event.item}]"


# Order


def check_order(seen: Evidence) -> Iterator[Problem]:
    """A stage starts after all its dependencies have ended, once an attempt, and not once the run stops."""
    for name, places in seen.started.items():
        for dependency in seen.specs[name].dependencies:
            if seen.ended.get(dependency, [len(seen.events)])[0] > places[0]:
                yield Problem("order", name, f"began before its dependency {dependency!r} had ended")
        if seen.ended.get(name, [len(seen.events)])[0] < places[-1]:
            yield Problem("order", name, "began after it had ended")
        yield from _check_attempts(seen, name, places)
    if seen.stop is not None:
        for event in seen.events[seen.stop :]:
            if isinstance(event, StageStarted):
                yield Problem("order", _name_actor(event), "began although the run was stopping")


def _check_attempts(seen: Evidence, name: str, places: Sequence[int]) -> Iterator[Problem]:
    numbers = [event.attempt for at in places if isinstance(event := seen.events[at], StageStarted)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield Problem("order", name, f"began its attempts in the order {numbers}")
    restart = seen.specs[name].restart
    if restart is None or restart.within is None:
        most = 1 if restart is None else 1 + restart.max_restarts
        if len(numbers) > most:
            yield Problem("order", name, f"was run {len(numbers)} times, and {most} are allowed")


def check_sight(seen: Evidence) -> Iterator[Problem]:
    """What runs was started, and saw how its dependencies had ended."""
    for call in seen.witness.notes.calls:
        if call.stage not in seen.started:
            yield Problem("order", call.actor, "was run without being started")
        for dependency, state in call.states.items():
            if state not in _FINAL:
                yield Problem("order", call.actor, f"began when its dependency {dependency!r} was {state.value}")
            elif state is not seen.states[dependency]:
                told = f"as {state.value}, and in the end that is {seen.states[dependency].value}"
                yield Problem("order", call.actor, f"saw its dependency {dependency!r} {told}")


# Conservation


def check_conservation(seen: Evidence) -> Iterator[Problem]:
    """The ledger balances; every stage has exactly one final state, and what it returned is what came of it."""
    result = seen.result
    if not result.ledger.balanced or any(isinstance(event, LedgerUnbalanced) for event in seen.events):
        yield Problem("conservation", "", f"the ledger does not balance: {result.ledger}")
    for name, state in seen.states.items():
        yield from _check_state(seen, name, state)
    for name, calls in seen.calls.items():
        yield from _check_outcome(seen, name, calls[-1])
    ends = [event.end for event in seen.events if isinstance(event, RunEnded)]
    if ends != [result.ended] or (result.ended.ending is RunEnding.COMPLETED) is not (seen.stop is None):
        yield Problem("conservation", "", f"the run ended {result.ended}, and told of {list(map(str, ends))}")
    if seen.stop is None and not any(isinstance(spec.runner, FanOutLimiterStage) for spec in seen.specs.values()):
        yield from _check_messages(seen)


def _check_state(seen: Evidence, name: str, state: StageState) -> Iterator[Problem]:
    """A stage ended once, in the state that it has, with the output or failure that belongs to it."""
    result = seen.result
    places = seen.ended.get(name, [])
    if state not in _FINAL:
        yield Problem("conservation", name, f"is {state.value}, and the run is over")
    elif len(places) != 1:
        yield Problem("conservation", name, f"ended {len(places)} times")
    elif seen.state_of(places[0]) is not state:
        yield Problem("conservation", name, f"ended {seen.state_of(places[0]).value} and is {state.value}")
    if (name in result.failures) is not (state in {FAILED, ABANDONED}):
        yield Problem("conservation", name, f"is {state.value}, and its failure is {result.failures.get(name)}")
    if (state is OK and name not in result) or (name in result and state not in {OK, SKIPPED}):
        yield Problem("conservation", name, f"is {state.value}, and its output is {result.get(name)}")


def _check_outcome(seen: Evidence, name: str, call: Call) -> Iterator[Problem]:
    """Compare what the last attempt at a stage did with what was made of it."""
    state = seen.states[name]
    outcome = call.outcome
    told = f"is {state.value}, and its attempt {call.attempt}"
    if state is ABANDONED or name in seen.witness.managed:
        return  # its thread may have ended since; or a context manager has its say too
    if outcome in {RAISED, WAS_CANCELLED}:
        if state in {OK, SKIPPED}:
            yield Problem("conservation", name, f"{told} {outcome}")
    elif outcome in _ENDS and state is not _ENDS[outcome]:
        failure = seen.result.failures.get(name)
        if failure is None or not isinstance(failure.error, ContractError):
            yield Problem("conservation", name, f"{told} returned {outcome}")


def _check_messages(seen: Evidence) -> Iterator[Problem]:
    """A stage that ran had one message; one that did not can have had one only if it failed before its runner began."""
    least = len(seen.calls)
    most = len({*seen.calls, *seen.result.failures})
    if not least <= seen.result.ledger.accepted <= most:
        told = f"{least} stages ran, and the ledger has {seen.result.ledger.accepted} messages"
        yield Problem("conservation", "", told)


# Isolation


def check_isolation(seen: Evidence) -> Iterator[Problem]:
    """What became of a stage follows from its trigger and the states of its dependencies."""
    known = {} if seen.stop is None else _settle(seen)
    for name, spec in seen.specs.items():
        state = seen.states[name]
        ran = name in seen.started
        if seen.stop is not None and seen.ended.get(name, [seen.stop])[0] >= seen.stop:
            yield from _check_stopped(name, state, isolated=known.get(name) is ISOLATED, ran=ran)
            continue
        verdict = judge(spec.trigger, [seen.states[dependency] for dependency in spec.dependencies])
        if name in seen.given:
            verdict = "is given"
        if not _fits(verdict, state, spec, seen, ran=ran):
            dependencies = ", ".join(
                f"{dependency} {seen.states[dependency].value}" for dependency in spec.dependencies
            )
            told = f"({dependencies or 'no dependencies'}; {spec.trigger.value})"
            yield Problem(
                "isolation", name, f"{verdict} {told}, and it {'ran' if ran else 'did not run'}: {state.value}"
            )
        chain = seen.result.cause_chain(name)
        parent = next((dependency for dependency in spec.dependencies if seen.states[dependency] in BAD), None)
        if (state is ISOLATED) is not (len(chain) > 1) or (state is ISOLATED and chain[1] != parent):
            yield Problem("isolation", name, f"is {state.value}, because of {parent!r}, and its cause chain is {chain}")


def judge(trigger: Trigger, states: Sequence[StageState]) -> str:
    """Return what the table of triggers says of a stage whose dependencies have all ended."""
    bad = any(state in BAD for state in states)
    if trigger is Trigger.ALL_DONE or all(state is OK for state in states):
        return "is to run"
    if trigger is Trigger.ONE_SUCCESS and OK in states:
        return "is to run"
    if bad:
        return "is to be isolated"
    return "is to run" if trigger is Trigger.NONE_FAILED else "is to be skipped"


def _fits(verdict: str, state: StageState, spec: StageSpec, seen: Evidence, *, ran: bool) -> bool:
    if verdict == "is given":
        return not ran and state in {OK, SKIPPED}
    if verdict == "is to be isolated":
        return not ran and state is ISOLATED
    if verdict == "is to be skipped":
        return not ran and state is SKIPPED
    if isinstance(spec.when, Route):
        router = seen.result.get(map_names(spec)[spec.when.router])
        if router is None or router.label not in spec.when.labels:
            return not ran and state is SKIPPED
    if ran:
        return state is not ISOLATED
    # Its predicate did not choose it, or raised; a limiter refused it, or its instance could not be made.
    return state is FAILED or (state is SKIPPED and spec.when is not None and not isinstance(spec.when, Route))


def _settle(seen: Evidence) -> Mapping[str, StageState]:
    """Return the states at the moment at which the run stopped, and of those that these isolate."""
    assert seen.stop is not None
    states = {
        name: seen.state_of(places[0])
        for name, places in seen.ended.items()
        if places[0] < seen.stop and seen.state_of(places[0]) is not CANCELLED
    }
    ended = set(seen.ended) - {name for name, places in seen.ended.items() if places[0] >= seen.stop}
    while True:
        added = {
            name: ISOLATED
            for name, spec in seen.specs.items()
            if name not in ended and name not in states and name not in seen.started and _is_cut_off(spec, states)
        }
        if not added:
            return states
        states |= added


def _is_cut_off(spec: StageSpec, states: Mapping[str, StageState]) -> bool:
    """Return whether these states alone isolate a stage, whatever becomes of its other dependencies."""
    known = [states[dependency] for dependency in spec.dependencies if dependency in states]
    if spec.trigger is Trigger.ALL_DONE or not any(state in BAD for state in known):
        return False
    return spec.trigger is not Trigger.ONE_SUCCESS or (len(known) == len(spec.dependencies) and OK not in known)


def _check_stopped(name: str, state: StageState, *, isolated: bool, ran: bool) -> Iterator[Problem]:
    """Check a stage that had not ended when the run stopped."""
    if ran:
        if state is ISOLATED:
            yield Problem("isolation", name, "ran, and is isolated")
    elif isolated is not (state is ISOLATED):
        had = "had" if isolated else "had not"
        yield Problem("isolation", name, f"is {state.value}; what it needs {had} ended badly when the run stopped")
    elif state in {OK, SKIPPED}:
        yield Problem("isolation", name, f"is {state.value}, and was not decided when the run stopped")


# Immutability


def check_immutability(seen: Evidence) -> Iterator[Problem]:
    """What a stage put out is what its runner returned, for those that see it and in the end."""
    for name, calls in seen.calls.items():
        if calls[-1].imprint is not None and name in seen.result:
            change = find_change(calls[-1].imprint, seen.result[name].data, "data")
            if change is not None:
                yield Problem("immutability", name, f"has put out something else than it returned: {change}")
    for call in seen.witness.notes.calls:
        for dependency, output in call.outputs.items():
            if seen.result.get(dependency) is not output:
                yield Problem("immutability", call.actor, f"saw another output of {dependency!r} than the run has")
        for dependency in call.states:
            if dependency in seen.result and dependency not in call.outputs:
                yield Problem("immutability", call.actor, f"saw no output of {dependency!r}, and the run has one")


# Limits, and what is left


def check_limits(seen: Evidence) -> Iterator[Problem]:
    """Whoever has ended has given back what it held. That there were never too many is heard as it happens."""
    if seen.abandoned:
        return  # a thread keeps its slot for as long as it takes
    for name, limiter in seen.witness.limiters.items():
        left = limiter.statistics()
        if left.running or left.queued:
            yield Problem("limits", "", f"{name} still has {left.running} running and {left.queued} queued")


def check_calls(seen: Evidence) -> Iterator[Problem]:
    """Nobody is inside a runner any more, but threads that are counted as abandoned."""
    for call in seen.witness.notes.calls:
        if call.outcome is None and call.actor not in seen.abandoned:
            yield Problem("no task left", call.actor, f"is still inside its attempt {call.attempt}")


LAWS: Final[tuple[Callable[[Evidence], Iterator[Problem]], ...]] = (
    check_order,
    check_sight,
    check_conservation,
    check_isolation,
    check_immutability,
    check_limits,
    check_calls,
)
"""What is checked of every run, whatever faults strike."""
