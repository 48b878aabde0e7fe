"""Worker processes: whatever becomes of one is the failure of one stage, at once, and nothing of it is left."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import trio
import trio.testing
import worker_stages as stages
from named_pipe import NamedPipe

from stageflow_actors import Pipeline, Restart, RunEnding, Supervisor
from stageflow_actors.errors import RemoteError, WorkerDiedError
from stageflow_actors.placement import processes
from stageflow_actors.placement._workers import Pool


@pytest.fixture(autouse=True)
def _leaves_no_process():
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def pipe(tmp_path):
    with NamedPipe(tmp_path) as pipe:
        yield pipe


def place(runner, pipe=None, *, on=None, **options):
    config = {} if pipe is None else {"pipe": str(pipe.path)}
    return Pipeline("p").with_stage("a", runner, config=config, placement=on or processes(1), **options)


async def fail(pipeline):
    result = await pipeline.run(continue_on_failure=True)
    return result.failures["a"].error


async def wait_until_gone(pid):
    """Wait until a process has been reaped, which the supervisor does."""
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(pid, 0)
            await trio.lowlevel.checkpoint()


# What a stage leaves behind


@pytest.mark.parametrize("runner", [stages.fork_and_spin, stages.wait_for_a_program])
async def test_what_a_stage_has_started_is_killed_with_it(runner, pipe):
    async with Supervisor() as supervisor:
        run = supervisor.start(place(runner, pipe))
        await trio.to_thread.run_sync(pipe.wait_for_begin)
        run.cancel("enough")
        assert (await run.result()).ended.ending is RunEnding.CANCELLED
    pipe.wait_for_end()


async def test_a_death_is_noticed_although_a_child_of_the_process_lives_on(pipe):
    error = await fail(place(stages.fork_and_die, pipe))
    assert isinstance(error, WorkerDiedError)
    assert error.exitcode == 3
    pipe.wait_for_end()


async def test_one_that_does_not_end_by_itself_is_killed(caplog):
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    result = await place(stages.leave_a_thread).run()
    pid = result.data("a")["pid"]
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"worker process {pid} did not end by itself, and was killed"]


async def test_so_is_one_that_is_ended_for_its_idleness():
    on = processes(1, idle_timeout=0.001)
    async with Supervisor() as supervisor:
        result = await supervisor.run(place(stages.leave_a_thread, on=on))
        await wait_until_gone(result.data("a")["pid"])
        assert (await supervisor.run(place(stages.read_pid, on=on))).ok


# What becomes of a worker


async def test_a_reply_that_breaks_off_is_a_death():
    error = await fail(place(stages.break_off, restart=Restart(max_restarts=1, on=WorkerDiedError)))
    assert [attempt.error.exitcode for attempt in error.attempts] == [7, 7]


async def test_one_that_dies_idle_is_replaced_and_nobody_hears_of_it(caplog):
    caplog.set_level(logging.WARNING, logger="stageflow_actors")
    pipeline = place(stages.read_pid)
    async with Supervisor() as supervisor:
        first = (await supervisor.run(pipeline)).data("a")["pid"]
        os.kill(first, signal.SIGKILL)
        await wait_until_gone(first)
        second = (await supervisor.run(pipeline)).data("a")["pid"]
    assert first != second
    assert caplog.records == []


async def test_one_that_somebody_else_reaps_has_died_all_the_same(pipe):
    """As an application does that waits for any child that it has."""
    async with Supervisor() as supervisor:
        run = supervisor.start(place(stages.tell_and_wait, pipe), continue_on_failure=True)
        await trio.to_thread.run_sync(pipe.wait_for_begin)
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)  # noqa: ASYNC222 (before the supervisor's turn)
        error = (await run.result()).failures["a"].error
    multiprocessing.process._children.discard(process)  # which would wait for it at the end
    told = "its worker process has ended, and its exit code was taken by somebody else"
    assert str(error) == f"pipeline 'p', stage 'a': {told}"


async def test_one_that_is_idle_for_too_long_ends(mock_clock):
    pipeline = place(stages.read_pid, on=processes(1, idle_timeout=10))
    async with Supervisor() as supervisor:
        first = (await supervisor.run(pipeline)).data("a")["pid"]
        mock_clock.jump(9)
        assert (await supervisor.run(pipeline)).data("a")["pid"] == first
        mock_clock.jump(9)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(2)
        await wait_until_gone(first)
        assert (await supervisor.run(pipeline)).data("a")["pid"] != first


async def test_none_of_trios_own_threads_is_needed():
    """The application may have all of them, and wait for the supervisor there."""
    limiter = trio.to_thread.current_default_thread_limiter()
    tokens = [object() for _ in range(int(limiter.total_tokens))]
    for token in tokens:
        limiter.acquire_on_behalf_of_nowait(token)
    try:
        assert (await place(stages.read_pid).run()).ok
    finally:
        for token in tokens:
            limiter.release_on_behalf_of(token)


async def test_no_more_orders_are_packed_than_there_are_places():
    packed = []

    class Heavy:
        def __reduce__(self):
            packed.append(1)
            most.append(len(packed) - len(done))
            return int, ()

    done, most = [], []

    async def note(ctx):
        done.append(1)

    heavy = Heavy()
    on = processes(1)
    pipeline = Pipeline("p")
    for number in range(5):
        pipeline = pipeline.with_stage(f"w{number}", stages.read_pid, placement=on)
        pipeline = pipeline.with_stage(f"n{number}", note, dependencies=f"w{number}")
    await pipeline.run({"heavy": heavy})
    assert max(most) <= 2  # one is told to be done only after the next has its place


# How it begins

WITHOUT_FILE = """
import trio, worker_stages
from stageflow_actors import Pipeline
from stageflow_actors.placement import processes
if __name__ == "__main__":
    trio.run(Pipeline("p").with_stage("a", worker_stages.read_pid, placement=processes(1)).run)
"""


async def test_an_error_of_the_initializer_comes_back_as_one_of_a_stage_does():
    error = await fail(place(stages.read_pid, on=processes(1, initializer=stages.fail_locked)))
    assert isinstance(error, RemoteError)
    assert str(error) == "pipeline 'p', stage 'a': LockedError: locked"


async def test_the_initializer_does_not_count_as_time_of_the_stage_also_after_it_has_failed():
    on = processes(1, initializer=stages.take_long)
    assert (await place(stages.read_pid, on=on, timeout=0.04).run()).ok


async def test_one_that_dies_before_it_is_ready_says_what_may_be_the_reason():
    error = await fail(place(stages.read_pid, on=processes(1, initializer=stages.exit_at_once)))
    hint = "it imports the main module: let that be a file, with its work under `if __name__ == '__main__'`"
    assert (
        str(error) == f"pipeline 'p', stage 'a': its worker process ended with exit code 4 before it was ready; {hint}"
    )
    assert isinstance(error, WorkerDiedError)


def test_a_main_module_that_is_no_file_is_such_a_reason():
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-"],
        input=WITHOUT_FILE,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert "before it was ready; it imports the main module: let that be a file" in done.stderr


async def test_one_that_is_cancelled_while_it_starts_leaves_nothing():
    async with trio.open_nursery() as nursery:
        pool = Pool(nursery, stages.wait_for_ever, 60)
        with trio.CancelScope() as scope:

            async def cancel():
                while not multiprocessing.active_children():
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(cancel)
            await pool.take()
        assert scope.cancelled_caught
        await pool.close()
