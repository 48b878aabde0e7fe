"""What the package shows: names, modules, documentation, and what importing it costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import traceback
from pathlib import Path

import attrs
import pytest

import stageflow_actors
from stageflow_actors import errors, events, statistics

PUBLIC_MODULES = {"cli", "embed", "errors", "events", "placement", "statistics", "testing"}
NAMES = stageflow_actors.__all__
OBJECTS = [getattr(stageflow_actors, name) for name in NAMES]
CLASSES = [thing for thing in OBJECTS if inspect.isclass(thing)]
FUNCTIONS = [thing for thing in OBJECTS if inspect.isfunction(thing)]


def defined_in(module):
    """The public classes that a module defines or, being at the root too, shows under the root's name."""
    return {
        name: thing
        for name, thing in vars(module).items()
        if inspect.isclass(thing)
        and not name.startswith("_")
        and (thing.__module__ == module.__name__ or getattr(stageflow_actors, name, None) is thing)
    }


ERRORS = defined_in(errors)
EVENTS = defined_in(events)


# The root


def test_the_root_lists_its_names_in_order_and_not_too_many():
    assert sorted(NAMES) == NAMES
    assert len(set(NAMES)) == len(NAMES) <= 45


def test_nothing_else_is_public_at_the_root():
    program = "import json, stageflow_actors; print(json.dumps(dir(stageflow_actors)))"
    public = {name for name in json.loads(run(program)) if not name.startswith("_")}
    assert public - set(NAMES) <= PUBLIC_MODULES
    assert set(NAMES) <= public


