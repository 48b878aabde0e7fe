"""The source index, for worker processes: as stages, and as plain functions for a pool. Workers import it from here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "examples"))

from cpu_batch import silence_compiler
from source_index import STDLIB, SourceError, find_files, index_file

from stageflow_actors import Pipeline, parallel_stages
from stageflow_actors.placement import processes

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["count_cores", "find_sources", "index", "make_pipeline", "silence_compiler"]


def find_sources() -> dict[str, dict[str, Any]]:
    """Return all files of the standard library, and what their stages are configured with."""
    return find_files(STDLIB)


def count_cores() -> int:
    """Return how many workers there are to be."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def index(name: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a stage would, or None for a file that does not parse."""
    ctx: Any = SimpleNamespace(stage_name=name, config=config)
    try:
        return index_file(ctx)
    except SourceError:
        return None


def make_pipeline(files: Mapping[str, Mapping[str, Any]], workers: int) -> Pipeline:
    """Return a stage a file, all in worker processes."""
    place = processes(workers, initializer=silence_compiler)
    return Pipeline("batch").with_stages(parallel_stages("{key}", index_file, files, placement=place))
