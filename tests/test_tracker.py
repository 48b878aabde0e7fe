"""Dependency tracking, by plain calls: counts, marks, parents, and what a stop makes of the rest."""

from __future__ import annotations

import pytest

from stageflow_actors import Pipeline, Trigger
from stageflow_actors._bag import OutputBag
from stageflow_actors._graph import BELOW_BAD, BELOW_SKIPPED, CONDITIONAL
from stageflow_actors._policy import (
    ABANDONED,
    CANCELLED,
    FAILED,
    ISOLATED,
    OK,
    PENDING,
    RUNNING,
    SKIPPED,
    TOLD,
    Decision,
)
from stageflow_actors._tracker import Tracker


async def nothing(ctx):
    """Return at once."""


class Tracked:
    """A tracker over stages given as `name=dependencies`, addressed by name."""

    def __init__(self, triggers=(), when=(), **stages):
        pipeline = Pipeline("p")
        for name, dependencies in stages.items():
            pipeline = pipeline.with_stage(
                name,
                nothing,
                dependencies=dependencies.split(),
                trigger=dict(triggers).get(name, Trigger.ALL_SUCCESS),
                when=(lambda _: True) if name in when else None,
            )
        self.graph = pipeline._compile()
        self.bag = OutputBag(self.graph.names, 0.0)
        self.tracker = Tracker(self.graph, self.bag)

    def end(self, name, state):
        """End a stage; return the names of those that now wait for nothing."""
        number = self.graph.positions[name]
        self.bag.states[number] = state
        return self.name(self.tracker.count_down(number))

    def name(self, numbers):
        return " ".join(self.graph.names[number] for number in numbers)

    def judge(self, name):
        return self.tracker.judge(self.graph.positions[name])

    def settle(self):
        isolated, rest = self.tracker.settle()
        return self.name(isolated), self.name(rest)

    def flags(self, name):
        return self.tracker.flags[self.graph.positions[name]]

    def state(self, name):
        return self.bag.states[self.graph.positions[name]]


def test_a_stage_is_ready_when_the_last_dependency_has_ended():
    tracked = Tracked(a="", b="", c="", join="a b c")
    assert tracked.end("b", OK) == ""
    assert tracked.end("a", OK) == ""
    assert tracked.end("c", OK) == "join"
    assert tracked.flags("join") == 0


def test_dependents_become_ready_in_the_order_of_the_pipeline():
    tracked = Tracked(a="", z="a", y="a", b="", x="a b")
    assert tracked.end("a", OK) == "z y"
    assert tracked.end("b", OK) == "x"


@pytest.mark.parametrize(
    ("state", "flag"),
    [(OK, 0), (SKIPPED, BELOW_SKIPPED), *((bad, BELOW_BAD) for bad in (FAILED, ISOLATED, CANCELLED, ABANDONED))],
)
def test_a_dependency_leaves_its_mark_before_the_last_has_ended(state, flag):
    tracked = Tracked(a="", b="", join="a b", far="join")
    tracked.end("a", state)
    assert tracked.flags("join") == flag
    assert tracked.flags("far") == 0
    assert tracked.end("b", OK) == "join"
    assert tracked.flags("join") == flag


def test_a_condition_is_a_mark_of_the_graph_and_stays_on_it():
    tracked = Tracked(when=["join"], a="", join="a")
    assert tracked.flags("join") == CONDITIONAL
    tracked.end("a", SKIPPED)
    assert tracked.flags("join") == CONDITIONAL | BELOW_SKIPPED
    assert tracked.graph.flags[1] == CONDITIONAL


def test_runs_do_not_share_counts():
    tracked = Tracked(a="", join="a")
    second = Tracker(tracked.graph, OutputBag(tracked.graph.names, 0.0))
    tracked.end("a", FAILED)
    assert list(second.unmet) == [0, 1]
    assert list(second.flags) == [0, 0]
    assert list(tracked.graph.unmet) == [0, 1]


@pytest.mark.parametrize(
    ("ends", "trigger", "decision"),
    [
        ((OK, OK), Trigger.ALL_SUCCESS, Decision.RUN),
        ((OK, SKIPPED), Trigger.ALL_SUCCESS, Decision.SKIP),
        ((OK, FAILED), Trigger.ALL_SUCCESS, Decision.ISOLATE),
        ((SKIPPED, SKIPPED), Trigger.NONE_FAILED, Decision.RUN),
        ((SKIPPED, CANCELLED), Trigger.NONE_FAILED, Decision.ISOLATE),
        ((OK, FAILED), Trigger.ONE_SUCCESS, Decision.RUN),
        ((SKIPPED, FAILED), Trigger.ONE_SUCCESS, Decision.ISOLATE),
        ((SKIPPED, SKIPPED), Trigger.ONE_SUCCESS, Decision.SKIP),
        ((ISOLATED, ABANDONED), Trigger.ALL_DONE, Decision.RUN),
    ],
)
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_judging_asks_the_policy_with_what_has_happened(ends, trigger, decision, order):
    tracked = Tracked(triggers={"join": trigger}, a="", b="", join="a b")
    states = dict(zip("ab", ends, strict=True))
    for name in order:
        tracked.end(name, states[name])
    assert tracked.judge("join") is decision


