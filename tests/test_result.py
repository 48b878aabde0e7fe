"""What came of a run: a mapping, its messages, its summary, and its forms."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock

from stageflow_actors import (
    Ledger,
    Pipeline,
    PipelineFailedError,
    RunEnd,
    RunEnding,
    RunIdentity,
    RunResult,
    StageOutput,
    StageState,
    StageStatus,
    StageTiming,
    Supervisor,
    Trigger,
    parallel_stages,
)
from stageflow_actors._bag import Attempt, OutputBag, StageFailure
from stageflow_actors._policy import FAILED
from stageflow_actors.errors import NoOutputError

IDENTITY = RunIdentity("run-1", datetime(2026, 3, 4, 5, 6, tzinfo=UTC))


async def fetch(ctx):
    await trio.sleep(1)
    return {"rows": [1, 2]}


async def boom(ctx):
    await trio.sleep(0.5)
    raise ValueError("boom\n  and more")


async def skip(ctx):
    return StageOutput.skip("none today", {"why": "holiday"})


async def choose(ctx):
    return StageOutput.route("left", n=1)


async def nothing(ctx):
    """Return at once."""


async def forever(ctx):
    await trio.sleep_forever()


def make_report():
    return (
        Pipeline("report")
        .with_stage("fetch", fetch)
        .with_stage("bad", boom, dependencies="fetch")
        .with_stage("mid", nothing, dependencies="bad")
        .with_stage("low", nothing, dependencies="mid")
        .with_stage("told", skip)
        .with_stage("below", nothing, dependencies="told")
        .with_stage("done", nothing, dependencies=["low", "below"], trigger=Trigger.ALL_DONE)
    )


async def run(pipeline, **options):
    async with Supervisor(identify=lambda: IDENTITY) as supervisor:
        return await supervisor.run(pipeline, **{"continue_on_failure": True, **options})


@pytest.fixture
def result():
    return trio.run(run, make_report(), clock=MockClock(autojump_threshold=0))


# A mapping


def test_it_maps_the_stages_that_gave_an_output(result):
    assert isinstance(result, Mapping)
    assert list(result) == list(result.keys()) == ["fetch", "told", "done"]
    assert len(result) == 3
    assert [output.status for output in result.values()] == [StageStatus.OK, StageStatus.SKIP, StageStatus.OK]
    assert dict(result.items()) == {name: result[name] for name in ("fetch", "told", "done")}
    assert result["fetch"] == StageOutput.ok(rows=[1, 2])
    assert "fetch" in result
    assert "bad" not in result
    assert "missing" not in result
    assert 5 not in result
    assert [] not in result
    assert result.get("bad") is None
    assert result.get("missing", "default") == "default"
    assert result


def test_every_stage_has_a_state_in_the_pipelines_order(result):
    assert list(result.states) == list(REASONS)
    assert " ".join(result.states.values()) == "ok failed isolated isolated skipped skipped ok"
    assert result.states["bad"] is StageState.FAILED
    assert not result.ok


def test_facts_about_the_run(result):
    assert result.pipeline == "report"
    assert result.run_id == "run-1"
    assert result.ended == RunEnd(RunEnding.COMPLETED)
    assert result.ledger == Ledger(accepted=4, replied=3, failed=1, cancelled=0)
    assert result.duration == 1.5
    assert repr(result) == "<RunResult of 'report', run run-1: completed>"


def test_timings_of_the_stages_that_ran(result):
    assert result.timings == {
        "fetch": StageTiming(0.0, 1.0),
        "bad": StageTiming(1.0, 1.5),
        "told": StageTiming(0.0, 0.0),
        "done": StageTiming(1.5, 1.5),
    }
    assert result.timings["bad"].duration == 0.5


async def test_failures_in_the_pipelines_order(autojump_clock):
    async def late(ctx):
        await trio.sleep(2)
        raise KeyError("late")

    result = await run(Pipeline("p").with_stage("late", late).with_stage("early", boom))
    assert list(result.failures) == ["late", "early"]
    failure = result.failures["late"]
    assert failure.stage == "late"
    assert type(failure.error) is KeyError
    assert failure.attempts == (Attempt(1, 0.0, 2.0, failure.error),)
    assert str(failure) == "KeyError: 'late'"


def test_nothing_of_it_can_be_changed(result):
    for name in ("states", "failures", "timings"):
        mapping = getattr(result, name)
        assert mapping is getattr(result, name)
        with pytest.raises(TypeError):
            mapping["fetch"] = "evil"
        assert not hasattr(mapping, "clear")
    with pytest.raises(TypeError):
        result["fetch"] = "evil"
    with pytest.raises(AttributeError):
        result.note = "evil"
    for name in ("ok", "states", "ended", "ledger", "pipeline"):
        with pytest.raises(AttributeError):
            setattr(result, name, "evil")
    with pytest.raises(AttributeError):
        result.ledger.accepted = 0


# Messages


REASONS = {
    "fetch": "",
    "bad": "ValueError: boom and more",
    "mid": "'bad' did not end well",
    "low": "'mid' did not end well",
    "told": "none today",
    "below": "dependency 'told' was skipped",
    "done": "",
}
CHAINS = {"mid": ("mid", "bad"), "low": ("low", "mid", "bad")}
NO_OUTPUT = {
    "bad": "it has no output: failed (ValueError: boom and more)",
    "mid": "it has no output: isolated (below 'bad')",
    "low": "it has no output: isolated (below 'mid'); the cause is mid -> bad",
    "below": "it has no output: skipped (dependency 'told' was skipped)",
}


def test_reasons_and_cause_chains(result):
    assert {name: result.reason(name) for name in result.states} == REASONS
    assert {name: chain for name in result.states if (chain := result.cause_chain(name))} == CHAINS


def test_asking_for_an_output_that_there_is_not(result):
    for stage, message in NO_OUTPUT.items():
        for ask in (result.__getitem__, result.data, result.require_ok):
            with pytest.raises(NoOutputError) as caught:
                ask(stage)
            assert str(caught.value) == f"pipeline 'report', stage {stage!r}: {message}"
            assert isinstance(caught.value, KeyError)
            assert (caught.value.pipeline, caught.value.stage) == ("report", stage)


def test_a_skip_has_data_but_is_not_ok(result):
    assert result.data("told") == {"why": "holiday"}
    with pytest.raises(NoOutputError) as caught:
        result.require_ok("told")
    assert str(caught.value) == "pipeline 'report', stage 'told': it is not ok but skipped (none today)"
    assert result.require_ok("fetch") is result["fetch"]


def test_a_stage_that_the_run_does_not_have(result):
    stages = "its stages are 'fetch', 'bad', 'mid', 'low', 'told', 'below', 'done'"
    for name, hint in [("fetsch", "did you mean 'fetch'?"), ("zzz", stages), (5, stages)]:
        for ask in (result.__getitem__, result.data, result.require_ok, result.reason, result.cause_chain):
            with pytest.raises(NoOutputError) as caught:
                ask(name)
            assert str(caught.value) == f"pipeline 'report': there is no stage {name!r} in this run; {hint}"


async def test_a_cause_chain_takes_the_first_bad_dependency_and_needs_no_recursion(autojump_clock):
    pipeline = Pipeline("p").with_stage("x", boom).with_stage("y", boom)
    pipeline = pipeline.with_stage("s0", nothing, dependencies=["y", "x"])
    for number in range(1, 3000):
        pipeline = pipeline.with_stage(f"s{number}", nothing, dependencies=f"s{number - 1}")
    result = await run(pipeline)
    chain = result.cause_chain("s2999")
    assert chain == (*(f"s{number}" for number in range(2999, -1, -1)), "y")


# The summary


def test_the_summary(result):
    assert str(result) == (
        "pipeline 'report': completed\n"
        "  2 ok, 2 skipped, 1 failed, 2 isolated\n"
        "  4 stages ran in 1.500 s, 3 stages/s\n"
        "  failed 'bad': ValueError: boom and more"
    )


async def test_the_summary_of_one_stage_that_took_no_time(autojump_clock):
    assert str(await run(Pipeline("p").with_stage("a", nothing))) == "pipeline 'p': completed\n  1 ok"


async def test_the_summary_shows_ten_failures(autojump_clock):
    result = await run(Pipeline("p").with_stages(parallel_stages("w{key}", boom, range(25))))
    lines = str(result).splitlines()
    assert lines[:3] == ["pipeline 'p': completed", "  25 failed", "  25 stages ran in 0.500 s, 50 stages/s"]
    assert lines[3:13] == [f"  failed 'w{number}': ValueError: boom and more" for number in range(10)]
    assert lines[13:] == ["  and 15 more in .failures"]


async def test_the_summary_of_a_run_that_timed_out(autojump_clock):
    result = await run(Pipeline("p").with_stage("a", fetch).with_stage("b", forever), timeout=2)
    assert str(result) == (
        "pipeline 'p': timed out: after 2 s\n  1 ok, 1 cancelled\n  2 stages ran in 2.000 s, 1 stages/s"
    )


def test_ends_as_text():
    assert str(RunEnd(RunEnding.COMPLETED)) == "completed"
    assert str(RunEnd(RunEnding.FAILED, "stage 'a': boom")) == "failed: stage 'a': boom"
    assert str(RunEnd(RunEnding.TIMED_OUT, "after 2 s")) == "timed out: after 2 s"


# Failures


def test_raising_for_failures(result):
    with pytest.raises(PipelineFailedError) as caught:
        result.raise_for_failures()
    error = caught.value
    assert str(error) == "pipeline 'report', stage 'bad': ValueError: boom and more"
    assert error.result is result
    assert error.failures is result.failures
    assert type(error.__cause__) is ExceptionGroup
    assert error.__cause__.message == "failed stages of 'report'"
    assert error.__cause__.exceptions == (result.failures["bad"].error,)


async def test_several_failures_are_counted_and_all_in_the_cause(autojump_clock):
    result = await run(Pipeline("p").with_stages(parallel_stages("w{key}", boom, range(3))))
    with pytest.raises(PipelineFailedError) as caught:
        result.raise_for_failures()
    assert str(caught.value) == "pipeline 'p', stage 'w0': ValueError: boom and more; and 2 more failed"
    assert len(caught.value.__cause__.exceptions) == 3


async def test_nothing_is_raised_where_nothing_failed(autojump_clock):
    result = await run(Pipeline("p").with_stage("told", skip).with_stage("below", nothing, dependencies="told"))
    assert result.raise_for_failures() is None
    assert result.ok


def make_result(*errors):
    """The result of a run whose stages failed with these errors."""
    pipeline = Pipeline("p")
    for number in range(len(errors)):
        pipeline = pipeline.with_stage(f"s{number}", nothing)
    bag = OutputBag([spec.name for spec in pipeline.stages], 0.0)
    for number, error in enumerate(errors):
        bag.states[number] = FAILED
        bag.failures[number] = StageFailure(f"s{number}", error, ())
    return RunResult(pipeline._compile(), bag, IDENTITY, RunEnd(RunEnding.FAILED), Ledger())


def test_an_error_that_is_no_exception_is_told_but_is_no_part_of_the_group():
    result = make_result(ValueError("boom"), SystemExit(3))
    with pytest.raises(PipelineFailedError) as caught:
        result.raise_for_failures()
    assert str(caught.value) == "pipeline 'p', stage 's0': ValueError: boom; and 1 more failed"
    assert caught.value.__cause__.exceptions == (result.failures["s0"].error,)
    alone = make_result(KeyboardInterrupt())
    with pytest.raises(PipelineFailedError) as caught:
        alone.raise_for_failures()
    assert str(caught.value) == "pipeline 'p', stage 's0': KeyboardInterrupt"
    assert caught.value.__cause__ is None
    assert (len(alone), list(alone)) == (0, [])


# Other forms


def test_the_dict_form_is_json(result):
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain == {
        "pipeline": "report",
        "run_id": "run-1",
        "created_at": "2026-03-04T05:06:00+00:00",
        "ended": {"ending": "completed", "reason": ""},
        "ok": False,
        "states": {name: state.value for name, state in result.states.items()},
        "reasons": {name: reason for name, reason in REASONS.items() if reason},
        "outputs": {
            "fetch": {"status": "ok", "data": {"rows": [1, 2]}},
            "told": {"status": "skip", "data": {"why": "holiday"}},
            "done": {"status": "ok", "data": {}},
        },
        "failures": {
            "bad": {
                "error": "ValueError: boom and more",
                "attempts": [{"number": 1, "started": 1.0, "ended": 1.5, "error": "ValueError: boom and more"}],
            }
        },
        "restarted": {},
        "timings": {
            "fetch": {"started": 0.0, "ended": 1.0},
            "bad": {"started": 1.0, "ended": 1.5},
            "told": {"started": 0.0, "ended": 0.0},
            "done": {"started": 1.5, "ended": 1.5},
        },
        "ledger": {"accepted": 4, "replied": 3, "failed": 1, "cancelled": 0},
    }


def test_it_pickles_and_copies(result):
    assert result.states  # what was looked at before must not stand in the way
    for twin in (pickle.loads(pickle.dumps(result)), copy.copy(result)):
        assert type(twin) is RunResult
        assert twin == result
        assert str(twin) == str(result)
        assert dict(twin.states) == dict(result.states)
        assert twin.timings == result.timings
        assert twin.cause_chain("low") == CHAINS["low"]
        assert repr(twin.failures["bad"].error) == repr(result.failures["bad"].error)


async def test_the_dict_form_tells_which_way_a_router_chose():
    plain = (await run(Pipeline("p").with_stage("router", choose))).to_dict()
    assert plain["outputs"] == {"router": {"status": "ok", "data": {"n": 1}, "label": "left"}}


async def test_a_partial_result_is_a_snapshot_of_that_moment(autojump_clock):
    pipeline = Pipeline("p").with_stage("a", fetch).with_stage("b", forever).with_stage("c", nothing, dependencies="b")
    async with Supervisor(identify=lambda: IDENTITY) as supervisor:
        run = supervisor.start(pipeline)
        before = run.partial()
        await trio.sleep(2)
        partial = run.partial()
        run.cancel("enough")
        final = await run.result()
    assert set(before.states.values()) == {StageState.PENDING}
    assert len(before) == 0
    assert partial.states == {"a": StageState.OK, "b": StageState.RUNNING, "c": StageState.PENDING}
    assert partial.data("a") == {"rows": (1, 2)}
    assert partial.ended.ending is RunEnding.UNFINISHED
    assert not partial.ok
    assert list(partial.timings) == ["a"]
    with pytest.raises(NoOutputError, match="stage 'b': it has no output: running"):
        partial["b"]
    with pytest.raises(NoOutputError, match="stage 'c': it has no output: pending"):
        partial["c"]
    assert final.states["b"] is StageState.CANCELLED
    assert run.partial() is final
    json.dumps(partial.to_dict(), allow_nan=False)


def test_a_ledger_balances_when_nothing_is_lost_or_counted_twice():
    assert all(ledger.balanced for ledger in (Ledger(), Ledger(6, 3, 2, 1), Ledger(2, 1, 0, 1)))
    assert not any(ledger.balanced for ledger in (Ledger(1, 0, 0, 0), Ledger(1, 1, 1, 0), Ledger(0, 0, 0, 1)))
