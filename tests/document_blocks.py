"""The blocks of the documents: Python with what it prints, commands with what they show."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^<!-- file: (\S+) -->$", re.MULTILINE)
"""Into which file a reader puts the Python from here on, so that its lines can be named."""


def name(path):
    return str(path.relative_to(ROOT))


def read(path):
    return path.read_text(encoding="utf-8")


@attrs.frozen
class Block:
    language: str
    text: str
    shown: str | None
    """What stands right below it as its output."""
    file: str | None
    before: str
    """What stands in that file already."""

    def compile(self, path):
        """Compile it as the lines that it has in its file, or in the document that it is from."""
        if self.file is None:
            return compile(self.text, str(path), "exec")
        return compile("\n" * self.before.count("\n") + self.text, self.file, "exec")


def find_blocks(text):
    """Yield the blocks of a document."""
    file, before = None, ""
    start = 0
    for block, following in pairwise([*FENCE.finditer(text), None]):
        if marker := _FILE.search(text[start : block.start()]):
            file, before = marker[1], ""
        start = block.end()
        is_shown = following and following[1] == "text" and not text[block.end() : following.start()].strip()
        yield Block(block[1], block[2], following[2] if is_shown else None, file, before)
        if block[1] == "python":
            before += f"{block[2]}\n\n"


def normalise(output):
    """Replace what differs from run to run: ids, numbers that are times or rates; and lines of the library's files."""
    output = re.sub(r"\b[0-9a-f]{32}\b", "ID", output)
    output = re.sub(r"(?<=\[)(_\w+\.py):\d+", r"\1:N", output)
    output = re.sub(r"\d[\d,]*\.\d+|\d+(,\d{3})+|\d+(?= stages/s)", "N", output)
    return "\n".join(line.rstrip() for line in output.splitlines())
