"""Placements: what a supervisor does with any of them, and what is refused."""

from __future__ import annotations

import logging
import signal
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
import trio

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    Restart,
    RunEnding,
    StageflowError,
    StageTimeoutError,
    Supervisor,
    parallel_stages,
)
from stageflow_actors.errors import StrayCancelledError
from stageflow_actors.placement import Host, Placement, RunnerForm, Site, threads

user = ContextVar("user", default="nobody")


class Elsewhere(Placement, Site):
    """Calls async functions, and writes down what happens to it."""

    def __init__(self, *, broken=0, refuses=None, ends_with=None):
        self.log = []
        self.broken = broken
        self.refuses = refuses
        self.ends_with = ends_with
        self.opened_by = None

    def check(self, runner, form):
        return self.refuses

    @asynccontextmanager
    async def open(self):
        self.opened_by = user.get()
        if self.broken:
            self.broken -= 1
            raise ConnectionError("nobody there")
        self.log.append("open")
        yield self
        await trio.lowlevel.checkpoint()  # closing may take its time, whoever is cancelled
        self.log.append("closed")
        if self.ends_with is not None:
            raise self.ends_with

    async def call(self, function, ctx, begin, host):
        self.log.append(ctx.stage_name)
        begin()
        return await function(ctx)

    def __repr__(self):
        return "Elsewhere()"


