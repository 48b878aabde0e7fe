"""What is measured already, kept in a file, so that a run that was stopped can be gone on with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class OtherRunError(Exception):
    """The file is of a run with other settings, or other versions: their figures do not belong together."""


@attrs.define
class Kept:
    """Values by name; what is not there yet is measured and, where there is a file, written as a line of it."""

    path: Path | None = None
    values: dict[str, Any] = attrs.field(factory=dict)

    def take(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what was measured under a name, or measure it now: something that JSON can say."""
        if name not in self.values:
            line = json.dumps([name, measure()])
            self.values[name] = json.loads(line)[1]
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
        return self.values[name]


def open_kept(path: Path, about: Mapping[str, Any]) -> Kept:
    """Open a file, or begin one.

    Args:
        path: Of the file.
        about: Settings and versions, which must be those of the run that began it.

    Raises:
        OtherRunError: They are not.
    """
    begun = json.dumps(["about", about], sort_keys=True)
    if not path.exists():
        path.write_text(begun + "\n", encoding="utf-8")
    first, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if first.rstrip("\n") != begun:
        raise OtherRunError(f"{path} is of a run with other settings or versions")
    if lines and not lines[-1].endswith("\n"):  # it was stopped while it wrote
        lines.pop()
        path.write_text("".join([first, *lines]), encoding="utf-8")
    return Kept(path, dict(json.loads(line) for line in lines))
