"""`processes()`: what goes into a worker process, what comes back, and that none is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import placed_stages as stages
import pytest
import trio
from named_pipe import NamedPipe

from stageflow_actors import (
    FanOutLimiterStage,
    Limiter,
    Pipeline,
    PipelineFailedError,
    PipelineValidationError,
    Restart,
    RunEnding,
    StageState,
    StageTimeoutError,
    Supervisor,
    Trigger,
    parallel_stages,
)
from stageflow_actors.errors import (
    NoOutputError,
    NotPicklableError,
    RemoteError,
    RestartIntensityError,
    UndeclaredDependencyError,
    WorkerDiedError,
)
from stageflow_actors.placement import Carrier, processes

AGAIN = Restart(max_restarts=1)


@pytest.fixture(autouse=True)
def _leaves_no_process():
    yield
    assert multiprocessing.active_children() == []


async def run_one(runner, *, snapshot=None, continue_on_failure=True, place=None, **options):
    """Run one stage in a process of its own."""
    pipeline = Pipeline("p").with_stage("a", runner, placement=place or processes(1), **options)
    return await pipeline.run(snapshot, continue_on_failure=continue_on_failure)


async def fail_one(runner, **options):
    """Return what a stage failed with."""
    result = await run_one(runner, **options)
    return result.failures["a"].error


# What goes in, what comes out


async def test_a_stage_sees_there_what_it_would_see_here():
    async def give(ctx):
        return {"rows": [1, 2], "nested": {"a": (1,)}}

    async def break_down(ctx):
        raise OSError("disk full")

    pipeline = (
        Pipeline("p")
        .with_stage("give", give)
        .with_stage("break", break_down)
        .with_stage("below", give, dependencies="break")
        .with_stage("look", stages.look, dependencies=["give", "break", "below"], trigger=Trigger.ALL_DONE)
    )
    for place in (None, processes(1)):
        *before, _ = pipeline.stages
        placed = Pipeline("p").with_stages(before)
        placed = placed.with_stage(
            "look",
            stages.look,
            dependencies=["give", "break", "below"],
            trigger=Trigger.ALL_DONE,
            config={"limit": 3},
            placement=place,
        )
        result = await placed.run({"user": "ada"}, continue_on_failure=True)
        seen = dict(result.data("look"))
        assert (seen.pop("pid") == os.getpid()) is (place is None)
        assert seen == {
            "name": "look",
            "attempt": 1,
            "key": f"{result.run_id}/look/1",
            "config": {"limit": 3},
            "data": {"user": "ada"},
            "run": result.run_id,
            "outputs": {"give": {"rows": (1, 2), "nested": {"a": (1,)}}},
            "states": {"give": "ok", "break": "failed", "below": "isolated"},
            "failures": {"break": "OSError: disk full"},
        }


async def test_an_input_that_is_missing_says_why_as_here():
    async def broken(ctx):
        raise OSError("disk full")

    pipeline = Pipeline("p").with_stage("broken", broken)
    asks = partial(pipeline.with_stage, "asks", dependencies="broken", trigger=Trigger.ALL_DONE)
    told = []
    for place in (None, processes(1)):
        for runner in (stages.ask_for_output, stages.misses):
            result = await asks(runner=runner, placement=place).run(continue_on_failure=True)
            error = result.failures["asks"].error
            told.append((type(error), str(error)))
    assert told[:2] == told[2:]
    assert [kind for kind, _ in told[:2]] == [NoOutputError, UndeclaredDependencyError]


async def test_a_failure_that_cannot_be_pickled_is_passed_on_in_words():
    async def broken(ctx):
        raise stages.LockedError

    pipeline = (
        Pipeline("p")
        .with_stage("broken", broken)
        .with_stage("look", stages.look, dependencies="broken", trigger=Trigger.ALL_DONE, placement=processes(1))
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.data("look")["failures"] == {"broken": "RemoteError: LockedError: locked"}


async def test_a_class_is_made_where_it_runs_and_an_instance_goes_there():
    place = processes(1)
    pipeline = (
        Pipeline("p")
        .with_stage("class", stages.Adds, placement=place)
        .with_stage("partial", partial(stages.Adds, base=10), placement=place)
        .with_stage("instance", stages.Adds(20), placement=place)
    )
    result = await pipeline.run({"n": 1})
    found = {name: result.data(name) for name in result}
    assert {name: data["sum"] for name, data in found.items()} == {"class": 1, "partial": 11, "instance": 21}
    assert {name: data["made_in"] == os.getpid() for name, data in found.items()} == {
        "class": False,
        "partial": False,
        "instance": True,
    }
    assert len({data["runs_in"] for data in found.values()} - {os.getpid()}) == 1
    assert pipeline.stages[0].kind == "transform"


async def test_events_arrive_when_the_stage_has_ended_also_one_that_failed():
    pipeline = (
        Pipeline("p")
        .with_stage("fine", stages.emit, placement=processes(1))
        .with_stage("fails", stages.emit_and_fail, placement=processes(1))
    )
    async with Supervisor() as supervisor:
        run = supervisor.start(pipeline, continue_on_failure=True)
        async with run.events() as events:
            emitted = [(event.stage, event.event) async for event in events if hasattr(event, "event")]
        await run.result()
    assert sorted(emitted, key=str) == [("fails", "so far"), ("fine", "done"), ("fine", {"half": True})]


async def test_a_returned_retry_is_one():
    result = await run_one(stages.return_a_retry, restart=AGAIN)
    assert result.data("a") == {"attempt": 2}


async def test_the_items_of_a_fan_out_run_there():
    fan = FanOutLimiterStage(stages.echo_item, items=range(4), limiter=Limiter(2))
    result = await run_one(fan, place=processes(2))
    results = result.data("a")["results"]
    assert [each["item"] for each in results] == [0, 1, 2, 3]
    assert os.getpid() not in {each["pid"] for each in results}


# Errors


async def test_an_error_keeps_its_type_cause_notes_and_traceback():
    error = await fail_one(stages.fail_with_cause)
    assert type(error) is ValueError
    assert error.__notes__ == ["seen twice"]
    assert type(error.__cause__) is KeyError
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["fail_with_cause"]
    shown = [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]
    assert shown == ["fail_with_cause", "fail_in_depth"]
    assert "placed_stages.py" in "".join(traceback.format_exception(error))


async def test_a_group_stays_one():
    error = await fail_one(stages.fail_in_a_group)
    assert isinstance(error, ExceptionGroup)
    assert [type(each) for each in error.exceptions] == [ValueError, KeyError]


async def test_an_error_whose_class_takes_more_than_its_arguments_comes_back():
    error = await fail_one(stages.fail_oddly)
    assert type(error) is stages.OddError
    assert (str(error), error.code) == ("7: odd", 7)


@pytest.mark.parametrize("runner", [stages.fail_to_decode, stages.fail_to_parse, stages.fail_to_open])
async def test_an_error_keeps_what_only_its_constructor_sets(runner):
    with pytest.raises((UnicodeDecodeError, SyntaxError, OSError)) as caught:
        runner(None)
    here, there = caught.value, await fail_one(runner)
    assert type(there) is type(here)
    assert str(there) == str(here)
    for name in ("errno", "filename", "start", "object", "lineno", "msg"):
        assert getattr(there, name, None) == getattr(here, name, None)


async def test_errors_that_lead_back_to_each_other_come_back_as_they_are():
    error = await fail_one(stages.fail_in_a_circle)
    assert error.other.other is error


async def test_an_error_of_a_thousand_frames_comes_back_somehow():
    error = await fail_one(stages.fail_too_deep)
    assert isinstance(error, RecursionError) or error.kind == "RecursionError"


async def test_an_error_that_cannot_travel_comes_back_in_words():
    error = await fail_one(stages.fail_locked)
    assert type(error) is RemoteError
    assert str(error) == "pipeline 'p', stage 'a': LockedError: locked"
    assert error.kind == "LockedError"
    assert "in fail_locked" in error.traceback


async def test_a_system_exit_ends_the_run_as_it_does_from_a_thread():
    with pytest.raises(SystemExit) as caught:
        await run_one(stages.exit_politely)
    assert caught.value.code == 3


async def test_a_contract_is_broken_there_as_here():
    error = await fail_one(stages.return_a_number, restart=AGAIN)
    assert str(error).startswith("pipeline 'p', stage 'a': it returned 7, of type int")


HINT = "what goes to another process is data, and functions and classes of modules"


@pytest.mark.parametrize(
    ("runner", "what"),
    [(stages.return_a_lambda, "what it returned"), (stages.emit_a_lambda, "the event that it emits")],
)
async def test_what_cannot_come_back_is_named_and_not_tried_again(runner, what):
    result = await run_one(runner, restart=AGAIN)
    error = result.failures["a"].error
    assert type(error) is NotPicklableError
    assert str(error).startswith(f"pipeline 'p', stage 'a': {what} cannot be pickled: ")
    assert str(error).endswith(f"; {HINT}")
    assert len(result.failures["a"].attempts) == 1


async def give_a_lock(ctx):
    return {"lock": threading.Lock()}


@pytest.mark.parametrize("what", ["its snapshot", "its configuration", "an output of its dependencies"])
async def test_what_cannot_go_there_is_named_before_anything_is_sent(what):
    lock = threading.Lock()
    pipeline = Pipeline("p").with_stage("lock", give_a_lock)
    needs_it = what == "an output of its dependencies"
    pipeline = pipeline.with_stage(
        "a",
        stages.look,
        dependencies="lock" if needs_it else (),
        config={"lock": lock} if what == "its configuration" else None,
        placement=processes(1),
    )
    snapshot = {"lock": lock} if what == "its snapshot" else None
    result = await pipeline.run(snapshot, continue_on_failure=True)
    error = result.failures["a"].error
    assert type(error) is NotPicklableError
    assert (
        str(error) == f"pipeline 'p', stage 'a': {what} cannot be pickled: cannot pickle '_thread.lock' object; {HINT}"
    )


async def test_what_cannot_be_read_there_is_said(monkeypatch, tmp_path):
    module = tmp_path / "here_only.py"
    module.write_text("def stage(ctx):\n    return {}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import here_only  # noqa: PLC0415 (it is there only now)

    monkeypatch.undo()
    module.unlink()
    error = await fail_one(here_only.stage)
    problem = "its worker process could not read it: ModuleNotFoundError: No module named 'here_only'"
    hint = "it imports the modules anew: let them be importable, without effects outside of functions"
    assert str(error) == f"pipeline 'p', stage 'a': {problem}; {hint}"


# Deaths and ends


async def test_a_worker_that_is_killed_is_a_failure_of_its_stage_alone():
    place = processes(1)
    pipeline = (
        Pipeline("p")
        .with_stage("dies", stages.die, placement=place)
        .with_stage("below", stages.read_pid, dependencies="dies", placement=place)
        .with_stage("other", stages.read_pid, placement=place)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.states == {"dies": StageState.FAILED, "below": StageState.ISOLATED, "other": StageState.OK}
    error = result.failures["dies"].error
    assert type(error) is WorkerDiedError
    assert str(error) == "pipeline 'p', stage 'dies': its worker process was killed by SIGKILL"
    assert error.exitcode == -signal.SIGKILL


async def test_a_worker_that_dies_is_restarted_and_one_that_dies_again_is_given_up():
    place = processes(1)
    pipeline = (
        Pipeline("p")
        .with_stage("once", stages.die_once, placement=place, restart=Restart(max_restarts=1, on=WorkerDiedError))
        .with_stage("always", stages.die, placement=place, restart=AGAIN)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.data("once") == {"attempt": 2}
    error = result.failures["always"].error
    assert isinstance(error, RestartIntensityError)
    assert [type(attempt.error) for attempt in error.attempts] == [WorkerDiedError, WorkerDiedError]


async def test_a_timeout_kills_the_process(autojump_clock, tmp_path):
    with NamedPipe(tmp_path) as pipe:
        result = await run_one(stages.spin, config={"pipe": str(pipe.path)}, timeout=30)
        assert isinstance(result.failures["a"].error, StageTimeoutError)
        pipe.wait_for_end()


async def test_cancelling_the_run_kills_the_process(tmp_path):
    with NamedPipe(tmp_path) as pipe:
        async with Supervisor() as supervisor:
            run = supervisor.start(
                Pipeline("p").with_stage("a", stages.spin, config={"pipe": str(pipe.path)}, placement=processes(1))
            )
            await trio.to_thread.run_sync(pipe.wait_for_begin)
            run.cancel("enough")
            result = await run.result()
            pipe.wait_for_end()
        assert result.ended.ending is RunEnding.CANCELLED
        assert result.states["a"] is StageState.CANCELLED


async def test_cancelling_a_supervisor_kills_all(tmp_path):
    with NamedPipe(tmp_path) as pipe:
        async with trio.open_nursery() as nursery:

            async def live():
                async with Supervisor() as supervisor:
                    spinning = Pipeline("p").with_stage(
                        "a", stages.spin, config={"pipe": str(pipe.path)}, placement=processes(1)
                    )
                    await supervisor.run(spinning)

            nursery.start_soon(live)
            await trio.to_thread.run_sync(pipe.wait_for_begin)
            nursery.cancel_scope.cancel()
        assert multiprocessing.active_children() == []
        pipe.wait_for_end()


PROGRAM = """
import sys
import trio
import placed_stages
from stageflow_actors import Pipeline
from stageflow_actors.placement import processes

