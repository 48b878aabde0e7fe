"""The documents: links lead somewhere, code prints what is shown below it, the reference leaves nothing out.

That the code in them runs at all is tested where the code stands, by sybil.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re

import pytest
from document_blocks import DOCS, DOCUMENTS, FENCE, ROOT, find_blocks, name, normalise, read

import _stageflow_actors_pytest
import stageflow_actors
from stageflow_actors import errors, events, placement, statistics, testing
from stageflow_actors.cli._commands import cli
from stageflow_actors.embed import asyncio as portal
from stageflow_actors.embed import pykka
from stageflow_actors.testing import strategies

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


def find_python(path):
    return [block for block in find_blocks(read(path)) if block.language == "python"]


WITH_OUTPUT = [path for path in DOCUMENTS if any(block.shown is not None for block in find_python(path))]


@pytest.mark.parametrize("path", WITH_OUTPUT, ids=name)
def test_code_prints_what_is_shown_below_it(path):
    namespace = {"__name__": "__main__"}
    for block in find_python(path):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block.compile(path), namespace)
        if block.shown is not None:
            assert normalise(printed.getvalue()) == normalise(block.shown)


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
    listed = getattr(module, "__all__", ())
    return {key: value for key, value in found.items() if key in listed or value.__module__ == module.__name__}


def public_members(cls):
    return {member for member in vars(cls) if not member.startswith("_")}


def test_the_reference_has_every_public_name():
    names = {*stageflow_actors.__all__, *public_classes(errors), *public_classes(events), "Event", "ActorEvent"}
    names |= {*public_classes(statistics)}
    names |= {name for module in (placement, portal, pykka, testing, strategies) for name in module.__all__}
    assert sorted(names - MARKED) == []


MODULES = [stageflow_actors, errors, events, placement, portal, pykka, statistics, testing, strategies]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
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


def test_the_reference_has_every_option_of_pytest():
    options = set(re.findall(r'"(--race[\w-]*)"', inspect.getsource(_stageflow_actors_pytest)))
    assert options
    assert sorted(options - MARKED) == []


def test_the_reference_has_every_argument_of_the_toolkit():
    public = [getattr(module, key) for module in (testing, strategies) for key in module.__all__]
    parameters = [
        each for made in filter(inspect.isfunction, public) for each in inspect.signature(made).parameters.values()
    ]
    arguments = {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}
    assert sorted(arguments - MARKED) == []
