"""The commands in the documents that run the file which the reader has made show what is below them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from document_blocks import DOCUMENTS, ROOT, find_blocks, name, normalise, read


def find_commands(path):
    blocks = find_blocks(read(path))
    return [block for block in blocks if block.language == "sh" and block.file and block.shown is not None]


def run(command, directory):
    program, *arguments = shlex.split(command)
    if program == ".venv/bin/python":
        return run_python(arguments, directory)
    assert program == ".venv/bin/pytest"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV", "CI"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "_stageflow_actors_pytest", *arguments],
        cwd=directory,
        env={**kept, "COLUMNS": "80", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # those of others take seconds to import
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not done.stderr
    return done.stdout


def run_python(arguments, directory):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if find_commands(path)], ids=name)
def test_commands_show_what_is_below_them(path, tmp_path):
    for block in find_commands(path):
        (tmp_path / block.file).write_text(block.before, encoding="utf-8")
        assert normalise(run(block.text, tmp_path)) == normalise(block.shown), block.text
