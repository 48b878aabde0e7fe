"""What `run` is pointed at: a pipeline, or a function that returns one, in a file or a module."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import reprlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import attrs
import click

from stageflow_actors import Pipeline, PipelineValidationError
from stageflow_actors._validation import nearest

from ._settings import bind_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType, TracebackType

_DEFAULT_NAME: Final = "pipeline"


@final
class TargetError(click.ClickException):
    """There is nothing to run: one message, exit code 2."""

    exit_code = 2


@final
@attrs.frozen
class Target:
    """A pipeline, and the module in which it was found."""

    pipeline: Pipeline
    module: ModuleType


def load_target(target: str, settings: Mapping[str, str]) -> Target:
    """Import what `target` names and return its pipeline.

    Args:
        target: `path/to/file.py`, `file.py:name`, `package.module` or `package.module:name`.
        settings: Arguments of the function that returns the pipeline, if it is one.

    Raises:
        TargetError: It cannot be imported, is no pipeline, or is an invalid one.
    """
    place, colon, name = target.rpartition(":")
    if not colon or "/" in name or "\\" in name:  # no name, or the colon of a Windows drive
        place, name = target, ""
    name = name or _DEFAULT_NAME
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    module = _load_file(Path(place)) if is_file else _load_module(place)
    pipeline = _make_pipeline(_find(module, name, place), name, place, settings)
    with _showing_errors(f"{place}:{name} cannot be run"):
        pipeline.validate()
    return Target(pipeline, module)


def _load_file(path: Path) -> ModuleType:
    if not path.parent.is_dir():
        folders = [other.name for other in path.parent.parent.glob("*/")]
        _refuse(f"{path}: there is no folder {str(path.parent)!r}", nearest(path.parent.name, folders))
    if not path.is_file():
        problem = "it is a folder" if path.is_dir() else "there is no such file"
        _refuse(f"{path}: {problem}", nearest(path, map(str, path.parent.glob("*.py"))))
    # A file may bear the name of a module that is loaded already, and must not take its place.
    name = f"{path.stem}_target" if path.stem in sys.modules else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        _refuse(f"{path}: it is no Python file; its name does not end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    with _showing_errors(f"{path} cannot be imported"):
        spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        _refuse(f"{name!r} is neither a file nor the name of a module", "write path/to/file.py or package.module")
    sys.path.insert(0, str(Path.cwd()))
    with _showing_errors(f"{name} cannot be imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name and not name.startswith(f"{error.name}."):
                raise
            _refuse(f"there is no module {error.name!r}", "a file is named with its .py: path/to/file.py")


def _find(module: ModuleType, name: str, place: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        here = [
            other
            for other, value in vars(module).items()
            if isinstance(value, Pipeline) or (inspect.isfunction(value) and value.__module__ == module.__name__)
        ]
        pipelines = [other for other in here if isinstance(getattr(module, other), Pipeline)]
        hint = nearest(name, here) or (f"say which to run: {place}:{pipelines[0]}" if pipelines else None)
        _refuse(f"{place} has no {name!r}", hint or "a target is a Pipeline, or a function that returns one")
    return found


def _make_pipeline(found: Any, name: str, place: str, settings: Mapping[str, str]) -> Pipeline:
    if isinstance(found, Pipeline):
        return found
    if isinstance(found, type) or not callable(found):
        _refuse(f"{place}:{name} is {reprlib.repr(found)}, not a Pipeline or a function that returns one")
    try:
        arguments = bind_settings(found, name, settings)
    except ValueError as error:
        _refuse(str(error))
    with _showing_errors(f"{place}:{name} raised an error"):
        made = found(*arguments.args, **arguments.kwargs)
    if inspect.iscoroutine(made):
        made.close()
        _refuse(f"{place}:{name} is an async function", "define it with a plain `def`")
    if not isinstance(made, Pipeline):
        _refuse(f"{place}:{name}() returned {reprlib.repr(made)}, not a Pipeline")
    return made


def _refuse(problem: str, hint: str | None = None) -> NoReturn:
    raise TargetError(f"{problem}; {hint}" if hint else problem)


@contextlib.contextmanager
def _showing_errors(what: str) -> Iterator[None]:
    """Turn what the user's module raises into one message: a refused pipeline's own, else the traceback."""
    try:
        yield
    except PipelineValidationError as error:
        raise TargetError(str(error)) from None
    except Exception as error:
        if isinstance(error, click.ClickException):
            raise
        raise TargetError(f"{what}\n{format_error(error)}") from None


def format_error(error: Exception) -> str:
    """Return an error's traceback from the first frame that is the user's."""
    frames = error.__traceback__
    while frames is not None and _is_ours(frames):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def _is_ours(frames: TracebackType) -> bool:
    name = str(frames.tb_frame.f_globals.get("__name__"))
    return name.startswith(("stageflow_actors.", "importlib.")) or name == "importlib"
