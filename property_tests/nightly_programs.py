"""The programs that are explored at nightly size: every explored test, and larger and nastier ones by area.

The race tests of `test_explored_*.py` and of `explored_nightly` are all in here by themselves, each set of parameters a
program of its own. Every program checks its own laws.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs

from stageflow_actors.errors import RaceError
from stageflow_actors.testing import _explore, check_pipeline
from stageflow_actors.testing._race_test import ORDERS, Orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pytest

    from stageflow_actors import Pipeline
    from stageflow_actors.testing import RaceFailure, Report
    from stageflow_actors.testing._execution import Execution
    from stageflow_actors.testing._search import Strategy

FOLDER = Path(__file__).parent

AREAS = {
    "runs": ("test_explored_runs", "explored_nightly.runs"),
    "laws": ("explored_nightly.laws",),
    "placements": ("test_explored_placements",),
    "stops": ("test_explored_stops", "explored_nightly.stops"),
    "restarts": ("test_explored_restarts", "explored_nightly.restarts"),
    "fan-outs": ("explored_nightly.fanouts",),
    "limits": ("test_explored_limits", "explored_nightly.limits"),
    "admission": ("test_explored_admission", "explored_nightly.admission"),
    "asks": ("test_explored_asks", "explored_nightly.asks"),
    "mailboxes": ("test_explored_mailboxes", "explored_nightly.mailboxes"),
    "stages on actors": ("explored_nightly.stages",),
    "faults": ("test_explored_mail_faults", "explored_nightly.faults"),
    "supervision": ("test_explored_supervision", "explored_nightly.supervision"),
    "trees": ("test_explored_trees", "explored_nightly.trees"),
    "streams": ("explored_nightly.streams",),
}
"""What is explored, and the modules in this folder that have programs for it."""


@final
class Noted:
    """What the executions of an exploration were, as far as its report does not say.

    `with noted:` stands around the exploration. It listens at the one place through which all executions pass.
    """

    def __init__(self) -> None:
        self.schedules: set[int] = set()
        """The hash of each schedule; two that are different have the same with a probability of 1 in 2**61."""
        self.steps = 0

    def __enter__(self) -> Noted:
        self._drive: Callable[..., None] = vars(_explore)["drive"]
        vars(_explore)["drive"] = self._drive_and_listen
        return self

    def __exit__(self, *exc: object) -> None:
        vars(_explore)["drive"] = self._drive

    def _drive_and_listen(self, world: Any, search: Any, **options: Any) -> None:
        self._drive(world, _Listening(search, self), **options)


class _Listening:
    """A search that lets another one search, and notes what that learns."""

    def __init__(self, search: Any, noted: Noted) -> None:
        self._search = search
        self._noted = noted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._search, name)

    def learn(self, execution: Execution) -> None:
        self._noted.schedules.add(hash(tuple(execution.choices)))
        self._noted.steps += execution.steps
        self._search.learn(execution)


@final
@attrs.frozen
class RaceProgram:
    """A race test with its arguments."""

    area: str
    name: str
    test: Callable[..., None]
    arguments: Mapping[str, Any]

    def explore(self, strategy: Strategy, seed: int, executions: int) -> Report:
        """Explore it in another way than its own decorator says."""
        return self._order(Orders("", executions, strategy, seed)).reports[-1]

    def replay(self, schedule: str) -> RaceFailure | None:
        """Run it once."""
        return self._order(Orders("", schedule=schedule)).replays[-1]

    def _order(self, orders: Orders) -> Orders:
        token = ORDERS.set(orders)
        try:
            with contextlib.suppress(RaceError):  # which stands in the orders, too
                self.test(**self.arguments)
        finally:
            ORDERS.reset(token)
        return orders


@final
@attrs.frozen
class PipelineProgram:
    """A pipeline of which the laws of every pipeline are checked."""

    area: str
    name: str
    make: Callable[[], Pipeline]
    options: Mapping[str, Any]

    def explore(self, strategy: Strategy, seed: int, executions: int) -> Report:
        """Explore it.

        Raises:
            RaceError: It fails in the default schedule.
        """
        try:
            return check_pipeline(self.make, strategy=strategy, seed=seed, max_executions=executions, **self.options)
        except RaceError as error:
            report: Report | None = error.report
            if report is None:  # it fails in the default schedule, which is run before the search
                raise
            return report

    def replay(self, schedule: str) -> RaceFailure | None:
        """Run it once."""
        try:
            check_pipeline(self.make, replay=schedule, **self.options)
        except RaceError as error:
            failure: RaceFailure = error.failure
            return failure
        return None


Program = RaceProgram | PipelineProgram


def find_programs() -> dict[str, Program]:
    """Return all programs by their names, area by area."""
    found: dict[str, Program] = {}
    for area, modules in AREAS.items():
        for module in modules:
            for program in iterate_programs(area, importlib.import_module(f"{__package__}.{module}")):
                assert program.name not in found, f"there are two programs {program.name!r}"
                found[program.name] = program
    return found


def iterate_programs(area: str, module: Any) -> Iterator[Program]:
    """Yield the programs of a module."""
    for name, thing in vars(module).items():
        if inspect.isfunction(thing) and hasattr(thing, "is_race_test") and thing.__module__ == module.__name__:
            for title, arguments in _expand(thing):
                yield RaceProgram(
                    area, f"{area}: {name.removeprefix('test_').replace('_', ' ')}{title}", thing, arguments
                )
    for title, (make, options) in getattr(module, "PIPELINES", {}).items():
        yield PipelineProgram(area, f"{area}: {title}", make, options)


def _expand(test: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a title and arguments for each set of parameters that pytest would run a test with."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    for chosen in itertools.product(*map(_read_axis, reversed(marks))):
        title = ", ".join(title for title, _ in chosen)
        yield f" [{title}]" if title else "", {name: value for _, part in chosen for name, value in part.items()}


def _read_axis(mark: pytest.Mark) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a title and arguments for each value of one `parametrize`."""
    names, rows = mark.args
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    ids = mark.kwargs.get("ids")
    for index, row in enumerate(rows):
        values = row.values if hasattr(row, "marks") else row if len(names) > 1 else (row,)
        title = ids[index] if isinstance(ids, (list, tuple)) else ", ".join(map(_tell, values))
        yield title, dict(zip(names, values, strict=True))


def _tell(value: Any) -> str:
    if callable(value):
        return getattr(value, "__name__", repr(value)).replace("_", " ")
    return value if isinstance(value, str) else reprlib.repr(value)
