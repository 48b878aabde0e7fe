"""`python -m stageflow_actors.cli` is `stageflow-actors`."""

from . import main

main()
