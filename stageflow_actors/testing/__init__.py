"""Tests of races: every interleaving of a trio program under control.

`explore` runs a program under many schedules, `replay` one again, `race_test` makes a pytest test of that;
`check_pipeline` checks the laws of the runtime over the schedules of a pipeline; `run_stage` runs one stage alone;
`check_linearizable` checks what clients were told, a `History`, against a `Model`.
"""

from ._check_pipeline import check_pipeline
from ._diagnosis import Waiting
from ._explore import explore, replay
from ._faults import Cancel, ClockJump, Crash, Delay, Doubled, Dropped, Late
from ._history import History, Operation
from ._linearizability import check_linearizable, find_violation
from ._model import Model
from ._race_test import race_test
from ._reduction.shared import shared
from ._report import Certificate, RaceFailure, Report
from ._run_stage import run_stage
from ._trace import Step
from ._violation import Violation

__all__ = [
    "Cancel",
    "Certificate",
    "ClockJump",
    "Crash",
    "Delay",
    "Doubled",
    "Dropped",
    "History",
    "Late",
    "Model",
    "Operation",
    "RaceFailure",
    "Report",
    "Step",
    "Violation",
    "Waiting",
    "check_linearizable",
    "check_pipeline",
    "explore",
    "find_violation",
    "race_test",
    "replay",
    "run_stage",
    "shared",
]

for _name in __all__:
    # Tracebacks and documentation show the name that a user imports.
    globals()[_name].__module__ = __name__
del _name
