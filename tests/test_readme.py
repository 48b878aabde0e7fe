"""What stands beside the code: the README's commands, CI, the changelog."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def read_project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("marker", ["run", "tests"])
def test_a_command_is_one_line_to_paste(marker):
    found = re.findall(rf"<!-- command: {marker} -->\n```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1
    (block,) = found
    assert block.count("\n") == 1
    assert block.startswith("python3 -m venv .venv && .venv/bin/pip install --quiet --editable ")


def test_the_commands_stand_near_the_top():
    assert README.read_text(encoding="utf-8").index("<!-- command: tests -->") < 2500


def test_the_commands_install_extras_that_exist():
    used = set(re.findall(r"--editable '\.\[(\w+)\]'", README.read_text(encoding="utf-8")))
    assert used == {"cli", "dev"}
    assert used <= set(read_project()["optional-dependencies"])


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_ci_runs_the_readmes_command():
    """It takes the line under the marker, so that the two cannot drift."""
    found = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run"), "--show-command"], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.count("\n") == 1
    assert f"<!-- command: tests -->\n```sh\n{found.stdout}```" in README.read_text(encoding="utf-8")


def test_the_changelog_has_a_heading_for_the_present_version():
    """Keep a Changelog: a version is either released, with its date, or still under Unreleased."""
    text = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading) for heading in headings[1:])
    released = [heading.split("]")[0][1:] for heading in headings[1:]]
    assert not released or released[0] == read_project()["version"]
