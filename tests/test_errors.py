"""Every exception: where it stands among others, what it says, what it carries, and that it pickles."""

from __future__ import annotations

import copy
import inspect
import pickle
from functools import partial

import pytest
import trio

from stageflow_actors import Attempt, Pipeline, StageOutput, StageState, errors
from stageflow_actors.errors import (
    ActorDeadError,
    ActorError,
    ActorStartError,
    ActorUnavailableError,
    AskTimeoutError,
    ContractError,
    ControlError,
    CycleDetectedError,
    InjectedError,
    ItemFailedError,
    LedgerError,
    LinearizabilityError,
    MailboxFullError,
    MissingExtraError,
    MissingKeyError,
    NoOutputError,
    NotFreezableError,
    NotJSONError,
    NotPicklableError,
    NurseryLeftOpenError,
    OverloadedError,
    PipelineFailedError,
    PipelineValidationError,
    RaceError,
    RemoteError,
    ReplayError,
    RestartIntensityError,
    StageFailedError,
    StageflowError,
    StageReturnTypeError,
    StageTimeoutError,
    StrayCancelledError,
    SupervisorClosedError,
    ThreadAbandonedError,
    UndeclaredDependencyError,
    UnknownActorError,
    WorkerDiedError,
)

PLACE = {"pipeline": "report", "stage": "join", "attempt": 2, "actor": "model", "hint": "do this"}

# Class: its nearest base here, a built-in that catches it too, and what it carries beside the place.
CLASSES = {
    StageflowError: (Exception, Exception, {}),
    PipelineValidationError: (StageflowError, ValueError, {}),
    CycleDetectedError: (PipelineValidationError, ValueError, {"cycle": ("a", "b", "a")}),
    ContractError: (StageflowError, Exception, {}),
    StageReturnTypeError: (ContractError, TypeError, {}),
    NotFreezableError: (ContractError, TypeError, {"path": "data['rows'][3]"}),
    NotJSONError: (StageflowError, TypeError, {"path": "data['rows'][3]"}),
    UndeclaredDependencyError: (ContractError, LookupError, {}),
    NurseryLeftOpenError: (ContractError, RuntimeError, {}),
    StrayCancelledError: (ContractError, Exception, {}),
    NoOutputError: (StageflowError, KeyError, {}),
    MissingKeyError: (StageflowError, KeyError, {}),
    StageFailedError: (StageflowError, Exception, {"output": StageOutput.fail("no", {"a": [1]})}),
    StageTimeoutError: (StageflowError, TimeoutError, {"seconds": 2.5}),
    RestartIntensityError: (
        StageflowError,
        Exception,
        {"attempts": (Attempt(1, 0.5, 1.0, None),), "max_restarts": 3, "within": 60.0},
    ),
    OverloadedError: (StageflowError, Exception, {"limit": 64, "max_queued": 100}),
    MailboxFullError: (OverloadedError, Exception, {"limit": 4, "max_queued": 64}),
    ActorError: (StageflowError, Exception, {}),
    ActorStartError: (ActorError, Exception, {}),
    AskTimeoutError: (ActorError, TimeoutError, {"seconds": 2.5}),
    ActorDeadError: (ActorError, Exception, {}),
    ActorUnavailableError: (ActorError, Exception, {}),
    UnknownActorError: (ActorError, LookupError, {}),
    ItemFailedError: (StageflowError, Exception, {"index": 17, "escalates": True}),
    ThreadAbandonedError: (StageflowError, Exception, {"seconds": 2.5}),
    SupervisorClosedError: (StageflowError, RuntimeError, {}),
    WorkerDiedError: (StageflowError, Exception, {"exitcode": -9}),
    RemoteError: (StageflowError, Exception, {"kind": "OddError", "traceback": "Traceback"}),
    NotPicklableError: (ContractError, TypeError, {}),
    LedgerError: (StageflowError, Exception, {"result": None}),
    MissingExtraError: (StageflowError, ImportError, {"extra": "cli"}),
    RaceError: (StageflowError, AssertionError, {"failure": None, "report": None}),
    LinearizabilityError: (StageflowError, AssertionError, {"violation": None}),
    ReplayError: (StageflowError, Exception, {}),
    ControlError: (StageflowError, RuntimeError, {}),
    InjectedError: (StageflowError, Exception, {}),
}


async def fail(ctx):
    raise ValueError("boom")


@pytest.fixture(scope="module")
def failed():
    """The error of a run whose only stage failed."""
    result = trio.run(partial(Pipeline("report").with_stage("join", fail).run, continue_on_failure=True))
    with pytest.raises(PipelineFailedError) as caught:
        result.raise_for_failures()
    return caught.value


