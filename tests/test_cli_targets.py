"""What `stageflow-actors run` is pointed at: targets and their settings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_project import MIXED, make_project, run

if TYPE_CHECKING:
    from click.testing import Result


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_project(tmp_path, monkeypatch)


# Targets


@pytest.mark.parametrize(
    "target", ["mixed.py", "mixed.py:pipeline", "./mixed.py", "mixed", "mixed:pipeline", "{folder}/mixed.py"]
)
def test_a_target_is_a_file_or_a_module_with_or_without_a_name(target: str, folder: Path) -> None:
    result = run(target.format(folder=folder))
    assert result.exit_code == 0
    assert "fine completed (1 stage ran" in result.stdout


def test_a_module_in_a_package_is_a_target(folder: Path) -> None:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "inner.py").write_text(MIXED, encoding="utf-8")
    assert run("package.inner:taken_up").exit_code == 0


def test_a_file_finds_the_modules_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "beside_it.py").write_text(MIXED, encoding="utf-8")
    (folder / "elsewhere" / "main.py").write_text("from beside_it import pipeline\n", encoding="utf-8")
    assert run("elsewhere/main.py").exit_code == 0


def test_a_file_that_is_called_like_a_loaded_module_does_not_take_its_place(folder: Path) -> None:
    (folder / "json.py").write_text(MIXED, encoding="utf-8")
    assert run("json.py").exit_code == 0
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mixd.py", "mixd.py: there is no such file; did you mean 'mixed.py'?"),
        ("nowhere/mixed.py", "nowhere/mixed.py: there is no folder 'nowhere'"),
        ("{folder}", "{folder}: it is a folder"),
        ("{folder}x/mixed.py", "there is no folder '{folder}x'; did you mean '{name}'?"),
        ("./mixed", "mixed: there is no such file; did you mean 'mixed.py'?"),
        ("./notes.txt", "notes.txt: it is no Python file; its name does not end in .py"),
        ("no such thing", "'no such thing' is neither a file nor the name of a module; write path/to/file.py"),
        ("mixd:loose", "there is no module 'mixd'; a file is named with its .py"),
        ("mixed.inner:loose", "there is no module 'mixed.inner'"),
        ("mixed.py:looose", "mixed.py has no 'looose'; did you mean 'loose'?"),
        ("mixed.py:xyz", "mixed.py has no 'xyz'; say which to run: mixed.py:pipeline"),
        ("empty_file.py", "empty_file.py has no 'pipeline'; a target is a Pipeline, or a function that returns one"),
        ("mixed.py:number", "mixed.py:number is 42, not a Pipeline or a function that returns one"),
        ("mixed.py:Thing", "mixed.py:Thing is <class 'mixed.Thing'>, not a Pipeline"),
        ("mixed.py:wrong", "mixed.py:wrong() returned 3, not a Pipeline"),
        ("mixed.py:late", "mixed.py:late is an async function; define it with a plain `def`"),
        ("mixed.py:empty", "pipeline 'empty': it has no stages"),
        ("mixed.py:cyclic", "pipeline 'cyclic': its stages wait for each other"),
    ],
)
def test_a_wrong_target_is_one_clear_line(target: str, message: str, folder: Path) -> None:
    (folder / "notes.txt").touch()
    (folder / "empty_file.py").touch()
    result = run(target.format(folder=folder))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message.format(folder=folder, name=folder.name) in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("target", ["broken.py", "broken"])
@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def pipeline(:\n", "SyntaxError: "),
        ("def pipeline():\n    return {}['key']\n", "KeyError: 'key'"),
    ],
)
def test_an_error_in_the_users_file_is_shown_with_their_lines_alone(
    target: str, source: str, error: str, folder: Path
) -> None:
    (folder / "broken.py").write_text(source, encoding="utf-8")
    result = run(target)
    assert result.exit_code == 2
    assert error in result.stderr
    assert f'File "{folder / "broken.py"}", line {len(source.splitlines())}' in result.stderr
    assert "stageflow_actors" not in result.stderr
    assert "importlib" not in result.stderr


# Settings


def read_given(result: Result, folder: Path) -> dict[str, object]:
    assert result.exit_code == 0, result.stderr
    data = json.loads((folder / "out.json").read_text(encoding="utf-8"))["outputs"]["tell"]["data"]
    assert isinstance(data, dict)
    return data


def test_settings_are_converted_by_annotation_and_kept_as_written(folder: Path) -> None:
    written = {"count": "3", "label": "a=b", "ratio": "1e3", "loud": "Yes", "root": "some/where", "limit": "-1"}
    settings = [part for key, value in written.items() for part in ("--set", f"{key}={value}")]
    data = read_given(run("mixed.py:typed", *settings, "--json", "out.json"), folder)
    assert data == {"given": repr((3, "a=b", 1000.0, True, Path("some/where"), -1)), **written}


def test_defaults_are_honoured(folder: Path) -> None:
    data = read_given(run("mixed.py:typed", "--set", "count=1", "--json", "out.json"), folder)
    assert data["given"] == repr((1, "x", 0.5, False, Path(), None))


def test_without_annotations_the_defaults_tell_the_type(folder: Path) -> None:
    settings = ["--set", "start=2", "--set", "word=3", "--set", "anything=4"]
    data = read_given(run("mixed.py:untyped", *settings, "--json", "out.json"), folder)
    assert data["given"] == repr((2, "3", "4"))


def test_settings_of_a_ready_pipeline_are_in_the_snapshot(folder: Path) -> None:
    assert run("mixed.py", "--set", "day=monday", "--json", "out.json").exit_code == 0
    written = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert written["outputs"]["good"]["data"] == {"settings": {"day": "monday"}}


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("typed", [], "typed() needs 'count', a whole number; give it: --set count=VALUE"),
        ("typed", ["coumt=1"], "--set coumt=1: typed() has no parameter 'coumt'; did you mean 'count'?"),
        ("typed", ["q=1"], "has no parameter 'q'; it takes count, label, ratio, loud, root, limit"),
        ("raising", ["q=1"], "raising() has no parameter 'q'; it takes none"),
        ("typed", ["count=three"], "parameter 'count' of typed() must be a whole number, not 'three'"),
        ("typed", ["count=1", "loud=maybe"], "parameter 'loud' of typed() must be true or false, not 'maybe'"),
        ("typed", ["count=1", "ratio=half"], "parameter 'ratio' of typed() must be a number, not 'half'"),
        ("typed", ["count=1", "limit="], "parameter 'limit' of typed() must be a whole number, not ''"),
        ("strange", ["when=1"], "--set cannot make the complex that parameter 'when' of strange() wants"),
        ("unreadable", [], "the annotations of unreadable() cannot be read: NameError: name 'Nowhere' is not defined"),
        ("typed", ["count"], "must be KEY=VALUE, not 'count'"),
        ("typed", ["=1"], "must be KEY=VALUE, not '=1'"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(target: str, settings: list[str], message: str) -> None:
    result = run(f"mixed.py:{target}", *(part for setting in settings for part in ("--set", setting)))
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
