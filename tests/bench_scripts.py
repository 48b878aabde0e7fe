"""How the tests of benchmarks import these: as they are when a script of theirs is run."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def make_importable(monkeypatch, names):
    """Let the modules of these names be found among the benchmarks, and be forgotten after the test."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    for name in list(sys.modules):
        if name.split(".")[0] in names:
            monkeypatch.delitem(sys.modules, name)
