"""Index a source tree on all cores: `source_index.py` again, each file in a worker process.

    stageflow-actors run examples/cpu_batch.py
    stageflow-actors run examples/cpu_batch.py --set root=path/to/a/folder --set workers=4 --set crashes=5

Parsing is computing: in threads of one interpreter one file is parsed at a time, whatever the number of cores. The
stages are those of `source_index.py`, and only their placement differs. A file that takes longer than `timeout`
seconds has its process killed. With `crashes` so many files kill their own worker when they are first tried, as a
faulty C extension would: they are restarted, in a new process, and the index is the same.
"""

import os
import signal
import warnings
from pathlib import Path
from typing import Any

from source_index import STDLIB, build_index, find_sources, index_file, report

from stageflow_actors import Backoff, Pipeline, Restart, StageContext, Trigger, parallel_stages
from stageflow_actors.errors import WorkerDiedError
from stageflow_actors.placement import processes

__all__ = ["pipeline", "report"]

SURVIVE = Restart(max_restarts=2, backoff=Backoff(initial=0.01, maximum=0.1), on=WorkerDiedError)
"""A file that does not parse will not parse next time: only the death of a process is a reason to try again."""


def pipeline(root: Path = STDLIB, workers: int | None = None, timeout: float = 60.0, crashes: int = 0) -> Pipeline:
    """Return a pipeline of one stage a file, each in a worker process, and a join in the run's own."""
    files = find_sources(root.resolve())
    for config in list(files.values())[:crashes]:
        config["crashes"] = True
    on_all_cores = processes(workers, initializer=silence_compiler)
    indexed = parallel_stages("{key}", index_or_crash, files, placement=on_all_cores, restart=SURVIVE, timeout=timeout)
    return (
        Pipeline("cpu-batch")
        .with_stages(indexed)
        .with_stage("join", build_index, dependencies=indexed, trigger=Trigger.ALL_DONE)
    )


def silence_compiler() -> None:
    """Ignore what the compiler thinks of other people's code; called once in each worker."""
    for category in (SyntaxWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)


def index_or_crash(ctx: StageContext) -> dict[str, Any]:
    """Read, parse and measure one file; or take the process along, where it was told to."""
    if ctx.config.get("crashes") and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return index_file(ctx)