class Opening(Elsewhere):
    """Is opened by a function that it is made with; that gets the number of the opening."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.openings = 0

    @asynccontextmanager
    async def open(self):
        self.openings += 1
        await self.function(self.openings)
        yield self


async def nothing(ctx):
    return {}


async def forever(ctx):
    await trio.sleep_forever()


# From opening to closing


async def test_it_is_opened_when_it_is_needed_and_closed_when_the_supervisor_is_left():
    place = Elsewhere()
    here, there = Pipeline("here").with_stage("a", nothing), Pipeline("there").with_stage("b", nothing, placement=place)
    async with Supervisor() as supervisor:
        await supervisor.run(here)
        assert place.log == []
        await supervisor.run(there)
        await supervisor.run(there)
        assert place.log == ["open", "b", "b"]
    assert place.log == ["open", "b", "b", "closed"]


async def test_stages_that_need_it_at_once_share_it():
    place = Elsewhere()
    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", nothing, range(3), placement=place))
    await pipeline.run()
    assert sorted(place.log) == ["closed", "open", "w0", "w1", "w2"]


async def test_each_supervisor_opens_its_own():
    place = Elsewhere()
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place)
    async with Supervisor() as one, Supervisor() as other:
        await one.run(pipeline)
        await other.run(pipeline)
    assert place.log == ["open", "a", "open", "a", "closed", "closed"]


async def test_it_is_closed_after_its_runs_also_when_the_supervisor_is_cancelled(autojump_clock):
    place = Elsewhere()
    pipeline = Pipeline("p").with_stage("a", forever, placement=place)
    with trio.move_on_after(1) as scope:
        async with Supervisor() as supervisor:
            await supervisor.run(pipeline)
    assert scope.cancelled_caught
    assert place.log == ["open", "a", "closed"]


async def test_it_is_closed_when_the_supervisor_is_left_with_an_error():
    place = Elsewhere()
    with pytest.raises(ZeroDivisionError):
        async with Supervisor() as supervisor:
            await supervisor.run(Pipeline("p").with_stage("a", nothing, placement=place))
            raise ZeroDivisionError
    assert place.log == ["open", "a", "closed"]


async def test_a_supervisor_below_closes_its_own_with_itself():
    place = Elsewhere()
    async with Supervisor() as above:
        below = await above.spawn_supervisor(Supervisor(), name="below")
        await below.run(Pipeline("p").with_stage("a", nothing, placement=place))
        await below.stop()
        assert place.log == ["open", "a", "closed"]


async def test_it_is_opened_in_the_context_of_the_supervisor():
    place = Elsewhere()
    async with Supervisor() as supervisor:
        user.set("ada")
        await supervisor.run(Pipeline("p").with_stage("a", nothing, placement=place))
    assert place.opened_by == "nobody"


async def test_one_that_cannot_be_opened_fails_its_stages_and_is_tried_again():
    place = Elsewhere(broken=1)
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place)
    async with Supervisor() as supervisor:
        with pytest.raises(PipelineFailedError, match="ConnectionError: nobody there"):
            await supervisor.run(pipeline)
        assert (await supervisor.run(pipeline)).ok


async def test_a_restart_tries_to_open_it_again(autojump_clock):
    place = Elsewhere(broken=2)
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place, restart=Restart(max_restarts=2))
    assert (await pipeline.run()).ok


async def test_an_opening_that_goes_on_for_ever_is_cancelled_when_the_supervisor_is_left(autojump_clock, caplog):
    ended = []

    async def hang(number):
        try:
            await trio.sleep_forever()
        finally:
            ended.append(number)

    async with Supervisor() as supervisor:
        pipeline = Pipeline("p").with_stage("a", nothing, placement=Opening(hang))
        result = await supervisor.run(pipeline, timeout=1)
        assert result.ended.ending is RunEnding.TIMED_OUT
        assert ended == []  # it may be of use to the next
    assert ended == [1]
    assert caplog.records == []


async def test_what_comes_of_an_opening_that_nobody_waits_for_is_no_failure_of_the_next_run(autojump_clock, caplog):
    caplog.set_level(logging.ERROR, logger="stageflow_actors")
    gate = trio.Event()

    async def fail_first(number):
        if number == 1:
            await gate.wait()
            raise ConnectionError("nobody there")

    place = Opening(fail_first)
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place)
    async with Supervisor() as supervisor:
        await supervisor.run(pipeline, timeout=1)
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        (record,) = caplog.records
        assert record.getMessage() == "Elsewhere() could not be opened, and nobody waits for it any more"
        assert (await supervisor.run(pipeline)).ok
    assert place.openings == 2


class Breaking(Elsewhere):
    """Is gone when it is told so, with an error or without."""

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.gone = trio.Event()

    @asynccontextmanager
    async def open(self):
        async def watch():
            await self.gone.wait()
            if self.error is not None:
                raise self.error
            nursery.cancel_scope.cancel()

        self.log.append("open")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield self
            nursery.cancel_scope.cancel()
        self.log.append("ended")


@pytest.mark.parametrize(
    ("error", "log", "told"),
    [
        (None, ["open", "a", "ended"], "Elsewhere() has closed itself; it is opened again when it is needed"),
        (OSError("gone"), ["open", "a"], "Elsewhere() broke while it was open; it is opened again when it is needed"),
    ],
)
async def test_one_that_ends_while_it_is_open_is_opened_again(caplog, error, log, told):
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    place = Breaking(error)
    pipeline = Pipeline("p").with_stage("a", nothing, placement=place)
    async with Supervisor() as supervisor:
        await supervisor.run(pipeline)
        place.gone.set()
        await trio.testing.wait_all_tasks_blocked()
        assert place.log == log
        (record,) = caplog.records
        assert record.getMessage() == told
        place.gone = trio.Event()
        await supervisor.run(pipeline)
        assert place.log == [*log, "open", "a"]
    assert place.log == [*log, "open", "a", "ended"]
    assert len(caplog.records) == 1


async def test_what_goes_wrong_when_it_is_closed_is_logged(caplog):
    caplog.set_level(logging.ERROR, logger="stageflow_actors")
    place = Elsewhere(ends_with=OSError("still busy"))
    assert (await Pipeline("p").with_stage("a", nothing, placement=place).run()).ok
    (record,) = caplog.records
    assert record.getMessage() == "Elsewhere() could not be closed in order"
    assert "OSError: still busy" in caplog.text


# Errors of an opening


class FullError(StageflowError):
    """Builds its message itself."""

    def __init__(self, count):
        super().__init__(f"{count} are there")


class OddError(Exception):
    """Cannot be copied: its arguments are not what it is made of."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")


class OtherError(Exception):
    """Is copied as something else."""

    def __reduce__(self):
        return str, self.args


def fails_with(error):
    """Return a placement whose opening raises an error, once more than one stage waits for it."""

    async def fail(_number):
        await trio.testing.wait_all_tasks_blocked()
        raise error from KeyError("why")

    return Opening(fail)


