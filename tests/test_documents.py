"""The documents: links lead somewhere, code prints what is shown below it, the reference leaves nothing out.

That the code in them runs at all is tested where the code stands, by sybil.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from itertools import pairwise
from pathlib import Path

import pytest

import stageflow_actors
from stageflow_actors import errors, events
from stageflow_actors.cli._commands import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path):
    return str(path.relative_to(ROOT))


def read(path):
    return path.read_text(encoding="utf-8")


# Links


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)", FENCE.sub("", read(path)))
    broken = [link for link, _ in links if not (path.parent / link).exists()]
    for link, anchor in links:
        target = path.parent / link if link else path
        if anchor and target.is_file() and anchor not in read_anchors(target):
            broken.append(f"{link}#{anchor}")
    assert broken == []


def read_anchors(path):
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", read(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(path):
    named = re.findall(r"(?<![\w./])(?:\.ci|benchmarks|docs|examples|property_tests|tests)/[\w./-]*\w", read(path))
    assert [file for file in named if not (ROOT / file).exists()] == []


def test_every_document_is_in_the_index():
    index = read(DOCS / "README.md")
    linked = {DOCS / link for link in re.findall(r"\]\(([^)]+)\)", index)}
    assert linked == {path for path in DOCUMENTS if path.is_relative_to(DOCS)} - {DOCS / "README.md"}


# Output


def find_shown_outputs(text):
    """Yield each Python block with what stands right below it as its output, or None."""
    for block, following in pairwise([*FENCE.finditer(text), None]):
        if block[1] == "python":
            below = following and following[1] == "text" and not text[block.end() : following.start()].strip()
            yield block[2], following[2] if below else None


def normalise(output):
    """Replace what differs from run to run: ids, and numbers that are times or rates."""
    output = re.sub(r"\b[0-9a-f]{32}\b", "ID", output)
    return re.sub(r"\d[\d,]*\.\d+|\d+(,\d{3})+|\d+(?= stages/s)", "N", output)


WITH_OUTPUT = [path for path in DOCUMENTS if any(shown is not None for _, shown in find_shown_outputs(read(path)))]


@pytest.mark.parametrize("path", WITH_OUTPUT, ids=name)
def test_code_prints_what_is_shown_below_it(path):
    namespace = {}
    for code, shown in find_shown_outputs(read(path)):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(path), "exec"), namespace)
        if shown is not None:
            assert normalise(printed.getvalue()) == normalise(shown)


# The reference


REFERENCE = FENCE.sub("", "\n".join(read(path) for path in sorted((DOCS / "reference").glob("*.md"))))
MARKED = {
    word
    for marked in re.finditer(r"`[^`]+`|^#+ .+$", REFERENCE, re.MULTILINE)
    for word in re.findall(r"--[\w-]+|\w+", marked[0])
}
"""The words in code marks and in headings."""


def public_classes(module):
    """Return the classes that a module defines for its users."""
    found = {key: value for key, value in vars(module).items() if not key.startswith("_") and inspect.isclass(value)}
    return {key: value for key, value in found.items() if value.__module__ == module.__name__}


def public_members(cls):
    return {member for member in vars(cls) if not member.startswith("_")}


def test_the_reference_has_every_public_name():
    names = {*stageflow_actors.__all__, *public_classes(errors), *public_classes(events), "Event"}
    assert sorted(names - MARKED) == []


@pytest.mark.parametrize("module", [stageflow_actors, errors, events], ids=lambda module: module.__name__)
def test_the_reference_has_every_public_member(module):
    missing = {key: sorted(public_members(cls) - MARKED) for key, cls in public_classes(module).items()}
    assert {key: members for key, members in missing.items() if members} == {}


def test_the_reference_has_every_command_and_option():
    commands = [("run", cli.commands["run"]), ("bench dag005", cli.commands["bench"].commands["dag005"])]
    assert set(cli.commands) == {"run", "bench"}
    for title, command in commands:
        assert f"\n## {title}\n" in REFERENCE
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert sorted(options - MARKED) == []
