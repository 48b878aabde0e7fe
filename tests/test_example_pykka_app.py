"""`examples/pykka_app`: driven from outside, as a user does; what it prints, and what is in the file that it keeps."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
STDLIB = Path(sysconfig.get_paths()["stdlib"]).resolve()


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "pykka_app", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES.parent}{os.pathsep}{EXAMPLES}", "COLUMNS": "120"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(*arguments: object) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate()
    return process.returncode, out, err


def read(database: Path, folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the rows of the catalogue, by the files' names in the folder."""
    connection = sqlite3.connect(database)
    try:
        rows = connection.execute("SELECT path, lines, functions, classes FROM files").fetchall()
    finally:
        connection.close()
    return {str(Path(path).relative_to(folder)): tuple(numbers) for path, *numbers in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    (folder / "deeper").mkdir(parents=True)
    (folder / "one.py").write_text("def f(): pass\n\nasync def g(): pass\n")
    (folder / "deeper" / "two.py").write_text("class C:\n    def m(self): pass\n")
    (folder / "notes.txt").write_text("def no(): pass\n")
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


def test_it_reads_a_package_of_the_standard_library(database: Path) -> None:
    code, out, err = run("--database", database)
    assert (code, err) == (0, "")
    rows = read(database, STDLIB / "email")
    assert "message.py" in rows
    assert all(lines > functions for lines, functions, _ in rows.values() if lines)
    lines = out.splitlines()
    assert lines[0].startswith(f"{len(rows)} new or changed files in ")
    assert f"{len(rows)} of {len(rows)} files read, 0 failed" in lines
    assert lines[-3] == "scan completed"
    assert lines[-2].startswith(f"{len(rows)} files in {database}: ")
    assert lines[-1] == "all actors have stopped"


def test_the_next_scan_reads_what_has_changed(folder: Path, database: Path) -> None:
    code, out, _ = run(folder, "--database", database)
    assert code == 0
    assert read(database, folder) == {"one.py": (3, 2, 0), "deeper/two.py": (2, 1, 1)}
    assert out.splitlines()[-2] == f"2 files in {database}: 5 lines, 3 functions, 1 classes"
    (folder / "one.py").write_text("x = 1\n")
    os.utime(folder / "one.py", (1, 1))
    (folder / "three.py").write_text("")
    code, out, _ = run(folder, "--database", database)
    assert code == 0
    assert out.startswith(f"2 new or changed files in {folder}\n")
    assert read(database, folder) == {"one.py": (1, 0, 0), "deeper/two.py": (2, 1, 1), "three.py": (0, 0, 0)}
    code, out, _ = run(folder, "--database", database)
    assert code == 0
    assert out.startswith(f"0 new or changed files in {folder}\n3 files in ")


def test_files_that_cannot_be_read_are_named_and_cost_no_other(folder: Path, database: Path) -> None:
    (folder / "broken.py").write_text("def f(:\n")
    code, out, err = run(folder, "--database", database)
    assert (code, err) == (1, "")
    assert "3 of 3 files read, 1 failed\n" in out
    assert re.search(r"\n  FAILED broken\.py: invalid syntax .*\n", out)
    assert set(read(database, folder)) == {"one.py", "deeper/two.py"}


def test_an_interrupt_keeps_what_was_read_and_stops_everything_in_order(folder: Path, database: Path) -> None:
    """At this rate the scan would take minutes: nothing else can end it."""
    for number in range(200):
        (folder / f"file{number:03}.py").write_text("x = 1\n" * number)
    process = start(folder, "--database", database, "--rate", 30)
    assert process.stdout is not None
    for line in process.stdout:
        if " of 202 files read" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert err == ""
    assert process.returncode == 130
    lines = out.splitlines()
    rows = read(database, folder)
    assert 20 <= len(rows) < 202
    assert "stopping" in lines
    assert "scan cancelled: interrupted" in lines
    assert f"kept the {len(rows)} files that had been read" in lines
    assert lines[-2].startswith(f"{len(rows)} files in {database}: ")
    assert lines[-1] == "all actors have stopped"


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    database = tmp_path / "nowhere" / "catalogue.db"
    code, out, err = run("--database", database)
    assert (code, out) == (1, "")
    assert err == f"Error: {database}: unable to open database file\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "Directory 'nowhere' does not exist"),
        (["--rate", "0"], "Invalid value for '--rate'"),
        (["--other"], "No such option"),
    ],
)
def test_bad_arguments_start_nothing(arguments: list[str], told: str, tmp_path: Path) -> None:
    code, out, err = run(*arguments, "--database", tmp_path / "catalogue.db")
    assert (code, out) == (2, "")
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_it_explains_itself() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: pykka_app [OPTIONS] [FOLDER]\n")
    assert "--rate" in out