def share(place, **options):
    return Pipeline("p").with_stages(parallel_stages("w{key}", nothing, range(3), placement=place, **options))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FullError(9), "pipeline 'p', stage '{}': 9 are there"),
        (OSError(2, "nobody there"), "[Errno 2] nobody there"),
        (ExceptionGroup("several", [OSError("one")]), "several (1 sub-exception)"),
    ],
)
async def test_each_stage_that_waits_gets_an_error_of_its_own(error, told):
    place = fails_with(error)
    failures = (await share(place).run(continue_on_failure=True)).failures
    errors = [failure.error for failure in failures.values()]
    assert [str(each) for each in errors] == [told.format(name) for name in failures]
    assert {type(each) for each in errors} == {type(error)}
    assert {repr(each.__cause__) for each in errors} == {"KeyError('why')"}
    assert len({id(each) for each in errors}) == 3
    assert all(each.__traceback__ is not None for each in errors)
    assert place.openings == 1


@pytest.mark.parametrize("error", [OddError(code=7), OtherError("x")])
async def test_an_error_that_cannot_be_copied_is_the_same_for_all(error):
    failures = (await share(fails_with(error)).run(continue_on_failure=True)).failures
    assert [failure.error for failure in failures.values()] == [error] * 3


async def test_its_type_decides_about_a_restart(autojump_clock):
    async def fail_first(number):
        if number == 1:
            await trio.testing.wait_all_tasks_blocked()
            raise ConnectionError("nobody there")

    place = Opening(fail_first)
    assert (await share(place, restart=Restart(max_restarts=1, on=ConnectionError)).run()).ok
    assert place.openings == 2


async def test_a_cancelled_that_nobody_has_sent_is_the_failure_of_the_stage():
    async def raise_stray(_number):
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                kept = cancelled
        raise kept

    pipeline = Pipeline("p").with_stage("a", nothing, placement=Opening(raise_stray))
    result = await pipeline.run(continue_on_failure=True)
    assert isinstance(result.failures["a"].error, StrayCancelledError)


# Exits and interrupts


async def test_an_exit_while_it_is_opened_ends_all_runs_that_wait():
    place = fails_with(SystemExit(3))
    caught = []

    async def run(name):
        try:
            await supervisor.run(Pipeline(name).with_stage("a", nothing, placement=place), continue_on_failure=True)
        except SystemExit as exits:
            caught.append(exits.code)

    async with Supervisor() as supervisor, trio.open_nursery() as nursery:
        for name in ("p", "q"):
            nursery.start_soon(run, name)
    assert caught == [3, 3]
    assert place.openings == 1


async def test_an_exit_of_an_opening_that_nobody_waits_for_ends_the_supervisor(autojump_clock):
    gate = trio.Event()

    async def leave(_number):
        await gate.wait()
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        async with Supervisor() as supervisor:
            await supervisor.run(Pipeline("p").with_stage("a", nothing, placement=Opening(leave)), timeout=1)
            gate.set()
            await trio.sleep_forever()
    assert caught.value.code == 3


async def test_an_exit_while_it_is_closed_comes_out_as_it_is():
    place = Elsewhere(ends_with=SystemExit(4))
    with pytest.raises(SystemExit) as caught:
        await Pipeline("p").with_stage("a", nothing, placement=place).run()
    assert caught.value.code == 4


def test_interrupts_reach_what_opens_it():
    interrupted = []

    async def compute(_number):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            interrupted.append(True)
            raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(Pipeline("p").with_stage("a", nothing, placement=Opening(compute)).run)
    assert interrupted == [True]


def test_interrupts_reach_what_closes_it():
    interrupted = []

    class Computing(Elsewhere):
        @asynccontextmanager
        async def open(self):
            yield self
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                interrupted.append(True)
                raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(Pipeline("p").with_stage("a", nothing, placement=Computing()).run)
    assert interrupted == [True]


# Which it is


async def test_those_that_are_equal_are_not_the_same():
    class Equal(Elsewhere):
        def __eq__(self, other):
            return isinstance(other, Equal)

        __hash__ = None

    one, other = Equal(), Equal()
    pipeline = Pipeline("p").with_stage("a", nothing, placement=one).with_stage("b", nothing, placement=other)
    assert (await pipeline.run()).ok
    assert (one.log, other.log) == (["open", "a", "closed"], ["open", "b", "closed"])


# What of a stage goes through it