def test_the_table_has_every_class():
    found = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, BaseException)}
    assert found == {*CLASSES, PipelineFailedError}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_stands_where_it_is_promised_to(cls):
    base, builtin, _ = CLASSES[cls]
    assert cls.__mro__[1] is base
    assert issubclass(cls, builtin)
    assert issubclass(cls, (StageflowError, Exception))
    assert cls.__name__.endswith("Error")
    assert cls.__doc__
    assert not issubclass(StageflowError, (ValueError, TypeError, LookupError, OSError, RuntimeError))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("through", ["built-in", "base", "itself"])
def test_except_finds_it(cls, through):
    catch = {"built-in": CLASSES[cls][1], "base": StageflowError, "itself": cls}[through]
    with pytest.raises(catch) as caught:
        raise cls("it is odd", **PLACE)
    assert type(caught.value) is cls


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "it is odd"),
        ({"hint": "do this"}, "it is odd; do this"),
        ({"stage": "join"}, "stage 'join': it is odd"),
        ({"pipeline": "report"}, "pipeline 'report': it is odd"),
        ({"pipeline": "report", "stage": "join"}, "pipeline 'report', stage 'join': it is odd"),
        ({"actor": "ingest/model"}, "actor 'ingest/model': it is odd"),
        (PLACE, "pipeline 'report', stage 'join', actor 'model': it is odd; do this"),
        ({"pipeline": "it's"}, 'pipeline "it\'s": it is odd'),
    ],
)
def test_the_message_says_where_what_and_what_to_do(cls, place, text):
    error = cls("it is odd", **place)
    assert str(error) == text
    assert error.describe() == ("it is odd; do this" if "hint" in place else "it is odd")
    assert repr(error) == f"{cls.__name__}('it is odd')"


@pytest.mark.parametrize("cls", CLASSES)
def test_the_same_facts_are_attributes(cls):
    carried = CLASSES[cls][2]
    error = cls("it is odd", **PLACE, **carried)
    assert error.problem == "it is odd"
    assert {name: getattr(error, name) for name in PLACE} == PLACE
    assert {name: getattr(error, name) for name in carried} == carried
    bare = cls("it is odd")
    assert [getattr(bare, name) for name in PLACE] == [None] * 5


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "twin", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
def test_pickling_and_copying_keep_everything(cls, twin):
    carried = CLASSES[cls][2]
    error = cls("it is odd", **PLACE, **carried)
    back = twin(error)
    assert type(back) is cls
    assert str(back) == str(error)
    assert {name: getattr(back, name) for name in (*PLACE, *carried)} == {**PLACE, **carried}
    assert back.problem == error.problem
    assert back.args == error.args == ("it is odd",)


@pytest.mark.parametrize("cls", CLASSES)
def test_everything_but_the_problem_is_keyword_only(cls):
    with pytest.raises(TypeError):
        cls("it is odd", "report")
    with pytest.raises(TypeError):
        cls()


def test_an_error_learns_its_place_once():
    error = StageflowError("it is odd", stage="inner")
    error.locate(pipeline="report", stage="join", attempt=1)
    assert str(error) == "pipeline 'report', stage 'inner': it is odd"
    assert error.attempt == 1
    error.locate(pipeline="other", stage="other", attempt=2)
    assert (error.pipeline, error.stage, error.attempt) == ("report", "inner", 1)


def test_notes_survive_pickling():
    error = StageflowError("it is odd")
    error.add_note("seen at noon")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen at noon"]


# The error of a failed run


def test_a_failed_run_is_a_plain_exception(failed):
    assert type(failed).__mro__[1] is StageflowError
    assert not isinstance(failed, BaseExceptionGroup)
    assert str(failed) == "pipeline 'report', stage 'join': ValueError: boom"
    assert (failed.pipeline, failed.stage) == ("report", "join")


def test_a_failed_run_carries_its_result_and_failures(failed):
    assert failed.result.states == {"join": StageState.FAILED}
    assert failed.failures == failed.result.failures
    assert str(failed.failures["join"].error) == "boom"
    assert isinstance(failed.__cause__, ExceptionGroup)
    assert failed.__cause__.exceptions == (failed.failures["join"].error,)


def test_a_failed_run_pickles_with_its_result(failed):
    for back in (pickle.loads(pickle.dumps(failed)), copy.copy(failed)):
        assert type(back) is PipelineFailedError
        assert str(back) == str(failed)
        assert back.result.states == failed.result.states
        assert back.result.run_id == failed.result.run_id
        assert str(back.failures["join"].error) == "boom"
        assert (back.pipeline, back.stage, back.hint) == ("report", "join", None)


def test_errors_of_the_runtime_read_well_when_python_prints_them():
    """`KeyError` shows the repr of its argument by itself, which is no sentence."""
    assert str(NoOutputError("there is no stage 'x' in this run")) == "there is no stage 'x' in this run"
    assert str(MissingKeyError("no key 'x'", hint="did you mean 'y'?")) == "no key 'x'; did you mean 'y'?"
