"""What is seen from outside of one run: by those who listen to its stages' runners."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from stageflow_actors import FanOutLimiterStage, Limiter, Pipeline, StageOutput, StageSpec, StageState
from stageflow_actors._stage import inspect_runner
from stageflow_actors._validation import refuse
from stageflow_actors.errors import NotFreezableError

from ._imprint import make_imprint
from ._listening import listen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stageflow_actors import StageContext
    from stageflow_actors._definition import PipelineDefinition

RAISED: Final = "raised"
WAS_CANCELLED: Final = "was cancelled"
UNKNOWN: Final = "returned what is no output"


@final
@attrs.frozen
class Problem:
    """How a law was broken."""

    law: str
    stage: str
    """The stage, or the item of a fan-out; empty where it is about the run."""
    text: str

    def __str__(self) -> str:
        return f"{self.law}: stage {self.stage!r} {self.text}" if self.stage else f"{self.law}: {self.text}"


@final
@attrs.define(eq=False)
class Call:
    """One call of a runner: an attempt at a stage, or at an item of a fan-out."""

    stage: str
    actor: str
    """The stage, or the item: `pages[17]`."""
    attempt: int
    states: Mapping[str, StageState]
    """How the dependencies had ended, as far as it could see when it began."""
    outputs: Mapping[str, StageOutput]
    """What they had put out."""
    outcome: str | None = None
    """The status that it returned, or one of the constants above; None while it goes on."""
    imprint: object = None
    """Of the data that it returned."""

    @property
    def is_item(self) -> bool:
        """Whether it is about an item of a fan-out."""
        return self.actor != self.stage


@final
@attrs.frozen
class _Limit:
    """Something that admits only so many."""

    name: str
    most: int


@final
class Notes:
    """What was heard of one run: of its runners, some of which are in threads."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.problems: list[Problem] = []
        """What was wrong at once: somebody began who should not have."""
        self._attempts: Counter[tuple[str, int]] = Counter()
        self._inside: Counter[str] = Counter()
        """Who is inside its runner, by its name."""
        self._behind: Counter[str] = Counter()
        """How many are behind a limit, by its name."""
        self._lock = threading.Lock()

    def enter(self, call: Call, limits: Sequence[_Limit], *, repeats: bool) -> None:
        """Take note of a call that begins.

        Args:
            call: The call.
            limits: The limits that it counts for.
            repeats: Whether its attempts may be counted anew: those of items are when their stage is run again.
        """
        with self._lock:
            self.calls.append(call)
            self._attempts[call.actor, call.attempt] += 1
            self._inside[call.actor] += 1
            if self._attempts[call.actor, call.attempt] > 1 and not repeats:
                self._complain("order", call, f"began its attempt {call.attempt} twice")
            if self._inside[call.actor] > 1:
                self._complain("order", call, f"began its attempt {call.attempt} while another was going on")
            for limit in limits:
                self._behind[limit.name] += 1
                if self._behind[limit.name] > limit.most:
                    told = f"began as number {self._behind[limit.name]} behind {limit.name}, which admits {limit.most}"
                    self._complain("limits", call, told)

    def leave(self, call: Call, limits: Sequence[_Limit], outcome: str, imprint: object = None) -> None:
        """Take note of its end."""
        with self._lock:
            call.outcome, call.imprint = outcome, imprint
            self._inside[call.actor] -= 1
            for limit in limits:
                self._behind[limit.name] -= 1

    def _complain(self, law: str, call: Call, text: str) -> None:
        self.problems.append(Problem(law, call.actor, text))


