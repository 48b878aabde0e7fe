"""What `carry=` names: how it is found in a worker, and what is said where it is not."""

from __future__ import annotations

import contextvars
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import placed_stages as stages
import pytest

from stageflow_actors.errors import NotPicklableError, StageflowError
from stageflow_actors.placement import Carrier
from stageflow_actors.placement._carrying import make_carrier


@pytest.fixture
def late(monkeypatch, tmp_path):
    """A module of context variables that can be imported, and can be forgotten."""
    (tmp_path / "late_variables.py").write_text(
        "from contextvars import ContextVar\nrequest = ContextVar('request id')\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("late_variables")
    sys.modules.pop("late_variables", None)


def restore(carrier, captured):
    """Restore something as a worker does, where it comes to as bytes."""
    pickle.loads(pickle.dumps(carrier.restore))(captured)


def test_a_variable_is_taken_along_with_its_value():
    def change():
        carrier = make_carrier(stages.carried)
        assert carrier.capture() == ()
        stages.carried.set("here")
        captured = carrier.capture()
        stages.carried.set("there")
        restore(carrier, captured)
        assert stages.carried.get() == "here"
        restore(carrier, ())
        assert stages.carried.get() == "here"

    contextvars.Context().run(change)


def test_a_variable_of_a_module_that_a_worker_has_not_imported_is_imported(late):
    carrier = make_carrier(late.request)
    del sys.modules["late_variables"]

    def look():
        restore(carrier, ("r-7",))
        return sys.modules["late_variables"].request.get()

    assert contextvars.Context().run(look) == "r-7"


def test_a_variable_that_the_program_imports_is_found_where_it_comes_from(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "imported", stages.request, raising=False)
    assert next(iter(sys.modules)) != "placed_stages"
    assert make_carrier(stages.request).restore.args == ("placed_stages", "request")


PROGRAM = """
import trio
import placed_stages
from contextvars import ContextVar
from stageflow_actors import Pipeline
from stageflow_actors.placement import processes

own = ContextVar("own", default="none")

def look(ctx):
    return {"own": own.get(), "request": placed_stages.request.get()}

if __name__ == "__main__":
    from placed_stages import request

    own.set("o-7")
    request.set("r-7")
    run = Pipeline("p").with_stage("a", look, placement=processes(1, carry=[own, request])).run
    print(dict(trio.run(run).data("a")))
"""


def test_variables_of_the_program_and_of_its_modules_are_found_in_a_process(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("{'own': 'o-7', 'request': 'r-7'}\n", "")


HINT = "make it a global of a module that is imported everywhere"


def test_a_variable_that_is_not_there_is_named(late, monkeypatch):
    carrier = make_carrier(late.request)
    monkeypatch.delattr(late, "request")
    with pytest.raises(NotPicklableError) as caught:
        restore(carrier, ("r-7",))
    problem = "its worker process does not find the context variable 'request' of late_variables: "
    reason = "AttributeError: module 'late_variables' has no attribute 'request'"
    assert str(caught.value) == f"{problem}{reason}; {HINT}"


def test_a_variable_whose_module_is_not_there_is_named(late):
    carrier = make_carrier(late.request)
    del sys.modules["late_variables"]
    Path(late.__file__).unlink()
    importlib.invalidate_caches()
    restore(carrier, ())
    with pytest.raises(NotPicklableError) as caught:
        restore(carrier, ("r-7",))
    problem = "its worker process does not find the context variable 'request' of late_variables: "
    reason = "ModuleNotFoundError: No module named 'late_variables'"
    assert str(caught.value) == f"{problem}{reason}; {HINT}"


class Broken:
    """Something that is called and has no name."""

    def __call__(self, *_):
        raise OSError("no network")

    def __repr__(self):
        return "Broken()"


def break_down(*_):
    raise OSError("no network")


@pytest.mark.parametrize(("function", "name"), [(break_down, "break_down"), (Broken(), "Broken()")])
def test_a_carrier_that_raises_is_named(function, name):
    carrier = make_carrier(Carrier(function, function))
    with pytest.raises(StageflowError) as caught:
        carrier.capture()
    assert str(caught.value) == f"capture of its Carrier, {name}, raised OSError: no network"
    assert type(caught.value) is StageflowError
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(StageflowError) as caught:
        restore(carrier, "value")
    assert str(caught.value) == f"restore of its Carrier, {name}, raised OSError: no network"