def test_star_imports_give_what_is_listed():
    namespace = {}
    exec("from stageflow_actors import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(NAMES)


def test_every_name_of_the_contract_is_there():
    """Those of the runtime; each later part of the library adds its own."""
    contract = """ContextSnapshot ParallelPipelineFactory Pipeline PipelineFailedError PipelineValidationError
    Run RunResult StageContext StageFailure StageInputs StageKind StageOutput StageSpec StageState StageStatus
    StageTimeoutError StageflowError Supervisor Trigger parallel_stages register_freezer route Attempt Ledger
    ActorRef Mailbox"""
    assert set(contract.split()) <= set(NAMES)


def test_classes_and_functions_say_where_they_are_imported_from():
    for thing in (*CLASSES, *FUNCTIONS):
        assert thing.__module__ == "stageflow_actors"
        assert getattr(stageflow_actors, thing.__qualname__) is thing


def test_a_traceback_shows_the_public_name():
    with pytest.raises(stageflow_actors.PipelineValidationError) as caught:
        stageflow_actors.Pipeline("")
    shown = traceback.format_exception_only(caught.value)[-1]
    assert shown.startswith("stageflow_actors.PipelineValidationError: the name of a pipeline")
    assert repr(stageflow_actors.Pipeline) == "<class 'stageflow_actors.Pipeline'>"


# Errors and events


def test_errors_live_in_a_public_module():
    assert set(ERRORS) >= {"StageflowError", "CycleDetectedError", "NotFreezableError", "LedgerError"}
    for name, cls in ERRORS.items():
        assert issubclass(cls, errors.StageflowError)
        assert name.endswith("Error")
        assert cls.__module__ in {"stageflow_actors", "stageflow_actors.errors"}


def test_events_live_in_a_public_module_and_are_frozen():
    assert set(EVENTS) >= {"StageStarted", "StageEnded", "StageEmitted", "RunEnded"}
    for cls in EVENTS.values():
        assert cls.__module__ == "stageflow_actors.events"
        of_run = cls in events.Event.__args__
        assert [field.name for field in attrs.fields(cls)][:2] == ["run_id" if of_run else "actor", "at"]
        event = cls(*range(len(attrs.fields(cls))))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            event.at = 1.0


def test_the_unions_of_events_have_every_event():
    actors = set(events.ActorEvent.__args__)
    assert not actors & set(events.Event.__args__)
    assert actors | set(events.Event.__args__) | {events.DeadLetter} == set(EVENTS.values())


def test_statistics_live_in_a_public_module_and_are_frozen():
    found = defined_in(statistics)
    known = {"ActorLedger", "ActorStatistics", "LimiterStatistics", "RunStatistics", "SupervisorStatistics"}
    assert set(found) == known
    for cls in found.values():
        made = cls(*range(len(attrs.fields(cls))))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(made, attrs.fields(cls)[0].name, 1)


# Documentation


def members(cls):
    """The public methods and properties that a class of ours defines."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "stageflow_actors":
            for name, member in vars(base).items():
                if not name.startswith("_") and (callable(member) or isinstance(member, (property, classmethod))):
                    yield f"{cls.__name__}.{name}", member


@pytest.mark.parametrize(
    "thing", [*CLASSES, *FUNCTIONS, *ERRORS.values(), *EVENTS.values()], ids=lambda it: it.__name__
)
def test_everything_public_is_documented(thing):
    undocumented = (
        [name for name, member in members(thing) if not inspect.getdoc(member)] if inspect.isclass(thing) else []
    )
    assert undocumented == []
    text = inspect.getdoc(thing) or ""
    assert not text.startswith("Method generated by attrs")
    first = text.splitlines()[0] if text else ""
    assert first.endswith((".", "`"))
    assert len(first) <= 120


def test_the_package_and_its_public_modules_are_documented():
    for module in (stageflow_actors, errors, events):
        assert module.__doc__


def test_the_package_is_typed():
    assert (Path(stageflow_actors.__file__).parent / "py.typed").is_file()


# The price of an import

ALLOWED = {
    "_cffi_backend",
    "attr",
    "attrs",
    "cffi",
    "idna",
    "outcome",
    "sniffio",
    "sortedcontainers",
    "stageflow_actors",
    "trio",
}
"""Ours, the three dependencies, and what these need themselves."""
HEAVY = [
    "asyncio",
    "multiprocessing",
    "concurrent.futures.process",
    "unittest",
    "doctest",
    "pdb",
    "sqlite3",
    "http.server",
    "tkinter",
    "xml",
    "pykka",
    "trio_asyncio",
    "hypothesis",
    "ray",
    "sqlalchemy",
    "click",
    "rich",
    "pytest",
    "numpy",
    "stageflow",
]


def run(program):
    """Run a program in a fresh interpreter, where nothing but the package is imported."""
    root = Path(stageflow_actors.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    return done.stdout


@pytest.fixture(scope="module")
def imported():
    """The modules that importing the package adds to a bare interpreter."""
    program = """if True:
        import json, sys
        before = set(sys.modules)
        import stageflow_actors
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    return json.loads(run(program))


def test_importing_it_brings_its_three_dependencies_and_nothing_else(imported):
    packages = {name.partition(".")[0] for name in imported}
    assert packages - set(sys.stdlib_module_names) <= ALLOWED
    assert {"attrs", "trio", "outcome"} <= packages


@pytest.mark.parametrize("module", HEAVY)
def test_importing_it_does_not_bring(imported, module):
    assert module not in imported


def test_optional_parts_are_imported_only_when_asked_for(imported):
    ours = {name.split(".")[1] for name in imported if name.startswith("stageflow_actors.")}
    assert {name for name in ours if not name.startswith("_")} == {"errors", "events", "statistics"}


def test_importing_it_has_no_side_effects():
    program = """if True:
        import logging, signal, sys, threading, warnings
        def look():
            return (
                threading.active_count(), list(warnings.filters), sys.getrecursionlimit(), sys.excepthook,
                signal.getsignal(signal.SIGINT), logging.getLogger().handlers[:], logging.getLogger().level,
            )
        import attrs, trio, outcome
        before = look()
        import stageflow_actors
        assert look() == before
        assert logging.getLogger("stageflow_actors").level == logging.NOTSET
    """
    assert run(program) == ""