@final
class Witness:
    """Has a pipeline's runners heard, run after run.

    Args:
        pipeline: The pipeline.
        max_running_stages: The supervisor's limit; None for none.
        max_threads: Likewise.
    """

    def __init__(self, pipeline: PipelineDefinition, max_running_stages: int | None, max_threads: int | None) -> None:
        self.notes = Notes()
        """Of the present run."""
        self.limiters: dict[str, Limiter] = {}
        """Those of the pipeline that is heard, by what they are called."""
        self.managed: set[str] = set()
        """The stages whose attempts are inside a context manager, which may swallow an error, or raise one."""
        self._renewed: dict[int, tuple[Limiter, _Limit]] = {}
        self._running = _make_limits("max_running_stages", max_running_stages)
        self._threads = _make_limits("max_threads", max_threads)
        self._name = pipeline.name
        self.stages = pipeline.stages
        """As they were given."""
        self.pipeline = Pipeline(pipeline.name).with_stages(map(self._watch, self.stages))
        """The same pipeline, heard, with limiters of its own."""

    def begin(self) -> Notes:
        """Forget everything: a run begins, in which nothing is found that another has left."""
        for limiter in self.limiters.values():
            limiter._gate = None  # noqa: SLF001  # a fresh limiter would be another pipeline, to be compiled again
        self.notes = Notes()
        return self.notes

    def _watch(self, spec: StageSpec) -> StageSpec:
        runner: Any = spec.runner
        limiter, limits = self._renew(spec.limiter, spec.name)
        if not isinstance(runner, FanOutLimiterStage):
            return attrs.evolve(spec, runner=self._listen(spec, runner, limits), limiter=limiter, placement=None)
        twin = copy.copy(runner)
        own, limits = self._renew(runner.limiter, spec.name)
        assert own is not None
        twin.limiter = own
        twin.worker = self._listen(spec, runner.worker, limits)
        return attrs.evolve(spec, runner=twin, limiter=limiter, placement=None)

    def _renew(self, limiter: object, stage: str) -> tuple[Limiter | None, tuple[_Limit, ...]]:
        """Return the limiter in whose place this one stands, and what it limits."""
        if not isinstance(limiter, Limiter):
            return None, ()
        if id(limiter) not in self._renewed:
            name = f"the limiter of {stage!r}"
            made = self.limiters[name] = copy.copy(limiter)
            self._renewed[id(limiter)] = made, _Limit(name, made.max_concurrency)
        made, limit = self._renewed[id(limiter)]
        return made, (limit,)

    def _listen(self, spec: StageSpec, runner: Any, own: tuple[_Limit, ...]) -> Any:
        form = inspect_runner(runner)
        if spec.placement is not None and form.is_async:
            problem = f"placement {spec.placement!r} cannot be controlled, and what awaits there cannot run elsewhere"
            refuse(problem, pipeline=self._name, stage=spec.name, hint="check it with another runner")
        if form.is_managed:
            self.managed.add(spec.name)
        limits = (*own, *self._running, *(() if form.is_async else self._threads))
        return listen(runner, form, _Ear(self, spec, limits))


def _make_limits(name: str, most: int | None) -> tuple[_Limit, ...]:
    return () if most is None else (_Limit(name, most),)


@final
class _Ear:
    """Hears one stage's runner, or a fan-out's worker."""

    def __init__(self, witness: Witness, spec: StageSpec, limits: Sequence[_Limit]) -> None:
        self._witness = witness
        self._limits = limits
        self._stage = spec.name
        self._may_repeat = spec.restart is not None
        self._names = map_names(spec)

    def began(self, ctx: StageContext) -> tuple[Notes, Call]:
        """Hear that the runner is called."""
        inputs, names = ctx.inputs, self._names
        states = {names[local]: inputs.state(local) for local in inputs}
        outputs = {names[local]: output for local, output in inputs.outputs.items()}
        call = Call(self._stage, ctx.stage_name, ctx.attempt, states, outputs)
        notes = self._witness.notes
        notes.enter(call, self._limits, repeats=self._may_repeat and call.is_item)
        return notes, call

    def returned(self, began: tuple[Notes, Call], value: Any) -> None:
        """Hear what it returned."""
        output = value
        if value is None or isinstance(value, Mapping):
            with contextlib.suppress(NotFreezableError):
                output = StageOutput.ok(value)
        notes, call = began
        if isinstance(output, StageOutput):
            notes.leave(call, self._limits, output.status.value, make_imprint(output.data))
        else:
            notes.leave(call, self._limits, UNKNOWN)

    def raised(self, began: tuple[Notes, Call], error: BaseException) -> None:
        """Hear what it raised."""
        notes, call = began
        notes.leave(call, self._limits, WAS_CANCELLED if isinstance(error, trio.Cancelled) else RAISED)


def map_names(spec: StageSpec) -> dict[str, str]:
    """Return the names of a stage's dependencies by those under which it knows them."""
    return dict(zip(spec.local_names or spec.dependencies, spec.dependencies, strict=True))
