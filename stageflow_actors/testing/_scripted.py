"""The stages of drawn pipelines."""

from __future__ import annotations

from typing import Literal, TypeAlias, final, get_args

import attrs
import trio

from stageflow_actors import StageContext, StageOutput, StageReturn
from stageflow_actors._validation import nearest, refuse, require_count

from ._brief import Brief

Says: TypeAlias = Literal["ok", "skip", "fail", "retry", "raise"]


@final
@attrs.frozen(repr=False)
class Scripted(Brief):
    """A stage that does what it is told, the same in every run.

    Its data depends on all that it sees of its dependencies: `sum` is one more than the sum of theirs, `states` are
    their states by name.

    Raises:
        PipelineValidationError: A value cannot be used.
    """

    says: Says
    """What it returns, or that it raises a `RuntimeError`."""
    label: str | None = None
    """With `ok`, the label that it chooses, as a router."""
    checkpoints: int = 0
    """How often it awaits before that."""
    heals_at: int | None = None
    """From this attempt on it is ok whatever it says."""

    def __attrs_post_init__(self) -> None:
        known = get_args(Says)
        if self.says not in known:
            hint = nearest(self.says, known)
            refuse(f"what a Scripted says must be one of {', '.join(known)}, not {self.says!r}", hint=hint)
        require_count("the checkpoints of a Scripted", self.checkpoints, least=0)
        if self.heals_at is not None:
            require_count("the heals_at of a Scripted", self.heals_at)

    async def execute(self, ctx: StageContext) -> StageReturn:
        """Do what it is told."""
        for _ in range(self.checkpoints):
            await trio.lowlevel.checkpoint()
        told = f"{ctx.stage_name} was told to {self.says}"
        healed = self.heals_at is not None and ctx.attempt >= self.heals_at
        match "ok" if healed else self.says:
            case "skip":
                return StageOutput.skip(told)
            case "fail":
                return StageOutput.fail(told)
            case "retry":
                return StageOutput.retry(told)
            case "raise":
                raise RuntimeError(told)
        inputs = ctx.inputs
        data = {
            "sum": 1 + sum(inputs.get_from(name, "sum", 0) for name in inputs),
            "states": {name: inputs.state(name).value for name in inputs},
        }
        return StageOutput.ok(data) if self.label is None else StageOutput.route(self.label, data)