if __name__ == "__main__":
    spin = dict(runner=placed_stages.spin, config={"pipe": sys.argv[1]}, placement=processes(1))
    trio.run(Pipeline("p").with_stage("a", **spin).run)
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 1)])
def test_a_busy_worker_ends_with_the_process_above_it(tmp_path, sent, status):
    """Killed, so that nothing of it can tidy up; and interrupted, as from a terminal."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    with NamedPipe(tmp_path) as pipe:
        command = [sys.executable, str(program), str(pipe.path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        try:
            pipe.wait_for_begin()
            process.send_signal(sent)
            _, shown = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode in {status, -sent}
        assert (b"KeyboardInterrupt" in shown) is (sent is signal.SIGINT)
        pipe.wait_for_end()


INTERRUPTED = """
import os
import signal
import trio
import placed_stages
from stageflow_actors import Pipeline
from stageflow_actors.placement import processes

if __name__ == "__mp_main__":  # a worker that is starting, when somebody presses Ctrl-C
    os.kill(os.getpid(), signal.SIGINT)
if __name__ == "__main__":
    pipeline = Pipeline("p").with_stage("a", placed_stages.look_at_interrupts, placement=processes(1))
    print(trio.run(pipeline.run).data("a"))
"""


def test_a_worker_that_starts_does_not_hear_an_interrupt(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED, encoding="utf-8")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("{'ignored': True, 'blocked': False}\n", "")


# The pool


async def test_workers_are_kept_between_runs_and_no_more_than_so_many(tmp_path):
    place = processes(2)
    pipeline = Pipeline("p").with_stages(parallel_stages("w{key}", stages.read_pid, range(12), placement=place))
    seen = set()
    async with Supervisor() as supervisor:
        for _ in range(3):
            result = await supervisor.run(pipeline)
            seen |= {output.data["pid"] for output in result.values()}
        assert {process.pid for process in multiprocessing.active_children()} == seen
    assert 1 <= len(seen) <= 2


async def test_the_initializer_runs_once_in_each_worker():
    place = processes(1, initializer=stages.get_ready)
    pipeline = Pipeline("p").with_stage("a", stages.read_state, placement=place)
    async with Supervisor() as supervisor:
        for _ in range(2):
            assert (await supervisor.run(pipeline)).data("a") == {"ready": 1}
    assert stages.state == {"ready": 0}


async def test_an_initializer_that_fails_is_the_stages_failure_and_is_called_again():
    error = await fail_one(stages.read_pid, place=processes(1, initializer=stages.break_down), restart=AGAIN)
    assert [str(attempt.error) for attempt in error.attempts] == ["no licence", "no licence"]


# What is carried along


async def test_context_variables_are_carried_where_that_was_asked_for():
    stages.request.set("r-7")
    pipeline = (
        Pipeline("p")
        .with_stage("plain", stages.read_request, placement=processes(1))
        .with_stage("carries", stages.read_request, placement=processes(1, carry=[stages.request, stages.carried]))
    )
    result = await pipeline.run()
    assert result.data("plain") == {"request": "none", "carried": "nothing"}
    assert result.data("carries") == {"request": "r-7", "carried": "nothing"}


async def test_what_one_stage_sets_the_next_in_the_same_worker_does_not_see():
    place = processes(1)
    pipeline = Pipeline("p").with_stage("set", stages.change_request, placement=place)
    pipeline = pipeline.with_stage("read", stages.read_request, placement=place, dependencies="set")
    assert (await pipeline.run()).data("read")["request"] == "none"


async def test_a_carrier_takes_along_what_cannot_be_pickled_itself():
    stages.request.set("r-8")
    place = processes(1, carry=[Carrier(stages.capture_request, stages.restore_request)])
    result = await run_one(stages.read_request, place=place)
    assert result.data("a")["request"] == "<r-8>"


# Refusals


async def awaits(ctx):
    """Return nothing."""


class Managed:
    async def __aenter__(self):
        """Enter."""

    async def __aexit__(self, *_):
        """Leave."""

    def execute(self, ctx):
        """Return nothing."""


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (awaits, "awaits, as it is async: a worker process runs plain functions"),
        (Managed, "is an async context manager: it would be entered in this process, and run in another"),
        (lambda ctx: None, "cannot be pickled: "),
        (partial(stages.Adds, base=threading.Lock()), "cannot be pickled: cannot pickle '_thread.lock' object"),
    ],
)
def test_what_cannot_run_there_is_refused_when_the_stage_is_added(runner, reason):
    with pytest.raises(PipelineValidationError) as caught:
        Pipeline("p").with_stage("a", runner, placement=processes(3))
    told = str(caught.value)
    assert told.startswith(f"pipeline 'p', stage 'a': placement processes(3) is not for a stage that {reason}")
    assert "pickled" not in reason or told.endswith("; make it a function or class of a module")


nowhere = {"variable": ContextVar("nowhere")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_workers": 0}, "max_workers must be "),
        ({"max_workers": "all"}, "max_workers must be "),
        ({"idle_timeout": 0}, "idle_timeout must be "),
        ({"initializer": 3}, "initializer must be a function, not 3"),
        ({"initializer": lambda: None}, "initializer cannot be pickled: "),
        ({"carry": ["request"]}, "carry takes context variables and Carriers, not 'request'"),
        (
            {"carry": [nowhere["variable"]]},
            "the context variable 'nowhere' is no global of a module; make it one, or carry what is needed of it with",
        ),
        ({"carry": [Carrier(dict, lambda value: None)]}, "the restore of a Carrier cannot be pickled: "),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(PipelineValidationError) as caught:
        processes(**options)
    assert str(caught.value).startswith(message)


async def test_fail_fast_raises_what_the_process_raised():
    with pytest.raises(PipelineFailedError) as caught:
        await run_one(stages.fail_with_cause, continue_on_failure=False)
    assert isinstance(caught.value.failures["a"].error, ValueError)


# What is found only with a process between


PLUGIN = """
class PluginError(Exception):
    pass