async def test_the_timeout_counts_from_its_beginning_there(autojump_clock):
    class Slow(Elsewhere):
        async def call(self, function, ctx, begin, host):
            await trio.sleep(100)
            begin()
            return await function(ctx)

    pipeline = Pipeline("p").with_stage("a", forever, placement=Slow(), timeout=5)
    result = await pipeline.run(continue_on_failure=True)
    assert isinstance(result.failures["a"].error, StageTimeoutError)
    assert trio.current_time() >= 105


async def test_without_a_beginning_there_is_no_timing(autojump_clock):
    class Silent(Elsewhere):
        async def call(self, function, ctx, begin, host):
            await trio.sleep(10)
            return function(ctx)

    result = await Pipeline("p").with_stage("a", lambda ctx: {}, placement=Silent(), timeout=5).run()
    assert result.ok
    assert result.timings == {}


async def test_it_is_told_of_the_runner_and_of_the_budget():
    class Curious(Elsewhere):
        def check(self, runner, form):
            self.log.append(form)

        async def call(self, function, ctx, begin, host):
            self.log.append(host)
            begin()
            return await function(ctx)

    place = Curious()
    async with Supervisor(shutdown=3) as supervisor:
        await supervisor.run(Pipeline("p").with_stage("a", nothing, placement=place))
    form, _, host, _ = place.log
    assert isinstance(form, RunnerForm)
    assert (form.is_class, form.is_async, form.is_managed) == (False, True, False)
    assert isinstance(host, Host)
    assert host.shutdown.seconds == 3
    assert {Host.__module__, RunnerForm.__module__} == {"stageflow_actors.placement"}


async def test_the_items_of_a_fan_out_run_there_and_the_stage_does_not():
    place = Elsewhere()
    fan = FanOutLimiterStage(nothing, items=range(3), limiter=Limiter(1))
    result = await Pipeline("p").with_stage("fan", fan, placement=place).run()
    assert result.data("fan")["ok"] == 3
    assert place.log == ["open", "fan[0]", "fan[1]", "fan[2]", "closed"]


async def test_a_subpipeline_keeps_the_placements_of_its_stages():
    place = Elsewhere()
    inner = Pipeline("inner").with_stage("a", nothing, placement=place)
    await Pipeline("outer").subpipeline("sub", inner).run()
    assert place.log == ["open", "sub/a", "closed"]


async def test_the_same_runner_may_run_here_and_there():
    place = Elsewhere()
    pipeline = Pipeline("p").with_stage("here", nothing).with_stage("there", nothing, placement=place)
    await pipeline.with_stage("here too", nothing).run()
    assert place.log == ["open", "there", "closed"]


# Refusals


@pytest.mark.parametrize("value", [4, "processes", threads, Elsewhere])
def test_what_is_no_placement_is_refused(value):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", nothing, placement=value)
    told = f"placement must be a placement, not {value!r}"
    hint = "write placement=processes(), from stageflow_actors.placement"
    assert str(caught.value) == f"pipeline 'p', stage 'a': {told}; {hint}"


def test_a_runner_that_cannot_run_there_is_refused_each_time():
    place = Elsewhere(refuses="never ends")
    problem = "placement Elsewhere() is not for a stage that never ends"
    built = Pipeline("p").with_stage("ok", nothing)
    with pytest.raises(PipelineValidationError) as caught:
        built.with_stage("a", nothing, placement=place)
    assert str(caught.value) == f"pipeline 'p', stage 'a': {problem}"
    with pytest.raises(PipelineValidationError) as caught:
        parallel_stages("w{key}", nothing, range(3), placement=place)
    assert str(caught.value) == f"stage 'w{{key}}': {problem}"
    with pytest.raises(PipelineValidationError, match="is not for a stage that never ends"):
        built.with_stage("fan", FanOutLimiterStage(nothing, items=[1], limiter=Limiter(1)), placement=place)


async def test_a_resident_actor_is_refused():
    async with Supervisor() as supervisor:
        ref = await supervisor.spawn(nothing, name="actor")
        for runner in (ref, FanOutLimiterStage(ref, items=[1], limiter=Limiter(1))):
            with pytest.raises(PipelineValidationError) as caught:
                Pipeline("p").with_stage("a", runner, placement=Elsewhere())
            told = "a resident actor lives where it was spawned, and nowhere else"
            assert str(caught.value) == f"pipeline 'p', stage 'a': {told}; leave the placement out"
