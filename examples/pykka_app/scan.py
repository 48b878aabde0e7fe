"""The pipeline of one scan: a stage for each file, and the catalogue behind them."""

import ast
import tokenize
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stageflow_actors import ActorRef, Limiter, Pipeline, Rate, StageContext, Trigger, parallel_stages


class SourceError(Exception):
    """A file that is not Python source."""


def find_files(root: Path, known: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Return the sources below a folder that are not known as they are, by the names that their stages will have."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        changed = path.stat().st_mtime_ns
        if known.get(str(path)) != changed:
            found[path.relative_to(root).as_posix()] = {"path": path, "changed": changed}
    return found


def make_pipeline(files: Mapping[str, Mapping[str, Any]], catalogue: ActorRef, rate: float | None) -> Pipeline:
    """Return a pipeline that reads files and has the catalogue store what became of them.

    Args:
        files: As found.
        catalogue: The resident actor.
        rate: How many files to begin with in a second, at most; None for no limit.
    """
    # What the compiler thinks of other people's code is no news here. Once for the whole process:
    # `warnings.catch_warnings` is not for threads.
    warnings.simplefilter("ignore")
    limiter = Limiter(8, rate=None if rate is None else Rate(1, per=1 / rate))
    workers = parallel_stages("{key}", read_file, files, limiter=limiter)
    return (
        Pipeline("scan")
        .with_stages(workers)
        .with_stage("catalogue", catalogue, dependencies=workers, trigger=Trigger.ALL_DONE)
    )


def read_file(ctx: StageContext) -> dict[str, Any]:
    """Count what is in one file; a plain function, in a worker thread."""
    path: Path = ctx.config["path"]
    try:
        with tokenize.open(path) as file:
            text = file.read()
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"{path.name}: {error}") from error
    return {
        "path": str(path),
        "changed": ctx.config["changed"],
        "lines": text.count("\n"),
        "functions": sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        "classes": sum(isinstance(node, ast.ClassDef) for node in nodes),
    }