def fail():
    raise PluginError("no licence")
"""


async def test_an_error_that_only_the_worker_knows_comes_back_in_words(tmp_path):
    (tmp_path / "plugin_of_a_worker.py").write_text(PLUGIN, encoding="utf-8")
    error = await fail_one(stages.fail_in_a_plugin, config={"folder": str(tmp_path)})
    assert type(error) is RemoteError
    assert (error.problem, error.kind) == ("PluginError: no licence", "PluginError")
    assert "in fail_in_a_plugin" in error.traceback


async def test_an_error_keeps_its_type_where_only_the_worker_knows_its_cause(tmp_path):
    (tmp_path / "plugin_of_a_worker.py").write_text(PLUGIN, encoding="utf-8")
    error = await fail_one(stages.fail_because_of_a_plugin, config={"folder": str(tmp_path)})
    assert (type(error), str(error)) == (ValueError, "the plugin failed")
    assert "plugin_of_a_worker.PluginError: no licence" in error.__notes__[0]


async def test_an_error_from_the_depth_is_restarted_by_its_type():
    result = await run_one(stages.fail_deep_at_first, restart=Restart(max_restarts=1, on=ValueError))
    assert result.data("a") == {"attempt": 2}


async def test_a_coroutine_that_is_returned_is_named():
    error = await fail_one(stages.return_a_coroutine, restart=AGAIN)
    problem = "it returned the coroutine 'return_a_coroutine.<locals>.helper'"
    hint = "await it, or define the stage with `async def`"
    assert str(error) == f"pipeline 'p', stage 'a': {problem}; {hint}"


async def test_a_stage_that_cleans_up_sees_how_another_process_failed():
    place = processes(1)
    pipeline = (
        Pipeline("p")
        .with_stage("broken", stages.fail_oddly, placement=place, restart=AGAIN)
        .with_stage("look", stages.look, dependencies="broken", trigger=Trigger.ALL_DONE, placement=place)
    )
    result = await pipeline.run(continue_on_failure=True)
    assert result.data("look")["failures"] == {"broken": str(result.failures["broken"])}
    assert "OddError" in str(result.failures["broken"])
