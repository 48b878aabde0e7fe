"""A pipeline that can be run: the definition, and the script form of running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from ._definition import PipelineDefinition
from ._snapshot import ContextSnapshot
from ._supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._result import RunResult


@final
class Pipeline(PipelineDefinition):
    """Stages and what they depend on, built by appending: `Pipeline("report").with_stage(...)`.

    Immutable: every method that adds returns a new pipeline. Compiled at the first run, once.
    """

    __slots__ = ()

    async def run(
        self,
        snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
        *,
        continue_on_failure: bool = False,
        **snapshot_fields: Any,
    ) -> RunResult:
        """Run it once, under a supervisor of its own: `trio.run(pipeline.run)`.

        Args:
            snapshot: The message for every stage; a mapping is short for a snapshot with that `data`.
            continue_on_failure: As in `Supervisor.run`.
            snapshot_fields: Fields of a `ContextSnapshot`, instead of `snapshot`.

        Raises:
            PipelineValidationError: The pipeline cannot work. Nothing has started.
            PipelineFailedError: A stage failed, without `continue_on_failure`.
            TypeError: Both a snapshot and fields, or a field that no snapshot has.
        """
        if snapshot_fields:
            if snapshot is not None:
                message = f"give a snapshot or its fields ({', '.join(snapshot_fields)}), not both"
                raise TypeError(message)
            snapshot = ContextSnapshot(**snapshot_fields)
        async with Supervisor() as supervisor:
            return await supervisor.run(self, snapshot, continue_on_failure=continue_on_failure)
