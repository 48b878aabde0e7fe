"""The items of dynamic fan-outs in a chaos run: each is accounted for exactly once, and ended as the model says."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING

import attrs

from property_tests.attempt_model import CANCELLED, FAILED, Begun, allow_running
from property_tests.fan_model import count_items, expect_items, find_causes
from property_tests.model import predict
from property_tests.restart_model import NEAR, Facts, find_denied
from property_tests.stop_model import find_facts
from stageflow_actors.errors import ItemFailedError
from stageflow_actors.events import RunStopping, StageEnded, StageRejected, StageRestarting, StageStarted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos_play import Call

    from property_tests.attempt_model import Expected, Seen
    from property_tests.plans import StagePlan
    from stageflow_actors import RunResult
    from stageflow_actors.events import Event


def check_items(call: Call, result: RunResult, *, timed: bool) -> Iterator[str]:
    """Yield what is wrong with the items of all fan-outs of a run, in words."""
    plan, facts = call.plan.run, find_facts(call.events)
    seen = predict(plan, facts)
    for stage in plan.stages:
        if stage.fan is None:
            continue
        if (stage.name, 1) not in facts.starts:
            if facts.items.get(stage.name):
                yield f"fan-out {stage.name!r} did not run, and its items did"
            continue
        fan = _Fan(stage, call.events, facts, seen, find_denied(plan, facts.crashes), timed=timed)
        for problem in (*fan.check_whole(), *fan.check_each(), *fan.check_error(result), *fan.check_failures(result)):
            yield f"fan-out {stage.name!r}: {problem}"


class _Fan:
    """One fan-out that ran."""

    def __init__(
        self,
        stage: StagePlan,
        events: list[Event],
        facts: Facts,
        seen: Seen,
        denied: set[tuple[str, int]],
        *,
        timed: bool,
    ) -> None:
        self._stage = stage
        self._facts = facts
        self._seen = seen
        self._timed = timed
        self._near = NEAR if timed else 1.0
        self._start = facts.starts[stage.name, 1]
        self._events = [
            (number, event)
            for number, event in enumerate(events)
            if isinstance(event, (StageStarted, StageRestarting, StageEnded, StageRejected))
            and event.stage == stage.name
            and event.item is not None
        ]
        self._count = count_items(stage, seen)
        self._expected = expect_items(stage, seen, self._start, facts, denied)
        stops = [number for number, event in enumerate(events) if isinstance(event, RunStopping)]
        stopped = events[stops[0]].at if stops else None
        self._causes = find_causes(stage, self._expected, self._start, facts, stopped)
        if self._causes:
            first = self._causes[0].index
            ends = (number for number, event in self._events if isinstance(event, StageEnded) and event.item == first)
            stops.append(next(ends))
        self._cut = min(stops, default=len(events))
        """The number of the event that stopped it."""
        self._deadline = inf if stage.timeout is None else self._start + stage.timeout
        self._cut_at = min(self._deadline, events[self._cut].at if stops else inf)

    def check_whole(self) -> Iterator[str]:
        """Its items are the first so many, and each ended exactly once."""
        told = {event.item for _, event in self._events}
        if isinstance(self._count, tuple):
            if told:
                yield f"it had no items to take, and took {told}"
            return
        if told != set(range(len(told))) or len(told) > self._count:
            yield f"it took the items {told} of {self._count}"
        ended = Counter(event.item for _, event in self._events if isinstance(event, StageEnded))
        if ended != Counter(told):
            yield f"it took the items {told}, and they ended as often as {dict(ended)}"

    def check_each(self) -> Iterator[str]:
        """Every item ended as it does by itself, or as the end of its stage allows."""
        for number, event in self._events:
            if isinstance(event, StageStarted) and (number > self._cut or event.at > self._deadline + NEAR):
                yield f"item {event.item} began at {event.at:g}, after the stage was stopped at {self._cut_at:g}"
            if isinstance(event, StageEnded):
                assert event.item is not None
                expected = self._expected[event.item]
                if number <= self._cut and event.at < self._deadline - NEAR:
                    yield from self._check_own(event, expected)
                elif abs(event.at - self._deadline) > NEAR and event.state not in self._allow(event.item):
                    yield (
                        f"item {event.item} ended {event.state}; the stop at {self._cut_at:g} allows "
                        f"{self._allow(event.item)}"
                    )

    def _check_own(self, event: StageEnded, expected: Expected) -> Iterator[str]:
        name = f"{self._stage.name}[{event.item}]"
        if event.state is not expected.state:
            yield f"item {event.item} ended {event.state} because of {event.reason!r}, not {expected}"
        problems = [crash.problem for crash in self._facts.crashes if crash.stage == name]
        wanted = [span.problem for span in expected.attempts if span.problem is not None]
        if problems != wanted:
            yield f"the attempts at item {event.item} failed with {problems}, not {wanted}"
        if self._timed and abs(event.at - expected.ended) > NEAR:
            yield f"item {event.item} ended at {event.at:g}, not at {expected.ended:g}"

    def _allow(self, item: int) -> set[object]:
        """Return the states of an item that the stop of its stage found unfinished."""
        begun: Begun | None = None
        refused = False
        for number, event in self._events:
            if event.item != item:
                continue
            refused = refused or (
                isinstance(event, StageRejected) and (event.at <= self._cut_at + NEAR or not self._timed)
            )
            if number > self._cut or event.at > self._deadline + NEAR:
                continue
            if isinstance(event, StageStarted):
                begun = Begun(event.attempt, event.at)
            elif isinstance(event, StageRestarting):
                begun = None
        if begun is None:  # it may have been refused at the moment of the stop, and learnt of it after
            return {CANCELLED, FAILED} if refused else {CANCELLED}
        if not self._timed:
            begun = attrs.evolve(begun, at=self._cut_at)
        return {one.state for one in allow_running(self._stage.item(item), self._seen, begun, self._cut_at)}

    def check_error(self, result: RunResult) -> Iterator[str]:
        """The error of an item that failed names it, and has its error as the cause."""
        failure = result.failures.get(self._stage.name)
        if failure is None or not isinstance(failure.error, ItemFailedError):
            return
        if not self._causes or failure.error.index != self._causes[0].index or failure.error.__cause__ is None:
            yield f"it failed with {failure.error!r}; what its items did is {self._causes}"

    def check_failures(self, result: RunResult) -> Iterator[str]:
        """The failures that it collects have every attempt, with its times."""
        name = self._stage.name
        collected = result[name].data.get("failures", {}) if name in result else {}
        for item, failure in collected.items():
            crashes = [crash for crash in self._facts.crashes if crash.stage == f"{name}[{item}]"]
            told = [(crash.attempt, self._facts.starts[crash.stage, crash.attempt], crash.at) for crash in crashes]
            found = [(attempt.number, attempt.started, attempt.ended) for attempt in failure.attempts]
            pairs = zip(found, told, strict=False)
            near = all(
                abs(one - other) <= self._near for mine, its in pairs for one, other in zip(mine, its, strict=True)
            )
            if len(found) != len(told) or not near:
                yield f"item {item} has the attempts {found}, and {told} were told of"
