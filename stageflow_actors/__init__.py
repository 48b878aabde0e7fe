"""An actor-model concurrent runtime for pipelines of stages."""

from ._bag import Attempt, StageFailure
from ._factory import ParallelPipelineFactory
from ._fanout import FanOutLimiterStage
from ._freeze import register_freezer
from ._limiter import Limiter
from ._limits import Rate
from ._mailbox import Mailbox
from ._output import StageOutput, StageReturn, StageStatus
from ._pipeline import Pipeline
from ._policy import Backoff, Directive, Intensity, Restart, StageState, Trigger
from ._ref import ActorRef
from ._result import Ledger, RunEnd, RunEnding, RunResult, StageTiming
from ._run import Run
from ._snapshot import ContextSnapshot, RunIdentity
from ._spec import StageSpec, parallel_stages, route
from ._stage import Runner, Stage, StageContext, StageInputs, StageKind
from ._stream import EventStream
from ._supervisor import Supervisor
from .errors import (
    ActorError,
    AskTimeoutError,
    OverloadedError,
    PipelineFailedError,
    PipelineValidationError,
    StageFailedError,
    StageflowError,
    StageTimeoutError,
)

__all__ = [
    "ActorError",
    "ActorRef",
    "AskTimeoutError",
    "Attempt",
    "Backoff",
    "ContextSnapshot",
    "Directive",
    "EventStream",
    "FanOutLimiterStage",
    "Intensity",
    "Ledger",
    "Limiter",
    "Mailbox",
    "OverloadedError",
    "ParallelPipelineFactory",
    "Pipeline",
    "PipelineFailedError",
    "PipelineValidationError",
    "Rate",
    "Restart",
    "Run",
    "RunEnd",
    "RunEnding",
    "RunIdentity",
    "RunResult",
    "Runner",
    "Stage",
    "StageContext",
    "StageFailedError",
    "StageFailure",
    "StageInputs",
    "StageKind",
    "StageOutput",
    "StageReturn",
    "StageSpec",
    "StageState",
    "StageStatus",
    "StageTimeoutError",
    "StageTiming",
    "StageflowError",
    "Supervisor",
    "Trigger",
    "parallel_stages",
    "register_freezer",
    "route",
]

for _name in __all__:
    # Tracebacks and documentation show the name that a user imports.
    if hasattr(globals()[_name], "__qualname__"):
        globals()[_name].__module__ = __name__
del _name
