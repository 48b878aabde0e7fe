"""Every example, run as a user runs it; and the main one, against what can be counted without it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BROKEN = EXAMPLES / "broken_sources"

Ran: TypeAlias = tuple[subprocess.CompletedProcess[str], dict[str, Any]]
Index: TypeAlias = Callable[[Path], Ran]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stageflow_actors.cli", "run", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)


@pytest.fixture(scope="module")
def run_example(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Run an example with its defaults, once for all tests."""
    folder = tmp_path_factory.mktemp("results")

    @cache
    def run(name: str) -> Ran:
        written = folder / f"{name}.json"
        process = run_command(str(EXAMPLES / name), "--json", str(written))
        return process, json.loads(written.read_text(encoding="utf-8"))

    return run


OWN_TESTS = {"crawl.py", "flaky_services.py", "model_server.py"}
"""Examples that start a server, and so are scripts of their own; see `test_example_*.py`."""


def test_every_example_has_tests() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == OWN_TESTS | {"source_index.py", "cpu_batch.py"}
    assert all((ROOT / "tests" / f"test_example_{name}").is_file() for name in OWN_TESTS)


@pytest.mark.parametrize("name", ["source_index.py", "cpu_batch.py"])
def test_every_example_of_the_command_runs(name: str, run_example: Callable[[str], Ran]) -> None:
    process, result = run_example(name)
    assert process.returncode == 0, process.stderr
    assert result["ended"] == {"ending": "completed", "reason": ""}
    assert " completed (" in process.stdout.splitlines()[-1]


# The main example, over the whole standard library


def list_sources(root: Path) -> dict[str, Path]:
    left_out = {"site-packages", "dist-packages", "__pycache__"}
    paths = (path for path in root.rglob("*.py") if not left_out & set(path.relative_to(root).parts))
    return {path.relative_to(root).as_posix(): path for path in paths}


def list_standard_library() -> dict[str, Path]:
    broken = {f"broken_sources/{name}": path for name, path in list_sources(BROKEN).items()}
    return list_sources(Path(sysconfig.get_paths()["stdlib"])) | broken


