"""The command line `stageflow-actors`. It needs the extra `cli`."""

from __future__ import annotations

import sys

from stageflow_actors.errors import MissingExtraError


def main() -> None:
    """Run the command line with the arguments of the process, and exit."""
    try:
        from ._commands import cli  # noqa: PLC0415 (it needs what may be missing)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("click", "rich"):
            raise
        hint = "install it: pip install 'stageflow-actors[cli]'"
        missing = MissingExtraError(f"the command line needs {package}", extra="cli", hint=hint)
        print(missing, file=sys.stderr)
        sys.exit(2)
    cli(prog_name="stageflow-actors")
