"""Tests of races: every interleaving of a trio program under control.

`explore` runs a program under many schedules, `replay` one again, `race_test` makes a pytest test of that;
`check_pipeline` checks the laws of the runtime over the schedules of a pipeline; `run_stage` runs one stage alone.
"""

from ._check_pipeline import check_pipeline
from ._diagnosis import Waiting
from ._explore import explore, replay
from ._faults import Cancel, ClockJump, Crash, Delay
from ._race_test import race_test
from ._report import RaceFailure, Report
from ._run_stage import run_stage
from ._trace import Step

__all__ = [
    "Cancel",
    "ClockJump",
    "Crash",
    "Delay",
    "RaceFailure",
    "Report",
    "Step",
    "Waiting",
    "check_pipeline",
    "explore",
    "race_test",
    "replay",
    "run_stage",
]

for _name in __all__:
    # Tracebacks and documentation show the name that a user imports.
    globals()[_name].__module__ = __name__
del _name
