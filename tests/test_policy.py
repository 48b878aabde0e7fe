"""States and triggers: the table of the contract, every cell, and what a stopping run isolates."""

from __future__ import annotations

from itertools import product

import pytest

from stageflow_actors import Pipeline, RunEnding, StageOutput, StageState, Trigger
from stageflow_actors._policy import (
    ABANDONED,
    BAD,
    CANCELLED,
    FAILED,
    ISOLATED,
    OK,
    PENDING,
    RESTARTING,
    RUNNING,
    SKIPPED,
    STATES,
    TOLD,
    Decision,
    decide,
    isolates_at_stop,
)

RUN, SKIP, ISOLATE = Decision.RUN, Decision.SKIP, Decision.ISOLATE

# Trigger; which of bad, skipped and ok there is among the dependencies; the decision. The contract's rows
# and columns: any bad (with an ok one among them, and without), none bad and some skipped (likewise), all ok.
TABLE = [
    (Trigger.ALL_SUCCESS, "bad", ISOLATE),
    (Trigger.ALL_SUCCESS, "bad ok", ISOLATE),
    (Trigger.ALL_SUCCESS, "bad skipped", ISOLATE),
    (Trigger.ALL_SUCCESS, "bad skipped ok", ISOLATE),
    (Trigger.ALL_SUCCESS, "skipped", SKIP),
    (Trigger.ALL_SUCCESS, "skipped ok", SKIP),
    (Trigger.ALL_SUCCESS, "ok", RUN),
    (Trigger.ALL_SUCCESS, "", RUN),
    (Trigger.NONE_FAILED, "bad", ISOLATE),
    (Trigger.NONE_FAILED, "bad ok", ISOLATE),
    (Trigger.NONE_FAILED, "bad skipped", ISOLATE),
    (Trigger.NONE_FAILED, "bad skipped ok", ISOLATE),
    (Trigger.NONE_FAILED, "skipped", RUN),
    (Trigger.NONE_FAILED, "skipped ok", RUN),
    (Trigger.NONE_FAILED, "ok", RUN),
    (Trigger.NONE_FAILED, "", RUN),
    (Trigger.ONE_SUCCESS, "bad", ISOLATE),
    (Trigger.ONE_SUCCESS, "bad ok", RUN),
    (Trigger.ONE_SUCCESS, "bad skipped", ISOLATE),
    (Trigger.ONE_SUCCESS, "bad skipped ok", RUN),
    (Trigger.ONE_SUCCESS, "skipped", SKIP),
    (Trigger.ONE_SUCCESS, "skipped ok", RUN),
    (Trigger.ONE_SUCCESS, "ok", RUN),
    (Trigger.ONE_SUCCESS, "", RUN),
    (Trigger.ALL_DONE, "bad", RUN),
    (Trigger.ALL_DONE, "bad ok", RUN),
    (Trigger.ALL_DONE, "bad skipped", RUN),
    (Trigger.ALL_DONE, "bad skipped ok", RUN),
    (Trigger.ALL_DONE, "skipped", RUN),
    (Trigger.ALL_DONE, "skipped ok", RUN),
    (Trigger.ALL_DONE, "ok", RUN),
    (Trigger.ALL_DONE, "", RUN),
]
IDS = [f"{trigger.value}: {below or 'no dependency'}" for trigger, below, _ in TABLE]


def test_the_table_is_whole():
    cells = {(trigger, *(word in below.split() for word in ("bad", "skipped", "ok"))) for trigger, below, _ in TABLE}
    assert cells == set(product(Trigger, [False, True], [False, True], [False, True]))
    assert len(TABLE) == len(cells)


@pytest.mark.parametrize(("trigger", "below", "decision"), TABLE, ids=IDS)
def test_the_trigger_table(trigger, below, decision):
    there = below.split()
    assert decide(trigger, bad="bad" in there, skipped="skipped" in there, ok="ok" in there) is decision


async def ok(ctx):
    return {"by": ctx.stage_name}


async def bad(ctx):
    raise ValueError("boom")


async def skipped(ctx):
    return StageOutput.skip("nothing to do")


RUNNERS = {"ok": ok, "bad": bad, "skipped": skipped}
AFTER = {RUN: StageState.OK, SKIP: StageState.SKIPPED, ISOLATE: StageState.ISOLATED}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("trigger", "below", "decision"), TABLE, ids=IDS)
async def test_the_trigger_table_in_a_run(trigger, below, decision, backwards):
    names = below.split()[::-1] if backwards else below.split()
    pipeline = Pipeline("p")
    for name in names:
        pipeline = pipeline.with_stage(name, RUNNERS[name])
    pipeline = pipeline.with_stage("it", ok, dependencies=names, trigger=trigger)
    result = await pipeline.run(continue_on_failure=True)
    assert result.states["it"] is AFTER[decision]
    assert result.ended.ending is RunEnding.COMPLETED
    reason = {RUN: "", SKIP: "dependency 'skipped' was skipped", ISOLATE: "'bad' did not end well"}[decision]
    assert result.reason("it") == reason
    assert result.cause_chain("it") == (("it", "bad") if decision is ISOLATE else ())


# What a stopping run makes of the stages that it never started

STOPPED = [
    (Trigger.ALL_SUCCESS, "bad", True),
    (Trigger.ALL_SUCCESS, "bad, all ended", True),
    (Trigger.ALL_SUCCESS, "bad and ok", True),
    (Trigger.ALL_SUCCESS, "bad and ok, all ended", True),
    (Trigger.NONE_FAILED, "bad", True),
    (Trigger.NONE_FAILED, "bad, all ended", True),
    (Trigger.NONE_FAILED, "bad and ok", True),
    (Trigger.NONE_FAILED, "bad and ok, all ended", True),
    (Trigger.ONE_SUCCESS, "bad", False),
    (Trigger.ONE_SUCCESS, "bad, all ended", True),
    (Trigger.ONE_SUCCESS, "bad and ok", False),
    (Trigger.ONE_SUCCESS, "bad and ok, all ended", False),
    (Trigger.ALL_DONE, "bad", False),
    (Trigger.ALL_DONE, "bad, all ended", False),
    (Trigger.ALL_DONE, "bad and ok", False),
    (Trigger.ALL_DONE, "bad and ok, all ended", False),
]


@pytest.mark.parametrize(("trigger", "below", "isolated"), STOPPED)
def test_what_a_stop_isolates(trigger, below, isolated):
    assert isolates_at_stop(trigger, bad=True, all_ended="all ended" in below, ok="ok" in below) is isolated


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("all_ended", [False, True])
@pytest.mark.parametrize("has_ok", [False, True])
def test_a_stop_isolates_nobody_without_a_bad_dependency(trigger, all_ended, has_ok):
    assert not isolates_at_stop(trigger, bad=False, all_ended=all_ended, ok=has_ok)


# The codes


def test_states_and_codes_go_together():
    codes = [PENDING, TOLD, RUNNING, RESTARTING, OK, SKIPPED, FAILED, ISOLATED, CANCELLED, ABANDONED]
    assert codes == list(range(10))
    assert [STATES[code].name for code in codes if code != TOLD] == [state.name for state in StageState]
    assert STATES[TOLD] is StageState.PENDING
    assert {STATES[code].value for code in BAD} == {"failed", "isolated", "cancelled", "abandoned"}


def test_the_words():
    assert [str(state) for state in StageState] == [state.name.lower() for state in StageState]
    assert [str(trigger) for trigger in Trigger] == ["all_success", "none_failed", "one_success", "all_done"]