def parses(path: Path) -> bool:
    """Return whether the compiler itself takes the file's bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return False
    return True


def test_every_file_of_the_standard_library_has_a_stage(run_example: Callable[[str], Ran]) -> None:
    _, result = run_example("source_index.py")
    sources = list_standard_library()
    assert len(sources) >= 500
    assert set(result["states"]) == set(sources) | {"join"}
    assert set(result["states"].values()) == {"ok", "failed"}
    assert result["states"]["join"] == "ok"


def test_what_does_not_parse_is_named_with_file_line_and_reason(run_example: Callable[[str], Ran]) -> None:
    process, result = run_example("source_index.py")
    sources = list_standard_library()
    failed = {name for name, state in result["states"].items() if state == "failed"}
    assert failed >= {f"broken_sources/{path.name}" for path in BROKEN.iterdir()}
    for name in failed:
        assert not parses(sources[name])
        reason = result["reasons"][name]
        assert re.fullmatch(rf"SourceError: {re.escape(name)}:[1-9]\d*: \S.*", reason)
        assert f"  FAILED {reason.removeprefix('SourceError: ')}\n" in process.stdout


def test_the_totals_are_those_of_an_independent_count(run_example: Callable[[str], Ran]) -> None:
    _, result = run_example("source_index.py")
    index = result["outputs"]["join"]["data"]
    ok = [path for name, path in list_standard_library().items() if result["states"][name] == "ok"]
    assert index["files"] == len(result["states"]) - 1
    assert index["modules"] == len(ok)
    assert index["bytes"] == sum(path.stat().st_size for path in ok)
    lines = 0
    for path in ok:
        with tokenize.open(path) as file:
            lines += sum(1 for _ in file)
    assert index["lines"] == lines
    assert sum(count for _, count in index["broken"]) == len(result["failures"])


def test_functions_and_classes_are_those_of_an_independent_count(run_example: Callable[[str], Ran]) -> None:
    _, result = run_example("source_index.py")
    for name, path in list_sources(Path(sysconfig.get_paths()["stdlib"])).items():
        if name.startswith(("asyncio/", "email/", "json/")):
            nodes = [type(node) for node in ast.walk(ast.parse(path.read_bytes()))]
            data = result["outputs"][name]["data"]
            assert data["functions"] == nodes.count(ast.FunctionDef) + nodes.count(ast.AsyncFunctionDef)
            assert data["classes"] == nodes.count(ast.ClassDef)


def test_the_report_and_nothing_else_reaches_the_terminal(run_example: Callable[[str], Ran]) -> None:
    process, _ = run_example("source_index.py")
    for title in ("Largest modules", "Most imported", "Lines per top-level package", "Import cycles", "Broken files"):
        assert title in process.stdout
    # Progress, and no warning about what the files hold.
    assert [line for line in process.stderr.splitlines() if not line.startswith("source-index: ")] == []


# The same in worker processes


def test_the_index_is_the_same_in_processes(run_example: Callable[[str], Ran]) -> None:
    _, threads = run_example("source_index.py")
    _, processes = run_example("cpu_batch.py")
    assert processes["states"] == threads["states"]
    assert processes["reasons"] == threads["reasons"]
    assert processes["outputs"] == threads["outputs"]


def test_the_index_is_the_same_where_workers_die(tmp_path: Path) -> None:
    options = ("--set", f"root={BROKEN.parent}", "--json")
    for name, more in (("fine", ()), ("crashed", ("--set", "crashes=4", "--set", "workers=2"))):
        process = run_command(str(EXAMPLES / "cpu_batch.py"), *options, str(tmp_path / f"{name}.json"), *more)
        assert process.returncode == 0, process.stderr
    fine, crashed = (json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("fine", "crashed"))
    assert crashed["outputs"] == fine["outputs"]
    assert process.stdout.count(" ok after WorkerDiedError: its worker process was killed by SIGKILL\n") == 4


# The main example, over a small tree

TREE = {
    "app/__init__.py": "from .core import run\n",
    "app/core.py": "from . import models, missing\nfrom .views.page import Page as P\nimport os.path, json\n",
    "app/models.py": "from ..app import core\nfrom app import *\n",
    "app/views/__init__.py": "",
    "app/views/page.py": "from ..models import Row\n\ndef show():\n    import app.views.other\n",
    "app/views/other.py": "from .page import Page\n",
    "left.py": "import right\n\nclass Left:\n    import right\n",
    "right.py": "try:\n    import left\nexcept ImportError:\n    left = None\n",
    "typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import used\n",
    "used.py": "# a comment\n\nimport typed\n\n\ndef used():\n    'A docstring.'\n",
    "broken.py": "def broken(:\n",
    "site-packages/other.py": "import left\n",
    "notes.txt": "import left\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "tree"


def index(root: Path) -> Ran:
    written = root.parent / "result.json"
    process = run_command(str(EXAMPLES / "source_index.py"), "--set", f"root={root}", "--json", str(written))
    return process, json.loads(written.read_text(encoding="utf-8"))


def test_the_import_graph_of_a_known_tree(tree: Path) -> None:
    process, result = index(tree)
    assert process.returncode == 0
    own = {name for name in result["states"] if not name.startswith("broken_sources/")}
    assert own == {name for name in TREE if name.endswith(".py") and "site-packages" not in name} | {"join"}
    imports = {name: output["data"].get("imports") for name, output in result["outputs"].items()}
    assert imports["app/core.py"] == ["app.missing", "app.models", "app.views.page.Page", "json", "os.path"]
    assert imports["app/models.py"] == ["app", "app.core"]
    assert imports["app/views/page.py"] == ["app.models.Row"]
    assert result["outputs"]["app/views/page.py"]["data"]["deferred_imports"] == ["app.views.other"]
    assert result["outputs"]["typed.py"]["data"]["deferred_imports"] == ["used"]
    found = result["outputs"]["join"]["data"]
    # The package is in its cycle: core asks it for `missing`, which is no module. `app.views.other` is not:
    # it is imported in a function; nor are `typed` and `used`, which only a type checker sees go round.
    assert found["cycles"] == [["app", "app.core", "app.models", "app.views.page"], ["left", "right"]]
    importers = dict(found["importers"])
    assert importers["app.core"] == 2
    assert importers["app.models"] == 2
    assert importers["app.views.page"] == 2
    assert ["app", 11] in found["packages"]
    assert found["largest"][0] == ["used", 7]
    assert "  FAILED broken.py:1: " in process.stdout


def test_the_measures_of_a_known_file(tree: Path) -> None:
    _, result = index(tree)
    data = result["outputs"]["used.py"]["data"]
    assert data == {
        "module": "used",
        "bytes": len(TREE["used.py"]),
        "lines": 7,
        "code": 3,
        "functions": 1,
        "classes": 0,
        "documentable": 2,
        "documented": 1,
        "imports": ["typed"],
        "deferred_imports": [],
    }


def test_a_root_inside_a_package_names_its_modules_in_full(tree: Path) -> None:
    _, result = index(tree / "app" / "views")
    assert result["outputs"]["page.py"]["data"]["module"] == "app.views.page"
    assert result["outputs"]["page.py"]["data"]["imports"] == ["app.models.Row"]


def test_the_broken_files_are_not_there_twice(tmp_path: Path) -> None:
    written = tmp_path / "result.json"
    run_command(str(EXAMPLES / "source_index.py"), "--set", f"root={BROKEN.parent}", "--json", str(written))
    states = json.loads(written.read_text(encoding="utf-8"))["states"]
    assert set(states) == {*list_sources(EXAMPLES), "join"}


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nowhere", "root '{root}' is no folder; name one: --set root=FOLDER"),
        ("nothing", "root '{root}' has no .py file in it; name one: --set root=FOLDER"),
    ],
)
def test_a_wrong_root_is_refused_before_anything_runs(root: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    process = run_command(str(EXAMPLES / "source_index.py"), "--set", f"root={tmp_path / root}")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr == f"Error: {message.format(root=tmp_path / root)}\n"


# Import cycles


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("source_index_under_test", EXAMPLES / "source_index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


find_cycles = load_example().find_cycles

NODES = "abcdefgh"


@given(st.dictionaries(st.sampled_from(NODES), st.sets(st.sampled_from(NODES))))
def test_cycles_are_the_groups_whose_members_reach_each_other(edges: dict[str, set[str]]) -> None:
    graph = {node: sorted(edges.get(node, ())) for node in NODES}
    reach = {node: set(graph[node]) for node in NODES}
    for middle in NODES:
        for node in NODES:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {tuple(sorted({node} | {other for other in reach[node] if node in reach[other]})) for node in NODES}
    expected = sorted((list(group) for group in groups if len(group) > 1), key=lambda group: (-len(group), group))
    assert find_cycles(graph) == expected


def test_a_cycle_may_be_longer_than_the_stack() -> None:
    size = 20_000
    graph = {f"{number:05}": [f"{(number + 1) % size:05}"] for number in range(size)}
    assert find_cycles(graph) == [sorted(graph)]