def test_isolation_names_the_first_bad_dependency_in_declaration_order():
    tracked = Tracked(a="", b="", c="", join="c a b")
    tracked.end("b", FAILED)
    tracked.end("c", OK)
    tracked.end("a", CANCELLED)
    join = tracked.graph.positions["join"]
    assert tracked.tracker.isolate(join) == "'a' did not end well"
    assert tracked.state("join") == ISOLATED
    assert tracked.bag.parents == {join: tracked.graph.positions["a"]}


# Stopping


def test_a_stop_isolates_what_hangs_below_a_failure_and_cancels_the_rest():
    tracked = Tracked(bad="", good="", low="bad", lower="low", lowest="lower good", other="good", late="other")
    tracked.end("bad", FAILED)
    assert tracked.settle() == ("low lower lowest", "good other late")
    assert tracked.state("lowest") == ISOLATED
    assert tracked.state("good") == PENDING


@pytest.mark.parametrize(
    ("trigger", "settled"),
    [
        (Trigger.ALL_SUCCESS, ("join below", "")),
        (Trigger.NONE_FAILED, ("join below", "")),
        (Trigger.ONE_SUCCESS, ("", "join below")),
        (Trigger.ALL_DONE, ("", "join below")),
    ],
)
def test_one_bad_dependency_is_enough_for_two_triggers(trigger, settled):
    tracked = Tracked(triggers={"join": trigger}, bad="", slow="", join="bad slow", below="join")
    tracked.end("bad", FAILED)
    tracked.bag.states[tracked.graph.positions["slow"]] = RUNNING
    assert tracked.settle() == settled


@pytest.mark.parametrize(("second", "settled"), [(FAILED, ("join", "")), (SKIPPED, ("join", "")), (OK, ("", "join"))])
def test_one_success_is_isolated_only_when_it_can_no_longer_succeed(second, settled):
    tracked = Tracked(triggers={"join": Trigger.ONE_SUCCESS}, a="", b="", join="a b")
    tracked.end("a", FAILED)
    tracked.end("b", second)
    assert tracked.settle() == settled


def test_one_success_is_isolated_through_isolation_alone():
    tracked = Tracked(triggers={"join": Trigger.ONE_SUCCESS}, bad="", one="bad", two="bad", join="one two", end="join")
    tracked.end("bad", FAILED)
    assert tracked.settle() == ("one two join end", "")


def test_what_hangs_below_an_all_done_stage_depends_on_that_stage_alone():
    tracked = Tracked(triggers={"cleanup": Trigger.ALL_DONE}, bad="", mid="bad", cleanup="mid", after="cleanup")
    tracked.end("bad", FAILED)
    assert tracked.settle() == ("mid", "cleanup after")


def test_stages_under_way_are_left_to_their_own_ends():
    tracked = Tracked(bad="", told="", running="", below_told="told", below_both="told bad")
    tracked.end("bad", FAILED)
    tracked.bag.states[tracked.graph.positions["told"]] = TOLD
    tracked.bag.states[tracked.graph.positions["running"]] = RUNNING
    assert tracked.settle() == ("below_both", "below_told")
    assert tracked.state("told") == TOLD
    assert tracked.state("running") == RUNNING


def test_a_stop_with_nothing_bad_isolates_nobody():
    tracked = Tracked(a="", b="a", c="b", skipped="", d="skipped")
    tracked.end("skipped", SKIPPED)
    assert tracked.settle() == ("", "a b c d")


def test_settled_stages_have_the_first_bad_dependency_for_a_parent():
    tracked = Tracked(bad="", low="bad", join="low bad")
    tracked.end("bad", FAILED)
    isolated, _ = tracked.tracker.settle()
    assert [tracked.tracker.isolate(stage) for stage in isolated] == [
        "'bad' did not end well",
        "'low' did not end well",
    ]


def test_a_long_chain_is_settled_without_recursion():
    tracked = Tracked(bad="", **{f"s{number}": f"s{number - 1}" if number else "bad" for number in range(5000)})
    tracked.end("bad", FAILED)
    isolated, rest = tracked.tracker.settle()
    assert len(isolated) == 5000
    assert isolated == sorted(isolated)
    assert rest == []
