"""One stage alone, run as a run would run it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import attrs

from stageflow_actors import Pipeline, StageFailedError, StageOutput, Supervisor, Trigger
from stageflow_actors._stage import RunnerForm, bind_runner, inspect_runner
from stageflow_actors._validation import refuse

if TYPE_CHECKING:
    from types import TracebackType

    from stageflow_actors import ContextSnapshot, Runner, RunResult, StageContext, StageKind


async def run_stage(
    runner: Runner,
    snapshot: ContextSnapshot[Any] | Mapping[str, Any] | None = None,
    *,
    inputs: Mapping[str, StageOutput | Mapping[str, Any]] | None = None,
    config: Mapping[str, Any] | None = None,
    name: str = "stage",
    kind: StageKind | None = None,
    timeout: float | None = None,
) -> StageOutput:
    """Run one stage once, under a supervisor of its own, and return what it returned.

    A `skip`, `cancel`, `fail` or `retry` is returned like any output: nothing is restarted. A mapping comes back as
    the `ok` output that it means. Cancelling the caller cancels the stage.

    Example:
        ```python
        output = await run_stage(Score, {"user": 7}, inputs={"fetch": {"rows": [1, 2]}}, config={"limit": 10})
        assert output.data["score"] == 3
        ```

    Args:
        runner: The stage, in any form that `Pipeline.with_stage` takes.
        snapshot: The message; a mapping is short for a snapshot with that `data`.
        inputs: What its dependencies have put out, by name: an output that is ok or a skip; a mapping is short for
            `ok`. It runs whatever they are, as with `Trigger.ALL_DONE`.
        config: Its configuration.
        name: Its name.
        kind: What it is for; the runner's own unless given, else `WORK`.
        timeout: Seconds that it may take.

    Raises:
        PipelineValidationError: An argument cannot work. Nothing has started.
        Exception: What the stage raised, itself; a `StageTimeoutError` where it took too long, a `ContractError`
            where it returned what is no output.
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        refuse(f"inputs must be a mapping of stage to output, not {inputs!r}", hint="write inputs={'fetch': {...}}")
    given = dict(inputs or {})
    pipeline = Pipeline("run_stage")
    for dependency in given:
        pipeline = pipeline.with_stage(dependency, _stand_in)
    checked = pipeline.with_stage(
        name, runner, kind, tuple(given), config=config, trigger=Trigger.ALL_DONE, timeout=timeout
    )
    said = _Said()
    form = inspect_runner(runner)
    if not form.is_container:
        heard = attrs.evolve(checked.stages[-1], runner=_listen(runner, form, said.take))
        checked = pipeline.with_stages([heard])
    async with Supervisor() as supervisor:
        result = await supervisor.run(checked, snapshot, overrides=given, continue_on_failure=True)
    return _conclude(result, name, said.output)


async def _stand_in(_ctx: StageContext) -> None:
    """Stand for a stage whose output is given; never called."""


@final
@attrs.define
class _Said:
    """The output that the stage returned."""

    output: StageOutput | None = None

    def take(self, returned: Any) -> Any:
        if isinstance(returned, StageOutput):
            self.output = returned
        return returned


def _conclude(result: RunResult, name: str, said: StageOutput | None) -> StageOutput:
    """Return what the stage returned, or raise what it raised."""
    if name in result:
        return result[name]
    failure = result.failures.get(name)
    if failure is None:  # it cancelled the run; a fan-out, to which nobody listens, did so because a worker did
        return said or StageOutput.cancel(result.reason(name))
    error = failure.error
    if said is not None and isinstance(error, StageFailedError) and error.output is said:
        return said
    try:
        raise error.with_traceback(_without_own(error.__traceback__))
    finally:
        del result, failure, error  # the error's traceback keeps this frame


def _without_own(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    return traceback


# A runner that listens to another has the same form, so that the runtime treats the two alike: what runs in a
# thread still does, and what is entered is entered in the stage's task.


def _listen(runner: Any, form: RunnerForm, take: Callable[[Any], Any]) -> Any:
    """Return a runner that does what another does, and shows to `take` what that returns."""
    if form.is_class:
        return partial(_LISTENERS[form.is_async, form.is_managed], runner, take)
    target = bind_runner(runner, form)
    return partial(_hear if form.is_async else _hear_in_thread, target, take)


async def _hear(target: Callable[[StageContext], Awaitable[Any]], take: Callable[[Any], Any], ctx: StageContext) -> Any:
    return take(await target(ctx))


def _hear_in_thread(target: Callable[[StageContext], Any], take: Callable[[Any], Any], ctx: StageContext) -> Any:
    return take(target(ctx))


class _Listener:
    def __init__(self, cls: Callable[[], Any], take: Callable[[Any], Any]) -> None:
        self._instance = cls()
        self._take = take

    async def execute(self, ctx: StageContext) -> Any:
        return await _hear(self._instance.execute, self._take, ctx)


class _ThreadedListener(_Listener):
    def execute(self, ctx: StageContext) -> Any:
        return _hear_in_thread(self._instance.execute, self._take, ctx)


class _Entering:
    _instance: Any

    async def __aenter__(self) -> Any:
        return await self._instance.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any:
        return await self._instance.__aexit__(kind, error, traceback)


class _ManagedListener(_Entering, _Listener):
    pass


class _ThreadedManagedListener(_Entering, _ThreadedListener):
    pass


_LISTENERS: Final[Mapping[tuple[bool, bool], type[_Listener]]] = {
    (True, False): _Listener,
    (False, False): _ThreadedListener,
    (True, True): _ManagedListener,
    (False, True): _ThreadedManagedListener,
}
